"""What any random source may be put through, whether a theorem or a learner asks for it: a function of networks each.

A transform takes a network with random leaves and gives it back with others: weights absent or always kept, or drawn
for all layers from one random tensor. The network says what was done, so that its tickets need nothing else.
"""

from collections.abc import Callable, Sequence

from lottery_jax.networks.network import Network

Transform = Callable[[Network], Network]


def transformed(source: Network, transforms: Sequence[Transform]) -> Network:
    """A source after these transforms, the first one first.

    >>> from lottery_jax.networks.layers.chain import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.sources.single import Single
    >>> from lottery_jax.networks.transforms.fold_layers import FoldLayers
    >>> from lottery_jax.sampler import Sampler
    >>> layers = tuple((name, Single(Dense(3, 3), Sampler.normal(1))) for name in ("fc1", "fc2"))
    >>> transformed(Network(Chain(layers), Spec((3,))), [FoldLayers()]).source_weights
    9
    """
    for transform in transforms:
        source = transform(source)
    return source
