"""The float32 network run on random inputs: it must compute what its effective weights compute in float64.

A network that overflows, or whose large terms cancel, could have perfect weights and compute something else.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.networks.forward import batch_size, forward
from lottery_jax.networks.network import Network
from lottery_jax.tickets.reconstruct import collapse
from lottery_jax.tickets.ticket import Ticket

_RELATIVE = 1e-3


@dataclasses.dataclass(frozen=True)
class Probe:
    """Largest differences of outputs on random inputs, and how large rounding can make them.

    `deviation` is of the float32 network from the collapsed network in float64 (infinite if an output is not finite),
    `copies_deviation`, with replicated neurons, of the collapsed network from the target's network with the mean
    weights of the copies: large weights can cancel while each is within the tolerance. Allowed are the effect of moving
    every weight by a tenth of the tolerance, of mean weights by twice the tolerance, plus 0.1 % of the largest output.
    """

    deviation: float
    allowed: float
    copies_deviation: float
    copies_allowed: float

    @property
    def faults(self) -> list[str]:
        """Why the ticket is broken, in sentences."""
        found = []
        if self.deviation > self.allowed:
            found.append(
                f"its float32 network differs by {self.deviation:.3g} from its effective weights in float64 on random"
                f" inputs; rounding explains at most {self.allowed:.3g}"
            )
        if self.copies_deviation > self.copies_allowed:
            found.append(
                f"the copies of its neurons differ so much that its outputs on random inputs are"
                f" {self.copies_deviation:.3g} away from those of a network without copies; weights moved by the"
                f" tolerance explain at most {self.copies_allowed:.3g}"
            )
        return found


def probe_float32(ticket: Ticket, weights: Mapping[str, np.ndarray], tolerance: float) -> Probe:
    """Run the masked random network in float32, and its collapsed form in float64, on random inputs."""
    network = ticket.network
    assert network.input_spec is not None
    random = np.random.default_rng(0)
    low = 0.0 if network.input_spec.nonnegative else -1.0
    # The batch size of the evaluation: the same compiled program serves both.
    x = random.uniform(low, 1.0, (batch_size(network), *network.input_spec.shape)).astype(np.float32)
    x[-1] *= 16  # pixels are not the only inputs
    outputs = np.asarray(ticket.forward()(jnp.asarray(x)), np.float64)
    collapsed, tensors = collapse(ticket, weights)
    moved = dict(tensors)
    for name, value in tensors.items():
        if name not in network.tensors:
            moved[name] = value + tolerance / 10 * random.choice((-1.0, 1.0), value.shape)
    exact, moved_exact = (run_float64(collapsed, own, x) for own in (tensors, moved))
    copied = any(source.rows_per_weight > 1 for source in network.sources.values())
    copies = _compare_copies(ticket, weights, tolerance, x, exact) if copied else (0.0, 0.0)
    return Probe(*_compare(exact, outputs, moved_exact), *copies)


def _compare_copies(
    ticket: Ticket, weights: Mapping[str, np.ndarray], tolerance: float, x: np.ndarray, exact: np.ndarray
) -> tuple[float, float]:
    """Deviation of a network with replicated neurons from the one without, and the allowed one."""
    random = np.random.default_rng(1)
    stored = {name: value.astype(np.float64) for name, value in ticket.masked_stored.items()}
    means = {name: value.mean(0) for name, value in weights.items()}
    moved = {name: value + tolerance * random.choice((-1.0, 1.0), value.shape) for name, value in means.items()}
    single, moved_single = (run_float64(ticket.network.target, {**stored, **own}, x) for own in (means, moved))
    return _compare(single, exact, moved_single, 2.0)


def _compare(reference: np.ndarray, outputs: np.ndarray, moved: np.ndarray, factor: float = 1.0) -> tuple[float, float]:
    """The largest deviation of outputs, and the one that moved weights allow; what is not finite never passes."""
    with np.errstate(invalid="ignore", over="ignore"):
        deviation = float(np.abs(outputs - reference).max())
        effect = factor * np.abs(moved - reference).max()
        allowed = float(effect + _RELATIVE * np.abs(reference).max() + np.finfo(np.float32).tiny)
    return deviation if math.isfinite(deviation) else math.inf, allowed if math.isfinite(allowed) else 0.0


def run_float64(network: Network, tensors: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """Outputs of a network for inputs [B, ...], in float64."""
    # Flax's normalisations mix their float32 with the inputs' float64.
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        return np.asarray(forward(network, dict(tensors))(jnp.asarray(x, jnp.float64)))
