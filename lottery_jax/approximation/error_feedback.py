"""Error feedback in one layer: weights in order, each compensating for the errors of those before it.

With the second moments H of the inputs (the Hessian), the error of a matrix Q instead of T is tr (Q - T)^T H (Q - T).
*Feedback* chooses a subset for each weight of a row of T, and later rows compensate for its residual (optimal brain
surgeon, Hassibi and Stork 1993; GPTQ, Frantar et al. 2023). A larger subset is taken if it reduces the error by more
than the price of a weight. *Sweeps* then exchange subsets for ones of at most their size if the error decreases.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.subset_sum.algorithms.by_size import closest_of_sizes


class LayerProblem(NamedTuple):
    """R rows of P outputs in G groups of inputs, in the order in which they are solved.

    All arrays are float32 but the candidates.
    """

    candidates: Any  # int32 [R, N, P], in units of `step`
    step: Any  # [R]
    targets: Any  # the matrix T [R, P]
    hessian: Any  # second moments H of the rows [G, R, R]
    inverse_factor: Any  # upper triangular U with U^T U = H^-1 [G, R, R]
    importance: Any  # of each output's error [P]


class ChosenSubsets(NamedTuple):
    """Chosen candidates, bool [R, N, P], and their sums, float32 [R, P]."""

    chosen: Any
    sums: Any


def inverse_hessian_factor(hessian: np.ndarray) -> np.ndarray | None:
    """Upper triangular U with U^T U = H^-1, float64 [G, R, R]; None if a Hessian is singular or not finite.

    >>> inverse_hessian_factor(np.array([[[4.0, 0.0], [0.0, 1.0]]]))[0].tolist()
    [[0.5, 0.0], [0.0, 1.0]]
    """
    try:
        factor = np.linalg.cholesky(np.linalg.inv(hessian)).swapaxes(1, 2)
    except np.linalg.LinAlgError:
        return None
    return np.ascontiguousarray(factor) if np.isfinite(factor).all() else None


@functools.partial(jax.jit, static_argnames=("largest", "sweeps"))
def error_feedback(layer: LayerProblem, price: Any, *, largest: int, sweeps: int) -> ChosenSubsets:
    """Subsets of all weights, of sizes up to `largest`, by feedback, then sweeps; `price` is in error per weight."""
    groups = layer.hessian.shape[0]
    rows, outputs = layer.targets.shape
    sizes = tuple(range(min(largest, layer.candidates.shape[1]) + 1))
    size_cost = price * jnp.arange(len(sizes), dtype=jnp.float32)[:, None]
    group_outputs = outputs // groups

    def nearest(at: Any, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The nearest subset of each size for row `at` [K, N, P], and its sum [K, P]."""
        candidates, step = layer.candidates[at], layer.step[at]
        bound = jnp.abs(candidates).sum(0, dtype=jnp.int32)
        integers = jnp.clip(targets / step, -(2.0**30), 2.0**30).astype(jnp.int32)
        chosen = closest_of_sizes(candidates, jnp.clip(integers, -bound, bound), sizes)
        return chosen, jnp.where(chosen, candidates, 0).sum(1, dtype=jnp.int32).astype(jnp.float32) * step

    def cheapest(chosen: jax.Array, sums: jax.Array, cost: jax.Array) -> ChosenSubsets:
        best = cost.argmin(0)[None]
        sums = jnp.take_along_axis(sums, best, 0)[0]
        return ChosenSubsets(jnp.take_along_axis(chosen, best[None], 0)[0], sums)

    def per_output(values: jax.Array) -> jax.Array:
        """From values of groups [..., G] to values of outputs [..., P]."""
        return jnp.repeat(values, group_outputs, axis=-1)

    def feed(targets: jax.Array, at: Any) -> tuple[jax.Array, ChosenSubsets]:
        row = layer.inverse_factor[:, at]  # [G, R], zero before `at`
        scale = per_output(row[:, at])
        chosen, sums = nearest(at, targets[at])
        found = cheapest(chosen, sums, layer.importance * ((targets[at] - sums) / scale) ** 2 + size_cost)
        residual = (targets[at] - found.sums) / scale
        return targets - per_output(row.T) * residual, found

    def exchange(state: tuple[jax.Array, ChosenSubsets], at: Any) -> tuple[tuple[jax.Array, ChosenSubsets], None]:
        gradient, now = state
        row = layer.hessian[:, at]
        curvature = per_output(row[:, at])
        old = now.sums[at]
        optimum = old - gradient[at] / curvature
        chosen, sums = nearest(at, optimum)
        size = now.chosen[at].sum(0, dtype=jnp.int32)
        cost = layer.importance * curvature * (optimum - sums) ** 2 + size_cost
        cost = jnp.where(jnp.asarray(sizes)[:, None] > size, jnp.inf, cost)
        found = cheapest(chosen, sums, cost)
        before = layer.importance * curvature * (optimum - old) ** 2 + price * size.astype(jnp.float32)
        better = cost.min(0) < before
        new = jnp.where(better, found.sums, old)
        gradient = gradient + per_output(row.T) * (new - old)
        new_chosen = jnp.where(better, found.chosen, now.chosen[at])
        return (gradient, ChosenSubsets(now.chosen.at[at].set(new_chosen), now.sums.at[at].set(new))), None

    order = jnp.arange(rows)
    _, found = jax.lax.scan(feed, layer.targets, order)
    if not sweeps:
        return found
    residuals = (found.sums - layer.targets).reshape(rows, groups, group_outputs)
    gradient = jnp.einsum("grs,sgo->rgo", layer.hessian, residuals, precision="highest").reshape(rows, outputs)
    return jax.lax.scan(exchange, (gradient, found), jnp.tile(order, sweeps))[0][1]


