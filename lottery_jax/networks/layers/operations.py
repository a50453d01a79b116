"""Elementary operations: the nodes of a `Graph` that are not layers. They make any norm, activation or attention.

Each is a function of arrays of *one* example, without a batch axis, in float32: integers and truth values are floats.
Shapes follow NumPy's and XLA's rules. Signs are derived: a sum of numbers that are never negative is never negative.
"""

import abc
import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError, shown
from lottery_jax.networks.node import (
    MAX_MAGNITUDE,
    MIN_MAGNITUDE,
    PRODUCTS_AT_ONCE,
    Cost,
    Node,
    Spec,
    Weights,
)


class Operation(Node):
    """A node of a graph with several inputs, or none."""

    arity: ClassVar[int | None] = 1
    """Number of inputs; None for one or more."""

    @abc.abstractmethod
    def combined_spec(self, *inputs: Spec) -> Spec:
        """The output for these inputs; raises `InputError` if they do not fit."""

    @abc.abstractmethod
    def __call__(self, *inputs: jax.Array) -> jax.Array: ...

    def combined_cost(self, *inputs: Spec) -> Cost:
        """The work for one example, without the numbers that a graph keeps."""
        return Cost(sum(math.prod(spec.shape) for spec in (*inputs, self.combined_spec(*inputs))))

    def output_spec(self, input_spec: Spec) -> NoReturn:
        raise InputError(f"an operation must be a node of a graph, got {self.kind!r} alone. Put it into a Graph.")

    def module(self, weights: Weights) -> NoReturn:
        raise AssertionError("no network has an operation outside a graph")


def _check_number(kind: str, value: float) -> None:
    """Refuse a number that no file may hold."""
    if value and not MIN_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE:  # also NaN
        raise InputError(
            f"the number of {kind!r} must be 0 or of a magnitude from {MIN_MAGNITUDE:.3g} to {MAX_MAGNITUDE:.3g}, got"
            f" {value}. Scale it, or use a stored tensor."
        )


