"""A network: a tree of nodes and the spec of its input."""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError, quoted
from lottery_jax.networks.codec import from_json, to_json
from lottery_jax.networks.layers.tensor_dict import TensorDict
from lottery_jax.networks.node import Container, Cost, Gate, Node, Spec, WeightNode, Weights, checked_spec, child_path
from lottery_jax.networks.sources.base import Source
from lottery_jax.rng.random_tensor import ATTEMPT_STRIDE, RandomTensor, count_positions

Redraws = Mapping[str, np.ndarray]
"""Redrawn blocks of random tensors: int64 rows (block, attempt) by name."""

NO_REDRAWS = np.zeros((0, 2), np.int64)
_MAX_WEIGHTS = 1 << 48
_MAX_ACTIVATION = 1 << 30  # numbers of one example between two layers: 4 GiB
_SHOWN_TENSORS = 3
_SHOWN_CHARACTERS = 32  # of a name, or of a shape


@dataclasses.dataclass(frozen=True)
class Network:
    """A tree of nodes: a target if its tensors are stored, a source if they are random.

    Args:
        input_spec: The input; None for a `TensorDict`, whose graph is unknown.
        share_layers: Whether all random layers take their weights from one random tensor (Hidden-Fold Networks).

    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> network = Network(Chain((("fc1", Dense(3, 2)), ("fc2", Dense(2, 5)))), Spec((3,)))
    >>> network.output_spec.shape, network.tensors
    ((5,), {'fc1.weight': (2, 3), 'fc2.weight': (5, 2)})
    """

    root: Node
    input_spec: Spec | None = None
    share_layers: bool = False

    tensors: dict[str, tuple[int, ...]] = dataclasses.field(init=False, compare=False)
    """Shapes of all stored tensors by name."""
    weight_nodes: dict[str, WeightNode] = dataclasses.field(init=False, compare=False)
    """The layers that a construction approximates, by path."""
    approximated: dict[str, tuple[int, ...]] = dataclasses.field(init=False, compare=False)
    """Shapes of the tensors that are approximated, in a target, or that have masks, in a source, by name."""
    sources: dict[str, Source] = dataclasses.field(init=False, compare=False)
    """The random layers by path."""
    gains: dict[str, float] = dataclasses.field(init=False, compare=False)
    """The factor of each random layer's output, by name (`fc1.gain`)."""
    random_tensors: dict[str, RandomTensor] = dataclasses.field(init=False, compare=False)
    """All random tensors by name, each on its own streams; with `share_layers` all layers start at stream 0."""
    trained_tensors: dict[str, str] = dataclasses.field(init=False, compare=False)
    """Trained tensors that replace random ones: the stored tensor's name by the random one whose mask it has."""
    frozen_tensors: dict[str, str] = dataclasses.field(init=False, compare=False)
    """Random tensors added at their initial values: their names by the random tensor that they complement."""
    output_spec: Spec | None = dataclasses.field(init=False, compare=False)
    """The output; None if the graph is unknown."""
    largest_activation: int = dataclasses.field(init=False, compare=False)
    """Most numbers of one example between two layers, or inside a random layer; 0 if the graph is unknown."""
    _input_specs: dict[str, Spec] = dataclasses.field(init=False, compare=False)

    def __post_init__(self) -> None:
        names, layers = self._index_tensors()
        self._check_tensors(names, layers)
        if self.input_spec is None and not isinstance(self.root, TensorDict):
            raise InputError("a network must have an input_spec. Only a TensorDict, whose graph is unknown, has none.")
        if self.input_spec is not None:
            checked_spec(self.input_spec)
        specs: dict[str, Spec] = {}
        # Raises if the nodes do not fit together.
        output_spec = None if self.input_spec is None else self.root.trace_specs(self.input_spec, "", specs)
        largest = 0
        for path, spec in specs.items():
            units = self.sources[path].units_per_input if path in self.sources else 1
            largest = max(largest, math.prod(spec.shape) * units)
        self.__dict__.update(output_spec=output_spec, largest_activation=largest, _input_specs=specs)
        copied = False
        for source in self.sources.values():
            copied |= source.rows_per_weight > 1
        if copied:
            # A node that drops copies, or reads them as channels, would not compute the target's function.
            expected = self.target.output_spec
            if expected is None or output_spec is None or expected.shape != output_spec.shape:
                raise InputError("the last layer of a network with copies of its neurons must give each output once")
        if largest > _MAX_ACTIVATION:
            raise InputError(
                f"a network must have at most {_MAX_ACTIVATION:,} numbers between two layers for each example, got"
                f" {largest:,}"
            )

    def _index_tensors(self) -> tuple[list[str], list[str]]:
        """Set the fields of layers and tensors; returns the names of all tensors and the paths of all layers."""
        tensors, weight_nodes, approximated, sources = {}, {}, {}, {}
        names, layers = [], []
        for path, node in self.nodes():
            for name, shape in node.tensors().items():
                full = child_path(path, name)
                names.append(full)
                tensors[full] = shape
                if isinstance(node, WeightNode):
                    approximated[full] = shape
            if isinstance(node, WeightNode):
                weight_nodes[path] = node
            if isinstance(node, Source):
                sources[path] = node
            if not isinstance(node, Container):
                layers.append(path)
        gains, random_tensors, trained, frozen, stream = {}, {}, {}, {}, 0
        for path, source in sources.items():
            gains[child_path(path, "gain")] = source.gain
            for name, shape in source.layer.tensors().items():
                approximated[child_path(path, name)] = shape
            following = stream
            for name, tensor in source.random_tensors().items():
                full = child_path(path, name)
                names.append(full)
                random_tensors[full] = dataclasses.replace(tensor, stream=stream + tensor.stream)
                following = max(following, stream + tensor.stream + tensor.streams)
            stream = 0 if self.share_layers else following
            for name, own in source.trained_tensors.items():
                trained[child_path(path, name)] = child_path(path, own)
            for name, own in source.frozen_tensors.items():
                frozen[child_path(path, name)] = child_path(path, own)
        self.__dict__.update(
            tensors=tensors,
            weight_nodes=weight_nodes,
            approximated=approximated,
            sources=sources,
            gains=gains,
            random_tensors=random_tensors,
            trained_tensors=trained,
            frozen_tensors=frozen,
        )
        return names, layers

    def _check_tensors(self, names: list[str], layers: list[str]) -> None:
        if not names:
            raise InputError("a network must have at least one layer with weights")
        if "" in names:
            raise InputError(
                "the tensors of a network must have names. Put the unnamed node into a chain under a name."
            )
        # Learners pass gains by name: no tensor may have the name of a gain.
        for what, used in (("tensors", [*names, *self.gains]), ("layers", layers)):
            name, times = collections.Counter(used).most_common(1)[0]
            if times > 1:
                raise InputError(
                    f"the {what} of a network must have different names, got {times} with the name {name!r}"
                )
        shapes, streams = [*self.tensors.values()], 0
        for tensor in self.random_tensors.values():
            shapes.append(tensor.shape)
            streams += tensor.streams
        if min(map(min, shapes)) < 1 or sum(map(math.prod, shapes)) > _MAX_WEIGHTS:
            raise InputError(f"a network must have tensors of sizes from 1 up and at most {_MAX_WEIGHTS:,} weights")
        if streams > ATTEMPT_STRIDE:
            raise InputError(
                f"the random tensors must need at most {ATTEMPT_STRIDE} streams. Approximate the model in parts."
            )

    def nodes(self) -> Iterator[tuple[str, Node]]:
        """Every node with its path, parents first."""
        stack = [("", self.root)]
        while stack:
            path, node = stack.pop()
            yield path, node
            for name, child in reversed([*node.children().items()]):
                stack.append((child_path(path, name), child))

    def input_spec_of(self, path: str) -> Spec | None:
        """The input of the layer at a path."""
        return self._input_specs.get(path)

    @property
    def source_weights(self) -> int:
        """Number of random weights; weights used several times are counted once."""
        if self.share_layers:
            return count_positions(self.random_tensors.values())
        again, count = set(self.frozen_tensors.values()), 0
        for name, tensor in self.random_tensors.items():
            if name not in again:
                count += tensor.weights
        return count

    @functools.cached_property
    def cost(self) -> Cost:
        """The work for one example, none if the graph is unknown."""
        return Cost() if self.input_spec is None else self.root.cost(self.input_spec)

    def map_layers(self, function: Callable[[str, Node], Node]) -> "Network":
        """The network with each layer replaced by `function(path, layer)`."""
        return dataclasses.replace(self, root=_mapped(self.root, "", function))

    @functools.cached_property
    def target(self) -> "Network":
        """The target's network: each random layer is replaced by the layer that it wraps."""
        root = _mapped(self.root, "", lambda path, node: node.layer if isinstance(node, Source) else node)
        return Network(root, self.input_spec)

    def module(self, tensors: Mapping[str, Any], gate: Callable[[str], Gate] | None = None) -> nnx.Module:
        """The Flax module x [B, *input] -> [B, *output].

        Args:
            tensors: Stored and random tensors by name.
            gate: Makes the gate of a random tensor from its name; None for a target.
        """
        return self.root.module(Weights(tensors, gate))

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        """Initial values of the stored tensors, by name."""
        nodes = [(path, node) for path, node in self.nodes() if node.tensors()]
        keys = jax.random.split(key, len(nodes))
        return {
            child_path(path, name): value
            for (path, node), own in zip(nodes, keys, strict=True)
            for name, value in node.initial(own).items()
        }

    def train(self, tensors: Mapping[str, Any], x: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Outputs for x [B, *input] in training mode, and the updated running statistics by name."""
        module = self.root.module(Weights(tensors, training=True))
        output, found = module(x), {}  # type: ignore[operator]
        _add_statistics(self.root, module, "", found)
        return output, found

    def with_gains(self, gains: Mapping[str, float]) -> "Network":
        """The source with other gains."""

        def changed(path: str, node: Node) -> Node:
            if not isinstance(node, Source) or (gain := gains[child_path(path, "gain")]) == node.gain:
                return node
            return dataclasses.replace(node, gain=gain)  # type: ignore[type-var]

        return self.map_layers(changed)

    def measured_gains(self, tensors: Mapping[str, Any], gate: Callable[[str], Gate], x: Any) -> dict[str, jax.Array]:
        """The gains that give the output of each random layer root mean square 1 on x, by name (`fc1.gain`)."""
        module = self.root.module(Weights(tensors, gate, measuring=True))
        module(x)  # type: ignore[operator]
        found: dict[str, jax.Array] = {}
        _add_statistics(self.root, module, "", found)
        gains = {}
        for name in self.gains:
            gains[name] = found[name]
        return gains

    def draw(self, seed: int, redraws: Redraws | None = None) -> dict[str, np.ndarray]:
        """All random tensors by name, float32, regenerated on the host from the seed and the redraws."""
        found = {}
        for name, tensor in self.random_tensors.items():
            found[name] = tensor.draw_all(seed, (redraws or {}).get(name, NO_REDRAWS))
        return found

    def to_json(self) -> dict[str, Any]:
        """JSON values that `network_from_json` reads."""
        input_spec = None if self.input_spec is None else to_json((self.input_spec.shape, self.input_spec.nonnegative))
        shared = {"share_layers": True} if self.share_layers else {}
        return {"input_spec": input_spec, "root": to_json(self.root), **shared}

    def __repr__(self) -> str:
        random = f"{self.source_weights:,} random weights" if self.sources else "stored weights"
        return f"<Network of {random}, {summary(self)}>"


def network_from_json(row: Any) -> Network:
    """Inverse of `Network.to_json` for untrusted JSON; raises `InputError` if it is not a network."""
    if not isinstance(row, dict) or set(row) - {"share_layers"} != {"input_spec", "root"}:
        raise InputError("a network must have the fields input_spec and root, optionally share_layers, and no others")
    if row.get("share_layers", True) is not True:
        raise InputError("share_layers must be true if it is present. Omit it from other networks.")
    match row["input_spec"]:
        case None:
            spec = None
        case [list() as shape, bool() as nonnegative] if set(map(type, shape)) <= {int}:
            spec = Spec(tuple(shape), nonnegative)
        case _:
            raise InputError("the input_spec of a network must be a shape and whether its numbers are never negative")
    return Network(from_json(row["root"]), spec, share_layers="share_layers" in row)


def summary(network: Network) -> str:
    """One line for `repr`: number of layers, their first tensors and the input; at most 250 characters.

    >>> from lottery_jax.networks.architectures import mlp
    >>> from lottery_jax.networks.node import Spec
    >>> summary(mlp((64, 64, 10), Spec((8, 8, 1), True)))
    '2 layers: fc1.weight [64, 64], fc2.weight [10, 64] ([out, in]), inputs [8, 8, 1] never negative'
    """
    layers, tensors, axes = len(network.weight_nodes) + len(network.sources), [], "[out, in]"
    for name, shape in network.approximated.items():
        if len(tensors) < _SHOWN_TENSORS:
            tensors.append(f"{clipped(name)} {_clipped(str(list(shape)))}")
        if len(shape) > 2:
            axes = "[out, in, ...]"
    others = len(network.approximated) - len(tensors)
    more = f" and {others:,} more" if others else ""
    spec, inputs = network.input_spec, "no graph"
    if spec is not None:
        sign = "never negative" if spec.nonnegative else "of any sign"
        inputs = f"inputs {_clipped(str(list(spec.shape)))} {sign}"
    return f"{layers:,} {'layer' if layers == 1 else 'layers'}: {', '.join(tensors)}{more} ({axes}), {inputs}"


def clipped(words: str) -> str:
    """A name in at most 32 characters, cut at its beginning, because names mostly differ at their ends; see `quoted`.

    >>> clipped("encoder." * 9 + "weight")
    '...ncoder.encoder.encoder.weight'
    """
    return quoted(_clipped(words))


def _clipped(words: str) -> str:
    return words if len(words) <= _SHOWN_CHARACTERS else "..." + words[3 - _SHOWN_CHARACTERS :]


def _add_statistics(node: Node, module: Any, path: str, found: dict[str, jax.Array]) -> None:
    """Add the statistics of a node and of the nodes inside to `found`, by name."""
    for name, value in node.statistics(module).items():
        found[child_path(path, name)] = value
    if isinstance(node, Container):
        children = node.children()
        for name, inner in node.child_modules(module).items():
            _add_statistics(children[name], inner, child_path(path, name), found)


def _mapped(node: Node, path: str, function: Callable[[str, Node], Node]) -> Node:
    children = dict(node.children())
    if not children:
        return function(path, node)
    for name, child in children.items():
        children[name] = _mapped(child, child_path(path, name), function)
    return node.with_children(children)
