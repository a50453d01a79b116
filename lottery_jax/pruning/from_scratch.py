"""Pruning from scratch (Wang et al. 2020, arXiv 1909.12579): units are selected by gates on random weights.

Each unit has a gate in [0, 1] that multiplies its weights, which stay at their first values. Gates lower the loss,
and a penalty pulls the mean gate of each layer to the kept fraction. The units with the highest gates are kept and
trained. The gates of the output layer belong to its inputs, because every class is needed.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.pruning.at_initialisation import PruningAtInitialisation
from lottery_jax.pruning.base import weight_names
from lottery_jax.pruning.criteria import MasksByName, pruned
from lottery_jax.pruning.retraining import ByName
from lottery_jax.training.loop import Updates, advance, begin


@dataclasses.dataclass(frozen=True)
class PruningFromScratch(PruningAtInitialisation):
    """Pruning from scratch (Wang et al. 2020): the units with the highest gates on random weights are kept and trained.

    Weights are ranked by their unit's gate. One unit may be kept in part, so that kept counts are exact.
    """

    name: ClassVar[str] = "pruning-from-scratch"

    gate_epochs: int = 10
    """Epochs of the training of gates."""
    gate_rate: float = 0.01
    """Learning rate of the gates, trained by Adam."""
    balance: float = 0.5
    """Factor of the penalty, the squared difference of a layer's mean gate and the kept fraction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate_epochs < 1 or not 0 < self.gate_rate < np.inf or not 0 <= self.balance < np.inf:
            raise InputError(
                "`gate_epochs` must be at least 1, `gate_rate` positive and `balance` at least 0, got"
                f" {self.gate_epochs}, {self.gate_rate} and {self.balance}. Change the wrong one."
            )

    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        names, train = weight_names(random), jax.tree.map(jnp.asarray, dataset.train)
        key = jax.random.key(seed % 2**32)
        found = _gates(self, random.target, tuple(names), tensors, key, jnp.float32(keep), train)
        scores = {
            name: np.broadcast_to(np.asarray(gate, np.float64), np.shape(tensors[name])) for name, gate in found.items()
        }
        whole = {name: np.ones(score.shape, bool) for name, score in scores.items()}
        return pruned({name: scores[name] for name in names}, whole, keep, scope="global")


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _gates(
    learner: PruningFromScratch,
    network: Network,
    names: tuple[str, ...],
    tensors: ByName,
    key: jax.Array,
    keep: jax.Array,
    train: Split,
) -> ByName:
    """The trained gates of the named tensors, [O, 1, ...], and [1, I, 1, ...] of the last one."""

    def loss(gates: ByName, images: jax.Array, labels: jax.Array, _: jax.Array | None) -> tuple[jax.Array, Updates]:
        gated = {**tensors, **{name: gates[name] * tensors[name] for name in names}}
        # Not in training mode, because batch statistics would cancel the gates.
        logits = network.module(gated)(images)  # type: ignore[operator]
        sparsity = sum(((gate.mean() - keep) ** 2 for gate in gates.values()), jnp.float32(0))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean() + learner.balance * sparsity, {}

    def first(name: str) -> jax.Array:
        shape = tensors[name].shape
        side = 1 if name == names[-1] else 0
        return jnp.full([size if axis == side else 1 for axis, size in enumerate(shape)], 0.5)

    optimizer = optax.adam(learner.gate_rate)
    state, _ = advance(
        loss,
        begin({name: first(name) for name in names}, key=key, optimizer=optimizer),
        train,
        optimizer=optimizer,
        epochs=learner.gate_epochs,
        batch_size=min(learner.batch_size, len(train)),
        project=lambda old, new: jax.tree.map(lambda gate: jnp.clip(gate, 0.0, 1.0), new),
    )
    return state.parameters
