"""Float32 is bounded, not probed: forged tickets whose exact weights are right and whose float32 network is wrong."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.approximation import approximate
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.binary_ladder import BinaryLadder
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.reconstruct import collapse, effective_weights
from lottery_jax.tickets.rounding import gamma
from lottery_jax.tickets.ticket import load_ticket, make_ticket
from lottery_jax.tickets.verify import verify, verify_with_weights
from tests.bounds.test_output import run_float64
from tests.cli.calling import lottery_jax
from tests.constructions.catalogue import COVERED, random_target
from tests.tickets.forging import TARGET, TOLERANCE, forge, read, small_target

HALF = 17
"""Half of the candidates of a forged weight: a subset of twice as many is found by meeting in the middle."""
_BITS = (np.arange(1 << HALF)[:, None] >> np.arange(HALF)) & 1 == 1


def nearest_subset(candidates: np.ndarray, wanted: float) -> np.ndarray:
    """The subset of 2 HALF candidates whose sum is nearest to a number, bool."""
    if wanted == 0:
        return np.zeros(2 * HALF, bool)
    left, right = (_BITS @ half for half in candidates.astype(np.float64).reshape(2, HALF))
    order = np.argsort(right)
    place = np.searchsorted(right[order], wanted - left)
    found = [order[np.clip(place + step, 0, len(right) - 1)] for step in (-1, 0)]
    errors = np.stack([np.abs(left + right[at] - wanted) for at in found])
    which, best = np.unravel_index(errors.argmin(), errors.shape)
    return np.concatenate([_BITS[best], _BITS[found[which][best]]])


def cancelling(target: Target, sizes: dict[str, float], path: Path, *, seed: int = 0, relative: bool = False) -> Path:
    """A file of a ticket whose weights are sums of log-uniform candidates of about these sizes by layer.

    `relative`: its tolerance of 0.001 is a fraction of each tensor's largest weight.
    """

    def layer(own: str, node: Dense) -> CandidatesPerWeight:
        sampler = Sampler("log_uniform", low=sizes[own] / 2**8, high=sizes[own])
        return CandidatesPerWeight(node, 2 * HALF, (sampler,) * len(node.tensors()))

    network = target.network.map_layers(lambda own, node: layer(own, node) if isinstance(node, Dense) else node)
    masks = {}
    for name, drawn in network.draw(seed).items():
        wanted = target.array(name).reshape(-1).astype(np.float64)
        rows = zip(drawn.reshape(-1, 2 * HALF), wanted, strict=True)
        masks[name] = np.stack([nearest_subset(*row) for row in rows]).reshape(drawn.shape)
    ticket = make_ticket(network, seed=seed, masks=masks, method="x", target=target, tolerance=1e-3)
    ticket.save(path)
    own, tensors = read(path)
    return forge(path, own | {"relative": True} if relative else own, tensors)


def differs(path: Path, target: Target, x: list[float]) -> np.ndarray:
    """|f - g| of the float32 network of a file and the target, for one input."""
    given = np.asarray([x], np.float32)
    made = load_ticket(path).module()(jnp.asarray(given))  # type: ignore[operator]
    return np.abs(np.asarray(made, np.float64) - np.asarray(target.forward()(jnp.asarray(given))))[0]


def broken_in(path: Path, target: Target, name: str, **options: object) -> Certificate:
    """The certificate of a file that must be broken because the terms of a tensor cancel, all weights being right."""
    found = verify(path, target=target, **options)  # type: ignore[arg-type]
    assert found.within_tolerance == found.target_weights and found.outcome == "broken", found
    assert len(found.reasons) == 1 and f"terms of '{name}' cancel" in found.reasons[0]
    assert found.float32_tensor == name and found.float32_addition > found.float32_allowed  # type: ignore[operator]
    return found


def test_a_unit_that_random_inputs_never_activate_hides_nothing(tmp_path: Path) -> None:
    """relu(sum x - 9) of 10 inputs is active in one corner of the box; behind it large terms cancel."""
    weights = [np.ones((1, 10), np.float32), np.full((1, 1), 8.0, np.float32)]
    target = mlp_target(weights, [np.array([-9], np.float32), np.zeros(1, np.float32)], nonnegative=True)
    x = np.random.default_rng(0).uniform(0, 1, (10_000, 10))
    assert (x.sum(1) < 9).all()
    path = cancelling(target, {"fc1": 16.0, "fc2": 2.0**17}, tmp_path / "t", seed=3)
    assert differs(path, target, [1.0] * 10)[0] > 0.01
    broken_in(path, target, "fc2.weight")
    honest = cancelling(target, {"fc1": 16.0, "fc2": 16.0}, tmp_path / "honest")
    assert verify(honest, target=target).holds


def test_terms_that_overflow_and_cancel_are_broken_for_every_box(tmp_path: Path) -> None:
    """Two terms of 2**122 cancel exactly, and up to 16 in float32 too; at 256 the network overflows."""
    target = mlp_target([np.array([[0.5]], np.float32), np.zeros((1, 1), np.float32)], nonnegative=True)
    huge = Gadget(Dense(1, 1), 8, Sampler.signed_constant(2.0**58), Sampler.signed_constant(2.0**64))
    layers = {"fc1": CandidatesPerWeight(Dense(1, 1), 2 * HALF, (Sampler.uniform(-1, 1),)), "fc2": huge}
    network = target.network.map_layers(lambda path, node: layers.get(path, node))
    drawn = network.draw(0)
    positive = drawn["fc2.first"][0] > 0
    second = drawn["fc2.weight"][0, 0]
    pair = [np.flatnonzero(positive & (np.sign(second) == sign))[0] for sign in (1, -1)]
    masks = {name: np.zeros(value.shape, bool) for name, value in drawn.items()}
    masks["fc1.weight"][0, 0] = nearest_subset(drawn["fc1.weight"][0, 0], 0.5)
    masks["fc2.first"][0, pair] = masks["fc2.weight"][0, 0, pair] = True
    path = tmp_path / "t"
    make_ticket(network, seed=0, masks=masks, method="x", target=target, tolerance=0.1).save(path)
    assert differs(path, target, [16.0]) == 0 and not np.isfinite(differs(path, target, [256.0]))
    for box in (None, (0.0, 1.0), (0.0, 256.0)):
        broken_in(path, target, "fc2.weight", box=box)


def test_a_small_output_beside_a_large_one_is_held_to_the_same_tolerance(tmp_path: Path) -> None:
    target = mlp_target([np.array([[1000.0], [0.31]], np.float32)], nonnegative=True)
    path = cancelling(target, {"fc1": 2.0**17}, tmp_path / "t")
    assert differs(path, target, [1.0])[1] > 1e-3
    broken_in(path, target, "fc1.weight")


def test_a_large_tensor_does_not_loosen_a_relative_tolerance(tmp_path: Path) -> None:
    target = mlp_target([np.array([[1000.0]], np.float32), np.array([[0.81]], np.float32)], nonnegative=True)
    path = cancelling(target, {"fc1": 2000.0, "fc2": 2.0**17}, tmp_path / "t", relative=True)
    broken_in(path, target, "fc2.weight")
    honest = cancelling(target, {"fc1": 2000.0, "fc2": 2.0}, tmp_path / "honest", relative=True)
    assert verify(honest, target=target).holds


def test_a_ladder_whose_sums_cancel_is_broken() -> None:
    """Units that are added up and taken away again count with all their terms."""
    layer = BinaryLadder(Dense(1, 1), 24, 8)
    target = mlp_target([np.array([[1.0]], np.float32)], nonnegative=True)
    network = Network(target.network.map_layers(lambda *_: layer).root, target.network.input_spec)
    drawn = {name.removeprefix("fc1."): value for name, value in network.draw(3).items()}
    kept = {name: np.abs(value) for name, value in drawn.items() if name != "weight"}
    every = layer.coefficients("weight", np.zeros(24, int), np.arange(24), 1, kept)
    assert layer.largest_hidden(kept) >= every.max() > 1e8
    sizes = layer.term_sizes("weight", np.zeros(24, int), np.arange(24), 1, drawn)
    exact = np.abs(layer.coefficients("weight", np.zeros(24, int), np.arange(24), 1, drawn))
    assert (sizes >= exact).all() and (sizes > 100 * exact).any() and layer.hidden_roundings(drawn) == 1 + 8 * 23


@pytest.mark.parametrize("kind", ["sums", "gadget", "signs"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_sum_in_any_order_is_within_the_bound(kind: str, seed: int) -> None:
    """One layer, its terms added in float32 in random and in bad orders, compared with the exact effective weights."""
    random = np.random.default_rng(seed)
    inputs = int(random.integers(1, 12))
    sign, target = kind == "signs", mlp_target([random.uniform(-1, 1, (1, inputs))], nonnegative=kind != "signs")
    layer = CandidatesPerWeight(Dense(inputs, 1), 9, (Sampler.uniform(-4, 4),), gain=float(np.float32(1.7)))
    if kind != "sums":
        layer = Gadget(Dense(inputs, 1), 12, Sampler.uniform(-4, 4), Sampler.normal(2.0), gain=float(np.float32(0.3)))
    network = target.network.map_layers(lambda path, node: layer)
    masks = {name: random.random(drawn.shape) < 0.7 for name, drawn in network.random_tensors.items()}
    ticket = make_ticket(network, seed=seed, masks=masks, method="x", target=target, tolerance=1e6)
    found = verify(ticket, target=target)
    assert found.float32_addition is not None
    x = random.uniform(-1 if sign else 0, 1, inputs).astype(np.float32) * np.float32(2.0) ** random.integers(-20, 20)
    values, gain = ticket.masked_source(), np.float32(layer.gain)
    if kind == "sums":
        terms = [
            np.float32(w) * one for w, one in zip(values["fc1.weight"][0].sum(-1, dtype=np.float32), x, strict=True)
        ]
    else:
        hidden = np.maximum(values["fc1.first"] * x[:, None], 0)
        terms = (values["fc1.weight"][0] * hidden).reshape(-1)
    weights = effective_weights(ticket)["fc1.weight"]
    per_input = np.where(x >= 0, weights[0, 0], weights[-1, 0])
    exact, allowed = float(per_input @ x.astype(np.float64)), found.float32_addition * float(np.abs(x).sum())
    for order in (random.permutation(len(terms)), np.argsort(terms), np.argsort(-np.abs(terms))):
        total = np.float32(0)
        for place in order:
            total = np.float32(total + terms[place])
        assert abs(float(total * gain) - exact) <= allowed + 1e-12 * abs(exact)


@pytest.mark.parametrize("name", ["pensia", "scalar", "scalar-shared", "natale", "malach", "orseau", "binary", "kumar"])
@pytest.mark.parametrize("layer", [Dense(7, 3), Dense(5, 2, bias=True), Conv(2, 3, (3, 2), padding=(1, 0), bias=True)])
def test_the_network_itself_is_within_the_bound_whatever_its_masks(name: str, layer: Dense | Conv) -> None:
    """One layer of each source with random masks, in float32 as it is run, and its collapsed form in float64."""
    spec = Spec((layer.inputs,)) if isinstance(layer, Dense) else Spec((4, 3, layer.inputs))
    target = COVERED[name].takes(random_target(Network(Chain((("fc", layer),)), spec)))
    network = COVERED[name].construction.source(target)
    for seed in range(3):
        random = np.random.default_rng(seed)
        masks = {own: random.random(drawn.shape) < 0.7 for own, drawn in network.random_tensors.items()}
        ticket = make_ticket(network, seed=seed, masks=masks, method="x", target=target, tolerance=1e6)
        found = verify_with_weights(ticket, target=target)
        assert found.weights is not None and found.certificate.float32_addition is not None
        x = random.normal(size=(50, *spec.shape)) * 10.0 ** random.uniform(-3, 3, (50, *[1] * len(spec.shape)))
        x = jnp.asarray(x, jnp.float32)
        collapsed, tensors = collapse(ticket, found.weights)
        exact = run_float64(collapsed, tensors, np.asarray(x))
        made = np.asarray(ticket.module()(x), np.float64)  # type: ignore[operator]
        inputs = np.abs(np.asarray(x, np.float64)).reshape(len(x), -1).sum(1) + 1
        error = np.abs(made - exact).reshape(len(x), -1).max(1)
        # All tensors have the same tolerance, so the addition is that of the tensor with the largest.
        assert error.max() > 0 and (error <= found.certificate.float32_addition * inputs).all()


def test_gamma_is_rounded_up_and_ends() -> None:
    counts = np.array([0, 1, 100, 1e6])
    assert (gamma(counts) * (1 - counts * 2.0**-24) >= counts * 2.0**-24).all()
    assert np.isinf(gamma(2.0**24)) and np.isinf(gamma(1e300))


def test_an_honest_ticket_is_promised_for_a_box(honest: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = verify(honest["pensia"], target=TARGET)
    assert found.box == (0.0, 1.0) and found.largest_value is not None and found.largest_value < 1e3
    wide = verify(honest["pensia"], target=TARGET, box=(0.0, 100.0))
    assert wide.holds and wide.box == (0.0, 100.0) and wide.largest_value > 50 * found.largest_value  # type: ignore[operator]
    # Weights are moved alike by float32 whatever the inputs are.
    assert wide.float32_addition == found.float32_addition
    signed = small_target(nonnegative=False)
    assert verify(approximate(signed, seed=0, candidates=9, tolerance=TOLERANCE), target=signed).box == (-1.0, 1.0)
    assert lottery_jax("verify", honest["pensia"], "--box", 0, 7) == 0
    assert "for inputs from 0 to 7." in " ".join(capsys.readouterr().out.split())
    for box, words in (
        ((-1, 1), "0 or more"),
        ((1, 0), "smaller one first"),
        ((0, np.inf), "finite"),
        ((0, 1e39), "float32"),
    ):
        with pytest.raises(InputError, match=words):
            verify(honest["pensia"], target=TARGET, box=box)


def test_a_box_on_which_a_ticket_may_overflow_has_no_guarantee(honest: dict[str, Path]) -> None:
    """The absolute terms of a ticket are larger than the target's weights: it overflows first, and then both do."""
    usual = verify(honest["pensia"], target=TARGET).largest_value
    assert usual is not None
    limit = float(np.finfo(np.float32).max) / usual
    found = verify(honest["pensia"], target=TARGET, box=(0.0, 0.9 * limit))
    assert found.holds and found.largest_value is not None and 0.5 * usual < found.largest_value / limit < usual
    for part in (1.5, 30):
        found = verify(honest["pensia"], target=TARGET, box=(0.0, part * limit))
        assert found.outcome == "no guarantee" and found.largest_value is None
        assert f"no bound in float32 for inputs from 0 to {part * limit:g}; give a smaller box" in found.reasons[0]


