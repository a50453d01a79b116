"""Forged tickets: whoever writes a file with a valid digest must still not get a wrong "holds", nor a traceback.

Each known hole is a test that builds its file as an attacker would.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.approximation import ToleranceObjective, approximate, plan_job, run_in_memory
from lottery_jax.cli.main import main
from lottery_jax.constructions import Scalar
from lottery_jax.errors import InputError, TicketError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tasks import export_target
from lottery_jax.tickets.ticket import make_ticket
from lottery_jax.tickets.verify import verify
from tests.tickets.forging import TARGET, TOLERANCE, Header, Tensors, forge, read, resourced, small_target


def leaf(header: Header, name: str) -> dict[str, Any]:
    """The JSON of a named node of the root chain."""
    return next(node for own, node in header["network"]["root"]["nodes"] if own == name)


def outcome(path: Path, **options: Any) -> str:
    """What the verifier says of a file, or that it is refused."""
    try:
        return verify(path, **options).outcome
    except (TicketError, InputError):
        return "refused"


# Each takes the header and the tensors of an honest ticket and forges them in place.
FORGERIES: dict[str, tuple[str, Callable[[Header, Tensors], Any]]] = {
    "a gain that is a list of ratios": (
        "pensia",
        lambda h, t: leaf(h, "fc1").update(gain=[[0.5] * 9] * 6),
    ),
    "a gain in words": ("pensia", lambda h, t: leaf(h, "fc1").update(gain="a")),
    "a gain beyond float32": ("pensia", lambda h, t: leaf(h, "fc1").update(gain=1e39)),
    "a gain of infinity": ("pensia", lambda h, t: leaf(h, "fc1").update(gain=math.inf)),
    "a negative gain": ("pensia", lambda h, t: leaf(h, "fc1").update(gain=-2.0)),
    "a gain that is no float32": ("pensia", lambda h, t: leaf(h, "fc1").update(gain=0.1)),
    "a gain of true": ("pensia", lambda h, t: leaf(h, "fc1").update(gain=True)),
    "tolerance infinity": ("pensia", lambda h, t: h.update(tolerance=math.inf)),
    "tolerance NaN": ("pensia", lambda h, t: h.update(tolerance=math.nan)),
    "tolerance null beside a target": ("pensia", lambda h, t: h.update(tolerance=None)),
    "tolerance in words": ("pensia", lambda h, t: h.update(tolerance="0.1")),
    "tolerance true": ("pensia", lambda h, t: h.update(tolerance=True)),
    "no tolerance": ("pensia", lambda h, t: h.pop("tolerance")),
    "a sampler of subnormal numbers": (
        "scalar",
        lambda h, t: leaf(h, "fc1")["samplers"][0].update(low=-5e-324, high=5e-324),
    ),
    "a sampler of one number": ("scalar", lambda h, t: leaf(h, "fc1")["samplers"][0].update(low=0.25, high=0.25)),
    "a sampler beyond float32": ("scalar", lambda h, t: leaf(h, "fc1")["samplers"][0].update(low=-1e39, high=1e39)),
    "a sampler too few": ("scalar", lambda h, t: leaf(h, "fc1")["samplers"].pop()),
    "an unknown sampler": ("scalar", lambda h, t: leaf(h, "fc1")["samplers"][0].update(kind="target")),
    "redraws of a block beyond": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([[54, 1]])})),
    "redraws whose difference wraps around": (
        "scalar",
        lambda h, t: t.update({"redraws.fc1.weight": np.array([[1, 1], [-(2**63), 1]])}),
    ),
    "redraws of a negative block": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([[-1, 1]])})),
    "redraws in one dimension": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([3, 1])})),
    "redraws that are floats": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([[3.0, 1.0]])})),
    "redraws in 32 bits": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([[3, 1]], np.int32)})),
    "redraws in no order": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([[4, 1], [3, 1]])})),
    "a block redrawn twice": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([[3, 1], [3, 2]])})),
    "attempt 0": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([[3, 0]])})),
    "unlimited attempts": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([[3, 256]])})),
    "the streams of the scores": ("scalar", lambda h, t: t.update({"redraws.fc1.weight": np.array([[3, 32768]])})),
    "redraws of what is not drawn": ("scalar", lambda h, t: t.update({"redraws.fc9.weight": np.array([[3, 1]])})),
    "another seed": ("scalar", lambda h, t: h.update(seed=1)),
    "a seed beyond 64 bits": ("scalar", lambda h, t: h.update(seed=2**64)),
    "a seed of true": ("scalar", lambda h, t: h.update(seed=True)),
    "no network": ("scalar", lambda h, t: h.update(network=None)),
    "a network of nothing": ("scalar", lambda h, t: h["network"]["root"].update(nodes=[])),
    "inputs that are a word": ("scalar", lambda h, t: h["network"].update(input_spec="pixels")),
    "inputs without a shape": ("scalar", lambda h, t: h["network"].update(input_spec=[[], True])),
    "inputs that are huge": ("scalar", lambda h, t: h["network"].update(input_spec=[[2**40], True])),
    "layers that do not fit": ("scalar", lambda h, t: leaf(h, "fc2")["layer"].update(inputs=7)),
    "a field too many": ("scalar", lambda h, t: leaf(h, "fc1").update(extra=[0.3, 0.2])),
    "a header field too many": ("scalar", lambda h, t: h.update(extra=1)),
    "bits beyond the last weight": ("scalar", lambda h, t: t["mask.fc2.bias"].__setitem__(-1, 255)),
    "a mask that is short": ("scalar", lambda h, t: t.update({"mask.fc1.weight": t["mask.fc1.weight"][:-1]})),
    "a mask of floats": ("scalar", lambda h, t: t.update({"mask.fc1.weight": t["mask.fc1.weight"].astype("f4")})),
    "no mask": ("scalar", lambda h, t: t.pop("mask.fc1.weight")),
    "a target of another shape": ("scalar", lambda h, t: t.update({"target.fc2.bias": t["target.fc2.bias"][None]})),
    "a target of whole numbers": ("scalar", lambda h, t: t.update({"target.fc2.bias": np.zeros(4, np.int64)})),
    "a tensor too many": ("scalar", lambda h, t: t.update({"stored.fc9": np.zeros(3, np.float32)})),
    "a budget in words": ("scalar", lambda h, t: h.update(kept_budget="many")),
    "settings that are a list": ("scalar", lambda h, t: h.update(settings=[1])),
    "a method without a name": ("scalar", lambda h, t: h.update(method="")),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_ticket_is_refused(name: str, honest: dict[str, Path], tmp_path: Path) -> None:
    kind, change = FORGERIES[name]
    header, tensors = read(honest[kind])
    change(header, tensors)
    path = forge(tmp_path / "forged", _json_safe(header), tensors)
    with pytest.raises(TicketError) as caught:
        verify(path, target=TARGET)
    assert "\n" not in str(caught.value)


def _json_safe(header: Header) -> Header:
    """As an attacker's own program would write it: Python's JSON knows NaN and Infinity."""
    return json.loads(json.dumps(header))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_in_a_target_hides_the_worst_weight(value: float, honest: dict[str, Path], tmp_path: Path) -> None:
    header, tensors = read(honest["scalar"])
    tensors["target.fc2.weight"][0, 0] = value
    path = forge(tmp_path / "forged", header, tensors)
    with pytest.raises(TicketError, match="NaN"):
        verify(path)
    assert outcome(path, target=TARGET) == "holds", "what it says of itself is not asked"


def test_honest_tickets_forged_again_hold(honest: dict[str, Path], tmp_path: Path) -> None:
    """The tools of these tests change nothing by themselves."""
    for path in honest.values():
        again = forge(tmp_path / path.name, *read(path))
        assert again.read_bytes() == path.read_bytes() and outcome(again, target=TARGET) == "holds"


def test_ratios_as_gains_with_all_masks_one(tmp_path: Path) -> None:
    """The hole as it was: a gain for each weight makes any source any target."""
    target = mlp_target([np.random.default_rng(0).uniform(0.1, 0.5, (3, 4)).astype(np.float32)], nonnegative=True)
    source = Network(Chain((("fc1", RandomLayer(Dense(4, 3), Sampler.uniform(-1, 1))),)), Spec((4,), True))
    masks = {"fc1.weight": np.ones((3, 4), bool)}
    ticket = make_ticket(source, seed=0, masks=masks, method="x", target=target, tolerance=1e-9)
    ticket.save(tmp_path / "plain")
    header, tensors = read(tmp_path / "plain")
    leaf(header, "fc1")["gain"] = (target.array("fc1.weight") / ticket.source()["fc1.weight"]).tolist()
    assert outcome(forge(tmp_path / "forged", header, tensors), target=target) == "refused"
    assert outcome(tmp_path / "plain", target=target) == "broken"


@pytest.mark.parametrize("layers", [("fc2",), ("fc1", "fc2")])
def test_a_layer_that_is_stored_is_not_left_out(
    layers: tuple[str, ...], honest: dict[str, Path], tmp_path: Path
) -> None:
    """The hole as it was: a layer that is no random leaf, of any weights, even the target's, was not looked at."""
    for weights in ("zeros", "the target's"):
        header, tensors = read(honest["pensia"])
        for pair in header["network"]["root"]["nodes"]:
            if pair[0] in layers:
                pair[1] = pair[1]["layer"]
        for name in [name for name in tensors if name.split(".")[1] in layers and not name.startswith("target")]:
            del tensors[name]
        for name, value in TARGET.arrays().items():
            if name.split(".")[0] in layers:
                tensors[f"stored.{name}"] = np.zeros_like(value) if weights == "zeros" else value
        path = forge(tmp_path / "forged", resourced(header), tensors)
        for options in ({}, {"target": TARGET}):
            assert outcome(path, **options) in ("broken", "refused")


