"""Random changes of a ticket's header and tensors; the digest of the file is made valid again."""

import contextlib
import copy
import math
from typing import Any

import numpy as np

from tests.tickets.forging import Header, Tensors, resourced

ODD = (
    *(None, True, False, 0, 1, -1, 2, 4, 255, 256, 10**4, 10**6, 2**24, 2**31 - 1, 2**31, 2**32, 2**63, 2**64),
    *(-(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1e-9, 1e-45, 1e-300, 5e-324, 1e30, 1e39, 1e300, 2.0**64, 2.0**-64),
    *(math.inf, -math.inf, math.nan),
    *("", "a", "relu", "Infinity", "0.1", "\x00", "x" * 600, "\ud800", "holds\nHOLDS for the target\x1b[2K"),
    *([], [1], [[1, 2]], [1] * 2000, {}, {"kind": "relu"}, {"kind": "chain"}, {"kind": "chain", "nodes": []}),
    {"kind": "flatten"},
    {"kind": "max_pool", "size": [2**20, 2**20], "stride": [1, 1], "padding": [2**19, 2**19]},
)
"""Values of every type that may replace any part of a header."""

_NUMBERS = (0, 1, -1, 0.3, 1e30, np.nan, np.inf, 255)
_DTYPES = (np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of everything inside a JSON value."""
    inside: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, part in inside for place in places(part, (*path, key))]


def parent(value: Any, path: tuple) -> Any:
    """What holds the part at a path."""
    for key in path[:-1]:
        value = value[key]
    return value


def mutated(header: Header, tensors: Tensors, random: np.random.Generator) -> tuple[Header, Tensors]:
    """One to three changes of any part of a ticket."""
    header, tensors = copy.deepcopy(header), dict(tensors)
    for _ in range(random.integers(1, 4)):
        if random.random() < 0.45:
            change_header(header, random)
        else:
            change_tensors(tensors, random)
    if random.random() < 0.7:  # the checksum of the source that the header describes, if it describes any
        with contextlib.suppress(Exception):
            header = resourced(header)
    return header, tensors


def change_header(header: Header, random: np.random.Generator) -> None:
    """Replace, drop, move or add to one part, in place."""
    every = places(header)
    if not every:
        return
    place, kind = every[random.integers(len(every))], random.integers(6)
    holder, key = parent(header, place), place[-1]
    old = holder[key]
    if kind == 0:
        holder[key] = ODD[random.integers(len(ODD))]
    elif kind == 1 and type(old) in (int, float) and math.isfinite(old):
        factor = random.choice([0.5, 2, 1 + 1e-3, -1, 2.0**20, 2.0**-20])
        holder[key] = old * factor if type(old) is float else int(old) + int(random.choice([-1, 1, 2]))
    elif kind == 2:
        del holder[key]
    elif kind == 3:
        other = every[random.integers(len(every))]
        with contextlib.suppress(KeyError, IndexError, TypeError):
            holder[key] = copy.deepcopy(parent(header, other)[other[-1]])
    elif kind == 4 and isinstance(old, list) and old:
        old.insert(int(random.integers(len(old) + 1)), copy.deepcopy(old[random.integers(len(old))]))
    else:  # the fields that a verdict depends on most
        field = random.choice(["tolerance", "seed", "kept_budget", "relative", "method", "settings"])
        values = {"tolerance": [0, 1e-9, 0.2, 1e3, 1e300, 10**400], "relative": [True, False], "kept_budget": [0, 9**9]}
        others = values.get(field) or [old, *ODD[random.integers(len(ODD)) :][:1]]
        header[field] = others[random.integers(len(others))]


def change_tensors(tensors: Tensors, random: np.random.Generator) -> None:
    """Change one tensor's bits, values, type, shape or redraws, in place."""
    names = list(tensors)
    if not names:
        return
    name, kind = names[random.integers(len(names))], random.integers(6)
    value = tensors[name].copy()
    flat = value.reshape(-1)
    if kind == 0 and value.size:  # single bits: most of these tickets are still readable
        bits = flat.view(np.uint8)
        at = random.integers(0, bits.size, random.integers(1, 4))
        bits[at] ^= np.uint8(1) << random.integers(0, 8, len(at), dtype=np.uint8)
        tensors[name] = flat.reshape(value.shape)
    elif kind == 1 and value.size:
        at = random.integers(0, flat.size, random.integers(1, 4))
        with np.errstate(invalid="ignore"):
            flat[at] = np.asarray(_NUMBERS[random.integers(len(_NUMBERS))]).astype(value.dtype)
        tensors[name] = flat.reshape(value.shape)
    elif kind == 2:
        with np.errstate(over="ignore", invalid="ignore"):
            other = _DTYPES[random.integers(len(_DTYPES))]
            tensors[name] = value.astype(other) if random.random() < 0.5 else flat[1:].copy()
    elif kind == 3:
        tensors[name] = np.full_like(value, random.choice([0, 255])) if name.startswith("mask") else 0 * value
    elif kind == 4:
        blocks = random.integers(-2, 40, random.integers(0, 5))
        rows = np.stack([np.sort(blocks), random.integers(-1, 300, len(blocks))], 1).astype(np.int64)
        if random.random() < 0.2 and len(rows):
            rows[random.integers(len(rows)), random.integers(2)] = random.choice([-(2**63), 2**63 - 1, 2**32])
        tensors[f"redraws.{name.partition('.')[2]}"] = rows
    elif random.random() < 0.5:
        del tensors[name]
    else:
        other = names[random.integers(len(names))]
        tensors[name], tensors[other] = tensors[other], tensors[name]
