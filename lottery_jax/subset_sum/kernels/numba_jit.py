"""Numba's compiler options for the CPU kernels; stopwatches see its compilation time."""

import threading
import time
from typing import Any

from numba import njit
from numba.core import event

from lottery_jax.progress import record_compilation

compiled_by_numba = njit(nogil=True, cache=True, boundscheck=False)


class _Compilations(event.Listener):
    """Compilations nest: each is recorded when it ends."""

    def __init__(self) -> None:
        self._starts = threading.local()

    def on_start(self, event: Any) -> None:
        self._starts.times = [*getattr(self._starts, "times", ()), time.perf_counter()]

    def on_end(self, event: Any) -> None:
        *self._starts.times, start = self._starts.times
        record_compilation(time.perf_counter() - start)


event.register("numba:compile", _Compilations())
