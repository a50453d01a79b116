"""Weights of +-1: what the rungs carry, in whole numbers; what is redrawn; depth and width against the theorem's."""

import itertools

import numpy as np
import pytest

from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions import Binary
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.node import child_path
from lottery_jax.networks.sources.binary_ladder import BinaryLadder
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import CHUNK, TARGETS

COPIES, POWERS = 4, 5


def found(of: str, tolerance: float = 0.02) -> Ticket:
    construction = Binary(COPIES * POWERS, copies=COPIES)
    job = plan_job(TARGETS[of](), construction, ToleranceObjective(tolerance), seed=3, chunk_weights=CHUNK)
    return run_in_memory(job)


def carried(ticket: Ticket, path: str, sign: int, rungs: int) -> np.ndarray:
    """What each unit carries for x = sign after so many rungs, int64 [I, U]."""
    source = ticket.source()
    kept = {
        name: source[child_path(path, name)].astype(np.int64) for name in ticket.network.sources[path].hidden_tensors
    }
    assert all(set(np.unique(values)) == {-1, 1} for values in kept.values())
    kept = {name: values * ticket.mask(child_path(path, name)) for name, values in kept.items()}
    units = np.maximum(sign * kept["first"], 0)
    for place in range(rungs):
        rung = kept[f"rung{place + 1}"]
        units = np.array([np.maximum(edges @ before, 0) for edges, before in zip(rung, units, strict=True)])
    return units


