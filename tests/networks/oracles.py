"""What every kind of node computes, once more: NumPy in float64, from the definitions and not from the package."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lottery_jax.networks.codec import to_json
from lottery_jax.networks.node import Node
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler
from tests.oracle.operations import OPERATIONS, operate

Tensors = Mapping[str, np.ndarray]
Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Own:
    """The tensors of one node by the last part of their names; a random one holds what is kept of it."""

    tensors: Tensors
    path: str = ""

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self.tensors[".".join(part for part in (self.path, name) if part)], np.float64)

    def get(self, name: str) -> Any:
        """The tensor, or 0 where there is none (a bias)."""
        return self[name] if f"{self.path}.{name}".lstrip(".") in self.tensors else 0.0

    def under(self, name: str) -> "Own":
        return self if name.startswith("(") else Own(self.tensors, f"{self.path}.{name}".strip("."))


def evaluate(node: Node, tensors: Tensors | Own, x: np.ndarray) -> np.ndarray:
    """x [B, *given] -> [B, *output], float64."""
    own = tensors if isinstance(tensors, Own) else Own(tensors)
    return ORACLES[node.kind](node, own, np.asarray(x, np.float64))


def patches(
    x: np.ndarray, size: Size, stride: Size, padding: Size, fill: float = 0.0, dilation: Size = (1, 1)
) -> np.ndarray:
    """Windows [B, H', W', C, height, width] of images [B, H, W, C] with `fill` around them."""
    across, along = ((zeros, zeros) for zeros in padding)
    padded = np.pad(x, ((0, 0), across, along, (0, 0)), constant_values=fill)
    reach = tuple((length - 1) * step + 1 for length, step in zip(size, dilation, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    return windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]


def multiplied(of: Any, x: np.ndarray, weight: np.ndarray, bias: Any) -> np.ndarray:
    """A dense layer, or a convolution, with this weight [O, I / groups, ...] and bias [O] or 0."""
    if of.kind == "dense":
        return x @ weight.T + bias
    if of.kind == "rotation_conv":
        return rotated(of, x, weight, bias)
    windows = patches(x, of.size, of.stride, of.padding, dilation=of.dilation)
    outputs, inputs = of.outputs // of.groups, weight.shape[1]
    parts = [
        np.tensordot(
            windows[:, :, :, group * inputs : (group + 1) * inputs],
            weight[group * outputs : (group + 1) * outputs],
            axes=((3, 4, 5), (1, 2, 3)),
        )
        for group in range(of.groups)
    ]
    return np.concatenate(parts, -1) + bias


def rotated(of: Any, x: np.ndarray, weight: np.ndarray, bias: Any) -> np.ndarray:
    """The image is turned against the kernel, met by it, and turned back: [B, 4, H', W', O]."""
    fields = x[:, None] if of.rotations == 1 else x  # [B, S, H, W, I]
    put_out = []
    for turn in range(4):
        back = np.rot90(fields, -turn, (2, 3))
        total = 0.0
        for place in range(of.rotations):
            windows = patches(back[:, place], (of.size, of.size), (1, 1), (of.padding, of.padding))
            kernel = weight[:, :, (place - turn) % of.rotations]
            total = total + np.tensordot(windows, kernel, axes=((3, 4, 5), (1, 2, 3)))
        put_out.append(np.rot90(total, turn, (1, 2)) + bias)
    return np.stack(put_out, 1)


def operation(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    return multiplied(node, x, own["weight"], own.get("bias"))


def normalized(x: np.ndarray, own: Own, mean: np.ndarray, variance: np.ndarray, epsilon: float) -> np.ndarray:
    scale = own["weight"] if isinstance(own.get("weight"), np.ndarray) else 1.0
    return (x - mean) / np.sqrt(variance + epsilon) * scale + own.get("bias")


def batch_norm(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    return normalized(x, own, own["running_mean"], own["running_var"], node.epsilon)


def layer_norm(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    return normalized(x, own, x.mean(-1, keepdims=True), x.var(-1, keepdims=True), node.epsilon)


def attention(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    examples, tokens, size = x.shape
    head = size // node.heads
    joined = evaluate(node.qkv, own.under("qkv"), x)
    mixed = np.empty_like(x)
    for number in range(node.heads):
        # Queries of all heads stand first, then keys, then values.
        query, key, value = (
            joined[..., part * size + number * head : part * size + (number + 1) * head] for part in range(3)
        )
        for example in range(examples):
            logits = query[example] @ key[example].T / math.sqrt(head)
            shares = np.exp(logits - logits.max(1, keepdims=True))
            mixed[example, :, number * head : (number + 1) * head] = (
                shares / shares.sum(1, keepdims=True) @ value[example]
            )
    assert mixed.shape == (examples, tokens, size)
    return evaluate(node.proj, own.under("proj"), mixed)


def merged_attention(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    heads, size = node.heads, x.shape[2]
    asked = evaluate(node.qk, own.under("qk"), x)
    seen = np.empty((*x.shape[:2], heads * size))
    for example, tokens in enumerate(x):
        for number in range(heads):
            part = slice(number * size, (number + 1) * size)
            logits = asked[example, :, part] @ tokens.T
            shares = np.exp(logits - logits.max(1, keepdims=True))
            seen[example, :, part] = shares / shares.sum(1, keepdims=True) @ tokens
    return evaluate(node.vo, own.under("vo"), seen)


def chain(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    for name, inner in node.nodes:
        x = evaluate(inner, own.under(name), x)
    return x


def residual(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    return evaluate(node.body, own, x) + evaluate(node.shortcut, own.under("downsample"), x)


def graph(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    """One example after another; layers see a batch of one."""
    found = []
    for example in x:
        values = {"input": example}
        for name, inner, inputs in node.nodes:
            given = [values[one] for one in inputs]
            if inner.kind == "stored":
                values[name] = own[name]
            elif inner.kind in OPERATIONS:
                values[name] = operate(to_json(inner), given, [False] * len(given))
            else:
                values[name] = evaluate(inner, own.under(name), given[0][None])[0]
        found.append(values[node.output])
    return np.stack(found)


def single(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    return node.gain * operation(node.layer, own, x)


def trained(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    """What is kept of the random weights says where the trained ones are kept: no weight is drawn as zero."""
    return multiplied(node.layer, x, np.where(own["weight"] != 0, own["trained_weight"], 0.0), own.get("bias"))


def partly_trained(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    """What is frozen is added as it was drawn."""
    kept = np.where(own["weight"] != 0, own["trained_weight"], 0.0) + own["frozen"]
    return multiplied(node.layer, x, kept, own.get("bias"))


def copies(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    bias = own["bias"].sum(-1) if "bias" in node.layer.tensors() else 0.0
    return node.gain * multiplied(node.layer, x, own["weight"].sum(-1), bias)


def tied(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    bias = own["bias"] @ np.array(node.factors) if "bias" in node.layer.tensors() else 0.0
    return node.gain * multiplied(node.layer, x, own["weight"] @ np.array(node.factors), bias)


def gadget(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    """Positive inputs meet the units with a positive first weight, negative ones those with a negative one."""
    of, first, second = node.layer, own["first"], own["weight"]
    group = np.arange(of.outputs) // (of.outputs // getattr(of, "groups", 1))
    own_inputs = group[:, None] * second.shape[1] + np.arange(second.shape[1])  # [O, I / groups]
    edges = first[own_inputs].reshape(*own_inputs.shape, *[1] * (second.ndim - 3), -1)
    sides: list[Callable] = [lambda v: np.maximum(v, 0), lambda v: np.minimum(v, 0)] if node.relu else [lambda v: v]
    total = sum(multiplied(of, side(x), (side(edges) * second).sum(-1), 0.0) for side in sides)
    constant = own["bias"] @ sides[0](first[of.inputs]) if of.bias else 0.0
    return node.gain * (total + constant)


def ladder(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    """A gadget of what the last rung's units carry for x = 1, and of what they carry for x = -1."""

    def carried(sign: int) -> np.ndarray:
        found = np.maximum(sign * own["first"], 0)
        for place in range(1, node.rungs + 1):
            each = zip(own[f"rung{place}"], found, strict=True)
            found = np.stack([np.maximum(rung @ one, 0) for rung, one in each])
        return found

    tensors = {name: np.concatenate([own[name]] * 2, -1) for name in node.layer.tensors()}
    tensors["first"] = np.concatenate([carried(1), -carried(-1)], -1)
    one = Sampler.signed_constant(1)
    return gadget(Gadget(node.layer, 2 * node.units, one, one, gain=node.gain), Own(tensors), x)