def test_a_ticket_for_another_target_is_broken_and_its_own_word_is_called_that(tmp_path: Path) -> None:
    other = small_target(biases=True, seed=1)
    approximate(other, seed=0, candidates=9, tolerance=TOLERANCE).save(tmp_path / "ticket")
    assert outcome(tmp_path / "ticket", target=TARGET) == "broken"
    own = verify(tmp_path / "ticket")
    assert own.holds and own.own_target and own.target_sha256 == other.digest


def test_swapped_targets_do_not_help(honest: dict[str, Path], tmp_path: Path) -> None:
    """The user's target written into a ticket that was made for another one: its residuals are what they are."""
    approximate(small_target(biases=True, seed=1), seed=0, candidates=9, tolerance=TOLERANCE).save(tmp_path / "other")
    header, tensors = read(tmp_path / "other")
    tensors |= {name: value for name, value in read(honest["pensia"])[1].items() if name.startswith("target")}
    forged = forge(tmp_path / "forged", header, tensors)
    assert outcome(forged) == outcome(forged, target=TARGET) == "broken"


def test_inputs_that_may_be_negative_are_not_covered_by_a_promise_for_pixels(tmp_path: Path) -> None:
    """f(-1) = 0 for a target of 0.3: an honest ticket for inputs >= 0 whose header claims any sign."""
    pixels = mlp_target([np.array([[0.3]], np.float32)], nonnegative=True)
    any_sign = mlp_target([np.array([[0.3]], np.float32)])
    approximate(pixels, seed=0, candidates=9, tolerance=TOLERANCE).save(tmp_path / "ticket")
    assert verify(tmp_path / "ticket", target=pixels).nonnegative_inputs is True
    assert outcome(tmp_path / "ticket", target=any_sign) == "broken"
    header, tensors = read(tmp_path / "ticket")
    header["network"]["input_spec"][1] = False
    assert outcome(forge(tmp_path / "forged", header, tensors), target=any_sign) == "broken"