def emptied(path: Path, out: Path, names: tuple[str, ...], tolerance: float, **header: object) -> Path:
    """A ticket's file whose masks of some layers are empty, with another tolerance."""
    own, tensors = read(path)
    for name in tensors:
        if name.startswith(tuple(f"mask.{layer}" for layer in names)):
            tensors[name] = np.zeros_like(tensors[name])
    return forge(out, own | {"tolerance": tolerance} | header, tensors)


@pytest.mark.parametrize(("layers", "tolerance"), [(("fc1", "fc2"), 1e300), (("fc2",), 1e300), (("fc1", "fc2"), 1.0)])
def test_a_promise_that_zero_weights_keep_is_no_guarantee(
    layers: tuple[str, ...],
    tolerance: float,
    honest: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = emptied(honest["scalar"], tmp_path / "t", layers, tolerance)
    found = verify(path, target=TARGET)
    assert (found.outcome, found.within_tolerance) == ("no guarantee", found.target_weights) and not found.holds
    assert "zero weights would keep the promise for 'fc1.weight' and 1 more tensors" in found.reasons[0]
    assert lottery_jax("verify", path) == 4
    assert "NO GUARANTEE: zero weights would keep the promise" in " ".join(capsys.readouterr().out.split())
    # The ticket itself, held to so large a tolerance, promises no more.
    assert verify(honest["scalar"], target=TARGET, tolerance=tolerance).outcome == "no guarantee"


def test_one_empty_tensor_is_enough_and_a_bias_is_named() -> None:
    random = np.random.default_rng(0)
    weights = [random.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in ((6, 9), (4, 6))]
    biases = [np.full(6, 0.01, np.float32), np.zeros(4, np.float32)]
    target = mlp_target(weights, biases, nonnegative=True)
    found = verify(approximate(target, seed=0, candidates=9, tolerance=TOLERANCE), target=target)
    assert found.holds and found.empty_promises == ("fc1.bias",)
    small = mlp_target([weights[0], weights[1] / 10], biases, nonnegative=True)
    found = verify(approximate(small, seed=0, candidates=9, tolerance=TOLERANCE), target=small)
    assert found.outcome == "no guarantee" and found.empty_promises == ("fc1.bias", "fc2.weight")
    assert "promise for 'fc2.weight': the tolerance 0.1 is not below the largest target weight" in found.reasons[0]
    advised = float(found.reasons[0].partition("--tolerance ")[2].removesuffix(" would be"))
    assert verify(approximate(small, seed=0, tolerance=advised), target=small).holds


def test_a_budget_is_all_that_a_ticket_with_its_own_tolerance_promises(
    honest: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = emptied(honest["scalar"], tmp_path / "t", ("fc1", "fc2"), 1e300, kept_budget=5)
    assert lottery_jax("verify", path) == 4
    assert "It only keeps its budget of 5 weights." in " ".join(capsys.readouterr().out.split())


def test_a_certificate_is_plain_json(honest: dict[str, Path]) -> None:
    row = json.loads(json.dumps(dataclasses.asdict(verify(honest["pensia"], target=TARGET)), allow_nan=False))
    assert row["box"] == [0, 1] and 0 < row["float32_addition"] < row["float32_allowed"]


def test_a_model_without_a_graph_is_held_to_float64(tmp_path: Path) -> None:
    """No network is run: its terms may cancel in float32, and not in float64."""
    arrays = {"a": np.full((1, 3), 0.3, np.float32)}
    target = Target(Network(TensorDict((("a", NamedTensor((1, 3))),))), arrays)  # type: ignore[arg-type]
    for size, outcome in ((2.0, "holds"), (2.0**12, "holds"), (2.0**45, "broken")):
        sampler = Sampler.uniform(-size, size)
        network = target.network.map_layers(lambda path, node, s=sampler: CandidatesPerWeight(node, 4, (s,)))  # type: ignore[arg-type]
        drawn, mask = network.draw(0)["a"].astype(np.float64), np.ones((1, 3, 4), bool)
        # What the ticket makes, as far as float64 shows it.
        made = Target(target.network, {"a": drawn.sum(-1)})  # type: ignore[arg-type]
        found = verify(make_ticket(network, seed=0, masks={"a": mask}, method="x", target=made, tolerance=1e-3))
        assert found.float32_addition is None and found.box is None
        assert (found.outcome, size) == (outcome, size), found.reasons
