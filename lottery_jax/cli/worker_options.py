"""The options by which a command shares its work with other processes: the same for every command and experiment.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lottery_jax.cli import messages as interrupt
from lottery_jax.cli.messages import set_process_name
from lottery_jax.errors import InputError
from lottery_jax.workers import supervisor
from lottery_jax.workers.workers import SERIAL, Share, Workers

if TYPE_CHECKING:
    from lottery_jax.cli.progress_bars import ProgressReporter


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
    """Who does the work; without any of them, this process alone."""

    distributed: bool = False
    """Share the work among the processes of a cluster that JAX finds (SLURM, Open MPI, Kubernetes, Cloud TPU); each
    process runs this command, and --out is on a file system that all of them see."""
    coordinator: str | None = None
    """The same where JAX finds no cluster; HOST:PORT of process 0."""
    processes: int | None = None
    """How many processes share the work."""
    process: int | None = None
    """Which of them this is, from 0."""
    patience: int = 100
    """Seconds without a sign of life after which another process counts as dead."""
    share: str | None = None
    """K/N, as in 3/8: do only the K-th of every N units of work, and end; for processes that may not talk, as in a job
    array. When all have ended, the same command without it joins what is there."""
    join_only: bool = False
    """Do no work: write the result if all of it is there, else say what is missing."""

    @property
    def shared(self) -> bool:
        """True where other processes take part."""
        given = (getattr(self, name) for name in supervisor.OPTIONS)
        return any(value is not None and value is not False for value in given)  # process 0 is given, too

    def check_workers(self) -> None:
        """Refuse options that do not go together; raises `InputError`."""
        if self.share is not None:
            Share.read(self.share)
            if self.shared:
                raise InputError(f"--share {self.share} is for processes that never meet; leave it or the cluster out")
            if self.join_only:
                raise InputError(f"--share {self.share} works and --join-only does not; give one of the two")
        if self.join_only and self.shared:
            raise InputError("--join-only is for one process; leave it or the cluster out")

    def workers(self) -> Workers:
        """Who does the work; others are met before JAX is used, as its runtime wants it."""
        if self.share is not None:
            return Share.read(self.share)
        if not self.shared:
            return SERIAL
        from lottery_jax.workers.cluster import join

        return join(self.coordinator, processes=self.processes, process=self.process, patience=self.patience)


@contextlib.contextmanager
def workers_of(options: WorkerOptions, shown: "ProgressReporter") -> Iterator[Workers]:
    """Who does the work, while the block runs; how far it is, is shown of all processes."""
    shown.part("joining the other processes" if options.shared else "loading")
    with options.workers() as workers:
        if workers.processes > 1 and options.shared:
            set_process_name(str(workers))
            shown.follow(workers)
        with interrupt.closing(workers.abandon):
            yield workers


WORKER_OPTIONS = tuple(field.name for field in dataclasses.fields(WorkerOptions))
"""Names of these options: what comes out does not depend on them."""
