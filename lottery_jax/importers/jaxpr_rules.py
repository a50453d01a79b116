"""What an equation of a jaxpr becomes in a graph: the registry of rules, and the elementwise ones."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError, quoted
from lottery_jax.importers.graph_builder import GraphBuilder, Known
from lottery_jax.networks.layers.activations import Activation, Relu
from lottery_jax.networks.layers.operations import (
    BINARY,
    UNARY,
    BinaryOperation,
    Elementwise,
    Operation,
    Power,
    Select,
)

MAX_SCAN = 64  # steps of a loop that is unrolled


@dataclasses.dataclass(frozen=True)
class Traced:
    """A value that depends on the input: its node."""

    name: str


Operand = Known | Traced


def has_exact_floats(aval: Any) -> bool:
    """Whether a value is a truth value, an integer, or a float that float32 has the accuracy of."""
    kind = np.dtype(aval.dtype) if not jnp.issubdtype(aval.dtype, jax.dtypes.extended) else None
    return kind is not None and (kind.kind in "biu" or kind in (np.float32, np.float64))


@dataclasses.dataclass(frozen=True)
class Equation:
    """An equation whose node is built."""

    equation: Any
    build: GraphBuilder

    @property
    def params(self) -> Mapping[str, Any]:
        return self.equation.params

    @property
    def shape(self) -> tuple[int, ...]:
        return self.equation.outvars[0].aval.shape

    def node(self, operand: Operand, *, full: bool = False) -> str:
        """The name of an operand's node; a constant gets one."""
        return operand.name if isinstance(operand, Traced) else self.build.constant(operand, full=full)

    def apply(self, node: Operation | Activation, *operands: Operand) -> Traced:
        """The output of a new node for these operands."""
        return Traced(self.build.add(node, *map(self.node, operands)))

    def shape_of(self, operand: Operand) -> tuple[int, ...]:
        return self.build.shapes[operand.name] if isinstance(operand, Traced) else operand.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the first input."""
        return np.dtype(self.equation.invars[0].aval.dtype)

    def refused(self, *operands: Operand, detail: str = "") -> InputError:
        """The refusal of the operation, with the layers and parameters in front of it."""
        layers = list[str]()
        for one in operands:
            near = self.build.layer_before(one.name) if isinstance(one, Traced) else one.parameter
            if near is not None and quoted(near) not in layers:
                layers.append(quoted(near))
        for atom in (*self.equation.invars, *self.equation.outvars):
            if not detail and not has_exact_floats(atom.aval):
                detail = f"of {atom.aval.dtype}"
        where = f"behind {' and '.join(layers[:2])}" if layers else "at the input"
        found = " ".join(filter(None, (repr(self.equation.primitive.name), detail, where)))
        return InputError(
            f"the operations of a model must be those of lottery_jax.networks.layers.operations, got {found}. Replace"
            " it in the model, or approximate the weights alone (load_model, or --model on the command line)."
        )


def number(value: float) -> Known:
    """A number as a constant."""
    return Known(np.full(1, value))


Rule = Callable[..., Operand | list[Operand]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function of an `Equation` and its operands as the rule for primitives of these names."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@rule("copy", "copy_p", "stop_gradient", "name")
def _same(at: Equation, x: Traced) -> Operand:
    return x


@rule("optimization_barrier")
def _barrier(at: Equation, *operands: Operand) -> list[Operand]:
    return list(operands)


@rule("reduce_precision")
def _reduce_precision(at: Equation, x: Traced) -> Operand:
    if at.params["exponent_bits"] < 8 or at.params["mantissa_bits"] < 23:
        raise at.refused(x)
    return x


@rule("convert_element_type")
def _convert(at: Equation, x: Traced) -> Operand:
    old, new = at.dtype, np.dtype(at.params["new_dtype"])
    if new.kind == "b" != old.kind:
        return at.apply(BinaryOperation("ne"), x, number(0.0))
    if new.kind in "iu" and not np.can_cast(old, new):  # numbers would be rounded, or wrap around
        raise at.refused(x, detail=f"of {old} to {new}")
    return x


@rule("is_finite")
def _is_finite(at: Equation, x: Traced) -> Operand:
    return at.apply(BinaryOperation("lt"), at.apply(Elementwise("abs"), x), number(np.inf))


@rule("round")
def _round(at: Equation, x: Traced) -> Operand:
    if at.params["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        return at.apply(Elementwise("round"), x)
    size = at.apply(Elementwise("abs"), x)
    low = at.apply(Elementwise("floor"), size)
    half = at.apply(BinaryOperation("ge"), at.apply(BinaryOperation("sub"), size, low), number(0.5))
    sign = at.apply(Elementwise("sign"), x)
    return at.apply(BinaryOperation("mul"), sign, at.apply(BinaryOperation("add"), low, half))


def _unary(at: Equation, x: Traced) -> Operand:
    return at.apply(Elementwise(at.equation.primitive.name), x)


for _name in UNARY:
    RULES.setdefault(_name, _unary)


@rule("exp2")
def _exp2(at: Equation, x: Traced) -> Operand:
    return at.apply(Elementwise("exp"), at.apply(BinaryOperation("mul"), x, number(math.log(2.0))))


@rule("not")
def _not(at: Equation, x: Traced) -> Operand:
    if at.equation.invars[0].aval.dtype != bool:
        raise at.refused(x)
    return at.apply(BinaryOperation("sub"), number(1.0), x)


@rule("integer_pow")
def _integer_pow(at: Equation, x: Traced) -> Operand:
    exponent = at.params["y"]
    if exponent == 0:
        return Known(np.ones(at.shape, np.float32))
    if abs(exponent) == 2:
        x = at.apply(Elementwise("square"), x)
    elif abs(exponent) > 1:
        x = at.apply(Power(abs(exponent)), x)
    return at.apply(BinaryOperation("div"), number(1.0), x) if exponent < 0 else x


_NEUTRAL = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "max": -np.inf, "min": np.inf, "pow": 1.0}
_BINARY_NAMES = {"and": "mul", "or": "max", "add_any": "add", **{name: name for name in BINARY}}


_INFINITE = {"eq": ("ge", "le"), "ne": ("lt", "gt")}  # a constant of +-inf becomes the largest number of float32
_EXACT = 1 << 24  # float32 has all integers up to here


def _binary(at: Equation, x: Operand, y: Operand) -> Operand:
    name = at.equation.primitive.name
    if at.dtype.kind in "iu" and not _exact_integers(at, name, x, y):
        raise at.refused(x, y, detail=f"of {at.dtype}")
    name = _BINARY_NAMES[name]
    neutral = _NEUTRAL.get(name)
    for constant, other in ((y, x), (x, y)):
        if not isinstance(constant, Known) or constant.parameter is not None or not isinstance(other, Traced):
            continue
        array, first = constant.array, constant is x
        kept = neutral is not None and not (first and name in ("sub", "div", "pow")) and bool((array == neutral).all())
        if kept and at.build.shapes[other.name] == (at.shape or (1,)):
            return other
        if name == "max" and not array.any():
            return at.apply(Relu(), other)
        if name in _INFINITE and not first and np.isinf(array).all() and len(np.unique(array)) == 1:
            name = _INFINITE[name][int(array.flat[0] < 0)]
    return at.apply(BinaryOperation(name), x, y)  # type: ignore[arg-type]


def _exact_integers(at: Equation, name: str, *operands: Operand) -> bool:
    """Whether floats compute what integers do: comparisons, and sums and products that do not wrap around."""
    if name in ("div", "pow", "and", "or"):
        return False
    if name in ("add", "sub", "mul", "add_any"):
        large = any(isinstance(one, Known) and np.abs(one.array.astype(float)).max() > _EXACT for one in operands)
        return at.dtype in (np.int32, np.int64) and not large
    return True


for _name in _BINARY_NAMES:
    RULES[_name] = _binary


@rule("clamp")
def _clamp(at: Equation, low: Operand, x: Operand, high: Operand) -> Operand:
    return at.apply(BinaryOperation("min"), at.apply(BinaryOperation("max"), x, low), high)


@rule("select_n")
def _select(at: Equation, which: Operand, *cases: Operand) -> Operand:
    if len(cases) != 2:
        raise at.refused(which, *cases)
    if isinstance(which, Known) and which.parameter is None:
        for number, case in enumerate(cases):
            if (which.array == number).all():
                return case
    if isinstance(which, Traced) and _is_nan(at, which, cases[1]):
        return cases[0]
    return at.apply(Select(), which, *cases)


def _is_nan(at: Equation, which: Traced, case: Operand) -> bool:
    """Whether one case is selected for NaN alone, and is NaN itself, as in `jax.numpy.logaddexp`."""
    compare, tested = at.build.operation(which.name)
    if compare != "ne" or tested[0] != tested[1] or not isinstance(case, Traced):
        return False
    own, other = at.build.operation(tested[0]), at.build.operation(case.name)
    return tested[0] == case.name or (own[0] in ("add", "sub") and other[0] in ("add", "sub") and own[1] == other[1])
