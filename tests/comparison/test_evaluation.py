"""Metrics against a NumPy float64 oracle, and at the edges."""

import dataclasses
import itertools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.comparison import evaluate as evaluation
from lottery_jax.comparison.evaluate import evaluate
from lottery_jax.data import Split
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec, StatelessLayer
from lottery_jax.networks.target import Target


def split_of(count: int, inputs: int = 7, classes: int = 3) -> Split:
    rng = np.random.default_rng(count)
    return Split(rng.uniform(size=(count, inputs)).astype(np.float32), rng.integers(0, classes, count).astype(np.int32))


def random_target(sizes: tuple[int, ...], seed: int) -> Target:
    random = np.random.default_rng(seed)
    return mlp_target([random.normal(size=(o, i)).astype(np.float32) for i, o in itertools.pairwise(sizes)])


def oracle_logits(target: Target, images: np.ndarray) -> np.ndarray:
    x = images.astype(np.float64)
    *hidden, last = (weight.astype(np.float64) for weight in target.arrays().values())
    for weight in hidden:
        x = np.maximum(x @ weight.T, 0)
    return x @ last.T


@pytest.mark.parametrize("batch_size", [1, 10, 32, 33, 500])
def test_equals_the_oracle_for_every_batch_size(batch_size: int) -> None:
    split = split_of(33)
    network, target = (random_target((7, 6, 3), seed) for seed in (0, 1))
    metrics = evaluate(network.forward(), target.forward(), split, batch_size=batch_size)
    f, g = oracle_logits(network, split.images), oracle_logits(target, split.images)
    assert metrics.accuracy == np.mean(f.argmax(1) == split.labels)
    assert metrics.target_accuracy == np.mean(g.argmax(1) == split.labels)
    assert metrics.agreement == np.mean(f.argmax(1) == g.argmax(1))
    np.testing.assert_allclose(metrics.max_deviation, np.abs(f - g).max(), rtol=1e-5)
    assert metrics.accuracy_low < metrics.accuracy < metrics.accuracy_high


def test_a_network_agrees_with_itself() -> None:
    network = random_target((7, 3), 0).forward()
    metrics = evaluate(network, network, split_of(20))
    assert metrics.agreement == 1 and metrics.max_deviation == 0
    assert metrics.accuracy == metrics.target_accuracy == evaluation.accuracy(network, split_of(20))


def test_one_example_and_two_kinds_of_network() -> None:
    split = Split(np.array([[0.0, 1.0]], np.float32), np.array([1], np.int32))
    metrics = evaluate(jax.jit(lambda x: 3 * x), mlp_target([np.eye(2, dtype=np.float32)]).forward(), split)
    assert (metrics.accuracy, metrics.agreement, metrics.max_deviation) == (1.0, 1.0, 2.0)
    assert metrics.accuracy_high == 1.0 and 0.2 < metrics.accuracy_low < 0.21


def test_nan_logits_count_as_wrong_and_disagreeing() -> None:
    split = Split(np.eye(3, dtype=np.float32), np.array([0, 1, 2], np.int32))

    def broken(x: jax.Array) -> jax.Array:
        return jnp.where((x[:, :1] == 1) & (jnp.arange(3) == 0), jnp.nan, x)

    metrics = evaluate(broken, lambda x: x, split)
    assert metrics.accuracy == metrics.agreement == pytest.approx(2 / 3) and metrics.target_accuracy == 1
    assert math.isnan(metrics.max_deviation)
    assert evaluate(broken, broken, split).agreement == pytest.approx(2 / 3)
    infinite = evaluate(lambda x: x / 0, lambda x: x, split)
    assert math.isnan(infinite.max_deviation) and infinite.accuracy == 0


@dataclasses.dataclass(frozen=True)
class Seen(StatelessLayer):
    """The identity; notes the shapes with which it is traced."""

    kind: ClassVar[str] = "seen"
    shapes: ClassVar[list] = []

    def output_spec(self, given: Spec) -> Spec:
        return given

    def __call__(self, x: jax.Array) -> jax.Array:
        self.shapes.append(x.shape)
        return x


def test_the_program_is_compiled_once_and_the_last_batch_padded() -> None:
    network = Network(Chain((("seen", Seen()), ("fc1", Dense(7, 3)))), Spec((7,)))
    for scale in (1.0, 2.0):
        one, two = (Target(network, {"fc1.weight": np.full((3, 7), s, np.float32)}) for s in (scale, 3 * scale))
        evaluate(one.forward(), two.forward(), split_of(25), batch_size=10)
    assert Seen.shapes == [(10, 7)]


@pytest.mark.parametrize(
    ("split", "batch_size", "message"),
    [
        (split_of(0), 10, "at least one example, got none"),
        (Split(np.zeros((2, 7), np.float32), np.zeros(3, np.int32)), 10, "must have shapes"),
        (split_of(5), 0, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(split: Split, batch_size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(lambda x: x, lambda x: x, split, batch_size=batch_size)


def test_networks_of_other_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"must have shapes .*, got \(4, 7\), \(4, 2\) and \(4,\)"):
        evaluate(lambda x: x, lambda x: x[:, :2], split_of(4))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**6).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_bounds_solve_their_equation(counts: tuple[int, int]) -> None:
    correct, total = counts
    low, high = evaluation.wilson_interval(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    for bound in (low, high):  # |p^ - p| = z sqrt(p (1 - p) / n) at both bounds
        margin = 1.959963984540054 * math.sqrt(bound * (1 - bound) / total)
        assert abs(correct / total - bound) == pytest.approx(margin, rel=1e-6, abs=1e-7)
