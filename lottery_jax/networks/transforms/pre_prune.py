"""Pre-pruned sources (Gadhikar, Mukherjee and Burkholz 2023, arXiv 2210.02412): tickets in sparse random networks.

Their sources are Erdos-Renyi graphs: each weight of the random network is there with a probability, all for itself, and
what is not there cannot be kept. It is drawn from the seed as the weights are, so that it costs no bits. Their theorem
widens the source by 1 / log(1 / (1 - density)). Here all random tensors are thinned, the first matrices of gadgets too.
"""

import dataclasses

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node
from lottery_jax.networks.sources.source import Source
from lottery_jax.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class PrePrune:
    """Every random weight is there with probability `density`, and else 0: decided by the seed (Gadhikar et al. 2023).

    >>> from lottery_jax.networks.layers.chain import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.sources.single import Single
    >>> source = Network(Chain((("fc", Single(Dense(40, 25), Sampler.normal(1))),)), Spec((40,)))
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
        return source.replaced(self._leaf)

    def _leaf(self, path: str, node: Node) -> Node:
        if not isinstance(node, Source):
            return node
        found = {field.name: self._thinned(getattr(node, field.name)) for field in dataclasses.fields(node)}  # type: ignore[arg-type]
        found = {name: value for name, value in found.items() if value != getattr(node, name)}
        if not found and self.density < 1:
            raise InputError(
                f"the weights of {path!r}, a {node.kind}, have no distribution of their own, so that none can be"
                " absent; use a density of 1, or another construction"
            )
        return dataclasses.replace(node, **found)  # type: ignore[type-var]

    def _thinned(self, value: object) -> object:
        """What a field holds, its samplers (one, or one for each tensor) thinned."""
        if isinstance(value, Sampler):
            return dataclasses.replace(value, density=value.density * self.density)
        if isinstance(value, tuple) and value and all(isinstance(part, Sampler) for part in value):
            return tuple(self._thinned(part) for part in value)
        return value
