"""Rules for layouts, reductions, lookups and linear layers: what an equation of a jaxpr becomes in a graph."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lottery_jax.importers.graph_builder import Known
from lottery_jax.importers.jaxpr_rules import MAX_SCAN, Equation, Operand, Traced, rule
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.operations import (
    Broadcast,
    Concatenate,
    DotGeneral,
    Lookup,
    Pad,
    Reduce,
    ReduceWindow,
    Slice,
)
from lottery_jax.networks.node import MAX_MAGNITUDE, MIN_MAGNITUDE


@rule("reshape")
def _reshape(at: Equation, x: Traced) -> Operand:
    if at.params["dimensions"] is not None:
        raise at.refused(x)
    return Traced(at.build.reshape(x.name, at.shape))


@rule("squeeze", "expand_dims")
def _squeeze(at: Equation, x: Traced) -> Operand:
    return Traced(at.build.reshape(x.name, at.shape))


@rule("transpose")
def _transpose(at: Equation, x: Traced) -> Operand:
    return Traced(at.build.transpose(x.name, at.params["permutation"]))


@rule("broadcast_in_dim")
def _broadcast(at: Equation, x: Traced) -> Operand:
    shape = [1] * len(at.shape)
    for axis, size in zip(at.params["broadcast_dimensions"], at.equation.invars[0].aval.shape, strict=True):
        shape[int(axis)] = size
    inner = at.build.reshape(x.name, shape)
    return Traced(inner) if tuple(shape) == at.shape else at.apply(Broadcast(at.shape), Traced(inner))


def _slice_of(at: Equation, x: Traced, start: Any, limit: Any, step: Any = None) -> Traced:
    shape = at.shape_of(x)
    fields = [tuple(map(int, part)) for part in (start, limit, step or [1] * len(shape))]
    whole = fields == [(0,) * len(shape), shape, (1,) * len(shape)]
    return x if whole else at.apply(Slice(*fields), x)


def _part_of(at: Equation, x: Traced, axis: int, first: int, count: int) -> Traced:
    """Some numbers of one axis."""
    shape = at.shape_of(x)
    start, limit = [0] * len(shape), [*shape]
    start[axis], limit[axis] = first, first + count
    return _slice_of(at, x, start, limit)


@rule("slice")
def _slice(at: Equation, x: Traced) -> Operand:
    return _slice_of(at, x, at.params["start_indices"], at.params["limit_indices"], at.params["strides"])


@rule("rev")
def _rev(at: Equation, x: Traced) -> Operand:
    shape = at.shape
    for axis in at.params["dimensions"]:
        if shape[axis] > MAX_SCAN:
            raise at.refused(x, detail=f"of {shape[axis]} numbers, more than {MAX_SCAN},")
        parts = [_part_of(at, x, axis, place, 1) for place in reversed(range(shape[axis]))]
        x = at.apply(Concatenate(axis), *parts)
    return x


@rule("dynamic_slice")
def _dynamic_slice(at: Equation, x: Operand, *starts: Operand) -> Operand:
    if not isinstance(x, Traced) or any(isinstance(one, Traced) for one in starts):
        raise at.refused(x, *starts)
    rows = zip(starts, at.shape_of(x), at.params["slice_sizes"], strict=True)
    begin = [min(max(int(start.array), 0), length - size) for start, length, size in rows]  # type: ignore[union-attr]
    return _slice_of(at, x, begin, np.add(begin, at.params["slice_sizes"]))


@rule("split")
def _split_rule(at: Equation, x: Traced) -> list[Operand]:
    sizes = at.params["sizes"]
    starts = np.cumsum([0, *sizes[:-1]])
    return [_part_of(at, x, at.params["axis"], *part) for part in zip(starts, sizes, strict=True)]


@rule("pad")
def _pad(at: Equation, x: Operand, value: Operand) -> Operand:
    if not isinstance(value, Known) or not isinstance(x, Traced):
        raise at.refused(x, value)
    number = float(value.array)
    if number and not MIN_MAGNITUDE <= abs(number) <= MAX_MAGNITUDE:
        raise at.refused(x, value, detail=f"with {number:g}")
    return _padded(at, x, at.params["padding_config"], number)


def _padded(at: Equation, x: Traced, config: Sequence[tuple[int, int, int]], value: float = 0.0) -> Traced:
    """Pad, then cut where the padding is negative."""
    if any(number for row in config for number in row):
        low, high, interior = (tuple(max(row[part], 0) for row in config) for part in range(3))
        if any((*low, *high, *interior)):
            x = at.apply(Pad(low, high, interior, value), x)
        start = [max(-row[0], 0) for row in config]
        limit = [size - max(-row[1], 0) for size, row in zip(at.shape_of(x), config, strict=True)]
        x = _slice_of(at, x, start, limit)
    return x


@rule("concatenate")
def _concatenate(at: Equation, *operands: Operand) -> Operand:
    given = [at.node(operand, full=True) for operand in operands]
    return Traced(at.build.add(Concatenate(at.params["dimension"]), *given))


@rule("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or")
def _reduce(at: Equation, x: Traced) -> Operand:
    function = at.equation.primitive.name.removeprefix("reduce_")
    name = {"and": "min", "or": "max"}.get(function, function)
    axes, shape = tuple(map(int, at.params["axes"])), at.shape_of(x)
    if len(axes) < len(shape):
        return Traced(at.build.add(Reduce(name, axes), x.name) if axes else x.name)  # type: ignore[arg-type]
    whole = at.build.reshape(x.name, (1, math.prod(shape)))
    return Traced(at.build.add(Reduce(name, (1,)), whole))  # type: ignore[arg-type]


@rule("reduce_window_sum", "reduce_window_max", "reduce_window_min")
def _reduce_window(at: Equation, x: Traced) -> Operand:
    params = at.params
    if {*params["base_dilation"], *params["window_dilation"]} != {1}:
        raise at.refused(x)
    low, high = (tuple(int(pair[side]) for pair in params["padding"]) for side in (0, 1))
    function = at.equation.primitive.name.removeprefix("reduce_window_")
    node = ReduceWindow(function, params["window_dimensions"], params["window_strides"], low, high)
    return at.apply(node, x)


@rule("gather")
def _gather(at: Equation, table: Operand, indices: Operand) -> Operand:
    """Rows of a table of constants, as an embedding has them, or a constant part of an activation."""
    dimensions, sizes = at.params["dimension_numbers"], at.params["slice_sizes"]
    shape = at.shape_of(table)
    if isinstance(table, Traced) and isinstance(indices, Known):
        return _constant_gather(at, table, indices)
    rows = dimensions.start_index_map == (0,) and dimensions.collapsed_slice_dims == (0,)
    batch = len(at.shape_of(indices)) - 1
    trailing = dimensions.offset_dims == tuple(range(batch, batch + len(shape) - 1))
    if isinstance(table, Traced) or not (rows and trailing and tuple(sizes) == (1, *shape[1:])):
        raise at.refused(table, indices)
    own = at.build.reshape(at.node(indices), at.shape_of(indices)[:-1])
    return Traced(at.build.add(Lookup(), at.node(table, full=True), own))


def _constant_gather(at: Equation, x: Traced, indices: Known) -> Operand:
    """A part of an activation at constant places, if it is a slice."""
    shape = at.shape_of(x)
    places = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    chosen = np.asarray(at.equation.primitive.bind(jnp.asarray(places), jnp.asarray(indices.array), **at.params))
    at_axis = np.unravel_index(chosen.reshape(-1), shape)
    start, limit, step = [], [], []
    for coordinates in at_axis:
        used = np.unique(coordinates)
        start.append(int(used[0]))
        limit.append(int(used[-1]) + 1)
        step.append(int(used[1] - used[0]) if len(used) > 1 else 1)
    part = places[tuple(map(slice, start, limit, step))]
    if chosen.size == 0 or not np.array_equal(part.reshape(-1), chosen.reshape(-1)):
        raise at.refused(x, indices)
    return Traced(at.build.reshape(_slice_of(at, x, start, limit, step).name, at.shape))


# Linear layers


@rule("dot_general")
def _dot_general(at: Equation, x: Operand, y: Operand) -> Operand:
    (left, right), (left_shared, right_shared) = at.params["dimension_numbers"]
    axes = [tuple(map(int, part)) for part in (left, right, left_shared, right_shared)]
    constants = [operand for operand in (x, y) if isinstance(operand, Known)]
    if not constants or constants[0].parameter is None:  # activations, or a constant that is not a weight
        product = at.build.add(DotGeneral(*axes), at.node(x, full=True), at.node(y, full=True))
        return Traced(at.build.reshape(product, at.shape))
    first = isinstance(x, Traced)
    value, (weight,) = x if first else y, constants
    assert isinstance(value, Traced)
    (summed, summed_of, shared, shared_of) = axes if first else (axes[1], axes[0], axes[3], axes[2])
    shape, own = at.shape_of(value), weight.array.shape
    free = [axis for axis in range(len(shape)) if axis not in (*summed, *shared)]
    outputs = [axis for axis in range(len(own)) if axis not in (*summed_of, *shared_of)]
    groups, inputs = _product(shape, shared), _product(shape, summed)
    units, positions = _product(own, outputs), _product(shape, free)
    moved = at.build.transpose(value.name, (*free, *shared, *summed))
    order, kernel = (*shared_of, *outputs, *summed_of), (groups * units, inputs)
    if shared:  # each of the shared positions has its own matrix: groups of a 1 x 1 convolution
        layer, kernel = Conv(groups * inputs, groups * units, (1, 1), groups=groups), (*kernel, 1, 1)
        moved = at.build.reshape(moved, (positions, 1, groups * inputs))
    else:
        layer = Dense(inputs, units)
        moved = at.build.reshape(moved, (*(shape[axis] for axis in free), inputs))
    output = at.build.linear(layer, moved, weight.moved(lambda array: array.transpose(order).reshape(kernel)))
    parts = [[shape[axis] for axis in free], [shape[axis] for axis in shared], [own[axis] for axis in outputs]]
    output = at.build.reshape(output, [size for part in parts for size in part] or (1,))
    ends = np.cumsum([len(part) for part in parts])
    by_part = np.split(np.arange(ends[-1]), ends[:-1])
    wanted = [1, 0, 2] if first else [1, 2, 0]  # shared axes, those of the first operand, those of the second one
    output = at.build.transpose(output, [int(axis) for part in wanted for axis in by_part[part]])
    return Traced(at.build.reshape(output, at.shape))


def _product(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[axis] for axis in axes)


@rule("conv_general_dilated")
def _convolution(at: Equation, x: Operand, weight: Operand) -> Operand:
    params, build = at.params, at.build
    numbers, shape = params["dimension_numbers"], at.shape_of(x)
    images, axes = shape[numbers.lhs_spec[0]], len(shape) - 2
    if axes not in (1, 2):
        raise at.refused(x, weight, detail=f"along {axes} axes")
    if not isinstance(x, Traced) or not isinstance(weight, Known):
        raise at.refused(x, weight, detail="with a kernel that depends on the input")
    if images != 1 or params["batch_group_count"] != 1:
        raise at.refused(x, weight, detail=f"of {images} images for each example")
    batch, channels, *places = numbers.lhs_spec
    moved = Traced(build.transpose(x.name, (batch, *places, channels)))
    one = (1,) * (2 - axes)  # a sequence is an image of height 1
    moved = Traced(build.reshape(moved.name, (*one, *at.shape_of(moved)[1:])))
    padding, dilation = [(0, 0)] * len(one) + [*params["padding"]], (*one, *params["lhs_dilation"])
    symmetric = all(low == high >= 0 for low, high in padding)
    if not symmetric or {*dilation} != {1}:
        config = [(low, high, step - 1) for (low, high), step in zip(padding, dilation, strict=True)]
        moved, padding = _padded(at, moved, [*config, (0, 0, 0)]), [(0, 0)] * 2

    def kernel(array: np.ndarray) -> np.ndarray:
        array = array.transpose(numbers.rhs_spec)
        return array.reshape(*array.shape[:2], *one, *array.shape[2:])

    own = weight.moved(kernel)
    layer = Conv(
        at.shape_of(moved)[-1],
        own.array.shape[0],
        own.array.shape[2:],
        stride=(*one, *params["window_strides"]),  # type: ignore[arg-type]
        padding=(padding[0][0], padding[1][0]),
        groups=params["feature_group_count"],
        dilation=(*one, *params["rhs_dilation"]),  # type: ignore[arg-type]
    )
    output = build.linear(layer, moved.name, own)
    output = build.reshape(output, (1, *build.shapes[output][len(one) :]))
    batch, channels, *places = numbers.out_spec
    return Traced(build.transpose(output, [int(axis) for axis in np.argsort((batch, *places, channels))]))
