"""Partially frozen sources (Otsuka et al. 2024, arXiv 2402.14029): tickets some of whose weights nobody chose.

They freeze a random part of the weights before anything is learned: some are pruned for good, which is `PrePrune`, and
some are locked, a part of every ticket, which is this. Both are drawn from the seed, so that neither costs bits, and
less is left to the mask. A construction meets what the locked candidates of a target weight leave of it; a learner
trains around them.

A locked second weight of a gadget counts where its first edge is kept, so that this edge always is, where it is there.
Not to be taken for `Network.frozen`, the weights of trained tickets that stay as they were drawn: a mask chooses those.
"""

import dataclasses

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.transforms.samplers import with_samplers


@dataclasses.dataclass(frozen=True)
class Lock:
    """Every random weight is in all masks with probability `locked`: decided by the seed (Otsuka et al. 2024).

    Of a source that is pre-pruned too, these are among the weights that are there: density 0.5 and 0.2 locked leave 0.3
    of all weights to the mask.

    >>> import numpy as np
    >>> from lottery_jax.networks.layers.chain import Chain
    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.node import Spec
    >>> from lottery_jax.networks.sources.decided import decided_mask
    >>> from lottery_jax.networks.sources.single import Single
    >>> from lottery_jax.sampler import Sampler
    >>> source = Network(Chain((("fc", Single(Dense(40, 25), Sampler.normal(1))),)), Spec((40,)))
    >>> int((decided_mask(Lock(0.3)(source).drawn["fc.weight"], 0, np.zeros((0, 2), np.int64)) == 1).sum())
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
