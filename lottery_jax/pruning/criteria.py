"""Which trained weights are kept first: the mask criteria of Zhou et al. 2019 (arXiv 1905.01067).

A criterion scores each weight from what it was (`initial`) and what training made of it (`final`); the highest scores
are kept. Scores are float64 of any sign, -inf for what is kept after everything else.

How many weights each tensor keeps, and the masks that keep them: exact counts, ties by position.

Scopes: `layer` prunes each tensor at the same rate, or at a rate of its own where one is given; `erk` (Erdos-Renyi
kernel, Evci et al. 2020) gives a tensor a density in proportion to the sum of its sizes over their product, 1 at most;
`global` ranks the weights of all tensors together. Whatever the scope, round(keep * weights) are kept in all.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.top_k import kept_count

Criterion = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Weights before and after training, of one shape, to scores of that shape."""


def large_final(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """The size after training: what Frankle & Carbin 2019 keep."""
    return _size(final)


def small_final(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """The smallest after training first."""
    return -_size(final)


def large_init(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """The size before training."""
    return _size(initial)


def small_init(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """The smallest before training first."""
    return -_size(initial)


def large_init_large_final(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """The smaller one of both sizes: large before and after."""
    return np.minimum(_size(final), _size(initial))


def small_init_small_final(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Small before and after."""
    return -np.maximum(_size(final), _size(initial))


def magnitude_increase(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """By how much the size grew.

    >>> magnitude_increase(np.array([1.0, -1.0, 2.0]), np.array([3.0, -1.5, -1.0])).tolist()
    [2.0, 0.5, -1.0]
    """
    return _size(final) - _size(initial)


def movement(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """How far the weight moved."""
    return np.abs(final.astype(np.float64) - initial)


def at_random(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Chance, drawn from the bits of the initial weights: the same again for the same seed."""
    digest = hashlib.sha256(np.ascontiguousarray(initial).tobytes()).digest()
    return np.random.default_rng(list(digest)).random(initial.shape)


def _size(weights: np.ndarray) -> np.ndarray:
    return np.abs(weights.astype(np.float64))


def _with_sign(criterion: Criterion, wanted: int) -> Criterion:
    """The criterion for weights whose sign was kept (1) or changed (-1); all others come after them."""

    def scores(initial: np.ndarray, final: np.ndarray) -> np.ndarray:
        return np.where(np.sign(initial) * np.sign(final) == wanted, criterion(initial, final), -np.inf)

    return scores


CRITERIA: dict[str, Criterion] = {
    "large_final": large_final,
    "small_final": small_final,
    "large_init": large_init,
    "small_init": small_init,
    "large_init_large_final": large_init_large_final,
    "small_init_small_final": small_init_small_final,
    "magnitude_increase": magnitude_increase,
    "movement": movement,
    "random": at_random,
    "large_final_same_sign": _with_sign(large_final, 1),
    "large_final_diff_sign": _with_sign(large_final, -1),
    "magnitude_increase_same_sign": _with_sign(magnitude_increase, 1),
    "magnitude_increase_diff_sign": _with_sign(magnitude_increase, -1),
}


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

_ROUND = 0.2  # published: of dense layers; convolutions and the last layer lose a part of it

_HALVINGS = 200  # of the interval that the rate is in: more than a float64 has bits


def pruned(
    scores: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    keep: float,
    *,
    scope: Scope,
    rates: Mapping[str, float] | None = None,
) -> MasksByName:
    """MasksByName that keep round(keep * weights) weights of the highest scores, all of them among those kept before.

    scores: float64 by tensor, NaN last. masks: what was kept before. rates: as in `kept_counts`.

    >>> scores, whole = {"a": np.array([3.0, 1.0, 2.0, 2.0])}, {"a": np.ones(4, bool)}
    >>> pruned(scores, whole, 0.5, scope="layer")["a"].tolist()
    [True, False, True, False]
    """
    room = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    if scope == "global":
        wanted = _total(keep, {name: mask.shape for name, mask in masks.items()})
        joined = np.concatenate([scores[name].reshape(-1) for name in masks])
        mask = highest(joined, min(wanted, sum(room.values())), np.concatenate([m.reshape(-1) for m in masks.values()]))
        ends = np.cumsum([mask.size for mask in masks.values()])[:-1]
        return {name: part.reshape(masks[name].shape) for name, part in zip(masks, np.split(mask, ends), strict=True)}
    shapes = {name: mask.shape for name, mask in masks.items()}
    counts = kept_counts(shapes, keep, scope=scope, rates=rates, room=room)
    return {name: highest(scores[name], counts[name], mask) for name, mask in masks.items()}


def highest(scores: np.ndarray, count: int, among: np.ndarray) -> np.ndarray:
    """The mask of the `count` highest scores where `among` is True, the earliest of equal ones, NaN last.

    >>> highest(np.array([-1.0, -2.0, -1.0]), 1, np.array([False, True, True])).tolist()
    [False, False, True]
    """
    open_places = np.flatnonzero(among)
    order = np.argsort(-scores.reshape(-1)[open_places], kind="stable")
    mask = np.zeros(scores.size, bool)
    mask[open_places[order[:count]]] = True
    return mask.reshape(scores.shape)


def kept_counts(
    shapes: Mapping[str, tuple[int, ...]],
    keep: float,
    *,
    scope: Scope,
    rates: Mapping[str, float] | None = None,
    room: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Kept weights of each tensor under the scopes `layer` and `erk`; they sum to round(keep * weights).

    rates: the pruning rates of some tensors under the scope layer as parts of that of the others, in rounds that prune
    a fifth of these: so as many are kept in one round or many. room: the most that each tensor may keep. Raises
    `InputError`.

    >>> kept_counts({"fc1": (300, 784), "fc2": (10, 300)}, 0.2, scope="layer", rates={"fc2": 0.5})
    {'fc1': 46248, 'fc2': 1392}
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return counts_of(_densities(shapes, scope, rates or {}), sizes, _total(keep, shapes), room)


def counts_of(
    densities: Callable[[float], dict[str, float]],
    sizes: Mapping[str, int],
    total: int,
    room: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Kept weights of each tensor that sum to the total, at the rate whose densities come nearest to it.

    densities: of each tensor at a rate in [0, 1]; they fall as it grows. room: the most that each tensor may keep.
    """
    low, high = 0.0, 1.0  # densities fall from 1 to 0 as the rate grows
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        kept = sum(sizes[name] * density for name, density in densities(rate).items())
        low, high = (rate, high) if kept > total else (low, rate)
    found = densities(high)
    return _apportioned({name: sizes[name] * found[name] for name in sizes}, total, room or sizes)


def _densities(
    shapes: Mapping[str, tuple[int, ...]], scope: Scope, rates: Mapping[str, float]
) -> Callable[[float], dict[str, float]]:
    """The density of each tensor at a rate in [0, 1], which falls from 1 to 0."""
    if scope == "layer":
        powers = dict.fromkeys(shapes, 1.0)
        for name, part in rates.items():
            if not 0 < part <= 1:
                raise InputError(f"the rate of {name!r} is {part}; give the part of the others' rate, in (0, 1]")
            powers[name] = math.log(1 - _ROUND * part) / math.log(1 - _ROUND)
        return lambda rate: {name: (1 - rate) ** power for name, power in powers.items()}
    if scope != "erk":
        raise InputError(f"the scope {scope!r} has no counts of its own; use layer or erk, or one of {get_args(Scope)}")
    sparse = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    least = min(sparse.values())
    return lambda rate: {name: min(1.0, (1 - rate) * own / least) for name, own in sparse.items()}


def _apportioned(wanted: Mapping[str, float], total: int, room: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers near to the wanted ones that sum to the total, where the room allows; largest remainders first."""
    found = {name: min(int(value), room[name]) for name, value in wanted.items()}
    while (missing := min(total, sum(room.values())) - sum(found.values())) > 0:
        ranked = sorted(
            (name for name in found if found[name] < room[name]), key=lambda name: found[name] - wanted[name]
        )
        for name in ranked[:missing]:
            found[name] += 1
    return found


def _total(keep: float, shapes: Mapping[str, tuple[int, ...]]) -> int:
    return int(kept_count(keep, sum(math.prod(shape) for shape in shapes.values())))
