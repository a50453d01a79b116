"""Every sampler of a source changed: what transforms of the random weights one by one have in common.

What any random source may be put through, whether a theorem or a learner asks for it: a function of networks each.

A transform takes a network with random leaves and gives it back with others: weights absent or always kept, or drawn
for all layers from one random tensor. The network says what was done, so that its tickets need nothing else.
Folded sources (Lopez Garcia-Arias et al. 2021, "Hidden-Fold Networks", arXiv 2111.12330): one random tensor.

They fold a residual network in time, its blocks sharing their random weights under one mask. Here every random leaf of
any network begins at the same place of the seed's streams: layers of equal shape have equal random weights, and others
parts of the same ones. The random weights are as many as the largest layer's, and masks tell layers apart.
Pre-pruned sources (Gadhikar, Mukherjee and Burkholz 2023, arXiv 2210.02412): tickets in sparse random networks.

Their sources are Erdos-Renyi graphs: each weight of the random network is there with a probability, all for itself, and
what is not there cannot be kept. It is drawn from the seed as the weights are, so that it costs no bits. Their theorem
widens the source by 1 / log(1 / (1 - density)). Here all random tensors are thinned, the first matrices of gadgets too.
Partially frozen sources (Otsuka et al. 2024, arXiv 2402.14029): tickets some of whose weights nobody chose.

They freeze a random part of the weights before anything is learned: some are pruned for good, which is `PrePrune`, and
some are locked, a part of every ticket, which is this. Both are drawn from the seed, so that neither costs bits, and
less is left to the mask. A construction meets what the locked candidates of a target weight leave of it; a learner
trains around them.

A locked second weight of a gadget counts where its first edge is kept, so that this edge always is, where it is there.
Not to be taken for `Network.frozen_tensors`, the weights of trained tickets that stay as they were drawn: a mask chooses those.
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
    """A source whose samplers are changed; raises `InputError` where a leaf has none, and so `refusal` is the case."""

    def changed(value: Any) -> Any:
        """What a field holds: one sampler, or one for each tensor."""
        if isinstance(value, Sampler):
            return change(value)
        if isinstance(value, tuple) and value and all(isinstance(part, Sampler) for part in value):
            return tuple(change(part) for part in value)
        return value

    def leaf(path: str, node: Node) -> Node:
        if not isinstance(node, Source):
            return node
        fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}  # type: ignore[arg-type]
        found = {name: new for name, value in fields.items() if (new := changed(value)) is not value}
        if not found:
            raise InputError(
                f"the weights of {path!r}, a {node.kind}, have no distribution of their own, so that {refusal}, or"
                " another construction"
            )
        return dataclasses.replace(node, **found)  # type: ignore[type-var]

    return source.map_layers(leaf)


Transform = Callable[[Network], Network]


def transformed(source: Network, transforms: Sequence[Transform]) -> Network:
    """A source after these transforms, the first one first.

    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.sources.random_layer import RandomLayer
    >>> from lottery_jax.networks.transforms import ShareLayers
    >>> from lottery_jax.rng.sampler import Sampler
    >>> layers = tuple((name, RandomLayer(Dense(3, 3), Sampler.normal(1))) for name in ("fc1", "fc2"))
    >>> transformed(Network(Chain(layers), Spec((3,))), [ShareLayers()]).source_weights
    9
    """
    for transform in transforms:
        source = transform(source)
    return source


@dataclasses.dataclass(frozen=True)
class ShareLayers:
    """All layers take their random weights from one random tensor, that of the largest (Hidden-Fold Networks).

    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.sources.random_layer import RandomLayer
    >>> from lottery_jax.rng.sampler import Sampler
    >>> layers = ("fc1", RandomLayer(Dense(3, 2), Sampler.normal(1))), ("fc2", RandomLayer(Dense(2, 2), Sampler.normal(1)))
    >>> source = Network(Chain(layers), Spec((3,)))
    >>> source.source_weights, ShareLayers()(source).source_weights
    (10, 6)
    """

    def __call__(self, source: Network) -> Network:
        return dataclasses.replace(source, share_layers=True)


@dataclasses.dataclass(frozen=True)
class PrePrune:
    """Every random weight is there with probability `density`, and else 0: decided by the seed (Gadhikar et al. 2023).

    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.sources.random_layer import RandomLayer
    >>> source = Network(Chain((("fc", RandomLayer(Dense(40, 25), Sampler.normal(1))),)), Spec((40,)))
    >>> int((PrePrune(0.3)(source).draw(0)["fc.weight"] != 0).sum())
    294
    """

    density: float

    def __post_init__(self) -> None:
        if type(self.density) not in (int, float) or not 0 < self.density <= 1:
            raise InputError(
                f"the density is {self.density!r}; it is the fraction of the random weights that are there, above 0 and"
                " at most 1"
            )

    def __call__(self, source: Network) -> Network:
        if self.density == 1:
            return source

        def thinned(sampler: Sampler) -> Sampler:
            # What was locked before is absent as often as all else.
            return dataclasses.replace(
                sampler, density=sampler.density * self.density, locked=sampler.locked * self.density
            )

        return with_samplers(source, thinned, "none can be absent; use a density of 1")


@dataclasses.dataclass(frozen=True)
class Lock:
    """Every random weight is in all masks with probability `locked`: decided by the seed (Otsuka et al. 2024).

    Of a source that is pre-pruned too, these are among the weights that are there: density 0.5 and 0.2 locked leave 0.3
    of all weights to the mask.

    >>> import numpy as np
    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.rng.forced_entries import forced_mask
    >>> from lottery_jax.networks.sources.random_layer import RandomLayer
    >>> from lottery_jax.rng.sampler import Sampler
    >>> source = Network(Chain((("fc", RandomLayer(Dense(40, 25), Sampler.normal(1))),)), Spec((40,)))
    >>> int((forced_mask(Lock(0.3)(source).random_tensors["fc.weight"], 0, np.zeros((0, 2), np.int64)) == 1).sum())
    294
    """

    locked: float

    def __post_init__(self) -> None:
        if type(self.locked) not in (int, float) or not 0 <= self.locked < 1:
            raise InputError(
                f"the locked fraction is {self.locked!r}; it is how many of the random weights are always kept, from 0"
                " to below 1"
            )

    def __call__(self, source: Network) -> Network:
        if self.locked == 0:
            return source
        return with_samplers(
            source,
            lambda sampler: dataclasses.replace(sampler, locked=self.locked),
            "none can be locked; lock none",
        )
