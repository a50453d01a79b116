"""A task that takes no time: forty examples of four numbers, and a target whose predictions are their labels."""

from collections.abc import Mapping

import numpy as np

from lottery_jax.data import Dataset, Split
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tasks import Task
from lottery_jax.tickets.ticket import Ticket, make_ticket

WEIGHTS = 18


def task(*, signed: bool = False, examples: int = 40, network: Network | None = None) -> Task:
    """A 4-3-2 network on images [2, 2, 1]; `network` in place of it."""
    random = np.random.default_rng(0)
    network = network or mlp((4, 3, 2), Spec((2, 2, 1), not signed))
    arrays = {name: random.standard_normal(shape).astype(np.float32) for name, shape in network.tensors.items()}
    arrays |= {name: np.abs(value) for name, value in arrays.items() if name.endswith("running_var")}
    target = Target(network, arrays)  # type: ignore[arg-type]
    images = random.random((examples, *network.input_spec.shape), dtype=np.float32) - (0.5 if signed else 0)
    labels = np.asarray(target.forward()(images)).argmax(1).astype(np.int32)
    split = Split(images, labels)
    return Task("tiny", Dataset("tiny", split, split, split, network.output_spec.shape[-1], not signed), target)


def single(network: Network, sampler: Sampler, gain: float = 1.0) -> Network:
    """One random weight in place of each."""

    def leaf(path: str, node: Node) -> Node:
        return RandomLayer(node, sampler, gain) if isinstance(node, LinearLayer) else node

    return network.map_layers(leaf)


def random_masks(source: Network, keep: float, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.random(drawn.shape) < keep for name, drawn in source.random_tensors.items()}


def masked(target: Target, keep: float, seed: int, *, promise: bool = False, **more) -> Ticket:
    """A ticket of random masks; with a promise that it is far from the target, which is kept or not."""
    source = single(target.network, Sampler.uniform(-1, 1))
    promised: Mapping = {"target": target, "tolerance": 9.0} if promise else {}
    return make_ticket(source, seed=seed, masks=random_masks(source, keep, seed), method="masked", **promised, **more)
