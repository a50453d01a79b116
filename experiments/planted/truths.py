"""Sparse networks that solve the planted tasks, built by hand: one hidden layer of ReLU, no biases.

Every hidden unit feeds one class. A unit of three weights then has two numbers to match, because its scale is free. A
unit that feeds two classes has three, and similar random units are rarer.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.target import Target
from planted.tasks import CIRCLE_RADII, HELIX_TURNS, RELU_THRESHOLD

Unit = tuple[Sequence[float], int, float]
"""The weights from the inputs, the class, and the weight to it."""


def relu_unit_truth(*, inputs: int = 6) -> Target:
    """Logits 0.2 and relu(x_0): two units, four weights; exact.

    >>> relu_unit_truth().weights, sum(int(np.count_nonzero(relu_unit_truth().array(f"fc{n}.weight"))) for n in (1, 2))
    (16, 4)
    """
    if type(inputs) is not int or not 2 <= inputs <= 1001:
        raise InputError(f"inputs must be the inputs of the data set, an integer from 2 to 1001, got {inputs!r}")
    rest = [0.0] * (inputs - 2)
    return _truth([([1, *rest, 0], 1, 1), ([0, *rest, 1], 0, RELU_THRESHOLD)], 2)


def circle_truth(*, directions: int = 8) -> Target:
    """Logits r_1, r and 2 r - r_2, where the radius r is the mean of ReLUs in evenly spaced directions, times pi.

    With 8 directions r is between 0.948 and 1.026 of the radius, with 12 between 0.977 and 1.012. Both classes with r
    have their own units: 44 weights with 8 directions.
    """
    if type(directions) is not int or directions < 4 or directions % 4:
        raise InputError(f"directions must be a positive multiple of 4, got {directions!r}")
    angles = [2 * math.pi * place / directions for place in range(directions)]
    along = [[_whole(math.cos(angle)), _whole(math.sin(angle)), 0.0] for angle in angles]
    size = math.pi / directions
    first, second = CIRCLE_RADII
    units: list[Unit] = [([0, 0, 1], 0, first), ([0, 0, 1], 2, -second)]
    return _truth(units + [(way, ring, ring * size) for ring in (1, 2) for way in along], 3)


def helix_truth() -> Target:
    """Logits c, s, -c and -s: triangle waves instead of cos and sin, with the same order for every t.

    c = 1 - 3 |t| + 6 relu(|t| - 2/3) and s = 3 t - 6 relu(t - 1/3) + 6 relu(-t - 1/3): 44 weights, exact. Kinks go from
    the middle outwards, so that errors of slope add up over half of the interval only.
    """
    slope = 2 * HELIX_TURNS  # of a triangle wave that falls from 1 to -1 in half a turn
    units: list[Unit] = []
    for cosine, sine, sign in ((0, 1, 1.0), (2, 3, -1.0)):
        units.append(([0, 1], cosine, sign))
        for way in (1, -1):
            units.append(([way, 0], cosine, -sign * slope))
            units.append(([way, -2 / slope], cosine, 2 * sign * slope))
            units.append(([way, 0], sine, sign * way * slope))
            units.append(([way, -1 / slope], sine, -2 * sign * way * slope))
    return _truth(units, 4)


TRUTHS: dict[str, Callable[..., Target]] = {
    "relu-unit": relu_unit_truth,
    "circle": circle_truth,
    "helix": helix_truth,
}
"""The network that solves each task."""


def _truth(units: Sequence[Unit], classes: int) -> Target:
    first = np.array([weights for weights, _, _ in units], np.float32)
    second = np.zeros((classes, len(units)), np.float32)
    for place, (_, label, weight) in enumerate(units):
        second[label, place] = weight
    return mlp_target([first, second])


def _whole(value: float) -> float:
    """0 for a rounded zero, which would be a weight to plant."""
    return 0.0 if abs(value) < 1e-9 else value
