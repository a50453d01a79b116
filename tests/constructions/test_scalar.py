"""The scalar setting: the range of its candidates, and what is redrawn if they are shared."""

import numpy as np

from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions import Scalar, ScalarShared
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import CHUNK, COUNT, bag


def test_the_range_of_scalar_candidates() -> None:
    """Of a tensor the largest |weight| both ways; of a model, as published, from the least weight to the largest."""
    target = bag()
    largest = {name: float(np.abs(target.array(name).astype(np.float64)).max()) for name in target.network.tensors}
    for of, bound in largest.items():
        (sampler,) = Scalar(COUNT).source(target).sources[of].samplers
        assert sampler == Sampler.uniform(-(bound or 1.0), bound or 1.0)
    every = np.concatenate([target.array(name).astype(np.float64).reshape(-1) for name in target.network.tensors])
    published = Scalar(COUNT, range="model").source(target)
    assert {leaf.samplers for leaf in published.sources.values()} == {(Sampler.uniform(every.min(), every.max()),)}
    job = plan_job(target, Scalar(COUNT, range="model"), ToleranceObjective(0.2), seed=0, chunk_weights=CHUNK)
    assert verify(run_in_memory(job), target=target).holds


def test_shared_candidates_are_drawn_again_by_output() -> None:
    """All weights of an output have the same copies, and one row of redraws: the attempt at which all of them fit."""
    target = bag()
    ticket = run_in_memory(plan_job(target, ScalarShared(COUNT), ToleranceObjective(0.04, max_redraws=100), seed=0))
    assert verify(ticket, target=target).holds
    source, rows = ticket.source()["first"], ticket.redraws("first")
    assert source.shape == (7, 1, COUNT) and ticket.mask("first").shape == (7, 5, COUNT)
    assert len(rows) and set(rows[:, 0]) <= set(range(7)) and rows[:, 1].max() > 1
    first = ticket.network.random_tensors["first"].draw(0, np.arange(7), 0)
    again = (source[:, 0] != first).any(1)
    np.testing.assert_array_equal(np.flatnonzero(again), rows[:, 0])
