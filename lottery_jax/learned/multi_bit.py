"""Multi-bit supermasks: a kept random weight counts more or less, in steps of a power of two.

After Okoshi et al. (TMLR 2025, "TicketLLM"), who quantise the scores with a step that adapts to them, and find the kept
fraction thereby. Here it is asked for, and levels are equally frequent, so that they are nested masks as in Okoshi et
al. 2022 ("Multicoated supermasks").
"""

import dataclasses
from typing import ClassVar

from lottery_jax.errors import InputError
from lottery_jax.learned.tied import TiedLearner

MOST_BITS = 4  # each level is a search for its threshold


@dataclasses.dataclass(frozen=True)
class MultiBitSupermask(TiedLearner):
    """Multi-bit supermask (after Okoshi et al. 2025): masks of some bits on frozen random weights, more for top scores.

    At most round(keep * size) weights of each tensor are kept.

    >>> MultiBitSupermask(bits=3).factors
    (1.0, 0.5, 0.25)
    """

    name: ClassVar[str] = "multi-bit-supermask"
    sources: ClassVar[tuple[str, ...]] = ("plain",)

    bits: int = 2
    """Bits of a mask's size, 1 to 4."""
    signed: bool = False
    """Whether a mask also has a sign, that of the score."""

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 1 <= self.bits <= MOST_BITS:
            raise InputError(f"bits must be a whole number from 1 to {MOST_BITS}, not {self.bits!r}")

    def grades(self) -> tuple[int, bool]:
        return self.bits, self.signed
