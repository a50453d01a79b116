"""Criteria that rank trained weights (Zhou et al. 2019, arXiv 1905.01067), and masks with exact kept counts.

Scopes: `layer` prunes each tensor at the same rate, or at a rate relative to it; `erk` (Erdos-Renyi kernel, Evci et al.
2020) gives a tensor a density proportional to the sum of its sizes over their product, at most 1; `global` ranks the
weights of all tensors together. All scopes keep round(keep * weights) weights.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.top_k import kept_count

Criterion = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From weights before and after training to scores, float64 of the same shape; -inf ranks last."""


def magnitude_increase(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Increase of the absolute value.

    >>> magnitude_increase(np.array([1.0, -1.0, 2.0]), np.array([3.0, -1.5, -1.0])).tolist()
    [2.0, 0.5, -1.0]
    """
    return _magnitude(final) - _magnitude(initial)


def _magnitude(weights: np.ndarray) -> np.ndarray:
    return np.abs(weights.astype(np.float64))


def _large_final(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    return _magnitude(final)


def _random(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Random scores that depend on the first weights alone."""
    digest = hashlib.sha256(np.ascontiguousarray(initial).tobytes()).digest()
    return np.random.default_rng(list(digest)).random(initial.shape)


def _with_sign(criterion: Criterion, product: int) -> Criterion:
    """The criterion for weights whose sign is the same (1) or another (-1) after training; others rank last."""

    def scores(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
        return np.where(np.sign(initial) * np.sign(final) == product, criterion(initial, final), -np.inf)

    return scores


CRITERIA: dict[str, Criterion] = {
    "large_final": _large_final,  # Frankle and Carbin 2019
    "small_final": lambda initial, final: -_magnitude(final),
    "large_init": lambda initial, final: _magnitude(initial),
    "small_init": lambda initial, final: -_magnitude(initial),
    "large_init_large_final": lambda initial, final: np.minimum(_magnitude(final), _magnitude(initial)),
    "small_init_small_final": lambda initial, final: -np.maximum(_magnitude(final), _magnitude(initial)),
    "magnitude_increase": magnitude_increase,
    "movement": lambda initial, final: np.abs(final.astype(np.float64) - initial),
    "random": _random,
    "large_final_same_sign": _with_sign(_large_final, 1),
    "large_final_diff_sign": _with_sign(_large_final, -1),
    "magnitude_increase_same_sign": _with_sign(magnitude_increase, 1),
    "magnitude_increase_diff_sign": _with_sign(magnitude_increase, -1),
}
"""Criteria by their names in Zhou et al. 2019."""


def criterion(name: str) -> Criterion:
    """A criterion by its name; raises `InputError`.

    >>> criterion("large_final")(np.array([1.0]), np.array([-3.0])).tolist()
    [3.0]
    """
    if name not in CRITERIA:
        raise InputError(f"the criterion {name!r} is unknown; {suggest(name, CRITERIA)}")
    return CRITERIA[name]


Scope = Literal["layer", "global", "erk"]

MasksByName = dict[str, np.ndarray]

_ROUND = 0.2  # pruning rate of dense layers in a published round

_HALVINGS = 200  # of the interval of the rate: more than a float64 has bits


def pruned(
    scores: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    keep: float,
    *,
    scope: Scope,
    rates: Mapping[str, float] | None = None,
) -> MasksByName:
    """Masks that keep the round(keep * weights) highest scores among the weights that were kept before.

    Args:
        scores: float64 by tensor; NaN ranks last.
        masks: Weights that were kept before, bool by tensor.
        keep: Kept fraction of all weights.
        scope: layer, global or erk.
        rates: As in `kept_counts`.

    >>> scores, whole = {"a": np.array([3.0, 1.0, 2.0, 2.0])}, {"a": np.ones(4, bool)}
    >>> pruned(scores, whole, 0.5, scope="layer")["a"].tolist()
    [True, False, True, False]
    """
    limits = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    shapes = {name: mask.shape for name, mask in masks.items()}
    if scope == "global":
        total = _total(keep, shapes)
        joined = np.concatenate([scores[name].reshape(-1) for name in masks])
        among = np.concatenate([mask.reshape(-1) for mask in masks.values()])
        mask = highest(joined, min(total, sum(limits.values())), among)
        ends = np.cumsum([mask.size for mask in masks.values()])[:-1]
        return {name: part.reshape(masks[name].shape) for name, part in zip(masks, np.split(mask, ends), strict=True)}
    counts = kept_counts(shapes, keep, scope=scope, rates=rates, limits=limits)
    return {name: highest(scores[name], counts[name], mask) for name, mask in masks.items()}


def highest(scores: np.ndarray, count: int, among: np.ndarray) -> np.ndarray:
    """The mask of the `count` highest scores among the entries of `among`, the earliest of equal ones, NaN last.

    >>> highest(np.array([-1.0, -2.0, -1.0]), 1, np.array([False, True, True])).tolist()
    [False, False, True]
    """
    candidates = np.flatnonzero(among)
    order = np.argsort(-scores.reshape(-1)[candidates], kind="stable")
    mask = np.zeros(scores.size, bool)
    mask[candidates[order[:count]]] = True
    return mask.reshape(scores.shape)


def kept_counts(
    shapes: Mapping[str, tuple[int, ...]],
    keep: float,
    *,
    scope: Scope,
    rates: Mapping[str, float] | None = None,
    limits: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Kept weights of each tensor under the scopes `layer` and `erk`; they sum to round(keep * weights).

    Args:
        shapes: Shape of each tensor.
        keep: Kept fraction of all weights.
        scope: layer or erk.
        rates: Pruning rates of some tensors relative to the others, for rounds that prune a fifth, in (0, 1]. The
            counts do not depend on the number of rounds.
        limits: Most weights that each tensor can keep. Default: all.

    >>> kept_counts({"fc1": (300, 784), "fc2": (10, 300)}, 0.2, scope="layer", rates={"fc2": 0.5})
    {'fc1': 46248, 'fc2': 1392}
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return counts_of(_densities(shapes, scope, rates or {}), sizes, _total(keep, shapes), limits)


def counts_of(
    densities: Callable[[float], dict[str, float]],
    sizes: Mapping[str, int],
    total: int,
    limits: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Kept weights of each tensor that sum to the total, at the rate in [0, 1] whose densities are nearest to it.

    Densities fall with the rate. Limits are the most weights that each tensor can keep, by default all.
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        kept = sum(sizes[name] * density for name, density in densities(rate).items())
        low, high = (rate, high) if kept > total else (low, rate)
    found = densities(high)
    return _apportioned({name: sizes[name] * found[name] for name in sizes}, total, limits or sizes)


def _densities(
    shapes: Mapping[str, tuple[int, ...]], scope: Scope, rates: Mapping[str, float]
) -> Callable[[float], dict[str, float]]:
    """The density of each tensor at a rate in [0, 1], which falls from 1 to 0."""
    if scope == "layer":
        powers = dict.fromkeys(shapes, 1.0)
        for name, part in rates.items():
            if not 0 < part <= 1:
                raise InputError(
                    f"the rate of {name!r} must be in (0, 1], got {part}. Give a part of the rate of the others."
                )
            powers[name] = math.log(1 - _ROUND * part) / math.log(1 - _ROUND)
        return lambda rate: {name: (1 - rate) ** power for name, power in powers.items()}
    if scope != "erk":
        raise InputError(f"`scope` must be layer or erk for kept counts, got {scope!r}. Choose one.")
    return proportional({name: sum(shape) / math.prod(shape) for name, shape in shapes.items()})


def proportional(shares: Mapping[str, float]) -> Callable[[float], dict[str, float]]:
    """Densities in proportion to the shares, at most 1, that fall from 1 to 0 with the rate."""
    least = min(shares.values())
    return lambda rate: {name: min(1.0, (1 - rate) * share / least) for name, share in shares.items()}


def _apportioned(quotas: Mapping[str, float], total: int, limits: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers within the limits that sum to the total, by the largest remainder method."""
    counts = {name: min(int(quota), limits[name]) for name, quota in quotas.items()}
    while (missing := min(total, sum(limits.values())) - sum(counts.values())) > 0:
        free = [name for name in counts if counts[name] < limits[name]]
        for name in sorted(free, key=lambda name: counts[name] - quotas[name])[:missing]:
            counts[name] += 1
    return counts


def _total(keep: float, shapes: Mapping[str, tuple[int, ...]]) -> int:
    return int(kept_count(keep, sum(math.prod(shape) for shape in shapes.values())))
