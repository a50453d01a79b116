"""From kept random weights to effective weights, residuals and outputs, float64 (docs/ticket-format.md)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracle.layers import LINEAR, Node, child_path, children, plain_layer, run
from tests.oracle.operations import OPERATIONS, never_negative
from tests.oracle.random_weights import RandomTensor, copies_of, linear_shapes

Array = np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class OracleTicket:
    """Header, random tensors and layers by name, masks [rows, width], attempts by block, and all other tensors."""

    header: Mapping[str, Any]
    sources: dict[str, Mapping[str, Any]]
    random: dict[str, RandomTensor]
    masks: dict[str, Array]
    attempts: dict[str, Array]
    tensors: dict[str, Array]

    def weights(self, name: str) -> Array:
        """All random weights of a tensor [rows, width], float64."""
        return self._drawn(name)[0]

    def forced(self, name: str) -> Array:
        """Forced entries of a mask [rows, width]: -1 absent, 1 locked, 0 free."""
        return self._drawn(name)[1]

    def _drawn(self, name: str) -> tuple[Array, Array]:
        tensor = self.random[name]
        drawn = tensor.draw(self.header["seed"], np.arange(tensor.blocks), self.attempts[name])
        weights, forced = (part.repeat(tensor.rows_per_block, 0) for part in drawn)
        return weights, forced

    def kept(self, name: str) -> Array:
        """Kept random weights in the shape of the mask, 0 elsewhere."""
        return np.where(self.masks[name], self.weights(name), 0.0).reshape(self.random[name].shape)


def coefficients(ticket: OracleTicket, path: str, name: str, sign: int) -> Array:
    """What each random weight of a tensor counts, [rows, width]."""
    node, tensor = ticket.sources[path], ticket.random[child_path(path, name)]
    kind, gain, shape = node["kind"], node["gain"], (tensor.rows, tensor.width)
    if kind == "multi_level_layer":
        return np.broadcast_to(gain * np.array(node["factors"]), shape)
    if kind == "replicated_neurons":
        return np.full(shape, gain * (node["constant"] if name == "bias" else 1.0))
    if kind not in ("gadget", "replicated_gadget", "binary_ladder"):
        return np.full(shape, gain)
    channels = input_channels(node["layer"], name).repeat(copies_of(node))
    value = ticket.kept(child_path(path, "first"))
    if kind == "binary_ladder":
        value = np.maximum(sign * value, 0)
        for number in range(1, node["rungs"] + 1):
            value = np.maximum(np.einsum("ivu,iu->iv", ticket.kept(child_path(path, f"rung{number}")), value), 0)
        value = sign * value
    elif node["relu"]:
        value = np.maximum(value, 0) if sign > 0 else np.minimum(value, 0)
    return gain * value[channels]


def input_channels(layer: Node, name: str) -> Array:
    """The input of each weight of a tensor, row-major; the constant of a bias is the last one."""
    shape = linear_shapes(layer)[name]
    if name == "bias":
        return np.full(shape[0], layer["inputs"])
    output, within = np.indices(shape)[:2]
    per_group, groups = shape[1], layer.get("groups", 1)
    return (output // (shape[0] // groups) * per_group + within).reshape(-1)


def signs_of(ticket: OracleTicket) -> dict[str, tuple[int, ...]]:
    """Signs of inputs for which the weights of each random layer differ, by path."""
    never_negative: dict[str, bool] = {}
    given = ticket.header["network"]["input_spec"]
    if given is not None:
        _trace(ticket.header["network"]["root"], "", given[1], never_negative)
    found = {}
    for path, node in ticket.sources.items():
        both = node["kind"] == "binary_ladder" or (node["kind"] in ("gadget", "replicated_gadget") and node["relu"])
        found[path] = (1, -1) if both and not never_negative.get(path, False) else (1,)
    return found


def _trace(node: Node, path: str, given: bool, found: dict[str, bool]) -> bool:
    """Whether the output of a node is never negative; the inputs of layers are added to `found`."""
    kind, inside = node["kind"], children(node)
    if kind == "chain":
        for name, child in inside.items():
            given = _trace(child, child_path(path, name), given, found)
        return given
    if kind == "residual":
        body, shortcut = (_trace(child, child_path(path, name), given, found) for name, child in inside.items())
        return body and shortcut
    if kind == "graph":
        flags = {"input": given}
        for name, child, names in node["nodes"]:
            before = [flags[one] for one in names]
            operation = child["kind"] in (*OPERATIONS, "stored")
            own = child_path(path, name)
            flags[name] = never_negative(child, before) if operation else _trace(child, own, before[0], found)
        return flags[node["output"]]
    if kind in ("attention", "merged_attention"):
        (first, second) = inside.items()
        _trace(first[1], child_path(path, first[0]), given, found)
        mixed = given if kind == "merged_attention" else False
        return _trace(second[1], child_path(path, second[0]), mixed, found)
    found[path] = given
    if kind in ("relu", "sigmoid"):
        return True
    if kind == "normalize":
        return given and max(node["mean"]) <= 0
    keeps = ("leaky_relu", "tanh", "gelu", "max_pool", "average_pool", "global_pool", "flatten", "tokens")
    return given and kind in keeps


def effective_weights(ticket: OracleTicket) -> dict[str, Array]:
    """By tensor, [signs * copies, *shape]."""
    found, signs = {}, signs_of(ticket)
    for path, node in ticket.sources.items():
        for name, shape in linear_shapes(node["layer"]).items():
            full, copies = child_path(path, name), copies_of(node)
            if full not in ticket.random:
                continue  # a bias that is stored
            weights = ticket.weights(full)
            if node["kind"] in ("trained_layer", "partly_trained_layer"):
                stored = ticket.tensors[f"stored.{child_path(path, 'trained_weight')}"]
                weights = stored.astype(np.float64).reshape(weights.shape)
            kept, own = np.where(ticket.masks[full], weights, 0.0), (1,) if name == "bias" else signs[path]
            parts = []
            for sign in own:
                total = (kept * coefficients(ticket, path, name, sign)).sum(1)
                if node["kind"] == "partly_trained_layer" and name == "weight":
                    total = total + ticket.kept(child_path(path, "frozen")).reshape(-1)
                parts.append(np.moveaxis(total.reshape(*shape, copies), -1, 0))
            found[full] = np.concatenate(parts)
    return found


def residuals(ticket: OracleTicket, target: Mapping[str, Array]) -> dict[str, Array]:
    """The largest |effective weight - target weight| of each target weight over signs and copies, by tensor."""
    return {
        name: np.abs(value - target[name].astype(np.float64)).max(0)
        for name, value in effective_weights(ticket).items()
    }


def outputs(ticket: OracleTicket, x: Array) -> Array:
    """The network's outputs for x [B, *input], float64."""
    weights, signs = effective_weights(ticket), signs_of(ticket)
    stored = {
        name.removeprefix("stored."): value.astype(np.float64)
        for name, value in ticket.tensors.items()
        if name.startswith("stored.")
    }

    def layer(node: Node, path: str, x: Array) -> Array:
        if path not in ticket.sources:
            prefix = f"{path}." if path else ""
            own = {name[len(prefix) :]: value for name, value in stored.items() if name.startswith(prefix)}
            return plain_layer(node, x, {**own, "": stored[path]} if path in stored else own)
        own = {}
        for name in linear_shapes(node["layer"]):
            full = child_path(path, name)
            own[name] = weights[full] if full in weights else stored[full][None]
        return random_layer_outputs(ticket, path, x, own, signs[path])

    return run(ticket.header["network"]["root"], "", x.astype(np.float64), layer)


