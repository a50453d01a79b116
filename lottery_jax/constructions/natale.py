"""Subsets of a fixed size (Natale et al. 2024, arXiv 2410.14754): strong tickets of a prescribed sparsity.

For 1 <= k <= n / 2, n >= c log2(k / eps) / H2(k / n) products have a subset of exactly k within eps of the weight.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from lottery_jax.constructions.base import GadgetConstruction
from lottery_jax.errors import InputError
from lottery_jax.subset_sum import FixedSize, Solver


@dataclasses.dataclass(frozen=True)
class Natale(GadgetConstruction):
    """Fixed-size subset sums of Natale et al. 2024: exactly k of the n products of each weight and sign are kept.

    A target weight of 0 keeps k products, too. An input without n units of each sign that it needs is redrawn.

    >>> Natale(21).subset_size, Natale(21, size=3).subset_size
    (5, 3)
    """

    name: ClassVar[str] = "natale"
    objectives: ClassVar[tuple[str, ...]] = ("least-error",)
    scaled_bounds: ClassVar[Mapping[str, float]] = {"weight": 0.25, "bias": 1.0}

    size: int | None = None
    """Kept candidates k of each weight and sign, from 1 to n / 2; a quarter of the candidates by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and (type(self.size) is not int or self.size < 1):
            raise InputError(f"size must be a whole number from 1 to half of the candidates, got {self.size!r}")

    @property
    def subset_size(self) -> int:
        """Kept candidates k of each weight for each sign of the input."""
        return max(self.candidates // 4, 1) if self.size is None else self.size

    @property
    def min_units(self) -> int:
        return self.candidates

    def solver(self, objective: str) -> Solver:
        # Not in __post_init__: the number of candidates may be set later.
        if 2 * self.subset_size > self.candidates:
            raise InputError(
                f"natale's theorem is for 1 <= size <= candidates / 2, not for size {self.subset_size} of"
                f" {self.candidates} candidates; use a smaller size, or pensia"
            )
        return FixedSize(self.subset_size)
