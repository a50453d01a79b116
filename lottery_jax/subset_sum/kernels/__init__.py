"""Hand-written kernels: optional, bit-equal to the XLA code beside them, used where a benchmark shows that they win."""

import importlib.util
import sys
from pathlib import Path

HOST_SIZES = range(12, 25)
"""Numbers of candidates that the CPU's kernels take."""

WORTH_COMPILING = 1 << 14
"""Problems: Numba compiles a kernel once for each installation, in some seconds."""


def at_hand(kernel: str, candidates: int, problems: int, sizes: range = HOST_SIZES) -> bool:
    """True where a kernel of the CPU, for `sizes`, takes the problems and is compiled already, or worth it."""
    if candidates not in sizes or not importlib.util.find_spec("numba"):
        return False
    if problems >= WORTH_COMPILING or f"{__name__}.{kernel}" in sys.modules:
        return True
    compiled = f"__pycache__/{kernel}._search-*.py{sys.version_info[0]}{sys.version_info[1]}.nbi"
    return any(Path(__file__).parent.glob(compiled))