def redundant(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    """Copy by copy: each output copy has a weight of its own for each copy of an input."""
    split = x.reshape(*x.shape[:-1], -1, node.input_copies, node.copy_stride)
    inputs = [split[..., copy, :].reshape(*x.shape[:-1], -1) for copy in range(node.input_copies)]
    found = []
    for copy in range(node.output_copies):
        weight = own["weight"][..., copy, :]
        bias = node.constant * own["bias"][:, copy].sum(-1) if node.layer.bias else 0.0
        found.append(
            bias + sum(multiplied(node.layer, one, weight[..., place], 0.0) for place, one in enumerate(inputs))
        )
    return node.gain * np.stack(found, -1).reshape(*found[0].shape[:-1], -1)


def redundant_gadget(node: Any, own: Own, x: np.ndarray) -> np.ndarray:
    """Gadgets with the first matrix in common."""
    found = []
    for copy in range(node.copies):
        tensors = {"first": own["first"], "weight": own["weight"][..., copy, :]}
        if node.layer.bias:
            tensors["bias"] = own["bias"][:, copy]
        found.append(gadget(node, Own(tensors), x))
    return np.stack(found, -1).reshape(*found[0].shape[:-1], -1)


ORACLES: dict[str, Callable[[Any, Own, np.ndarray], np.ndarray]] = {
    "dense": operation,
    "conv": operation,
    "rotation_conv": operation,
    "relu": lambda node, own, x: np.where(x > 0, x, 0),
    "leaky_relu": lambda node, own, x: np.where(x > 0, x, node.slope * x),
    "tanh": lambda node, own, x: np.tanh(x),
    "sigmoid": lambda node, own, x: 1 / (1 + np.exp(-x)),
    "gelu": lambda node, own, x: x * _normal_distribution(node.approximate, x),
    "max_pool": lambda node, own, x: patches(x, node.size, node.stride or node.size, node.padding, fill=-math.inf).max(
        (-2, -1)
    ),
    "average_pool": lambda node, own, x: patches(x, node.size, node.stride or node.size, node.padding).mean((-2, -1)),
    "global_pool": lambda node, own, x: x.reshape(len(x), -1, x.shape[-1]).mean(1),
    "flatten": lambda node, own, x: np.moveaxis(x, -1, 1).reshape(len(x), -1),
    "tokens": lambda node, own, x: np.stack([x[:, h, w] for h in range(x.shape[1]) for w in range(x.shape[2])], 1),
    "normalize": lambda node, own, x: (x - np.array(node.mean)) / np.array(node.deviation),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "position_embedding": lambda node, own, x: x + own[""],
    "attention": attention,
    "merged_attention": merged_attention,
    "chain": chain,
    "residual": residual,
    "graph": graph,
    "random_layer": single,
    "trained_layer": trained,
    "partly_trained_layer": partly_trained,
    "candidates_per_weight": copies,
    "multi_level_layer": tied,
    "gadget": gadget,
    "binary_ladder": ladder,
    "replicated_neurons": redundant,
    "replicated_gadget": redundant_gadget,
}


def _normal_distribution(approximate: bool, x: np.ndarray) -> np.ndarray:
    if approximate:
        return (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def stated_positions(source: Source) -> dict[str, tuple[int, np.ndarray]]:
    """Stream, counted from the leaf's first, and the positions of all weights of each tensor, in the mask's shape.

    Written from what the theorems' matrices are: they multiply from the left and are row-major, [inputs * units,
    places, outputs] the second, [inputs, inputs * units] the first. A block of copies lies in one piece. Tied weights
    lie where single ones do.
    """
    of: Any = source.layer
    if source.kind == "multi_level_layer":
        factors = len(source.factors)  # type: ignore[attr-defined]
        single = stated_positions(RandomLayer(of, source.sampler))  # type: ignore[attr-defined]
        return {name: (stream, np.stack([places] * factors, -1)) for name, (stream, places) in single.items()}
    shapes = of.tensors()
    if source.kind.startswith("replicated"):
        return _of_copied(source)
    if source.kind == "candidates_per_weight":
        return {name: (stream, _of_copies(source, shape)) for stream, (name, shape) in enumerate(shapes.items())}
    output, inner, *places = np.indices((*shapes["weight"], 1 if source.kind == "random_layer" else source.units))  # type: ignore[attr-defined]
    *places, unit = places
    units = unit.shape[-1]
    place = np.ravel_multi_index(tuple(places), shapes["weight"][2:]) if places else np.zeros_like(unit)
    count = math.prod(shapes["weight"][2:])
    weight = ((inner * units + unit) * count + place) * of.outputs + output
    if source.kind == "random_layer":
        return {"weight": (0, weight[..., 0])} | ({"bias": (1, np.arange(of.outputs))} if of.bias else {})
    inputs = of.inputs + of.bias
    channel, unit = np.indices((inputs, units))
    found = {"first": (0, channel * (inputs * units) + channel * units + unit), "weight": (1, weight)}
    if of.bias:
        output, unit = np.indices((of.outputs, units))
        found["bias"] = (1, ((shapes["weight"][1] * units) * count + unit) * of.outputs + output)
    if source.kind == "binary_ladder":
        for rung in range(source.rungs):  # type: ignore[attr-defined]
            found[f"rung{rung + 1}"] = (2 + rung, np.arange(inputs * units**2).reshape(inputs, units, units))
    return found


def _of_copied(source: Any) -> dict[str, tuple[int, np.ndarray]]:
    """[inputs * units, places, outputs * copies], row-major; the constant's units are the last rows."""
    of: Any = source.layer
    shapes, copies = of.tensors(), source.rows_per_weight
    units = source.input_copies if source.kind == "replicated_neurons" else source.units
    inner, places = shapes["weight"][1], math.prod(shapes["weight"][2:])
    matrix = np.arange(inner * units * places * of.outputs * copies).reshape(inner, units, places, of.outputs, copies)
    weight = matrix.transpose(3, 0, 2, 4, 1).reshape(*shapes["weight"], copies, units)
    found = {"weight": weight}
    if of.bias:
        constant = matrix.size + np.arange(units * of.outputs * copies).reshape(units, of.outputs, copies)
        found["bias"] = constant.transpose(1, 2, 0)
    if source.kind == "replicated_neurons":
        return {name: (0, positions) for name, positions in found.items()}
    inputs = of.inputs + of.bias
    channel, unit = np.indices((inputs, units))
    first = channel * (inputs * units) + channel * units + unit
    return {"first": (0, first)} | {name: (1, positions) for name, positions in found.items()}


def _of_copies(source: Any, shape: tuple[int, ...]) -> np.ndarray:
    index = np.indices((*shape, source.candidates))
    row = index[0] if source.shared else np.ravel_multi_index(tuple(index[:-1]), shape)
    return row * source.candidates + index[-1]
