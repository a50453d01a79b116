"""How much of a planted mask a found one has, and how much a random one would have.

Weights are compared where they lie. Hidden units are not matched first: another unit that computes the same counts as
not found, and a random network has many that come near. So a method may solve the task and share nothing with what was
planted; accuracy and overlap are to be read together.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np

from lottery_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What a found and a planted mask share: `shared` weights, and for each tensor (weights, planted, found).

    Fractions are 0 where nothing could be shared. Those by chance are expected values, for a mask that keeps as many
    weights of each tensor as the found one, any with the same probability.

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
        """The part of the found weights that was planted."""
        return self.shared / max(self.found, 1)

    @property
    def recall(self) -> float:
        """The part of the planted weights that was found."""
        return self.shared / max(self.planted, 1)

    @property
    def jaccard(self) -> float:
        """The shared weights as a part of those of either mask."""
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
        # No linear function of what is shared, so its whole distribution is needed.
        likely = np.ones(1)
        for size, planted, found in self.counts:
            likely = np.convolve(likely, _hypergeometric(size, planted, found))
        shared = np.arange(len(likely))
        return float((likely * shared / np.maximum(self.planted + self.found - shared, 1)).sum())


def overlaps(found: Mapping[str, np.ndarray], planted: Mapping[str, np.ndarray]) -> dict[str, Overlap]:
    """The overlap of each tensor's boolean masks; raises `InputError` where they are not of the same tensors.

    >>> overlaps({"fc1": np.array([True, False, True])}, {"fc1": np.array([True, True, False])})
    {'fc1': Overlap(shared=1, counts=((3, 2, 2),))}
    """
    shapes = [{name: (mask.shape, mask.dtype.name) for name, mask in masks.items()} for masks in (found, planted)]
    if shapes[0] != shapes[1] or {kind for _, kind in shapes[1].values()} != {"bool"}:
        raise InputError(
            f"the found masks are {shapes[0]} and the planted ones {shapes[1]}; give boolean masks of the same tensors"
        )
    return {
        name: Overlap(
            int(np.count_nonzero(found[name] & mask)),
            ((mask.size, int(np.count_nonzero(mask)), int(np.count_nonzero(found[name]))),),
        )
        for name, mask in planted.items()
    }


def runs_per_step(parts: Iterable[Overlap]) -> Overlap:
    """The overlap of several tensors as one.

    >>> runs_per_step([Overlap(1, ((3, 2, 2),)), Overlap(0, ((5, 1, 1),))]).precision
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
    return likely / likely.sum()  # of large numbers, logarithms of factorials lose the last digits


def _log_binomial(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
