"""One layer, weight after weight: error feedback, and sweeps that choose again.

A layer's output is rows of inputs times a matrix, and with the second moments H of the rows the error of a matrix Q in
place of T is tr (Q - T)^T H (Q - T). *Feedback* goes through the rows of T once: a subset is chosen for each weight of
a row, and what it misses is made up for by the rows still to come, as far as their inputs go along with this one's
(optimal brain surgeon, Hassibi and Stork 1993; column by column with one factor for all: GPTQ, Frantar et al. 2023).
What is lost for good is the miss over a factor's diagonal, squared; a larger subset is taken where it saves more of
that than the price of a weight. *Sweeps* then go through the rows again and exchange subsets for others that are no
larger where the error falls, all other weights as they are.

The price of a kept weight at which a layer keeps its share of a budget.
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
    """One layer's problem, R rows of P outputs in G groups of inputs; rows in the order in which they are settled.

    candidates: int32 [R, N, P], in steps of `step` [R]. wanted: T, float32 [R, P]. moments: H, float32 [G, R, R].
    factor: upper triangular U with U^T U the inverse of H, [G, R, R]. importance: of an output's error, [P].
    """

    candidates: Any
    step: Any
    wanted: Any
    moments: Any
    factor: Any
    importance: Any


class Found(NamedTuple):
    """chosen: bool [R, N, P]. made: float32 [R, P], what the subsets sum to."""

    chosen: Any
    made: Any


def factor_of(moments: np.ndarray) -> np.ndarray | None:
    """U with U^T U the inverse of each of the moments [G, R, R], float64; None where one is singular or not finite.

    >>> factor_of(np.array([[[4.0, 0.0], [0.0, 1.0]]]))[0].tolist()
    [[0.5, 0.0], [0.0, 1.0]]
    """
    try:
        found = np.linalg.cholesky(np.linalg.inv(moments)).swapaxes(1, 2)
    except np.linalg.LinAlgError:
        return None
    return np.ascontiguousarray(found) if np.isfinite(found).all() else None


@functools.partial(jax.jit, static_argnames=("largest", "sweeps"))
def settled(layer: LayerProblem, price: Any, *, largest: int, sweeps: int) -> Found:
    """The subsets of all weights, none larger than `largest`, at a price for each kept one."""
    groups = layer.moments.shape[0]
    rows, outputs = layer.wanted.shape
    sizes = tuple(range(min(largest, layer.candidates.shape[1]) + 1))
    paid = price * jnp.arange(len(sizes), dtype=jnp.float32)[:, None]
    own = outputs // groups

    def nearest(at: Any, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The nearest subset of each size for row `at` [K, N, P], and what it sums to [K, P]."""
        candidates, step = layer.candidates[at], layer.step[at]
        reach = jnp.abs(candidates).sum(0, dtype=jnp.int32)
        near = jnp.clip(wanted / step, -(2.0**30), 2.0**30).astype(jnp.int32)
        chosen = closest_of_sizes(candidates, jnp.clip(near, -reach, reach), sizes)
        return chosen, jnp.where(chosen, candidates, 0).sum(1, dtype=jnp.int32).astype(jnp.float32) * step

    def taken(chosen: jax.Array, sums: jax.Array, cost: jax.Array) -> Found:
        best = cost.argmin(0)
        return Found(jnp.take_along_axis(chosen, best[None, None], 0)[0], jnp.take_along_axis(sums, best[None], 0)[0])

    def per_output(values: jax.Array) -> jax.Array:
        """[..., G] -> [..., P]: what all outputs of a group have in common."""
        return jnp.repeat(values, own, axis=-1)

    def feed(wanted: jax.Array, at: Any) -> tuple[jax.Array, Found]:
        row = layer.factor[:, at]  # [G, R], zero before `at`
        scale = per_output(row[:, at])
        chosen, sums = nearest(at, wanted[at])
        found = taken(chosen, sums, layer.importance * ((wanted[at] - sums) / scale) ** 2 + paid)
        missed = (wanted[at] - found.made) / scale
        return wanted - per_output(row.T) * missed, found

    def choose_again(state: tuple[jax.Array, Found], at: Any) -> tuple[tuple[jax.Array, Found], None]:
        slope, now = state
        row = layer.moments[:, at]
        curve = per_output(row[:, at])
        made = now.made[at]
        wanted = made - slope[at] / curve
        chosen, sums = nearest(at, wanted)
        size = now.chosen[at].sum(0, dtype=jnp.int32)
        cost = layer.importance * curve * (wanted - sums) ** 2 + paid
        cost = jnp.where(jnp.asarray(sizes)[:, None] > size, jnp.inf, cost)
        found = taken(chosen, sums, cost)
        before = layer.importance * curve * (wanted - made) ** 2 + price * size.astype(jnp.float32)
        better = cost.min(0) < before
        made_now = jnp.where(better, found.made, made)
        slope = slope + per_output(row.T) * (made_now - made)
        chosen_now = jnp.where(better, found.chosen, now.chosen[at])
        return (slope, Found(now.chosen.at[at].set(chosen_now), now.made.at[at].set(made_now))), None

    order = jnp.arange(rows)
    _, found = jax.lax.scan(feed, layer.wanted, order)
    if not sweeps:
        return found
    off = (found.made - layer.wanted).reshape(rows, groups, own)
    slope = jnp.einsum("grs,sgo->rgo", layer.moments, off, precision="highest").reshape(rows, outputs)
    again = jnp.tile(order, sweeps)
    return jax.lax.scan(choose_again, (slope, found), again)[0][1]


