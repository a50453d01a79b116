"""Random subset-sum problems, solved in batches on CPU, GPU or TPU."""

from lottery_jax.subset_sum.front import Front
from lottery_jax.subset_sum.problem import Problem, Solution, Status, pack_bits, unpack_bits
from lottery_jax.subset_sum.solve import solve
from lottery_jax.subset_sum.solver import Solver, Stage
from lottery_jax.subset_sum.solvers.auto import Auto, choose
from lottery_jax.subset_sum.solvers.differencing import Differencing
from lottery_jax.subset_sum.solvers.exhaustive import Exhaustive
from lottery_jax.subset_sum.solvers.first_feasible import FirstFeasible
from lottery_jax.subset_sum.solvers.fixed_size import FixedSize
from lottery_jax.subset_sum.solvers.greedy import Greedy
from lottery_jax.subset_sum.solvers.meet_in_the_middle import MeetInTheMiddle
from lottery_jax.subset_sum.solvers.nearest_candidate import NearestCandidate
from lottery_jax.subset_sum.solvers.pareto import Pareto
from lottery_jax.subset_sum.solvers.randomized import Randomized
from lottery_jax.subset_sum.solvers.signed import Signed
from lottery_jax.subset_sum.solvers.smallest import Smallest
from lottery_jax.subset_sum.solvers.vector import Vector
from lottery_jax.subset_sum.solvers.vector_windows import VectorWindows

__all__ = [
    "Auto",
    "Differencing",
    "Exhaustive",
    "FirstFeasible",
    "FixedSize",
    "Front",
    "Greedy",
    "MeetInTheMiddle",
    "NearestCandidate",
    "Pareto",
    "Problem",
    "Randomized",
    "Signed",
    "Smallest",
    "Solution",
    "Solver",
    "Stage",
    "Status",
    "Vector",
    "VectorWindows",
    "choose",
    "pack_bits",
    "solve",
    "unpack_bits",
]
