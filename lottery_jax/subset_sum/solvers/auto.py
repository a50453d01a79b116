"""The choice of a solver from the number of candidates, the tolerance and the objective."""

import dataclasses
import math
from typing import ClassVar, Literal, get_args

from lottery_jax.errors import InputError, suggest
from lottery_jax.subset_sum.problem import Problem, Solution
from lottery_jax.subset_sum.solver import SearchPass, Solver
from lottery_jax.subset_sum.solvers.exact import MeetInTheMiddle
from lottery_jax.subset_sum.solvers.heuristics import Differencing
from lottery_jax.subset_sum.solvers.randomized import Randomized
from lottery_jax.subset_sum.solvers.smallest import FirstFeasible, Smallest
from lottery_jax.subset_sum.solvers.vector import Vector, VectorWindows

SolverObjective = Literal["least-error", "smallest", "first", "any"]

_CHEAP_EXACT = 24  # candidates up to which the exact search costs no more than the alternatives

_MARGIN = 8.0  # ratio of the tolerance to the typical residual from which differencing is used


@dataclasses.dataclass(frozen=True)
class Auto(Solver[Solution]):
    """The solver of ``choose_solver`` for the problem, which ``Solution.solver`` names.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> problem = Problem(np.array([0.5, 0.25, 0.125]), np.array([0.7]), tolerance=0.1)
    >>> solve(problem, Auto("smallest")).solver
    Smallest()
    """

    objective: SolverObjective = "least-error"
    max_candidates: ClassVar[int] = Randomized.max_candidates
    accepts: ClassVar[tuple[Literal["numbers", "vectors"], ...]] = ("numbers", "vectors")

    def __post_init__(self) -> None:
        _check_objective(self.objective)

    def passes(self, candidates: int) -> tuple[SearchPass, ...]:
        raise TypeError("Auto has no passes; use the solver that `resolve` returns")

    def resolve(self, problem: Problem) -> Solver[Solution]:
        return choose_solver(
            problem.shape[1],
            objective=self.objective,
            tolerance=problem.least_tolerance,
            vectors=problem.components != (),
        )


def choose_solver(
    candidates: int, *, objective: str = "least-error", tolerance: float | None = None, vectors: bool = False
) -> Solver[Solution]:
    """The solver for N candidates and an objective.

    Args:
        candidates: N.
        objective: "least-error" (exact up to 44 candidates or 24 vectors, randomised for more), "smallest" or "first"
            by size and lexicographically (exact, up to 40), or "any" subset within the tolerance (exact up to 24; for
            more, differencing if its typical residual is far below the tolerance, else randomised).
        tolerance: Relative to a typical candidate, for "any".
        vectors: True for sums of vectors.

    Raises:
        InputError: No solver has this objective for so many candidates.

    >>> choose_solver(21), choose_solver(100), choose_solver(1000, objective="any", tolerance=1e-6)
    (MeetInTheMiddle(), Randomized(left=24, restarts=1), Differencing())
    """
    _check_objective(objective)
    if objective in ("smallest", "first"):
        solver = Smallest() if objective == "smallest" else FirstFeasible()
        if vectors or candidates > solver.max_candidates:
            raise InputError(
                f"{objective} takes up to {solver.max_candidates} candidates, not"
                f" {'vectors' if vectors else candidates}; use fewer, or the objective least-error"
            )
        return solver
    if vectors:
        return Vector() if candidates <= Vector.max_candidates else VectorWindows()
    if objective == "least-error" or tolerance is None:
        return MeetInTheMiddle() if candidates <= MeetInTheMiddle.max_candidates else Randomized()
    if candidates <= _CHEAP_EXACT:
        return MeetInTheMiddle()
    if (
        _MARGIN * candidates ** (-0.72 * math.log(candidates)) <= tolerance
        and candidates <= Differencing.max_candidates
    ):
        return Differencing()
    return Randomized()


def _check_objective(objective: str) -> None:
    if objective not in get_args(SolverObjective):
        raise InputError(f"objective {objective!r} is unknown; {suggest(objective, get_args(SolverObjective))}")
