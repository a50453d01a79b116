"""The linear maps of dense layers and convolutions, and their transposes, in float64."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.networks.node import Operation, Plain, Weights

Map = Callable[[np.ndarray], np.ndarray]
"""Arrays [B, *in] to [B, *out]."""


def linear_map(of: Operation, weight: np.ndarray) -> Map:
    """x [B, *in] -> the operation with these weights and no bias, [B, *out]."""
    return lambda x: _in_float64(lambda weight, x: _applied(of, weight, x), weight, x)


def transposed_map(of: Operation | Plain, weight: np.ndarray | None, given: tuple[int, ...]) -> Map:
    """The transpose: coefficients [B, *out] of what comes out to those [B, *in] of what is `given`.

    weight: of an operation; None for a node that has none and is linear but for a constant.
    """
    return lambda rows: _in_float64(
        lambda weight, rows: _turned(of, given, weight, rows), np.zeros(0) if weight is None else weight, rows
    )


def exactly(node: Plain, x: np.ndarray) -> np.ndarray:
    """A node without weights, of examples [B, ...], in float64."""
    return _in_float64(lambda x: _called(node, x), x)


def _in_float64(function: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        return np.asarray(function(*(jnp.asarray(array, jnp.float64) for array in arrays)))


@functools.partial(jax.jit, static_argnums=0)
def _called(node: Plain, x: jax.Array) -> jax.Array:
    return node(x)  # type: ignore[operator]


@functools.partial(jax.jit, static_argnums=0)
def _applied(of: Operation, weight: jax.Array, x: jax.Array) -> jax.Array:
    # Biases are added by those who ask, where they know what differs.
    zero = {"bias": jnp.zeros(of.outputs, x.dtype)} if "bias" in of.tensors() else {}
    return of.module(Weights({"weight": weight, **zero}))(x)  # type: ignore[operator]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _turned(of: Operation | Plain, given: tuple[int, ...], weight: jax.Array, rows: jax.Array) -> jax.Array:
    def map_of(x: jax.Array) -> jax.Array:
        return _applied(of, weight, x) if isinstance(of, Operation) else _called(of, x)

    # Constants have no slope; any place serves, for these maps have none that depends on it.
    (found,) = jax.vjp(map_of, jnp.zeros((len(rows), *given), rows.dtype))[1](rows)
    return found
