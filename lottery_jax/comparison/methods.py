"""The methods of a comparison: each finds tickets for a task and a seed."""

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from lottery_jax.approximation.job import plan_job
from lottery_jax.approximation.run import run_in_memory
from lottery_jax.approximation.tolerance import OBJECTIVES, ToleranceObjective
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.data import Dataset
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.registry import SOURCES
from lottery_jax.mask_learning.scores import forced_weights
from lottery_jax.mask_learning.train_scores import train_scores
from lottery_jax.networks.layers.graph import Graph
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Transform, transformed
from lottery_jax.progress import Progress, log
from lottery_jax.pruning import TRAINED
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.training.learner import Learner, TrainingRequest
from lottery_jax.training.losses import DEFAULT_LOSS, TaskLoss
from lottery_jax.training.optimizers import OptaxOptimizer


@dataclasses.dataclass(frozen=True, eq=False)
class MethodContext:
    """The inputs of a method; settings as in ``Protocol``."""

    target: Target
    """The target of the task, batch normalisations folded."""
    dataset: Dataset
    tolerance: float
    candidates: int
    epochs: int
    ticket: Callable[[str, int], Ticket]
    """The ticket of the method in ``depends_on`` for a seed, read from its file."""
    progress: Progress
    tune: tuple[float, ...] = ()
    checkpoints: Checkpoints | None = None
    """Folder of unfinished trainings."""
    transforms: tuple[Transform, ...] = ()
    loss: TaskLoss = DEFAULT_LOSS
    """The loss and the metric of the task."""

    @property
    def gadget_source(self) -> Network:
        """The random network of Theorem 1 for the target; learned masks choose from its weights."""
        return Pensia(candidates=self.candidates).source(self.target)

    def stored(self, source: Network) -> dict[str, np.ndarray]:
        """The tensors of a source that are not random: the target's, or untrained ones if their shapes differ."""
        shapes = self.target.network.tensors
        same = all(shapes[name] == shape for name, shape in source.tensors.items())
        initial = {} if same else source.initial(jax.random.key(0))
        stored = {}
        for name, shape in source.tensors.items():
            value = self.target.array(name) if shapes[name] == shape else initial[name]
            stored[name] = np.asarray(value, np.float32)
        return stored


