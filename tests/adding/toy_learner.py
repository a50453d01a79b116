"""A learner: scores, their masks, and a loss. With a line in `mask_learning/registry.py` it is a method."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data import Dataset
from lottery_jax.networks.gates import FixedGate
from lottery_jax.networks.network import Network
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.progress import Progress
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.training.learner import Learner
from lottery_jax.training.loop import advance, begin


@dataclasses.dataclass(frozen=True)
class Scored(Learner):
    """Scores that begin as the sizes of the random weights, trained by Adam; the largest are kept."""

    name: ClassVar[str] = "scored"

    learning_rate: float = 0.01
    """Learning rate of Adam."""

    def learn(
        self,
        source: Network,
        dataset: Dataset,
        *,
        seeds: Sequence[int],
        keeps: Sequence[float],
        epochs: int,
        stored: Mapping[str, np.ndarray] | None = None,
        progress: Progress | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> list[Ticket]:
        @jax.jit  # once for all seeds and kept fractions
        def masks(random, keep, key):
            def gates(scores):
                return lambda name: FixedGate(top_k_mask(scores[name], keep))

            def loss(scores, images, labels, key):
                logits = source.module({**random, **(stored or {})}, gates(scores))(images)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), {}

            adam = optax.adam(self.learning_rate)
            state = begin(jax.tree.map(jnp.abs, random), key=key, optimizer=adam)
            scores = advance(loss, state, dataset.train, optimizer=adam, epochs=epochs, batch_size=20)[0].parameters
            return {name: gates(scores)(name)() > 0 for name in scores}

        runs, tickets = list(itertools.product(seeds, keeps)), []
        for place, (seed, keep) in enumerate(runs, start=1):
            found = jax.device_get(masks(source.draw(seed), keep, jax.random.key(seed)))
            tickets.append(make_ticket(source, seed=seed, masks=found, method=self.name, stored=stored))
            if progress is not None:
                progress(place, len(runs))
        return tickets
