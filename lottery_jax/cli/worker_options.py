"""Options by which a command shares its work with other processes: the same for every command and experiment.

Nothing heavy is imported here, so that `--help` answers at once.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lottery_jax.cli.messages import on_interrupt, set_process_name
from lottery_jax.errors import InputError
from lottery_jax.workers import supervisor
from lottery_jax.workers.workers import SERIAL, Share, Workers

if TYPE_CHECKING:
    from lottery_jax.cli.progress_bars import ProgressReporter


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
    """The processes that do the work; default: this process alone."""

    distributed: bool = False
    """Work shared among the processes of a cluster that JAX detects (SLURM, Open MPI, Kubernetes, Cloud TPU). Each
    process runs this command; all of them see --out."""
    coordinator: str | None = None
    """Address HOST:PORT of process 0, if JAX detects no cluster."""
    processes: int | None = None
    """Number of processes, if JAX detects no cluster."""
    process: int | None = None
    """Index of this process, from 0, if JAX detects no cluster."""
    patience: int = 100
    """Seconds without a heartbeat after which another process counts as dead."""
    share: str | None = None
    """Share K/N of the work, e.g. 3/8, for job arrays whose processes do not communicate. When all shares are done,
    the same command without it writes the result."""
    join_only: bool = False
    """No work: the result is written if every part exists, else the missing parts are listed."""

    @property
    def shared(self) -> bool:
        """True if other processes take part."""
        given = (getattr(self, name) for name in supervisor.OPTIONS)
        return any(value is not None and value is not False for value in given)  # --process 0 counts

    def check_workers(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            InputError: Two of them do.
        """
        if self.share is not None:
            Share.read(self.share)
            if self.shared:
                raise InputError(
                    f"--share {self.share} is for processes that do not communicate; omit it or the cluster's options"
                )
            if self.join_only:
                raise InputError(f"--share {self.share} works and --join-only does not; give one of the two")
        if self.join_only and self.shared:
            raise InputError("--join-only is for one process; omit it or the cluster's options")

    def workers(self) -> Workers:
        """The workers; a cluster is joined before JAX is used, as its runtime requires."""
        if self.share is not None:
            return Share.read(self.share)
        if not self.shared:
            return SERIAL
        from lottery_jax.workers.cluster import join

        return join(self.coordinator, processes=self.processes, process=self.process, patience=self.patience)


@contextlib.contextmanager
def workers_of(options: WorkerOptions, reporter: "ProgressReporter") -> Iterator[Workers]:
    """The workers while the block runs; the reporter shows the progress of all processes."""
    reporter.part("joining the other processes" if options.shared else "loading")
    with options.workers() as workers:
        if workers.processes > 1 and options.shared:
            set_process_name(str(workers))
            reporter.follow(workers)
        with on_interrupt(workers.abandon):
            yield workers


WORKER_OPTIONS = tuple(field.name for field in dataclasses.fields(WorkerOptions))
"""Names of these options: results do not depend on them."""
