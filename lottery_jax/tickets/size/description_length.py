"""How many bits it takes to describe a ticket's network: everything that was free to choose, and nothing else.

The tree with its gains and samplers, the seed, which blocks were drawn again and the masks as the entropy coder writes
them, and tensors that are stored as they are: of weights that were trained, those that are kept. The target is not
part of it, nor is what the reader is told about how the ticket was made. Beside it what the target's own weights take,
rounded to a grid and written by the same coder.
"""

import json
import math
from collections.abc import Mapping

import numpy as np

from lottery_jax.io.tensor_file import Store, read_float64
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target
from lottery_jax.tickets.size.mask_codes import coded_bits
from lottery_jax.tickets.size.subset_codes import LIMIT, MOST_FINE, cheapest, class_of, gamma_bits, number_bits
from lottery_jax.tickets.ticket import Ticket, kept_bits

_SLICE = 1 << 20  # weights of the target looked at at once


def description_bits(ticket: Ticket) -> dict[str, int]:
    """Bits by part. Redraws and masks: what a coded file has of them, but for the ends of the coder's words."""
    network = ticket.network
    redraws, masks = coded_bits(network, ticket.seed, ticket.content)
    # Weights that were trained are stored where the mask keeps them, and known to be zero elsewhere.
    stored = {name: math.prod(shape) for name, shape in network.tensors.items()}
    stored |= {own: kept_bits(ticket.content, name) for name, own in network.trained_tensors.items()}
    return {
        "header": _tree_bits(network) + 64,
        "redraws": math.ceil(redraws),
        "masks": math.ceil(masks),
        "stored": 32 * sum(stored.values()),
    }


def rounding_bits(target: Target, largest_error: float | Mapping[str, float]) -> dict[str, int] | None:
    """Bits by part of a target whose weights are rounded to a grid, each at most `largest_error` away (of its tensor).

    The tree, 64 bits of a grid's step, the weights that a ticket approximates as multiples of it, written by the
    coder of the masks, and the others as they are. For an error of 0 the grid of each tensor is the coarsest that has
    all of its weights. None where there is no such grid within 62 bits.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> target = mlp_target([np.array([[0.25, -0.5], [0.25, 0.0]], np.float32)])
    >>> rounding_bits(target, 0.0)["weights"], rounding_bits(target, 1.0)["weights"]
    (22, 9)
    """
    network = target.network
    same = isinstance(largest_error, int | float)
    weights, steps = 0.0, 64 if same and largest_error else 0
    for name in network.approximated:
        error = largest_error if isinstance(largest_error, int | float) else largest_error[name]
        if not 0 <= error < math.inf:
            return None
        step = 2 * error or _exact_step(target.tensors, name)
        steps += 0 if same and error else 64  # one of its own
        counts = _counts(target.tensors, name, step)
        if counts is None:
            return None
        fine, counts = cheapest(counts, MOST_FINE)
        weights += gamma_bits(fine) + number_bits(counts, fine)
    stored = sum(math.prod(shape) for name, shape in network.tensors.items() if name not in network.approximated)
    return {"header": _tree_bits(network) + steps, "weights": math.ceil(weights), "stored": 32 * stored}


def _tree_bits(network: Network) -> int:
    return 8 * len(json.dumps(network.to_json(), separators=(",", ":"), sort_keys=True))


def _counts(store: Store, name: str, step: float) -> np.ndarray | None:
    """Counts of the multiples of a step that weights are nearest to, as whole numbers 0, -1, 1, -2, ... by class."""
    found, size = np.zeros(0, np.int64), store.tensors[name].size
    for first in range(0, size, _SLICE):
        with np.errstate(over="ignore"):  # of a step that is next to nothing
            nearest = np.rint(read_float64(store, name, first, min(_SLICE, size - first)) / step)
        if not np.abs(nearest).max() < LIMIT / 2:
            return None
        signed = nearest.astype(np.int64)
        counts = np.bincount(class_of(2 * np.abs(signed) - (signed < 0), MOST_FINE), minlength=len(found))
        counts[: len(found)] += found
        found = counts
    return found


def _exact_step(store: Store, name: str) -> float:
    """The largest power of two that all weights of a tensor are multiples of; 1 where all are 0."""
    least, size = math.inf, store.tensors[name].size
    for first in range(0, size, _SLICE):
        mantissa, exponent = np.frexp(read_float64(store, name, first, min(_SLICE, size - first)))
        whole = np.abs(mantissa * 2.0**53).astype(np.int64)
        some = whole > 0
        if some.any():
            lowest = np.log2((whole & -whole)[some].astype(np.float64)).astype(np.int64)
            least = min(least, int((exponent[some] - 53 + lowest).min()))
    return 1.0 if math.isinf(least) else math.ldexp(1.0, int(least))
