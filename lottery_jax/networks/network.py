"""What a network is in one line, whatever its size: for `repr`.

A whole network: a tree and what it is given.
"""

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
from lottery_jax.rng.random_tensor import ATTEMPT_STRIDE, RandomTensor, different_positions

_SHOWN = 3  # tensors

_LETTERS = 32  # of a name, or of a shape


def summary(network: "Network") -> str:
    """Layers, the first of their tensors, and what the network is given; up to 250 letters.

    >>> from lottery_jax.networks.architectures import mlp
    >>> from lottery_jax.networks.node import Spec
    >>> summary(mlp((64, 64, 10), Spec((8, 8, 1), True)))
    '2 layers: fc1.weight [64, 64], fc2.weight [10, 64] ([out, in]), inputs [8, 8, 1] never negative'
    """
    shapes = network.approximated
    layers = len(network.weight_nodes) + len(network.sources)
    tensors = [f"{clipped(name)} {clipped(str(list(shape)))}" for name, shape in list(shapes.items())[:_SHOWN]]
    more = f" and {len(shapes) - _SHOWN:,} more" if len(shapes) > _SHOWN else ""
    axes = "[out, in, ...]" if any(len(shape) > 2 for shape in shapes.values()) else "[out, in]"
    inputs = "no graph" if network.input_spec is None else f"inputs {spec_text(network.input_spec)}"
    return f"{layers:,} {'layer' if layers == 1 else 'layers'}: {', '.join(tensors)}{more} ({axes}), {inputs}"


def spec_text(spec: Spec) -> str:
    """The shape of an example, and its sign.

    >>> from lottery_jax.networks.node import Spec
    >>> spec_text(Spec((8, 8, 1)))
    '[8, 8, 1] of any sign'
    """
    return f"{clipped(str(list(spec.shape)))} {'never negative' if spec.nonnegative else 'of any sign'}"


def clipped(words: str) -> str:
    """A name short enough for a line, cut at its beginning: what tells names apart is mostly at their end.

    >>> clipped("encoder." * 9 + "weight")
    '...ncoder.encoder.encoder.weight'
    """
    words = " ".join(words.split())  # one line, whatever the name
    return words if len(words) <= _LETTERS else "..." + words[3 - _LETTERS :]


Redraws = Mapping[str, np.ndarray]
"""For random tensors by name, int64 rows (block, attempt): which blocks were drawn again."""

NO_REDRAWS = np.zeros((0, 2), np.int64)

_MOST_WEIGHTS = 1 << 48

_MOST_NUMBERS = 1 << 30  # of one example between two layers: 4 GiB


