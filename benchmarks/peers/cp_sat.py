"""OR-Tools CP-SAT: the same model on integers, candidates and target rounded to multiples of 2**-30."""

import numpy as np
from ortools.sat.python import cp_model  # pyright: ignore[reportMissingImports]

GRID_BITS = 30


def prepare() -> None:
    cp_model.CpSolver()


def solve(candidates: np.ndarray, target: float, tolerance: float, threads: int) -> tuple[np.ndarray, bool]:
    """The gap allowed is 0.01, as for the MIP solvers."""
    a = np.round(candidates.astype(np.float64) * 2.0**GRID_BITS).astype(np.int64).tolist()
    wanted = round(target * 2.0**GRID_BITS)
    model = cp_model.CpModel()
    x = [model.new_bool_var(f"x{k}") for k in range(len(a))]
    z = model.new_int_var(0, round(tolerance * 2.0**GRID_BITS), "z")
    total = cp_model.LinearExpr.weighted_sum(x, a)
    model.add(total - wanted <= z)
    model.add(wanted - total <= z)
    model.minimize(z)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = threads
    solver.parameters.relative_gap_limit = 0.01
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return np.zeros(len(a), bool), False
    return np.array([bool(solver.value(variable)) for variable in x]), status == cp_model.OPTIMAL
