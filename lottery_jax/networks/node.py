"""The tree: a network, target or source, as data. Each kind of node is one file in `layers/` or `sources/`.

A node is a frozen dataclass that is also its JSON (`codec`). Its tensors have the names of their paths in the tree
(`layer1.0.conv1.weight`) and the layout in which everybody exchanges them, [out, in, ...]. A name in parentheses leaves
no trace in a path: so what is inside a residual block's body has the names that PyTorch users know.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError

MAX_MAGNITUDE, MIN_MAGNITUDE = 2.0**64, 2.0**-64
"""Bounds of the sizes of a network's numbers that are not whole: products of two of them are float32 still."""

MOST_VALUES = 1 << 28
"""Numbers that one example may have anywhere in a network; a file that asks for more is refused."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """One example between two nodes: its shape (images are [H, W, C]), and whether it is never negative.

    copies: how often every channel stands there, the same but for the errors of its weights; the last axis is then
    [C / apart, copies, apart], and without `apart` copies are neighbours. A node that does not say so loses them.
    """

    shape: tuple[int, ...]
    nonnegative: bool = False
    copies: int = dataclasses.field(default=1, repr=False)
    copy_stride: int = dataclasses.field(default=1, repr=False)

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or math.prod(self.shape) > MOST_VALUES:
            raise InputError(
                f"an example of shape {list(self.shape)} is not possible; sizes are from 1 up,"
                f" {MOST_VALUES:,} numbers in all at most"
            )


class Gate(Protocol):
    """Anything callable that gives a mask (bool or float) of a tensor's shape."""

    def __call__(self) -> jax.Array: ...


def child_path(path: str, name: str) -> str:
    """A path with one name more; empty names and those in parentheses leave no trace.

    >>> child_path("layer1.0", "conv1"), child_path("", "fc1"), child_path("layer1.0", "(body)")
    ('layer1.0.conv1', 'fc1', 'layer1.0')
    """
    if name.startswith("("):
        return path
    return f"{path}.{name}" if path and name else path or name


class Weights:
    """The tensors of a network, seen from one node: `weights["bias"]`, and `weights.child("body")` for a child.

    gate: makes the gate of a random tensor from its full name; a stored network has none. training: whether the network
    is being trained, and so what it sees moves its running means. measuring: whether random leaves find the gains that
    make their outputs units.
    """

    def __init__(
        self,
        tensors: Mapping[str, Any],
        gate: Callable[[str], Gate] | None = None,
        *,
        training: bool = False,
        measuring: bool = False,
        path: str = "",
    ) -> None:
        self._tensors, self._gate, self._path = tensors, gate, path
        self.training, self.measuring = training, measuring

    def __getitem__(self, name: str) -> Any:
        return self._tensors[child_path(self._path, name)]

    def gate(self, name: str) -> Gate:
        """The gate of a random tensor."""
        assert self._gate is not None, "a stored network has no gates"
        return self._gate(child_path(self._path, name))

    def scalar(self, name: str, default: float) -> Any:
        """A number of the node's own, where another than the usual one is given (a learner's, traced)."""
        return self._tensors.get(child_path(self._path, name), default)

    def child(self, name: str) -> "Weights":
        """What a child sees."""
        flags = {"training": self.training, "measuring": self.measuring}
        return Weights(self._tensors, self._gate, **flags, path=child_path(self._path, name))


@dataclasses.dataclass(frozen=True)
class Node(abc.ABC):
    """One piece of a network. Concrete kinds are frozen, hashable dataclasses whose fields are JSON values or nodes."""

    kind: ClassVar[str]
    """What it is called in JSON."""

    def children(self) -> Mapping[str, "Node"]:
        """The nodes inside, by name, in order; none for a leaf."""
        return {}

    def with_children(self, children: Mapping[str, "Node"]) -> Self:
        """The same node with other nodes inside, under the same names."""
        return self

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that are stored for this node itself."""
        return {}

    @abc.abstractmethod
    def output_spec(self, input_spec: Spec) -> Spec:
        """What comes out for what is given; raises `InputError` where it does not fit."""

    def trace_specs(self, input_spec: Spec, path: str, seen: dict[str, Spec]) -> Spec:
        """`output`, and what each leaf below is given, noted in `seen` under its path."""
        seen[path] = input_spec
        return self.output_spec(input_spec)

    @abc.abstractmethod
    def module(self, weights: Weights) -> nnx.Module:
        """The Flax module: x [B, *given] -> [B, *output]."""

    def statistics(self, module: Any) -> dict[str, jax.Array]:
        """Stored tensors that move by themselves while a network is trained, read back from this node's module."""
        return {}

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        """The node's own tensors before training, by name."""
        return {}

    @property
    def width_divisor(self) -> int:
        """What divides the widths around it, and must divide those that it is `resized` for."""
        return 1

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> "Node":
        """The same kind of node for other examples, `units` of its number of outputs in place of that number."""
        return self