@dataclasses.dataclass(frozen=True)
class Network:
    """A tree with the examples it is given: a target if its tensors are stored, a source if they are drawn.

    given: None for a model whose graph is unknown (`TensorDict`). share_layers: whether all random leaves are drawn from the
    same streams, parts of one random tensor. Raises `InputError` where the nodes do not fit together.

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
            raise InputError("a network needs at least one layer with weights")
        if "" in names:
            raise InputError("a tensor of the network has no name; put its node into a chain under one")
        # A learner gives gains by name: no tensor may be taken for one.
        _check_different("tensors", [*names, *self.gains])
        _check_different("leaves", [path for path, node in self.nodes() if not isinstance(node, Container)])
        shapes = [*self.tensors.values(), *(tensor.shape for tensor in self.random_tensors.values())]
        if min(map(min, shapes)) < 1 or sum(map(math.prod, shapes)) > _MOST_WEIGHTS:
            raise InputError(f"a network has tensors of sizes from 1 up and at most {_MOST_WEIGHTS:,} weights")
        if sum(tensor.streams for tensor in self.random_tensors.values()) > ATTEMPT_STRIDE:
            raise InputError(f"the random tensors need more than {ATTEMPT_STRIDE} streams; approximate it in parts")
        if self.input_spec is None and not isinstance(self.root, TensorDict):
            raise InputError(
                "it is not said what the network is given; only a model whose graph is unknown has no inputs"
            )
        _ = self.output_spec  # raises where the nodes do not fit together
        if any(source.rows_per_weight > 1 for source in self.sources.values()):
            # A node that loses copies, or takes them for channels, would not compute what the target does.
            wanted, found = self.target.output_spec, self.output_spec
            if wanted is None or found is None or wanted.shape != found.shape:
                raise InputError("the last layer of a network with copies of its neurons must give each output once")
        if self.input_spec is not None and self.largest_activation > _MOST_NUMBERS:
            raise InputError(
                f"a network has at most {_MOST_NUMBERS:,} numbers between two layers an example, not {self.largest_activation:,}"
            )

    def nodes(self) -> Iterator[tuple[str, Node]]:
        """Every node with its path, parents first."""
        return _walk(self.root, "")

    @functools.cached_property
    def _flow(self) -> tuple[Spec | None, dict[str, Spec]]:
        seen: dict[str, Spec] = {}
        return (None if self.input_spec is None else self.root.trace_specs(self.input_spec, "", seen)), seen

    @property
    def output_spec(self) -> Spec | None:
        """What comes out; None for a model whose graph is unknown."""
        return self._flow[0]

    @property
    def largest_activation(self) -> int:
        """The most numbers between two layers, or inside a random leaf, for one example."""
        hidden = {path: source.units_per_input for path, source in self.sources.items()}
        return max(math.prod(spec.shape) * hidden.get(path, 1) for path, spec in self._flow[1].items())

    def input_spec_of(self, path: str) -> Spec | None:
        """What the leaf at a path is given."""
        return self._flow[1].get(path)

    @functools.cached_property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all stored tensors by name."""
        return {child_path(path, name): shape for path, node in self.nodes() for name, shape in node.tensors().items()}

    @functools.cached_property
    def weight_nodes(self) -> dict[str, WeightNode]:
        """The affine leaves by path: what a construction approximates."""
        return {path: node for path, node in self.nodes() if isinstance(node, WeightNode)}

    @functools.cached_property
    def approximated(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that have masks, or are to have them: those of the affine leaves."""
        leaves = {**self.weight_nodes, **{path: source.layer for path, source in self.sources.items()}}
        return {
            child_path(path, name): shape for path, leaf in leaves.items() for name, shape in leaf.tensors().items()
        }

    @functools.cached_property
    def sources(self) -> dict[str, Source]:
        """The random leaves by path."""
        return {path: node for path, node in self.nodes() if isinstance(node, Source)}

    @functools.cached_property
    def random_tensors(self) -> dict[str, RandomTensor]:
        """All random tensors by name, each on streams of its own; with folded layers each leaf begins anew."""
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
        """Stored tensors that stand in place of random ones, by the name of the random one whose mask they have."""
        return {
            child_path(path, name): child_path(path, own)
            for path, source in self.sources.items()
            for name, own in source.trained_tensors.items()
        }

    @functools.cached_property
    def frozen_tensors(self) -> dict[str, str]:
        """Random tensors whose weights are added as they were drawn, by the name of the one whose places they have."""
        return {
            child_path(path, name): child_path(path, own)
            for path, source in self.sources.items()
            for name, own in source.frozen_tensors.items()
        }

    @property
    def source_weights(self) -> int:
        """Number of random weights (those that are used several times are counted once)."""
        if self.share_layers:
            return different_positions(self.random_tensors.values())
        again = set(self.frozen_tensors.values())
        return sum(tensor.weights for name, tensor in self.random_tensors.items() if name not in again)

    def map_layers(self, function: Callable[[str, Node], Node]) -> "Network":
        """The same network with each leaf made anew from its path and itself."""
        return dataclasses.replace(self, root=_replaced(self.root, "", function))

    @functools.cached_property
    def target(self) -> "Network":
        """The network that a source stands for: each random leaf is the one that it wraps."""
        root = _replaced(self.root, "", lambda path, node: node.layer if isinstance(node, Source) else node)
        return Network(root, self.input_spec)

    def module(self, tensors: Mapping[str, Any], gate: Callable[[str], Gate] | None = None) -> nnx.Module:
        """The Flax module x [B, *given] -> [B, *output]; `tensors` are stored and random ones, by name."""
        return self.root.module(Weights(tensors, gate))

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        """The stored tensors before training."""
        nodes = [(path, node) for path, node in self.nodes() if node.tensors()]
        keys = jax.random.split(key, len(nodes))
        return {
            child_path(path, name): value
            for (path, node), own in zip(nodes, keys, strict=True)
            for name, value in node.initial(own).items()
        }

    def train(self, tensors: Mapping[str, Any], x: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Outputs for x [B, *given] while it is trained, and the tensors that this moves by themselves."""
        module = self.root.module(Weights(tensors, training=True))
        return module(x), dict(_statistics(self.root, module, ""))  # type: ignore[operator]

    @property
    def gains(self) -> dict[str, float]:
        """What the output of each random leaf is multiplied by, by name (`fc1.gain`)."""
        return {child_path(path, "gain"): leaf.gain for path, leaf in self.sources.items()}

    def with_gains(self, gains: Mapping[str, float]) -> "Network":
        """The source with other gains."""
        leaves = {
            path: dataclasses.replace(leaf, gain=gain)  # type: ignore[type-var]
            for path, leaf in self.sources.items()
            if (gain := gains[child_path(path, "gain")]) != leaf.gain
        }
        return self.map_layers(lambda path, node: leaves.get(path, node))

    def measured_gains(self, tensors: Mapping[str, Any], gate: Callable[[str], Gate], x: Any) -> dict[str, jax.Array]:
        """The gain of each random leaf that gives its output root mean square 1 on x, by name (`fc1.gain`)."""
        module = self.root.module(Weights(tensors, gate, measuring=True))
        module(x)  # type: ignore[operator]
        found = dict(_statistics(self.root, module, ""))
        return {name: found[name] for name in self.gains}  # means did not move

    def draw(self, seed: int, redraws: Redraws | None = None) -> dict[str, np.ndarray]:
        """All random tensors, float32, regenerated on the host from the seed."""
        again = redraws or {}
        return {
            name: tensor.draw_all(seed, again.get(name, NO_REDRAWS)) for name, tensor in self.random_tensors.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries that `network_from_json` turns back into the same network."""
        input_spec = None if self.input_spec is None else to_json((self.input_spec.shape, self.input_spec.nonnegative))
        folded = {"share_layers": True} if self.share_layers else {}
        return {"input_spec": input_spec, "root": to_json(self.root), **folded}

    def __repr__(self) -> str:
        random = f"{self.source_weights:,} random weights" if self.sources else "stored weights"
        return f"<Network of {random}, {summary(self)}>"


def network_from_json(row: Any) -> Network:
    """Inverse of `Network.to_json`; raises `InputError` for what is no network."""
    if not isinstance(row, dict) or set(row) - {"share_layers"} != {"input_spec", "root"}:
        raise InputError("a network must have the fields input_spec and root, optionally share_layers, and no others")
    if row.get("share_layers", True) is not True:
        raise InputError("share_layers must be true where a network has it; leave it out of others")
    input_spec = row["input_spec"]
    if input_spec is not None:
        if not (isinstance(input_spec, list) and len(input_spec) == 2 and isinstance(input_spec[0], list)):
            raise InputError("what a network is given must be a shape, and whether it is never negative")
        shape, nonnegative = input_spec
        if not (all(type(size) is int for size in shape) and isinstance(nonnegative, bool)):
            raise InputError("what a network is given must be a shape, and whether it is never negative")
        input_spec = Spec(tuple(shape), nonnegative)
    return Network(from_json(row["root"]), input_spec, share_layers="share_layers" in row)


def _check_different(what: str, names: list[str]) -> None:
    name, times = collections.Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"the {what} of a network need different names, but {times} are called {name!r}")


def _walk(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    yield path, node
    for name, child in node.children().items():
        yield from _walk(child, child_path(path, name))


def _statistics(node: Node, module: Any, path: str) -> Iterator[tuple[str, jax.Array]]:
    yield from ((child_path(path, name), value) for name, value in node.statistics(module).items())
    if isinstance(node, Container):
        for name, inner in node.child_modules(module).items():
            yield from _statistics(node.children()[name], inner, child_path(path, name))


def _replaced(node: Node, path: str, leaf: Callable[[str, Node], Node]) -> Node:
    children = node.children()
    if not children:
        return leaf(path, node)
    return node.with_children(
        {name: _replaced(child, child_path(path, name), leaf) for name, child in children.items()}
    )
