"""Transforms of sources, functions of a network: pre-prune, lock or share random weights.

The network records the transform, so that tickets need no further option. Absent and locked weights are drawn from the
seed and cost no bits.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node
from lottery_jax.networks.sources.base import Source
from lottery_jax.rng.sampler import Sampler


def with_samplers(source: Network, change: Callable[[Sampler], Sampler], refusal: str) -> Network:
    """The source with all samplers changed; raises `InputError` with `refusal` if a random layer has none."""

    def changed(value: Any) -> Any:  # a field: one sampler, or one for each tensor
        if isinstance(value, Sampler):
            return change(value)
        if isinstance(value, tuple) and value and all(isinstance(part, Sampler) for part in value):
            return tuple(change(part) for part in value)
        return value

    def layer(path: str, node: Node) -> Node:
        if not isinstance(node, Source):
            return node
        fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}  # type: ignore[arg-type]
        found = {name: new for name, value in fields.items() if (new := changed(value)) is not value}
        if not found:
            raise InputError(f"{refusal} for {path!r}, a {node.kind} without a sampler, or use another construction")
        return dataclasses.replace(node, **found)  # type: ignore[type-var]

    return source.map_layers(layer)


Transform = Callable[[Network], Network]


def transformed(source: Network, transforms: Sequence[Transform]) -> Network:
    """The source after these transforms, in order."""
    for transform in transforms:
        source = transform(source)
    return source


@dataclasses.dataclass(frozen=True)
class ShareLayers:
    """Take the weights of all random layers from one random tensor, the largest layer's (Hidden-Fold Networks).

    Lopez Garcia-Arias et al. 2021 (arXiv 2111.12330) share weights between the blocks of a residual network. Here every
    random layer starts at the same position of the streams: layers of equal shape have equal weights, others share
    parts. Masks differ.

    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.sources.random_layer import RandomLayer
    >>> normal = Sampler.normal(1)
    >>> layers = ("fc1", RandomLayer(Dense(3, 2), normal)), ("fc2", RandomLayer(Dense(2, 2), normal))
    >>> source = Network(Chain(layers), Spec((3,)))
    >>> source.source_weights, ShareLayers()(source).source_weights
    (10, 6)
    """

    def __call__(self, source: Network) -> Network:
        return dataclasses.replace(source, share_layers=True)


@dataclasses.dataclass(frozen=True)
class PrePrune:
    """Make random weights absent, with probability 1 - `density`: Gadhikar, Mukherjee and Burkholz 2023.

    Their sources (arXiv 2210.02412) are Erdos-Renyi graphs; their theorem widens the source by 1 / log(1 / (1 -
    density)). Here all random tensors are pre-pruned, also the first matrices of gadgets.

    Args:
        density: Fraction of the random weights that are present, in (0, 1].

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.sources.random_layer import RandomLayer
    >>> source = Network(RandomLayer(Dense(40, 25), Sampler.normal(1)), Spec((40,)))
    >>> int((PrePrune(0.3)(source).draw(0)["weight"] != 0).sum())
    294
    """

    density: float

    def __post_init__(self) -> None:
        if type(self.density) not in (int, float) or not 0 < self.density <= 1:
            raise InputError(
                f"density must be a fraction above 0 and at most 1 of the random weights, got {self.density!r}"
            )

    def __call__(self, source: Network) -> Network:
        if self.density == 1:
            return source

        def thinned(sampler: Sampler) -> Sampler:
            # Locked weights become absent with the same probability as others.
            density, locked = sampler.density * self.density, sampler.locked * self.density
            return dataclasses.replace(sampler, density=density, locked=locked)

        return with_samplers(source, thinned, "density must be 1")


@dataclasses.dataclass(frozen=True)
class Lock:
    """Lock random weights, with probability `locked`: all masks keep them (partially frozen sources).

    Otsuka et al. 2024 (arXiv 2402.14029) prune some weights (`PrePrune`) and lock others before learning. Constructions
    approximate the rest of each target weight; learners train around the locked weights. If the second weight of a
    gadget is locked, its first edge is kept too, unless it is absent. Locked weights are present: density 0.5 and
    locked 0.2 leave 0.3 of all weights to the mask. `Network.frozen_tensors` is another concept.

    Args:
        locked: Fraction of all random weights, in [0, 1).
    """

    locked: float

    def __post_init__(self) -> None:
        if type(self.locked) not in (int, float) or not 0 <= self.locked < 1:
            raise InputError(f"locked must be a fraction from 0 to below 1 of the random weights, got {self.locked!r}")

    def __call__(self, source: Network) -> Network:
        if self.locked == 0:
            return source
        return with_samplers(source, lambda one: dataclasses.replace(one, locked=self.locked), "locked must be 0")
