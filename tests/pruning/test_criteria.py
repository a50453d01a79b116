"""Each criterion against its formula, weight by weight."""

from collections.abc import Callable

import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.pruning.criteria import CRITERIA, criterion

# As published, for one weight before (i) and after (f); None: after all others.
FORMULAS: dict[str, Callable[[float, float], float | None]] = {
    "large_final": lambda i, f: abs(f),
    "small_final": lambda i, f: -abs(f),
    "large_init": lambda i, f: abs(i),
    "small_init": lambda i, f: -abs(i),
    "large_init_large_final": lambda i, f: min(abs(f), abs(i)),
    "small_init_small_final": lambda i, f: -max(abs(f), abs(i)),
    "magnitude_increase": lambda i, f: abs(f) - abs(i),
    "movement": lambda i, f: abs(f - i),
    "large_final_same_sign": lambda i, f: abs(f) if i * f > 0 else None,
    "large_final_diff_sign": lambda i, f: abs(f) if i * f < 0 else None,
    "magnitude_increase_same_sign": lambda i, f: abs(f) - abs(i) if i * f > 0 else None,
    "magnitude_increase_diff_sign": lambda i, f: abs(f) - abs(i) if i * f < 0 else None,
}


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    initial, final = random.normal(size=(2, 6, 5)).astype(np.float32)
    final[0, :2] = 0, -0.0
    return initial, final


def test_no_criterion_is_missing() -> None:
    assert set(FORMULAS) | {"random"} == set(CRITERIA)


@pytest.mark.parametrize("name", FORMULAS)
def test_scores_are_the_formula(name: str) -> None:
    initial, final = weights()
    scores = criterion(name)(initial, final)
    assert scores.shape == initial.shape and scores.dtype == np.float64
    for place in np.ndindex(initial.shape):
        expected = FORMULAS[name](float(initial[place]), float(final[place]))
        assert scores[place] == (-np.inf if expected is None else expected)


def test_chance_depends_on_the_initial_weights_alone() -> None:
    (initial, final), (other, _) = weights(), weights(1)
    scores = CRITERIA["random"](initial, final)
    assert scores.shape == initial.shape and len(np.unique(scores)) == initial.size
    np.testing.assert_array_equal(scores, CRITERIA["random"](initial, initial))
    assert (scores != CRITERIA["random"](other, final)).all()
    assert abs(np.corrcoef(scores.ravel(), np.abs(initial).ravel())[0, 1]) < 0.5


def test_tiny_weights_have_signs() -> None:
    """Their product would be zero in float32."""
    tiny = np.array([1e-30, -1e-30], np.float32)
    assert (CRITERIA["large_final_same_sign"](tiny, tiny) > 0).all()


def test_an_unknown_criterion_is_refused() -> None:
    with pytest.raises(InputError, match=r"'large_finals' is unknown; did you mean 'large_final"):
        criterion("large_finals")