class Method(abc.ABC):
    """A method of a comparison: a frozen dataclass whose fields are its options."""

    sweeps: ClassVar[bool] = False
    """Whether it finds a ticket for each kept fraction of the protocol."""
    depends_on: ClassVar[str | None] = None
    """Label of a method whose ticket for the same seed it needs."""
    is_default: ClassVar[bool] = True
    """Whether it is in a comparison that names no methods."""
    transformable: ClassVar[bool] = True
    """Whether its random source can be transformed."""
    shares: ClassVar[bool] = False
    """Whether processes share its trainings through ``MethodContext.checkpoints``; else one process does a seed."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """The name of the method in commands, records and reports."""

    @property
    def about(self) -> str:
        """One or two sentences for the report."""
        return first_paragraph(type(self))

    def check(self, candidates: int, tolerance: float) -> None:
        """Refuse settings that the method does not support; raises ``InputError``."""
        return

    def refusal(self, network: Network) -> str | None:
        """Why the method is not for targets of this network, as a sentence; None if it is."""
        return None

    @abc.abstractmethod
    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> Sequence[Ticket | None]:
        """Find the tickets of a seed.

        Args:
            context: Task, settings and the tickets of other methods.
            seed: Seed of the random source.
            keeps: Kept fractions in [0, 1]; empty if the method does not sweep.

        Returns:
            A ticket for each kept fraction, None for a training that diverged; one ticket if the method does not sweep;
            none if the method is the target itself.
        """


@dataclasses.dataclass(frozen=True)
class MethodSelection:
    """The methods of a comparison in the order of the report, each after the one that it depends on."""

    methods: tuple[Method, ...]
    known: Mapping[str, Method] = dataclasses.field(default_factory=dict, hash=False)
    """Methods by label, among them those that the selected ones depend on."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    """Options that differ from the defaults; part of the configuration."""
    named: bool = True
    """Whether a user named the methods; else those of the default that do not fit a target are omitted."""

    def for_network(self, network: Network) -> "MethodSelection":
        """The methods for targets of a network; raises ``InputError`` if one that a user named is not for it."""
        found = []
        for method in self.methods:
            reason = method.refusal(network)
            if reason is None:
                found.append(method)
            elif self.named:
                raise InputError(f"methods must be for the target's network, got {method.label!r}. {reason}")
            else:
                log.warning("the method %s is omitted. %s", method.label, reason)
        return dataclasses.replace(self, methods=tuple(found))


@dataclasses.dataclass(frozen=True)
class DenseTarget(Method):
    """The trained target itself."""

    label: ClassVar[str] = "dense"  # type: ignore[misc]

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        return []


@dataclasses.dataclass(frozen=True)
class ConstructionMethod(Method):
    """A construction with one of its objectives."""

    construction: Construction
    objective: str = "least-error"

    @property
    def label(self) -> str:
        suffix = "" if self.objective == "least-error" else f"-{self.objective}"
        return self.construction.name + suffix

    @property
    def is_default(self) -> bool:  # type: ignore[override]
        return self.construction.name == Pensia.name and self.objective != "first"

    @property
    def about(self) -> str:
        words = first_paragraph(type(self.construction))
        return f"{words} {OBJECTIVES[self.objective]}" if len(self.construction.objectives) > 1 else words

    def check(self, candidates: int, tolerance: float) -> None:
        ToleranceObjective(tolerance, self.objective).check(self.construction)

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        objective = ToleranceObjective(context.tolerance, self.objective)
        job = plan_job(context.target, self.construction, objective, seed=seed, transforms=context.transforms)
        return [run_in_memory(job, progress=context.progress)]


@dataclasses.dataclass(frozen=True)
class LearnerMethod(Method):
    """A learner on the source of Theorem 1, or on a source that ``SOURCES`` makes from it."""

    learner: Learner
    source: str = "wide"

    @property
    def sweeps(self) -> bool:  # type: ignore[override]
        return self.learner.sweeps

    @property
    def transformable(self) -> bool:  # type: ignore[override]
        return self.learner.name not in TRAINED

    @property
    def shares(self) -> bool:  # type: ignore[override]
        return self.learner.shares

    @property
    def is_default(self) -> bool:  # type: ignore[override]
        return self.learner.is_default and self.source != "plain"

    @property
    def label(self) -> str:
        return self.learner.name if len(self.learner.sources) == 1 else f"{self.learner.name}-{self.source}"

    @property
    def about(self) -> str:
        words = first_paragraph(type(self.learner))
        return words if len(self.learner.sources) == 1 else f"{words} On {SOURCES[self.source].__doc__}"

    def refusal(self, network: Network) -> str | None:
        if self.source != "wide" or not any(isinstance(node, Graph) for _, node in network.nodes()):
            return None
        return (
            "Its source has another width than the target, and an imported graph has fixed shapes. Use"
            f" {self.learner.name}-plain or {self.learner.name}-gadget."
        )

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> Sequence[Ticket | None]:
        source = transformed(SOURCES[self.source](context.gadget_source), context.transforms)
        return _by_keep(self.learner, context, source, seed, keeps, self.learner.sweep)


def _by_keep(
    learner: Learner,
    context: MethodContext,
    source: Network,
    seed: int,
    keeps: Sequence[float],
    sweep: Callable[..., list[Ticket]],
) -> Sequence[Ticket | None]:
    """The tickets of a learner for a seed, None for kept fractions whose training diverged.

    With several learning rates, each kept fraction has the ticket with the best accuracy or metric on the validation
    split, the first of equal ones.
    """
    rate = getattr(learner, "learning_rate", None)
    own_rate = isinstance(getattr(learner, "optimizer", None), OptaxOptimizer)
    rates = [] if rate is None or own_rate else [rate * factor for factor in context.tune]
    tickets = sweep(
        source,
        TrainingRequest(
            context.dataset,
            seeds=[seed],
            keeps=keeps,
            epochs=context.epochs,
            stored=context.stored(source),
            progress=context.progress,
            checkpoints=context.checkpoints,
            loss=context.loss,
        ),
        {"learning_rate": rates} if rates else {},
    )
    if not rates and len(tickets) == max(len(keeps), 1):
        return tickets
    found: list[Ticket | None] = []
    for keep in [float(keep) for keep in keeps] or [None]:
        own = [ticket for ticket in tickets if ticket.header.settings.get("keep") == keep]
        loss = context.loss.resolved(context.dataset)
        right = [accuracy(ticket.forward(), context.dataset.validation, loss=loss) for ticket in own]
        for ticket, value in zip(own, right, strict=True) if rates else ():
            run = f"{learner.name}, seed {seed}" + ("" if keep is None else f", keep {keep:g}")
            used = ticket.header.settings["learning_rate"]
            shown = f"{100 * value:.2f} %" if loss.is_accuracy else f"{loss.metric_name} {value:.4g}"
            log.info("%s: %s of the validation split at %g", run, shown, used)
        found.append(own[int(np.argmax(np.nan_to_num(right, nan=-np.inf)))] if own else None)
    return found


@dataclasses.dataclass(frozen=True)
class WarmStarted(Method):
    """Edge-popup that starts from the mask of pensia-smallest: training improves the mask of a theorem."""

    learner: EdgePopup = dataclasses.field(default_factory=EdgePopup)
    label: ClassVar[str] = "edge-popup-from-pensia"  # type: ignore[misc]
    depends_on: ClassVar[str | None] = "pensia-smallest"
    sweeps: ClassVar[bool] = True
    is_default: ClassVar[bool] = False
    shares: ClassVar[bool] = True

    def check(self, candidates: int, tolerance: float) -> None:
        ConstructionMethod(Pensia(candidates), "smallest").check(candidates, tolerance)

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> Sequence[Ticket | None]:
        model = context.ticket("pensia-smallest", seed)
        sweep = functools.partial(train_scores, self.learner, warm_start={seed: model})
        return _by_keep(self.learner, context, model.network, seed, keeps, sweep)


@dataclasses.dataclass(frozen=True)
class RandomMask(Method):
    """A random mask that keeps as many weights of each tensor as pensia: the chance level."""

    label: ClassVar[str] = "random"  # type: ignore[misc]
    depends_on: ClassVar[str | None] = "pensia"

    def check(self, candidates: int, tolerance: float) -> None:
        ConstructionMethod(Pensia(candidates)).check(candidates, tolerance)

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        model = context.ticket("pensia", seed)
        random = np.random.default_rng(seed)
        masks = {name: random.permutation(mask.ravel()).reshape(mask.shape) for name, mask in model.masks.items()}
        redraws = {name: model.redraws(name) for name in masks}
        for name, forced in forced_weights(model.network, seed, redraws).items():
            free, masks[name] = forced == 0, forced > 0
            masks[name][free] = random.permutation(model.mask(name)[free])
        return [
            make_ticket(model.network, seed=seed, masks=masks, method="random", redraws=redraws, stored=model.stored)
        ]


def first_paragraph(kind: type) -> str:
    """The first paragraph of the docstring of a class, on one line."""
    return " ".join((inspect.getdoc(kind) or kind.__name__).partition("\n\n")[0].split())
