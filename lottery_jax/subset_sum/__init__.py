"""Random subset-sum problems, solved in batches on CPU, GPU or TPU."""

from lottery_jax.subset_sum.problem import ParetoFront, Problem, Solution, Status, pack_bits, unpack_bits
from lottery_jax.subset_sum.pure_functions import closest_subset, randomized_subset, smallest_subset, subset_count
from lottery_jax.subset_sum.solve import solve
from lottery_jax.subset_sum.solver import SearchPass, Solver
from lottery_jax.subset_sum.solvers.auto import Auto, choose_solver
from lottery_jax.subset_sum.solvers.exact import Exhaustive, FixedSize, MeetInTheMiddle, Pareto
from lottery_jax.subset_sum.solvers.heuristics import Differencing, Greedy, NearestCandidate
from lottery_jax.subset_sum.solvers.randomized import Randomized
from lottery_jax.subset_sum.solvers.signed import Signed
from lottery_jax.subset_sum.solvers.smallest import FirstFeasible, Smallest
from lottery_jax.subset_sum.solvers.vector import Vector, VectorWindows

__all__ = [
    "Auto",
    "Differencing",
    "Exhaustive",
    "FirstFeasible",
    "FixedSize",
    "Greedy",
    "MeetInTheMiddle",
    "NearestCandidate",
    "Pareto",
    "ParetoFront",
    "Problem",
    "Randomized",
    "SearchPass",
    "Signed",
    "Smallest",
    "Solution",
    "Solver",
    "Status",
    "Vector",
    "VectorWindows",
    "choose_solver",
    "closest_subset",
    "pack_bits",
    "randomized_subset",
    "smallest_subset",
    "solve",
    "subset_count",
    "unpack_bits",
]
