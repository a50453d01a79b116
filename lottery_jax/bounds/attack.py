"""The search for the input where a ticket's network is farthest from its target: projected gradient ascent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.rewrites import match_rewrites
from lottery_jax.networks.target import Target
from lottery_jax.tickets.reconstruct import collapsed, effective_weights
from lottery_jax.tickets.ticket import Ticket


def attack(
    ticket: Ticket,
    target: Target,
    *,
    low: float = 0.0,
    high: float = 1.0,
    starts: int = 64,
    steps: int = 100,
    seed: int = 0,
    images: np.ndarray | None = None,
) -> float:
    """The largest |g - f| found in the box [low, high], of any output, float64: never more than the bound.

    From random corners and points, and from `images` [N, ...] if given, clipped into the box; each step goes a part of
    the box along the sign of the gradient of one output's difference. Madry et al. 2018 (arXiv 1706.06083).
    """
    network = ticket.network
    if network.input_spec is None or starts < 1 or steps < 1:
        raise InputError(f"{starts} starts and {steps} steps; give at least one of each, and a ticket of a network")
    plain, tensors = collapsed(ticket, effective_weights(ticket))
    whole = match_rewrites(target, network)
    random = np.random.default_rng(seed)
    shape = (starts, *network.input_spec.shape)
    begun = np.where(
        (np.arange(starts) % 2 == 0).reshape(-1, *[1] * len(network.input_spec.shape)),
        random.choice([low, high], shape),
        random.uniform(low, high, shape),
    )
    if images is not None:
        begun = np.concatenate([begun, np.clip(np.asarray(images, np.float64)[:starts], low, high)])
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        own = {name: jnp.asarray(value, jnp.float64) for name, value in tensors.items()}
        theirs = {name: jnp.asarray(whole.array(name), jnp.float64) for name in whole.network.tensors}
        found = _climbed(
            plain, whole.network, own, theirs, jnp.asarray(begun), jnp.float64(low), jnp.float64(high), steps
        )
        return float(found)


@functools.partial(jax.jit, static_argnums=(0, 1, 7))
def _climbed(
    plain: Network, target: Network, own: dict, theirs: dict, x: jax.Array, low: jax.Array, high: jax.Array, steps: int
) -> jax.Array:
    """The largest difference seen on the way."""

    def difference(x: jax.Array) -> jax.Array:
        return plain.module(own)(x) - target.module(theirs)(x)  # type: ignore[operator]

    def farthest(x: jax.Array) -> jax.Array:
        return jnp.abs(difference(x)).reshape(len(x), -1).max(1)

    def step(carry: tuple[jax.Array, jax.Array], done: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, best = carry
        slope = jax.grad(lambda x: farthest(x).sum())(x)
        size = (high - low) / 2 * (1 - done / steps)
        x = jnp.clip(x + size * jnp.sign(slope), low, high)
        return (x, jnp.maximum(best, farthest(x).max())), None

    (_, best), _ = jax.lax.scan(step, (x, farthest(x).max()), jnp.arange(steps, dtype=x.dtype))
    return best
