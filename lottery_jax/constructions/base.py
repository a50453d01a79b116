"""What a construction is: a theorem as data. It says which random source stands for a target, and which random weights
can sum to which target weight; drawing, searching, drawing again and writing are the same for all (`job`)."""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.node import MIN_MAGNITUDE, LinearLayer, Node, WeightNode, child_path
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS, RandomTensor
from lottery_jax.rng.sampler import Sampler
from lottery_jax.subset_sum import Solver, choose_solver


@dataclasses.dataclass(frozen=True, eq=False)
class Branch:
    """The candidates of each weight for one sign of input: multipliers[g, n] * v[slots[g, n]], g the weight's group.

    multipliers: float32 [G, N]. slots: int32 [G, N], which of the weight's random weights v; one of multiplier 0 is
    never chosen. whole: float32 [G, width], what each random weight counts where it is kept, candidate or not; only
    asked of what may be locked.
    """

    multipliers: np.ndarray
    slots: np.ndarray
    whole: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The subset-sum problems of one target tensor: one for each weight and branch.

    tensor: its name, and its mask's. drawn: its random weights, as the network places them. candidates: N. gain: target
    weights are divided by it. bound: largest |candidate| possible. branches: empty where all random weights of a row
    are candidates as they are. group: a weight's row of the branches' tables. edges: the tensor whose row g is kept
    where a weight of group g uses it. step: all candidates and scaled target weights are multiples of it, without
    rounding; 0 where there is no such step. copies: rows of the mask, neighbours, for each target weight. built: masks
    of edge tensors, by name, that are kept whatever subsets are found.
    """

    tensor: str
    random_tensor: RandomTensor
    candidates: int
    bound: float
    gain: float = 1.0
    branches: tuple[Branch, ...] = ()
    group: Callable[[np.ndarray], np.ndarray] | None = None
    edges: str | None = None
    step: float = 0.0
    copies: int = 1
    built: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Construction(abc.ABC):
    """Target to source. Concrete constructions are frozen dataclasses whose fields are their options.

    The first line of a field's docstring is its help on the command line.
    """

    name: ClassVar[str]
    objectives: ClassVar[tuple[str, ...]] = ("least-error", "smallest", "first")
    """What may be asked of its subsets; a theorem that says which one is taken has the first alone."""
    exact: ClassVar[bool] = False
    """Whether weights are met exactly: a promise is then of tolerance 0."""
    layers_once: ClassVar[bool] = True
    """Whether each layer stands once, and not in copies that are added up."""
    direct: ClassVar[bool] = False
    """Whether candidates are random weights as they are, and targets too: float32 that nothing has rounded."""

    candidates: int = 21
    """Candidates for each target weight."""

    def __post_init__(self) -> None:
        if type(self.candidates) is not int or not 1 <= self.candidates < 1 << 15:
            raise InputError(
                f"candidates must be from 1 to 32767 for each weight, not {self.candidates!r}; 21 is the published"
                " number"
            )

    @abc.abstractmethod
    def leaf(self, target: Target, path: str, of: WeightNode) -> Source:
        """The random leaf in place of the target's affine leaf at `path`; raises `InputError` where it has none."""

    @abc.abstractmethod
    def plans(
        self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int
    ) -> tuple[list[Plan], dict[str, np.ndarray]]:
        """The problems of each tensor of the random leaf at `path`, and redraws of its edges (rows by name).

        drawn: the leaf's random tensors, on the network's streams.
        """

    def prepared(self, target: Target) -> Target:
        """The target as it is approximated: the same function, its batch normalisations folded."""
        return fold_batch_norm(target)

    def solver(self, objective: str) -> Solver:
        """The solver for an objective."""
        return choose_solver(self.candidates, objective=objective)

    def source(self, target: Target) -> Network:
        """The random network in which this construction finds a `prepared` target."""

        def leaf(path: str, node: Node) -> Node:
            return self.leaf(target, path, node) if isinstance(node, WeightNode) else node

        return target.network.map_layers(leaf)

    def lossless(self, candidates: int | None) -> "Construction":
        """Itself for a lossless ticket, with candidates for it unless they are given; raises `InputError`."""
        raise InputError(
            f"{self.name} cannot be lossless, for its candidates are products or its choice is bound to a theorem's;"
            " use scalar or scalar-shared"
        )

    def check_reachable(self, network: Network, tolerance: float) -> None:  # noqa: B027
        """Refuse a tolerance that its candidates keep in no draw of this source; raises `InputError`."""

    def all_plans(self, network: Network, seed: int) -> tuple[tuple[Plan, ...], Redraws]:
        """The problems of all tensors of a source, in its order, and the redraws of all edges by their full names."""
        plans: list[Plan] = []
        redraws: dict[str, np.ndarray] = {}
        for path, source in network.sources.items():
            drawn = {name: network.random_tensors[child_path(path, name)] for name in source.random_tensors()}
            own, again = self.plans(network, path, drawn, seed)
            plans += own
            redraws |= {child_path(path, name): rows for name, rows in again.items() if len(rows)}
        return tuple(plans), redraws


