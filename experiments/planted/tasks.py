"""Three tasks whose sparse solution is known (Fischer & Burkholz 2022, "Plant 'n' Seek", arXiv 2111.11153).

Two of the published tasks are regressions; here they are classifications of the regressed value. The last number of
every example is 1: the sources have no biases, and a bias is a weight of this input.
"""

from collections.abc import Callable

import numpy as np

from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError

RELU_THRESHOLD = 0.2
CIRCLE_RADII = ((4 / 3 / np.pi) ** 0.5, (8 / 3 / np.pi) ** 0.5)
"""Radii between the three rings: each has a third of the square [-1, 1]^2."""
HELIX_TURNS = 1.5


def relu_unit(
    *, seed: int = 0, examples: tuple[int, int, int] = (1024, 512, 2048), noise: float = 0.0, distractors: int = 4
) -> Dataset:
    """Class 1 if relu(x_0) > 0.2; x in [-1, 1]^(1 + distractors), of which only x_0 matters.

    Published: the regression y = relu(x) of one number. As a classification it is linear: a method has to find one
    input and the sign of one unit. 60 % of the examples have class 0.

    >>> relu_unit(examples=(40, 20, 20))
    <Dataset relu-unit: 40 + 20 + 20 examples [6] of any sign, for training, choosing and the test; 2 classes>
    """
    if type(distractors) is not int or not 0 <= distractors <= 1000:
        raise InputError(f"distractors must be an integer from 0 to 1000, got {distractors!r}")
    label = lambda x: (np.maximum(x[:, 0], 0) > RELU_THRESHOLD).astype(np.int32)  # noqa: E731
    return _dataset("relu-unit", 1 + distractors, label, 2, seed, examples, noise)


def circle(*, seed: int = 0, examples: tuple[int, int, int] = (1024, 512, 2048), noise: float = 0.0) -> Dataset:
    """The ring around 0, of three, of a point in [-1, 1]^2; each has a third of the square (published: rings, too).

    >>> circle(examples=(40, 20, 20)).shape
    (3,)
    """

    def label(x: np.ndarray) -> np.ndarray:
        return np.searchsorted(CIRCLE_RADII, np.hypot(x[:, 0], x[:, 1])).astype(np.int32)

    return _dataset("circle", 2, label, 3, seed, examples, noise)


def helix(*, seed: int = 0, examples: tuple[int, int, int] = (1024, 512, 2048), noise: float = 0.0) -> Dataset:
    """The direction, of four at 90 degrees, of the helix (cos, sin)(1.5 pi t) at height t in [-1, 1].

    Published: the regression of the helix's three coordinates from t. The height is t itself. The class is the largest
    of cos, sin, -cos and -sin, so both other coordinates are needed. The classes have 1/6, 1/4, 1/3 and 1/4 of the
    examples.

    >>> helix(examples=(40, 20, 20)).shape
    (2,)
    """

    def label(x: np.ndarray) -> np.ndarray:
        # Half a turn is two directions.
        return (np.rint(x[:, 0] * (2 * HELIX_TURNS)) % 4).astype(np.int32)

    return _dataset("helix", 1, label, 4, seed, examples, noise)


PLANTED_DATA: dict[str, Callable[..., Dataset]] = {"relu-unit": relu_unit, "circle": circle, "helix": helix}
"""The data set of each task."""


def _dataset(
    name: str,
    free: int,
    label: Callable[[np.ndarray], np.ndarray],
    classes: int,
    seed: int,
    examples: tuple[int, int, int],
    noise: float,
) -> Dataset:
    """Examples uniform in [-1, 1]^free, and a 1; a fraction ``noise`` of the labels is redrawn, not for the test."""
    if type(seed) is not int or not 0 <= seed < 2**64:
        raise InputError(f"seed must be an integer in [0, 2**64), got {seed!r}")
    if len(examples) != 3 or any(type(count) is not int or count < 1 for count in examples):
        raise InputError(
            f"examples must be three positive integers for training, validation and test, got {examples!r}"
        )
    if not 0 <= noise <= 1:
        raise InputError(f"noise must be a fraction of redrawn labels in [0, 1], got {noise}")

    def split(purpose: int) -> Split:
        # A stream per split: the number of training examples does not change the test split.
        random = np.random.default_rng([seed, purpose])
        points = random.uniform(-1, 1, (examples[purpose], free)).astype(np.float32)
        labels = label(points)
        if purpose < 2:
            anew = random.uniform(size=len(labels)) < noise
            labels = np.where(anew, random.integers(classes, size=len(labels), dtype=np.int32), labels)
        return Split(np.concatenate([points, np.ones((len(points), 1), np.float32)], axis=1), labels)

    return Dataset(name, *(split(purpose) for purpose in range(3)), classes=classes, nonnegative=False)
