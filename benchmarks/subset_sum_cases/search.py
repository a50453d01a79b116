"""The searches of Experiment 1's size: least residual, smallest, shared candidates, and every solver there is."""

import dataclasses
import math

import jax
import numpy as np

from lottery_jax.subset_sum import (
    Auto,
    Differencing,
    Exhaustive,
    FixedSize,
    Greedy,
    MeetInTheMiddle,
    Pareto,
    ParetoFront,
    Problem,
    Randomized,
    Signed,
    Smallest,
    Solver,
    Vector,
    solve,
)

from .instances import TOLERANCE, Run, judge
from .lane_operations import utilisation
from .measure import measure
from .plain_jax import solve_plain_jax

Rows = list[dict]
ROW = 784  # inputs of the published target's first layer, whose outputs have a vector each


def least_residual(run: Run) -> Rows:
    """The published job, but with candidates of its own for each weight: exact."""
    candidates, targets = run.instances()
    solution, row = measure(
        lambda: solve(Problem(candidates, targets, TOLERANCE), MeetInTheMiddle()), run.sizes.repeats, len(targets)
    )
    row |= judge(solution.subsets, candidates, targets) | utilisation(candidates.shape[1], len(targets), row["seconds"])
    return [{"solver": "MeetInTheMiddle", "candidates": candidates.shape[1]} | row]


@dataclasses.dataclass(frozen=True)
class XlaSearch(MeetInTheMiddle):
    """The reference: the same search without the kernel that the CPU has for it."""

    def on_host(self, candidates: int, problems: int, key: object) -> None:
        return None


def xla(run: Run) -> Rows:
    """The same job by XLA alone."""
    candidates, targets = run.instances()
    solution, row = measure(
        lambda: solve(Problem(candidates, targets, TOLERANCE), XlaSearch()), run.sizes.repeats, len(targets)
    )
    row |= judge(solution.subsets, candidates, targets) | utilisation(candidates.shape[1], len(targets), row["seconds"])
    return [{"solver": "MeetInTheMiddle by XLA", "candidates": candidates.shape[1]} | row]


def smallest(run: Run) -> Rows:
    """Fewest candidates within 0.01."""
    candidates, targets = run.instances()
    solution, row = measure(
        lambda: solve(Problem(candidates, targets, TOLERANCE), Smallest()), run.sizes.repeats, len(targets)
    )
    row |= judge(solution.subsets, candidates, targets)
    return [{"solver": "Smallest", "candidates": candidates.shape[1]} | row]


def smallest_finer(run: Run) -> Rows:
    """Fewest candidates from U[-1, 1] within 0.001 of weights four times as large: many need four or more."""
    candidates, targets = run.instances()
    candidates = np.random.default_rng(1).uniform(-1, 1, candidates.shape).astype(np.float32)
    targets, tolerance = targets * 4, TOLERANCE / 10
    solution, row = measure(
        lambda: solve(Problem(candidates, targets, tolerance), Smallest()), run.sizes.repeats, len(targets)
    )
    row |= judge(solution.subsets, candidates, targets, tolerance)
    row["four_or_more"] = float((solution.sizes >= 4).mean())
    return [{"solver": "Smallest, within 0.001", "candidates": candidates.shape[1]} | row]


