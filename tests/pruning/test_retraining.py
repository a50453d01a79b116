"""What is pruned keeps its value under every optimiser, and how runs are grouped changes nothing."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.retraining import InitialState, Retraining, RunResult
from lottery_jax.training.optimizers import Hyperparameters, OptimizerConfig, Schedule, masked_optimizer
from lottery_jax.training.parallel_runs import ParallelRuns
from tests.mask_learning.sources import small_data

DATA = small_data()
NETWORK = mlp((4, 5, 2), Spec((2, 2, 1), True), bias=True)
ADAM, SGD = OptimizerConfig("adam", 8), OptimizerConfig("sgd", 10)
HYPERPARAMETERS = {"adam": Hyperparameters(0.01, 0.9, 0.0), "sgd": Hyperparameters(0.1, 0.9, 0.1)}


def start(seed: int, keep: float = 0.5, epoch: int = 0) -> InitialState:
    random = np.random.default_rng(seed)
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in NETWORK.tensors.items()}
    masks = {name: random.random(shape) < keep for name, shape in NETWORK.tensors.items() if "weight" in name}
    begun = {**tensors, **{name: np.where(m, tensors[name], 0) for name, m in masks.items()}}
    return InitialState(seed, begun, masks, HYPERPARAMETERS["adam"], epoch)


def runs(config: OptimizerConfig, starts: list[InitialState], epochs: int) -> list[RunResult]:
    """Runs that do not diverge, one after the other, with the optimiser's numbers above."""
    own = [given._replace(hyperparameters=HYPERPARAMETERS[config.optimizer]) for given in starts]
    found = Retraining(NETWORK, config, ParallelRuns()).runs(own, DATA, epochs)
    return [finish for finish in found if finish is not None]


@pytest.mark.parametrize("config", [ADAM, SGD], ids=["adam", "momentum and weight decay"])
def test_pruned_weights_are_zero_and_the_others_move(config: OptimizerConfig) -> None:
    (finish,) = runs(config, [start(1)], 3)
    for name, mask in start(1).masks.items():
        np.testing.assert_array_equal(finish.tensors[name][~mask], 0)
        assert (finish.tensors[name][mask] != start(1).tensors[name][mask]).any()
    assert (finish.tensors["fc1.bias"] != start(1).tensors["fc1.bias"]).any()
    assert finish.by_epoch["loss"].shape == finish.by_epoch["validation_loss"].shape == (3,)
    assert all(np.isfinite(values).all() for values in finish.by_epoch.values())


@pytest.mark.parametrize(
    "inner",
    [
        optax.adam(0.1),
        optax.sgd(0.1, momentum=0.9),
        *(config.build(HYPERPARAMETERS[config.optimizer]) for config in (ADAM, SGD)),
    ],
)
def test_a_weight_is_zero_even_if_it_had_momentum_when_it_was_pruned(inner: optax.GradientTransformation) -> None:
    weight, gradient = {"w": jnp.array([[1.0, 2.0]])}, {"w": jnp.array([[3.0, 4.0]])}
    with jax.numpy_dtype_promotion("standard"):
        _, state = inner.update(gradient, inner.init(weight), weight)
        optimizer = masked_optimizer(inner, {"w": jnp.array([[True, False]])}, {"w": jnp.zeros((1, 2))})
        state = optimizer.init(weight)._replace(inner=state)  # type: ignore[union-attr]
        for _ in range(3):
            updates, state = optimizer.update(gradient, state, weight)
            weight = optax.apply_updates(weight, updates)
            assert weight["w"][0, 1] == 0 and weight["w"][0, 0] != 1  # type: ignore[index]
        assert state.revived == 1 and state.step == 3  # it was not zero before the first of these steps


def frozen(given: InitialState) -> InitialState:
    """The same start, pruned weights frozen at values of their own."""
    values = {
        name: np.where(m, given.tensors[name], np.float32(0.1 + name.count("1"))) for name, m in given.masks.items()
    }
    return given._replace(tensors={**given.tensors, **values})


@pytest.mark.parametrize("config", [ADAM, SGD], ids=["adam", "momentum and weight decay"])
def test_frozen_weights_are_the_same_bits_after_every_step(config: OptimizerConfig) -> None:
    (finish,) = runs(config, [frozen(start(1))], 3)
    for name, mask in start(1).masks.items():
        assert finish.tensors[name][~mask].tobytes() == frozen(start(1)).tensors[name][~mask].tobytes()
    assert finish.revived == 0


