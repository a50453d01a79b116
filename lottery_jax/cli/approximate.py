"""`lottery-jax approximate`: parse, call `run_approximation`, verify and evaluate the ticket, print."""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from lottery_jax.approximation.api import SOLVING, ApproximationOptions, ApproximationResult, run_approximation
from lottery_jax.approximation.chunk_store import FolderChunkStore
from lottery_jax.approximation.run import broken_file, chunk_folder
from lottery_jax.cli.messages import on_interrupt, print_json, print_lines, report_kept
from lottery_jax.cli.options import construction_of, transforms_of
from lottery_jax.cli.progress_bars import ProgressReporter, progress_bars
from lottery_jax.cli.settings import Approximate
from lottery_jax.cli.verify import certificate_row, print_certificate
from lottery_jax.cli.worker_options import executor_of
from lottery_jax.comparison.evaluate import measure
from lottery_jax.errors import InputError, quoted
from lottery_jax.io.files import check_writable
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress
from lottery_jax.tasks import Task, load_model, load_task
from lottery_jax.tickets.verify import verify
from lottery_jax.workers.units import Share


def run_approximate(command: Approximate, results: TextIO) -> int:
    """Solve the missing chunks, write the ticket, and print its certificate and its test accuracy."""
    options = _options(command)
    with (
        contextlib.ExitStack() as stack,
        progress_bars(quiet=command.quiet) as reporter,
        report_kept(_kept_message(command.out)),
        executor_of(command, reporter) as executor,
    ):
        target, task, skipped = _load(command, reporter.part("reading the target"))

        def stages(name: str) -> Progress:
            if name == SOLVING and command.share is None:
                stack.enter_context(on_interrupt(FolderChunkStore(chunk_folder(command.out)).remove_if_empty))
            return reporter.part(name)

        result = run_approximation(
            target,
            options,
            seed=command.seed,
            dataset=None if task is None else task.dataset,
            out=command.out,
            coded=command.coded,
            force=command.force,
            join_only=command.join_only,
            stages=stages,
            executor=executor,
            share=command.own_share,
        )
        stack.close()
        if command.own_share is not None:
            return _print_share(command, command.own_share, result, results)
        row = _evaluated(result, task, reporter)
    notes = target.notes if task is None else (*task.notes, *task.accuracy_notes(row.get("target_accuracy")))
    if not command.json:
        print_lines([f"skipped {quoted(name)}: {reason}" for name, reason in skipped.items()], results)
        print_lines(notes, results)
    row |= {
        "notes": notes,
        "ticket": str(result.path),
        "skipped": skipped,
        "seconds": result.seconds,
        "search_seconds": max(result.seconds - result.compilation_seconds, 0.0),
        "compilation_seconds": result.compilation_seconds,
        "solved_weights": result.solved_weights,
        "found_weights": result.found_weights,
    }
    code = print_certificate(row, results, as_json=command.json)
    # A budget was asked for and is kept, even if nothing is guaranteed of the weights.
    return 0 if command.kept is not None and row["outcome"] == "no guarantee" else code


def _options(command: Approximate) -> ApproximationOptions:
    """The options of the approximation, checked before anything is loaded or written."""
    names = {field.name for field in dataclasses.fields(ApproximationOptions)}
    names &= {field.name for field in dataclasses.fields(command)} - {"construction"}
    options = ApproximationOptions(
        **{name: getattr(command, name) for name in names},
        construction=construction_of(command),
        transforms=transforms_of(command),
    )
    options.check(command.seed, parallel=command.shared or command.share is not None)
    command.check_workers()
    if command.model is not None:
        network_options = {
            "--target": command.target,
            "--data-dir": command.data_dir,
            "--data": None if command.data == "digits" else command.data,
            "--architecture": command.architecture,
            "--importance": None if command.importance == "uniform" else command.importance,
            "--loss-aware": command.loss_aware or None,
            "--prune-target": command.prune_target,
            "--output-tolerance": command.output_tolerance,
        }
        for option, value in network_options.items():
            if value is not None:
                raise InputError(f"{option} must not be combined with --model, which has no data; omit one of the two")
    elif command.pattern is not None:
        raise InputError(f"--pattern {command.pattern!r} selects tensors of a model file; name that with --model")
    if command.out.is_dir():
        raise InputError(f"--out must be a file, but {str(command.out)!r} is a folder; name the ticket file inside it")
    check_writable(command.out.parent)
    return options


def _load(command: Approximate, progress: Progress) -> tuple[Target, Task | None, dict[str, str]]:
    """The target; its task, or the skipped tensors of a model's file with the reasons."""
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


def _evaluated(result: ApproximationResult, task: Task | None, reporter: ProgressReporter) -> dict[str, Any]:
    """The certificate of the ticket file for the target, and its test accuracy if there is a task."""
    assert result.path is not None
    if task is None:
        progress = reporter.part("verifying")
        certificate = verify(result.path, target=result.job.target, limit=math.inf, progress=progress)
        return certificate_row(certificate, result.path.stat().st_size)
    task = task if result.target is task.target else dataclasses.replace(task, target=result.target)
    measured = measure(result.path, task, stages=reporter.part)
    row = certificate_row(measured.certificate, measured.ticket_bytes)
    metrics = {name: value for name, value in dataclasses.asdict(measured.metrics).items() if value is not None}
    return row | {"task": task.name, "evaluated": measured.evaluated, **metrics}


def _print_share(command: Approximate, share: Share, result: ApproximationResult, results: TextIO) -> int:
    """Print how many chunks of the whole job are finished."""
    chunks, left = len(result.job.chunks), result.missing_chunks
    if command.json:
        facts = {"share": str(share), "chunks": chunks, "finished_chunks": chunks - left, "missing_chunks": left}
        facts |= {"solved_weights": result.solved_weights, "found_weights": result.found_weights}
        print_json(facts | {"ticket": None if result.path is None else str(result.path)}, results)
    elif result.path is not None:
        print_lines([f"the ticket {str(result.path)!r} exists already; share {share} has nothing to do"], results)
    else:
        are = "is" if left == 1 else "are"
        then = f"{left:,} {are} missing; run the same command without --share when the others are done"
        if not left:
            then = "none is missing; run the same command without --share to write the ticket"
        print_lines([f"share {share} is done: {chunks - left:,} of {chunks:,} chunks are finished, {then}"], results)
    return 0


def _kept_message(out: Path) -> Callable[[], str]:
    """Reports what an interrupt leaves from now on."""

    def changed(path: Path) -> int | None:
        return path.stat().st_mtime_ns if path.exists() else None

    before = {path: changed(path) for path in (out, broken_file(out))}

    def message() -> str:
        for path, then in before.items():
            if changed(path) != then:
                return f"the ticket {str(path)!r} is written, but was not verified yet"
        chunks = FolderChunkStore(chunk_folder(out)).finished()
        if not chunks:
            return "nothing was finished yet, and nothing is kept"
        are = "s are" if chunks > 1 else " is"
        folder = str(chunk_folder(out))
        return f"{chunks} finished chunk{are} kept in {folder!r}, and the same command resumes from there"

    return message