@pytest.mark.parametrize(
    "of", ["mlp with biases, inputs of any sign", pytest.param("mlp, inputs never negative", marks=pytest.mark.slow)]
)
def test_each_rung_doubles_some_units_and_the_last_carries_every_power(of: str) -> None:
    ticket = found(of)
    target = TARGETS[of]()
    for path, leaf in ticket.network.sources.items():
        assert isinstance(leaf, BinaryLadder) and leaf.rungs == POWERS - 1
        given = ticket.network.input_spec_of(path)
        for sign in leaf.input_signs("weight", given):
            for rungs in range(leaf.rungs + 1):
                powers = set(np.unique(carried(ticket, path, sign, rungs)[: leaf.layer.inputs]))
                assert powers == {0} | {2**power for power in range(rungs + 1)}
            last = carried(ticket, path, sign, leaf.rungs)
            for power in range(POWERS):
                # Half of the units have the sign; of those there are at least half of the copies.
                count = (last[: leaf.layer.inputs] == 2**power).sum(1)
                assert (count >= COPIES // 2).all() and (count <= COPIES).all()
        if len(leaf.input_signs("weight", given)) > 1:
            both = carried(ticket, path, 1, leaf.rungs) * carried(ticket, path, -1, leaf.rungs)
            assert not both.any(), "a unit that speaks for both signs"
        # And the last layer's subsets, as whole numbers: most below one step from the target, and none beyond it.
        for own in leaf.layer.tensors():
            name = child_path(path, own)
            terms = ticket.source()[name].astype(np.int64) * ticket.mask(name)
            terms = terms.reshape(-1, leaf.units)
            wanted = target.array(name).astype(np.float64).reshape(-1) / leaf.gain
            feeding = leaf.layer.input_channels(own, np.arange(len(terms)))
            for sign in leaf.input_signs(own, given):
                made = sign * (terms * carried(ticket, path, sign, leaf.rungs)[feeding]).sum(1)
                assert (np.abs(made) <= np.abs(wanted) + 1e-5).all()
                missed = np.abs(wanted - made)
                assert missed.max() * leaf.gain <= 0.02 and (missed < 1).mean() > 0.8
    assert verify(ticket, target=target).holds


def test_only_units_without_edges_of_the_right_sign_are_drawn_again() -> None:
    """Each earlier draw of a unit's edges had fewer of +1, from units that carry as much, than it keeps now."""
    of = "mlp, inputs of any sign"
    ticket, again = found(of), 0
    for path, leaf in ticket.network.sources.items():
        assert isinstance(leaf, BinaryLadder)
        for place, name in enumerate(leaf.hidden_tensors[1:]):
            full, drawn = child_path(path, name), ticket.network.random_tensors[child_path(path, name)]
            mask = ticket.mask(full).reshape(-1, leaf.units)
            before = np.stack([carried(ticket, path, sign, place) for sign in (1, -1)])
            for unit, attempts in ticket.redraws(full):
                kept = before[:, unit // leaf.units]
                alike = (kept == kept[:, mask[unit]][:, :1]).all(0)
                for attempt in range(attempts):
                    edges = drawn.draw(ticket.seed, np.array([unit]), attempt)[0]
                    assert (alike & (edges > 0)).sum() < mask[unit].sum()
                    again += 1
    assert again > 5, "too few to say anything"


def test_a_ladder_that_loses_an_edge_is_found_out() -> None:
    of = "mlp, inputs never negative"
    ticket, target = found(of), TARGETS[of]()
    masks = ticket.masks
    rows = masks["fc1.rung2"].sum(-1)
    unit = tuple(np.argwhere(rows == 2)[0])
    masks["fc1.rung2"][unit] = False
    redraws = {name: ticket.redraws(name) for name in ticket.network.random_tensors}
    forged = make_ticket(
        ticket.network, seed=3, masks=masks, method="binary", redraws=redraws, target=target, tolerance=0.02
    )
    assert verify(forged, target=target).outcome == "broken"


@pytest.mark.slow
def test_residuals_halve_with_every_layer() -> None:
    """k + 2 layers for each of the target's; residuals of half of the largest weight over 2^(k + 1), on average."""
    target, means = TARGETS["mlp, inputs never negative"](), []
    for powers in (2, 4, 6, 8):
        job = plan_job(target, Binary(8 * powers), ToleranceObjective(1.0), seed=0, chunk_weights=CHUNK)
        assert {leaf.rungs + 2 for leaf in job.network.sources.values() if isinstance(leaf, BinaryLadder)} == {
            powers + 1
        }
        made = effective_weights(run_in_memory(job)).items()
        means.append(np.mean([np.abs(values - target.array(name)).mean() for name, values in made]))
    assert all(3 < more / less < 6 for more, less in itertools.pairwise(means)), means


def test_a_halving_of_the_error_asks_for_one_layer_more() -> None:
    """And for as many units as the ladder has for each power of two."""
    target, shapes = TARGETS["mlp, inputs of any sign"](), []
    for powers in (6, 12):
        leaves = [leaf for leaf in Binary(8 * powers).source(target).sources.values() if isinstance(leaf, BinaryLadder)]
        shapes.append((sum(leaf.rungs + 2 for leaf in leaves), leaves[0].layer.inputs * leaves[0].units))
    (depth, width), (deeper, wider) = shapes
    assert (deeper - depth, wider) == (6 * len(target.network.weight_nodes), 2 * width)


@pytest.mark.parametrize("copies", [1, 257, 2.0, True])
def test_no_copies_are_refused(copies) -> None:
    with pytest.raises(InputError, match="copies must be a whole number from 2 to 256"):
        Binary(copies=copies)


def test_what_is_no_ladder_is_refused() -> None:
    for rungs in (-1, 33):
        with pytest.raises(InputError, match="0 to 32 rungs"):
            BinaryLadder(Dense(2, 2), 4, rungs)
    with pytest.raises(InputError, match="random weights for each target weight"):
        BinaryLadder(Dense(2, 2), 0, 1).random_tensors()
    network = Binary(16).source(mlp_target([np.ones((1, 2), np.float32)]))
    assert [leaf.input_signs("weight", None) for leaf in network.sources.values()] == [(1, -1)]


def test_a_tolerance_finer_than_its_steps_is_refused_with_what_it_takes() -> None:
    target = TARGETS["mlp, inputs never negative"]()
    with pytest.raises(InputError, match=r"21 candidates are 2 powers of two.*use \d+ candidates") as refused:
        plan_job(target, Binary(21), ToleranceObjective(0.01), seed=0)
    needed = int(str(refused.value).partition(" use ")[2].split()[0])
    plan_job(target, Binary(needed), ToleranceObjective(0.01), seed=0)
