"""A tree as JSON and back. What is read is untrusted: every field is typed and bounded before a node is made."""

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

MOST = 2**31 - 1
"""The largest whole number in a tree."""

_ADDED: dict[type, dict[str, Any]] = {Sampler: {"density": 1.0, "locked": 0.0}}
"""Fields that earlier versions did not have: where they say nothing new, files leave them out."""

_DEPTH = 64

_TEXT = 512


def to_json(node: Any) -> Any:
    """Plain dictionaries, lists, numbers and words that `from_json` turns back into the same node.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> to_json(Dense(3, 2))
    {'kind': 'dense', 'inputs': 3, 'outputs': 2, 'bias': False}
    """
    if isinstance(node, Node | Sampler):
        fields = {field.name: to_json(getattr(node, field.name)) for field in dataclasses.fields(node)}  # type: ignore[arg-type]
        for name, usual in _ADDED.get(type(node), {}).items():
            if fields[name] == usual:
                del fields[name]
        return {"kind": node.kind, **fields}
    return [to_json(part) for part in node] if isinstance(node, tuple) else node


def from_json(row: Any) -> Node:
    """Inverse of `to_json`; raises `InputError` for what is no tree.

    >>> from_json({"kind": "dense", "inputs": 3, "outputs": 2, "bias": False})
    Dense(inputs=3, outputs=2, bias=False)
    """
    return _node(row, "the tree", 0)


def _node(row: Any, where: str, depth: int) -> Node:
    if depth > _DEPTH:
        raise InputError(f"{where} is nested more than {_DEPTH} deep")
    if not isinstance(row, dict):
        raise InputError(f"{where} is {_shown(row)}, not a node")
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in NODES:
        raise InputError(f"{where} is of the unknown kind {_shown(kind)}; {suggest(str(kind)[:_TEXT], NODES)}")
    return _made(NODES[kind], {name: row[name] for name in row if name != "kind"}, where, depth)


def _made(cls: Any, row: Mapping[str, Any], where: str, depth: int) -> Any:
    """A dataclass from its fields, each of which must be there, of its type, and no others."""
    hints, row = _hints(cls), {**_ADDED.get(cls, {}), **row}
    if set(row) != set(hints):
        raise InputError(f"{where} must have the fields {sorted(hints)}, not {sorted(map(_shown, row))}")
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
            raise InputError(f"{where} is {_shown(value)}, not one of {arguments}")
        return value
    if origin is tuple:
        if not isinstance(value, list) or (arguments[-1] is not ... and len(value) != len(arguments)):
            raise InputError(f"{where} is {_shown(value)}, not a list that fits")
        each = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        return tuple(_value(part, kind, where, depth) for part, kind in zip(value, each, strict=True))
    if isinstance(hint, type) and issubclass(hint, Node):
        node = _node(value, where, depth)
        if not isinstance(node, hint):
            raise InputError(f"{where} is {node.kind}, which cannot stand there")
        return node
    return _LEAVES[hint](value, where)


def _whole(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= MOST:
        raise InputError(f"{where} is {_shown(value)}, not a whole number from 0 to {MOST}")
    return value


def _number(value: Any, where: str) -> float:
    """A number that is neither too large nor too near to zero for float32 arithmetic."""
    if type(value) not in (int, float) or not abs(value) < math.inf:  # false for NaN; a long integer is compared
        raise InputError(f"{where} is {_shown(value)}, not a finite number")
    if value and not MIN_MAGNITUDE <= abs(value) <= MAX_MAGNITUDE:
        raise InputError(
            f"{where} is {_shown(value)}; numbers are 0 or of sizes from {MIN_MAGNITUDE} to {MAX_MAGNITUDE}"
        )
    return float(value)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{where} is {_shown(value)}, neither true nor false")
    return value


def _word(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > _TEXT:
        raise InputError(f"{where} is {_shown(value)}, not a word")
    return value


def _sampler(value: Any, where: str) -> Sampler:
    if not isinstance(value, dict):
        raise InputError(f"{where} is {_shown(value)}, not a sampler")
    return _made(Sampler, value, where, 0)


_LEAVES = {int: _whole, float: _number, bool: _flag, str: _word, Sampler: _sampler}


def _shown(value: Any) -> str:
    text = reprlib.repr(value)  # goes a few levels deep, so that no list is nested too deep for it
    return text if len(text) <= 40 else text[:40] + "..."