def shared(run: Run) -> Rows:
    """One vector of candidates for each output row, as published; one for all; and one for each weight."""
    candidates, targets = run.instances()
    count = len(targets) // ROW * ROW
    candidates, targets = candidates[:count], targets[:count]
    by_row = candidates[: count // ROW]
    problems = {
        f"one vector for {ROW} weights": (
            Problem(by_row, targets, TOLERANCE, targets_per_row=ROW),
            np.repeat(by_row, ROW, 0),
        ),
        "one vector for all": (Problem(candidates[0], targets, TOLERANCE), candidates[0]),
        "a vector for each weight": (Problem(candidates, targets, TOLERANCE), candidates),
    }
    rows = []
    for name, (problem, own) in problems.items():
        solution, row = measure(lambda: solve(problem, MeetInTheMiddle()), run.sizes.repeats, count)  # noqa: B023
        rows.append({"solver": "MeetInTheMiddle", "candidates": candidates.shape[1], "drawn": name} | row)
        rows[-1] |= judge(solution.subsets, own, targets)
    for row in rows:
        row["times_faster"] = rows[-1]["seconds"] / row["seconds"]
    return rows


def catalogue(run: Run) -> Rows:
    """Every solver on the same instances, or as many of them as its cost allows."""
    candidates, targets = run.sample(run.sizes.slow_weights)
    count = candidates.shape[1]
    some, few = max(len(targets) // 16, 4), max(len(targets) // 256, 4)
    solvers: tuple[tuple[Solver, int], ...] = (
        (Auto(), len(targets)),
        (MeetInTheMiddle(), len(targets)),
        (Smallest(), len(targets)),
        (FixedSize(3), len(targets)),
        (FixedSize(count // 2), len(targets)),
        (Pareto(5), len(targets)),
        (Randomized(left=min(20, count)), len(targets)),
        (Greedy(), len(targets)),
        (Differencing(), len(targets)),
        (Exhaustive(), some),
        (Signed(), few),
    )
    rows = [_entry(solver, candidates[:problems], targets[:problems], run) for solver, problems in solvers]
    pairs = len(targets[:some]) // 2
    vectors = candidates[: 2 * pairs].reshape(pairs, 2, count).swapaxes(1, 2)  # [P, N, 2]
    pairs_row = _entry(Vector(), np.ascontiguousarray(vectors), targets[: 2 * pairs].reshape(pairs, 2), run)
    return [*rows, pairs_row | {"solver": "Vector() of two weights"}]


def _entry(solver: Solver, candidates: np.ndarray, targets: np.ndarray, run: Run) -> dict:
    key = jax.random.key(0) if solver.needs_key else None
    problem = Problem(candidates, targets, TOLERANCE)
    answer, row = measure(lambda: solve(problem, solver, key=key), run.sizes.repeats, len(targets))
    answer = answer.smallest() if isinstance(answer, ParetoFront) else answer
    return (
        {"solver": repr(solver), "candidates": candidates.shape[1]}
        | row
        | judge(answer.coefficients, candidates, targets)
    )


def plain(run: Run) -> Rows:
    """The textbook's method in plain JAX on some of the same instances."""
    candidates, targets = run.sample(run.sizes.slow_weights)
    subsets, row = measure(lambda: solve_plain_jax(candidates, targets), 1, len(targets))
    return [{"solver": "plain JAX", "candidates": candidates.shape[1]} | row | judge(subsets, candidates, targets)]


def exact(run: Run) -> Rows:
    """The exact search over N, U[-1, 1] in float64, compared with the theory's median."""
    return [_beyond(MeetInTheMiddle(), count, problems, run.sizes.repeats) for count, problems in run.sizes.exact]


def randomized(run: Run) -> Rows:
    """The randomised search over N and its budget."""
    solvers = [Randomized(left, restarts) for left, restarts in run.sizes.budgets]
    return [
        _beyond(solver, count, problems, run.sizes.repeats)
        for count, problems in run.sizes.random
        for solver in solvers
    ]


def _beyond(solver: Solver, count: int, problems: int, repeats: int) -> dict:
    rng = np.random.default_rng(count)
    # float64, for the best residuals are far below what sums of float32 values can tell apart.
    candidates, targets = rng.uniform(-1, 1, (problems, count)), rng.uniform(-1, 1, problems)
    key = jax.random.key(0) if solver.needs_key else None
    solution, row = measure(lambda: solve(Problem(candidates, targets, TOLERANCE), solver, key=key), repeats, problems)
    row |= {"solver": repr(solver), "candidates": count} | judge(solution.subsets, candidates, targets)
    if row["median_residual"]:
        row["log2_median"] = math.log2(row["median_residual"])
    return row | {"theory_log2_median": theory_log2_median(count)}


def theory_log2_median(candidates: int) -> float:
    """Of the least residual of U[-1, 1] candidates, 0.41 sqrt(n) 2**-n; 2**-1000 is below every float."""
    return math.log2(0.41 * math.sqrt(candidates)) - candidates
