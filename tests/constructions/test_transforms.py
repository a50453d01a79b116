"""Tickets in transformed sources: they hold, from their file alone, and no mask keeps what is absent."""

from pathlib import Path

import numpy as np
import pytest

from lottery_jax.constructions import approximate
from lottery_jax.constructions.draw import _draw, _draw_products, _draw_run
from lottery_jax.errors import InputError
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Transform
from lottery_jax.networks.transforms.fold_layers import FoldLayers
from lottery_jax.networks.transforms.pre_prune import PrePrune
from lottery_jax.networks.zoo.mlp import mlp_target
from lottery_jax.tickets.certificate import certify
from lottery_jax.tickets.ticket import Ticket, load_ticket, make_ticket
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
    approximate(small(), **given, transforms=(HALF, FoldLayers()), out=path)  # type: ignore[arg-type]
    found = certify(path, target=small())
    assert found.outcome == "holds", found.reasons
    ticket = load_ticket(path)
    assert ticket.network.fold_layers and absent_and_kept(ticket) == 0
    source = ticket.source()
    assert 0.3 < np.mean(np.concatenate([weights.reshape(-1) for weights in source.values()]) != 0) < 0.7
    if name != "scalar":  # whose samplers have each tensor's own range
        first, second = (ticket.network.draw(1)[f"{leaf}.weight"] for leaf in ticket.network.sources)
        assert name in ("burkholz", "scalar-shared") or np.array_equal(first, second)


@pytest.mark.slow
def test_a_budget_keeps_nothing_that_is_absent() -> None:
    ticket = approximate(small(), seed=0, candidates=12, kept=60, transforms=(HALF,))
    found = certify(ticket, target=small())
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
    found = certify(forge(path, header, tensors), target=small())
    assert found.outcome == "broken" and "does not have, in 'fc2.weight'" in found.reasons[0]


@pytest.mark.slow
def test_twice_the_candidates_make_up_for_half_of_the_weights() -> None:
    """Of one random layer: as many weights fail their first draw as with about half the candidates in a whole one."""
    random = np.random.default_rng(0)
    target = mlp_target([random.uniform(-0.5, 0.5, (40, 40)).astype(np.float32)], nonnegative=True)

    def redrawn(candidates: int, transforms: tuple[Transform, ...] = ()) -> int:
        ticket = approximate(target, seed=0, construction="scalar", candidates=candidates, transforms=transforms)
        return certify(ticket, target=target).redrawn_blocks

    assert redrawn(11) < redrawn(20, (HALF,)) < redrawn(8) < redrawn(11, (HALF,))
