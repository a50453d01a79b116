"""Rows of inputs: every operation is its rows times its weights; and their moments."""

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.approximation.moments import example_weights, moments_of, rows_of, weights_by_row
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.node import LinearLayer, Weights

OPERATIONS: dict[str, tuple[LinearLayer, tuple[int, ...]]] = {
    "dense": (Dense(4, 3), (4,)),
    "dense with bias, tokens": (Dense(4, 3, bias=True), (5, 4)),
    "convolution": (Conv(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), bias=True), (5, 4, 2)),
    "groups": (Conv(4, 6, (2, 2), groups=2), (3, 3, 4)),
    "depthwise": (Conv(3, 3, (2, 2), groups=3), (3, 3, 3)),
    "rotations": (RotationConv(2, 3, 2, rotations=4), (4, 3, 3, 2)),
}


@pytest.mark.parametrize("signs", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_its_rows_times_its_weights(name: str, signs: int) -> None:
    of, given = OPERATIONS[name]
    random = np.random.default_rng(0)
    x = random.normal(size=(2, *given)).astype(np.float32)
    tensors = {own: random.normal(size=shape).astype(np.float32) for own, shape in of.tensors().items()}
    rows = np.asarray(rows_of(of, jnp.asarray(x), signs), np.float64)
    weights = weights_by_row(of, tensors, signs)
    split = weights.reshape(len(weights), of.groups, -1)
    made = np.einsum("ngr,rgo->ngo", rows, split).reshape(len(rows), -1)
    wanted = np.asarray(of.module(Weights(tensors))(jnp.asarray(x)))  # type: ignore[operator]
    np.testing.assert_allclose(made, wanted.reshape(made.shape), atol=1e-5)


def test_moments_are_those_of_the_network_so_far_and_of_what_the_target_gives() -> None:
    random = np.random.default_rng(1)
    first, second = (random.normal(size=shape).astype(np.float32) for shape in ((6, 5), (3, 6)))
    target = mlp_target([first, second])
    images = random.uniform(size=(7, 5)).astype(np.float32)
    counts = random.uniform(0.5, 2, 7)
    other = first + random.normal(size=first.shape).astype(np.float32)
    networks = target.network, target.network
    tensors = {"fc1.weight": other, "fc2.weight": second}, target.arrays()
    of = target.network.weight_nodes["fc2"]
    assert isinstance(of, LinearLayer)
    found = moments_of(networks, tensors, "fc2", of, 1, images, counts)
    mine, theirs = (np.maximum(images @ weight.T.astype(np.float64), 0) for weight in (other, first))
    share = counts / counts.sum()
    np.testing.assert_allclose(found.gram[0], (share[:, None] * mine).T @ mine, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.cross[0], (share[:, None] * mine).T @ (theirs @ second.T), rtol=1e-4, atol=1e-4)


def test_examples_count_the_same_where_the_target_is_sure_of_all() -> None:
    assert example_weights(np.array([[500.0, 0.0], [0.0, 500.0]])).tolist() == [1, 1]
    assert example_weights(np.random.default_rng(0).normal(size=(9, 3))).mean() == pytest.approx(1)
