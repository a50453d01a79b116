"""What `estimate_constant` finds at an accuracy and a failure chance of 1 %: the constants that the table uses.

They are kept here so that the table needs no search; a slow test estimates them again from the same seed.
"""

from lottery_jax.theory.constant import Constant

SCALAR = Constant("scalar", 0.01, 0.01, trials=10000, seed=0, candidates=14, low=14, high=14)
PRODUCT = Constant("product", 0.01, 0.01, trials=10000, seed=0, candidates=12, low=12, high=13)
GADGET = Constant("gadget", 0.01, 0.01, trials=10000, seed=0, candidates=15, low=14, high=15)
FIXED_SIZE = Constant("fixed-size 4", 0.01, 0.1, trials=2000, seed=0, candidates=15, low=15, high=16)


def of(constant: Constant) -> str:
    """Where a constant comes from, in words.

    >>> of(SCALAR)
    '14 [14, 14] scalar candidates at eps 0.01, delta 0.01'
    """
    return (
        f"{constant.candidates} [{constant.low}, {constant.high}] {constant.distribution} candidates at eps"
        f" {constant.tolerance:g}, delta {constant.delta:g}"
    )
