"""Loss-aware tickets: of every construction that leaves a choice, on every kind of network."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.approximation import Budget, LossAware, approximate, plan_job, run_in_memory
from lottery_jax.approximation.importance import fisher_importance
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.constructions import Construction, Pensia, Scalar
from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import Graph
from lottery_jax.networks.layers.operations import DotGeneral, Reshape
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.target import Target
from lottery_jax.tasks import load_task
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.tickets.verify import verify
from tests.approximation.test_budget import BUDGETED
from tests.constructions.catalogue import CHUNK, COUNT, COVERED, TARGETS, bag, random_target
from tests.tickets.graphs import as_graph, softmax, steps

QUICK = {("pensia", "mlp with biases, inputs of any sign")}


def images(target: Target, count: int = 40) -> np.ndarray:
    given = target.network.input_spec
    assert given is not None
    return np.random.default_rng(0).uniform(0 if given.nonnegative else -1, 1, (count, *given.shape)).astype(np.float32)


def found(target: Target, construction: Construction, objective: LossAware | Budget, **more: int) -> Ticket:
    return run_in_memory(plan_job(target, construction, objective, seed=3, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param(name, words, marks=() if (name, words) in QUICK else pytest.mark.slow)
        for name in BUDGETED
        for words in TARGETS
        if words != "bag"
    ],
)
def test_every_ticket_holds_and_keeps_its_budget(name: str, words: str) -> None:
    construction, target = COVERED[name].construction, TARGETS[words]()
    kept = target.weights
    objective = LossAware(kept, images(target))
    ticket = found(target, construction, objective)
    certificate = verify(ticket, target=target)
    assert certificate.outcome in ("holds", "no guarantee"), certificate.reasons
    assert 0.5 * kept < certificate.kept_weights <= kept == certificate.kept_budget
    assert certificate.worst_residual is not None and ticket.header.tolerance is not None
    assert 0 < certificate.worst_residual <= ticket.header.tolerance <= 1.02 * certificate.worst_residual
    other = found(target, construction, objective, chunk_weights=CHUNK)
    assert all(np.array_equal(mask, other.masks[own]) for own, mask in ticket.masks.items())


def test_copies_that_are_added_up_are_refused() -> None:
    target = TARGETS["mlp, inputs never negative"]()
    with pytest.raises(InputError, match="burkholz makes layers of copies that are added up"):
        found(target, COVERED["burkholz"].construction, LossAware(50, images(target)))


@pytest.mark.slow
def test_it_is_nearer_to_the_target_than_a_budget_of_single_weights() -> None:
    task = load_task("digits")
    train, kept = np.asarray(task.dataset.train.images), 1500
    fisher = fisher_importance(task.target, train, damping=1.0)
    right = []
    for objective in (LossAware(kept, train), Budget(kept, importance=fisher, k_max=2)):
        right.append(accuracy(found(task.target, Pensia(16), objective).forward(), task.dataset.test))
    assert right[0] > right[1] + 0.02


def test_what_is_asked_is_checked() -> None:
    target = mlp_target([np.array([[0.3, -0.2]], np.float32), np.array([[0.5], [-0.4]], np.float32)])
    good = LossAware(2, images(target))
    for words, wrong in {
        "kept must be at least 1 .*got 0": {"kept": 0},
        "damping must be a number from 0 up, got -1": {"damping": -1.0},
        "sweeps must be a whole number": {"sweeps": -1},
        "k_max must be a whole number from 1": {"k_max": 0},
        r"shape \['N', 2\] with N from 1 up .*got \[0, 2\]": {"images": good.images[:0]},
        r"got \[40, 1\]": {"images": good.images[:, :1]},
        "of 'fc1' are singular .* damping above 0": {"images": np.array([[1.0, 0.0]]), "damping": 0.0},
        "images hold NaN or infinite": {"images": np.full((3, 2), np.nan)},
    }.items():
        with pytest.raises(InputError, match=words):
            found(target, Scalar(COUNT), dataclasses.replace(good, **wrong))
    with pytest.raises(InputError, match="name the architecture of the model"):
        found(bag(), Scalar(COUNT), good)
    with pytest.raises(InputError, match="a budget has no choice"):
        found(target, COVERED["natale"].construction, good)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pensia", "mlp with biases, inputs of any sign"),
        pytest.param("scalar", "residual, inputs of any sign", marks=pytest.mark.slow),
        pytest.param("scalar", "convolutions, inputs never negative", marks=pytest.mark.slow),
    ],
)
def test_a_graph_of_the_same_layers_gives_the_same_ticket(name: str, words: str) -> None:
    target, construction = fold_batch_norm(TARGETS[words]()), COVERED[name].construction
    same = Target(as_graph(target.network), target.arrays())  # type: ignore[arg-type]
    pair = [found(each, construction, LossAware(each.weights, images(each))) for each in (target, same)]
    assert pair[0].masks.keys() == pair[1].masks.keys()
    assert all(np.array_equal(mask, pair[1].masks[own]) for own, mask in pair[0].masks.items())
    certificates = [verify(ticket, target=each) for ticket, each in zip(pair, (target, same), strict=True)]
    assert certificates[0].worst_residual == certificates[1].worst_residual
    importance = [fisher_importance(each, images(each)) for each in (target, same)]
    assert all(importance[1][own] == pytest.approx(value, rel=1e-5) for own, value in importance[0].items())


def test_softmax_attention_of_a_graph() -> None:
    rows = (
        *(("q", Dense(4, 4), "input"), ("k", Dense(4, 4), "input"), ("v", Dense(4, 4), "input")),
        ("scores", DotGeneral((1,), (1,)), "q k"),
        *softmax("scores", 1, (3, 3)),
        *(
            ("mixed", DotGeneral((1,), (0,)), "shares v"),
            ("flat", Reshape((12,)), "mixed"),
            ("fc", Dense(12, 3), "flat"),
        ),
    )
    target = random_target(Network(Graph(steps(*rows), "fc"), Spec((3, 4))))
    x = images(target, 200)
    tickets = [
        found(target, Scalar(COUNT), objective)
        for objective in (LossAware(60, x), Budget(60, importance=None, k_max=2))
    ]
    assert verify(tickets[0], target=target).outcome in ("holds", "no guarantee")
    wanted = np.asarray(target.forward()(jnp.asarray(x)))
    losses = [np.abs(np.asarray(ticket.forward()(jnp.asarray(x))) - wanted).mean() for ticket in tickets]
    assert losses[0] < losses[1]


@pytest.mark.parametrize(("outputs", "kind"), [(1, "regression"), (3, "regression"), (1, "multilabel")])
def test_of_numbers_and_labels_its_outputs_are_nearer_than_those_of_a_plain_budget(outputs: int, kind: Any) -> None:
    random = np.random.default_rng(2)
    target = mlp_target([random.normal(0, 0.6, (12, 4)), random.normal(0, 0.6, (outputs, 12))])
    examples = images(target, 400)
    kept = 2 * target.weights
    errors = []
    for objective in (LossAware(kept, examples, label_kind=kind), Budget(kept)):
        ticket = found(target, Scalar(COUNT), objective)
        differences = np.asarray(ticket.forward()(examples)) - np.asarray(target.forward()(examples))
        errors.append(float((differences**2).mean()))
        assert verify(ticket, target=target).outcome in ("holds", "no guarantee")
    assert errors[0] < 0.8 * errors[1]


def test_the_kind_of_labels_defaults_to_that_of_the_data_or_of_the_outputs() -> None:
    random = np.random.default_rng(2)
    targets = [mlp_target([random.normal(0, 0.6, (outputs, 4))]) for outputs in (1, 3)]
    examples = images(targets[0], 30)
    numbers = Dataset.from_arrays(examples, random.random((30, 3)))
    for target, data, kind in (
        (targets[0], None, "regression"),
        (targets[1], None, None),
        (targets[1], numbers, "regression"),
    ):
        given = {"images": examples} if data is None else {"dataset": data, "images": np.asarray(data.train.images)}
        ticket = approximate(target, seed=0, construction=Scalar(COUNT), kept=8, **given)  # type: ignore[arg-type]
        assert ticket.header.settings.get("label_kind") == kind
    with pytest.raises(InputError, match=r"two or more outputs, got one output\. Give the label_kind regression"):
        approximate(targets[0], seed=0, kept=8, images=examples, label_kind="classification")
    with pytest.raises(InputError, match="label_kind is an option of kept"):
        approximate(targets[0], seed=0, label_kind="regression")
