"""Folded sources (Lopez Garcia-Arias et al. 2021, "Hidden-Fold Networks", arXiv 2111.12330): one random tensor.

They fold a residual network in time, its blocks sharing their random weights under one mask. Here every random leaf of
any network begins at the same place of the seed's streams: layers of equal shape have equal random weights, and others
parts of the same ones. The random weights are as many as the largest layer's, and masks tell layers apart.
"""

import dataclasses

from lottery_jax.networks.network import Network


@dataclasses.dataclass(frozen=True)
class FoldLayers:
    """All layers take their random weights from one random tensor, that of the largest (Hidden-Fold Networks).

    >>> from lottery_jax.networks.layers.chain import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.sources.single import Single
    >>> from lottery_jax.sampler import Sampler
    >>> layers = ("fc1", Single(Dense(3, 2), Sampler.normal(1))), ("fc2", Single(Dense(2, 2), Sampler.normal(1)))
    >>> source = Network(Chain(layers), Spec((3,)))
    >>> source.source_weights, FoldLayers()(source).source_weights
    (10, 6)
    """

    def __call__(self, source: Network) -> Network:
        return dataclasses.replace(source, fold_layers=True)
