"""Nodes as JSON and back. The JSON is untrusted: every field is typed and bounded before a node is made."""

import dataclasses
import functools
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any

from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.node import MAX_MAGNITUDE, MIN_MAGNITUDE, Node
from lottery_jax.networks.registry import NODES
from lottery_jax.rng.sampler import Sampler

_MAX_INTEGER = 2**31 - 1

_DEFAULTS: dict[type, dict[str, Any]] = {Sampler: {"density": 1.0, "locked": 0.0}}  # JSON omits these values

_MAX_DEPTH = 64

_MAX_TEXT = 512


def to_json(node: Any) -> Any:
    """JSON values that `from_json` reads.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> to_json(Dense(3, 2))
    {'kind': 'dense', 'inputs': 3, 'outputs': 2, 'bias': False}
    """
    if isinstance(node, Node | Sampler):
        fields = {field.name: to_json(getattr(node, field.name)) for field in dataclasses.fields(node)}  # type: ignore[arg-type]
        for name, default in _DEFAULTS.get(type(node), {}).items():
            if fields[name] == default:
                del fields[name]
        return {"kind": node.kind, **fields}
    return [to_json(part) for part in node] if isinstance(node, tuple) else node


def from_json(row: Any) -> Node:
    """Inverse of `to_json` for untrusted JSON; raises `InputError` if it is not a node.

    >>> from_json({"kind": "dense", "inputs": 3, "outputs": 2, "bias": False})
    Dense(inputs=3, outputs=2, bias=False)
    """
    return _node(row, "the tree", 0)


def _node(row: Any, where: str, depth: int) -> Node:
    if depth > _MAX_DEPTH:
        raise InputError(f"{where} must be nested at most {_MAX_DEPTH} deep")
    if not isinstance(row, dict):
        raise InputError(f"{where} must be a node, got {_shown(row)}")
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in NODES:
        raise InputError(f"{where} is of the unknown kind {_shown(kind)}; {suggest(str(kind)[:_MAX_TEXT], NODES)}")
    return _dataclass(NODES[kind], {name: row[name] for name in row if name != "kind"}, where, depth)


def _dataclass(cls: Any, row: Mapping[str, Any], where: str, depth: int) -> Any:
    """A dataclass from exactly its fields, each of its annotated type."""
    hints, row = _hints(cls), {**_DEFAULTS.get(cls, {}), **row}
    if set(row) != set(hints):
        raise InputError(f"{where} must have the fields {sorted(hints)}, got {sorted(map(_shown, row))}")
    return cls(**{name: _value(row[name], hint, f"{name} of {where}", depth + 1) for name, hint in hints.items()})


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    types_ = typing.get_type_hints(cls)
    return {field.name: types_[field.name] for field in dataclasses.fields(cls)}


def _value(value: Any, hint: Any, where: str, depth: int) -> Any:
    """A JSON value of the type that a field is annotated with."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _value(value, hint, where, depth)
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where} must be one of {arguments}, got {_shown(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list) or (arguments[-1] is not ... and len(value) != len(arguments)):
            raise InputError(f"{where} must be a list of the right length, got {_shown(value)}")
        each = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        return tuple(_value(part, kind, where, depth) for part, kind in zip(value, each, strict=True))
    if isinstance(hint, type) and issubclass(hint, Node):
        node = _node(value, where, depth)
        if not isinstance(node, hint):
            raise InputError(f"{where} must be a {hint.__name__}, got the kind {node.kind}")
        return node
    return _SCALARS[hint](value, where)


def _integer(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise InputError(f"{where} must be an integer from 0 to {_MAX_INTEGER}, got {_shown(value)}")
    return value


def _float(value: Any, where: str) -> float:
    """A number whose products are finite and normal in float32, or 0."""
    if type(value) not in (int, float) or not abs(value) < math.inf:  # false for NaN; a long integer is compared
        raise InputError(f"{where} must be a finite number, got {_shown(value)}")
    if value and not MIN_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE:
        raise InputError(
            f"{where} must be 0 or of a magnitude from {MIN_MAGNITUDE} to {MAX_MAGNITUDE}, got {_shown(value)}"
        )
    return float(value)


def _bool(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{where} must be true or false, got {_shown(value)}")
    return value


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise InputError(f"{where} must be a string of at most {_MAX_TEXT} characters, got {_shown(value)}")
    return value


def _sampler(value: Any, where: str) -> Sampler:
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a sampler, got {_shown(value)}")
    return _dataclass(Sampler, value, where, 0)


_SCALARS = {int: _integer, float: _float, bool: _bool, str: _string, Sampler: _sampler}


def _shown(value: Any) -> str:
    text = reprlib.repr(value)  # bounded in depth: deeply nested lists are untrusted input too
    return text if len(text) <= 40 else text[:40] + "..."
