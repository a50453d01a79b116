"""What holds for every learner on every kind of source: exact counts, the same masks again, tickets that last."""

import dataclasses
import itertools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.learner_sources import redundant_source
from lottery_jax.mask_learning.registry import LEARNERS, SOURCES
from lottery_jax.mask_learning.score_learner import ScoreLearner
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.tickets.verify import verify
from lottery_jax.training.learner import TrainingRequest
from tests.mask_learning import sources

DATA = sources.small_data()
SEEDS, KEEPS = (5, 2**63), (0.35, 1.0)
BRIEF = {
    "edge-popup": {"batch_size": 8, "learning_rate": 2.0},
    "iterand": {"batch_size": 8, "learning_rate": 2.0, "renewal": 0.5},
    "supermask": {"batch_size": 8},
    "supermask-rescaled": {"batch_size": 8},
    "gem-miner": {"batch_size": 8, "learning_rate": 0.2, "freeze_every": 2},
    "hard-concrete": {"batch_size": 8},
    "biprop": {"batch_size": 8, "learning_rate": 2.0},
    "signed-supermask": {"batch_size": 8, "learning_rate": 2.0},
    "multi-bit-supermask": {"batch_size": 8, "learning_rate": 2.0, "signed": True},
    "evolution": {"batch_size": 20, "population": 8, "learning_rate": 1.0},
}
"""Options by which a learner is quick on few examples."""
EXACT = {"edge-popup", "iterand", "biprop", "evolution"}
"""Learners that keep exactly round(keep * size) of each tensor; others that sweep keep at most so many."""

every_learner = pytest.mark.parametrize("name", LEARNERS)


def keeps_of(name: str) -> tuple[float, ...]:
    return KEEPS if LEARNERS[name].sweeps else ()


def sources_of(name: str) -> dict[str, Network]:
    """Every source that a learner takes."""
    return {"plain": sources.PLAIN} if LEARNERS[name].sources else sources.SOURCES


def prepared(name: str, source: Network) -> Network:
    """The source as the learner has it in its tickets."""
    learner = LEARNERS[name](**BRIEF[name])  # type: ignore[arg-type]
    return learner.prepare(source) if isinstance(learner, ScoreLearner) else source


def learn(name: str, kind: str, **changes: object) -> list[Ticket]:
    source = sources_of(name)[kind]
    arguments = {"seeds": SEEDS, "keeps": keeps_of(name), "epochs": 2, "stored": sources.stored(source), **changes}
    return LEARNERS[name](**BRIEF[name]).learn(source, TrainingRequest(DATA, **arguments))  # type: ignore[arg-type]


def test_every_learner_is_in_the_catalogue() -> None:
    assert set(BRIEF) == set(LEARNERS)
    assert all(learner.name == name for name, learner in LEARNERS.items())


