"""`lottery-jax approximate --share K/N`: a part of the chunks, and what is there of the whole.

`lottery-jax approximate`: from a target to a ticket's file, told as it goes.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lottery_jax.approximation.budget.budget import Budget
from lottery_jax.approximation.budget.importance import IMPORTANCES, fisher_importance
from lottery_jax.approximation.chunk_store import FolderChunkStore
from lottery_jax.approximation.job import Job, Objective, plan_job
from lottery_jax.approximation.loss_aware.loss_aware import LossAware
from lottery_jax.approximation.loss_aware.moments import default_examples
from lottery_jax.approximation.output_tolerance import for_output
from lottery_jax.approximation.run import (
    broken_file,
    check_chunks_complete,
    chunk_folder,
    missing_chunks,
    run_share,
    run_to_file,
)
from lottery_jax.approximation.tolerance import ToleranceObjective, make_lossless
from lottery_jax.cli import messages as interrupt
from lottery_jax.cli.options import construction_of, transforms_of
from lottery_jax.cli.progress_bars import ProgressReporter, progress_bars
from lottery_jax.cli.settings import Approximate
from lottery_jax.cli.verify import certified, show
from lottery_jax.cli.worker_options import workers_of
from lottery_jax.comparison.evaluate import measure
from lottery_jax.constructions.base import Construction
from lottery_jax.errors import InputError, suggest
from lottery_jax.io.files import check_writable
from lottery_jax.networks.rewrites import check_target_bits, quantise
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress, Stopwatch, log
from lottery_jax.pruning.gradual import Gradual, sparse_target
from lottery_jax.rng.threefry import seed_words
from lottery_jax.tasks import Task, load_model, load_task
from lottery_jax.tickets.verify import verify
from lottery_jax.workers.workers import Share


def solve_share(command: Approximate, share: Share, job: Job, progress: Progress, results: TextIO) -> int:
    """Solve a share, and say what is there of the whole."""
    done = run_share(job, command.out, share, force=command.force, progress=progress)
    chunks, left = len(job.chunks), 0 if done.path else len(missing_chunks(job, command.out))
    if command.json:
        facts = {"share": str(share), "chunks": chunks, "finished_chunks": chunks - left, "missing_chunks": left}
        facts |= {"solved_weights": done.solved, "found_weights": done.found}
        print(json.dumps(facts | {"ticket": None if done.path is None else str(done.path)}), file=results)
    elif done.path is not None:
        print(f"the ticket is there already, {str(done.path)!r}; nothing is left for share {share}", file=results)
    else:
        are = "is" if left == 1 else "are"
        then = f"{left:,} {are} missing; the same command without --share joins them when the others are done"
        if not left:
            then = "none is missing; the same command without --share joins them"
        print(f"share {share} is done: {chunks - left:,} of {chunks:,} chunks are there, {then}", file=results)
    return 0


def run_approximate(command: Approximate, results: TextIO) -> int:
    """Plan, solve what is missing, write the ticket, and say what the verifier and the test set find in the file."""
    construction, damping = _check(command)
    with (
        progress_bars(quiet=command.quiet, shared=command.shared) as shown,
        interrupt.keeping(_kept(command.out)),
        workers_of(command, shown) as workers,
    ):
        target, task, skipped = _target(command, shown.part("reading the target"))
        notes: dict[str, Any] = {}
        if command.prune_target is not None and task is not None:
            # The same: it is the sparse network that a ticket is promised for.
            how = Gradual(command.prune_epochs)
            notes["sparse_target"] = {"kept": command.prune_target, "epochs": how.epochs, "of_sha256": target.digest}
            pruning = shown.part("pruning the target")
            target = sparse_target(target, task.dataset, command.prune_target, how, progress=pruning)
            task = dataclasses.replace(task, target=target)
        if command.quantise_target is not None:
            # What is approximated, verified and run beside the ticket from now on is the rounded target.
            notes["quantised_target"] = {"bits": command.quantise_target, "of_target_sha256": target.digest}
            target = quantise(target, command.quantise_target)
            task = None if task is None else dataclasses.replace(task, target=target)
        shown.part("planning")
        objective = _goal(command, construction, target, task, damping)
        if command.lossless and isinstance(objective, ToleranceObjective):
            construction, objective = make_lossless(target, construction, objective)
        if command.output_tolerance is not None and isinstance(objective, ToleranceObjective):
            low, high = _box(command, target)
            asked = command.output_tolerance
            trials = shown.part("trials for the output's tolerance")
            construction, objective, bound = for_output(
                *(target, construction, objective, asked),
                seed=command.seed,
                low=low,
                high=high,
                transforms=transforms_of(command),
                progress=trials,
            )
            log.info(
                "outputs within %g on inputs from %g to %g: %d candidates, weights within %.3g; the bound is %.3g",
                *(asked, low, high, construction.candidates, objective.tolerance, bound.largest),
            )
        job = plan_job(
            target, construction, objective, seed=command.seed, notes=notes, transforms=transforms_of(command)
        )
        if isinstance(workers, Share):
            return solve_share(command, workers, job, shown.part("weights"), results)
        if command.join_only:
            check_chunks_complete(job, command.out)
        with contextlib.ExitStack() as stack:
            if workers.processes == 1:
                stack.enter_context(interrupt.closing(FolderChunkStore(chunk_folder(command.out)).remove_if_empty))
            watch = stack.enter_context(Stopwatch())
            progress = shown.part("weights")
            options = {"force": command.force, "coded": command.coded}
            done = run_to_file(job, command.out, **options, progress=progress, workers=workers)
        workers.leave()
        if not workers.leads:
            return 0
        assert done.path is not None
        found = _measured(done.path, job, task, shown)
    for name, reason in () if command.json else skipped.items():
        print(f"skipped {name}: {reason}", file=results)
    found |= {"ticket": str(done.path), "skipped": skipped}
    found |= {"seconds": watch.seconds, "search_seconds": watch.work, "compilation_seconds": watch.compilation}
    found |= {"solved_weights": done.solved, "found_weights": done.found}
    return show(found, results, as_json=command.json)


def _kept(out: Path) -> Callable[[], str]:
    """What an interrupt leaves from now on."""
    places = (out, broken_file(out))
    before = [_changed(path) for path in places]

    def print_message() -> str:
        for path, then in zip(places, before, strict=True):
            if _changed(path) != then:
                return f"the ticket is written, {str(path)!r}, but was not verified yet"
        chunks = FolderChunkStore(chunk_folder(out)).finished()
        if not chunks:
            return "nothing was finished yet, and nothing is kept"
        are = "s are" if chunks > 1 else " is"
        return f"{chunks} finished chunk{are} kept beside {str(out)!r}, and the same command goes on from there"

    return print_message


def _changed(path: Path) -> int | None:
    """When a file was last changed, None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _check(command: Approximate) -> tuple[Construction, float | None]:
    """Refuse what does not go together, before anything is loaded or written; the construction, and the damping."""
    name = command.construction or ("pensia" if command.model is None else "scalar")
    construction = construction_of(command, name)
    if command.importance not in IMPORTANCES:
        raise InputError(f"importance {command.importance!r} is unknown; {suggest(command.importance, IMPORTANCES)}")
    if command.kept is None:
        if command.importance != "uniform":
            raise InputError("--importance says how a budget is spent; give the budget with --kept")
    elif command.objective != "least-error":
        raise InputError(f"--kept takes the place of --objective {command.objective}; give one of the two")
    if command.output_tolerance is None and command.box is not None:
        raise InputError("--box says for which inputs --output-tolerance is; give that too")
    if command.output_tolerance is not None and (command.kept is not None or command.model is not None):
        raise InputError("--output-tolerance is for a network, within a tolerance; leave it, or --kept or --model out")
    if command.loss_aware:
        if command.kept is None:
            raise InputError("--loss-aware spends a budget; give the number of weights with --kept")
        if command.importance != "uniform":
            raise InputError("--loss-aware says itself what an error counts; leave --importance out")
        if command.shared:
            raise InputError("--loss-aware settles one layer after the other, on one host; leave the cluster out")
    elif command.examples is not None or command.damping != 0.01:
        raise InputError("--examples and --damping are for --loss-aware; give that, or leave them out")
    if command.examples is not None and command.examples < 1:
        raise InputError(f"--examples {command.examples} is no data to be aware of; give 1 or more")
    command.check_workers()
    if command.share is not None and command.loss_aware:
        raise InputError("--loss-aware settles one layer after the other, on one host; leave --share out")
    if command.prune_target is not None:
        Gradual(command.prune_epochs)
        if command.prune_target < 1:
            raise InputError(f"--prune-target {command.prune_target} leaves nothing; give 1 or more")
    if command.lossless:
        if command.kept is not None or command.output_tolerance is not None:
            raise InputError("--lossless says how near every weight is; leave --kept and --output-tolerance out")
        if command.locked:
            raise InputError("--lossless allows for no rounding, and what locked weights leave is; leave --locked out")
        construction.lossless(None)  # refuses where it cannot be
    _goal(command, construction, None, None, None).check(construction)
    seed_words(command.seed)
    transforms_of(command)
    if command.quantise_target is not None:
        check_target_bits(command.quantise_target)
    if command.model is not None:
        for option, given in (("--target", command.target), ("--data-dir", command.data_dir)):
            if given is not None:
                raise InputError(f"{option} {str(given)!r} is for a network with a test set; leave it or --model out")
        if command.data != "digits" or command.architecture is not None:
            raise InputError("--data and --architecture do not go with a model's file; leave them or --model out")
        for option, asked in (
            ("--importance", command.importance != "uniform"),
            ("--loss-aware", command.loss_aware),
            ("--prune-target", command.prune_target is not None),
        ):
            if asked:
                raise InputError(f"{option} is for a network with data; leave it or --model out")
    elif command.pattern is not None:
        raise InputError(f"--pattern {command.pattern!r} chooses tensors of a --model; name the model's file too")
    if command.out.is_dir():
        raise InputError(f"--out {str(command.out)!r} is a folder; name the ticket file to write inside it")
    check_writable(command.out.parent)
    return construction, IMPORTANCES[command.importance]


