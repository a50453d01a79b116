"""HiGHS: the same MIP as Gurobi's, gap 0.01, all else as HiGHS has it."""

import highspy  # pyright: ignore[reportMissingImports]
import numpy as np


def prepare() -> None:
    highspy.Highs().silent()


def solve(candidates: np.ndarray, target: float, tolerance: float, threads: int) -> tuple[np.ndarray, bool]:
    """z is bounded by the tolerance, which says the same as the MIP's second pair of constraints."""
    model = highspy.Highs()
    model.silent()
    model.setOptionValue("mip_rel_gap", 0.01)
    model.setOptionValue("threads", threads)
    x = [model.addBinary() for _ in candidates]
    z = model.addVariable(0.0, tolerance)
    total = highspy.Highs.qsum(float(a) * variable for a, variable in zip(candidates, x, strict=True))
    model.addConstr(total - z <= target)
    model.addConstr(total + z >= target)
    model.minimize(z)
    finished = model.getModelStatus() == highspy.HighsModelStatus.kOptimal
    if not finished:
        return np.zeros(len(x), bool), False
    return np.array([model.val(variable) > 0.5 for variable in x]), True
