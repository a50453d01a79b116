"""`lottery-jax compare`: run what is missing of a comparison and show all of it."""

import json
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console

from lottery_jax.cli.interrupts import report_kept
from lottery_jax.cli.options import methods_of, transforms_of
from lottery_jax.cli.progress_bars import ProgressReporter, progress_bars
from lottery_jax.cli.settings import Compare, command_line, learning_epochs
from lottery_jax.cli.worker_options import workers_of
from lottery_jax.comparison.methods import Method
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.records import Record, read_records
from lottery_jax.comparison.report import tables
from lottery_jax.comparison.runner import Comparison
from lottery_jax.io.files import check_writable
from lottery_jax.tasks import load_task
from lottery_jax.workers.workers import SERIAL, Share

_NOTHING = "no method was finished yet, and nothing is kept"


def run_compare(command: Compare, results: TextIO) -> int:
    """Run what is missing, write the report, print the table or the records."""
    methods, known, options = methods_of(command)
    protocol = Protocol(
        methods,
        command.seeds,
        command.keeps,
        command.candidates,
        command.tolerance,
        learning_epochs(command),
        command.tune,
        options,
        transforms_of(command),
    )
    command.check_workers()
    check_writable(command.out)
    with (
        progress_bars(quiet=command.quiet, shared=command.shared) as shown,
        report_kept(lambda: _NOTHING),
        workers_of(command, shown) as workers,
    ):
        task = load_task(
            command.data,
            target=command.target,
            architecture=command.architecture,
            width=command.width,
            data_dir=command.data_dir,
            progress=shown.part("the data and the target"),
        )
        comparison = Comparison(task, protocol, command.out, others=known, stages=shown.part, workers=workers)
        with comparison.held(), report_kept(lambda: _kept(comparison)):
            if workers is not SERIAL:
                left = comparison.contribute_all()
                if isinstance(workers, Share):
                    return _share_is_done(command, comparison, workers, len(left), results)
            if command.join_only:
                comparison.refuse_missing()
            if not workers.leads:
                workers.leave()
                return 0
            records = _joined(command, comparison, shown, results)
            path = comparison.report(records, command_line(command))
    console = Console(file=results)
    if not command.json:
        for table in tables(records, width=console.width):
            console.print(table)
            console.print()
    print(f"report: {path}", file=sys.stderr if command.json else results)
    return 0


def _joined(command: Compare, comparison: Comparison, shown: ProgressReporter, results: TextIO) -> list[Record]:
    """Run what is missing, pair after pair, and print records as they come."""
    records: list[Record] = []
    seconds: dict[str, float] = {}
    for done, (method, seed) in enumerate(comparison.pairs):
        shown.whole(done, len(comparison.pairs), _left(comparison.pairs[done:], seconds))
        start = time.perf_counter()
        found = comparison.run(method, seed)
        took = max(time.perf_counter() - start, sum(record.seconds or 0 for record in found))
        seconds[method.label] = max(took, seconds.get(method.label, 0.0))
        records += found
        for record in found if command.json else ():
            print(record.to_json(), file=results, flush=True)
    comparison.clear()
    return records


def _share_is_done(command: Compare, comparison: Comparison, share: Share, left: int, results: TextIO) -> int:
    """Say what is there of the whole."""
    whole, missing = comparison.asked, len(comparison.missing())
    if command.json:
        facts = {"share": str(share), "folder": str(comparison.folder), "records": whole - missing}
        print(json.dumps(facts | {"missing_records": missing}), file=results)
    else:
        are = "is" if missing == 1 else "are"
        then = f"{missing:,} {are} missing; the same command without --share joins them when the others are done"
        if not missing:
            then = "none is missing; the same command without --share joins them"
        print(f"share {share} is done: {whole - missing:,} of {whole:,} records are there, {then}", file=results)
    return 0


def _left(pairs: Sequence[tuple[Method, int]], seconds: dict[str, float]) -> float | None:
    """Seconds that the rest takes, from what its methods took for other seeds; None before each was seen once."""
    if not all(method.label in seconds for method, _ in pairs):
        return None
    return sum(seconds[method.label] for method, _ in pairs)


def _kept(comparison: Comparison) -> str:
    """What an interrupt leaves."""
    finished = len(read_records(comparison.records_file)) + comparison.aside.count()
    if not finished:
        return _NOTHING
    return (
        f"{finished} finished records are kept in {str(comparison.folder)!r}, and the same command goes on from there"
    )
