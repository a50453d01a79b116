"""What the scripts of `experiments/` share: settings from the command line, a part of the whole, rows that are kept."""

import contextlib
import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console

from harness.results import Results
from lottery_jax.cli.interrupts import handle_interrupts, report_kept, wait_if_interrupted
from lottery_jax.cli.progress_bars import progress_bars
from lottery_jax.cli.worker_options import WORKER_OPTIONS, WorkerOptions, workers_of
from lottery_jax.errors import ClusterError, InputError
from lottery_jax.workers import supervisor
from lottery_jax.workers.workers import Pending, Share


@dataclasses.dataclass(frozen=True)
class Experiment(WorkerOptions):
    """Settings of an experiment."""

    data_dir: Path | None = None
    """Folder with prepared TensorFlow Datasets."""
    out: Path | None = None
    """JSON lines, one for each result; replaced. The script's own name in this folder if left out."""

    def check(self) -> None:
        """Refuse settings that make no experiment; raises `InputError`."""
        self.check_workers()


@dataclasses.dataclass(frozen=True)
class Scaled(Experiment):
    """Settings of an experiment that may be run in part.

    >>> Scaled(scale=0.1).part(55), Scaled(scale=0.01).part(5)
    (6, 1)
    """

    scale: float = 1.0
    """Part of the published epochs, seeds and rounds, at least one of each."""

    def check(self) -> None:
        super().check()
        if not 0 < self.scale <= 1:
            raise InputError(f"scale is {self.scale}; give a part of the published run, in (0, 1]")

    def part(self, whole: int) -> int:
        """So many epochs, seeds or rounds of the whole."""
        return max(1, round(whole * self.scale))


Settings = TypeVar("Settings", bound=Experiment)


def run_script(
    kind: type[Settings], run: Callable[[Settings, Results], None], show: Callable[[Results, Console], None]
) -> None:
    """A script: its settings from the command line, what it finds, and a table of it.

    A script that was stopped goes on where it was; processes share its work as they do a command's.
    """
    if supervisor.shares(sys.argv[1:]) and not supervisor.follow():
        sys.exit(supervisor.supervise([sys.executable, *sys.argv]))
    ours = sys.argv[0] in sys.orig_argv  # and not run by another program
    if ours:
        handle_interrupts()
    try:
        code = _run(kind, run, show)
    except InputError as error:
        wait_if_interrupted()
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except ClusterError as error:
        wait_if_interrupted()
        print(f"error: {error}", file=sys.stderr)
        code = 3
    sys.stdout.flush()
    if ours:
        os._exit(code)  # JAX takes its time to clear up, and after a refusal it would wait for other processes in vain
    if code:
        sys.exit(code)


def _run(
    kind: type[Settings], run: Callable[[Settings, Results], None], show: Callable[[Results, Console], None]
) -> int:
    script = Path(sys.argv[0])
    settings = tyro.cli(kind, description=run.__globals__["__doc__"])
    settings.check()
    own = {field.name for field in dataclasses.fields(settings)} - {*WORKER_OPTIONS, "out", "data_dir"}
    facts = {"program": hashlib.sha256(script.read_bytes()).hexdigest()[:16]}
    facts |= {f"setting {name}": _content(getattr(settings, name)) for name in sorted(own)}
    out = settings.out or Path(f"{script.stem}.jsonl")
    with progress_bars(shared=settings.shared) as shown, workers_of(settings, shown) as workers:
        rows = Results(out, workers=workers, facts=facts, shown=shown, join_only=settings.join_only)
        with contextlib.closing(rows), report_kept(lambda: _kept(rows)):
            try:
                run(settings, rows)
            except Pending as left:
                print(
                    f"share {workers} is done: {rows.finished():,} units are there, and {len(left.units):,} are left to"
                    " others; the same command without --share puts all together"
                )
                return 0
            workers.gather("rows")  # nobody reads any more what is cleared away from here on
            if isinstance(workers, Share):
                print(
                    f"share {workers} is done: all units are there; the same command without --share puts them together"
                )
                return 0
            if not workers.leads:
                workers.leave()
                return 0
            rows.write()
    show(rows, Console())
    print(f"written to {rows.path}")
    return 0


def _content(value: Any) -> str:
    """A setting in words; of a file what it holds, wherever a host has it."""
    if isinstance(value, Path) and value.is_file():
        return hashlib.sha256(value.read_bytes()).hexdigest()[:16]
    return repr(value)


def _kept(rows: Results) -> str:
    """What an interrupt leaves."""
    finished = rows.finished()
    if not finished:
        return "no unit was finished yet, and nothing is kept"
    return f"{finished} finished units are kept in {str(rows.folder)!r}, and the same command goes on from there"
