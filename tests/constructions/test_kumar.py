"""Quantised targets exactly: equality in whole numbers, and what cannot be equal is refused."""

from fractions import Fraction

import numpy as np
import pytest

from lottery_jax.approximation import ToleranceObjective, approximate, plan_job, run_in_memory
from lottery_jax.constructions import Kumar, Pensia
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.node import child_path
from lottery_jax.networks.rewrites import quantise
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.theory import theorem_named
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import CHUNK, TARGETS

BITS = 5


def found(target: Target, objective: str = "least-error", tolerance: float = 0.01) -> Ticket:
    objective = ToleranceObjective(tolerance, objective, max_redraws=60)
    return run_in_memory(plan_job(target, Kumar(12, bits=BITS), objective, seed=3, chunk_weights=CHUNK))


def whole(values: np.ndarray, step: Fraction) -> np.ndarray:
    """What multiples of a step these are, int64; no float is computed with."""
    ratios = [Fraction(*float(value).as_integer_ratio()) / step for value in values.reshape(-1)]
    assert all(ratio.denominator == 1 for ratio in ratios)
    return np.array([int(ratio) for ratio in ratios], np.int64).reshape(values.shape)


def feeding(leaf: Gadget, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Which input each weight multiplies, [*shape]."""
    of = leaf.layer
    if name == "bias":
        return np.full(shape, of.inputs)
    own, block = of.inputs // of.groups, of.outputs // of.groups
    inputs = (np.arange(of.outputs)[:, None] // block) * own + np.arange(own)
    return np.broadcast_to(inputs.reshape(*inputs.shape, *(1 for _ in shape[2:])), shape)


@pytest.mark.parametrize("objective", ["least-error", pytest.param("smallest", marks=pytest.mark.slow)])
@pytest.mark.parametrize("of", ["mlp with biases, inputs of any sign", "convolutions, inputs of any sign"])
def test_every_weight_is_equal_in_whole_numbers(of: str, objective: str) -> None:
    target = quantise(TARGETS[of](), 4)
    ticket = found(target, objective)
    source, masks, step = ticket.source(), ticket.masks, Fraction(1, 2**BITS)
    for path, leaf in ticket.network.sources.items():
        assert isinstance(leaf, Gadget)
        gain = Fraction(*leaf.gain.as_integer_ratio())
        first = whole(source[child_path(path, "first")], step) * masks[child_path(path, "first")]
        assert np.abs(first).max() <= 2**BITS
        for own, shape in leaf.layer.tensors().items():
            name = child_path(path, own)
            units = first[feeding(leaf, own, shape)]
            terms = whole(source[name], step) * masks[name] * units
            wanted = whole(target.array(name), gain * step * step)
            for sign in leaf.input_signs(own, ticket.network.input_spec_of(path)):
                np.testing.assert_array_equal(np.where(sign * units > 0, terms, 0).sum(-1), wanted)
    certificate = verify(ticket, target=target)
    assert (certificate.outcome, certificate.worst_residual, certificate.tolerance) == ("holds", 0.0, 0.0)
    assert certificate.redrawn_blocks > 0, "too easy"


def test_it_promises_equality_whatever_is_asked_and_of_the_rounded_target_alone() -> None:
    target = TARGETS["mlp, inputs never negative"]()
    rounded = quantise(target, 4)
    ticket = found(rounded)
    assert ticket.header.tolerance == 0 == ticket.header.settings["tolerance"]
    assert ticket.to_bytes() == found(rounded, tolerance=0.0).to_bytes()
    unrounded = verify(ticket, target=target)
    assert unrounded.outcome == "broken" and unrounded.within_tolerance == 0
    assert unrounded.reasons == (f"{target.weights} target weights are not within 0",)
    masks = ticket.masks
    kept = tuple(np.argwhere(masks["fc2.weight"])[0])
    masks["fc2.weight"][kept] = False
    network, redraws = ticket.network, {name: ticket.redraws(name) for name in ticket.network.random_tensors}
    flipped = make_ticket(network, seed=3, masks=masks, method="kumar", redraws=redraws, target=rounded, tolerance=0.0)
    assert verify(flipped, target=rounded).reasons == ("1 target weights are not within 0",)


def test_equality_is_not_shown_by_sums_that_may_be_rounded() -> None:
    """Nothing kept for zeros: residuals of 0, but not by a source that equality can be checked of."""
    zeros = mlp_target([np.zeros((2, 3), np.float32)])
    for construction, outcome in ((Kumar(8), "holds"), (Pensia(8), "broken")):
        network = construction.source(zeros)
        masks = {name: np.zeros(drawn.shape, bool) for name, drawn in network.random_tensors.items()}
        forged = make_ticket(network, seed=0, masks=masks, method="kumar", target=zeros, tolerance=0.0)
        certificate = verify(forged, target=zeros)
        assert (certificate.outcome, certificate.worst_residual) == (outcome, 0.0)
        assert not certificate.reasons or "on a grid of powers of two" in certificate.reasons[0]


@pytest.mark.parametrize(
    ("weights", "bits", "words"),
    [
        ([0.3, -0.2], 7, r"'fc1.weight' are not multiples of 2\*\*-\d+, .*--quantise-target 8"),
        ([1.0, 2.0**-10], 5, r"multiples of 2\*\*-10, which takes bits 6 or more and over 12 candidates, not bits 5"),
        ([1.0, 2.0**-10], 6, None),
        ([-1.0, 2.0**-9], 6, None),
        ([2.0**20, 2.0**10], 6, None),
        ([1.0, 2.0**-23], 12, "not multiples of"),
    ],
)
def test_steps_finer_than_the_grid_of_products_are_refused(weights: list[float], bits: int, words: str | None) -> None:
    """Over a gain of 4 (the largest is brought to 1/4) the least weight must be a multiple of 4**-bits."""
    target = mlp_target([np.array([weights], np.float32)])
    construction = Kumar(21, bits=bits)
    if words is None:
        leaf = construction.random_layer(target, "fc1", Dense(2, 1))
        assert max(map(abs, weights)) / leaf.gain == 0.25
    else:
        with pytest.raises(InputError, match=words):
            construction.random_layer(target, "fc1", Dense(2, 1))


@pytest.mark.parametrize("bits", [0, 13, 7.0, True, "7"])
def test_no_bits_are_refused(bits) -> None:
    with pytest.raises(InputError, match="bits must be a whole number from 1 to 12"):
        Kumar(bits=bits)


def test_other_constructions_have_no_tolerance_0() -> None:
    with pytest.raises(InputError, match="tolerance must be a positive finite number, not 0"):
        approximate(mlp_target([np.ones((1, 1), np.float32)]), seed=0, construction="pensia", tolerance=0.0)


def test_its_source_has_the_size_of_the_theorem() -> None:
    """2 log2(1 / step) samples and one more of each sign, for a step of 1/64."""
    target = quantise(TARGETS["mlp, inputs of any sign"](), 4)
    theorem = theorem_named("kumar")
    required = theorem.require(target.network, tolerance=1 / 128)
    source = Kumar(13, bits=6).source(target)
    hidden = tuple(
        leaf.layer.inputs * leaf.units_per_input for leaf in source.sources.values() if isinstance(leaf, Gadget)
    )
    assert hidden == required.hidden
    assert required.depth == 2 * len(source.sources)
