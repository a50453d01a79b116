"""How far a ticket's outputs may be from the target's at given inputs, from what the certificate promises of weights.

Independent of the verifier's bounds: each input's own values are propagated in float64 NumPy. A network may differ by
weights that move by the tolerance, and by rounding in proportion to the target's own terms.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.fuzz.allowed_operations import operation_error
from tests.oracle.layers import LINEAR, STATELESS, plain_layer, pooled, run, softmax

ROUNDING = 2.0**-12
"""Allowed error of a layer from rounding, as a fraction of the sum of its target's terms without their signs."""

_LIPSCHITZ = {"gelu": 1.13, "sigmoid": 0.25}  # others have 1
_KEEPS_ORDER = ("flatten", "tokens", "average_pool", "global_pool", "max_pool")


@dataclasses.dataclass(frozen=True, eq=False)
class Allowed:
    """Values of the target [B, ...] and the allowed error of each."""

    value: np.ndarray
    error: np.ndarray

    def __getitem__(self, index: Any) -> "Allowed":
        return Allowed(self.value[index], self.error[index])

    def __add__(self, other: "Allowed") -> "Allowed":
        return Allowed(self.value + other.value, self.error + other.error)


def allowed_outputs(
    network: Mapping[str, Any], tensors: Mapping[str, np.ndarray], tolerance: Mapping[str, float], x: np.ndarray
) -> Allowed:
    """The target's outputs at x [B, *input] and their allowed errors.

    Args:
        network: The target's network as JSON.
        tensors: Its tensors, float64.
        tolerance: Allowed error of each weight, by tensor.
    """

    def layer(node: Mapping[str, Any], path: str, given: Allowed) -> Allowed:
        prefix = f"{path}." if path else ""
        own = {name[len(prefix) :]: v for name, v in tensors.items() if name.startswith(prefix)} | {
            "": tensors.get(path, np.zeros(1))
        }
        if node["kind"] == "stored":
            return Allowed(own[""], np.zeros_like(own[""]))
        if node["kind"] in LINEAR:
            own_tolerance = {name: tolerance[f"{prefix}{name}"] for name in ("weight", "bias")[: 1 + node["bias"]]}
            return _linear(node, given, own, own_tolerance)
        return _other(node, given, own)

    return run(network["root"], "", Allowed(x, np.zeros_like(x)), layer, (_attention, _merged_attention), _operate)


def _operate(node: Mapping[str, Any], inputs: list[Allowed], batched: list[bool]) -> Allowed:
    values, errors = [one.value for one in inputs], [one.error for one in inputs]
    return Allowed(*operation_error(node, values, errors, batched, ROUNDING))


def _linear(node: Any, given: Allowed, own: Mapping[str, np.ndarray], tolerance: Mapping[str, float]) -> Allowed:
    apply, weight, x = LINEAR[node["kind"]], own["weight"], given.value
    size, moved = np.abs(weight), np.full_like(weight, tolerance["weight"])
    error = apply(node, given.error, size) + apply(node, np.abs(x) + given.error, moved)
    terms = apply(node, np.abs(x), size)
    if node["bias"]:
        error, terms = error + tolerance["bias"], terms + np.abs(own["bias"])
    return Allowed(plain_layer(node, x, own), error + ROUNDING * terms)


def _other(node: Any, given: Allowed, own: Mapping[str, np.ndarray]) -> Allowed:
    kind, value = node["kind"], plain_layer(node, given.value, own)
    if kind == "layer_norm":
        return Allowed(value, _layer_norm_error(node, given, own["weight"]))
    if kind == "position_embedding":
        return Allowed(value, given.error)
    if kind == "normalize":
        return Allowed(value, given.error / np.array(node["deviation"]))
    if kind == "max_pool":
        return Allowed(value, pooled(node, given.error, 0.0).max((-2, -1)))
    if kind in _KEEPS_ORDER:
        return Allowed(value, STATELESS[kind](node, given.error))
    slope = max(1.0, abs(node["slope"])) if kind == "leaky_relu" else _LIPSCHITZ.get(kind, 1.0)
    return Allowed(value, slope * given.error + ROUNDING * np.abs(value))


def _layer_norm_error(node: Any, given: Allowed, weight: np.ndarray) -> np.ndarray:
    x, error, least = given.value, given.error, math.sqrt(node["epsilon"])
    centred, moved = np.abs(x - x.mean(-1, keepdims=True)), error + error.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + node["epsilon"])
    change = np.sqrt((moved**2).mean(-1, keepdims=True))
    smallest = np.maximum(deviation - change, least)
    bound = moved / smallest + centred * (1 / smallest - 1 / (deviation + change))
    return np.abs(weight) * (bound + ROUNDING * centred / deviation)


def _attention(asked: Allowed, heads: int) -> Allowed:
    batch, tokens, wide = asked.value.shape
    (q, k, v), (dq, dk, dv) = (
        np.moveaxis(part.reshape(batch, tokens, 3, heads, -1), 2, 0) for part in (asked.value, asked.error)
    )
    scale = 1 / math.sqrt(q.shape[-1])
    scores = scale * np.einsum("bthd,bshd->bhts", q, k)
    moved = np.einsum("bthd,bshd->bhts", np.abs(q) + dq, dk) + np.einsum("bthd,bshd->bhts", dq, np.abs(k))
    weights, change = _softmax_change(scores, scale * moved)
    mixed = np.einsum("bhts,bshd->bthd", weights, v)
    error = np.einsum("bhts,bshd->bthd", change, np.abs(v) + dv) + np.einsum("bhts,bshd->bthd", weights, dv)
    return Allowed(*(part.reshape(batch, tokens, wide // 3) for part in (mixed, error)))


def _merged_attention(asked: Allowed, x: Allowed, heads: int) -> Allowed:
    batch, tokens, _ = x.value.shape
    q, dq = (part.reshape(batch, tokens, heads, -1) for part in (asked.value, asked.error))
    moved = np.einsum("bthd,bsd->bhts", np.abs(q) + dq, x.error) + np.einsum("bthd,bsd->bhts", dq, np.abs(x.value))
    weights, change = _softmax_change(np.einsum("bthd,bsd->bhts", q, x.value), moved)
    mixed = np.einsum("bhts,bsd->bthd", weights, x.value)
    error = np.einsum("bhts,bsd->bthd", change, np.abs(x.value) + x.error) + np.einsum(
        "bhts,bsd->bthd", weights, x.error
    )
    return Allowed(*(part.reshape(batch, tokens, -1) for part in (mixed, error)))


def _softmax_change(scores: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The softmax of scores, and how far scores moved by this much can change it."""
    weights = softmax(scores)
    rounding = ROUNDING * np.abs(scores).max(-1, keepdims=True)
    growth = np.expm1(np.minimum(2 * (moved.max(-1, keepdims=True) + rounding), 50.0))
    return weights, np.minimum(weights * growth, 1.0)
