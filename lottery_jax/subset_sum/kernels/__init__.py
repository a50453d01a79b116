"""Optional compiled kernels, bit-equal to the XLA code that they replace where a benchmark shows a gain."""

import importlib.util
import sys
from pathlib import Path

KERNEL_CANDIDATES = {
    "closest_subset_cpu": range(12, 25),
    "closest_subset_shared_cpu": range(12, 25),
    "by_size_cpu": range(12, 25),
    "differencing_cpu": range(2**16 + 1),
}
"""Numbers of candidates that each kernel takes, by file stem."""

MIN_PROBLEMS_TO_COMPILE = 1 << 14
"""Numba compiles a kernel once for each installation, which takes seconds."""


def kernel_is_ready(kernel: str, candidates: int, problems: int) -> bool:
    """True if a kernel takes so many candidates, and is compiled already or worth compiling for so many problems."""
    if candidates not in KERNEL_CANDIDATES[kernel] or not importlib.util.find_spec("numba"):
        return False
    if problems >= MIN_PROBLEMS_TO_COMPILE or f"{__name__}.{kernel}" in sys.modules:
        return True
    compiled = f"__pycache__/{kernel}._search-*.py{sys.version_info[0]}{sys.version_info[1]}.nbi"
    return any(Path(__file__).parent.glob(compiled))