def _box(command: Approximate, target: Target) -> tuple[float, float]:
    given = target.network.input_spec
    return command.box or (0.0 if given is not None and given.nonnegative else -1.0, 1.0)


def _goal(
    command: Approximate, construction: Construction, target: Target | None, task: Task | None, damping: float | None
) -> Objective:
    if command.kept is None:
        return ToleranceObjective(command.tolerance, command.objective)
    if command.loss_aware:
        no_data = np.zeros((1, 1), np.float32)
        images = no_data if task is None else np.asarray(task.dataset.train.images)
        if target is not None:
            images = images[: command.examples or default_examples(target.network)]
        return LossAware(command.kept, images, command.damping)
    importance = None
    if damping is not None and target is not None and task is not None:
        importance = fisher_importance(construction.prepare(target), task.dataset.train.images, damping=damping)
    return Budget(command.kept, importance=importance)


def _target(command: Approximate, progress: Any) -> tuple[Target, Task | None, dict[str, str]]:
    """The target; its task, and of a model's file which tensors are left out."""
    if command.model is not None:
        target, skipped = load_model(command.model, command.pattern)
        return target, None, skipped
    task = load_task(
        command.data,
        target=command.target,
        architecture=command.architecture,
        width=command.width,
        data_dir=command.data_dir,
        progress=progress,
    )
    return task.target, task, {}


def _measured(out: Path, job: Job, task: Task | None, shown: ProgressReporter) -> dict[str, Any]:
    """What the verifier finds, against the target itself; and the test set, where there is one."""
    if task is None:
        return certified(verify(out, target=job.target, progress=shown.part("verifying")), out.stat().st_size)
    measured = measure(out, task, stages=shown.part)
    found = certified(measured.certificate, measured.ticket_bytes)
    return found | {"task": task.name, "evaluated": measured.evaluated, **dataclasses.asdict(measured.metrics)}
