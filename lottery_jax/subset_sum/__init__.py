"""Random subset-sum problems, solved in batches on CPU, GPU or TPU."""

from lottery_jax.subset_sum.auto import Auto, choose
from lottery_jax.subset_sum.differencing import Differencing
from lottery_jax.subset_sum.exhaustive import Exhaustive
from lottery_jax.subset_sum.fixed_size import FixedSize
from lottery_jax.subset_sum.front import Front
from lottery_jax.subset_sum.greedy import Greedy
from lottery_jax.subset_sum.meet_in_the_middle import MeetInTheMiddle
from lottery_jax.subset_sum.pareto import Pareto
from lottery_jax.subset_sum.problem import Problem, Solution, Status, unpack_bits
from lottery_jax.subset_sum.randomized import Randomized
from lottery_jax.subset_sum.signed import Signed
from lottery_jax.subset_sum.smallest import Smallest
from lottery_jax.subset_sum.solve import solve
from lottery_jax.subset_sum.solver import Solver, Stage
from lottery_jax.subset_sum.vector import Vector

__all__ = [
    "Auto",
    "Differencing",
    "Exhaustive",
    "FixedSize",
    "Front",
    "Greedy",
    "MeetInTheMiddle",
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
    "choose",
    "solve",
    "unpack_bits",
]
