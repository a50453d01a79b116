"""The pure functions: `closest_subset` under `jit` compared with `solve` by XLA, and counting integer problems.

Command: python benchmarks/bench_pure_core.py
Cost: two minutes on two CPU cores.

`closest`: 65,536 problems of 21 float32 candidates, the same device arrays for both, the 32-bit grid, in turns.
Goal: a ratio of at most 1.05, bit-equal.
`count`: 1,000,000 problems of 20 integers, NumPy int64, equality. Goal: at most 30 s on two cores.
Times are medians without the first run, which compiles. `processor_seconds` are those of all threads.
"""

import argparse
import collections
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from subset_sum_cases.search import XlaSearch

from lottery_jax import environment
from lottery_jax.subset_sum import Problem, closest_subset, solve, subset_count

TOLERANCE = 0.01


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock and of all threads."""
    clock, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return time.perf_counter() - clock, time.process_time() - processor


def in_turns(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict]:
    """Times of several functions, each called once and then in turns, so that other load affects all of them."""
    first = {name: timed(run)[0] for name, run in runs.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(timed(run))
    found = {}
    for name, pairs in times.items():
        clock, processor = zip(*pairs, strict=True)
        found[name] = {
            "seconds": statistics.median(clock),
            "least_seconds": min(clock),
            "processor_seconds": statistics.median(processor),
            "first_seconds": first[name],
        }
    return found


def closest(problems: int, candidates: int, repeats: int) -> dict:
    """`closest_subset` under `jit`, and `solve` without kernels."""
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.uniform(-1, 1, (problems, candidates)), jnp.float32)
    targets = jnp.asarray(rng.uniform(-0.5, 0.5, problems), jnp.float32)
    problem, function = Problem(values, targets, TOLERANCE), jax.jit(closest_subset)
    runs = {
        "closest_subset": lambda: function(values, targets),
        "solve": lambda: solve(problem, XlaSearch(), grid="int32"),
    }
    times = in_turns(runs, repeats)
    pure, host = (run() for run in runs.values())
    equal = (np.asarray(pure.bits) == host.bits).all() and (np.asarray(pure.residuals) == host.residuals).all()
    one, other = times["closest_subset"], times["solve"]
    ratios = {f"{name}_ratio": one[name] / other[name] for name in ("seconds", "least_seconds", "processor_seconds")}
    return {"problems": problems, "candidates": candidates, **times, **ratios, "bit_equal": bool(equal)}


def count(problems: int, candidates: int) -> dict:
    """Numbers of subsets of random integers, the first hundred compared with a recurrence over sums."""
    rng = np.random.default_rng(1)
    values, targets = rng.integers(-1000, 1001, (problems, candidates)), rng.integers(-2000, 2001, problems)
    first = timed(lambda: subset_count(values, targets))[0]
    numbers: list[np.ndarray] = []
    seconds, processor = timed(lambda: numbers.append(np.asarray(subset_count(values, targets))))
    checked = min(problems, 100)
    for row, target, found in zip(values[:checked], targets, numbers[0], strict=False):
        ways = collections.Counter({0: 1})
        for value in row.tolist():
            ways += collections.Counter({total + value: number for total, number in ways.items()})
        if found != ways[int(target)]:
            raise AssertionError(f"a wrong number for {row}: {found} instead of {ways[int(target)]}")
    return {
        "problems": problems,
        "candidates": candidates,
        "seconds": seconds,
        "processor_seconds": processor,
        "first_seconds": first,
        "checked": checked,
        "mean_number": float(numbers[0].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of the pure functions.")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pure_core_cpu.json")
    arguments = parser.parse_args()
    load = os.getloadavg()
    found = {
        "closest": closest(1000, 12, 3) if arguments.quick else closest(1 << 16, 21, 9),
        "count": count(1000, 12) if arguments.quick else count(1_000_000, 20),
    }
    facts = {"cores": environment.cores(), "load_before": load, "load_after": os.getloadavg(), "jax": jax.__version__}
    arguments.out.write_text(json.dumps({**facts, **found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
