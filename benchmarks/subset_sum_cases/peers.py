"""Other programs on the same instances, in the same run, one instance on each core; and this engine on them too.

A program that is not installed is omitted, with the reason. Gurobi is measured twice: as published, with all of the
machine for one weight, and with a weight per core; the faster of the two is what the engine is compared with.
"""

import concurrent.futures
import importlib
import importlib.metadata
import multiprocessing
import os
import time
from typing import Any

import numpy as np

from lottery_jax.subset_sum import MeetInTheMiddle, Problem, solve

from .instances import TOLERANCE, Run, judge
from .measure import measure


class Missing(Exception):
    """A peer cannot be run here; the message says why."""


def peer(run: Run, name: str, package: str) -> list[dict]:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise Missing(f"{package} is not installed; pip install '.[bench]' brings it") from None
    candidates, targets = run.sample(run.sizes.peer_instances)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ways = [("an instance on each core", cores, 1)]
    if name == "gurobi":
        ways.insert(0, ("as published", 1, 0))
    rows = []
    for way, workers, threads in ways:
        seconds, answers = _solve_all(name, candidates, targets, workers, threads)
        row = {
            "solver": f"{name} {version}",
            "way": way,
            "candidates": candidates.shape[1],
            "weights": len(targets),
            "seconds": seconds,
            "us_per_weight": 1e6 * seconds / len(targets),
            "finished": sum(finished for _, finished in answers),
        }
        rows.append(row | judge(np.stack([subset for subset, _ in answers]), candidates, targets))
    return rows


def engine(run: Run) -> list[dict]:
    """This engine on the peers' instances: far too few for its speed, which `least-residual` measures, but for its
    residual."""
    candidates, targets = run.sample(run.sizes.peer_instances)
    solution, row = measure(lambda: solve(Problem(candidates, targets, TOLERANCE), MeetInTheMiddle()), 3, len(targets))
    row |= {"solver": "MeetInTheMiddle", "way": "one batch", "candidates": candidates.shape[1]}
    return [row | judge(solution.subsets, candidates, targets)]


def _solve_all(
    name: str, candidates: np.ndarray, targets: np.ndarray, workers: int, threads: int
) -> tuple[float, list[tuple[np.ndarray, bool]]]:
    """Seconds for all instances, the programs' start not counted."""
    # New interpreters, so that neither JAX's threads nor another peer's libraries come along.
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers)
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(name, barrier)
    ) as pool:
        for ready in [pool.submit(_warm, candidates[0], float(targets[0]), threads) for _ in range(workers)]:
            ready.result()
        start = time.perf_counter()
        jobs = [
            pool.submit(_solve_one, row, float(target), threads)
            for row, target in zip(candidates, targets, strict=True)
        ]
        answers = [job.result() for job in jobs]
        return time.perf_counter() - start, answers


_worker: dict[str, Any] = {}


def _begin(name: str, barrier: Any) -> None:
    _worker["module"], _worker["barrier"] = importlib.import_module(f"peers.{name}"), barrier


def _warm(candidates: np.ndarray, target: float, threads: int) -> None:
    _worker["module"].prepare()
    _worker["module"].solve(candidates[:8], target, 1.0, threads)
    _worker["barrier"].wait()  # so that each worker takes one of these, and none starts while the clock runs


def _solve_one(candidates: np.ndarray, target: float, threads: int) -> tuple[np.ndarray, bool]:
    return _worker["module"].solve(candidates, target, TOLERANCE, threads)
