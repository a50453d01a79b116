"""Tickets in transformed sources: they hold, from their file alone, and masks are as the seed decides."""

import math
from pathlib import Path

import numpy as np
import pytest

from lottery_jax.approximation import ToleranceObjective, approximate, plan_job, run_in_memory
from lottery_jax.approximation.solve_weights import _draw, _draw_products, _draw_run
from lottery_jax.constructions.registry import construction_named
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.rewrites import quantise
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Lock, PrePrune, ShareLayers, Transform
from lottery_jax.rng.forced_entries import forced_mask
from lottery_jax.tickets.ticket import Ticket, load_ticket, make_ticket
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import TARGETS
from tests.tickets.forging import forge, read

HALF = PrePrune(0.5)


def small() -> Target:
    """Two layers of equal shape, so that folded ones are equal."""
    random = np.random.default_rng(0)
    return mlp_target([random.uniform(-0.4, 0.4, (5, 5)).astype(np.float32) for _ in range(2)], nonnegative=True)


def absent_and_kept(ticket: Ticket) -> int:
    source = ticket.source()
    return sum(int((mask & (source[name] == 0)).sum()) for name, mask in ticket.masks.items())


def slow(name: str, candidates: int, tolerance: float):
    return pytest.param(name, candidates, tolerance, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "candidates", "tolerance"),
    [
        ("scalar", 20, 0.02),
        ("pensia", 24, 0.1),
        slow("scalar-shared", 20, 0.02),
        slow("natale", 24, 0.1),
        slow("malach", 2000, 0.1),
        slow("orseau", 100, 0.1),
        slow("burkholz", 16, 0.2),
    ],
)
def test_tickets_in_sparse_folded_sources_hold(name: str, candidates: int, tolerance: float, tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    given = {"seed": 1, "construction": name, "candidates": candidates, "tolerance": tolerance}
    approximate(small(), **given, transforms=(HALF, ShareLayers()), out=path)  # type: ignore[arg-type]
    found = verify(path, target=small())
    assert found.outcome == "holds", found.reasons
    ticket = load_ticket(path)
    assert ticket.network.share_layers and absent_and_kept(ticket) == 0
    source = ticket.source()
    assert 0.3 < np.mean(np.concatenate([weights.reshape(-1) for weights in source.values()]) != 0) < 0.7
    if name != "scalar":  # whose samplers have each tensor's own range
        first, second = (ticket.network.draw(1)[f"{leaf}.weight"] for leaf in ticket.network.sources)
        assert name in ("burkholz", "scalar-shared") or np.array_equal(first, second)


@pytest.mark.slow
def test_a_budget_keeps_nothing_that_is_absent() -> None:
    ticket = approximate(small(), seed=0, candidates=12, kept=60, transforms=(HALF,))
    found = verify(ticket, target=small())
    assert (found.outcome, absent_and_kept(ticket)) == ("holds", 0) and found.kept_weights <= 60


def test_a_whole_source_is_the_usual_one_and_compiles_nothing_more() -> None:
    given = {"seed": 1, "construction": "scalar", "candidates": 9, "tolerance": 0.1}
    usual = approximate(small(), **given).to_bytes()  # type: ignore[arg-type]
    programs = (_draw, _draw_products, _draw_run)
    compiled = [program._cache_size() for program in programs]
    whole: tuple[Transform, ...] = (PrePrune(1.0),)
    assert approximate(small(), **given, transforms=whole).to_bytes() == usual  # type: ignore[arg-type]
    assert [program._cache_size() for program in programs] == compiled


def test_a_mask_that_keeps_what_is_absent_is_refused_and_forged_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    ticket = approximate(small(), seed=1, construction="scalar", candidates=20, transforms=(HALF,), out=path)
    masks = ticket.masks
    (place, *_) = np.argwhere(ticket.source()["fc2.weight"] == 0)
    masks["fc2.weight"][tuple(place)] = True
    with pytest.raises(InputError, match=r"mask of fc2\.weight keeps weights that its source does not have"):
        make_ticket(ticket.network, seed=1, masks=masks, method="x", redraws={n: ticket.redraws(n) for n in masks})
    header, tensors = read(path)
    tensors["mask.fc2.weight"] = np.packbits(masks["fc2.weight"], bitorder="little")
    found = verify(forge(path, header, tensors), target=small())
    assert found.outcome == "broken" and "absent from its source, in 'fc2.weight'" in found.reasons[0]


@pytest.mark.slow
def test_twice_the_candidates_make_up_for_half_of_the_weights() -> None:
    """Of one random layer: as many weights fail their first draw as with about half the candidates in a whole one."""
    random = np.random.default_rng(0)
    target = mlp_target([random.uniform(-0.5, 0.5, (40, 40)).astype(np.float32)], nonnegative=True)

    def redrawn(candidates: int, transforms: tuple[Transform, ...] = ()) -> int:
        ticket = approximate(target, seed=0, construction="scalar", candidates=candidates, transforms=transforms)
        return verify(ticket, target=target).redrawn_blocks

    assert redrawn(11) < redrawn(20, (HALF,)) < redrawn(8) < redrawn(11, (HALF,))


FROZEN = (PrePrune(0.9), Lock(0.25))


def forced(ticket: Ticket) -> dict[str, np.ndarray]:
    """What the seed decides of each mask: -1 absent, 1 locked."""
    drawn = ticket.network.random_tensors
    return {name: forced_mask(drawn[name], ticket.seed, ticket.redraws(name)) for name in drawn}


@pytest.mark.parametrize(
    ("name", "target", "candidates", "tolerance"),
    [
        ("scalar", "mlp, inputs of any sign", 20, 0.02),
        ("pensia", "mlp with biases, inputs of any sign", 20, 0.2),
        *(
            pytest.param(*given, marks=pytest.mark.slow)
            for given in (
                ("scalar-shared", "mlp, inputs of any sign", 20, 0.02),
                ("natale", "mlp, inputs of any sign", 28, 0.1),
                ("orseau", "mlp with biases, inputs of any sign", 120, 0.1),
                ("burkholz", "mlp with biases, inputs of any sign", 20, 0.2),
                ("dacunha", "convolutions, inputs of any sign", 28, 0.1),
            )
        ),
    ],
)
def test_tickets_in_partially_frozen_sources_hold(
    name: str, target: str, candidates: int, tolerance: float, tmp_path: Path
) -> None:
    path, wanted = tmp_path / "ticket.safetensors", TARGETS[target]()
    construction = construction_named(name)(candidates=candidates)
    jobs = [
        plan_job(wanted, construction, ToleranceObjective(tolerance), seed=2, chunk_weights=size, transforms=FROZEN)
        for size in (8, 4096)
    ]
    small_chunks, large = (run_in_memory(job) for job in jobs)
    assert small_chunks.to_bytes() == large.to_bytes()
    large.save(path)
    found, ticket = verify(path, target=wanted), load_ticket(path)
    assert found.outcome == "holds", found.reasons
    locked = kept = 0
    for name, own in forced(ticket).items():
        mask = ticket.mask(name)
        assert mask[own > 0].all() and not mask[own < 0].any()
        locked, kept = locked + int((own > 0).sum()), kept + int(mask.sum())
    assert 0 < locked < kept == found.kept_weights
    assert all("0.25 of them always kept" in sampler for sampler in found.samplers)


@pytest.mark.slow
def test_quantised_targets_are_met_exactly_beside_what_is_locked() -> None:
    target = quantise(small(), 8)
    ticket = approximate(target, seed=0, construction="kumar", candidates=32, transforms=(Lock(0.2),))
    found = verify(ticket, target=target)
    assert (found.outcome, found.worst_residual) == ("holds", 0.0), found.reasons


def test_locked_weights_cost_no_bits_and_cannot_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    given = {"seed": 1, "construction": "scalar", "candidates": 20, "tolerance": 0.02}
    ticket = approximate(small(), **given, transforms=FROZEN, out=path)  # type: ignore[arg-type]
    bits = [(int((own == 0).sum()), int(ticket.mask(name)[own == 0].sum())) for name, own in forced(ticket).items()]
    everywhere = [(mask.size, int(mask.sum())) for mask in ticket.masks.values()]
    # What is left to the masks, and a few parameters of the coder: far fewer than of all places.
    least, whole = (sum(math.log2(math.comb(*one)) for one in each) for each in (bits, everywhere))
    assert least / 2 < verify(ticket).description_bits["masks"] < least + 80 * len(bits) < whole
    masks, own = ticket.masks, forced(ticket)["fc2.weight"]
    (place, *_) = np.argwhere(own > 0)
    masks["fc2.weight"][tuple(place)] = False
    with pytest.raises(InputError, match=r"mask of fc2\.weight prunes weights that its source has locked"):
        make_ticket(ticket.network, seed=1, masks=masks, method="x", redraws={n: ticket.redraws(n) for n in masks})
    header, tensors = read(path)
    tensors["mask.fc2.weight"] = np.packbits(masks["fc2.weight"], bitorder="little")
    found = verify(forge(path, header, tensors), target=small(), tolerance=100.0)
    assert found.outcome == "broken" and "locked weights of its source, in 'fc2.weight'" in found.reasons[0]


def test_more_locked_weights_than_the_mask_has_are_no_ticket(tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    approximate(
        small(), seed=1, construction="scalar", candidates=20, tolerance=0.02, transforms=(Lock(0.1),), out=path
    )
    header, tensors = read(path)
    for _, leaf in header["network"]["root"]["nodes"]:
        for sampler in leaf.get("samplers", []):
            sampler["locked"] = 0.6
    found = verify(forge(path, header, tensors), target=small(), tolerance=100.0)
    assert found.outcome == "broken" and "its masks prune locked weights of its source" in found.reasons[0]


def test_where_nothing_can_be_locked_it_is_said() -> None:
    with pytest.raises(InputError, match="remove the lock, or the budget"):
        approximate(small(), seed=0, construction="scalar", candidates=12, kept=60, transforms=(Lock(0.2),))
    with pytest.raises(InputError, match=r"locked must be 0 for .* a binary_ladder without a sampler"):
        approximate(small(), seed=0, construction="binary", candidates=64, tolerance=0.1, transforms=(Lock(0.2),))