def random_layer_outputs(
    ticket: OracleTicket, path: str, x: Array, weights: Mapping[str, Array], signs: tuple[int, ...]
) -> Array:
    """Outputs of a random layer from its effective weights [signs * copies, *shape], by name."""
    node, inner = ticket.sources[path], ticket.sources[path]["layer"]
    apply, bias = LINEAR[inner["kind"]], np.zeros(1)
    if inner["bias"]:
        bias = np.moveaxis(weights["bias"], 0, 1).reshape(-1)  # copies of an output are adjacent
    if node["kind"] == "replicated_neurons":
        return apply(inner, x, merged_copies(ticket, path)) + bias
    kernels = weights["weight"].reshape(len(signs), copies_of(node), *weights["weight"].shape[1:])
    parts = {(1,): (x,), (1, -1): (np.maximum(x, 0), np.minimum(x, 0))}[signs]
    total = np.zeros(1)
    for part, kernel in zip(parts, kernels, strict=True):
        total = total + apply(inner, part, np.moveaxis(kernel, 0, 1).reshape(-1, *kernel.shape[2:]))
    return total + bias


def merged_copies(ticket: OracleTicket, path: str) -> Array:
    """The weights between copies of neurons: copy c of output o sees every copy of every input."""
    node, kept = ticket.sources[path], ticket.kept(child_path(path, "weight"))
    copies, stride, (outputs, inputs) = node["input_copies"], node["copy_stride"], kept.shape[:2]
    kernel = np.moveaxis(kept, -2, 1).reshape(outputs * node["output_copies"], inputs, *kept.shape[2:-2], copies)
    # Input i = a s + b has its copy c at channel (a n + c) s + b.
    split = kernel.reshape(len(kernel), inputs // stride, stride, *kernel.shape[2:])
    return node["gain"] * np.moveaxis(split, -1, 2).reshape(len(kernel), inputs * copies, *kernel.shape[2:-1])
