"""What a weight is worth before any training: scores of pruning at initialisation, larger ones kept.

Each differentiates the loss, or the outputs, of the network with the weights that are still there.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.network import Network
from lottery_jax.trained.retraining import ByName
from lottery_jax.training import cross_entropy

Saliency = Callable[[Network, ByName, jax.Array, jax.Array], ByName]
"""Scores of all tensors {name: array} from a network, its tensors, images [B, ...] and labels [B]."""


def _gradient(network: Network, images: jax.Array, labels: jax.Array) -> Callable[[ByName], ByName]:
    loss = cross_entropy(network)
    return jax.grad(lambda tensors: loss(tensors, images, labels, None)[0])


def snip(network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """|w dL/dw|: how much the loss minds that the weight is taken away (Lee et al. 2019, arXiv 1810.02340)."""
    gradient = _gradient(network, images, labels)(tensors)
    return {name: jnp.abs(tensors[name] * gradient[name]) for name in tensors}


def grasp(network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """w (H g): how much the flow of the gradient g is kept up by the weight (Wang et al. 2020, arXiv 2002.07376)."""
    descend = _gradient(network, images, labels)
    _, product = jax.jvp(descend, (tensors,), (descend(tensors),))
    return {name: tensors[name] * product[name] for name in tensors}


def synflow(network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """|w| dR/d|w| with R the summed outputs of |weights| for ones: no data (Tanaka et al. 2020, arXiv 2006.05467)."""
    sizes = {name: jnp.abs(value) for name, value in tensors.items()}

    def flow(sizes: ByName) -> jax.Array:
        return network.module(sizes)(jnp.ones((1, *images.shape[1:]), jnp.float32)).sum()  # type: ignore[operator]

    gradient = jax.grad(flow)(sizes)
    return {name: sizes[name] * gradient[name] for name in sizes}


SALIENCIES: dict[str, tuple[Saliency, int]] = {"snip": (snip, 1), "grasp": (grasp, 1), "synflow": (synflow, 100)}
"""Scores by name, and in how many rounds they prune, as published."""


def saliency(name: str) -> tuple[Saliency, int]:
    """The scores of a name and their rounds; raises `InputError`."""
    if name not in SALIENCIES:
        raise InputError(f"saliency {name!r} is unknown; {suggest(name, SALIENCIES)}")
    return SALIENCIES[name]
