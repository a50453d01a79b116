"""Nodes as JSON and back. The JSON is untrusted: every field is typed and bounded before a node is made."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from lottery_jax.errors import InputError, shown, suggest
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.node import MAX_MAGNITUDE, MIN_MAGNITUDE, Node
from lottery_jax.networks.registry import NODES
from lottery_jax.rng.sampler import Sampler

_MAX_INTEGER = 2**31 - 1
_DEFAULTS: dict[type, dict[str, Any]] = {  # JSON omits these values
    Sampler: {"density": 1.0, "locked": 0.0},
    Conv: {"dilation": (1, 1)},
}
_MAX_DEPTH = 64
_MAX_TEXT = 512


def to_json(node: Any) -> Any:
    """JSON values that `from_json` reads.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> to_json(Dense(3, 2))
    {'kind': 'dense', 'inputs': 3, 'outputs': 2, 'bias': False}
    """
    if isinstance(node, Node | Sampler):
        row, defaults = {"kind": node.kind}, _DEFAULTS.get(type(node), {})
        for field in dataclasses.fields(node):  # type: ignore[arg-type]
            value = getattr(node, field.name)
            if field.name not in defaults or value != defaults[field.name]:
                row[field.name] = to_json(value)
        return row
    if isinstance(node, Mapping):
        return {name: to_json(value) for name, value in node.items()}
    return list(map(to_json, node)) if isinstance(node, tuple) else node


def from_json(row: Any, where: str = "the tree", depth: int = 0) -> Node:
    """Inverse of `to_json` for untrusted JSON; raises `InputError` if it is not a node.

    >>> from_json({"kind": "dense", "inputs": 3, "outputs": 2, "bias": False})
    Dense(inputs=3, outputs=2, bias=False)
    """
    if depth > _MAX_DEPTH:
        raise InputError(f"{where} must be nested at most {_MAX_DEPTH} deep")
    if not isinstance(row, dict):
        raise InputError(f"{where} must be a node, got {shown(row)}")
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in NODES:
        raise InputError(f"{where} is of the unknown kind {shown(kind)}; {suggest(str(kind)[:_MAX_TEXT], NODES)}")
    fields = dict(row)
    del fields["kind"]
    return _dataclass(NODES[kind], fields, where, depth)


_hints = functools.cache(typing.get_type_hints)


def _dataclass(cls: Any, row: Mapping[str, Any], where: str, depth: int) -> Any:
    """A dataclass from exactly its fields, each of its annotated type."""
    values = {**to_json(_DEFAULTS.get(cls, {})), **row}
    hints, names = _hints(cls), set()
    for field in dataclasses.fields(cls):
        names.add(field.name)
    if set(values) != names:
        raise InputError(f"{where} must have the fields {sorted(names)}, got {sorted(map(shown, values))}")
    for name, value in values.items():
        values[name] = _value(value, hints[name], f"{name} of {where}", depth + 1)
    return cls(**values)


def _value(value: Any, hint: Any, where: str, depth: int) -> Any:
    """A JSON value of the type that a field is annotated with."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _value(value, hint, where, depth)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where} must be one of {arguments}, got {shown(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list) or (arguments[-1] is not ... and len(value) != len(arguments)):
            raise InputError(f"{where} must be a list of the right length, got {shown(value)}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        parts = []
        for part, kind in zip(value, kinds, strict=True):
            parts.append(_value(part, kind, where, depth))
        return tuple(parts)
    if isinstance(hint, type) and issubclass(hint, Node):
        node = from_json(value, where, depth)
        if not isinstance(node, hint):
            raise InputError(f"{where} must be a {hint.__name__}, got the kind {node.kind}")
        return node
    if hint is Sampler:
        if not isinstance(value, dict):
            raise InputError(f"{where} must be a sampler, got {shown(value)}")
        return _dataclass(Sampler, value, where, 0)
    return _scalar(value, hint, where)


def _scalar(value: Any, hint: type, where: str) -> Any:
    """A bounded int, float, bool or str."""
    if hint is float:
        # Products of such numbers are finite and normal in float32.
        if type(value) not in (int, float) or not abs(value) < math.inf:  # false for NaN; a long integer is compared
            raise InputError(f"{where} must be a finite number, got {shown(value)}")
        if value and not MIN_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE:
            raise InputError(
                f"{where} must be 0 or of a magnitude from {MIN_MAGNITUDE} to {MAX_MAGNITUDE}, got {shown(value)}"
            )
        return float(value)
    if hint is int and (type(value) is not int or not 0 <= value <= _MAX_INTEGER):
        raise InputError(f"{where} must be an integer from 0 to {_MAX_INTEGER}, got {shown(value)}")
    if hint is bool and not isinstance(value, bool):
        raise InputError(f"{where} must be true or false, got {shown(value)}")
    if hint is str and (not isinstance(value, str) or len(value) > _MAX_TEXT):
        raise InputError(f"{where} must be a string of at most {_MAX_TEXT} characters, got {shown(value)}")
    return value
