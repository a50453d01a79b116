"""Signed supermasks (Koster et al. 2022, arXiv 2201.13361): a weight is kept, hidden, or turned to its negative.

Published are both a fixed threshold of |score| and a top fraction; here it is the fraction. The gradient passes
straight through to the score.
"""

import dataclasses
from typing import ClassVar

from lottery_jax.learned.tied import TiedLearner


@dataclasses.dataclass(frozen=True)
class SignedSupermask(TiedLearner):
    """Signed supermask (Koster et al. 2022): masks of -1, 0 and 1 on frozen random weights, those of the top scores.

    At most round(keep * size) weights of each tensor are kept, with the signs of their scores.

    >>> SignedSupermask().factors
    (1.0, -1.0)
    """

    name: ClassVar[str] = "signed-supermask"
    sources: ClassVar[tuple[str, ...]] = ("plain",)

    def grades(self) -> tuple[int, bool]:
        return 1, True
