"""Options that choose who does the work of a command: the same for every command and experiment.

Nothing heavy is imported here, so that `--help` answers at once, and Dask only for the options that need it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lottery_jax.errors import InputError
from lottery_jax.workers.units import Share

if TYPE_CHECKING:
    from lottery_jax.cli.progress_bars import ProgressReporter


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
    """The workers; default: this process alone."""

    workers: int | None = None
    """Number of worker processes on this host, which split its cores and GPUs."""
    scheduler: str | None = None
    """Address of a Dask scheduler whose workers see --out, e.g. tcp://host:8786."""
    scheduler_file: Path | None = None
    """File that a Dask scheduler wrote, instead of its address."""
    share: str | None = None
    """Share K/N of the work, e.g. 3/8, for job arrays whose processes do not communicate. When all shares are done,
    the same command without it writes the result."""
    join_only: bool = False
    """No work: the result is written if every part exists, else the missing parts are listed."""

    @property
    def shared(self) -> bool:
        """True if other processes do the work."""
        return any(getattr(self, name) is not None for name in _CLUSTER)

    @property
    def own_share(self) -> Share | None:
        """The share of the work; None for all."""
        return None if self.share is None else Share.read(self.share)

    def check_workers(self) -> None:
        """Refuse options that are wrong or contradict each other; raises `InputError`."""
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers must be 1 or more, got {self.workers}; omit it for a single process")
        given = [f"--{name.replace('_', '-')}" for name in _CLUSTER if getattr(self, name) is not None]
        given += [option for option, value in (("--share", self.own_share), ("--join-only", self.join_only)) if value]
        if len(given) > 1:
            raise InputError(f"{given[1]} must be given without {given[0]}; omit one of the two")


_OLD = ("--distributed", "--coordinator", "--processes", "--process", "--patience")
"""Options of the scheduler that Dask has replaced."""


def refuse_old_options(words: Sequence[str]) -> None:
    """Refuse the options of earlier versions, and name the new ones; raises `InputError`."""
    for word in words:
        if (option := word.partition("=")[0]) in _OLD:
            raise InputError(
                f"{option} is no longer an option; give --workers N for processes on this host, or --scheduler ADDRESS"
                " of a Dask scheduler"
            )


_CLUSTER = ("workers", "scheduler", "scheduler_file")


@contextlib.contextmanager
def executor_of(options: WorkerOptions, reporter: "ProgressReporter") -> Iterator[Any]:
    """The executor of the options while the block runs: a client of Dask, or None for this process."""
    if not options.shared:
        yield None
        return
    reporter.part("starting the workers")
    from lottery_jax.workers.dask_cluster import local_cluster, running_cluster

    if options.workers is not None:
        cluster = local_cluster(options.workers)
    else:
        cluster = running_cluster(options.scheduler or options.scheduler_file or "")
    with cluster as client, reporter.following(client):
        yield client


WORKER_OPTIONS = tuple(field.name for field in dataclasses.fields(WorkerOptions))
"""Names of these options: results do not depend on them."""