_TRIALS = 14

_MOST_TRIALS = 60  # where little was cheap enough before

_ENOUGH = 0.9  # of the share, after the usual trials

_LEAST = 1e-12  # the first price above 0 that is tried

_NEAR = 0.995  # of the share is enough

_AIM = 0.998

Answered = TypeVar("Answered")


def within_share(solve: Callable[[float], tuple[int, Answered]], share: int, price: float) -> tuple[int, Answered]:
    """The answer that keeps most of at most `share` among those that are tried, and what it keeps.

    solve: from a price to how many are kept, fewer at higher prices, about as its inverse square root, and none at an
    infinite price. price: the first that is tried.

    >>> within_share(lambda price: (int(100 / (1 + price)), price), 50, 0.01)[0]
    50
    """
    too_many: tuple[float, int] | None = None
    best: tuple[float, int] | None = None
    found: tuple[int, Answered] | None = None
    for trial in range(_MOST_TRIALS if share else 0):
        if trial >= _TRIALS and found is not None and found[0] >= _ENOUGH * share:
            break
        kept, answer = solve(price)
        if kept > share:
            too_many = price, kept
        else:
            best = price, kept
            if found is None or kept > found[0]:
                found = kept, answer
            if kept >= _NEAR * share or price == 0:
                break
        if too_many is None or best is None:
            # A wide step, so that the next one may lie on the other side, and ever wider ones.
            price = max(price, _LEAST if too_many else 0.0)
            price *= (min(max((kept / (_AIM * share)) ** 2, 1e-4), 1e4) * (0.8 if best else 1.25)) ** (1 + trial)
            price = 0.0 if price < 1e-30 else price
            continue
        # Between two prices kept counts are nearly a straight line in logarithms.
        x, y = (math.log(max(at, 1e-30)) for at in (too_many[0], best[0]))
        u, v = (math.log(max(count, 0.5)) for count in (too_many[1], best[1]))
        part = (u - math.log(_AIM * share)) / (u - v) if u > v and trial % 3 < 2 else 0.5
        price = math.exp(x + min(max(part, 0.1), 0.9) * (y - x))
        if y - x < 1e-4:
            break
    return solve(math.inf) if found is None else found
