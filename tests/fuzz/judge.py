"""Whether a ticket that the verifier accepts computes what it promises: the float32 network on adversarial inputs."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import FixedGate
from lottery_jax.networks.rewrites import match_rewrites
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import with_samplers
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.ticket import Ticket, load_ticket
from tests.fuzz.allowed_error import allowed_outputs
from tests.oracle.effective import residuals
from tests.oracle.ticket_file import read_ticket

STARTS, STEPS = 24, 16
SLACK = 2.0
"""A weight may be this many tolerances away: the float32 network's own error may be as large as the tolerance."""


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The largest |g - f| as a multiple of what is allowed for its input and output; above 1 the verdict is wrong."""

    ratio: float
    deviation: float
    vacuous: bool

    @property
    def wrong(self) -> bool:
        return not self.ratio <= 1 or self.vacuous


def promised_box(certificate: Certificate) -> tuple[float, float]:
    """The range of inputs that a certificate is about."""
    box = getattr(certificate, "box", None)
    if box is not None:
        return box
    return (0.0 if certificate.nonnegative_inputs else -1.0), 1.0


def weight_tolerances(ticket: Ticket, target: Target, certificate: Certificate) -> dict[str, float]:
    """The tolerance of each approximated tensor that a certificate promises, in the target's units."""
    relative = certificate.relative_tolerance
    found = {}
    for name in ticket.network.approximated:
        assert certificate.tolerance is not None
        found[name] = certificate.tolerance if relative is None else relative * target.scan(name).largest
    return found


def as_compared(target: Target, ticket: Ticket) -> Target:
    """The target with the layers of the ticket's network; a ticket's own copy has them."""
    return target if target.network.root == ticket.network.target.root else match_rewrites(target, ticket.network)


def residual_ratio(path: Path, target: Target, certificate: Certificate) -> float:
    """The largest residual that the independent reader of the format finds, as a multiple of its tensor's tolerance."""
    ticket = load_ticket(path)
    target = as_compared(target, ticket)
    found = residuals(read_ticket(path), {name: target.array(name) for name in ticket.network.approximated})
    tolerance, smallest = weight_tolerances(ticket, target, certificate), float(np.finfo(np.float32).tiny)
    return max(float(value.max()) / max(tolerance[name], smallest) for name, value in found.items())


def judge(ticket: Ticket, target: Target, certificate: Certificate, seed: int = 0, *, search: bool = True) -> Judgement:
    """Compare the float32 network with the target on inputs that a gradient search finds in the promised box.

    Args:
        search: False to run only three inputs, for networks that take long.
    """
    target = as_compared(target, ticket)
    arrays = {name: np.asarray(target.array(name)).astype(np.float64) for name in target.network.tensors}
    tolerance = weight_tolerances(ticket, target, certificate)
    vacuous = all(float(np.abs(arrays[name]).max()) <= tolerance[name] for name in tolerance)
    if ticket.network.input_spec is None:
        return Judgement(0.0, 0.0, vacuous)
    low, high = promised_box(certificate)
    x, made = _adversarial_outputs(ticket, target, low, high, seed, search=search)
    doubled = {name: SLACK * value for name, value in tolerance.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = allowed_outputs(target.network.to_json(), arrays, doubled, x.astype(np.float64))
        deviation = np.abs(made - allowed.value.reshape(len(x), -1))
        ratio = deviation / (allowed.error.reshape(len(x), -1) + np.finfo(np.float32).tiny)
    # NaN is never within anything, and neither is an output that is not finite, unless the target's own is neither.
    ratio = np.where(np.isfinite(made), ratio, np.inf)
    exists = np.isfinite(allowed.value).reshape(ratio.shape)
    return Judgement(float(ratio.max(initial=0.0, where=exists)), float(deviation.max()), vacuous)


def _adversarial_outputs(
    ticket: Ticket, target: Target, low: float, high: float, seed: int, *, search: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Corners, random inputs and the ends of gradient searches from them, [B, *input] float32, and the outputs."""
    network = ticket.network
    assert network.input_spec is not None
    random, shape = np.random.default_rng(seed), network.input_spec.shape
    x = random.uniform(low, high, (STARTS, *shape))
    corners = random.choice([low, high], (STARTS, *shape))
    x[::2] = corners[::2]
    x[0], x[2], x[4] = low, high, np.clip(0.0, low, high)
    x = np.concatenate([x, _unit_corners(target, low, high)]).astype(np.float32)
    own = {**ticket.masked_source(), **ticket.masked_stored}
    own |= {name: np.float32(gain) for name, gain in network.gains.items()}
    other = {name: target.array(name).astype(np.float32) for name in target.network.tensors}
    same = network.with_gains(dict.fromkeys(network.gains, 1.0))
    with contextlib.suppress(InputError):  # not of a ladder: one compiled program for all samplers
        same = with_samplers(same, lambda _: Sampler.normal(1), "")
    x = x if search else x[:3]
    found, outputs = _search(same, target.network, own, other, x, np.float32(low), np.float32(high), search)
    return np.asarray(found), np.asarray(outputs, np.float64).reshape(len(found), -1)


def _unit_corners(target: Target, low: float, high: float) -> np.ndarray:
    """The corners of the box at which units of a first dense layer are largest, [units, *input]; 8 at most."""
    assert target.network.input_spec is not None
    shape, name = target.network.input_spec.shape, next(iter(target.network.approximated))
    weight = target.array(name).astype(np.float64)[:8]
    if weight.ndim != 2 or weight.shape[1] != math.prod(shape):
        return np.zeros((0, *shape))
    flat = np.where(weight > 0, high, low)
    return np.moveaxis(flat.reshape(len(flat), shape[-1], *shape[:-1]), 1, -1)  # flattened channels first


@functools.partial(jax.jit, static_argnums=(0, 1, 7))
def _search(
    network: Network,
    target: Network,
    own: Mapping[str, Any],
    other: Mapping[str, Any],
    x: Any,
    low: Any,
    high: Any,
    search: bool,
) -> tuple[jax.Array, jax.Array]:
    """Inputs [3 B, *input] and the masked network's outputs there.

    The inputs are those given, and the ends of signed gradient ascent on the difference of one output per start, and on
    the target's output. The last search makes units of the target active that random inputs seldom reach.
    """
    module = network.module(own, lambda name: FixedGate(jnp.array(True)))
    rows = jnp.arange(len(x))

    def difference(x: jax.Array) -> jax.Array:
        outputs = (module(x) - target.module(other)(x)).reshape(len(x), -1)  # type: ignore[operator]
        return jnp.abs(outputs)[rows, rows % outputs.shape[1]].sum()

    def output(x: jax.Array) -> jax.Array:
        outputs = target.module(other)(x).reshape(len(x), -1)  # type: ignore[operator]
        return jnp.where(rows % 2 == 0, 1.0, -1.0) @ outputs[rows, rows // 2 % outputs.shape[1]]

    def ascend(objective: Any) -> jax.Array:
        def step(x: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
            gradient = jnp.nan_to_num(jax.grad(objective)(x))
            size = (high - low) / 2 * (1 - index / STEPS)
            return jnp.clip(x + size * jnp.sign(gradient), low, high), None

        return jax.lax.scan(step, x, jnp.arange(STEPS, dtype=jnp.float32))[0]

    found = jnp.concatenate([x, ascend(difference), ascend(output)]) if search else x
    return found, module(found)  # type: ignore[operator]
