"""Overlap of a found mask with a planted one, compared with chance.

Weights are compared by position. Hidden units are not matched first: another unit that computes the same function
counts as not found, and a random network has many similar units. A method may solve the task without any planted
weight, so read accuracy and overlap together.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np

from lottery_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Overlap of a found and a planted mask.

    Fractions are 0 if a mask is empty. Fractions by chance are expected values for a mask that keeps as many weights of
    each tensor as the found one, all with the same probability.

    Attributes:
        shared: Number of shared weights.
        counts: For each tensor (weights, planted weights, found weights).

    >>> half = Overlap(shared=1, counts=((4, 2, 2),))
    >>> half.recall, half.precision, round(half.jaccard, 3), half.chance_recall, round(half.chance_jaccard, 3)
    (0.5, 0.5, 0.333, 0.5, 0.389)
    """

    shared: int
    counts: tuple[tuple[int, int, int], ...]

    @property
    def size(self) -> int:
        return sum(size for size, _, _ in self.counts)

    @property
    def planted(self) -> int:
        return sum(planted for _, planted, _ in self.counts)

    @property
    def found(self) -> int:
        return sum(found for _, _, found in self.counts)

    @property
    def precision(self) -> float:
        """The fraction of the found weights that was planted."""
        return self.shared / max(self.found, 1)

    @property
    def recall(self) -> float:
        """The fraction of the planted weights that was found."""
        return self.shared / max(self.planted, 1)

    @property
    def jaccard(self) -> float:
        """The shared weights as a fraction of those in either mask."""
        return self.shared / max(self.planted + self.found - self.shared, 1)

    @property
    def chance_shared(self) -> float:
        return sum(planted * found / size for size, planted, found in self.counts)

    @property
    def chance_precision(self) -> float:
        return self.chance_shared / max(self.found, 1)

    @property
    def chance_recall(self) -> float:
        return self.chance_shared / max(self.planted, 1)

    @property
    def chance_jaccard(self) -> float:
        # Not a linear function of the shared weights, so their whole distribution is needed.
        likely = np.ones(1)
        for size, planted, found in self.counts:
            likely = np.convolve(likely, _hypergeometric(size, planted, found))
        shared = np.arange(len(likely))
        return float((likely * shared / np.maximum(self.planted + self.found - shared, 1)).sum())


def overlaps(found: Mapping[str, np.ndarray], planted: Mapping[str, np.ndarray]) -> dict[str, Overlap]:
    """The overlap of each tensor's boolean masks; raises ``InputError`` if the tensors differ.

    >>> overlaps({"fc1": np.array([True, False, True])}, {"fc1": np.array([True, True, False])})
    {'fc1': Overlap(shared=1, counts=((3, 2, 2),))}
    """
    shapes = [{name: (mask.shape, mask.dtype.name) for name, mask in masks.items()} for masks in (found, planted)]
    if shapes[0] != shapes[1] or {kind for _, kind in shapes[1].values()} != {"bool"}:
        raise InputError(
            f"found and planted masks must be boolean and of the same tensors, got {shapes[0]} and {shapes[1]}"
        )
    return {
        name: Overlap(
            int(np.count_nonzero(found[name] & mask)),
            ((mask.size, int(np.count_nonzero(mask)), int(np.count_nonzero(found[name]))),),
        )
        for name, mask in planted.items()
    }


def merged_overlap(parts: Iterable[Overlap]) -> Overlap:
    """The overlap of several tensors as one.

    >>> merged_overlap([Overlap(1, ((3, 2, 2),)), Overlap(0, ((5, 1, 1),))]).precision
    0.3333333333333333
    """
    own = list(parts)
    return Overlap(sum(part.shared for part in own), tuple(counts for part in own for counts in part.counts))


def _hypergeometric(size: int, planted: int, found: int) -> np.ndarray:
    """The probability of each number of shared weights, from 0 to the fewer of the two."""
    least, most = max(planted + found - size, 0), min(planted, found)
    logarithms = [
        _log_binomial(planted, shared) + _log_binomial(size - planted, found - shared)
        for shared in range(least, most + 1)
    ]
    likely = np.zeros(most + 1)
    likely[least:] = np.exp(np.array(logarithms) - _log_binomial(size, found))
    return likely / likely.sum()  # logarithms of large factorials lose the last digits


def _log_binomial(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
