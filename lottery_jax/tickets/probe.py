"""The float32 network itself on random inputs: what the float64 weights say must be what it computes.

The certificate is about weights in exact arithmetic. A network whose numbers overflow, or whose large terms cancel,
could have perfect weights and compute something else; here it is run.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.networks.network import Network
from lottery_jax.networks.running import batch_size, forward
from lottery_jax.tickets.collapse import collapsed
from lottery_jax.tickets.ticket import Ticket

_RELATIVE = 1e-3


@dataclasses.dataclass(frozen=True)
class Probe:
    """The largest |f - g| of the float32 network f from the exact collapsed one g, and what rounding may explain.

    allowed: what a change of every weight by a tenth of the tolerance makes, and a thousandth of the largest output.
    apart: of a network with copies of its neurons, the largest |g - h| from the target's network h with the means of
    the copies' weights; apart_allowed: twice what a change of every weight of h by the tolerance makes. Each weight
    may be within the tolerance while large ones cancel, which they do not where the copies that they meet differ.
    """

    deviation: float
    allowed: float
    apart: float = 0.0
    apart_allowed: float = 0.0

    @property
    def passed(self) -> bool:
        """False where an output is NaN, too."""
        return self.deviation <= self.allowed


def probe(ticket: Ticket, made: Mapping[str, np.ndarray], tolerance: float) -> Probe:
    """Run the masked random network and its collapsed form on random inputs, negative ones where there may be any."""
    # made: the weights that the ticket makes, as `effective_weights` gives them.
    network = ticket.network
    assert network.given is not None
    random = np.random.default_rng(0)
    low = 0.0 if network.given.nonnegative else -1.0
    # As many as are evaluated at a time: the same compiled program serves both.
    x = random.uniform(low, 1.0, (batch_size(network), *network.given.shape)).astype(np.float32)
    x[-1] *= 16  # pixels are not the only inputs
    found = np.asarray(ticket.forward()(jnp.asarray(x)), np.float64)
    plain, weights = collapsed(ticket, made)
    changed = {
        name: value + tolerance / 10 * random.choice((-1.0, 1.0), value.shape) if name not in network.tensors else value
        for name, value in weights.items()
    }
    exact, moved = _exact(plain, weights, x), _exact(plain, changed, x)
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = np.abs(moved - exact).max() + _RELATIVE * np.abs(exact).max() + np.finfo(np.float32).tiny
        deviation = float(np.abs(found - exact).max())
    found_apart = _copies_apart(ticket, made, tolerance, x, exact)
    return Probe(*_finite(deviation, float(allowed)), *found_apart)


def _copies_apart(
    ticket: Ticket, made: Mapping[str, np.ndarray], tolerance: float, x: np.ndarray, exact: np.ndarray
) -> tuple[float, float]:
    """How far a network with copies is from the one without, and how far it may be."""
    if all(source.rows_each == 1 for source in ticket.network.sources.values()):
        return 0.0, 0.0
    random = np.random.default_rng(1)
    once = {name: value.astype(np.float64) for name, value in ticket.kept_stored.items()}
    means = {name: value.mean(0) for name, value in made.items()}
    changed = {name: value + tolerance * random.choice((-1.0, 1.0), value.shape) for name, value in means.items()}
    single, moved = (_exact(ticket.network.target, {**once, **weights}, x) for weights in (means, changed))
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = 2 * np.abs(moved - single).max() + _RELATIVE * np.abs(single).max() + np.finfo(np.float32).tiny
        return _finite(float(np.abs(single - exact).max()), float(allowed))


def _finite(deviation: float, allowed: float) -> tuple[float, float]:
    """What is not finite never passes."""
    return deviation if math.isfinite(deviation) else math.inf, allowed if math.isfinite(allowed) else 0.0


def _exact(network: Network, tensors: dict[str, Any], x: np.ndarray) -> np.ndarray:
    # Flax's normalisations mix their float32 with the inputs' float64.
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        return np.asarray(forward(network, tensors)(jnp.asarray(x, jnp.float64)))
