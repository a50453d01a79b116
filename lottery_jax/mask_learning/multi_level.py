"""Masks with more values than 0 and 1, learned on one random weight for each target weight: what such learners share.

The weights of a plain source are tied (`networks/sources/random_layer.py`), so that a ticket has seed and bits alone: of each
weight a bit for 1, 1/2, 1/4, ..., and where masks have signs as many for the negative ones.

Multi-bit supermasks: a kept random weight counts more or less, in steps of a power of two.

After Okoshi et al. (TMLR 2025, "TicketLLM"), who quantise the scores with a step that adapts to them, and find the kept
fraction thereby. Here it is asked for, and levels are equally frequent, so that they are nested masks as in Okoshi et
al. 2022 ("Multicoated supermasks").
Signed supermasks (Koster et al. 2022, arXiv 2201.13361): a weight is kept, hidden, or turned to its negative.

Published are both a fixed threshold of |score| and a top fraction; here it is the fraction. The gradient passes
straight through to the score.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.score_learner import ScoreLearner
from lottery_jax.mask_learning.scores import Tensors, initial_scores, straight_through
from lottery_jax.mask_learning.train_scores import RunInputs
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.random_layer import MultiLevelLayer, RandomLayer
from lottery_jax.networks.top_k import top_k_mask


@dataclasses.dataclass(frozen=True)
class MultiLevelLearner(ScoreLearner):
    """A score for each random weight [*shape]; the top ones by size are kept, with a sign or in parts.

    Of each tensor round(keep * size) weights are kept, one fewer where that does not divide. Of those, as many have
    each level from 2**(1 - bits) up in steps of that, the largest scores the highest. The gradient passes straight
    through to the score, or to its size where masks have no sign.
    """

    @abc.abstractmethod
    def levels(self) -> tuple[int, bool]:
        """Bits of a mask's size, and whether it has a sign."""

    @property
    def factors(self) -> tuple[float, ...]:
        """What the bits of a weight count."""
        bits, signed = self.levels()
        sizes = tuple(2.0**-place for place in range(bits))
        return sizes + tuple(-size for size in sizes) if signed else sizes

    def prepared(self, source: Network) -> Network:
        return super().prepared(source).map_layers(self._tied)

    def _tied(self, path: str, node: Node) -> Node:
        if isinstance(node, RandomLayer):
            return MultiLevelLayer(node.layer, node.sampler, self.factors, node.gain)
        if isinstance(node, Source) and not (isinstance(node, MultiLevelLayer) and node.factors == self.factors):
            raise InputError(
                f"{self.name} is for plain random layers, and {path!r} is a {node.kind}; learn on the plain source"
            )
        return node

    def initial(self, network: Network, seed: int) -> dict[str, np.ndarray]:
        def plain(path: str, node: Node) -> Node:
            return RandomLayer(node.layer, node.sampler) if isinstance(node, MultiLevelLayer) else node

        return initial_scores(network.map_layers(plain), seed)

    def warm_start_scores(
        self, scores: dict[str, np.ndarray], masks: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        found = {}
        for name, score in scores.items():
            value = (masks[name] @ np.asarray(self.factors)).astype(np.float32)
            # The least size that is not zero becomes twice the largest score.
            size = np.abs(score) + np.abs(score).max() * 2 * np.abs(value) / abs(self.factors[-1])
            found[name] = np.copysign(size, np.where(value == 0, score, value)).astype(np.float32)
        return found

    def force_scores(self, scores: Tensors, forced: Tensors) -> Tensors:
        return super().force_scores(
            scores, {name: jnp.asarray(own)[..., 0] for name, own in forced.items()}
        )  # bits share it

    def masks(self, scores: Tensors, run: RunInputs, key: jax.Array) -> Tensors:
        # Half of a weight's gradient goes through each of two bits, whatever these count.
        shares = 1 / (len(self.factors) * np.asarray(self.factors, np.float32))
        found = {}
        for name, score in scores.items():
            soft = score if self.levels()[1] else jnp.abs(score)
            found[name] = straight_through(self._bits(score, run.counts[name]), soft[..., None] * shares)
        return found

    def _bits(self, score: jax.Array, counted: jax.Array) -> jax.Array:
        """Bits bool [*shape, F]; counted: of the mask's bits, F of a weight."""
        (bits, signed), count = self.levels(), counted // len(self.factors)
        levels = 2**bits - 1
        kept = [top_k_mask(score, count - count // levels * place) > 0 for place in range(levels)]
        level = sum((mask.astype(jnp.int32) for mask in kept), jnp.zeros(score.shape, jnp.int32))
        found = (level[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.int32)) & 1 == 1
        if not signed:
            return found
        positive = (score > 0)[..., None]
        return jnp.concatenate([found & positive, found & ~positive], -1)


MOST_BITS = 4  # each level is a search for its threshold


@dataclasses.dataclass(frozen=True)
class MultiBitSupermask(MultiLevelLearner):
    """Multi-bit supermask (after Okoshi et al. 2025): masks of some bits on frozen random weights, more for top scores.

    At most round(keep * size) weights of each tensor are kept.

    >>> MultiBitSupermask(bits=3).factors
    (1.0, 0.5, 0.25)
    """

    name: ClassVar[str] = "multi-bit-supermask"
    sources: ClassVar[tuple[str, ...]] = ("plain",)

    bits: int = 2
    """Bits of a mask's size, 1 to 4."""
    signed: bool = False
    """Whether a mask also has a sign, that of the score."""

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 1 <= self.bits <= MOST_BITS:
            raise InputError(f"bits must be a whole number from 1 to {MOST_BITS}, not {self.bits!r}")

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
