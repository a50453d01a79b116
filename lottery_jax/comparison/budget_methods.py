"""Methods with a budget of kept weights: subset sums within a budget, and the largest weights of the target.

A kept fraction is a fraction of the random network of Theorem 1, as for learned masks, so that all methods have the
same numbers of kept weights.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from lottery_jax.approximation.budget import Budget
from lottery_jax.approximation.chunk_store import MemoryChunkStore
from lottery_jax.approximation.importance import IMPORTANCES, fisher_importance
from lottery_jax.approximation.job import Objective, plan_job
from lottery_jax.approximation.loss_aware import LossAware
from lottery_jax.approximation.moments import default_examples
from lottery_jax.approximation.run import run_in_memory
from lottery_jax.comparison.methods import Method, MethodContext, first_paragraph
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.errors import InputError
from lottery_jax.networks.target import Target
from lottery_jax.pruning.base import random_network, trained_ticket, weight_names
from lottery_jax.pruning.criteria import highest
from lottery_jax.tickets.ticket import Ticket


def supports_budgets(construction: Construction) -> bool:
    """Whether the sizes of its subsets are free, and the source has each layer once."""
    try:
        Budget(1).check(construction)
    except InputError:
        return False
    return not construction.replicates_neurons


@dataclasses.dataclass(frozen=True)
class BudgetMethod(Method):
    """A budget of kept weights is spent by the Fisher information of the target's weights."""

    construction: Construction
    sweeps: ClassVar[bool] = True
    is_default: ClassVar[bool] = False

    @property
    def label(self) -> str:
        return f"{self.construction.name}-budget"

    @property
    def about(self) -> str:
        return f"{first_paragraph(type(self.construction))} {first_paragraph(type(self))}"

    def check(self, candidates: int, tolerance: float) -> None:
        Budget(1).check(self.construction)

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        # Budgets that differ only in their number of kept weights share their searches.
        objectives = self.objectives(context, [max(kept, 1) for kept in _counts(context, keeps)])
        finished, tickets = MemoryChunkStore(), []
        for objective in objectives:
            job = plan_job(context.target, self.construction, objective, seed=seed, transforms=context.transforms)
            tickets.append(run_in_memory(job, store=finished, progress=context.progress))
        return tickets

    def objectives(self, context: MethodContext, counts: Sequence[int]) -> list[Objective]:
        """The objective for each number of kept weights."""
        prepared = self.construction.prepare(context.target)
        images = np.asarray(context.dataset.train.images)
        damping, kind = IMPORTANCES["fisher-damped"] or 0.0, context.dataset.kind
        fisher = fisher_importance(prepared, images, label_kind=kind, damping=damping)
        return [Budget(kept, importance=fisher) for kept in counts]


@dataclasses.dataclass(frozen=True)
class LossAwareMethod(BudgetMethod):
    """A budget of kept weights is spent with error feedback: other weights of an output compensate each error."""

    @property
    def is_default(self) -> bool:  # type: ignore[override]
        return self.construction.name == Pensia.name

    @property
    def label(self) -> str:
        return f"{self.construction.name}-loss-aware"

    def objectives(self, context: MethodContext, counts: Sequence[int]) -> list[Objective]:
        images = np.asarray(context.dataset.train.images)[: default_examples(context.target.network)]
        return [LossAware(kept, images, label_kind=context.dataset.kind) for kept in counts]


@dataclasses.dataclass(frozen=True)
class MagnitudePrunedTarget(Method):
    """The largest weights of the target without retraining: the value of its structure alone."""

    label: ClassVar[str] = "target-pruned"  # type: ignore[misc]
    sweeps: ClassVar[bool] = True
    is_default: ClassVar[bool] = False
    transformable: ClassVar[bool] = False

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        return largest_weights(context.target, _counts(context, keeps), seed)


def largest_weights(target: Target, counts: Sequence[int], seed: int) -> list[Ticket]:
    """Tickets of the largest weights of the target, one for each number of kept weights (at most all)."""
    random = random_network(target.network, trained=True)
    names = weight_names(random)
    tensors = {name: np.asarray(value, np.float32) for name, value in target.arrays().items()}
    sizes = np.concatenate([np.abs(tensors[name].astype(np.float64)).reshape(-1) for name in names])
    ends = np.cumsum([tensors[name].size for name in names])[:-1]
    found = []
    for kept in counts:
        parts = np.split(highest(sizes, min(kept, sizes.size), np.ones(sizes.size, bool)), ends)
        masks = {name: part.reshape(tensors[name].shape) for name, part in zip(names, parts, strict=True)}
        settings = {"kept": {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}}
        found.append(trained_ticket(random, seed, masks, tensors, settings, method=MagnitudePrunedTarget.label))
    return found


def _counts(context: MethodContext, keeps: Sequence[float]) -> list[int]:
    """Kept weights for each fraction of the random network of Theorem 1."""
    weights = context.gadget_source.source_weights
    return [round(keep * weights) for keep in keeps]
