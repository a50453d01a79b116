"""Learned masks in sources some of whose weights are absent, or whose layers are folded."""

import numpy as np
import pytest

from lottery_jax.learned.edge_popup import EdgePopup
from lottery_jax.learned.registry import LEARNERS
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.reshape import Flatten
from lottery_jax.networks.sources.single import Single
from lottery_jax.networks.transforms import transformed
from lottery_jax.networks.transforms.fold_layers import FoldLayers
from lottery_jax.networks.transforms.pre_prune import PrePrune
from lottery_jax.tickets.certificate import certify
from lottery_jax.tickets.ticket import Ticket
from tests.learned.sources import NORMAL, SOURCES, small, small_data, stored

TRANSFORMS = (PrePrune(0.5), FoldLayers())
PLAIN = small(
    ("flatten", Flatten()),
    ("fc1", Single(Dense(4, 4), NORMAL)),
    ("relu1", Relu()),
    ("fc2", Single(Dense(4, 4), NORMAL)),
    ("relu2", Relu()),
    ("fc3", Single(Dense(4, 2), NORMAL)),
)


def present(ticket: Ticket) -> dict[str, np.ndarray]:
    """Which weights are there, in the masks' shapes."""
    source = ticket.source()
    return {name: np.broadcast_to(source[name] != 0, mask.shape) for name, mask in ticket.masks.items()}


@pytest.mark.slow
def test_edge_popup_keeps_exactly_what_is_asked_or_all_that_is_there() -> None:
    source, keeps = transformed(PLAIN, TRANSFORMS), (0.25, 0.9)
    tickets = EdgePopup().learn(source, small_data(), seeds=[3], keeps=keeps, epochs=3)
    for keep, ticket in zip(keeps, tickets, strict=True):
        there = present(ticket)
        for name, mask in ticket.masks.items():
            assert mask.sum() == min(round(keep * mask.size), there[name].sum())
            assert not (mask & ~there[name]).any()
        drawn = ticket.source()
        np.testing.assert_array_equal(drawn["fc1.weight"], drawn["fc2.weight"])
        assert ticket.network.source_weights == 16
        assert certify(ticket).outcome == "promises nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_no_learner_keeps_what_is_absent(name: str) -> None:
    source, learner = transformed(PLAIN, TRANSFORMS), LEARNERS[name]()
    keeps = [0.9] if learner.sweeps else []
    (ticket,) = learner.learn(source, small_data(), seeds=[3], keeps=keeps, epochs=2)
    there = present(ticket)
    assert all(drawn.sampler.density == 0.5 for drawn in ticket.network.drawn.values())
    assert all(not (mask & ~there[own]).any() for own, mask in ticket.masks.items())
    assert ticket.kept_weights > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_gadgets_and_shared_copies_may_be_sparse_too(name: str) -> None:
    source = transformed(SOURCES[name], TRANSFORMS)
    (ticket,) = EdgePopup(scope="global").learn(
        source, small_data(), seeds=[3], keeps=[0.4], epochs=2, stored=stored(source)
    )
    there = present(ticket)
    size = sum(mask.size for mask in ticket.masks.values())
    assert ticket.kept_weights == min(round(0.4 * size), sum(int(own.sum()) for own in there.values()))
    assert all(not (mask & ~there[own]).any() for own, mask in ticket.masks.items())
