"""Which trained weights are kept first: the mask criteria of Zhou et al. 2019 (arXiv 1905.01067).

A criterion scores each weight from what it was (`initial`) and what training made of it (`final`); the highest scores
are kept. Scores are float64 of any sign, -inf for what is kept after everything else.
"""

import hashlib
from collections.abc import Callable

import numpy as np

from lottery_jax.errors import InputError, suggest

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
