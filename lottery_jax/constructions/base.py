"""The base class of constructions, the subset-sum problems that they pose, and what gadget constructions share.

A construction is a theorem as frozen data: which random layers replace each layer of a target, and which random weights
are candidates for which target weight.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import MIN_MAGNITUDE, LinearLayer, Node, WeightNode, child_path
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS, RandomTensor
from lottery_jax.rng.sampler import Sampler
from lottery_jax.subset_sum import Solver, choose_solver


@dataclasses.dataclass(frozen=True, eq=False)
class SignBranch:
    """Candidates for one sign of the input: ``multipliers[g, n] * v[indices[g, n]]`` for weights of group g.

    Args:
        multipliers: Float32 [G, N]. A candidate with multiplier 0 is never chosen.
        indices: Int32 [G, N], positions among the random weights v of the target weight.
        all_multipliers: Float32 [G, width], multiplier of every random weight; locked weights may not be candidates.
    """

    multipliers: np.ndarray
    indices: np.ndarray
    all_multipliers: np.ndarray


def sign_branch(multipliers: np.ndarray, candidates: int) -> SignBranch:
    """The branch of the first units [G, width] with nonzero multipliers, at most `candidates`; others fill the rest."""
    indices = np.argsort(multipliers == 0, axis=1, kind="stable")[:, :candidates]
    multipliers = multipliers.astype(np.float32)
    return SignBranch(np.take_along_axis(multipliers, indices, 1), indices.astype(np.int32), multipliers)


@dataclasses.dataclass(frozen=True, eq=False)
class TensorProblem:
    """The subset-sum problems of one target tensor: one for each weight and sign branch.

    Args:
        tensor: Name of the target tensor and of its mask.
        bound: Largest possible |candidate|.
        branches: One entry per sign of the input. None means that all random weights of a row are candidates.
        group_of: Maps flat rows of the mask to rows of the branches' tables.
        edge_tensor: Name of the mask in which row g keeps an edge if a weight of group g uses it.
        step: Candidates and scaled targets are multiples of it, without rounding. 0 means no such step.
        copies: Neighbouring rows of the mask for each target weight.
        edge_masks: Masks of edge tensors that do not depend on the subsets, by name.
    """

    tensor: str
    random_tensor: RandomTensor
    candidates: int
    bound: float
    gain: float = 1.0
    branches: tuple[SignBranch | None, ...] = (None,)
    group_of: Callable[[np.ndarray], np.ndarray] | None = None
    edge_tensor: str | None = None
    step: float = 0.0
    copies: int = 1
    edge_masks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def sort_by_group(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The order of mask rows by group, the groups, and the first position of each in that order."""
        assert self.group_of is not None
        group = self.group_of(rows)
        order = np.argsort(group, kind="stable")
        return order, *np.unique(group[order], return_index=True)