def test_it_is_counted_where_pruned_weights_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that moves all weights a little more: each step but the first one finds it, and so does the end."""

    def loose(*arguments: Any) -> optax.GradientTransformation:
        own = masked_optimizer(*arguments)

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            updates, state = own.update(updates, state, params)
            return jax.tree.map(lambda value: value + 0.01, updates), state

        return optax.GradientTransformation(own.init, update)

    monkeypatch.setattr("lottery_jax.pruning.retraining.masked_optimizer", loose)
    (finish,) = runs(dataclasses.replace(ADAM, batch_size=7), [start(1)], 2)  # a program of its own
    assert finish.revived == 2 * (40 // 7)


def test_the_order_of_examples_is_that_of_the_seed_and_the_epochs() -> None:
    (whole,), (late,), (other,) = (
        runs(ADAM, [given], 3) for given in (start(1), start(1, keep=0.2, epoch=1), start(2))
    )
    assert len(set(whole.batches)) == 3 and whole.batches[1:] == late.batches
    assert not set(whole.batches) & set(other.batches)
    (larger,) = runs(SGD, [start(1)], 3)
    assert not set(larger.batches) & set(whole.batches)


def test_a_later_start_continues_the_schedule() -> None:
    """Plain steps have no memory: trained in two parts is trained in one."""
    plain = OptimizerConfig("sgd", 8, Schedule(3, "cosine"))
    whole = start(1, keep=2.0)._replace(hyperparameters=Hyperparameters(0.1, 0.0, 0.0))
    (long,) = Retraining(NETWORK, plain, ParallelRuns()).runs([whole], DATA, 4, earlier=2)
    assert long is not None
    (rest,) = Retraining(NETWORK, plain, ParallelRuns()).runs([whole._replace(tensors=long.earlier, epoch=2)], DATA, 4)
    assert rest is not None
    for name, value in rest.tensors.items():
        np.testing.assert_array_equal(value, long.tensors[name])


def test_schedules_are_parts_of_the_rate() -> None:
    def rates(schedule: Schedule) -> list[float]:
        return [round(float(schedule.factor(jnp.int32(step), 2, jnp.int32(4))), 3) for step in range(8)]

    assert rates(Schedule()) == [1] * 8 and not Schedule().changes
    assert rates(Schedule(kind="steps")) == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert rates(Schedule(2)) == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert rates(Schedule(kind="cosine")) == [round((1 + np.cos(np.pi * step / 8)) / 2, 3) for step in range(8)]
    for options, message in (
        ((-1,), "`warmup` must be at least 0, got -1"),
        ((0, "linear"), "`schedule` must be one of .*, got 'linear'"),
    ):
        with pytest.raises(InputError, match=message):
            Schedule(*options)  # type: ignore[arg-type]


def test_groups_are_filled_up_and_change_nothing() -> None:
    starts = [start(seed, keep) for seed, keep in ((1, 0.5), (2, 1.0), (2**40, 0.0))]
    seen: list[int] = []
    alone = Retraining(NETWORK, ADAM, ParallelRuns()).runs(
        starts, DATA, 2, earlier=1, progress=lambda done, _: seen.append(done)
    )
    assert seen[-1] == 2 and seen == sorted(seen)
    for one, other in zip(
        alone, Retraining(NETWORK, ADAM, ParallelRuns(2)).runs(starts, DATA, 2, earlier=1), strict=True
    ):
        assert one is not None and other is not None and one.batches == other.batches
        for name, value in one.tensors.items():
            np.testing.assert_allclose(value, other.tensors[name], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(one.earlier[name], other.earlier[name], rtol=1e-4, atol=1e-6)
        assert any((one.earlier[name] != value).any() for name, value in one.tensors.items())


def test_what_is_kept_of_an_earlier_epoch_is_a_training_that_stopped_there() -> None:
    training = Retraining(NETWORK, ADAM, ParallelRuns())
    (long,), (short,) = training.runs([start(1)], DATA, 3, earlier=2), training.runs([start(1)], DATA, 2)
    assert long is not None and short is not None
    for name, value in short.tensors.items():
        np.testing.assert_array_equal(long.earlier[name], value)
        np.testing.assert_array_equal(short.earlier[name], start(1).tensors[name])


def test_a_later_start_sees_the_examples_of_later_epochs() -> None:
    (first,), (second,) = runs(ADAM, [start(1)], 1), runs(ADAM, [start(1, epoch=1)], 2)
    assert any((first.tensors[name] != second.tensors[name]).any() for name in first.tensors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "`learning_rate` must be positive and finite, got 0.0"),
        ({"momentum": 1.0}, "`momentum` must be .*, got 1.0 and 0.0"),
        ({"weight_decay": -1.0}, "got 0.9 and -1.0"),
    ],
)
def test_bad_hyperparameters_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        HYPERPARAMETERS["adam"]._replace(**options).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "rmsprop"}, "`optimizer` must be adam or sgd, got 'rmsprop'"),
        ({"augment": "crop"}, "augmentation 'crop' is unknown; did you mean 'crop-flip'"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(ADAM, **options)
