"""Masks with more values than 0 and 1: the ticket has bits for 1, 1/2, 1/4, ... of each weight, and their negatives.

Multi-bit supermasks follow Okoshi et al. (TMLR 2025, "TicketLLM"), with a given kept fraction and equally frequent
levels, so that they are nested masks as in Okoshi et al. 2022 ("Multicoated supermasks"). Signed supermasks follow
Koster et al. 2022 (arXiv 2201.13361) with a top fraction instead of a fixed threshold.
"""

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.score_learner import RunInputs, SGDScoreLearner
from lottery_jax.mask_learning.scores import Arrays, Tensors, straight_through
from lottery_jax.mask_learning.train_scores import train_scores
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.random_layer import MultiLevelLayer, RandomLayer
from lottery_jax.networks.top_k import top_k_mask


@dataclasses.dataclass(frozen=True)
class MultiLevelLearner(SGDScoreLearner):
    """A score for each random weight [*shape]; the top ones are kept, with a sign or a level.

    Of each tensor round(keep * size) weights are kept, one fewer if that does not divide. They have the levels
    2**(1 - bits), 2 * 2**(1 - bits), ... equally often, the largest scores the highest. The gradient passes straight
    through to the score, or to its absolute value if masks have no sign.
    """

    learn = sweep = train_scores

    @abc.abstractmethod
    def levels(self) -> tuple[int, bool]:
        """Bits of the absolute value of a mask entry, and whether it has a sign."""

    @property
    def factors(self) -> tuple[float, ...]:
        """Values of the bits of a weight."""
        bits, signed = self.levels()
        sizes = tuple(2.0**-place for place in range(bits))
        return sizes + tuple(-size for size in sizes) if signed else sizes

    def prepare(self, source: Network) -> Network:
        return super().prepare(source).map_layers(self._multi_level)

    def _multi_level(self, path: str, node: Node) -> Node:
        if isinstance(node, RandomLayer):
            return MultiLevelLayer(node.layer, node.sampler, self.factors, node.gain)
        if isinstance(node, Source) and not (isinstance(node, MultiLevelLayer) and node.factors == self.factors):
            raise InputError(
                f"{self.name} must have a source of plain random layers, and {path!r} is a {node.kind}. Learn on the"
                " plain source."
            )
        return node

    def initial(self, network: Network, seed: int) -> Arrays:
        def plain(path: str, node: Node) -> Node:
            return RandomLayer(node.layer, node.sampler) if isinstance(node, MultiLevelLayer) else node

        return super().initial(network.map_layers(plain), seed)

    def warm_start_scores(self, scores: Arrays, masks: Arrays) -> Arrays:
        found = {}
        for name, score in scores.items():
            value = (masks[name] @ np.asarray(self.factors)).astype(np.float32)
            # The least level becomes twice the largest score.
            size = np.abs(score) + np.abs(score).max() * 2 * np.abs(value) / abs(self.factors[-1])
            found[name] = np.copysign(size, np.where(value == 0, score, value)).astype(np.float32)
        return found

    def force_scores(self, scores: Tensors, forced: Tensors) -> Tensors:
        # All bits of a weight have the same entry.
        return super().force_scores(scores, {name: jnp.asarray(own)[..., 0] for name, own in forced.items()})

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        # Each of n bits has a share 1/n of the weight's gradient, whatever its value.
        shares = 1 / (len(self.factors) * np.asarray(self.factors, np.float32))
        found = {}
        for name, score in scores.items():
            soft = score if self.levels()[1] else jnp.abs(score)
            found[name] = straight_through(self._mask_bits(score, run.counts[name]), soft[..., None] * shares)
        return found

    def _mask_bits(self, score: jax.Array, kept_bits: jax.Array) -> jax.Array:
        """Bits of a mask, bool [*shape, F], for a number of kept bits, F for each weight."""
        (bits, signed), count = self.levels(), kept_bits // len(self.factors)
        levels = 2**bits - 1
        kept = [top_k_mask(score, count - count // levels * place) > 0 for place in range(levels)]
        level = sum((mask.astype(jnp.int32) for mask in kept), jnp.zeros(score.shape, jnp.int32))
        found = (level[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.int32)) & 1 == 1
        if not signed:
            return found
        positive = (score > 0)[..., None]
        return jnp.concatenate([found & positive, found & ~positive], -1)


MAX_BITS = 4  # each level is a search for its threshold


@dataclasses.dataclass(frozen=True)
class MultiBitSupermask(MultiLevelLearner):
    """Multi-bit supermask (after Okoshi et al. 2025): multi-bit masks on frozen random weights, higher for top scores.

    At most round(keep * size) weights of each tensor are kept.

    >>> MultiBitSupermask(bits=3).factors
    (1.0, 0.5, 0.25)
    """

    name: ClassVar[str] = "multi-bit-supermask"
    sources: ClassVar[tuple[str, ...]] = ("plain",)

    bits: int = 2
    """Bits of the absolute value of a mask entry, 1 to 4."""
    signed: bool = False
    """Give each mask entry the sign of its score."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.bits) is not int or not 1 <= self.bits <= MAX_BITS:
            raise InputError(f"`bits` must be a whole number from 1 to {MAX_BITS}, got {self.bits!r}. Change it.")

    def levels(self) -> tuple[int, bool]:
        return self.bits, self.signed


@dataclasses.dataclass(frozen=True)
class SignedSupermask(MultiLevelLearner):
    """Signed supermask (Koster et al. 2022): masks of -1, 0 and 1 on frozen random weights, those of the top scores.

    At most round(keep * size) weights of each tensor are kept, with the signs of their scores.

    >>> SignedSupermask().factors
    (1.0, -1.0)
    """

    name: ClassVar[str] = "signed-supermask"
    sources: ClassVar[tuple[str, ...]] = ("plain",)

    def levels(self) -> tuple[int, bool]:
        return 1, True
