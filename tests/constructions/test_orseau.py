"""Log-uniform weights and greedy sums: the weights that are drawn, the sign of what is left, and how it shrinks."""

import json

import numpy as np
import pytest

from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions.orseau import Orseau
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.codec import from_json, to_json
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import CHUNK, TARGETS


def test_both_layers_are_log_uniform() -> None:
    ticket = run_in_memory(
        plan_job(
            TARGETS["mlp, inputs of any sign"](),
            Orseau(40, least=0.05),
            ToleranceObjective(),
            seed=0,
            chunk_weights=CHUNK,
        )
    )
    assert {drawn.sampler for drawn in ticket.network.random_tensors.values()} == {Sampler.log_uniform(0.05, 1)}
    assert ticket.header.settings["least"] == 0.05
    for values in ticket.source().values():
        assert 0.05 <= np.abs(values).min() < np.abs(values).max() <= 1
        assert 0 < (values > 0).mean() < 1


def test_a_sum_is_never_beyond_its_weight() -> None:
    target = TARGETS["mlp with biases, inputs of any sign"]()
    ticket = run_in_memory(plan_job(target, Orseau(40), ToleranceObjective(), seed=0, chunk_weights=CHUNK))
    for name, made in effective_weights(ticket).items():
        wanted = target.array(name).astype(np.float64)
        assert (np.abs(made) <= np.abs(wanted) + 1e-6).all() and (made * wanted >= 0).all()
        assert (np.abs(made - wanted) > 1e-3).any(), "the test is too easy"


def test_units_that_one_weight_leaves_serve_the_other_weights_of_their_input() -> None:
    target = TARGETS["mlp, inputs of any sign"]()
    ticket = run_in_memory(plan_job(target, Orseau(40), ToleranceObjective(), seed=0, chunk_weights=CHUNK))
    shared = alone = 0
    for path, leaf in ticket.network.sources.items():
        used = ticket.mask(f"{path}.weight")  # [O, I, U]
        outputs, inputs, units = used.shape
        assert (leaf.units_per_input, ticket.mask(f"{path}.first").shape) == (80, (inputs, units))
        shared += inputs * units + used.size
        alone += outputs * inputs * units + used.size  # a unit, and so a first weight, for each of a weight's own
        # What a weight leaves, another one of the same input takes, and some units serve several.
        taken = used.any(0)
        assert (~used & taken).sum() > used.sum() and used.sum(0).max() > 1
        np.testing.assert_array_equal(ticket.mask(f"{path}.first"), taken)
        assert 0 < taken.mean() < 1
    assert ticket.network.source_weights == shared < alone


@pytest.mark.slow
def test_logarithmically_many_units_are_enough() -> None:
    """Twice the units leave few weights that are missed, and no more than some log2(1 / eps) are kept."""
    random = np.random.default_rng(0)
    target = mlp_target([random.uniform(-0.25, 0.25, (20, 40)).astype(np.float32)], nonnegative=True)
    missed = []
    for candidates in (20, 40, 80):
        ticket = run_in_memory(plan_job(target, Orseau(candidates), ToleranceObjective(0.005, max_redraws=0), seed=0))
        found = verify(ticket, target=target)
        missed.append(1 - found.within_tolerance / found.target_weights)
        assert found.kept_by_tensor["fc1.weight"] / found.target_weights < 2 + np.log2(0.25 / 0.005)
    assert missed[0] > 5 * missed[1] and missed[1] >= 5 * missed[2], missed


@pytest.mark.parametrize("forged", [{"low": 0.0}, {"low": 0.6}, {"high": 1e30}, {"kind": "hyperbolic"}, {"scale": -1}])
def test_a_forged_sampler_is_refused(forged: dict) -> None:
    job = plan_job(TARGETS["mlp, inputs of any sign"](), Orseau(40), ToleranceObjective(), seed=0)
    row = to_json(job.network.sources["fc1"])
    assert from_json(json.loads(json.dumps(row))) == job.network.sources["fc1"]
    row["first"] |= forged
    with pytest.raises(InputError):
        from_json(row)


@pytest.mark.parametrize("least", [0, -0.1, 0.6, 1.0, 2.0**-17, float("nan"), float("inf"), "0.1"])
def test_sizes_beyond_what_products_allow_are_refused(least) -> None:
    with pytest.raises(InputError, match="least must be from"):
        Orseau(least=least)
