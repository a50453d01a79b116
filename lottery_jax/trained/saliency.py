"""What a weight is worth before any training: scores of pruning at initialisation, larger ones kept.

Each differentiates the loss, or the outputs, of the network with the weights that are still there.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.network import Network
from lottery_jax.trained.retraining import ByName

Saliency = Callable[[Network, ByName, jax.Array, jax.Array], ByName]
"""Scores of all tensors {name: array} from a network, its tensors, images [B, ...] and labels [B]."""


def _loss(network: Network, images: jax.Array, labels: jax.Array) -> Callable[[ByName], jax.Array]:
    def loss(tensors: ByName) -> jax.Array:
        logits, _ = network.train(tensors, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss


def snip(network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """|w dL/dw|: how much the loss minds that the weight is taken away (Lee et al. 2019, arXiv 1810.02340)."""
    gradient = jax.grad(_loss(network, images, labels))(tensors)
    return {name: jnp.abs(tensors[name] * gradient[name]) for name in tensors}


def grasp(network: Network, tensors: ByName, images: jax.Array, labels: jax.Array) -> ByName:
    """w (H g): how much the flow of the gradient g is kept up by the weight (Wang et al. 2020, arXiv 2002.07376)."""
    descend = jax.grad(_loss(network, images, labels))
    gradient, product = jax.jvp(descend, (tensors,), (descend(tensors),))
    del gradient
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


def largest(scores: ByName, masks: Mapping[str, np.ndarray], keep: float) -> dict[str, np.ndarray]:
    """Masks of the round(keep * weights) largest scores of all tensors together; what is pruned stays so.

    Equal scores are kept in order of position.

    >>> found = largest({"w": np.array([3.0, 1.0, 2.0])}, {"w": np.array([False, True, True])}, 2 / 3)
    >>> found["w"].tolist()
    [False, True, True]
    """
    flat = np.concatenate([np.where(mask, np.asarray(scores[name]), -np.inf).ravel() for name, mask in masks.items()])
    order = np.argsort(-np.nan_to_num(flat, nan=-np.inf, posinf=np.inf, neginf=-np.inf), kind="stable")
    kept = np.zeros(flat.size, bool)
    kept[order[: round(keep * flat.size)]] = True
    kept &= np.concatenate([mask.ravel() for mask in masks.values()])
    ends = np.cumsum([mask.size for mask in masks.values()])[:-1]
    return {
        name: part.reshape(mask.shape) for (name, mask), part in zip(masks.items(), np.split(kept, ends), strict=True)
    }
