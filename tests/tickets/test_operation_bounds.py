"""Intervals of elementary operations: alone, and in random graphs, every float32 value lies inside."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.networks.intervals import IntervalArray
from lottery_jax.networks.layers.operations import (
    BINARY,
    OPERATIONS,
    UNARY,
    Binary,
    Elementwise,
    Operation,
    Power,
)
from lottery_jax.tickets.operation_bounds import Operands, operation_bounds
from tests.tickets.graphs import (
    Box,
    bounds_of,
    check_values,
    inputs_on,
    module_of,
    random_graph,
    random_operation,
    values_of,
)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.5, 30.0), (0.0, 2.0**-20)]))
def test_every_value_of_a_random_graph_lies_in_its_interval(choose: random.Random, box: Box) -> None:
    graph, spec = random_graph(choose)
    check_values(graph, spec, box)


@pytest.mark.parametrize("function", UNARY)
def test_a_function_of_one_number_is_within_its_rounding(function: str) -> None:
    """The inputs are single numbers: nothing but the rounding is left of an interval."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(size=2000) * scale for scale in (1e-3, 1.0, 8.0)]).astype(np.float32)
    x = np.concatenate([x, np.array([0, 1, -1, 0.5, 1.5, 2.5, 88, -88, -100, 1e-30, 3e4, -3e4], np.float32)])
    if function in ("log", "rsqrt", "sqrt"):
        x = np.abs(x[x != 0])
    x = x[x > -1] if function == "log1p" else x
    x = x[np.abs(x) < 1e4] if function in ("cos", "sin") else x
    node = Elementwise(function)  # type: ignore[arg-type]
    check_numbers(node, [x])


@pytest.mark.parametrize("function", BINARY)
def test_a_function_of_two_numbers_is_within_its_rounding(function: str) -> None:
    random = np.random.default_rng(0)
    x, y = (random.normal(size=4000).astype(np.float32) * random.choice([1e-3, 1, 30], 4000) for _ in range(2))
    x[:10] = y[:10]
    if function == "pow":
        x, y = np.abs(x), y / 4
    check_numbers(Binary(function), [x.astype(np.float32), y.astype(np.float32)])  # type: ignore[arg-type]


@pytest.mark.parametrize("exponent", [1, 2, 3, 7, 64])
def test_a_power_is_within_its_rounding(exponent: int) -> None:
    check_numbers(Power(exponent), [np.random.default_rng(0).normal(size=4000).astype(np.float32) * 2])
    check_numbers(Binary("pow"), [np.array([-2, 3, -0.5, 0], np.float32), np.full(4, exponent, np.float32)])


def check_numbers(node: Operation, inputs: list[np.ndarray]) -> None:
    """Assert that numbers lie in their intervals, which are no wider than a thousandth of them."""
    given = Operands(
        [IntervalArray(x.astype(np.float64), x.astype(np.float64)) for x in inputs], [], lambda sizes: None
    )
    with np.errstate(all="ignore"):
        own = operation_bounds(node, given)
        made = np.asarray(jax.jit(node)(*inputs), np.float64)
    finite = np.isfinite(own.low) & np.isfinite(own.high) & (own.magnitude < 1e38)
    assert finite.mean() > 0.9 and np.isfinite(made[finite]).all()
    inside = (made >= own.low) & (made <= own.high)
    assert inside[finite].all(), [(x[finite & ~inside][:5], made[finite & ~inside][:5]) for x in inputs]
    wide = own.high - own.low
    assert (wide[finite] <= 1e-5 + 1e-3 * own.magnitude[finite]).all()


def test_every_operation_is_drawn() -> None:
    """The random graphs have all kinds of operations, and most of their nodes are bounded."""
    kinds, bounded, refused = set(), 0, 0
    for seed in range(100):
        graph, spec = random_graph(random.Random(seed))
        kinds |= {node.kind for _, node, _ in graph.nodes}
        found, path = bounds_of(graph, spec, (0.0, 1.0), values_of(graph, spec, seed))
        bounded, refused = bounded + len(found.values), refused + (path is not None)
    assert kinds >= {operation.kind for operation in OPERATIONS}
    assert bounded > 800 and 5 < refused < 40


@pytest.mark.parametrize("seed", range(12))
def test_values_of_copies_are_as_near_as_the_bound(seed: int) -> None:
    """Two inputs that differ by at most 0.01: so far can any value of a graph be apart."""
    graph, spec = random_graph(random.Random(seed), random_operation)
    box, near, tensors = (-1.0, 1.0), 2.0**-7, {}
    tensors = values_of(graph, spec, seed)
    bounds, _ = bounds_of(graph, spec, box, tensors, apart=near)
    module = module_of(graph, spec, tensors)
    x = inputs_on(spec.shape, box, seed)
    y = np.clip(x + np.random.default_rng(seed).choice([-near, 0, near], x.shape), *box).astype(np.float32)
    pair = [module.values(jnp.asarray(each), keep=True) for each in (x, y)]
    checked = 0
    for name, (most, least) in bounds.apart.items():
        made = np.abs(np.asarray(pair[0][name], np.float64) - np.asarray(pair[1][name], np.float64))
        size = bounds.values[name].magnitude
        assert (made <= most + 1e-5 * (1 + size)).all() and (least >= 0).all() and (least <= most).all()
        checked += name in bounds.values
    assert checked > 1
