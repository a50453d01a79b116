"""One subset for a sum of vectors: exact, or randomised for any number of vectors."""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from lottery_jax.errors import InputError
from lottery_jax.subset_sum.algorithms.pairs import nearest_of_all
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.problem import Solution, Status
from lottery_jax.subset_sum.solver import SinglePass


@dataclasses.dataclass(frozen=True)
class Vector(SinglePass[Solution]):
    """The subset of N <= 24 vectors whose sum is nearest to a vector of D <= 8 components, exact.

    For structured pruning, where a kept neuron or filter serves D weights. The distance is the largest |component| of
    the error. All 2**N subsets are tried as pairs of halves, 3 D vector operations each. The least error falls as
    2**(-N / D). Becchetti et al. 2022. For more vectors use ``VectorWindows``.

    >>> import numpy as np
    >>> from lottery_jax.subset_sum import Problem, solve
    >>> candidates = np.array([[0.5, 0.1], [-0.25, 0.2], [0.125, -0.3]])
    >>> solution = solve(Problem(candidates, np.array([[0.3, 0.25]]), tolerance=0.06), Vector())
    >>> solution.subsets, solution.residuals
    (array([[ True,  True, False]]), array([[-0.05,  0.05]]))
    """

    max_candidates: ClassVar[int] = 24
    accepts: ClassVar[tuple[Literal["numbers", "vectors"], ...]] = ("vectors",)

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        return nearest_of_all(grid.candidates, grid.targets)

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        half = (candidates + 1) // 2
        return min(64, 2 ** (16 - half)) if cpu else min(2**12, 2 ** (22 - half))


@dataclasses.dataclass(frozen=True)
class VectorWindows(SinglePass[Solution]):
    """A good subset of up to thousands of vectors (see ``Vector``), by exact search of random windows.

    A restart visits the candidates in random order and takes those that reduce the error. Each round then searches a
    random window of candidates exactly while the others stay, so the error never grows. It falls about as
    (2**-window / (restarts * rounds))**(1 / D). Cost: restarts * (N + rounds * 3 D 2**window) vector operations. All
    problems of a call share the random order, so an answer does not depend on other problems. ``solve`` needs a key.

    Args:
        window: Candidates of a window, 1 to 16.
        rounds: Windows of a restart.
        restarts: Number of restarts.

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
    accepts: ClassVar[tuple[Literal["numbers", "vectors"], ...]] = ("vectors",)

    def __post_init__(self) -> None:
        if not 1 <= self.window <= 16:
            raise InputError(f"window must be from 1 to 16, got {self.window}; one more costs twice as much")
        if self.rounds < 1 or self.restarts < 1:
            raise InputError(f"rounds and restarts must be at least 1, got {self.rounds} and {self.restarts}")

    def search(self, grid: Grid, key: jax.Array | None) -> jax.Array:
        assert key is not None
        a, target = grid.candidates, grid.targets
        count, window = len(a), min(self.window, len(a))

        def sum_of(vectors: jax.Array, kept: jax.Array) -> jax.Array:
            return jnp.where(kept[:, None], vectors, 0).sum(0, dtype=a.dtype)

        def size(rest: jax.Array) -> jax.Array:
            return jnp.abs(rest).max(0)

        def take(carry, at):
            chosen, rest = carry
            closer = size(rest - a[at]) < size(rest)
            return (chosen.at[at].set(closer), jnp.where(closer, rest - a[at], rest)), None

        def improve(carry, key):
            chosen, rest = carry
            at = jax.random.permutation(key, count)[:window]
            target = rest + sum_of(a[at], chosen[at])
            kept = nearest_of_all(a[at], target)
            return (chosen.at[at].set(kept), target - sum_of(a[at], kept)), None

        def restart(best, key):
            order, windows = jax.random.split(key)
            empty = jnp.zeros((count, a.shape[-1]), bool), target
            greedy, _ = jax.lax.scan(take, empty, jax.random.permutation(order, count))
            (chosen, rest), _ = jax.lax.scan(improve, greedy, jax.random.split(windows, self.rounds))
            better = size(rest) < size(best[1])
            return (jnp.where(better, chosen, best[0]), jnp.where(better, rest, best[1])), None

        worst = jnp.zeros((count, a.shape[-1]), bool), target
        (chosen, _), _ = jax.lax.scan(restart, worst, jax.random.split(key, self.restarts))
        return chosen

    def chunk_size(self, candidates: int, cpu: bool) -> int:
        lists = min(256, 2 ** (18 - self.window // 2)) if cpu else 2 ** (22 - self.window // 2)
        return max(1, min(lists, 2 ** (24 if cpu else 28) // candidates))
