"""Gurobi's MIP with the settings of Pensia et al. 2020, Experiment 1.

Minimise z subject to |w - a.x| <= z and |w - a.x| <= tolerance, x binary, MIPGap 0.01, all else as Gurobi has it.
The gurobipy of the package index runs problems of this size without a licence file.
"""

import gurobipy as gp  # pyright: ignore[reportMissingImports]
import numpy as np
from gurobipy import GRB  # pyright: ignore[reportMissingImports]

_environments: list[gp.Env] = []


def prepare() -> None:
    if not _environments:
        _environments.append(gp.Env(params={"OutputFlag": 0}))


def solve(candidates: np.ndarray, target: float, tolerance: float, threads: int) -> tuple[np.ndarray, bool]:
    """threads: 0 lets Gurobi choose, as published."""
    prepare()
    a = candidates.astype(np.float64).tolist()
    with gp.Model(env=_environments[0]) as model:
        x = model.addVars(len(a), vtype=GRB.BINARY)
        z = model.addVar(vtype=GRB.CONTINUOUS)
        error = target - x.prod(dict(enumerate(a)))
        model.setObjective(z, GRB.MINIMIZE)
        for bound in (z, tolerance):
            model.addConstr(error <= bound)
            model.addConstr(-error <= bound)
        model.Params.MIPGap = 0.01
        model.Params.Threads = threads
        model.optimize()
        if not model.SolCount:
            return np.zeros(len(a), bool), False
        return np.array([x[k].X > 0.5 for k in range(len(a))]), model.Status == GRB.OPTIMAL
