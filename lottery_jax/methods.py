"""The methods of a comparison: each turns a task and a seed into tickets. `METHODS` names them all."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lottery_jax.constructions import approximate, approximate_within_budget, fisher_importance
from lottery_jax.constructions.approximate import Objective, choose_solver
from lottery_jax.constructions.within_budget import K_MAX
from lottery_jax.errors import InputError, suggest
from lottery_jax.learned.architectures import wide_architecture
from lottery_jax.learned.edge_popup import edge_popup
from lottery_jax.networks.architecture import Architecture
from lottery_jax.settings import Approximate, Compare, learning_epochs
from lottery_jax.subset_sum import Pareto
from lottery_jax.tasks import Task
from lottery_jax.ticket import Ticket


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a method works with: the task, the settings, and the tickets of the method it builds on."""

    task: Task
    settings: Compare
    ticket: Callable[[str, int], Ticket]
    """The ticket of another method (the one named in `after`) for a seed, read back from its file."""
    progress: Callable[[int, int], None]
    """Told how much of a method's work is done."""


IMPORTANCES = ("uniform", "fisher", "fisher-damped")
"""What an error in a weight may count: the same for all, or the target's Fisher information, plain or plus its mean."""

Find = Callable[[Bench, int, Sequence[float | None]], list[Ticket]]


@dataclasses.dataclass(frozen=True)
class Method:
    """How to find tickets: `find(bench, seed, keeps)` gives one for each keep, [None] where it has no keep.

    `find` is None for the target itself. `after` names a method whose ticket for the same seed must exist.
    `check` refuses settings that the method cannot work with.
    """

    find: Find | None
    sweeps: bool = False
    after: str | None = None
    check: Callable[[Compare], object] = lambda settings: None


def construct(objective: Objective) -> Method:
    """The 2L construction of Pensia et al. 2020 with real gadgets."""

    def find(bench: Bench, seed: int, keeps: Sequence[float | None]) -> list[Ticket]:
        target, settings = bench.task.target, bench.settings
        ticket = approximate(
            target.weights,
            seed=seed,
            candidates=settings.candidates,
            tolerance=settings.tolerance,
            objective=objective,
            nonnegative=bench.task.dataset.nonnegative,
            progress=lambda done: bench.progress(done, target.count),
        )
        return [ticket]

    return Method(find, check=lambda settings: choose_solver(settings.candidates, objective))


def check_budget(settings: Approximate) -> None:
    """Refuse what a budget of kept weights does not go with, before anything is loaded or written."""
    if settings.importance not in IMPORTANCES:
        nearest = suggest(settings.importance, IMPORTANCES)
        raise InputError(f"importance {settings.importance!r} is unknown; {nearest}")
    if settings.kept is None:
        if settings.importance != "uniform":
            raise InputError("--importance says how a budget is spent; give the budget with --kept")
    elif settings.kept < 0:
        raise InputError(f"--kept {settings.kept} must be a number of weights from 0 up")
    elif settings.objective != "least-error":
        raise InputError(f"--kept takes the place of --objective {settings.objective}; give one of the two")
    else:
        Pareto(min(K_MAX, settings.candidates)).check(settings.candidates)


def find_ticket(settings: Approximate, task: Task, progress: Callable[[int], None]) -> Ticket:
    """The one ticket that the settings ask for."""
    weights, nonnegative = task.target.weights, task.dataset.nonnegative
    construction = settings.construction or "pensia"
    if settings.kept is None:
        return approximate(
            weights,
            seed=settings.seed,
            construction=construction,
            candidates=settings.candidates,
            tolerance=settings.tolerance,
            objective=settings.objective,
            nonnegative=nonnegative,
            progress=progress,
        )
    importance = None
    if settings.importance != "uniform":
        damping = 1.0 if settings.importance == "fisher-damped" else 0.0
        importance = fisher_importance(weights, task.dataset.train.images, damping=damping)
    return approximate_within_budget(
        weights,
        seed=settings.seed,
        kept=settings.kept,
        importance=importance,
        construction=construction,
        candidates=settings.candidates,
        nonnegative=nonnegative,
        progress=progress,
    )


def learn(source: Callable[[Architecture], Architecture]) -> Find:
    """Edge-popup (Ramanujan et al. 2020) on the gadget source, or on what `source` makes of it."""

    def find(bench: Bench, seed: int, keeps: Sequence[float | None]) -> list[Ticket]:
        return edge_popup(
            source(bench.ticket("pensia", seed).architecture),
            bench.task.dataset,
            seeds=[seed],
            keeps=[keep for keep in keeps if keep is not None],
            epochs=learning_epochs(bench.settings),
            progress=lambda done, total, history: bench.progress(done, total),
        )

    return find


def shuffle(bench: Bench, seed: int, keeps: Sequence[float | None]) -> list[Ticket]:
    """As many weights kept in each tensor as the construction keeps, at random places: what chance gives."""
    model = bench.ticket("pensia", seed)
    random = np.random.default_rng(seed)
    masks = {name: random.permutation(mask.ravel()).reshape(mask.shape) for name, mask in model.masks.items()}
    return [Ticket(model.architecture, seed, masks, "random", redraws=model.redraws)]


METHODS: Mapping[str, Method] = {
    "dense": Method(None),
    "pensia": construct("least-error"),
    "pensia-smallest": construct("smallest"),
    "edge-popup-gadget": Method(learn(lambda gadgets: gadgets), sweeps=True, after="pensia"),
    "edge-popup-wide": Method(learn(wide_architecture), sweeps=True, after="pensia"),
    "random": Method(shuffle, after="pensia"),
}
