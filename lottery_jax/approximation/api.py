"""`approximate`: from a target to the ticket of a pruned random network that computes the same."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lottery_jax.approximation.budget import Budget
from lottery_jax.approximation.importance import IMPORTANCES, fisher_importance
from lottery_jax.approximation.job import Job, Objective, plan_job
from lottery_jax.approximation.loss_aware import LossAware
from lottery_jax.approximation.moments import default_examples
from lottery_jax.approximation.output_tolerance import meet_output_tolerance
from lottery_jax.approximation.run import (
    JobResult,
    check_chunks_complete,
    missing_chunks,
    run_in_memory,
    run_share,
    run_to_file,
)
from lottery_jax.approximation.tolerance import ToleranceObjective, make_lossless
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.registry import construction_named
from lottery_jax.data import Dataset
from lottery_jax.data.checks import LabelKind
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.rewrites import check_target_bits, quantise
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Lock, Transform
from lottery_jax.progress import Progress, Stages, Stopwatch, no_progress, no_stages
from lottery_jax.rng.threefry import checked_seed
from lottery_jax.subset_sum import Solver
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.workers.units import Share

if TYPE_CHECKING:
    from lottery_jax.pruning.gradual import Gradual


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ApproximationOptions:
    """The options of `approximate` that choose the ticket; None stands for the default.

    Args:
        importance: ``fisher`` and ``fisher-damped`` are computed from the training images.
        loss_aware: Spend the budget by error feedback (see `LossAware`).
        examples: Training images for `loss_aware`; default all given images, of a data set two million rows per layer.
    """

    construction: str | Construction = "pensia"
    candidates: int | None = None
    objective: str | None = None
    tolerance: float | None = None
    max_redraws: int | None = None
    solver: Solver | None = None
    lossless: bool = False
    output_tolerance: float | None = None
    box: tuple[float, float] | None = None
    kept: int | None = None
    importance: str | Mapping[str, np.ndarray] | None = None
    loss_aware: bool = False
    examples: int | None = None
    damping: float | None = None
    label_kind: LabelKind | None = None
    prune_target: int | None = None
    prune_epochs: int | None = None
    quantise_target: int | None = None
    transforms: tuple[Transform, ...] = ()

    def check(self, seed: int, *, parallel: bool = False) -> None:
        """Refuse options that are wrong or contradict each other, before a target is loaded; raises `InputError`."""
        construction = self.resolved_construction()
        if isinstance(self.importance, str) and self.importance not in IMPORTANCES:
            raise InputError(f"importance {self.importance!r} is unknown; {suggest(self.importance, IMPORTANCES)}")
        weighted = isinstance(self.importance, Mapping) or self.importance not in (None, "uniform")
        for name, is_set in (("importance", weighted), ("loss_aware", self.loss_aware)):
            if is_set and self.kept is None:
                raise InputError(f"{name} needs a budget of kept weights; give the number of weights as kept")
        given = {}
        for name, value in vars(self).items():
            if value is not None and value is not False:
                given[name] = value
        for name, others in _EXCLUSIVE.items():
            for other in others:
                if name in given and other in given:
                    value = given[other]
                    shown = "" if value is True else f" {value!r}" if isinstance(value, str) else f" {value}"
                    raise InputError(f"{name} cannot be combined with {other}{shown}; give one of the two")
        for name, needed in _REQUIRED.items():
            if name in given and needed not in given:
                raise InputError(f"{name} is an option of {needed}; give {needed} too, or omit {name}")
        if self.loss_aware and weighted:
            raise InputError("loss_aware weighs the errors itself and takes no importance; give one of the two")
        if self.loss_aware and parallel:
            raise InputError("loss_aware needs a single process, because each layer depends on those before it")
        if self.examples is not None and self.examples < 1:
            raise InputError(f"examples must be 1 or more, got {self.examples}")
        if self.prune_target is not None:
            self._gradual_pruning()
            if self.prune_target < 1:
                raise InputError(f"prune_target must be 1 or more, got {self.prune_target}")
        if self.lossless:
            if any(isinstance(transform, Lock) and transform.locked for transform in self.transforms):
                raise InputError("lossless cannot be combined with locked weights, which are rounded; lock none")
            if self.candidates is not None and self.candidates <= Construction.candidates:
                raise InputError(
                    f"candidates must be above {Construction.candidates} for a lossless ticket, got {self.candidates};"
                    " omit it for the number that a lossless ticket needs"
                )
            construction.lossless(None)
        if self.quantise_target is not None:
            check_target_bits(self.quantise_target)
        self._objective(np.zeros((1, 1), np.float32), None).check(construction)
        checked_seed(seed)

    def resolved_construction(self) -> Construction:
        """The construction with its candidates."""
        if isinstance(self.construction, Construction):
            if self.candidates is None:
                return self.construction
            if self.construction.candidates != type(self.construction).candidates:
                raise InputError(
                    f"candidates must be given once, got {self.candidates} and {self.construction}; omit candidates"
                )
            return dataclasses.replace(self.construction, candidates=self.candidates)
        kind = construction_named(self.construction)
        return kind() if self.candidates is None else kind(candidates=self.candidates)

    def _gradual_pruning(self) -> "Gradual":
        from lottery_jax.pruning.gradual import Gradual  # imports the training, which few tickets need

        return Gradual() if self.prune_epochs is None else Gradual(self.prune_epochs)

    def _objective(self, images: np.ndarray | None, importance: Mapping[str, np.ndarray] | None) -> Objective:
        if self.kept is None:
            default = ToleranceObjective
            return ToleranceObjective(
                default.tolerance if self.tolerance is None else self.tolerance,
                default.select if self.objective is None else self.objective,
                default.max_redraws if self.max_redraws is None else self.max_redraws,
                self.solver,
            )
        if not self.loss_aware:
            return Budget(self.kept, importance=importance)
        damping = LossAware.damping if self.damping is None else self.damping
        return LossAware(self.kept, cast(np.ndarray, images), damping, label_kind=self.label_kind or "classification")


_EXCLUSIVE = {
    "kept": ("objective", "tolerance", "max_redraws", "solver", "lossless", "output_tolerance"),
    "objective": ("solver",),
    "lossless": ("tolerance", "output_tolerance"),
}

_REQUIRED = {
    "box": "output_tolerance",
    "examples": "loss_aware",
    "damping": "loss_aware",
    "label_kind": "kept",
    "prune_epochs": "prune_target",
}


@dataclasses.dataclass(frozen=True, eq=False)
class ApproximationResult:
    """What `run_approximation` found.

    `target` is the one after pruning and rounding. `ticket` is None if a file was named, `path` after a share of the
    work. `found_weights` were solved by an earlier call, `solved_weights` by this one. `missing_chunks` are those that
    other shares have not finished. `seconds` are those of the search, `compilation_seconds` included.
    """

    target: Target
    job: Job
    ticket: Ticket | None
    path: Path | None
    found_weights: int
    solved_weights: int
    missing_chunks: int
    seconds: float
    compilation_seconds: float


def approximate(
    target: Target,
    *,
    seed: int,
    construction: str | Construction = "pensia",
    candidates: int | None = None,
    objective: str | None = None,
    tolerance: float | None = None,
    max_redraws: int | None = None,
    solver: Solver | None = None,
    lossless: bool = False,
    output_tolerance: float | None = None,
    box: tuple[float, float] | None = None,
    kept: int | None = None,
    importance: str | Mapping[str, np.ndarray] | None = None,
    images: np.ndarray | None = None,
    damping: float | None = None,
    label_kind: LabelKind | None = None,
    prune_target: int | None = None,
    prune_epochs: int | None = None,
    quantise_target: int | None = None,
    dataset: Dataset | None = None,
    transforms: Sequence[Transform] = (),
    out: str | os.PathLike[str] | None = None,
    coded: bool = False,
    force: bool = False,
    progress: Progress = no_progress,
    executor: Any = None,
) -> Ticket:
    """Find a ticket whose random network, pruned and never trained, computes what the target computes.

    Raises `InputError` if an option is wrong or contradicts another one.

    Args:
        target: Made by `mlp_target`, `import_target`, `load_model` or `load_task(...).target`.
        seed: Seed of the random source, in [0, 2**64).
        construction: Name of a construction, or a construction with its options.
        candidates: Candidates per target weight; default 21, of a lossless ticket 32 (scalar) or 48 (scalar-shared).
        objective: ``least-error`` (default), ``smallest`` (fewest kept weights) or ``first``, within `tolerance`.
        tolerance: Largest |approximated weight - target weight|; default 0.01.
        max_redraws: Redraws of a failed block, default 20; `verify` counts the weights that still fail.
        solver: Of `subset_sum`, such as ``Randomized(restarts=4)``, instead of `objective`; default: by the
            construction. The ticket records it.
        lossless: Every weight within 2**-25 of the largest weight of its tensor, instead of `tolerance`.
        output_tolerance: Largest |f - g| of the outputs on `box`; tolerance or candidates are derived from it.
        box: Least and largest input for `output_tolerance`; default (0, 1), or (-1, 1) if inputs may be negative.
        kept: Budget of kept weights, instead of `objective` and `tolerance`.
        importance: Weight of each squared error in the budget: arrays by tensor, ``uniform`` (default), or ``fisher``
            and ``fisher-damped``, computed from `images`.
        images: Training images [N, *input shape], float; default those of `dataset`. Without an importance they make
            the ticket loss-aware.
        damping: Multiple of the mean squared input that a loss-aware ticket adds to each; default 0.01.
        label_kind: Whether outputs predict one class (``classification``), the numbers of a ``regression``, or several
            labels (``multilabel``), for a loss-aware ticket and ``fisher``; default that of `dataset`, else regression
            for one output and classification for more.
        prune_target: Nonzero weights to which the target is first pruned, while it is trained on `dataset`.
        prune_epochs: Epochs of that pruning; default 20.
        quantise_target: Bits to which each tensor of the target is first rounded.
        dataset: Training data for `prune_target` and for an importance by name.
        transforms: Of the random source, such as ``PrePrune(0.5)`` and ``ShareLayers()``.
        out: File for the ticket. The same call resumes after a kill; memory then depends on the chunk alone.
        coded: Store the masks of the file entropy-coded.
        force: Replace an existing file, if the new ticket holds.
        progress: Called with (solved weights, all weights).
        executor: Solves the chunks on its workers, which see the folder of `out`: a client of Dask, or any executor
            like those of ``concurrent.futures``. Default: this process.

        >>> from lottery_jax.importers.mlp_weights import mlp_target
        >>> from lottery_jax.tickets.verify import verify
        >>> target = mlp_target([np.array([[0.3, -0.2]], np.float32)])
        >>> verify(approximate(target, seed=0, candidates=10), target=target).outcome
        'holds'
    """
    if images is not None and (kept is None or isinstance(importance, Mapping)):
        raise InputError("images need a budget of kept weights, and cannot be combined with importance arrays")
    options = ApproximationOptions(
        construction=construction,
        candidates=candidates,
        objective=objective,
        tolerance=tolerance,
        max_redraws=max_redraws,
        solver=solver,
        lossless=lossless,
        output_tolerance=output_tolerance,
        box=box,
        kept=kept,
        importance=importance,
        loss_aware=images is not None and importance in (None, "uniform"),
        damping=damping,
        label_kind=label_kind,
        prune_target=prune_target,
        prune_epochs=prune_epochs,
        quantise_target=quantise_target,
        transforms=tuple(transforms),
    )
    result = run_approximation(
        target,
        options,
        seed=seed,
        images=images,
        dataset=dataset,
        out=None if out is None else Path(out),
        coded=coded,
        force=force,
        stages=lambda name: progress if name == SOLVING else no_progress,
        executor=executor,
    )
    return result.ticket or load_ticket(cast(Path, result.path), limit=math.inf)


SOLVING = "weights"  # the stage in which weights are solved


def run_approximation(
    target: Target,
    options: ApproximationOptions,
    *,
    seed: int,
    images: np.ndarray | None = None,
    dataset: Dataset | None = None,
    out: Path | None = None,
    coded: bool = False,
    force: bool = False,
    join_only: bool = False,
    stages: Stages = no_stages,
    executor: Any = None,
    share: Share | None = None,
) -> ApproximationResult:
    """As `approximate`, with its options as one object, and with the counts and times of the run.

    Args:
        join_only: Solve nothing; raise if a chunk is missing.
        stages: Called with the name of each stage of the work.
        share: The share of the chunks that this process solves; it writes no ticket.
    """
    if not isinstance(target, Target):
        kind = "None" if target is None else f"a {type(target).__name__}"
        kind = f"the path {str(target)[:80]!r}" if isinstance(target, str | os.PathLike) else kind
        raise InputError(
            f"approximate takes a Target, not {kind}; make one with mlp_target, import_target,"
            " load_model(...)[0] or load_task(...).target"
        )
    parallel = executor is not None or share is not None
    if parallel and out is None:
        raise InputError("out must name the ticket's file for an executor or a share, got None; name the file")
    if coded and out is None:
        raise InputError("coded is an option of the ticket's file; name the file with out, or omit coded")
    options.check(seed, parallel=parallel)
    target, job = _planned_job(target, options, seed, images, dataset, stages)
    progress = stages(SOLVING)
    with Stopwatch() as watch:
        ticket = None
        if out is None:
            ticket, done = run_in_memory(job, progress=progress), JobResult(0, job.weights)
        elif share is not None:
            done = run_share(job, out, share, force=force, progress=progress)
        else:
            if join_only:
                check_chunks_complete(job, out)
            done = run_to_file(job, out, force=force, coded=coded, progress=progress, executor=executor)
    left = 0 if out is None or done.path is not None else len(missing_chunks(job, out))
    return ApproximationResult(
        target, job, ticket, done.path, done.found, done.solved, left, watch.seconds, watch.compilation
    )


def _planned_job(
    target: Target,
    options: ApproximationOptions,
    seed: int,
    images: np.ndarray | None,
    dataset: Dataset | None,
    stages: Stages,
) -> tuple[Target, Job]:
    """The target after pruning and rounding, and its job: objective, then lossless or output tolerance, then a plan."""
    notes: dict[str, Any] = {}
    if options.prune_target is not None:
        from lottery_jax.pruning.gradual import sparse_target

        if dataset is None:
            raise InputError("prune_target trains the target; give the training data as dataset")
        how = options._gradual_pruning()
        notes["sparse_target"] = {"kept": options.prune_target, "epochs": how.epochs, "of_sha256": target.digest}
        target = sparse_target(target, dataset, options.prune_target, how, progress=stages("pruning the target"))
    if options.quantise_target is not None:
        notes["quantised_target"] = {"bits": options.quantise_target, "of_target_sha256": target.digest}
        target = quantise(target, options.quantise_target)
    stages("planning")
    construction, importance, transforms = options.resolved_construction(), options.importance, options.transforms
    if options.loss_aware or (isinstance(importance, str) and importance != "uniform"):
        if images is None and dataset is None:
            raise InputError("loss_aware and importance need training images; give images or dataset")
        examples = options.examples
        if images is None and options.loss_aware:
            examples = examples or default_examples(target.network)
        images = np.asarray(cast(Dataset, dataset).train.images if images is None else images)[:examples]
        if options.label_kind is None:
            output, kind = target.network.output_spec, "classification" if dataset is None else dataset.kind
            if dataset is None and output is not None and output.shape[-1] == 1:
                kind = "regression"
            options = dataclasses.replace(options, label_kind=kind)
    if isinstance(importance, str):
        damping = IMPORTANCES[importance]
        prepared = construction.prepare(target)
        if damping is None:
            importance = None
        else:
            kind = cast(LabelKind, options.label_kind)
            importance = fisher_importance(prepared, cast(np.ndarray, images), label_kind=kind, damping=damping)
    objective = options._objective(images, importance)
    if options.lossless:
        construction, objective = make_lossless(target, construction, cast(ToleranceObjective, objective))
    if options.output_tolerance is not None:
        construction, objective, _ = meet_output_tolerance(
            target,
            construction,
            cast(ToleranceObjective, objective),
            options.output_tolerance,
            seed=seed,
            box=options.box,
            transforms=transforms,
            progress=stages("trials for the output tolerance"),
        )
    return target, plan_job(target, construction, objective, seed=seed, notes=notes, transforms=transforms)