@dataclasses.dataclass(frozen=True)
class Constant(Operation):
    """A number, as an array [1]."""

    value: float
    kind: ClassVar[str] = "constant"
    arity: ClassVar[int | None] = 0

    def __post_init__(self) -> None:
        _check_number(self.kind, self.value)

    def combined_spec(self, *inputs: Spec) -> Spec:
        return Spec((1,), self.value >= 0)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return jnp.full((1,), self.value, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Stored(Operation):
    """A tensor of the target that no linear layer multiplies by: it has no mask. Its name is the path of the node."""

    shape: tuple[int, ...]
    kind: ClassVar[str] = "stored"
    arity: ClassVar[int | None] = 0

    def __post_init__(self) -> None:
        Spec(self.shape)  # raises if there is no such tensor

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {"": self.shape}

    def combined_spec(self, *inputs: Spec) -> Spec:
        return Spec(self.shape)

    def initial(self, key: jax.Array) -> NoReturn:
        raise InputError(
            "a network that is trained from its initial values must consist of layers, got a graph with a stored"
            " tensor. Choose a method that needs no training, or build the network from lottery_jax.layers."
        )

    def __call__(self, *inputs: jax.Array) -> NoReturn:
        raise AssertionError("a graph reads stored tensors itself")


def _elementwise(nonnegative: bool, *inputs: Spec) -> Spec:
    """The broadcast of all inputs; copies are kept where all inputs have the same ones, or one value for all copies."""
    try:
        shape = np.broadcast_shapes(*(spec.shape for spec in inputs))
    except ValueError:
        raise InputError(f"shapes must broadcast, got {[list(spec.shape) for spec in inputs]}") from None
    copied = {(spec.copies, spec.copy_stride) for spec in inputs if spec.shape[-1] > 1}
    if len(copied) > 1:
        raise InputError("an elementwise operation must have inputs with equal copies of each channel")
    return Spec(shape, nonnegative, *(copied.pop() if copied else ()))


UNARY: dict[str, Callable[[Any], Any]] = {
    "abs": jnp.abs,
    "cbrt": jax.lax.cbrt,
    "ceil": jnp.ceil,
    "cos": jnp.cos,
    "erf": jax.lax.erf,
    "erfc": jax.lax.erfc,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "floor": jnp.floor,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "logistic": jax.nn.sigmoid,
    "neg": jnp.negative,
    "round": jnp.round,
    "rsqrt": jax.lax.rsqrt,
    "sign": jnp.sign,
    "sin": jnp.sin,
    "sqrt": jnp.sqrt,
    "square": jnp.square,
    "tanh": jnp.tanh,
}
"""Elementwise functions by name."""

_NEVER_NEGATIVE = ("abs", "erfc", "exp", "logistic", "rsqrt", "sqrt", "square")
_KEEPS_SIGN = ("cbrt", "ceil", "erf", "expm1", "floor", "log1p", "round", "sign", "tanh")

UnaryName = Literal[
    "abs", "cbrt", "ceil", "cos", "erf", "erfc", "exp", "expm1", "floor", "log", "log1p", "logistic", "neg", "round",
    "rsqrt", "sign", "sin", "sqrt", "square", "tanh",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Elementwise(Operation):
    """An elementwise function of one input, by its name in `jax.lax`.

    >>> Elementwise("exp").combined_spec(Spec((3,)))
    Spec(shape=(3,), nonnegative=True)
    """

    function: UnaryName
    kind: ClassVar[str] = "elementwise"

    def combined_spec(self, *inputs: Spec) -> Spec:
        positive = self.function in _NEVER_NEGATIVE
        return _elementwise(positive or (self.function in _KEEPS_SIGN and inputs[0].nonnegative), *inputs)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return UNARY[self.function](inputs[0])


@dataclasses.dataclass(frozen=True)
class Power(Operation):
    """x to the power of an integer from 1 up."""

    exponent: int
    kind: ClassVar[str] = "power"

    def __post_init__(self) -> None:
        if not 1 <= self.exponent <= 64:
            raise InputError(f"the exponent of a power must be from 1 to 64, got {self.exponent}")

    def combined_spec(self, *inputs: Spec) -> Spec:
        return _elementwise(self.exponent % 2 == 0 or inputs[0].nonnegative, *inputs)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return jax.lax.integer_pow(inputs[0], self.exponent)


def _truth(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda x, y: compare(x, y).astype(jnp.float32)


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "div": operator.truediv,
    "eq": _truth(operator.eq),
    "ge": _truth(operator.ge),
    "gt": _truth(operator.gt),
    "le": _truth(operator.le),
    "lt": _truth(operator.lt),
    "max": jnp.maximum,
    "min": jnp.minimum,
    "mul": operator.mul,
    "ne": _truth(operator.ne),
    "pow": jnp.power,
    "sub": operator.sub,
}
"""Elementwise functions of two inputs by name; comparisons give 0 or 1."""

BinaryName = Literal["add", "div", "eq", "ge", "gt", "le", "lt", "max", "min", "mul", "ne", "pow", "sub"]

_COMPARISONS = ("eq", "ge", "gt", "le", "lt", "ne")


@dataclasses.dataclass(frozen=True)
class Binary(Operation):
    """An elementwise function of two inputs, which broadcast.

    >>> Binary("mul").combined_spec(Spec((4, 3), True), Spec((1,), True))
    Spec(shape=(4, 3), nonnegative=True)
    """

    function: BinaryName
    kind: ClassVar[str] = "binary"
    arity: ClassVar[int | None] = 2

    def combined_spec(self, *inputs: Spec) -> Spec:
        left, right = inputs
        both = left.nonnegative and right.nonnegative
        match self.function:
            case "max":
                nonnegative = left.nonnegative or right.nonnegative
            case "pow":
                nonnegative = left.nonnegative
            case "sub":
                nonnegative = False
            case _:
                nonnegative = both or self.function in _COMPARISONS
        return _elementwise(nonnegative, *inputs)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return BINARY[self.function](*inputs)


@dataclasses.dataclass(frozen=True)
class Select(Operation):
    """The third input where the first one is not 0, the second one elsewhere: the order of `jax.lax.select_n`."""

    kind: ClassVar[str] = "select"
    arity: ClassVar[int | None] = 3

    def combined_spec(self, *inputs: Spec) -> Spec:
        return _elementwise(inputs[1].nonnegative and inputs[2].nonnegative, *inputs)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        which, otherwise, value = inputs
        return jnp.where(which != 0, value, otherwise)


def _plain(kind: str, input_spec: Spec) -> None:
    """Refuse copies, whose places another shape would change."""
    if input_spec.copies > 1:
        raise InputError(
            f"the input of {kind!r} must have one copy of each channel, got {input_spec.copies}. Choose a construction"
            " that makes no copies, such as pensia."
        )


@dataclasses.dataclass(frozen=True)
class Reshape(Operation):
    """The same numbers in row-major order in another shape."""

    shape: tuple[int, ...]
    kind: ClassVar[str] = "reshape"

    def combined_spec(self, *inputs: Spec) -> Spec:
        (given,) = inputs
        if self.shape[-1:] != given.shape[-1:]:
            _plain(self.kind, given)
        if math.prod(self.shape) != math.prod(given.shape):
            raise InputError(
                f"reshape must keep the number of values, got {list(given.shape)} to {shown(list(self.shape))}"
            )
        return dataclasses.replace(given, shape=self.shape)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return inputs[0].reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class Transpose(Operation):
    """Axes in another order, as `numpy.transpose`."""

    axes: tuple[int, ...]
    kind: ClassVar[str] = "transpose"

    def combined_spec(self, *inputs: Spec) -> Spec:
        (given,) = inputs
        if sorted(self.axes) != [*range(len(given.shape))]:
            raise InputError(f"transpose must name each axis of {list(given.shape)} once, got {shown(list(self.axes))}")
        if self.axes[-1] != len(given.shape) - 1:
            _plain(self.kind, given)
        return dataclasses.replace(given, shape=tuple(given.shape[axis] for axis in self.axes))

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return jnp.transpose(inputs[0], self.axes)


@dataclasses.dataclass(frozen=True)
class Broadcast(Operation):
    """`numpy.broadcast_to`."""

    shape: tuple[int, ...]
    kind: ClassVar[str] = "broadcast"

    def combined_spec(self, *inputs: Spec) -> Spec:
        (given,) = inputs
        if self.shape[-1:] != given.shape[-1:]:
            _plain(self.kind, given)
        sizes = zip(reversed(given.shape), reversed(self.shape), strict=False)
        if len(given.shape) > len(self.shape) or not all(size in (1, wide) for size, wide in sizes):
            raise InputError(f"broadcast must fit its input {list(given.shape)}, got {shown(list(self.shape))}")
        return dataclasses.replace(given, shape=self.shape)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return jnp.broadcast_to(inputs[0], self.shape)


def _each_axis(kind: str, shape: tuple[int, ...], *fields: tuple[int, ...]) -> None:
    for field in fields:
        if len(field) != len(shape):
            raise InputError(f"{kind!r} must have a number for each axis of {list(shape)}, got {shown(list(field))}")


@dataclasses.dataclass(frozen=True)
class Slice(Operation):
    """From `start` to before `limit` in steps of `step`, for each axis."""

    start: tuple[int, ...]
    limit: tuple[int, ...]
    step: tuple[int, ...]
    kind: ClassVar[str] = "slice"

    def combined_spec(self, *inputs: Spec) -> Spec:
        (given,) = inputs
        _each_axis(self.kind, given.shape, self.start, self.limit, self.step)
        sizes = []
        for size, start, limit, step in zip(given.shape, self.start, self.limit, self.step, strict=True):
            if not (0 <= start < limit <= size and step >= 1):
                raise InputError(f"slice must stay in {list(given.shape)}, got {start} to {limit} in steps of {step}")
            sizes.append(-(-(limit - start) // step))
        if sizes[-1] != given.shape[-1]:
            _plain(self.kind, given)
        return dataclasses.replace(given, shape=tuple(sizes))

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return jax.lax.slice(inputs[0], self.start, self.limit, self.step)


@dataclasses.dataclass(frozen=True)
class Pad(Operation):
    """`value` before, after and between the numbers of each axis, as `jax.lax.pad`."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    interior: tuple[int, ...]
    value: float = 0.0
    kind: ClassVar[str] = "pad"

    def __post_init__(self) -> None:
        _check_number(self.kind, self.value)
        least = min((*self.low, *self.high, *self.interior), default=0)
        if least < 0:
            raise InputError(f"pad must add numbers, got {least} of them. Use a slice to remove some.")

    def combined_spec(self, *inputs: Spec) -> Spec:
        (given,) = inputs
        _each_axis(self.kind, given.shape, self.low, self.high, self.interior)
        sizes = []
        for size, low, high, between in zip(given.shape, self.low, self.high, self.interior, strict=True):
            sizes.append(low + size + (size - 1) * between + high)
        if sizes[-1] != given.shape[-1]:
            _plain(self.kind, given)
        return dataclasses.replace(given, shape=tuple(sizes), nonnegative=given.nonnegative and self.value >= 0)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        widths = [*zip(self.low, self.high, self.interior, strict=True)]
        return jax.lax.pad(inputs[0], jnp.asarray(self.value, inputs[0].dtype), widths)


@dataclasses.dataclass(frozen=True)
class Concatenate(Operation):
    """All inputs along one axis."""

    axis: int
    kind: ClassVar[str] = "concatenate"
    arity: ClassVar[int | None] = None

    def combined_spec(self, *inputs: Spec) -> Spec:
        shapes = [spec.shape for spec in inputs]
        others = {(*shape[: self.axis], *shape[self.axis + 1 :]) for shape in shapes}
        if not 0 <= self.axis < len(shapes[0]) or len(others) > 1 or len({*map(len, shapes)}) > 1:
            raise InputError(
                f"concatenate must have shapes that differ in axis {self.axis} only, got {shown([*map(list, shapes)])}"
            )
        for spec in inputs:
            _plain(self.kind, spec)
        size = sum(shape[self.axis] for shape in shapes)
        shape = (*shapes[0][: self.axis], size, *shapes[0][self.axis + 1 :])
        return Spec(shape, all(spec.nonnegative for spec in inputs))

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return jnp.concatenate(inputs, self.axis)


REDUCTIONS: dict[str, Any] = {"sum": jnp.sum, "max": jnp.max, "min": jnp.min, "prod": jnp.prod}


@dataclasses.dataclass(frozen=True)
class Reduce(Operation):
    """The sum, maximum, minimum or product over axes, which disappear.

    >>> Reduce("max", (0,)).combined_spec(Spec((4, 3), True))
    Spec(shape=(3,), nonnegative=True)
    """

    function: Literal["sum", "max", "min", "prod"]
    axes: tuple[int, ...]
    kind: ClassVar[str] = "reduce"

    def combined_spec(self, *inputs: Spec) -> Spec:
        (given,) = inputs
        if len({*self.axes}) < len(self.axes) or not {*self.axes} < {*range(len(given.shape))}:
            raise InputError(
                f"reduce must leave at least one axis of {list(given.shape)}, got the axes {shown(list(self.axes))}"
            )
        if len(given.shape) - 1 in self.axes:
            _plain(self.kind, given)
        shape = tuple(size for axis, size in enumerate(given.shape) if axis not in self.axes)
        return dataclasses.replace(given, shape=shape)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return REDUCTIONS[self.function](inputs[0], axis=self.axes)


@dataclasses.dataclass(frozen=True)
class ReduceWindow(Operation):
    """The sum, maximum or minimum of each window of all axes, as `jax.lax.reduce_window`; padding is ignored."""

    function: Literal["sum", "max", "min"]
    size: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    kind: ClassVar[str] = "reduce_window"

    def combined_spec(self, *inputs: Spec) -> Spec:
        (given,) = inputs
        _each_axis(self.kind, given.shape, self.size, self.stride, self.low, self.high)
        rows = zip(given.shape, self.size, self.stride, self.low, self.high, strict=True)
        sizes = []
        for length, size, stride, low, high in rows:
            # A window that lies in the padding has no number.
            if not (size >= 1 and stride >= 1 and low < size and high < size and size <= length + low + high):
                raise InputError(f"windows of {list(self.size)} must fit into {list(given.shape)} and its padding")
            sizes.append((length + low + high - size) // stride + 1)
        if self.size[-1] > 1 or sizes[-1] != given.shape[-1]:
            _plain(self.kind, given)
        return dataclasses.replace(given, shape=tuple(sizes))

    def combined_cost(self, *inputs: Spec) -> Cost:
        windows = math.prod(self.combined_spec(*inputs).shape) * math.prod(self.size)
        return super().combined_cost(*inputs) + Cost(windows)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        first = {"sum": 0.0, "max": -np.inf, "min": np.inf}[self.function]
        reducer = {"sum": jax.lax.add, "max": jax.lax.max, "min": jax.lax.min}[self.function]
        padding = [*zip(self.low, self.high, strict=True)]
        return jax.lax.reduce_window(
            inputs[0], np.asarray(first, inputs[0].dtype), reducer, self.size, self.stride, padding
        )


@dataclasses.dataclass(frozen=True)
class DotGeneral(Operation):
    """The product of two activations, as `jax.lax.dot_general`: axes that are summed, and axes that both share.

    The output has the shared axes, the other axes of the first input, those of the second one.
    """

    left_summed: tuple[int, ...]
    right_summed: tuple[int, ...]
    left_shared: tuple[int, ...] = ()
    right_shared: tuple[int, ...] = ()
    kind: ClassVar[str] = "dot_general"
    arity: ClassVar[int | None] = 2

    def combined_spec(self, *inputs: Spec) -> Spec:
        for spec in inputs:
            _plain(self.kind, spec)
        left, right = (spec.shape for spec in inputs)
        used = (*self.left_shared, *self.left_summed), (*self.right_shared, *self.right_summed)
        for axes, shape in zip(used, (left, right), strict=True):
            if len({*axes}) < len(axes) or not {*axes} <= {*range(len(shape))}:
                raise InputError(f"dot_general must name different axes of {list(shape)}, got {shown(list(axes))}")
        sizes = [shape[axis] for shape, axes in zip((left, right), used, strict=True) for axis in axes]
        half, pairs = len(used[0]), len(self.left_shared) == len(self.right_shared)
        if not pairs or sizes[:half] != sizes[half:]:
            raise InputError(f"dot_general must pair axes of equal sizes, got {list(left)} and {list(right)}")
        shape = tuple(left[axis] for axis in self.left_shared) + tuple(
            size
            for shape, axes in zip((left, right), used, strict=True)
            for axis, size in enumerate(shape)
            if axis not in axes
        )
        return Spec(shape or (1,), all(spec.nonnegative for spec in inputs))

    def combined_cost(self, *inputs: Spec) -> Cost:
        summed = math.prod(inputs[0].shape[axis] for axis in self.left_summed)
        products = math.prod(self.combined_spec(*inputs).shape) * summed
        return super().combined_cost(*inputs) + Cost(products // PRODUCTS_AT_ONCE)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        left, right = inputs
        summed, shared = (self.left_summed, self.right_summed), (self.left_shared, self.right_shared)
        product = jax.lax.dot_general(left, right, (summed, shared))
        return product if product.ndim else product[None]


@dataclasses.dataclass(frozen=True)
class Lookup(Operation):
    """Rows of a table, the first input, at the indices of the second one, which are rounded and clipped to the table.

    >>> Lookup().combined_spec(Spec((100, 8)), Spec((5,))).shape
    (5, 8)
    """

    kind: ClassVar[str] = "lookup"
    arity: ClassVar[int | None] = 2

    def combined_spec(self, *inputs: Spec) -> Spec:
        table, indices = inputs
        for spec in inputs:
            _plain(self.kind, spec)
        return Spec((*indices.shape, *table.shape[1:]), table.nonnegative)

    def __call__(self, *inputs: jax.Array) -> jax.Array:
        table, indices = inputs
        return jnp.take(table, jnp.round(indices).astype(jnp.int32), axis=0, mode="clip")


OPERATIONS: tuple[type[Operation], ...] = (
    *(Constant, Stored, Elementwise, Power, Binary, Select, Reshape, Transpose, Broadcast, Slice, Pad, Concatenate),
    *(Reduce, ReduceWindow, DotGeneral, Lookup),
)
"""All operations of a graph: a closed list."""
