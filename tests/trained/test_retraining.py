"""What is pruned stays zero under every optimiser, and how runs are grouped changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lottery_jax.errors import InputError
from lottery_jax.networks.node import Spec
from lottery_jax.networks.zoo.mlp import mlp
from lottery_jax.trained.retraining import Descent, Retraining, Start, held
from tests.learned.sources import small_data

DATA = small_data()
NETWORK = mlp((4, 5, 2), Spec((2, 2, 1), True), bias=True)
ADAM = Descent("adam", 0.01, 0.9, 0.0, 8)
SGD = Descent("sgd", 0.1, 0.9, 0.1, 8)


def start(seed: int, keep: float = 0.5, epoch: int = 0) -> Start:
    random = np.random.default_rng(seed)
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in NETWORK.tensors.items()}
    masks = {name: random.random(shape) < keep for name, shape in NETWORK.tensors.items() if "weight" in name}
    return Start(seed, {**tensors, **{name: np.where(m, tensors[name], 0) for name, m in masks.items()}}, masks, epoch)


@pytest.mark.parametrize("descent", [ADAM, SGD], ids=["adam", "momentum and weight decay"])
def test_pruned_weights_are_zero_and_the_others_move(descent: Descent) -> None:
    (finish,) = Retraining(NETWORK, descent, 1).runs([start(1)], DATA, 3)
    for name, mask in start(1).masks.items():
        np.testing.assert_array_equal(finish.tensors[name][~mask], 0)
        assert (finish.tensors[name][mask] != start(1).tensors[name][mask]).any()
    assert (finish.tensors["fc1.bias"] != start(1).tensors["fc1.bias"]).any()
    assert finish.loss.shape == finish.validation_loss.shape == (3,)
    assert np.isfinite([finish.loss, finish.validation_loss]).all()


@pytest.mark.parametrize("inner", [optax.adam(0.1), optax.sgd(0.1, momentum=0.9), ADAM.made(), SGD.made()])
def test_a_weight_is_zero_even_if_it_had_momentum_when_it_was_pruned(inner: optax.GradientTransformation) -> None:
    weight, gradient = {"w": jnp.array([[1.0, 2.0]])}, {"w": jnp.array([[3.0, 4.0]])}
    with jax.numpy_dtype_promotion("standard"):
        _, state = inner.update(gradient, inner.init(weight), weight)
        optimizer = held(inner, {"w": jnp.array([[True, False]])})
        for _ in range(3):
            updates, state = optimizer.update(gradient, state, weight)
            weight = optax.apply_updates(weight, updates)
            assert weight["w"][0, 1] == 0 and weight["w"][0, 0] != 1  # type: ignore[index]


def test_groups_are_filled_up_and_change_nothing() -> None:
    starts = [start(seed, keep) for seed, keep in ((1, 0.5), (2, 1.0), (2**40, 0.0))]
    told: list[int] = []
    alone = Retraining(NETWORK, ADAM, 1).runs(starts, DATA, 2, earlier=1, told=told.append)
    assert told[-1] == 2 and told == sorted(told)
    for one, other in zip(alone, Retraining(NETWORK, ADAM, 2).runs(starts, DATA, 2, earlier=1), strict=True):
        for name, value in one.tensors.items():
            np.testing.assert_allclose(value, other.tensors[name], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(one.earlier[name], other.earlier[name], rtol=1e-4, atol=1e-6)
        assert any((one.earlier[name] != value).any() for name, value in one.tensors.items())


def test_what_is_kept_of_an_earlier_epoch_is_a_training_that_stopped_there() -> None:
    training = Retraining(NETWORK, ADAM, 1)
    (long,), (short,) = training.runs([start(1)], DATA, 3, earlier=2), training.runs([start(1)], DATA, 2)
    for name, value in short.tensors.items():
        np.testing.assert_array_equal(long.earlier[name], value)
        np.testing.assert_array_equal(short.earlier[name], start(1).tensors[name])


def test_a_later_start_sees_the_examples_of_later_epochs() -> None:
    training = Retraining(NETWORK, ADAM, 1)
    (first,), (second,) = training.runs([start(1)], DATA, 1), training.runs([start(1, epoch=1)], DATA, 2)
    assert any((first.tensors[name] != second.tensors[name]).any() for name in first.tensors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "rmsprop"}, "optimizer 'rmsprop' is unknown; use adam or sgd"),
        ({"learning_rate": 0.0}, "learning rate is 0.0"),
        ({"momentum": 1.0}, "momentum 1.0"),
        ({"weight_decay": -1.0}, "weight decay -1.0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    usual = {"optimizer": "adam", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0, "batch_size": 8}
    with pytest.raises(InputError, match=message):
        Descent(**{**usual, **options})
