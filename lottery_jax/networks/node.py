"""Nodes: a network, target or source, is a tree of frozen dataclasses that are also its JSON (`codec`).

Tensors are named by their paths in the tree (`layer1.0.conv1.weight`) and have PyTorch's layout, [out, in, ...]. A name
in parentheses does not appear in paths, so that tensors in a residual block's body have PyTorch's names.
"""

import abc
import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError, shown

MAX_MAGNITUDE, MIN_MAGNITUDE = 2.0**64, 2.0**-64
"""Bounds of |x| for the real-valued fields of a network: products of two of them are finite in float32."""

MAX_EXAMPLE_SIZE, MAX_AXES = 1 << 28, 16
"""Most numbers and axes of one example at any node; a file that asks for more is refused."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """One example at the input or output of a node.

    Args:
        shape: Without the batch axis; [H, W, C] of an image.
        nonnegative: Whether its numbers are never negative.
        copies: Copies of every channel, equal up to the errors of their weights.
        copy_stride: Distance of two copies of a channel: the last axis is [C / copy_stride, copies, copy_stride].
    """

    shape: tuple[int, ...]
    nonnegative: bool = False
    copies: int = dataclasses.field(default=1, repr=False)
    copy_stride: int = dataclasses.field(default=1, repr=False)

    def __post_init__(self) -> None:
        try:
            # A list has no hash, and integers of NumPy are not JSON.
            object.__setattr__(self, "shape", tuple(map(operator.index, self.shape)))
        except TypeError:
            raise InputError(
                f"the shape of an example must be integers such as (8, 8, 1), got {shown(self.shape)}. Pass a tuple."
            ) from None
        fits = 1 <= len(self.shape) <= MAX_AXES and min(self.shape) >= 1
        if not fits or math.prod(self.shape) > MAX_EXAMPLE_SIZE:
            raise InputError(
                f"the shape of an example must have sizes from 1 up, at most {MAX_AXES} axes and"
                f" {MAX_EXAMPLE_SIZE:,} numbers, got {shown(list(self.shape))}"
            )


def checked_spec(input_spec: Any) -> Spec:
    """The `Spec` of an input that a user gives; raises `InputError` for anything else, such as its shape alone."""
    if not isinstance(input_spec, Spec):
        raise InputError(
            f"input_spec must be a Spec, got {shown(input_spec)}. Pass lottery_jax.layers.Spec(shape), with"
            " nonnegative=True if inputs are never negative."
        )
    return input_spec


PRODUCTS_AT_ONCE = 16
"""Products of a matrix product in the time of another operation on a number, about a nanosecond of one core."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Work of one example, as Python integers that never overflow.

    Args:
        operations: Comparisons, copied numbers, and products; `PRODUCTS_AT_ONCE` of a matrix product count as one.
        numbers: Numbers of the largest array between two layers or inside a layer.

    >>> Cost(5, 3) + Cost(2, 7)
    Cost(operations=7, numbers=7)
    """

    operations: int = 0
    numbers: int = 0

    def __add__(self, following: "Cost") -> "Cost":
        return Cost(self.operations + following.operations, max(self.numbers, following.numbers))


Gate = Callable[[], jax.Array]
"""Returns the mask (bool or float) of a tensor in its shape."""


class Frozen(nnx.Variable):
    """A random source weight. It is not an `nnx.Param`, so that no optimiser trains it."""


class Mask(nnx.Variable):
    """A fixed mask: one entry, 0 or 1, for each source weight."""


class FixedGate(nnx.Module):
    """A gate with a fixed mask."""

    def __init__(self, mask: jax.Array) -> None:
        self.mask = Mask(jnp.asarray(mask))

    def __call__(self) -> jax.Array:
        return self.mask[...]


def child_path(path: str, name: str) -> str:
    """A path with one more name; empty names and names in parentheses are skipped.

    >>> child_path("layer1.0", "conv1"), child_path("", "fc1"), child_path("layer1.0", "(body)")
    ('layer1.0.conv1', 'fc1', 'layer1.0')
    """
    if name.startswith("("):
        return path
    return f"{path}.{name}" if path and name else path or name


class Weights:
    """The tensors of a network as one node sees them: `weights["bias"]`, and `weights.child("body")` for a child.

    Args:
        tensors: Stored and random tensors by full name.
        gate: Makes the gate of a random tensor from its full name; None for a stored network.
        training: Whether batch normalisation uses the batch and updates its running statistics.
        measuring: Whether random layers measure the gains that give their outputs root mean square 1.
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
        assert self._gate is not None, "a stored network must have no gates"
        return self._gate(child_path(self._path, name))

    def scalar(self, name: str, default: float) -> Any:
        """A scalar of the node, such as a traced gain; `default` if the tensors have none."""
        return self._tensors.get(child_path(self._path, name), default)

    def child(self, name: str) -> "Weights":
        """The same tensors as a child sees them."""
        path = child_path(self._path, name)
        return Weights(self._tensors, self._gate, training=self.training, measuring=self.measuring, path=path)


