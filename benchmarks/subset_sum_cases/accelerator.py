"""One accelerator: Experiment 1 with its data on the device."""

import time

import jax
import numpy as np

from lottery_jax.subset_sum import MeetInTheMiddle, Problem, solve

from .instances import TOLERANCE, Run, judge
from .lane_operations import utilisation
from .measure import measure


def experiment(run: Run) -> list[dict]:
    """Experiment 1 with candidates and targets on the host, and with both on the device."""
    solver = MeetInTheMiddle()
    candidates, targets = run.instances()
    on_device = jax.block_until_ready(jax.device_put((candidates, targets)))
    rows = []
    for place, (a, t) in (("host", (candidates, targets)), ("device", on_device)):
        problem = Problem(a, t, TOLERANCE)
        solution, row = measure(lambda: solve(problem, solver), 10, len(targets))  # noqa: B023
        row |= {"solver": "MeetInTheMiddle", "candidates": candidates.shape[1], "data": place}
        row |= judge(solution.subsets, candidates, targets)
        row |= utilisation(candidates.shape[1], len(targets), row["seconds"])
        rows.append(row | transfers(candidates, targets, solution.bits))
    return rows


def transfers(candidates: np.ndarray, targets: np.ndarray, bits: np.ndarray) -> dict[str, float]:
    """Seconds that the problems' way to the device and the answer's way back take by themselves."""
    to_device, back = [], []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(jax.device_put((candidates, targets)))
        to_device.append(time.perf_counter() - start)
        answer = jax.block_until_ready(jax.device_put(bits) + np.uint32(0))
        start = time.perf_counter()
        np.asarray(answer)
        back.append(time.perf_counter() - start)
    return {"to_device_seconds": float(np.median(to_device)), "back_seconds": float(np.median(back))}
