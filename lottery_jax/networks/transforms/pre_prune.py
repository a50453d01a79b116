"""Pre-pruned sources (Gadhikar, Mukherjee and Burkholz 2023, arXiv 2210.02412): tickets in sparse random networks.

Their sources are Erdos-Renyi graphs: each weight of the random network is there with a probability, all for itself, and
what is not there cannot be kept. It is drawn from the seed as the weights are, so that it costs no bits. Their theorem
widens the source by 1 / log(1 / (1 - density)). Here all random tensors are thinned, the first matrices of gadgets too.
"""

import dataclasses

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.transforms.samplers import with_samplers
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
        if self.density == 1:
            return source

        def thinned(sampler: Sampler) -> Sampler:
            # What was locked before is absent as often as all else.
            return dataclasses.replace(
                sampler, density=sampler.density * self.density, locked=sampler.locked * self.density
            )

        return with_samplers(source, thinned, "none can be absent; use a density of 1")