@dataclasses.dataclass(frozen=True)
class Node(abc.ABC):
    """One piece of a network: a layer or a container. Kinds are frozen dataclasses of JSON values and nodes."""

    kind: ClassVar[str]
    """Name in JSON."""
    width_divisor: ClassVar[int] = 1
    """A number that must divide the widths that the node is `resized` for."""

    def children(self) -> Mapping[str, "Node"]:
        """The nodes inside, by name, in order; empty for a layer."""
        return {}

    def with_children(self, children: Mapping[str, "Node"]) -> Self:
        """The same node with other children under the same names."""
        return self

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the node's own stored tensors, by name."""
        return {}

    @abc.abstractmethod
    def output_spec(self, input_spec: Spec) -> Spec:
        """The output for an input; raises `InputError` if the input does not fit."""

    def cost(self, input_spec: Spec) -> Cost:
        """The work for one example, from shapes alone; by default each number is copied."""
        sizes = math.prod(input_spec.shape), math.prod(self.output_spec(input_spec).shape)
        return Cost(sum(sizes), max(sizes))

    def trace_specs(self, input_spec: Spec, path: str, specs: dict[str, Spec]) -> Spec:
        """`output_spec`; the input of each layer is added to `specs` under its path."""
        specs[path] = input_spec
        return self.output_spec(input_spec)

    @abc.abstractmethod
    def module(self, weights: Weights) -> nnx.Module:
        """The Flax module: x [B, *input_spec.shape] -> [B, *output_spec.shape]."""

    def statistics(self, module: Any) -> dict[str, jax.Array]:
        """Tensors that a forward pass updates (running statistics, measured gains), read from the node's module."""
        return {}

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        """Initial values of the node's own stored tensors, by name."""
        return {}

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> "Node":
        """The same node for another input; `units` maps its number of outputs to the new one."""
        return self


class Container(Node):
    """A node with children; `trace_specs` defines its output."""

    @abc.abstractmethod
    def children(self) -> Mapping[str, Node]: ...

    @abc.abstractmethod
    def with_children(self, children: Mapping[str, Node]) -> Self: ...

    @abc.abstractmethod
    def trace_specs(self, input_spec: Spec, path: str, specs: dict[str, Spec]) -> Spec: ...

    @abc.abstractmethod
    def child_modules(self, module: Any) -> Mapping[str, nnx.Module]:
        """The modules of the children, by name, in this node's module."""

    @abc.abstractmethod
    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Node: ...

    @abc.abstractmethod
    def cost(self, input_spec: Spec) -> Cost: ...

    def output_spec(self, input_spec: Spec) -> Spec:
        return self.trace_specs(input_spec, "", {})


class StatelessLayer(Node):
    """A layer without weights: the node is itself the function of x [B, ...]."""

    @abc.abstractmethod
    def __call__(self, x: jax.Array) -> jax.Array: ...

    def module(self, weights: Weights) -> nnx.Module:
        return Function(self)


class Function(nnx.Module):
    """The module of a layer without weights."""

    def __init__(self, function: StatelessLayer) -> None:
        self.function = function

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(x)


class WeightNode(Node):
    """A layer whose tensors are approximated; only these tensors have masks. Their first axis is the outputs."""

    @property
    def weights(self) -> int:
        """Number of weights and biases."""
        return sum(map(math.prod, self.tensors().values()))


class LinearLayer(WeightNode):
    """A layer that multiplies by `weight` [O, I / groups, *kernel_shape] and may add `bias` [O].

    A bias is the weight of one more input, the constant 1.
    """

    inputs: int
    outputs: int
    bias: bool
    groups: int = 1
    """Groups of inputs; each group feeds its own outputs."""
    kernel_shape: ClassVar[tuple[int, ...]] = ()
    """The last axes of `weight`: () for a matrix, the kernel's size for a convolution."""

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs) < 1:
            raise InputError(
                f"a linear layer must have at least 1 input and 1 output, got {self.inputs} and {self.outputs}"
            )

    def cost(self, input_spec: Spec) -> Cost:
        positions = math.prod(self.output_spec(input_spec).shape) // self.outputs
        products = positions * math.prod(self.tensors()["weight"])
        return super().cost(input_spec) + Cost(products // PRODUCTS_AT_ONCE)

    def with_copies(self, inputs: int, outputs: int = 1) -> Self:
        """The same layer on `inputs` contiguous copies of each input, with `outputs` of each output."""
        return dataclasses.replace(self, inputs=self.inputs * inputs, outputs=self.outputs * outputs)

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        return dataclasses.replace(self, inputs=input_spec.shape[-1], outputs=units(self.outputs))

    def tensors(self) -> dict[str, tuple[int, ...]]:
        weight = {"weight": (self.outputs, self.inputs // self.groups, *self.kernel_shape)}
        return weight | {"bias": (self.outputs,)} if self.bias else weight

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        # Normal weights of variance 2 / fan-in (He et al. 2015), in the order of Flax's kernels.
        outputs, inputs, *size = self.tensors()["weight"]
        kernel = jax.nn.initializers.he_normal()(key, (*size, inputs, outputs), jnp.float32)
        found = {"weight": jnp.transpose(kernel, (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2)))}
        return found | {"bias": jnp.zeros(outputs)} if self.bias else found

    def input_channels(self, name: str, weights: np.ndarray) -> np.ndarray:
        """The input that each weight of tensor `name` multiplies.

        Args:
            name: `weight` or `bias`.
            weights: Row-major indices into the tensor.

        Returns:
            Indices of inputs; the constant of a bias is the last one, `inputs`.
        """
        if name == "bias":
            return np.full(weights.shape, self.inputs)
        per_group, size = self.inputs // self.groups, math.prod(self.kernel_shape)
        output, within = weights // (per_group * size), weights // size % per_group
        return output // (self.outputs // self.groups) * per_group + within


class _NoRngs:
    """Replaces random keys for Flax layers whose weights are constants."""

    def params(self) -> None:
        return None


NO_RNGS: Any = _NoRngs()


def constant_init(value: Any) -> Any:
    """A Flax initialiser that returns this value."""
    return lambda *_: value
