"""Instances with all the awkward kinds in one batch, shared by the tests so that their shapes compile once."""

import numpy as np


def instances(count: int, problems: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A catalogue in one batch: uniform, products, ties, zeros, duplicates, all negative, unreachable targets."""
    rng = np.random.default_rng(count)
    rows = problems // 6
    kinds = [
        rng.uniform(-1, 1, (rows, count)),
        rng.uniform(-1, 1, (rows, count)) * rng.uniform(-1, 1, (rows, count)),
        rng.integers(-3, 4, (rows, count)) / 4,
        np.where(rng.random((rows, count)) < 0.5, 0, rng.uniform(-1, 1, (rows, count))),
        np.full((rows, count), 0.25),
        -rng.uniform(0, 1, (rows, count)),
    ]
    targets = rng.uniform(-1, 1, 6 * rows)
    targets[::7] = 0
    targets[3::11] = 100
    return np.concatenate(kinds).astype(np.float32), targets.astype(np.float32)
