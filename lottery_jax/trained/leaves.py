"""A target's architecture with random leaves: where its weights begin, and the ticket of what became of them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lottery_jax.learned.inits import fan_in, fan_out
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Operation, child_path
from lottery_jax.networks.sources.single import Single
from lottery_jax.networks.sources.trained import PartlyTrained, Trained
from lottery_jax.sampler import Sampler
from lottery_jax.storage.sealed import digest
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.trained.pruning import MasksByName
from lottery_jax.trained.retraining import ByName


def glorot(operation: Operation) -> float:
    """The standard deviation of a layer's initial weights (Glorot & Bengio 2010): sqrt(2 / (fan-in + fan-out)).

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> glorot(Dense(6, 2))
    0.5
    """
    return math.sqrt(2 / (fan_in(operation) + fan_out(operation)))


def random_network(target: Network, *, trained: bool, frozen: bool = False) -> Network:
    """The target's layers with normal weights of Glorot's deviation; its own weights are not used.

    trained: whether what becomes of the weights is stored; else they are drawn and masked, and biases all pruned.
    frozen: whether pruned weights of what is trained may stay as they were drawn.

    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.zoo.mlp import mlp
    >>> random_network(mlp((4, 3, 2), Spec((4,))), trained=True).tensors
    {'fc1.trained_weight': (3, 4), 'fc2.trained_weight': (2, 3)}
    """
    kind = (PartlyTrained if frozen else Trained) if trained else Single

    def leaf(path: str, node: Node) -> Node:
        return kind(node, Sampler.normal(glorot(node))) if isinstance(node, Operation) else node

    return target.replaced(leaf)


def weight_names(random: Network) -> list[str]:
    """The tensors that are pruned, in the order of the tree; the last one is the output layer's."""
    return [child_path(path, "weight") for path in random.sources]


def initial_tensors(random: Network, seed: int) -> ByName:
    """The target's tensors before training, float32 by name: weights drawn from the seed, biases zero."""
    drawn, target = random.draw(seed), random.target
    others = {name: np.asarray(value) for name, value in target.initial(jax.random.key(seed % 2**32)).items()}
    return others | {name: drawn[name] for name in weight_names(random)}


def beginnings_digest(tensors: ByName, masks: MasksByName) -> str:
    """A digest of the weights that have masks, as a ticket says from where it was trained."""
    return digest("", {name: tensors[name] for name in masks})


def frozen_names(random: Network, frozen: MasksByName) -> MasksByName:
    """Masks of frozen weights, by the names that these have in the network; of one without them, none."""
    return {own: frozen[name] for name, own in random.frozen.items()}


def trained_ticket(
    random: Network, seed: int, masks: MasksByName, tensors: ByName, settings: Mapping[str, Any], *, method: str
) -> Ticket:
    """The ticket of tensors that were trained under masks; those of frozen weights are among the masks."""
    stored = {own: np.where(masks[name], tensors[name], np.float32(0)) for name, own in random.trained.items()}
    stored |= {name: tensors[name] for name in random.tensors if name not in stored}
    return make_ticket(random, seed=seed, masks=masks, method=method, stored=stored, settings=settings)


def untrained_ticket(
    random: Network,
    seed: int,
    masks: MasksByName,
    tensors: ByName,
    settings: Mapping[str, Any],
    *,
    method: str,
    constant: bool,
) -> Ticket:
    """The ticket of a mask on weights that were never trained, from seed and bits alone; biases are pruned.

    constant: weights of one size in each layer, its deviation, with the signs that they are drawn with.
    """

    def leaf(path: str, node: Node) -> Node:
        if not (constant and isinstance(node, Single)):
            return node
        # The sign of a drawn weight is one bit, the same under both samplers.
        return dataclasses.replace(node, sampler=Sampler.signed_constant(node.sampler.scale))

    whole = {name: masks.get(name, np.zeros(drawn.shape, bool)) for name, drawn in random.drawn.items()}
    stored = {name: tensors[name] for name in random.tensors}
    network = random.replaced(leaf)
    return make_ticket(network, seed=seed, masks=whole, method=method, stored=stored, settings=settings)
