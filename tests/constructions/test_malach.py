"""One pair for each weight: how near it is, and what is said where that is not enough."""

import numpy as np
import pytest

from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions.malach import Malach
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import CHUNK, TARGETS


def test_of_every_weight_and_sign_one_pair_is_kept_at_most() -> None:
    target = TARGETS["mlp with biases, inputs of any sign"]()
    ticket = run_in_memory(plan_job(target, Malach(64), ToleranceObjective(0.02), seed=0, chunk_weights=CHUNK))
    source = ticket.source()
    for path, leaf in ticket.network.sources.items():
        for own in leaf.layer.tensors():
            mask = ticket.mask(f"{path}.{own}")
            mask = mask.reshape(-1, mask.shape[-1])
            edges = source[f"{path}.first"][leaf.layer.input_channels(own, np.arange(len(mask)))]
            for sign in (1, -1):
                assert (mask & (sign * edges > 0)).sum(1).max() <= 1


def test_the_nearest_product_is_as_near_as_its_density_says() -> None:
    """P(farther than eps) is at most (1 - 1.38 eps)**n for |w| <= 1/4, of n products of uniform factors."""
    random = np.random.default_rng(0)
    target = mlp_target([random.uniform(-0.25, 0.25, (40, 60)).astype(np.float32)], nonnegative=True)
    (gain,) = {source.gain for source in Malach().source(target).sources.values()}
    ticket = run_in_memory(plan_job(target, Malach(64), ToleranceObjective(1.0), seed=0, chunk_weights=CHUNK))
    residuals = np.abs(effective_weights(ticket)["fc1.weight"][0] - target.array("fc1.weight")) / gain
    for eps in (0.005, 0.01, 0.02):
        bound = (1 - 1.38 * eps) ** 64
        assert bound / 3 < (residuals > eps).mean() < 1.15 * bound


def test_what_is_too_far_is_counted_and_draws_again_help() -> None:
    target = TARGETS["mlp, inputs never negative"]()
    found = []
    for redraws in (0, 5, 200):
        ticket = run_in_memory(
            plan_job(target, Malach(64), ToleranceObjective(0.003, max_redraws=redraws), seed=0, chunk_weights=CHUNK)
        )
        certificate = verify(ticket, target=target)
        assert (certificate.outcome == "holds") == (certificate.within_tolerance == target.weights)
        found.append(certificate.within_tolerance)
    assert found[0] < found[1] < found[2] == target.weights


@pytest.mark.slow
def test_very_many_candidates() -> None:
    """32,767, the most: residuals of some 1e-5, and one bit for each of 65,534 units."""
    target = mlp_target([np.array([[0.3, -0.2, 0.1]], np.float32)])
    ticket = run_in_memory(plan_job(target, Malach(32767), ToleranceObjective(0.001), seed=0, chunk_weights=8))
    assert verify(ticket, target=target).holds and ticket.mask("fc1.weight").shape == (1, 3, 65534)
    assert ticket.mask("fc1.weight").sum() == 6
