"""What a construction is: a theorem as data. It says which random source stands for a target, and which random weights
can sum to which target weight; drawing, searching, drawing again and writing are the same for all (`job`)."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.node import Affine, Node, child_path
from lottery_jax.networks.sources.drawn import Drawn
from lottery_jax.networks.sources.source import Source
from lottery_jax.networks.target import Target
from lottery_jax.subset_sum import Solver, choose


@dataclasses.dataclass(frozen=True, eq=False)
class Branch:
    """The candidates of each weight for one sign of input: multipliers[g, n] * v[slots[g, n]], g the weight's group.

    multipliers: float32 [G, N]. slots: int32 [G, N], which of the weight's random weights v; one of multiplier 0 is
    never chosen.
    """

    multipliers: np.ndarray
    slots: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The subset-sum problems of one target tensor: one for each weight and branch.

    tensor: its name, and its mask's. drawn: its random weights, as the network places them. candidates: N. gain: target
    weights are divided by it. bound: largest |candidate| possible. branches: empty where all random weights of a row
    are candidates as they are. group: a weight's row of the branches' tables. edges: the tensor whose row g is kept
    where a weight of group g uses it.
    """

    tensor: str
    drawn: Drawn
    candidates: int
    bound: float
    gain: float = 1.0
    branches: tuple[Branch, ...] = ()
    group: Callable[[np.ndarray], np.ndarray] | None = None
    edges: str | None = None


@dataclasses.dataclass(frozen=True)
class Construction(abc.ABC):
    """Target to source. Concrete constructions are frozen dataclasses whose fields are their options.

    The first line of a field's docstring is its help on the command line.
    """

    name: ClassVar[str]

    candidates: int = 21
    """Candidates for each target weight."""

    def __post_init__(self) -> None:
        if type(self.candidates) is not int or not 1 <= self.candidates < 1 << 15:
            raise InputError(
                f"candidates must be from 1 to 32767 for each weight, not {self.candidates!r}; 21 is the published"
                " number"
            )

    @abc.abstractmethod
    def leaf(self, target: Target, path: str, of: Affine) -> Source:
        """The random leaf in place of the target's affine leaf at `path`; raises `InputError` where it has none."""

    @abc.abstractmethod
    def plans(
        self, network: Network, path: str, drawn: Mapping[str, Drawn], seed: int
    ) -> tuple[list[Plan], dict[str, np.ndarray]]:
        """The problems of each tensor of the random leaf at `path`, and redraws of its edges (rows by name).

        drawn: the leaf's random tensors, on the network's streams.
        """

    def solver(self, objective: str) -> Solver:
        """The solver for an objective."""
        return choose(self.candidates, objective=objective)

    def source(self, target: Target) -> Network:
        """The random network in which this construction finds a target without batch normalisations."""

        def leaf(path: str, node: Node) -> Node:
            return self.leaf(target, path, node) if isinstance(node, Affine) else node

        return target.network.replaced(leaf)

    def all_plans(self, network: Network, seed: int) -> tuple[tuple[Plan, ...], Redraws]:
        """The problems of all tensors of a source, in its order, and the redraws of all edges by their full names."""
        plans: list[Plan] = []
        redraws: dict[str, np.ndarray] = {}
        for path, source in network.sources.items():
            drawn = {name: network.drawn[child_path(path, name)] for name in source.drawn()}
            own, again = self.plans(network, path, drawn, seed)
            plans += own
            redraws |= {child_path(path, name): rows for name, rows in again.items() if len(rows)}
        return tuple(plans), redraws
