"""Learned masks in sources some of whose weights are absent or locked, or whose layers are folded."""

import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup, IteRand
from lottery_jax.mask_learning.multi_level import MultiLevelLearner
from lottery_jax.mask_learning.registry import LEARNERS
from lottery_jax.mask_learning.scores import forced_weights
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.transforms import Lock, PrePrune, ShareLayers, transformed
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.tickets.verify import verify
from lottery_jax.training.learner import Learner, TrainingRequest
from tests.mask_learning.sources import NORMAL, SOURCES, small, small_data, stored

TRANSFORMS = (PrePrune(0.5), ShareLayers())
PLAIN = small(
    ("flatten", Flatten()),
    ("fc1", RandomLayer(Dense(4, 4), NORMAL)),
    ("relu1", Relu()),
    ("fc2", RandomLayer(Dense(4, 4), NORMAL)),
    ("relu2", Relu()),
    ("fc3", RandomLayer(Dense(4, 2), NORMAL)),
)


def present(ticket: Ticket) -> dict[str, np.ndarray]:
    """Which weights are there, in the masks' shapes."""
    source = ticket.source()
    return {name: np.broadcast_to(source[name] != 0, mask.shape) for name, mask in ticket.masks.items()}


@pytest.mark.slow
def test_edge_popup_keeps_exactly_what_is_asked_or_all_that_is_there() -> None:
    source, keeps = transformed(PLAIN, TRANSFORMS), (0.25, 0.9)
    tickets = EdgePopup().learn(source, TrainingRequest(small_data(), seeds=[3], keeps=keeps, epochs=3))
    for keep, ticket in zip(keeps, tickets, strict=True):
        there = present(ticket)
        for name, mask in ticket.masks.items():
            assert mask.sum() == min(round(keep * mask.size), there[name].sum())
            assert not (mask & ~there[name]).any()
        drawn = ticket.source()
        np.testing.assert_array_equal(drawn["fc1.weight"], drawn["fc2.weight"])
        assert ticket.network.source_weights == 16
        assert verify(ticket).outcome == "no guarantee"


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_no_learner_keeps_what_is_absent(name: str) -> None:
    source, learner = transformed(PLAIN, TRANSFORMS), LEARNERS[name]()
    keeps = [0.9] if learner.sweeps else []
    (ticket,) = learner.learn(source, TrainingRequest(small_data(), seeds=[3], keeps=keeps, epochs=2))
    there = present(ticket)
    assert all(drawn.sampler.density == 0.5 for drawn in ticket.network.random_tensors.values())
    assert all(not (mask & ~there[own]).any() for own, mask in ticket.masks.items())
    assert ticket.kept_weights > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_gadgets_and_shared_copies_may_be_sparse_too(name: str) -> None:
    source = transformed(SOURCES[name], TRANSFORMS)
    (ticket,) = EdgePopup(scope="global").learn(
        source, TrainingRequest(small_data(), seeds=[3], keeps=[0.4], epochs=2, stored=stored(source))
    )
    there = present(ticket)
    size = sum(mask.size for mask in ticket.masks.values())
    assert ticket.kept_weights == min(round(0.4 * size), sum(int(own.sum()) for own in there.values()))
    assert all(not (mask & ~there[own]).any() for own, mask in ticket.masks.items())


FROZEN = (PrePrune(0.8), Lock(0.3))


def forced(ticket: Ticket) -> dict[str, np.ndarray]:
    """What the seed decides of each mask, in the draws that the ticket ends with."""
    return forced_weights(
        ticket.network, ticket.seed, {name: ticket.redraws(name) for name in ticket.network.random_tensors}
    )


@pytest.mark.slow
def test_edge_popup_keeps_what_is_asked_or_what_is_locked() -> None:
    source, keeps = transformed(PLAIN, FROZEN), (0.1, 0.5, 0.9)
    tickets = EdgePopup().learn(source, TrainingRequest(small_data(), seeds=[3], keeps=keeps, epochs=2))
    for keep, ticket in zip(keeps, tickets, strict=True):
        for name, own in forced(ticket).items():
            mask, wanted = ticket.mask(name), round(keep * own.size)
            assert mask.sum() == min(max(wanted, (own > 0).sum()), (own >= 0).sum())
            assert mask[own > 0].all() and not mask[own < 0].any()
    low, high = (ticket.masks for ticket in (tickets[0], tickets[2]))
    assert all(np.array_equal(low[name], own > 0) for name, own in forced(tickets[0]).items() if low[name].size == 16)
    assert any(not np.array_equal(low[name], high[name]) for name in low)
    assert verify(tickets[1]).outcome == "no guarantee"


def fitting(learner: Learner) -> None:
    """Two epochs on a partially frozen source: every mask is as the seed says, and more than that is learned."""
    source = transformed(PLAIN, FROZEN)
    keeps = [0.5] if learner.sweeps else []
    (ticket,) = learner.learn(source, TrainingRequest(small_data(), seeds=[3], keeps=keeps, epochs=2))
    for name, own in forced(ticket).items():
        mask = ticket.mask(name)
        assert mask[own > 0].all() and not mask[own < 0].any()
    assert ticket.kept_weights > sum(int((own > 0).sum()) for own in forced(ticket).values()) > 0
    assert {drawn.sampler.locked for drawn in ticket.network.random_tensors.values()} == {0.3}
    assert verify(ticket).outcome == "no guarantee"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, kind in LEARNERS.items() if not issubclass(kind, MultiLevelLearner)])
def test_every_learner_keeps_what_is_locked(name: str) -> None:
    fitting(LEARNERS[name]())


@pytest.mark.parametrize("name", [name for name, kind in LEARNERS.items() if issubclass(kind, MultiLevelLearner)])
def test_masks_of_several_bits_have_no_locked_weights(name: str) -> None:
    with pytest.raises(InputError, match="locked must be 0 for masks with several bits"):
        fitting(LEARNERS[name]())


@pytest.mark.slow
def test_weights_that_are_drawn_again_are_locked_no_more_often() -> None:
    source = transformed(PLAIN, FROZEN)
    (ticket,) = IteRand(renewal=1.0).learn(source, TrainingRequest(small_data(), seeds=[3], keeps=[0.5], epochs=6))
    for name, own in forced(ticket).items():
        before = forced_weights(source, 3)[name] > 0
        np.testing.assert_array_equal(own > 0, before)
        assert ticket.mask(name)[before].all() and len(ticket.redraws(name)) > 0
        assert ticket.mask(name).sum() == max(round(0.5 * own.size), before.sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_gadgets_and_shared_copies_may_be_partially_frozen_too(name: str) -> None:
    source = transformed(SOURCES[name], FROZEN)
    (ticket,) = EdgePopup(scope="global").learn(
        source, TrainingRequest(small_data(), seeds=[3], keeps=[0.5], epochs=2, stored=stored(source))
    )
    own = forced(ticket)
    assert all(ticket.mask(name)[own[name] > 0].all() for name in own)
    size = sum(mask.size for mask in ticket.masks.values())
    assert ticket.kept_weights == min(round(0.5 * size), sum(int((part >= 0).sum()) for part in own.values()))
