"""Losses and metrics: the defaults of each kind of labels compared with references, and functions of the user."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import r2_score

from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.train_scores import train_scores
from lottery_jax.pruning import TRAINED
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.tasks.task import Recipe, train_target
from lottery_jax.training.learner import RunSpec, TrainingRequest
from lottery_jax.training.loop import on_split
from lottery_jax.training.losses import DEFAULT_LOSS, KIND_LOSSES, TaskLoss, label_accuracy, r_squared
from lottery_jax.training.optimizers import OptaxOptimizer
from tests.mask_learning.sources import GADGET, PLAIN, small_data

DATA = small_data()
RANDOM = np.random.default_rng(5)
WEIGHTS = jnp.asarray(RANDOM.normal(size=3000).astype(np.float32))


def of_kind(kind: Any) -> Dataset:
    """The small images, with two numbers of each as targets, or whether these are large as labels."""
    numbers = np.asarray(DATA.train.images).reshape(len(DATA.train), -1)[:, :2]
    split = Split(DATA.train.images, numbers if kind == "regression" else (numbers > 0.5).astype(np.float32))
    return Dataset("numbers", split, split, split, 2, True, kind=kind)


DATASETS = {"classification": DATA, "regression": of_kind("regression"), "multilabel": of_kind("multilabel")}


def absolute(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.abs(outputs - labels)


def request(data: Dataset, loss: TaskLoss = DEFAULT_LOSS, **more: Any) -> TrainingRequest:
    return TrainingRequest(data, seeds=[1], keeps=[0.5], epochs=4, loss=loss, **more)


@pytest.mark.parametrize("outputs", [1, 3])
def test_r_squared_is_that_of_scikit_learn(outputs: int) -> None:
    for case in range(8):
        labels = RANDOM.normal(3, 2, (20, outputs)) if case else np.ones((20, outputs))
        found = labels + RANDOM.normal(0, 0.3 * case, labels.shape)
        for array in (np, jnp):
            own = r_squared(*(array.asarray(part, np.float32 if array is jnp else None) for part in (found, labels)))
            assert float(own) == pytest.approx(r2_score(labels, found), rel=1e-3)
    assert r_squared(np.ones((4, 1)), np.zeros((4, 1))) == r2_score(np.zeros(4), np.ones(4)) == 0


def test_a_label_without_a_number_is_wrong() -> None:
    outputs = np.array([[1.0, -1.0], [np.nan, -2.0], [3.0, 4.0]])
    labels = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert label_accuracy(outputs, labels) == pytest.approx(4 / 6)


@pytest.mark.parametrize("kind", DATASETS)
def test_a_split_is_measured_by_the_loss_and_metric_of_its_labels(kind: str) -> None:
    data, loss = DATASETS[kind], KIND_LOSSES[kind]
    outputs = RANDOM.normal(size=(len(data.train), 2)).astype(np.float32)
    split = Split(outputs, data.train.labels)
    found = on_split(lambda rows: rows, split, loss)
    labels = np.asarray(data.train.labels)
    exact, other = outputs.astype(np.float64), np.log1p(np.exp(-np.abs(outputs.astype(np.float64))))
    if kind == "classification":
        top = exact.max(1)
        wanted = np.log(np.exp(exact - top[:, None]).sum(1)) + top - exact[np.arange(len(labels)), labels]
        metric = (exact.argmax(1) == labels).mean()
    elif kind == "regression":
        wanted, metric = (exact - labels) ** 2, r2_score(labels, exact)
    else:
        wanted, metric = np.maximum(exact, 0) - exact * labels + other, ((exact > 0) == labels).mean()
    assert float(found["loss"]) == pytest.approx(wanted.mean(), rel=1e-5)
    assert float(found["accuracy" if kind == "classification" else "metric"]) == pytest.approx(metric, rel=1e-4)


@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_every_trainer_lowers_the_loss_of_the_labels(kind: str) -> None:
    data = DATASETS[kind]
    target = train_target(PLAIN.target, data, Recipe(2, 8), seed=0)
    assert set(target.network.tensors) == set(PLAIN.target.tensors)
    for name in ("magnitude", "snip", "grasp", "pruning-from-scratch"):
        learner = TRAINED[name](batch_size=8)  # type: ignore[call-arg]
        (ticket,) = learner.learn(PLAIN, dataclasses.replace(request(data), epochs=12))
        by_epoch = ticket.header.settings["by_epoch"]
        assert by_epoch["loss"][-1] < by_epoch["loss"][0] and len(by_epoch["validation_metric"]) == 12
        assert (
            ticket.header.settings["trained_for"]["loss"]
            == {
                "regression": "squared error",
                "multilabel": "sigmoid cross-entropy",
            }[kind]
        )
    (ticket,) = EdgePopup(batch_size=8).learn(GADGET, request(data))
    outputs = np.asarray(ticket.forward()(data.train.images))
    last = ticket.header.settings["by_epoch"]["validation_loss"][-1]
    assert last == pytest.approx(float(KIND_LOSSES[kind].mean(outputs, data.train.labels)), rel=1e-4)


def test_a_loss_of_the_user_equal_to_the_default_trains_the_same_ticket_under_another_name() -> None:
    """Its gradient, its batches and its checks are those of any loss; what is recorded is its own name."""
    loss = TaskLoss(lambda outputs, labels: optax.softmax_cross_entropy_with_integer_labels(outputs, labels))
    for learner, source in ((EdgePopup(batch_size=8), GADGET), (Magnitude(batch_size=8), PLAIN)):
        (own,), (default,) = (learner.learn(source, request(DATA, each)) for each in (loss, DEFAULT_LOSS))
        assert all((own.masks[name] == mask).all() for name, mask in default.masks.items())
        assert "trained_for" not in default.header.settings
        words = own.header.settings["trained_for"]["loss"]
        assert words.startswith(f"{__name__}.") and own.header.settings["loss"] == default.header.settings["loss"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda o, y: 0.5 * absolute(o, y), lambda o, y: 0.25 * absolute(o, y)),
        (lambda o, y: WEIGHTS.sum() * absolute(o, y), lambda o, y: WEIGHTS.at[1500].add(1.0).sum() * absolute(o, y)),
        (absolute, jax.custom_jvp(absolute)),
    ],
    ids=["number", "long constant", "own derivative"],
)
def test_losses_that_differ_have_other_names_and_other_checkpoints(one: Callable, other: Callable) -> None:
    if isinstance(other, jax.custom_jvp):
        other.defjvp(lambda primals, tangents: (absolute(*primals), 3 * tangents[0]))
    data = DATASETS["regression"]
    words = [TaskLoss(loss).recorded(data)["loss"].rpartition(" ")[2] for loss in (one, other, one)]
    assert words[0] == words[2] != words[1]
    runs = [RunSpec(EdgePopup(), 0, 0.5)]
    configurations = [request(data, TaskLoss(loss)).configuration(GADGET, runs) for loss in (one, other, one)]
    assert configurations[0] == configurations[2] != configurations[1]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (TaskLoss(lambda o, y: o[:2]), "`loss` must return a number, or losses of each of 5 examples, got the shape"),
        (TaskLoss(lambda o, y: np.asarray(o).sum()), "`loss` must be a JAX function of outputs .* Use jax.numpy"),
        (TaskLoss(metric=lambda o, y: o), "`metric` must return a number, got the shape"),
        (TaskLoss(lambda o: o), "`loss` must be a JAX function .* got TypeError"),
        (TaskLoss(3), "`loss` must be a JAX function"),  # type: ignore[arg-type]
    ],
)
def test_functions_that_are_no_loss_or_metric_are_refused(loss: TaskLoss, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EdgePopup().learn(GADGET, request(DATASETS["regression"], loss))


def test_an_optimiser_of_optax_that_is_the_default_trains_the_same_ticket() -> None:
    steps = 4 * 5
    rate = optax.cosine_decay_schedule(0.1, steps)
    same = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(rate, momentum=0.9))
    tickets = {}
    for name, optimizer in {"default": None, "same": same, "other": optax.sgd(50.0)}.items():
        (tickets[name],) = EdgePopup(batch_size=8, optimizer=optimizer).learn(GADGET, request(DATA))
    for name, mask in tickets["default"].masks.items():
        assert (tickets["same"].masks[name] == mask).all()
    assert any((tickets["other"].masks[name] != mask).any() for name, mask in tickets["default"].masks.items())
    settings = tickets["same"].header.settings
    assert settings["optimizer"].startswith("optax.") and "learning_rate" not in settings
    assert "optimizer" not in tickets["default"].header.settings


def test_trained_tickets_take_an_optimiser_of_optax() -> None:
    adam = optax.adam(1.2e-3)
    (own,), (default,) = (
        Magnitude(batch_size=8, **options).learn(PLAIN, request(DATA))
        for options in ({"optimizer": adam}, {})  # type: ignore[arg-type]
    )
    for name, value in default.stored.items():
        np.testing.assert_allclose(own.stored[name], value, rtol=1e-4, atol=1e-6)
    assert own.header.settings["optimizer"] == OptaxOptimizer(adam) != OptaxOptimizer(optax.adam(1.3e-3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: EdgePopup(optimizer=optax.adam(0.1), learning_rate=0.2),
            "`learning_rate` must be omitted with",
        ),
        (lambda: Magnitude(optimizer=optax.adam(0.1), momentum=0.5), "`momentum` must be omitted"),
        (lambda: EdgePopup(optimizer=optax.adam(0.1)).points({"learning_rate": [0.1, 0.2]}), "`learning_rate` must be"),
        (lambda: EdgePopup(optimizer=optax.lbfgs()), "needs gradients and parameters alone, got TypeError"),
        (lambda: EdgePopup(optimizer="adam"), "`optimizer` must be of optax, got 'adam'"),  # type: ignore[arg-type]
        (lambda: Magnitude(optimizer="lion"), "`optimizer` must be adam or sgd, got"),  # type: ignore[arg-type]
    ],
)
def test_optimisers_and_options_that_exclude_each_other_are_refused(make: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_learner_with_a_method_of_the_name_optimizer_is_refused() -> None:
    """It would never be called."""

    @dataclasses.dataclass(frozen=True)
    class Own(EdgePopup):
        learn = sweep = train_scores

        def optimizer(self, steps: int) -> optax.GradientTransformation:
            return optax.sgd(0.1)

    with pytest.raises(InputError, match="default_optimizer"):
        Own()