def _input_channels(of: LinearLayer, name: str, rows_per_weight: int, rows: np.ndarray) -> np.ndarray:
    """The input that each row of a mask multiplies; a function of the module, because problems are pickled."""
    return of.input_channels(name, rows // rows_per_weight)


TensorProblems = tuple[list[TensorProblem], dict[str, np.ndarray]]
"""Problems of a layer's tensors, in order, and redraws of its edges: int64 rows (block, attempt) by own name."""


@dataclasses.dataclass(frozen=True)
class Construction(abc.ABC):
    """From a target to a random source. Concrete constructions are frozen dataclasses whose fields are their options.

    The first line of a field's docstring is its help on the command line.
    """

    name: ClassVar[str]
    objectives: ClassVar[tuple[str, ...]] = ("least-error", "smallest", "first")
    """Objectives that it supports; a theorem that prescribes the subset supports the first alone."""
    exact: ClassVar[bool] = False
    """True if weights are met exactly; the tolerance is then 0."""
    replicates_neurons: ClassVar[bool] = False
    """True if layers consist of copies that are added up."""
    unrounded: ClassVar[bool] = False
    """True if candidates and targets are float32 numbers without any rounding."""

    candidates: int = 21
    """Candidates for each target weight."""

    def __post_init__(self) -> None:
        if type(self.candidates) is not int or not 1 <= self.candidates < 1 << 15:
            raise InputError(
                f"candidates must be from 1 to 32767 for each weight, got {self.candidates!r}. Published experiments"
                " use 21."
            )

    @abc.abstractmethod
    def random_layer(self, target: Target, path: str, of: WeightNode) -> Source:
        """The random layer that replaces the target's layer `of` at `path`; raises `InputError` if it has none."""

    @abc.abstractmethod
    def problems(self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int) -> TensorProblems:
        """The problems of each tensor of the random layer at `path`, and the redraws of its edges.

        `drawn` are its random tensors by their own names, on the streams of the network.
        """

    def prepare(self, target: Target) -> Target:
        """The target in the form that is approximated: the same function without batch normalisation."""
        return fold_batch_norm(target)

    def solver(self, objective: str) -> Solver:
        """The default solver for an objective."""
        return choose_solver(self.candidates, objective=objective)

    def source(self, target: Target) -> Network:
        """The random network in which this construction finds a prepared target."""

        def replace(path: str, node: Node) -> Node:
            return self.random_layer(target, path, node) if isinstance(node, WeightNode) else node

        return target.network.map_layers(replace)

    def lossless(self, candidates: int | None) -> "Construction":
        """This construction with the options of a lossless ticket, or `InputError`; None: the default candidates."""
        raise InputError(
            f"{self.name} cannot be lossless, because its candidates are products or its theorem prescribes the"
            " subset; use scalar or scalar-shared"
        )

    def check_tolerance(self, network: Network, tolerance: float) -> None:  # noqa: B027
        """Refuse a tolerance that no draw of this source can reach; raises `InputError`."""


class GadgetConstruction(Construction):
    """2 n hidden units before every layer; for each sign of the input the products of n of its units are candidates.

    A concrete construction defines the distribution of the weights, the largest scaled target weight, and which first
    weights are redrawn: all outputs of an input share them, so they are redrawn (and recorded) before any search.
    """

    scaled_bounds: ClassVar[Mapping[str, float]] = {"weight": 0.25, "bias": 0.25}
    """Largest |target weight| after division by the gain, by tensor."""

    @property
    def sampler(self) -> Sampler:
        """Distribution of both random layers."""
        return Sampler.uniform(-1, 1)

    @property
    def min_units(self) -> int:
        """Usable units that an input must have for each sign that it needs."""
        return (self.candidates + 1) // 2

    def needs_redraw(self, first: np.ndarray, either_sign: np.ndarray) -> np.ndarray:
        """Inputs to redraw, bool [I], from first weights [I, U] and which inputs may have either sign, bool [I]."""
        plus, minus = (first > 0).sum(1), (first < 0).sum(1)
        return np.where(either_sign, np.minimum(plus, minus), plus) < self.min_units

    def random_layer(self, target: Target, path: str, of: WeightNode) -> Gadget:
        if not isinstance(of, LinearLayer):
            raise InputError(
                f"{self.name} puts units in front of layers, and the input of tensor {path!r} is unknown; name the"
                " model's architecture, or use scalar"
            )
        gain = layer_gain(target, path, of.tensors(), self.scaled_bounds)
        return Gadget(of, 2 * self.candidates, self.sampler, self.sampler, gain=gain)

    def problems(self, network: Network, path: str, drawn: Mapping[str, RandomTensor], seed: int) -> TensorProblems:
        gadget, given = network.sources[path], network.input_spec_of(path)
        assert isinstance(gadget, Gadget)
        of, signs = gadget.layer, gadget.input_signs("weight", given)
        first, _, redraws = self._first_weights(drawn["first"], of.inputs, signs, seed, relu=gadget.relu)
        branches: dict[int, SignBranch] = {}
        for sign in signs:
            # Without a ReLU every unit is active for inputs of both signs.
            active = sign * first > 0 if gadget.relu else first != 0
            branches[sign] = sign_branch(np.where(active, first, 0), self.candidates)
        found = []
        for name in of.tensors():
            problem = TensorProblem(
                child_path(path, name),
                drawn[name],
                self.candidates,
                bound=self.sampler.high**2,
                gain=gadget.gain,
                branches=tuple(map(branches.__getitem__, gadget.input_signs(name, given))),
                group_of=functools.partial(_input_channels, of, name, gadget.rows_per_weight),
                edge_tensor=child_path(path, "first"),
                copies=gadget.rows_per_weight,
            )
            found.append(problem)
        return found, {"first": redraws}

    def _first_weights(
        self, drawn: RandomTensor, inputs: int, signs: tuple[int, ...], seed: int, *, relu: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first matrix [I, U], inputs that may have either sign, bool [I], and redraw rows (input, attempt)."""
        either_sign = np.full(drawn.blocks, len(signs) > 1)
        either_sign[inputs:] = False  # the constant 1 has one sign
        # A pre-pruned source has to meet the condition of one with proportionally fewer candidates.
        density = drawn.sampler.density
        fewer = max(int(self.candidates * density), 1)
        condition = self if density == 1 else dataclasses.replace(self, candidates=fewer)

        def accept(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return ~condition.needs_redraw(weights if relu else np.abs(weights), either_sign[rows])

        first, redraws, failed = redraw_until(drawn, seed, accept)
        if failed:
            raise InputError(
                f"the first weights of {failed} inputs are too weak in each of {MAX_ATTEMPTS + 1} draws; use another"
                " seed, or other candidates"
            )
        return first, either_sign, redraws


def redraw_until(
    drawn: RandomTensor,
    seed: int,
    accept: Callable[[np.ndarray, np.ndarray], np.ndarray],
    blocks: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw a random tensor, and redraw each block until it is accepted.

    `accept` maps weights [R, N] and their block numbers [R] to bool [R]. Blocks other than `blocks` are 0.

    Returns:
        Weights [blocks, N], int64 rows (block, attempt) of redrawn blocks, and the number of blocks never accepted.
    """
    weights, last = np.zeros((drawn.blocks, drawn.width), np.float32), np.zeros(drawn.blocks, np.int64)
    pending = np.arange(drawn.blocks) if blocks is None else blocks
    for attempt in range(MAX_ATTEMPTS + 1):
        weights[pending], last[pending] = drawn.draw(seed, pending, attempt), attempt
        pending = pending[~accept(weights[pending], pending)]
        if not len(pending):
            break
    redrawn = np.flatnonzero(last)
    return weights, np.stack([redrawn, last[redrawn]], 1), len(pending)


def layer_gain(target: Target, path: str, tensors: Iterable[str], scaled_bounds: Mapping[str, float]) -> float:
    """The least divisor, a float32, that brings these tensors of the layer at `path` within their scaled bounds."""
    gain = 0.0
    for name in tensors:
        gain = max(gain, target.scan(child_path(path, name)).largest / scaled_bounds[name])
    return max(float(np.float32(gain)), MIN_MAGNITUDE) if gain > 0 else 1.0