class GadgetConstruction(Construction):
    """A gadget of 2 n units in front of every layer, and for each sign of input the products of n of its units.

    A concrete one says from what weights are drawn, how large a scaled target weight may be, and which inputs' first
    weights are too weak: they serve all outputs of an input, so they are drawn again (and recorded) before any search.
    """

    reaches: ClassVar[Mapping[str, float]] = {"weight": 0.25, "bias": 0.25}
    """The largest scaled target weight, by tensor."""

    @property
    def sampler(self) -> Sampler:
        """Of both random layers."""
        return Sampler.uniform(-1, 1)

    @property
    def step(self) -> float:
        """What products and scaled target weights are multiples of; 0 where there is no such step."""
        return 0.0

    @property
    def least_units(self) -> int:
        """Usable units that an input must have for each sign that it needs."""
        return (self.candidates + 1) // 2

    def weak(self, first: np.ndarray, both: np.ndarray) -> np.ndarray:
        """Inputs to draw again, bool [I], given the first weights [I, U] and which inputs may have either sign [I]."""
        plus, minus = (first > 0).sum(1), (first < 0).sum(1)
        return np.where(both, np.minimum(plus, minus), plus) < self.least_units

    def leaf(self, target: Target, path: str, of: WeightNode) -> Gadget:
        if not isinstance(of, LinearLayer):
            raise InputError(
                f"{self.name} puts units in front of layers, and what the tensor {path!r} is fed with is unknown; name"
                " the model's architecture, or use scalar"
            )
        gain = gain_for(target, path, of.tensors(), self.reaches)
        return Gadget(of, 2 * self.candidates, self.sampler, self.sampler, gain=gain)

    def plans(
        self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int
    ) -> tuple[list[Plan], dict[str, np.ndarray]]:
        gadget = network.sources[path]
        assert isinstance(gadget, Gadget)
        of = gadget.layer
        signs = {name: gadget.input_signs(name, network.input_spec_of(path)) for name in of.tensors()}
        both = np.full(drawn["first"].blocks, len(signs["weight"]) > 1)
        both[of.inputs :] = False  # the constant 1 has one sign
        first, redraws = self._first_weights(drawn["first"], both, seed, relu=gadget.relu)
        # Without a ReLU every unit speaks for inputs of both signs.
        usable = {sign: sign * first > 0 if gadget.relu else first != 0 for sign in signs["weight"]}
        branches = {sign: self._branch(speaking, first) for sign, speaking in usable.items()}
        plans = [
            Plan(
                child_path(path, name),
                drawn[name],
                self.candidates,
                bound=self.sampler.high**2,
                gain=gadget.gain,
                branches=tuple(branches[sign] for sign in signs[name]),
                group=lambda rows, name=name: of.input_channels(name, rows // gadget.rows_per_weight),
                edges=child_path(path, "first"),
                step=self.step,
                copies=gadget.rows_per_weight,
            )
            for name in of.tensors()
        ]
        return plans, {"first": redraws}

    def _branch(self, usable: np.ndarray, first: np.ndarray) -> Branch:
        """The first n usable units of each input [I, U]; where there are fewer, others with multiplier 0."""
        slots = np.argsort(~usable, axis=1, kind="stable")[:, : self.candidates]
        chosen = np.take_along_axis(usable, slots, 1)
        multipliers = np.where(chosen, np.take_along_axis(first, slots, 1), 0).astype(np.float32)
        return Branch(multipliers, slots.astype(np.int32), np.where(usable, first, 0).astype(np.float32))

    def _first_weights(
        self, drawn: RandomTensor, both: np.ndarray, seed: int, *, relu: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The first matrix [I, U], and rows (input, attempt) of inputs that were drawn again; both: bool [I]."""
        # Of a thinned source as much is asked as of one with as many fewer candidates.
        density = drawn.sampler.density
        asked = self if density == 1 else dataclasses.replace(self, candidates=max(int(self.candidates * density), 1))
        first, redraws, left = drawn_until(
            drawn, seed, lambda weights, inputs: ~asked.weak(weights if relu else np.abs(weights), both[inputs])
        )
        if left:
            raise InputError(
                f"the first weights of {left} inputs are too weak in each of {MAX_ATTEMPTS + 1} draws; use another"
                " seed, or other candidates"
            )
        return first, redraws


def drawn_until(
    drawn: RandomTensor,
    seed: int,
    serves: Callable[[np.ndarray, np.ndarray], np.ndarray],
    blocks: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The weights [blocks, N] of a random tensor, its blocks drawn again until they serve.

    serves: from weights [R, N] and which blocks they are [R] to bool [R]. blocks: those that are drawn, all if left
    out; others are 0. Also rows (block, attempt) of what was drawn again, and how many blocks never served.
    """
    weights, last = np.zeros((drawn.blocks, drawn.width), np.float32), np.zeros(drawn.blocks, np.int64)
    open_ = np.arange(drawn.blocks) if blocks is None else blocks
    for attempt in range(MAX_ATTEMPTS + 1):
        weights[open_], last[open_] = drawn.draw(seed, open_, attempt), attempt
        open_ = open_[~serves(weights[open_], open_)]
        if not len(open_):
            break
    redrawn = np.flatnonzero(last)
    return weights, np.stack([redrawn, last[redrawn]], 1), len(open_)


def gain_for(target: Target, path: str, tensors: Iterable[str], reaches: Mapping[str, float]) -> float:
    """What weights of the leaf at `path` are divided by, so that the largest of these tensors is within its reach."""
    gain = max(target.scan(child_path(path, name)).largest / reaches[name] for name in tensors)
    return max(float(np.float32(gain)), MIN_MAGNITUDE) if gain > 0 else 1.0