QUICK = dict.fromkeys(("supermask", "gem-miner", "hard-concrete"), next(iter(sources.SOURCES)))
"""Learners that are like no other, on one source; all of them are run on all sources by the slow tests."""
TESTED_ALONE = {"biprop", "evolution", "multi-bit-supermask", "signed-supermask", "supermask-rescaled", "iterand"}
"""Learners that other tests train, and such as differ from another in one number."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if name == "edge-popup" or kind == QUICK.get(name) else pytest.mark.slow)
        for name in LEARNERS
        for kind in sources_of(name)
    ],
)
def test_tickets_keep_what_was_asked_and_are_the_same_again(name: str, kind: str, tmp_path: Path) -> None:
    source = sources_of(name)[kind]
    tickets, runs = learn(name, kind), list(itertools.product(SEEDS, keeps_of(name) or (None,)))
    assert [(ticket.seed, ticket.header.settings.get("keep")) for ticket in tickets] == runs
    own = prepared(name, source)
    for ticket, again, (seed, keep) in zip(tickets, learn(name, kind), runs, strict=True):
        assert (ticket.header.method, ticket.header.tolerance, ticket.network.target) == (name, None, source.target)
        for tensor, drawn in source.random_tensors.items():
            weights = ticket.mask(tensor).reshape(*drawn.shape, -1).any(-1)  # of masks with several bits for each
            kept, asked = np.count_nonzero(weights), round((1.0 if keep is None else keep) * drawn.size)
            assert kept == asked if name in EXACT else kept <= asked
            redrawn = {tensor: ticket.redraws(tensor)}
            assert len(redrawn[tensor]) == 0 or LEARNERS[name].resamples  # type: ignore[attr-defined]
            np.testing.assert_array_equal(ticket.source()[tensor], own.draw(seed, redrawn)[tensor])
        assert ticket.to_bytes() == again.to_bytes()
    ticket = tickets[0]
    ticket.save(tmp_path / "ticket")
    loaded = load_ticket(tmp_path / "ticket")
    images = jnp.asarray(DATA.test.images)
    np.testing.assert_array_equal(ticket.forward()(images), loaded.forward()(images))
    assert loaded.header == ticket.header
    for label, value in sources.stored(source).items():
        np.testing.assert_array_equal(loaded.stored[label], value)
    found = verify(loaded)
    assert found.outcome == "no guarantee"
    assert found.kept_weights == sum(np.count_nonzero(mask) for mask in ticket.masks.values()) > 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in TESTED_ALONE else ()) for name in LEARNERS]
)
def test_scores_follow_the_data(name: str) -> None:
    """Other labels, other masks; other seeds too."""
    flipped = dataclasses.replace(DATA.train, labels=1 - np.asarray(DATA.train.labels))
    datasets = DATA, dataclasses.replace(DATA, train=flipped)
    learner = LEARNERS[name](**BRIEF[name])  # type: ignore[arg-type]
    source = sources.PLAIN if learner.sources else sources.GADGET
    (first, second), (opposite, _) = (
        learner.learn(
            source,
            TrainingRequest(data, seeds=SEEDS, keeps=keeps_of(name)[:1], epochs=2, stored=sources.stored(source)),
        )
        for data in datasets
    )
    assert any((first.mask(label) != opposite.mask(label)).any() for label in first.masks)
    assert any((first.mask(label) != second.mask(label)).any() for label in first.masks)


@every_learner
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keeps": (1.5, 0.5)}, r"keep must be .*\[0, 1\].* got 1.5"),
        ({"keeps": (float("nan"),)}, "keep must be .* got nan"),
        ({"keeps": ()}, "`keeps` must not be empty"),
        ({"seeds": ()}, "`seeds` must not be empty"),
        ({"seeds": (-1,)}, "seed must be in"),
        ({"epochs": 0}, "`epochs` must be at least 1, got 0"),
        ({"stored": {}}, r"`stored` must hold bn.weight \[2\].*, got nothing"),
        ({"stored": {"bn.weight": np.ones(3)}}, r"`stored` must hold .*, got bn.weight \[3\]"),
    ],
)
def test_bad_input_is_refused(name: str, changes: dict, message: str) -> None:
    if "keeps" in changes and not LEARNERS[name].sweeps:
        changes, message = {"keeps": (0.5,)}, f"`keeps` of {name} must be empty"
    with pytest.raises(InputError, match=message):
        learn(name, "plain" if LEARNERS[name].sources else "convolutions and a stored norm", **changes)


@every_learner
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (mlp((4, 3, 2), Spec((2, 2, 1))), "no random weights"),
        (
            mlp((64, 3, 10), Spec((8, 8, 1))),
            r"maps \[8, 8, 1\] to \[10\] but small has examples of \[2, 2, 1\] and 2 classes",
        ),
        (mlp((4, 3, 3), Spec((2, 2, 1))), r"to \[3\] but small"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(name: str, source, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LEARNERS[name]().learn(source, TrainingRequest(DATA, seeds=(0,), keeps=keeps_of(name)[:1], epochs=1))


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_of_a_comparison_fits_the_target(kind: str) -> None:
    """`gadget` is the construction's own; `wide` has as many random weights, to a few percent; `plain` the target's."""
    target = mlp((4, 30, 2), Spec((2, 2, 1), True))
    made = redundant_source(target, copies=10)
    found = SOURCES[kind](made)
    assert found.input_spec == made.input_spec and found.output_spec == made.output_spec
    asked = sum(map(np.prod, target.tensors.values())) if kind == "plain" else made.source_weights
    assert abs(found.source_weights / asked - 1) < 0.05
