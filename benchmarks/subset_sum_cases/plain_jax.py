"""The textbook's meeting in the middle in plain JAX, for context: all sums of both halves, one sort, one look-up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def _sums(a: jax.Array) -> jax.Array:
    """All subset sums of [n], [2**n]; bit k of the position says whether a[k] is in."""
    sums = jnp.zeros(1, a.dtype)
    for value in a:
        sums = jnp.concatenate([sums, sums + value])
    return sums


def _closest(candidates: jax.Array, target: jax.Array) -> jax.Array:
    half = candidates.shape[0] // 2
    left, right = _sums(candidates[:half]), _sums(candidates[half:])
    order = jnp.argsort(left)
    ordered = left[order]
    wanted = target - right
    above = jnp.searchsorted(ordered, wanted).clip(1, len(left) - 1)
    place = jnp.where(wanted - ordered[above - 1] < ordered[above] - wanted, above - 1, above)
    best = jnp.argmin(jnp.abs(ordered[place] - wanted))
    bits = order[place[best]] + best * len(left)
    return (bits >> jnp.arange(candidates.shape[0])) & 1 == 1


@functools.partial(jax.jit, static_argnames="batch")
def plain_jax(candidates: jax.Array, targets: jax.Array, batch: int = 64) -> jax.Array:
    """Subsets bool [P, N] of least residual, in float32."""
    return jax.lax.map(lambda one: _closest(*one), (candidates, targets), batch_size=batch)


def solve_plain_jax(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.asarray(plain_jax(candidates, targets))
