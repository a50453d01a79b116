"""Times, compilations and memory of one process."""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

T = TypeVar("T")
_compilations = [0]


def _count_compilation(event: str, duration_secs: float, **kwargs: str | int) -> None:
    _compilations[0] += event.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(_count_compilation)


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux that begins with the parent's memory.
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of_jax() -> int:
    """Peak memory of a process that imports JAX, compiles one tiny program and does nothing else."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import subset_sum_cases.measure as measure\n"
        "import jax, jax.numpy as jnp; jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(8)))\n"
        "print(measure.peak_memory())"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[1])]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def device_memory() -> dict[str, float]:
    """Peak memory of the accelerator in GiB, where it tells."""
    found = (jax.devices()[0].memory_stats() or {}) if jax.default_backend() != "cpu" else {}
    return {"device_peak_gib": found["peak_bytes_in_use"] / 2**30} if "peak_bytes_in_use" in found else {}


def measure(run: Callable[[], T], repeats: int, work: int) -> tuple[T, dict[str, Any]]:
    """Run once, which compiles, then `repeats` times; `work` is the number of weights of one run.

    `seconds` is the median of the repeats. `again` counts what they compiled, which should be nothing. Memory is
    taken before the answer is judged.
    """
    answer: Any = None
    seconds, compiled = [], [_compilations[0]]
    for _ in range(repeats + 1):
        del answer  # or the peak would hold two
        start = time.perf_counter()
        answer = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
        compiled.append(_compilations[0])
    median = statistics.median(seconds[1:])
    return answer, {
        "weights": work,
        "seconds": median,
        "first_seconds": seconds[0],
        "us_per_weight": 1e6 * median / work,
        "compilations": compiled[1] - compiled[0],
        "compilations_again": compiled[-1] - compiled[1],
        "peak_memory_gib": peak_memory() / 2**30,
        **device_memory(),
    }
