"""Description length of a ticket: the bits of everything that was free to choose, and nothing else.

For comparison: the target's own weights, rounded to a grid and written by the same coder.
"""

import json
import math
from collections.abc import Mapping

import numpy as np

from lottery_jax.io.tensor_file import TensorReader, read_float64
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target
from lottery_jax.tickets.size.entropy_coder import (
    LIMIT,
    MAX_MANTISSA_BITS,
    best_mantissa_bits,
    classes_of,
    gamma_bits,
    number_bits,
)
from lottery_jax.tickets.size.mask_codes import coded_bits
from lottery_jax.tickets.ticket import Ticket, count_kept

_SLICE = 1 << 20  # weights of the target in a slice


def description_bits(ticket: Ticket) -> dict[str, int]:
    """Bits by part: header, redraws, masks (both as in a coded file, without padding) and stored tensors."""
    network = ticket.network
    redraws, masks = coded_bits(network, ticket.seed, ticket.content)
    # Trained weights that are pruned are known to be zero.
    stored = {}
    for name, shape in network.tensors.items():
        stored[name] = math.prod(shape)
    for name, own in network.trained_tensors.items():
        stored[own] = count_kept(ticket.content, name)
    return {
        "header": _header_bits(network) + 64,
        "redraws": math.ceil(redraws),
        "masks": math.ceil(masks),
        "stored": 32 * sum(stored.values()),
    }


def rounding_bits(target: Target, largest_error: float | Mapping[str, float]) -> dict[str, int] | None:
    """Bits by part of a target whose approximated weights are rounded to a grid and coded like masks.

    Args:
        largest_error: Largest rounding error, of all weights or by tensor. For 0 each tensor gets the coarsest grid
            that contains all of its weights.

    Returns:
        Bits of the header (with 64 bits for each step), weights and stored tensors; None if no grid has codes.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> target = mlp_target([np.array([[0.25, -0.5], [0.25, 0.0]], np.float32)])
    >>> rounding_bits(target, 0.0)["weights"], rounding_bits(target, 1.0)["weights"]
    (22, 9)
    """
    network = target.network
    shared = not isinstance(largest_error, Mapping)
    weights, steps = 0.0, 64 if shared and largest_error else 0
    for name in network.approximated:
        error = largest_error[name] if isinstance(largest_error, Mapping) else largest_error
        if not 0 <= error < math.inf:
            return None
        step = 2 * error or _exact_step(target.tensors, name)
        steps += 0 if shared and error else 64
        counts = _count_classes(target.tensors, name, step)
        if counts is None:
            return None
        mantissa_bits, counts = best_mantissa_bits(counts, MAX_MANTISSA_BITS)
        weights += gamma_bits(mantissa_bits) + number_bits(counts, mantissa_bits)
    stored = sum(math.prod(shape) for name, shape in network.tensors.items() if name not in network.approximated)
    return {"header": _header_bits(network) + steps, "weights": math.ceil(weights), "stored": 32 * stored}


def _header_bits(network: Network) -> int:
    return 8 * len(json.dumps(network.to_json(), separators=(",", ":"), sort_keys=True))


def _count_classes(store: TensorReader, name: str, step: float) -> np.ndarray | None:
    """Counts of weights rounded to multiples of a step, numbered 0, -1, 1, -2, ..., by class; None beyond `LIMIT`."""
    found, size = np.zeros(0, np.int64), store.tensors[name].size
    for first in range(0, size, _SLICE):
        with np.errstate(over="ignore"):  # with a tiny step
            nearest = np.rint(read_float64(store, name, first, min(_SLICE, size - first)) / step)
        if not np.abs(nearest).max() < LIMIT / 2:
            return None
        signed = nearest.astype(np.int64)
        counts = np.bincount(classes_of(2 * np.abs(signed) - (signed < 0), MAX_MANTISSA_BITS), minlength=len(found))
        counts[: len(found)] += found
        found = counts
    return found


def _exact_step(store: TensorReader, name: str) -> float:
    """The largest power of two that divides all weights of a tensor; 1 if all are 0."""
    least, size = math.inf, store.tensors[name].size
    for first in range(0, size, _SLICE):
        mantissa, exponent = np.frexp(read_float64(store, name, first, min(_SLICE, size - first)))
        whole = np.abs(mantissa * 2.0**53).astype(np.int64)
        nonzero = whole > 0
        if nonzero.any():
            lowest = np.log2((whole & -whole)[nonzero].astype(np.float64)).astype(np.int64)
            least = min(least, int((exponent[nonzero] - 53 + lowest).min()))
    return 1.0 if math.isinf(least) else math.ldexp(1.0, int(least))
