"""Tickets of trained weights: they prove nothing, and the verifier sees where they are not what they say."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lottery_jax.cli.verify import certificate_row, certificate_sentences
from lottery_jax.errors import InputError, TicketError
from lottery_jax.importers.state_dict import target_of_network
from lottery_jax.io.checksummed_file import digest
from lottery_jax.io.tensor_file import TensorFile, read_array
from lottery_jax.networks.forward import forward
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import BatchNorm
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.sources.trained_layer import PartlyTrainedLayer, TrainedLayer
from lottery_jax.networks.target import Target
from lottery_jax.pruning.base import random_network
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tasks import export_target
from lottery_jax.tickets.export import export_into, export_masks, export_weights
from lottery_jax.tickets.reconstruct import collapse, effective_weights
from lottery_jax.tickets.ticket import Ticket, load_ticket, make_ticket
from lottery_jax.tickets.verify import verify
from tests.tickets.forging import Header, Tensors, forge, read

LEAF = TrainedLayer(Dense(4, 3, bias=True), Sampler.normal(0.5))
NETWORK = Network(LEAF, Spec((4,)))
MASK = np.random.default_rng(0).random((3, 4)) < 0.5
WEIGHT = np.where(MASK, np.random.default_rng(1).normal(size=(3, 4)), 0).astype(np.float32)
BIAS = np.array([1, -2, 0.5], np.float32)
KEPT = int(MASK.sum())


def ticket(**changes: Any) -> Ticket:
    usual = {
        "seed": 3,
        "masks": {"weight": MASK},
        "method": "magnitude",
        "stored": {"trained_weight": WEIGHT, "bias": BIAS},
        "settings": {"kept": {"weight": KEPT}},
    }
    return make_ticket(NETWORK, **{**usual, **changes})


def show(found: Any) -> str:
    return "\n".join(certificate_sentences({"ticket": "t", **certificate_row(found, 9)}))


def test_initial_weights_are_those_of_single() -> None:
    single = Network(RandomLayer(Dense(4, 3), LEAF.sampler), Spec((4,)))
    np.testing.assert_array_equal(NETWORK.draw(3)["weight"], single.draw(3)["weight"])


def test_every_way_to_its_outputs_is_one() -> None:
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    expected = x @ WEIGHT.T + BIAS
    made = effective_weights(ticket())
    assert list(made) == ["weight"]
    network, tensors = collapse(ticket(), made)
    exact = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
    for function in (ticket().forward(), ticket().module(), forward(network, exact)):
        np.testing.assert_allclose(function(x), expected, rtol=1e-5, atol=1e-6)  # type: ignore[operator]


def test_it_is_no_strong_ticket_whatever_the_target() -> None:
    """Weights that are stored can be any target's: they are never held to one."""
    target = Target(NETWORK.target, {"weight": WEIGHT, "bias": BIAS})
    found = verify(ticket(), target=target, tolerance=0.1)
    assert (found.outcome, found.trained, found.holds, found.within_tolerance) == (
        "no guarantee",
        True,
        False,
        None,
    )
    assert found.description_bits["stored"] == 32 * (KEPT + 3)
    assert "not a strong lottery ticket" in show(found) and "NO GUARANTEE" in show(found)
    with pytest.raises(InputError, match="a ticket of trained weights must promise nothing"):
        ticket(target=target, tolerance=0.1)


