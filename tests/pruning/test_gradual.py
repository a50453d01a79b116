"""Targets that are sparse before they are approximated."""

import numpy as np
import pytest

from lottery_jax.approximation import LossAware, plan_job, run_in_memory
from lottery_jax.constructions import Scalar
from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.pruning.gradual import Gradual, sparse_target
from lottery_jax.tickets.verify import verify
from tests.mask_learning import sources

DATA = sources.small_data()
NETWORK = mlp((4, 5, 2), Spec((2, 2, 1), True), bias=True)
HOW = Gradual(epochs=3, batch_size=4, ramp=0.7)


def target() -> Target:
    random = np.random.default_rng(0)
    values = {name: random.normal(size=shape).astype(np.float32) for name, shape in NETWORK.tensors.items()}
    return Target(NETWORK, values)  # type: ignore[arg-type]


def kept(found: Target) -> int:
    return sum(int(np.count_nonzero(found.array(name))) for name in ("fc1.weight", "fc2.weight"))


@pytest.mark.parametrize("count", [1, 7, 30])
def test_so_many_weights_are_left_and_the_others_are_trained_on(count: int) -> None:
    seen: list[tuple[int, int]] = []
    found = sparse_target(target(), DATA, count, HOW, progress=lambda *done: seen.append(done))
    assert kept(found) == count and seen == [(1, 3), (2, 3), (3, 3)]
    before = target().array("fc1.weight")
    left = found.array("fc1.weight") != 0
    assert count == 1 or not np.array_equal(found.array("fc1.bias"), target().array("fc1.bias"))
    assert not left.any() or not np.array_equal(found.array("fc1.weight")[left], before[left])
    again = sparse_target(target(), DATA, count, HOW)
    assert all(np.array_equal(found.array(name), again.array(name)) for name in NETWORK.tensors)


def test_its_zeros_cost_a_ticket_nothing() -> None:
    found = sparse_target(target(), DATA, 7, HOW)
    images = np.asarray(DATA.train.images)
    ticket = run_in_memory(plan_job(found, Scalar(8), LossAware(14, images), seed=0))
    certificate = verify(ticket, target=found)
    assert certificate.outcome == "no guarantee"  # of weights, because zeros are within its own largest residual
    assert certificate.kept_weights <= 14 < found.weights


def test_what_cannot_be_is_refused() -> None:
    for count in (0, 31, 2.5):
        with pytest.raises(InputError, match="`kept` must be from 1 to 30 weights"):
            sparse_target(target(), DATA, count)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`epochs` must be a whole number from 1 up, got 0"):
        Gradual(epochs=0)
    with pytest.raises(InputError, match=r"`ramp` must be in .*, got 0"):
        Gradual(ramp=0)