def test_an_activation_exchanged_is_another_network(honest: dict[str, Path], tmp_path: Path) -> None:
    """Every weight is right and the function is not: sigmoid in place of ReLU."""
    header, tensors = read(honest["scalar"])
    header["network"]["root"]["nodes"][1][1] = {"kind": "sigmoid"}
    forged = forge(tmp_path / "forged", resourced(header), tensors)
    found = verify(forged, target=TARGET)
    assert found.outcome == "broken" and "other layers" in found.reasons[0]


def test_large_terms_that_cancel_in_float32_are_broken() -> None:
    """Sums of huge candidates can be a weight exactly in float64; the float32 network cannot compute them."""
    target = mlp_target([np.array([[0.3125]], np.float32)], nonnegative=True)
    huge = Sampler.uniform(-(2.0**18), 2.0**18)  # in steps of 2**-6
    source = Network(Chain((("fc1", CandidatesPerWeight(Dense(1, 1), 30, (huge,))),)), Spec((1,), True))
    bits = (np.arange(1 << 15)[:, None] >> np.arange(15)) & 1 == 1
    seen = 0
    for seed in range(6):
        halves = source.draw(seed)["fc1.weight"].astype(np.float64).reshape(2, 15)
        left, right = bits @ halves[0], bits @ halves[1]
        order = np.argsort(right)
        near = order[np.clip(np.searchsorted(right[order], 0.3125 - left), 0, len(right) - 1)]
        best = np.abs(left + right[near] - 0.3125).argmin()
        mask = np.concatenate([bits[best], bits[near[best]]]).reshape(1, 1, 30)
        ticket = make_ticket(source, seed=seed, masks={"fc1.weight": mask}, method="x", target=target, tolerance=1e-3)
        found, made = verify(ticket, target=target), float(ticket.forward()(jnp.ones((1, 1)))[0, 0])
        if found.worst_residual == 0 and abs(made - 0.3125) > 1e-3:
            assert found.outcome == "broken" and "terms of 'fc1.weight' cancel" in found.reasons[0]
            seen += 1
    assert seen > 1


