"""Pruning from scratch (Wang et al. 2020, arXiv 1909.12579): which units are needed is learned on random weights.

Each unit has a gate from 0 to 1 that its weights are multiplied by; the weights stay as they were drawn. Gates lower
the loss, and the mean gate of each layer is pulled to the fraction that shall be kept. Then the weights of the units of
the highest gates are kept, and trained. Gates of the output layer are of its inputs: every class is needed.
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
from lottery_jax.training.loop import Moved, advance, begin


@dataclasses.dataclass(frozen=True)
class PruningFromScratch(PruningAtInitialisation):
    """Pruning from scratch (Wang et al. 2020): units whose gates on random weights end highest are kept, and trained.

    All weights are ranked by their unit's gate, so that the last unit may be kept in part: counts are exact.
    """

    name: ClassVar[str] = "pruning-from-scratch"

    gate_epochs: int = 10
    """Epochs in which gates are learned."""
    gate_rate: float = 0.01
    """Learning rate of the gates, by Adam."""
    balance: float = 0.5
    """Factor of the squared difference of a layer's mean gate from the kept fraction."""

    def masks(self, random: Network, dataset: Dataset, tensors: ByName, seed: int, keep: float) -> MasksByName:
        """As in `PruningAtInitialisation`."""
        if self.gate_epochs < 1 or not 0 < self.gate_rate < np.inf or not 0 <= self.balance < np.inf:
            raise InputError(
                f"gate_epochs {self.gate_epochs}, gate_rate {self.gate_rate}, balance {self.balance}; give at least one"
                " epoch, a positive rate and a factor from 0 up"
            )
        names, train = weight_names(random), jax.tree.map(jnp.asarray, dataset.train)
        key, wanted = jax.random.key(seed % 2**32), jnp.float32(keep)
        found = _gates(self, random.target, tuple(names), tensors, key, wanted, train)
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
    """The gates of the named tensors when they are learned, [O, 1, ...], and [1, I, 1, ...] of the last one."""

    def loss(gates: ByName, images: jax.Array, labels: jax.Array, _: jax.Array | None) -> tuple[jax.Array, Moved]:
        gated = {**tensors, **{name: gates[name] * tensors[name] for name in names}}
        # Not as in training: statistics of the batch would undo what gates do.
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
