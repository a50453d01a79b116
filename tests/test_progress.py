"""A stopwatch separates the compilation of JAX and Numba from other work."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.progress import Stopwatch, record_compilation


def test_the_second_call_compiles_nothing() -> None:
    sine = jax.jit(lambda x: jnp.sin(x) @ x)
    x = np.ones((7, 7), np.float32)
    with Stopwatch() as first:
        sine(x).block_until_ready()
    with Stopwatch() as second:
        sine(x).block_until_ready()
    assert 0 < first.compilation <= first.seconds and second.compilation == 0 < second.seconds
    assert first.seconds == pytest.approx(first.work + first.compilation) and second.work == second.seconds


def test_what_is_compiled_at_the_same_time_counts_once() -> None:
    with Stopwatch() as watch:
        time.sleep(0.05)
        record_compilation(0.03)
        record_compilation(0.01)  # a part of it
        threads = [threading.Thread(target=record_compilation, args=(0.02,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        record_compilation(10.0)  # began before the watch did
    assert 0.03 <= watch.compilation <= watch.seconds
    with Stopwatch() as other:
        pass
    assert other.compilation == 0, "what is over is over"


def test_numba_tells_too() -> None:
    pytest.importorskip("numba")
    from lottery_jax.subset_sum.kernels import numba_jit as host

    assert host.compiled_by_numba is not None
    from numba import njit

    with Stopwatch() as watch:
        assert njit(lambda x: x + 1)(1) == 2
    assert 0 < watch.compilation <= watch.seconds
