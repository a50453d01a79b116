"""A learner: scores, their masks, and a loss. With a line in `mask_learning/registry.py` it is a method."""

import dataclasses
import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from lottery_jax.networks.network import Network
from lottery_jax.networks.node import FixedGate
from lottery_jax.networks.top_k import top_k_mask
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.learner import Learner, TrainingRequest
from lottery_jax.training.loop import advance, begin


@dataclasses.dataclass(frozen=True)
class Scored(Learner):
    """Scores that begin as the sizes of the random weights, trained by Adam; the largest are kept."""

    name: ClassVar[str] = "scored"

    learning_rate: float = 0.01
    """Learning rate of Adam."""

    def learn(self, source: Network, request: TrainingRequest) -> list[Ticket]:
        @jax.jit  # once for all seeds and kept fractions
        def masks(random, keep, key):
            def gates(scores):
                return lambda name: FixedGate(top_k_mask(scores[name], keep))

            def loss(scores, images, labels, key):
                logits = source.module({**random, **request.stored}, gates(scores))(images)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), {}

            adam, train = optax.adam(self.learning_rate), request.dataset.train
            state = begin(jax.tree.map(jnp.abs, random), key=key, optimizer=adam)
            state, _ = advance(loss, state, train, optimizer=adam, epochs=request.epochs, batch_size=20)
            return {name: gates(state.parameters)(name)() > 0 for name in state.parameters}

        runs, tickets = list(itertools.product(request.seeds, request.keeps)), []
        for done, (seed, keep) in enumerate(runs, start=1):
            found = jax.device_get(masks(source.draw(seed), keep, jax.random.key(seed)))
            tickets.append(make_ticket(source, seed=seed, masks=found, method=self.name, stored=request.stored))
            request.progress(done, len(runs))
        return tickets
