"""One subset for several sums at once.

Randomised search for any number of vectors.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.algorithms.pairs import nearest_of_all
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class Vector(SinglePass[Solution]):
    """One subset of N vectors whose sum is nearest to a vector of D <= 8 components, exact up to N = 24.

    For structured pruning: a kept neuron or filter serves all D weights at once. Candidates are [P, N, D] or [N, D]
    and targets [P, D]. Nearest means the least largest |component| of the error, which is what a tolerance per
    weight asks for. All 2**N subsets are tried, as pairs of halves, 3 D vector operations each (sorting the halves by
    one component would still leave some 2**(N (1 - 1 / D)) pairs). The least error falls as 2**(-N / D). Beyond 24
    vectors use `VectorWindows`, which takes the same problems, re-decides windows of vectors exactly, and proves
    nothing. Becchetti et al. 2022.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> candidates = np.array([[0.5, 0.1], [-0.25, 0.2], [0.125, -0.3]])
    >>> solution = solve(Problem(candidates, np.array([[0.3, 0.25]]), tolerance=0.06), Vector())
    >>> solution.subsets, solution.residuals
    (array([[ True,  True, False]]), array([[-0.05,  0.05]]))
    """

    max_candidates: ClassVar[int] = 24
    vectors: ClassVar[tuple[bool, ...]] = (True,)

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return nearest_of_all(grid.candidates, grid.targets)

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        half = (candidates + 1) // 2
        return min(64, 2 ** (16 - half)) if cpu else min(2**12, 2 ** (22 - half))


@dataclasses.dataclass(frozen=True)
class VectorWindows(SinglePass[Solution]):
    """One subset for several sums (see `Vector`) of up to thousands of vectors: exact windows over random backgrounds.

    Differencing has no counterpart for vectors, so: each restart builds a background by walking through the candidates
    in random order and taking those that bring the sum nearer. Then each round frees a random window of candidates and
    re-decides it exactly, all others kept: the error never grows. With R = restarts * rounds windows of W, it falls
    about as (2**-W / R)**(1 / D). Cost: restarts * (N + rounds * 3 D 2**W) vector operations. One random order serves
    all problems of a call, so a problem's answer does not depend on its neighbours. `solve` needs a key.

    >>> import jax, numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> candidates = np.random.default_rng(0).uniform(-1, 1, (4, 100, 2))
    >>> problem = Problem(candidates, np.full((4, 2), 0.3), tolerance=0.1)
    >>> solve(problem, VectorWindows(), key=jax.random.key(0)).within.all()
    np.True_
    """

    window: int = 12
    rounds: int = 16
    restarts: int = 1
    max_candidates: ClassVar[int] = 2**16
    needs_key: ClassVar[bool] = True
    failure: ClassVar[Status] = Status.NOT_FOUND
    vectors: ClassVar[tuple[bool, ...]] = (True,)

    def __post_init__(self) -> None:
        if not 1 <= self.window <= 16:
            raise InputError(f"window must be from 1 to 16, not {self.window}; one more costs twice as much")
        if self.rounds < 1 or self.restarts < 1:
            raise InputError(f"rounds and restarts must be at least 1, not {self.rounds} and {self.restarts}")

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        assert key is not None
        a, target = grid.candidates, grid.targets
        count, window = len(a), min(self.window, len(a))

        def sum_of(vectors: jax.Array, kept: jax.Array) -> jax.Array:
            return jnp.where(kept[:, None], vectors, 0).sum(0, dtype=a.dtype)

        def size(left: jax.Array) -> jax.Array:
            return jnp.abs(left).max(0)

        def take(carry, at):
            chosen, left = carry
            take_it = size(left - a[at]) < size(left)
            return (chosen.at[at].set(take_it), jnp.where(take_it, left - a[at], left)), None

        def improve(carry, key):
            chosen, left = carry
            at = jax.random.permutation(key, count)[:window]
            freed = left + sum_of(a[at], chosen[at])
            forced = nearest_of_all(a[at], freed)
            return (chosen.at[at].set(forced), freed - sum_of(a[at], forced)), None

        def restart(best, key):
            order, windows = jax.random.split(key)
            empty = jnp.zeros((count, a.shape[-1]), bool), target
            walked, _ = jax.lax.scan(take, empty, jax.random.permutation(order, count))
            (chosen, left), _ = jax.lax.scan(improve, walked, jax.random.split(windows, self.rounds))
            better = size(left) < size(best[1])
            return (jnp.where(better, chosen, best[0]), jnp.where(better, left, best[1])), None

        worst = jnp.zeros((count, a.shape[-1]), bool), target
        (chosen, _), _ = jax.lax.scan(restart, worst, jax.random.split(key, self.restarts))
        return chosen

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        lists = min(256, 2 ** (18 - self.window // 2)) if cpu else 2 ** (22 - self.window // 2)
        return max(1, min(lists, 2 ** (24 if cpu else 28) // candidates))
