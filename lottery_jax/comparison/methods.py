"""The methods of a comparison: each turns a task and a seed into tickets."""

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import numpy as np

from lottery_jax.approximation.job import plan_job
from lottery_jax.approximation.run import run_in_memory
from lottery_jax.approximation.tolerance import OBJECTIVES, ToleranceObjective
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.data import Dataset
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.registry import SOURCES
from lottery_jax.mask_learning.scores import forced_weights
from lottery_jax.mask_learning.train_scores import train_scores
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Transform, transformed
from lottery_jax.progress import Progress, log
from lottery_jax.pruning.registry import TRAINED
from lottery_jax.tickets.ticket import Ticket, make_ticket
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.training.learner import Learner, TrainingRequest


@dataclasses.dataclass(frozen=True, eq=False)
class MethodContext:
    """What a method works with.

    target: the task's, batch normalisations folded. ticket: of the method named in `after`, for a seed, read back from
    its file. tune: factors of a learner's learning rate to choose from. progress: told (done, total) of the method's
    work. checkpoints: where what is not finished is kept. transforms: what random sources are put through.
    """

    target: Target
    dataset: Dataset
    tolerance: float
    candidates: int
    epochs: int
    ticket: Callable[[str, int], Ticket]
    progress: Progress
    tune: tuple[float, ...] = ()
    checkpoints: Checkpoints | None = None
    transforms: tuple[Transform, ...] = ()

    @property
    def gadget_source(self) -> Network:
        """The random network of Theorem 1 for the target: the weights that learned masks may choose from."""
        return Pensia(candidates=self.candidates).source(self.target)

    def stored(self, source: Network) -> dict[str, np.ndarray]:
        """A source's tensors that are not random: the target's own; before any training, where it has others."""
        shapes, initial = self.target.network.tensors, source.initial(jax.random.key(0)) if source.tensors else {}
        return {
            name: np.asarray(self.target.array(name) if shapes[name] == shape else initial[name], np.float32)
            for name, shape in source.tensors.items()
        }


class Method(abc.ABC):
    """One way to tickets, a frozen dataclass whose fields are its options.

    sweeps: whether it is asked for each kept fraction. after: a method whose ticket for the same seed it needs.
    """

    sweeps: ClassVar[bool] = False
    after: ClassVar[str | None] = None
    is_default: ClassVar[bool] = True
    """Whether a comparison that names no methods has it."""
    transformable: ClassVar[bool] = True
    """Whether its random source can be transformed."""
    shares: ClassVar[bool] = False
    """Whether processes share what it trains, as `MethodContext.checkpoints` say; if not, one of them finds all of a seed."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """Its name in commands, records and reports."""

    @property
    def about(self) -> str:
        """What it does, in a sentence or two, for a reader of the report."""
        return first_words(type(self))

    def check(self, candidates: int, tolerance: float) -> None:
        """Refuse settings that the method cannot work with; raises `InputError`."""
        return

    @abc.abstractmethod
    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> Sequence[Ticket | None]:
        """A ticket for each kept fraction, or one where the method does not sweep; None where there is none."""


@dataclasses.dataclass(frozen=True)
class DenseTarget(Method):
    """The trained target itself."""

    label: ClassVar[str] = "dense"  # type: ignore[misc]

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        return []


@dataclasses.dataclass(frozen=True)
class ConstructionMethod(Method):
    """A construction at one of its objectives."""

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
        words = first_words(type(self.construction))
        return f"{words} {OBJECTIVES[self.objective]}" if len(self.construction.objectives) > 1 else words

    def check(self, candidates: int, tolerance: float) -> None:
        ToleranceObjective(tolerance, self.objective).check(self.construction)

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        objective = ToleranceObjective(context.tolerance, self.objective)
        job = plan_job(context.target, self.construction, objective, seed=seed, transforms=context.transforms)
        return [run_in_memory(job, progress=context.progress)]


@dataclasses.dataclass(frozen=True)
class LearnerMethod(Method):
    """A learner on the source of Theorem 1, or on what `SOURCES` makes of it."""

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
        return self.learner.name if self._one_source else f"{self.learner.name}-{self.source}"

    @property
    def about(self) -> str:
        words = first_words(type(self.learner))
        return words if self._one_source else f"{words} On {SOURCES[self.source].__doc__}"

    @property
    def _one_source(self) -> bool:
        """Whether the learner is put on this source alone, so that its own name says all."""
        return len(self.learner.sources) == 1

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
    """What a learner finds for a seed, None for kept fractions whose training diverged.

    Where a learning rate is to be chosen, the ticket that is best on the validation split stands for its kept fraction,
    the first one of equal tickets.
    """
    rate = getattr(learner, "learning_rate", None)
    rates = [] if rate is None else [rate * factor for factor in context.tune]
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
        ),
        {"learning_rate": rates} if rates else {},
    )
    wanted = [float(keep) for keep in keeps] or [None]
    if not rates and len(tickets) == len(wanted):
        return tickets
    found: list[Ticket | None] = []
    for keep in wanted:
        own = [ticket for ticket in tickets if ticket.header.settings.get("keep") == keep]
        right = [accuracy(ticket.forward(), context.dataset.validation) for ticket in own]
        for ticket, value in zip(own, right, strict=True) if rates else ():
            told = f"{learner.name}, seed {seed}" + ("" if keep is None else f", keep {keep:g}")
            log.info("%s: %.2f %% of the validation split at %g", told, 100 * value, _rate(ticket))
        found.append(own[int(np.argmax(right))] if own else None)
    return found


def _rate(ticket: Ticket) -> float:
    return ticket.header.settings["learning_rate"]


@dataclasses.dataclass(frozen=True)
class WarmStarted(Method):
    """Edge-popup that begins with the mask that pensia-smallest found: what the data make of a theorem's mask."""

    learner: EdgePopup = dataclasses.field(default_factory=EdgePopup)
    label: ClassVar[str] = "edge-popup-from-pensia"  # type: ignore[misc]
    after: ClassVar[str | None] = "pensia-smallest"
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
    """As many weights kept in each tensor as pensia keeps, at random places: what chance gives."""

    label: ClassVar[str] = "random"  # type: ignore[misc]
    after: ClassVar[str | None] = "pensia"

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


def first_words(kind: type) -> str:
    """The first paragraph of a class's docstring, on one line."""
    return " ".join((inspect.getdoc(kind) or kind.__name__).partition("\n\n")[0].split())