_TRIALS = 14
_MAX_TRIALS = 60  # if no answer within the budget was close to it
_ENOUGH = 0.9  # of the budget, after `_TRIALS`
_MIN_PRICE = 1e-12  # above 0
_NEAR = 0.995  # of the budget ends the search
_AIM = 0.998  # of the budget
_Answer = TypeVar("_Answer")


def within_budget(solve: Callable[[float], tuple[int, _Answer]], budget: int, price: float) -> tuple[int, _Answer]:
    """Search the price whose answer keeps the most weights within a budget; returns their number and the answer.

    Args:
        solve: From a price to the number of kept weights and the answer. The number falls with the price, about as its
            inverse square root, to 0 at an infinite price.
        price: First price to try.

    >>> within_budget(lambda price: (int(100 / (1 + price)), price), 50, 0.01)[0]
    50
    """
    too_many: tuple[float, int] | None = None
    best: tuple[float, int] | None = None
    found: tuple[int, _Answer] | None = None
    for trial in range(_MAX_TRIALS if budget else 0):
        if trial >= _TRIALS and found is not None and found[0] >= _ENOUGH * budget:
            break
        kept, answer = solve(price)
        if kept > budget:
            too_many = price, kept
        else:
            best = price, kept
            if found is None or kept > found[0]:
                found = kept, answer
            if kept >= _NEAR * budget or price == 0:
                break
        if too_many is None or best is None:
            # Step widely, and ever wider, to get to the other side of the budget.
            price = max(price, _MIN_PRICE if too_many else 0.0)
            price *= (min(max((kept / (_AIM * budget)) ** 2, 1e-4), 1e4) * (0.8 if best else 1.25)) ** (1 + trial)
            price = 0.0 if price < 1e-30 else price
            continue
        # Between two prices the logarithm of the count is nearly linear in the logarithm of the price.
        x, y = (math.log(max(at, 1e-30)) for at in (too_many[0], best[0]))
        u, v = (math.log(max(count, 0.5)) for count in (too_many[1], best[1]))
        part = (u - math.log(_AIM * budget)) / (u - v) if u > v and trial % 3 < 2 else 0.5
        price = math.exp(x + min(max(part, 0.1), 0.9) * (y - x))
        if y - x < 1e-4:
            break
    return solve(math.inf) if found is None else found
