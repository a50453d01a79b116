"""Subsets of a fixed size (Natale et al. 2024, arXiv 2410.14754): a strong ticket of which one knows how sparse it is.

The source is pensia's; of the n products of each weight and sign branch exactly k are kept, with the least error. Their
theorem, for 1 <= k <= n / 2: n >= c log2(k / eps) / H2(k / n) candidates have such a subset within eps. So k leads from
Malach et al. 2020 (one product) to Pensia et al. 2020 (about half of them).
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

    Also of a target weight that is 0. An input whose 2 n units are not n of each sign that it needs is drawn again.

    >>> Natale(21).kept_each, Natale(21, size=3).kept_each
    (5, 3)
    """

    name: ClassVar[str] = "natale"
    objectives: ClassVar[tuple[str, ...]] = ("least-error",)
    reaches: ClassVar[Mapping[str, float]] = {"weight": 0.25, "bias": 1.0}

    size: int | None = None
    """Kept candidates k of each weight and sign, from 1 to n / 2; a quarter of the candidates if left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and (type(self.size) is not int or self.size < 1):
            raise InputError(f"size must be a whole number from 1 to half of the candidates, not {self.size!r}")

    @property
    def kept_each(self) -> int:
        """k: what each weight keeps for each sign of input."""
        return max(self.candidates // 4, 1) if self.size is None else self.size

    @property
    def least_units(self) -> int:
        return self.candidates

    def solver(self, objective: str) -> Solver:
        # Here and not where it is made: the number of candidates may be set later.
        if 2 * self.kept_each > self.candidates:
            raise InputError(
                f"natale's theorem is for 1 <= size <= candidates / 2, not for size {self.kept_each} of"
                f" {self.candidates} candidates; use a smaller size, or pensia"
            )
        return FixedSize(self.kept_each)
