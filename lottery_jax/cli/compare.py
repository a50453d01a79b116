"""`lottery-jax compare`: parse the options, call the comparison, and print its records or table."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from lottery_jax.cli.messages import print_json, print_lines, report_kept
from lottery_jax.cli.options import field_name, transforms_of
from lottery_jax.cli.progress_bars import progress_bars
from lottery_jax.cli.settings import Compare, command_line
from lottery_jax.cli.worker_options import executor_of
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.records import Record, count_finished, name_of_run
from lottery_jax.comparison.registry import all_learners, option_name, select_methods, user_class
from lottery_jax.comparison.report import tables
from lottery_jax.comparison.runner import Callbacks, Results, run_comparison
from lottery_jax.constructions.registry import CONSTRUCTIONS
from lottery_jax.io.files import check_writable
from lottery_jax.io.user_file import USER_OBJECT
from lottery_jax.tasks import load_task
from lottery_jax.workers.units import Share


def run_compare(command: Compare, results: TextIO) -> int:
    """Compute the missing records, write the report, and print the table or the records; returns the exit code."""
    # Options are checked before the data are loaded and a target is trained.
    protocol = protocol_of(command)
    command.check_workers()
    check_writable(command.out)
    folder = list[Path]()
    with (
        progress_bars(quiet=command.quiet) as shown,
        report_kept(lambda: _kept(*folder)),
        executor_of(command, shown) as executor,
    ):
        task = load_task(
            command.data,
            target=command.target,
            architecture=command.architecture,
            width=command.width,
            data_dir=command.data_dir,
            progress=shown.part("the data and the target"),
        )

        def print_records(records: Sequence[Record]) -> None:
            for record in records if command.json else ():
                print(record.to_json(), file=results, flush=True)

        callbacks = Callbacks(shown.part, folder.append, shown.whole, print_records)
        found = run_comparison(
            task,
            protocol,
            command.out,
            command=command_line(command),
            callbacks=callbacks,
            executor=executor,
            share=command.own_share,
            join_only=command.join_only,
            check=command.check,
        )
    if command.check:
        return _print_check(found, results, as_json=command.json)
    if command.own_share is not None:
        _print_share(command.own_share, found, results, as_json=command.json)
        return 0
    console = Console(file=results, markup=False)
    if not command.json:
        print_lines(task.notes, results)
        for table in tables(found, width=console.width):
            console.print(table)
            console.print()
    print_lines([f"report: {found.report}"], sys.stderr if command.json else results)
    return 0


def protocol_of(command: Compare) -> Protocol:
    """The checked settings of a comparison; raises ``InputError``."""
    own = [user_class(word) for word in command.methods if USER_OBJECT.fullmatch(word)]
    options: dict[str, dict[str, Any]] = {}
    for kind in (*CONSTRUCTIONS.values(), *all_learners().values(), *own):
        values = getattr(command, field_name(kind), None)
        if values is not None:
            options[option_name(kind)] = {each.name: getattr(values, each.name) for each in dataclasses.fields(values)}
    epochs = command.epochs
    if epochs is None:
        epochs = 50 if command.data == "digits" else 10  # digits has few images
    return Protocol(
        select_methods(command.methods, options, candidates=command.candidates),
        command.seeds,
        command.keeps,
        command.candidates,
        command.tolerance,
        epochs,
        command.tune,
        transforms_of(command),
    )


def _print_share(share: Share, found: Results, results: TextIO, *, as_json: bool) -> None:
    """Print how many of all records are finished."""
    missing = len(found.missing)
    finished = found.requested - missing
    if as_json:
        facts = {"share": str(share), "folder": str(found.folder), "records": finished, "missing_records": missing}
        print_json(facts, results)
        return
    others = f"{missing:,} missing. The same command without --share joins them when the other shares are finished."
    if not missing:
        others = "none missing. The same command without --share joins them."
    print_lines([f"share {share} is finished: {finished:,} of {found.requested:,} records, {others}"], results)


def _print_check(found: Results, results: TextIO, *, as_json: bool) -> int:
    """Print what is wrong with each ticket; exit code 1 if any is not what its record says."""
    for record in found:
        fault = found.faults.get(record.key)
        if as_json:
            print_json({"ticket": name_of_run(*record.key), "outcome": record.outcome, "fault": fault}, results)
        elif record.outcome is not None:
            words = f"the ticket {fault}" if fault else f"{record.outcome}, as recorded"
            print_lines([f"{name_of_run(*record.key)}: {words}"], results)
    return int(bool(found.faults))


def _kept(folder: Path | None = None) -> str:
    """What an interrupt keeps."""
    finished = 0 if folder is None else count_finished(folder)
    if not finished:
        return "no method was finished yet, and nothing is kept"
    return f"{finished} finished records are kept in {str(folder)!r}; the same command resumes there"