FORGERIES: dict[str, tuple[Callable[[Header, Tensors], Any], str]] = {
    "a pruned weight that is not zero": (
        lambda h, t: t["stored.trained_weight"].reshape(-1).put(np.flatnonzero(~MASK)[:2], 1e-30),
        "2 pruned weights of weight are not zero",
    ),
    "a pruned weight that is no number": (
        lambda h, t: t["stored.trained_weight"].reshape(-1).put(np.flatnonzero(~MASK)[0], np.nan),
        "1 pruned weights of weight are not zero",
    ),
    "a kept weight that is infinite": (
        lambda h, t: t["stored.trained_weight"].reshape(-1).put(np.flatnonzero(MASK)[0], np.inf),
        "1 kept weights of weight are not finite",
    ),
    "another number kept than it says": (
        lambda h, t: h["settings"].update(kept={"weight": KEPT - 1}),
        f"keeps {KEPT}, which is not what its settings say",
    ),
    "a tensor that it does not speak of": (lambda h, t: h["settings"].update(kept={}), "not what its settings say"),
    "a number in words": (lambda h, t: h["settings"].update(kept={"weight": str(KEPT)}), "not what its settings say"),
    "numbers without names": (lambda h, t: h["settings"].update(kept=[KEPT]), "not numbers by name"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_ticket_that_is_not_what_it_says_is_broken(name: str, tmp_path: Path) -> None:
    change, reason = FORGERIES[name]
    ticket().save(tmp_path / "honest")
    header, tensors = read(tmp_path / "honest")
    change(header, tensors)
    found = verify(forge(tmp_path / "forged", json.loads(json.dumps(header)), tensors))
    assert found.outcome == "broken" and reason in found.reasons[0]
    assert f"BROKEN: {found.reasons[0]}." in show(found)


FROZEN = ~MASK & (np.random.default_rng(4).random((3, 4)) < 0.5)
PARTLY = Network(PartlyTrainedLayer(LEAF.layer, LEAF.sampler), Spec((4,)))


def partly(**changes: Any) -> Ticket:
    """A ticket some of whose pruned weights are as they were drawn."""
    usual = {
        "seed": 3,
        "masks": {"weight": MASK, "frozen": FROZEN},
        "method": "magnitude",
        "stored": {"trained_weight": WEIGHT, "bias": BIAS},
        "settings": {"kept": {"weight": KEPT, "frozen": int(FROZEN.sum())}, "keep": KEPT / 12},
    }
    return make_ticket(PARTLY, **{**usual, **changes})


def test_every_way_to_the_outputs_of_frozen_weights_is_one(tmp_path: Path) -> None:
    drawn = PARTLY.draw(3)
    np.testing.assert_array_equal(drawn["frozen"], NETWORK.draw(3)["weight"])
    weight = np.where(FROZEN, drawn["frozen"], WEIGHT)
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    made = effective_weights(partly())
    np.testing.assert_array_equal(made["weight"][0], weight)
    network, tensors = collapse(partly(), made)
    exact = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
    partly().save(tmp_path / "ticket")
    loaded = load_ticket(tmp_path / "ticket")
    for function in (partly().forward(), partly().module(), loaded.forward(), forward(network, exact)):
        np.testing.assert_allclose(function(x), x @ weight.T + BIAS, rtol=1e-5, atol=1e-6)  # type: ignore[operator]
    export_weights(loaded, tmp_path / "weights")
    with TensorFile(tmp_path / "weights") as file:
        np.testing.assert_array_equal(read_array(file, "weight"), weight)


def test_frozen_weights_are_counted_once_and_described_by_their_places() -> None:
    found, without = verify(partly()), verify(ticket())
    assert (found.outcome, found.reasons, found.source_weights) == ("no guarantee", (), 12)
    assert found.kept_weights == KEPT + FROZEN.sum()
    assert found.description_bits["stored"] == without.description_bits["stored"]
    whole = verify(partly(masks={"weight": MASK, "frozen": ~MASK}, settings={}))
    # All that is not kept: nothing but their number is told, and how it is coded.
    assert whole.description_bits["masks"] - without.description_bits["masks"] <= np.log2(13) + 12


def test_tickets_without_frozen_weights_are_written_as_ever(tmp_path: Path) -> None:
    ticket().save(tmp_path / "ticket")
    header, tensors = read(tmp_path / "ticket")
    assert set(header["network"]["root"]) == {"kind", "layer", "sampler", "gain"}
    assert set(tensors) == {"mask.weight", "stored.trained_weight", "stored.bias"}


TRAININGS: dict[str, tuple[dict[str, Any], str]] = {
    "weights both trained and frozen": (
        {"masks": {"weight": MASK, "frozen": FROZEN | MASK}, "settings": {}},
        f"{KEPT} weights of weight are both trained and frozen",
    ),
    "frozen weights of another draw": (
        {"redraws": {"frozen": np.array([[0, 1]])}, "settings": {}},
        "weights of weight were redrawn",
    ),
    "other counts": ({"settings": {"kept": {"weight": KEPT, "frozen": 0}}}, "which is not what its settings say"),
    "another fraction": ({"settings": {"keep": KEPT / 12 + 0.1}}, f"keeps {KEPT} of 12 weights, and its settings ask"),
    "an inverted mask": ({"settings": {"keep": KEPT / 12, "mask": "inverted"}}, f"settings ask for {12 - KEPT}"),
    "a fraction in words": ({"settings": {"keep": "half"}}, "kept fraction of its settings is not a number"),
    "a fraction that is none": ({"settings": {"keep": -1}}, "kept fraction of its settings is not a number"),
    "weights that moved": ({"settings": {"revived_steps": 2}}, "pruned weights had moved after 2 steps"),
    "weights that moved, in words": ({"settings": {"revived_steps": None}}, "pruned weights had moved after None"),
    "another beginning": ({"settings": {"rewound_to": 0, "rewound_sha256": "0" * 64}}, "not those of its seed"),
    "other batches": (
        {"settings": {"dense_batches_sha256": "a", "batches_sha256": "b"}},
        "the dense and the pruned network were trained on other batches",
    ),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_that_is_not_what_it_says_is_broken(name: str, tmp_path: Path) -> None:
    changes, reason = TRAININGS[name]
    partly(**changes).save(tmp_path / "forged")
    found = verify(tmp_path / "forged")
    assert found.outcome == "broken" and reason in found.reasons[0]


def test_an_honest_training_is_sound() -> None:
    began = digest("", {"weight": NETWORK.draw(3)["weight"]})
    settings = {"revived_steps": 0, "rewound_to": 0, "rewound_sha256": began, "keep": 1 - KEPT / 12, "mask": "inverted"}
    for found in (verify(make(settings=settings)) for make in (ticket, partly)):
        assert (found.outcome, found.reasons) == ("no guarantee", ())
    assert not verify(ticket(settings={"rewound_to": 1, "rewound_sha256": "0" * 64})).reasons


def test_what_is_pruned_is_not_run_even_if_it_is_not_zero() -> None:
    forged = ticket(stored={"trained_weight": np.where(MASK, WEIGHT, 7), "bias": BIAS})
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(forged.forward()(x), ticket().forward()(x))
    np.testing.assert_array_equal(forged.module()(x), ticket().module()(x))  # type: ignore[operator]
    np.testing.assert_array_equal(effective_weights(forged)["weight"], effective_weights(ticket())["weight"])


def test_other_tickets_are_not_asked_what_they_keep() -> None:
    plain = make_ticket(
        Network(RandomLayer(Dense(4, 3), LEAF.sampler), Spec((4,))),
        seed=3,
        masks={"weight": MASK},
        method="x",
        settings={"kept": 1},
    )
    found = verify(plain)
    assert (found.outcome, found.trained, found.description_bits["stored"]) == ("no guarantee", False, 0)


def test_it_is_exported_as_it_was_trained(tmp_path: Path) -> None:
    out, again = tmp_path / "weights", tmp_path / "again"
    assert export_weights(ticket(), out).startswith("2 tensors")
    with TensorFile(out) as file:
        np.testing.assert_array_equal(read_array(file, "weight"), WEIGHT)
        np.testing.assert_array_equal(read_array(file, "bias"), BIAS)
    export_into(ticket(), out, again)
    assert again.read_bytes() == out.read_bytes()
    assert export_masks(ticket(), tmp_path / "masks").startswith("1 masks")


def test_a_bias_that_was_folded_goes_back_into_the_normalisation(tmp_path: Path) -> None:
    nodes = (("conv", Conv(1, 3, (2, 2))), ("bn", BatchNorm(3)))
    network, random = Network(Chain(nodes), Spec((3, 3, 1))), np.random.default_rng(0)
    model = Target(network, {name: random.uniform(0.5, 1, shape) for name, shape in network.tensors.items()})
    leaves = random_network(fold_batch_norm(model).network, trained=True)
    stored = {name: random.normal(size=shape).astype(np.float32) for name, shape in leaves.tensors.items()}
    masks = {name: np.ones(drawn.shape, bool) for name, drawn in leaves.random_tensors.items()}
    trained = make_ticket(leaves, seed=0, masks=masks, method="magnitude", stored=stored)
    export_target(model, tmp_path / "model")
    export_into(trained, tmp_path / "model", tmp_path / "out", target_of_network(network, tmp_path / "model"))
    with TensorFile(tmp_path / "out") as file:
        again = {name: read_array(file, name).astype(np.float32) for name in network.tensors}
    x = random.normal(size=(4, 3, 3, 1)).astype(np.float32)
    np.testing.assert_allclose(forward(network, again)(x), trained.forward()(x), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


def test_files_are_refused_where_their_parts_do_not_fit(tmp_path: Path) -> None:
    ticket().save(tmp_path / "ticket")
    assert load_ticket(tmp_path / "ticket").header == ticket().header
    header, tensors = read(tmp_path / "ticket")
    missing = {name: value for name, value in tensors.items() if name != "stored.trained_weight"}
    with pytest.raises(TicketError, match="stored tensor trained_weight must be float32"):
        verify(forge(tmp_path / "forged", header, missing))
    header["network"]["root"]["gain"] = 2.0
    with pytest.raises(TicketError, match=r"gain of trained weights must be 1, got 2\.0"):
        verify(forge(tmp_path / "forged", header, tensors))
    with pytest.raises(InputError, match="gain"):
        dataclasses.replace(LEAF, gain=0.5)
