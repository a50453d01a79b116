"""Every learner of masks, and every source of a comparison, by name."""

from collections.abc import Callable

from lottery_jax.mask_learning.biprop import Biprop
from lottery_jax.mask_learning.edge_popup import EdgePopup, IteRand
from lottery_jax.mask_learning.evolution import Evolution
from lottery_jax.mask_learning.gem_miner import GemMiner
from lottery_jax.mask_learning.learner_sources import plain_source, wide_source
from lottery_jax.mask_learning.multi_level import MultiBitSupermask, SignedSupermask
from lottery_jax.mask_learning.supermask import HardConcrete, RescaledSupermask, Supermask
from lottery_jax.networks.network import Network
from lottery_jax.training.learner import Learner

LEARNERS: dict[str, type[Learner]] = {
    learner.name: learner
    for learner in (
        *(EdgePopup, IteRand, Supermask, RescaledSupermask, GemMiner, HardConcrete),
        *(Biprop, SignedSupermask, MultiBitSupermask, Evolution),
    )
}


def _gadget(source: Network) -> Network:
    """the random network of pensia."""
    return source


def _wide(source: Network) -> Network:
    """a plain random network, as deep as the target and with as many weights as that of pensia."""
    return wide_source(source)


def _plain(source: Network) -> Network:
    """a random network of the target's own architecture, without biases."""
    return plain_source(source)


SOURCES: dict[str, Callable[[Network], Network]] = {"gadget": _gadget, "wide": _wide, "plain": _plain}
"""From the source of Theorem 1 of Pensia et al. 2020 to the source whose masks are learned."""
