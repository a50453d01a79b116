"""The Pallas kernel for Hopper GPUs against XLA on the same instances: equality, then time.

Command: python benchmarks/bench_kernel_gpu.py
Needs an NVIDIA Hopper GPU; a few minutes. NOT YET RUN: no GPU has been to hand, so there is no result file, and
`MeetInTheMiddle(hopper_kernel=True)` stays a choice. If the kernel wins here, make it the default on Hopper and say so
in docs/performance.md.

Reported for N = 20 and 21 and several numbers of problems at once: microseconds per weight of both, the time for the
397,000 weights of Experiment 1 (goal: 15 ms, counted floor of the kernel 2.4 ms at N = 21, see
lottery_jax/subset_sum/kernels/hopper.py), and operations per lane slot and second as a share of the chip's peak.
Candidates and targets are on the GPU before the clock starts, and the answers stay there.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax import environment
from lottery_jax.subset_sum.engine.grid import to_grid
from lottery_jax.subset_sum.kernels import hopper
from lottery_jax.subset_sum.search.sorted_sums import closest_subset

WEIGHTS, GOAL_MS = 397_000, 15.0
OPERATIONS = {20: 67.6e3, 21: 103.8e3}  # of the kernel per problem, by its trace
PEAK = 132 * 64 * 1.98e9  # 32-bit integer operations a second: SMs, lanes a clock, clock of an H200
SEARCHES: dict[str, Callable] = {
    "xla": jax.jit(closest_subset),
    "kernel": jax.jit(functools.partial(closest_subset, find_pair=hopper.closest_pair)),
}


def instances(count: int, problems: int, ties: bool = False) -> tuple[jax.Array, jax.Array]:
    """On the grid: candidates int32 [N, B] and targets [B], uniform or with few distinct values."""
    rng = np.random.default_rng(count)
    if ties:
        candidates, targets = rng.integers(-3, 4, (count, problems)), rng.integers(-9, 10, problems)
        return jnp.asarray(candidates, jnp.int32), jnp.asarray(targets, jnp.int32)
    candidates, targets = rng.uniform(-1, 1, (count, problems)), rng.uniform(-0.5, 0.5, problems)
    to_int32 = jax.jit(to_grid, static_argnums=3)
    grid = to_int32(*(np.asarray(x, np.float32) for x in (candidates, targets)), np.float32(0.01), jnp.int32)
    return grid.candidates, grid.targets


def milliseconds(search: Callable, given: tuple[jax.Array, jax.Array], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):  # the first one compiles
        start = time.perf_counter()
        jax.block_until_ready(search(*given))
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[1:])


def measure(counts: list[int], sizes: list[int], repeats: int) -> list[dict]:
    rows = []
    for count in counts:
        for size in sizes:
            for ties in (False, True):
                given = instances(count, size, ties)
                plain, other = (np.asarray(search(*given)) for search in SEARCHES.values())
                wrong = np.flatnonzero((plain != other).any(0))
                if len(wrong):
                    sys.exit(f"N = {count}, B = {size}, ties {ties}: the answers differ, first at {wrong[:10]}")
            row: dict = {"candidates": count, "problems": size}
            given = instances(count, size)
            for name, search in SEARCHES.items():
                row[f"{name}_ms"] = milliseconds(search, given, repeats)
                row[f"{name}_us_per_weight"] = row[f"{name}_ms"] * 1e3 / size
                row[f"{name}_experiment_1_ms"] = row[f"{name}_ms"] * WEIGHTS / size
            row["kernel_share_of_peak"] = OPERATIONS[count] * size / (row["kernel_ms"] / 1e3) / PEAK
            row["goal_ms"] = GOAL_MS
            rows.append(row)
            show(row)
    return rows


def show(row: dict) -> None:
    print(f"N = {row['candidates']}, {row['problems']:7,} problems, equal", end="")
    for name in SEARCHES:
        print(f"; {name} {row[f'{name}_us_per_weight']:.4f} us/weight", end="")
        print(f", Experiment 1 {row[f'{name}_experiment_1_ms']:.1f} ms", end="")
    print(f"; kernel at {row['kernel_share_of_peak']:.0%} of the peak", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The Hopper kernel against XLA.")
    parser.add_argument("--candidates", type=int, nargs="+", default=[20, 21], choices=list(OPERATIONS))
    parser.add_argument("--problems", type=int, nargs="+", default=[2**12, 2**14, 2**16, 2**18])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kernel_gpu.json")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    if device.platform != "gpu" or getattr(device, "compute_capability", "") != "9.0":
        sys.exit(f"needs an NVIDIA Hopper GPU (compute capability 9.0); this is {device.device_kind}")
    results = {
        "device": environment.device(),
        "versions": environment.versions(),
        "rows": measure(arguments.candidates, arguments.problems, arguments.repeats),
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {arguments.out}")
