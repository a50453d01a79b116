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

from lottery_jax.errors import InputError
from lottery_jax.networks.codec import from_json, to_json
from lottery_jax.networks.layers.tensor_dict import TensorDict
from lottery_jax.networks.node import Container, Gate, Node, Spec, WeightNode, Weights, child_path
from lottery_jax.networks.sources.base import Source
from lottery_jax.rng.random_tensor import ATTEMPT_STRIDE, RandomTensor, count_positions

_SHOWN_TENSORS = 3

_SHOWN_CHARACTERS = 32  # of a name, or of a shape


def summary(network: "Network") -> str:
    """One line for `repr`: number of layers, their first tensors and the input; at most 250 characters.

    >>> from lottery_jax.networks.architectures import mlp
    >>> from lottery_jax.networks.node import Spec
    >>> summary(mlp((64, 64, 10), Spec((8, 8, 1), True)))
    '2 layers: fc1.weight [64, 64], fc2.weight [10, 64] ([out, in]), inputs [8, 8, 1] never negative'
    """
    shapes = network.approximated
    layers = len(network.weight_nodes) + len(network.sources)
    tensors = [f"{clipped(name)} {clipped(str(list(shape)))}" for name, shape in list(shapes.items())[:_SHOWN_TENSORS]]
    more = f" and {len(shapes) - _SHOWN_TENSORS:,} more" if len(shapes) > _SHOWN_TENSORS else ""
    axes = "[out, in, ...]" if any(len(shape) > 2 for shape in shapes.values()) else "[out, in]"
    inputs = "no graph" if network.input_spec is None else f"inputs {spec_text(network.input_spec)}"
    return f"{layers:,} {'layer' if layers == 1 else 'layers'}: {', '.join(tensors)}{more} ({axes}), {inputs}"


def spec_text(spec: Spec) -> str:
    """The shape of an example and its sign, in words.

    >>> from lottery_jax.networks.node import Spec
    >>> spec_text(Spec((8, 8, 1)))
    '[8, 8, 1] of any sign'
    """
    return f"{clipped(str(list(spec.shape)))} {'never negative' if spec.nonnegative else 'of any sign'}"


def clipped(words: str) -> str:
    """A name in at most 32 characters, cut at its beginning: names mostly differ at their ends.

    >>> clipped("encoder." * 9 + "weight")
    '...ncoder.encoder.encoder.weight'
    """
    words = " ".join(words.split())  # one line
    return words if len(words) <= _SHOWN_CHARACTERS else "..." + words[3 - _SHOWN_CHARACTERS :]


Redraws = Mapping[str, np.ndarray]
"""Redrawn blocks of random tensors: int64 rows (block, attempt) by name."""

NO_REDRAWS = np.zeros((0, 2), np.int64)

_MAX_WEIGHTS = 1 << 48

_MAX_ACTIVATION = 1 << 30  # numbers of one example between two layers: 4 GiB


