"""Other programs that solve the same problems, one per file, each with the same two functions.

`prepare()` starts the program once per process; `solve(candidates, target, tolerance, threads)` returns the subset of
least residual, bool [N], and whether the program says that it finished. They are imported one per process: some of
them bring libraries of the same name.
"""

PEERS = ("gurobi", "cp_sat", "highs")
PACKAGES = {"gurobi": "gurobipy", "cp_sat": "ortools", "highs": "highspy"}
