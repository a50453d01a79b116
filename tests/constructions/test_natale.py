"""Subsets of a fixed size: the number of kept weights is a promise, not an outcome."""

import itertools

import numpy as np
import pytest

from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions.natale import Natale
from lottery_jax.errors import InputError
from lottery_jax.networks.target import Target
from lottery_jax.tickets.reconstruct import effective_weights
from tests.constructions.catalogue import CHUNK, TARGETS


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("of", ["mlp with biases, inputs of any sign", "convolutions, inputs of any sign"])
def test_exactly_so_many_are_kept_of_every_weight_and_sign(size: int, of: str) -> None:
    """In every tensor, of weights that are 0 too, whether the subset is near enough or not."""
    target = TARGETS[of]()
    arrays = target.arrays()
    zeroed = {
        name: np.where(np.arange(value.size).reshape(value.shape) % 5, value, 0) for name, value in arrays.items()
    }
    target = Target(target.network, zeroed)  # type: ignore[arg-type]
    objective = ToleranceObjective(0.002, max_redraws=2)  # so that some are too far
    ticket = run_in_memory(plan_job(target, Natale(12, size=size), objective, seed=0, chunk_weights=CHUNK))
    source = ticket.source()
    for path, leaf in ticket.network.sources.items():
        first, given = source[f"{path}.first"], ticket.network.input_spec_of(path)
        for own in leaf.layer.tensors():
            mask = ticket.mask(f"{path}.{own}")
            mask = mask.reshape(-1, mask.shape[-1])
            edges = first[leaf.layer.input_channels(own, np.arange(len(mask)))]
            for sign in (1, -1):
                wanted = size if sign in leaf.input_signs(own, given) else 0
                np.testing.assert_array_equal((mask & (sign * edges > 0)).sum(1), wanted)


@pytest.mark.slow
def test_the_more_subsets_a_size_has_the_nearer_is_the_best() -> None:
    """C(12, k) of them: residuals fall by about as much with each k up to n / 2."""
    target, found = TARGETS["mlp, inputs never negative"](), []
    for size in (1, 2, 3, 6):
        ticket = run_in_memory(
            plan_job(target, Natale(12, size=size), ToleranceObjective(1.0), seed=0, chunk_weights=CHUNK)
        )
        made = effective_weights(ticket).items()
        found.append(np.mean([np.median(np.abs(values - target.array(name))) for name, values in made]))
    assert all(more > 1.5 * less for more, less in itertools.pairwise(found)), found


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "3"])
def test_no_size_is_refused(size) -> None:
    with pytest.raises(InputError, match="size must be a whole number from 1"):
        Natale(size=size)


@pytest.mark.parametrize(
    ("construction", "words"),
    [
        (Natale(11, size=6), r"size 6 of 11 candidates; use a smaller size"),
        (Natale(1), r"size 1 of 1 candidates"),
        (Natale(41), r"N = 41 candidates is too many for FixedSize, which takes up to 40"),
    ],
)
def test_what_the_theorem_does_not_cover_is_refused(construction: Natale, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_job(TARGETS["mlp, inputs never negative"](), construction, ToleranceObjective(), seed=0)


def test_the_size_is_a_quarter_if_nothing_is_said() -> None:
    assert [Natale(count).subset_size for count in (2, 8, 21, 40)] == [1, 2, 5, 10]
    Natale(8, size=6)  # candidates may still change, as they do on the command line
    job = plan_job(TARGETS["mlp, inputs never negative"](), Natale(12, size=3), ToleranceObjective(), seed=0)
    assert (job.settings["candidates"], job.settings["size"]) == (12, 3)