@dataclasses.dataclass(frozen=True)
class Network:
    """A tree of nodes: a target if its tensors are stored, a source if they are random.

    Args:
        root: The tree.
        input_spec: The input; None for a `TensorDict`, whose graph is unknown.
        share_layers: Whether all random layers take their weights from one random tensor (Hidden-Fold Networks).

    Raises:
        InputError: If the nodes do not fit together.

    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> network = Network(Chain((("fc1", Dense(3, 2)), ("fc2", Dense(2, 5)))), Spec((3,)))
    >>> network.output_spec.shape, network.tensors
    ((5,), {'fc1.weight': (2, 3), 'fc2.weight': (5, 2)})
    """

    root: Node
    input_spec: Spec | None = None
    share_layers: bool = False

    def __post_init__(self) -> None:
        names = [child_path(path, name) for path, node in self.nodes() for name in node.tensors()]
        names += [child_path(path, name) for path, source in self.sources.items() for name in source.random_tensors()]
        if not names:
            raise InputError("a network must have at least one layer with weights")
        if "" in names:
            raise InputError(
                "the tensors of a network must have names. Put the unnamed node into a chain under a name."
            )
        # Learners pass gains by name: no tensor may have the name of a gain.
        _check_unique("tensors", [*names, *self.gains])
        _check_unique("layers", [path for path, node in self.nodes() if not isinstance(node, Container)])
        shapes = [*self.tensors.values(), *(tensor.shape for tensor in self.random_tensors.values())]
        if min(map(min, shapes)) < 1 or sum(map(math.prod, shapes)) > _MAX_WEIGHTS:
            raise InputError(f"a network must have tensors of sizes from 1 up and at most {_MAX_WEIGHTS:,} weights")
        if sum(tensor.streams for tensor in self.random_tensors.values()) > ATTEMPT_STRIDE:
            raise InputError(
                f"the random tensors must need at most {ATTEMPT_STRIDE} streams. Approximate the model in parts."
            )
        if self.input_spec is None and not isinstance(self.root, TensorDict):
            raise InputError("a network must have an input_spec. Only a TensorDict, whose graph is unknown, has none.")
        _ = self.output_spec  # raises if the nodes do not fit together
        if any(source.rows_per_weight > 1 for source in self.sources.values()):
            # A node that drops copies, or reads them as channels, would not compute the target's function.
            expected, found = self.target.output_spec, self.output_spec
            if expected is None or found is None or expected.shape != found.shape:
                raise InputError("the last layer of a network with copies of its neurons must give each output once")
        if self.input_spec is not None and self.largest_activation > _MAX_ACTIVATION:
            raise InputError(
                f"a network must have at most {_MAX_ACTIVATION:,} numbers between two layers for each example, got"
                f" {self.largest_activation:,}"
            )

    def nodes(self) -> Iterator[tuple[str, Node]]:
        """Every node with its path, parents first."""
        return _walk(self.root, "")

    @functools.cached_property
    def _specs(self) -> tuple[Spec | None, dict[str, Spec]]:
        specs: dict[str, Spec] = {}
        return (None if self.input_spec is None else self.root.trace_specs(self.input_spec, "", specs)), specs

    @property
    def output_spec(self) -> Spec | None:
        """The output; None if the graph is unknown."""
        return self._specs[0]

    @property
    def largest_activation(self) -> int:
        """Most numbers of one example between two layers, or inside a random layer."""
        hidden = {path: source.units_per_input for path, source in self.sources.items()}
        return max(math.prod(spec.shape) * hidden.get(path, 1) for path, spec in self._specs[1].items())

    def input_spec_of(self, path: str) -> Spec | None:
        """The input of the layer at a path."""
        return self._specs[1].get(path)

    @functools.cached_property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all stored tensors by name."""
        return {child_path(path, name): shape for path, node in self.nodes() for name, shape in node.tensors().items()}

    @functools.cached_property
    def weight_nodes(self) -> dict[str, WeightNode]:
        """The layers that a construction approximates, by path."""
        return {path: node for path, node in self.nodes() if isinstance(node, WeightNode)}

    @functools.cached_property
    def approximated(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that are approximated, in a target, or that have masks, in a source, by name."""
        layers = {**self.weight_nodes, **{path: source.layer for path, source in self.sources.items()}}
        return {
            child_path(path, name): shape for path, layer in layers.items() for name, shape in layer.tensors().items()
        }

    @functools.cached_property
    def sources(self) -> dict[str, Source]:
        """The random layers by path."""
        return {path: node for path, node in self.nodes() if isinstance(node, Source)}

    @functools.cached_property
    def random_tensors(self) -> dict[str, RandomTensor]:
        """All random tensors by name, each on its own streams; with `share_layers` all layers start at stream 0."""
        found, stream = {}, 0
        for path, source in self.sources.items():
            own = source.random_tensors()
            for name, tensor in own.items():
                found[child_path(path, name)] = dataclasses.replace(tensor, stream=stream + tensor.stream)
            if not self.share_layers:
                stream += max(tensor.stream + tensor.streams for tensor in own.values())
        return found

    @functools.cached_property
    def trained_tensors(self) -> dict[str, str]:
        """Trained tensors that replace random ones: the stored tensor's name by the random one whose mask it has."""
        return {
            child_path(path, name): child_path(path, own)
            for path, source in self.sources.items()
            for name, own in source.trained_tensors.items()
        }

    @functools.cached_property
    def frozen_tensors(self) -> dict[str, str]:
        """Random tensors added at their initial values: their names by the random tensor that they complement."""
        return {
            child_path(path, name): child_path(path, own)
            for path, source in self.sources.items()
            for name, own in source.frozen_tensors.items()
        }

    @property
    def source_weights(self) -> int:
        """Number of random weights; weights used several times are counted once."""
        if self.share_layers:
            return count_positions(self.random_tensors.values())
        again = set(self.frozen_tensors.values())
        return sum(tensor.weights for name, tensor in self.random_tensors.items() if name not in again)

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
        return module(x), dict(_statistics(self.root, module, ""))  # type: ignore[operator]

    @property
    def gains(self) -> dict[str, float]:
        """The factor of each random layer's output, by name (`fc1.gain`)."""
        return {child_path(path, "gain"): source.gain for path, source in self.sources.items()}

    def with_gains(self, gains: Mapping[str, float]) -> "Network":
        """The source with other gains."""
        sources = {
            path: dataclasses.replace(source, gain=gain)  # type: ignore[type-var]
            for path, source in self.sources.items()
            if (gain := gains[child_path(path, "gain")]) != source.gain
        }
        return self.map_layers(lambda path, node: sources.get(path, node))

    def measured_gains(self, tensors: Mapping[str, Any], gate: Callable[[str], Gate], x: Any) -> dict[str, jax.Array]:
        """The gains that give the output of each random layer root mean square 1 on x, by name (`fc1.gain`)."""
        module = self.root.module(Weights(tensors, gate, measuring=True))
        module(x)  # type: ignore[operator]
        found = dict(_statistics(self.root, module, ""))
        return {name: found[name] for name in self.gains}

    def draw(self, seed: int, redraws: Redraws | None = None) -> dict[str, np.ndarray]:
        """All random tensors by name, float32, regenerated on the host from the seed and the redraws."""
        return {
            name: tensor.draw_all(seed, (redraws or {}).get(name, NO_REDRAWS))
            for name, tensor in self.random_tensors.items()
        }

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
    spec = None if row["input_spec"] is None else _spec_from_json(row["input_spec"])
    return Network(from_json(row["root"]), spec, share_layers="share_layers" in row)


def _spec_from_json(row: Any) -> Spec:
    match row:
        case [list() as shape, bool() as nonnegative] if all(type(size) is int for size in shape):
            return Spec(tuple(shape), nonnegative)
    raise InputError("the input_spec of a network must be a shape and whether its numbers are never negative")


def _check_unique(what: str, names: list[str]) -> None:
    name, times = collections.Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"the {what} of a network must have different names, got {times} with the name {name!r}")


def _walk(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    yield path, node
    for name, child in node.children().items():
        yield from _walk(child, child_path(path, name))


def _statistics(node: Node, module: Any, path: str) -> Iterator[tuple[str, jax.Array]]:
    yield from ((child_path(path, name), value) for name, value in node.statistics(module).items())
    if isinstance(node, Container):
        for name, inner in node.child_modules(module).items():
            yield from _statistics(node.children()[name], inner, child_path(path, name))


def _mapped(node: Node, path: str, function: Callable[[str, Node], Node]) -> Node:
    children = node.children()
    if not children:
        return function(path, node)
    return node.with_children(
        {name: _mapped(child, child_path(path, name), function) for name, child in children.items()}
    )
