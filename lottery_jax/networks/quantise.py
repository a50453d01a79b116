"""Targets whose weights lie on a grid with a step that is a power of two, and how fine the grid of a tensor is."""

import math

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.fold import folded
from lottery_jax.networks.target import Target
from lottery_jax.storage.store import read_float64

MOST_TARGET_BITS = 24
"""Of a tensor's grid: what a float32 holds."""
_SLICE = 1 << 20  # weights looked at at once


def quantised(target: Target, bits: int) -> Target:
    """The target with each approximated tensor rounded to 2**bits steps of a power of two between -m and m, float32.

    m is the power of two from the tensor's largest |weight| up. Batch normalisations are folded first; stored tensors
    stay as they are.

    >>> from lottery_jax.networks.zoo.mlp import mlp_target
    >>> quantised(mlp_target([np.array([[0.3, -0.2]], np.float32)]), 3).array("fc1.weight").tolist()
    [[0.25, -0.25]]
    """
    check_bits(bits)
    target = folded(target)
    arrays = target.arrays()
    for name in target.network.approximated:
        largest = target.scan(name).largest
        if largest == 0:
            continue
        fraction, exponent = math.frexp(largest)
        step = exponent - (fraction == 0.5) + 1 - bits
        exact = np.asarray(target.array(name)).astype(np.float64)
        with np.errstate(over="ignore"):
            arrays[name] = np.ldexp(np.round(np.ldexp(exact, -step)), step).astype(np.float32)
    return Target(target.network, arrays)  # type: ignore[arg-type]


def check_bits(bits: int) -> None:
    """Refuse what is no number of bits for a quantised target; raises `InputError`."""
    if type(bits) is not int or not 1 <= bits <= MOST_TARGET_BITS:
        raise InputError(f"bits of a quantised target are from 1 to {MOST_TARGET_BITS}, not {bits!r}; 8 are usual")


def finest_exponent(target: Target, name: str) -> int | None:
    """The largest e such that every weight of a tensor is a multiple of 2**e; None where all are 0.

    >>> from lottery_jax.networks.zoo.mlp import mlp_target
    >>> finest_exponent(mlp_target([np.array([[0.75, -1.5]], np.float32)]), "fc1.weight")
    -2
    """
    size, found = target.tensors.tensors[name].size, None
    for start in range(0, size, _SLICE):
        values = read_float64(target.tensors, name, start, min(_SLICE, size - start))
        fraction, exponent = np.frexp(values[values != 0])
        whole = np.ldexp(fraction, 53).astype(np.int64)
        lowest = np.frexp((whole & -whole).astype(np.float64))[1] - 1  # its last bit that is set
        if len(whole):
            least = int((exponent - 53 + lowest).min())
            found = least if found is None else min(found, least)
    return found
