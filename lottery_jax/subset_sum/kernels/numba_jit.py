"""How Numba compiles the kernels of the CPU; what it takes is told to the package's stopwatches."""

import threading
import time
from typing import Any

from numba import njit
from numba.core import event

from lottery_jax.progress import record_compilation

compiled_by_numba = njit(nogil=True, cache=True, boundscheck=False)


class _Compilations(event.Listener):
    """One compilation is part of another: each is told as it ends."""

    def __init__(self) -> None:
        self._begun = threading.local()

    def on_start(self, event: Any) -> None:
        self._begun.times = [*getattr(self._begun, "times", ()), time.perf_counter()]

    def on_end(self, event: Any) -> None:
        *self._begun.times, start = self._begun.times
        record_compilation(time.perf_counter() - start)


event.register("numba:compile", _Compilations())