class Container(Node):
    """A node with nodes inside: what goes in and out is said by `trace_specs` alone."""

    @abc.abstractmethod
    def children(self) -> Mapping[str, Node]: ...

    @abc.abstractmethod
    def with_children(self, children: Mapping[str, Node]) -> Self: ...

    @abc.abstractmethod
    def trace_specs(self, input_spec: Spec, path: str, seen: dict[str, Spec]) -> Spec: ...

    @abc.abstractmethod
    def child_modules(self, module: Any) -> Mapping[str, nnx.Module]:
        """The children's modules, from this node's own."""

    @abc.abstractmethod
    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Node: ...

    def output_spec(self, input_spec: Spec) -> Spec:
        return self.trace_specs(input_spec, "", {})


class StatelessLayer(Node):
    """A leaf without weights: a function of x [B, ...], which the node itself is."""

    @abc.abstractmethod
    def __call__(self, x: jax.Array) -> jax.Array: ...

    def module(self, weights: Weights) -> nnx.Module:
        return Function(self)


class Function(nnx.Module):
    """The module of a leaf without weights."""

    def __init__(self, function: StatelessLayer) -> None:
        self.function = function

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(x)


class WeightNode(Node):
    """A leaf that multiplies by weights: all of its tensors are approximated, and only those of such leaves get masks.

    A tensor's first axis is the outputs.
    """

    @property
    def weights(self) -> int:
        """Number of weights, biases among them."""
        return sum(math.prod(shape) for shape in self.tensors().values())


class LinearLayer(WeightNode):
    """An affine leaf whose place in the graph is known: `weight` [O, I / groups, ...] and perhaps `bias` [O].

    A bias is one more column, fed by the constant 1.
    """

    inputs: int
    outputs: int
    bias: bool

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs) < 1:
            raise InputError(f"an operation needs inputs and outputs, not {self.inputs} and {self.outputs}")

    @property
    def groups(self) -> int:
        """Groups of inputs, each of which serves its own outputs."""
        return 1

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of a weight's last axes: () for a matrix, the kernel's size for a convolution."""
        return ()

    def with_copies(self, inputs: int, outputs: int = 1) -> Self:
        """The same layer on `inputs` contiguous copies of each input, with `outputs` of each output."""
        return dataclasses.replace(self, inputs=self.inputs * inputs, outputs=self.outputs * outputs)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        weight = {"weight": (self.outputs, self.inputs // self.groups, *self.kernel_shape)}
        return weight | {"bias": (self.outputs,)} if self.bias else weight

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        # Normal weights of variance 2 / fan-in (He et al. 2015), in the order of Flax's kernels.
        outputs, inputs, *places = self.tensors()["weight"]
        kernel = jax.nn.initializers.he_normal()(key, (*places, inputs, outputs), jnp.float32)
        found = {"weight": jnp.transpose(kernel, (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2)))}
        return found | {"bias": jnp.zeros(outputs)} if self.bias else found

    def input_channels(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Which input each weight, given by its row-major place in tensor `name`, multiplies; the constant is last."""
        if name == "bias":
            return np.full(weights.shape, self.inputs)
        own, places = self.inputs // self.groups, math.prod(self.kernel_shape)
        output, within = weights // (own * places), weights // places % own
        return output // (self.outputs // self.groups) * own + within


class NoRngs:
    """In place of random keys, for Flax layers whose weights are given."""

    def params(self) -> None:
        return None


NO_RNGS: Any = NoRngs()


def constant_init(value: Any) -> Any:
    """An initialiser that returns what is given."""
    return lambda *_: value
