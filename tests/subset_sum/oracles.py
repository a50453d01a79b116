"""Independent answers in NumPy float64: brute force over all subsets, and a meeting in the middle by binary search."""

import itertools

import numpy as np


def all_residuals(candidates: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|sum - target| for every subset, [P, 2**N], and the subsets' sizes [2**N]."""
    count = candidates.shape[1]
    subsets = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    sums = candidates.astype(np.float64) @ subsets.T.astype(np.float64)
    return np.abs(sums - targets.astype(np.float64)[:, None]), subsets.sum(1)


def least_of(coefficients: np.ndarray, candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The least residual of each problem, [P], with the coefficients [C, N] to choose from."""
    sums = candidates.astype(np.float64) @ coefficients.T.astype(np.float64)
    return np.abs(sums - targets.astype(np.float64)[:, None]).min(1)


def least_residuals_by_size(candidates: np.ndarray, targets: np.ndarray, k_max: int) -> np.ndarray:
    """The least residual of each problem for the sizes 0 ... k_max, [P, k_max + 1]; inf where k > N."""
    values, wanted = candidates.astype(np.float64), targets.astype(np.float64)
    columns = [np.abs(wanted)]
    for k in range(1, k_max + 1):
        members = np.array(list(itertools.combinations(range(values.shape[1]), k)), int).reshape(-1, k)
        sums = values[:, members].sum(2)
        columns.append(np.abs(sums - wanted[:, None]).min(1, initial=np.inf))
    return np.stack(columns, 1)


def least_residuals(candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The least residual of each problem, [P]."""
    half = candidates.shape[1] // 2
    least = []
    for row, target in zip(candidates.astype(np.float64), targets.astype(np.float64), strict=True):
        left, right = (np.sort(_sums(part)) for part in (row[:half], row[half:]))
        wanted = target - left
        place = np.searchsorted(right, wanted)
        near = np.stack([right[np.clip(place + step, 0, len(right) - 1)] for step in (-1, 0)])
        least.append(np.abs(near - wanted).min())
    return np.array(least)


def _sums(values: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums, sums + value])
    return sums


def recomputed(solution, candidates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """|sum of the chosen - target| from the bits alone."""
    chosen = solution.coefficients.astype(np.float64)
    return np.abs((chosen * candidates.astype(np.float64)).sum(1) - targets.astype(np.float64))
