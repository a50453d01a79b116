"""Anything in a ticket changed at random, its digest valid again: never a wrong "holds", never a traceback.

Every "holds" is held to an oracle of its own: the float32 network itself, run beside the target.
"""

import contextlib
import copy
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError, TicketError
from lottery_jax.networks.target import Target
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.tickets.verify import verify
from tests.tickets.forging import TARGET, Header, Tensors, forge, read, resourced

ODD = (
    *(None, True, False, 0, 1, -1, 2, 255, 256, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30),
    *(0.0, -0.0, 0.5, 1e-9, 1e-45, 1e-300, 5e-324, 1e30, 1e39, 1e300, math.inf, -math.inf, math.nan),
    *(
        "",
        "a",
        "relu",
        "Infinity",
        "0.1",
        "\x00",
        "x" * 600,
        [],
        [1],
        [[1, 2]],
        {},
        {"kind": "relu"},
        {"kind": "chain"},
    ),
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of everything inside a JSON value."""
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    return [path] * bool(path) + [place for key, part in inside for place in places(part, (*path, key))]


def put(value: Any, path: tuple, new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def drop(value: Any, path: tuple) -> None:
    for key in path[:-1]:
        value = value[key]
    del value[path[-1]]


def get(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


def mutated(header: Header, tensors: Tensors, random: np.random.Generator) -> tuple[Header, Tensors]:
    """One to three changes of any part of a ticket."""
    header, tensors = copy.deepcopy(header), dict(tensors)
    for _ in range(random.integers(1, 4)):
        kind = random.integers(0, 8)
        if kind <= 3:
            every = places(header)
            place = every[random.integers(len(every))]
            old = get(header, place)
            new = ODD[random.integers(len(ODD))]
            if kind == 1 and type(old) in (int, float):  # near to what it was
                factor = random.choice([0.5, 2, 1 + 1e-3, -1])
                new = type(old)(old * factor) if type(old) is float else int(old + random.choice([-1, 1, 2]))
            elif kind == 2 and random.random() < 0.5:
                drop(header, place)
                continue
            elif kind == 3 and random.random() < 0.5:
                new = copy.deepcopy(get(header, every[random.integers(len(every))]))
            put(header, place, new)
            continue
        names = list(tensors)
        name = names[random.integers(len(names))]
        value = tensors[name].copy()
        if kind <= 5 and value.size:
            flat = value.reshape(-1)
            at = random.integers(0, flat.size, random.integers(1, 4))
            numbers = [0, 1, -1, 0.3, 1e30, np.nan, np.inf, 255]
            with np.errstate(invalid="ignore"):
                flat[at] = np.asarray(numbers[random.integers(len(numbers))]).astype(value.dtype)
            tensors[name] = flat.reshape(value.shape)
        elif kind == 6:
            other = (np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64)[random.integers(6)]
            with np.errstate(over="ignore", invalid="ignore"):
                tensors[name] = value.astype(other) if random.random() < 0.5 else value.reshape(-1)[1:].copy()
        else:
            rows = random.integers(-2, 70, (random.integers(0, 5), 2))
            rows = rows[np.argsort(rows[:, 0])] if random.random() < 0.7 else rows
            tensors[f"redraws.{name.partition('.')[2]}"] = rows.astype(np.int64)
            if random.random() < 0.2:
                del tensors[name]
    return header, tensors


def test_mutations_never_give_a_wrong_holds_nor_a_traceback_in_short(honest: dict[str, Path], tmp_path: Path) -> None:
    assert fuzz(honest, tmp_path, 200, seed=0) > 1


@pytest.mark.slow
def test_mutations_never_give_a_wrong_holds_nor_a_traceback(honest: dict[str, Path], tmp_path: Path) -> None:
    assert fuzz(honest, tmp_path, 12_000, seed=1) > 50


def fuzz(honest: dict[str, Path], folder: Path, count: int, seed: int) -> int:
    """How many of so many mutations still hold; each of them is held to `is_near`."""
    random, held = np.random.default_rng(seed), 0
    originals = [read(path) for path in honest.values()]
    for number in range(count):
        header, tensors = mutated(*originals[number % len(originals)], random)
        if random.random() < 0.5:  # the checksum that belongs to what they say, if it is anything
            with contextlib.suppress(Exception):
                header = resourced(header)
        path = forge(folder / "mutated", header, tensors)
        for target in (TARGET, None):
            try:
                found = verify(path, target=target)
            except (TicketError, InputError):
                continue
            assert isinstance(found, Certificate)
            if found.holds:
                held += 1
                assert is_near(load_ticket(path), found, target), (number, header)
    return held


def is_near(ticket: Ticket, found: Certificate, target: Target | None) -> bool:
    """The oracle: the network itself, run in float32 beside the target in plain NumPy, within what is promised.

    Nothing of the verifier but the tolerance that it says it checked.
    """
    own = target or ticket.target
    assert own is not None and found.tolerance is not None and found.nonnegative_inputs is not None
    x = np.random.default_rng(5).uniform(0 if found.nonnegative_inputs else -1, 1, (20, 9))
    exact, error, magnitude = x, np.zeros_like(x), np.abs(x)
    for layer in ("fc1", "fc2"):
        weight, bias = (own.array(f"{layer}.{name}").astype(np.float64) for name in ("weight", "bias"))
        # |f - g| of a layer: the weights' errors on its inputs, and the inputs' errors through the weights.
        size = np.abs(weight).T
        error = (magnitude + error) @ np.full_like(size, found.tolerance) + error @ size + found.tolerance
        exact = exact @ weight.T + bias
        exact = np.maximum(exact, 0) if layer == "fc1" else exact
        magnitude = np.abs(exact)
    # Not `forward`, which the verifier runs: this is the whole network, masks, dead units and all.
    made = np.asarray(ticket.module()(jnp.asarray(x, jnp.float32)), np.float64)  # type: ignore[operator]
    return bool((np.abs(made - exact) <= error + 1e-3 * np.abs(exact).max() + 1e-3).all())
