"""The command line of an experiment: settings from options, rows from its run, and a table."""

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

from harness.results import Results, UnitsLeft
from lottery_jax.cli.messages import handle_interrupts, report_kept, wait_if_interrupted
from lottery_jax.cli.progress_bars import progress_bars
from lottery_jax.cli.worker_options import WORKER_OPTIONS, WorkerOptions, executor_of, refuse_old_options
from lottery_jax.errors import ClusterError, InputError


@dataclasses.dataclass(frozen=True)
class Experiment(WorkerOptions):
    """Settings of an experiment."""

    data_dir: Path | None = None
    """Folder with prepared TensorFlow Datasets."""
    out: Path | None = None
    """JSON lines file, one line per result; replaced. Default: the name of the script in this folder."""

    def check(self) -> None:
        """Refuse invalid settings; raises ``InputError``."""
        self.check_workers()


@dataclasses.dataclass(frozen=True)
class Scaled(Experiment):
    """Settings of an experiment that can be reduced.

    >>> Scaled(scale=0.1).part(55), Scaled(scale=0.01).part(5)
    (6, 1)
    """

    scale: float = 1.0
    """Fraction of the published epochs, seeds and rounds, at least one of each."""

    def check(self) -> None:
        super().check()
        if not 0 < self.scale <= 1:
            raise InputError(f"scale must be a fraction of the published run in (0, 1], got {self.scale}")

    def part(self, whole: int) -> int:
        """This fraction of a number of epochs, seeds or rounds, at least 1."""
        return max(1, round(whole * self.scale))


Settings = TypeVar("Settings", bound=Experiment)


def run_script(
    kind: type[Settings], run: Callable[[Settings, Results], None], show: Callable[[Results, Console], None]
) -> None:
    """Run an experiment as a script; a stopped script resumes, and processes share its work.

    Args:
        kind: Settings, whose fields are the options.
        run: Computes the rows.
        show: Prints the table and writes figures.
    """
    is_script = sys.argv[0] in sys.orig_argv  # not run by another program
    if is_script:
        handle_interrupts()
    try:
        code = _run(kind, run, show)
    except (InputError, ClusterError) as error:
        wait_if_interrupted()
        print(f"error: {error}", file=sys.stderr)
        code = 2 if isinstance(error, InputError) else 3
    sys.stdout.flush()
    if is_script:
        os._exit(code)  # JAX would take long to shut down
    if code:
        sys.exit(code)


def _run(
    kind: type[Settings], run: Callable[[Settings, Results], None], show: Callable[[Results, Console], None]
) -> int:
    script = Path(sys.argv[0])
    refuse_old_options(sys.argv[1:])
    settings = tyro.cli(kind, description=run.__globals__["__doc__"])
    settings.check()
    own = {field.name for field in dataclasses.fields(settings)} - {*WORKER_OPTIONS, "out", "data_dir"}
    facts = {"program": hashlib.sha256(script.read_bytes()).hexdigest()[:16]}
    facts |= {f"setting {name}": _content(getattr(settings, name)) for name in sorted(own)}
    out = settings.out or Path(f"{script.stem}.jsonl")
    share = settings.own_share
    with progress_bars() as shown, executor_of(settings, shown) as executor:
        rows = Results(out, facts=facts, executor=executor, share=share, shown=shown, join_only=settings.join_only)
        with contextlib.closing(rows), report_kept(lambda: _kept(rows)):
            try:
                run(settings, rows)
            except UnitsLeft as left:
                print(
                    f"share {share} is finished: {rows.finished():,} finished units, {len(left.units):,} missing."
                    " The same command without --share joins them."
                )
                return 0
            if share is not None:
                print(f"share {share} is finished: no unit is missing. The same command without --share joins them.")
                return 0
            rows.write()
    show(rows, Console())
    print(f"written to {rows.path}")
    return 0


def _content(value: Any) -> str:
    """A setting as text; for a file a digest of its content, because hosts may have it in different folders."""
    if isinstance(value, Path) and value.is_file():
        return hashlib.sha256(value.read_bytes()).hexdigest()[:16]
    return repr(value)


def _kept(rows: Results) -> str:
    """What an interrupt keeps."""
    finished = rows.finished()
    if not finished:
        return "no unit was finished yet, and nothing is kept"
    return f"{finished} finished units are kept in {str(rows.folder)!r}; the same command resumes there"