def test_free_choices_are_counted(tmp_path: Path) -> None:
    """One candidate and the best of many draws meets any weight; how often is capped, said and counted in bits."""
    target = mlp_target([np.random.default_rng(0).uniform(-0.5, 0.5, (4, 8)).astype(np.float32)], nonnegative=True)
    job = plan_job(target, Scalar(candidates=1), ToleranceObjective(0.1, max_redraws=20), seed=0)
    found = verify(run_in_memory(job), target=target)
    assert 1 < found.largest_attempt <= 20 and found.redrawn_blocks > 15
    assert found.description_bits["redraws"] >= found.redrawn_blocks * math.log2(20), "as many attempts, all over"
    with pytest.raises(InputError, match="255"):
        plan_job(target, Scalar(candidates=1), ToleranceObjective(0.05, max_redraws=256), seed=0)


def test_exit_codes_of_the_command(honest: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, other = tmp_path / "target.safetensors", tmp_path / "other.safetensors"
    export_target(TARGET, target)
    export_target(small_target(biases=True, seed=1), other)
    header, tensors = read(honest["pensia"])
    bare = {name: value for name, value in tensors.items() if not name.startswith("target")}
    nothing = forge(tmp_path / "bare", {**header, "tolerance": None}, bare)
    codes = {
        (honest["pensia"],): 0,
        (honest["pensia"], "--target", target): 0,
        (honest["pensia"], "--target", other): 1,
        (honest["pensia"], "--target", target, "--tolerance", 1e-9): 1,
        (nothing,): 4,
        (nothing, "--target", target, "--tolerance", TOLERANCE): 0,
    }
    for words, code in codes.items():
        with pytest.raises(SystemExit) as stopped:
            main(["verify", *map(str, words)])
        assert stopped.value.code == code, capsys.readouterr()
    text = capsys.readouterr().out
    for word in (
        "HOLDS",
        "BROKEN",
        "NO GUARANTEE",
        "unverified copy",
        "never negative",
        TARGET.digest[:16],
        "U[-1, 1]",
    ):
        assert word in text
