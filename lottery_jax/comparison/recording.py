"""From a method to records: find the tickets of a seed, save them, and measure their files."""

import dataclasses
import functools
import json
import math
import secrets
from pathlib import Path
from typing import Any

from lottery_jax import environment
from lottery_jax.comparison.evaluate import compare_outputs, describe, measure, output_bound
from lottery_jax.comparison.methods import Method, MethodContext
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.records import Key, PendingRecords, Record, name_of_run, ticket_path
from lottery_jax.io.files import file_digest, write_atomically
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.target import Target
from lottery_jax.progress import Stages, Stopwatch, no_stages
from lottery_jax.tasks import Task
from lottery_jax.tickets.ticket import load_ticket
from lottery_jax.training.checkpoints import Checkpoints, Group, Pending, name_of

_SECONDS = ".seconds"

Keeps = tuple[float | None, ...]
"""Kept fractions of a method and seed; None for a method that does not sweep."""


@dataclasses.dataclass(frozen=True)
class FoundTickets:
    """The kept fractions of a method and seed that have a ticket on disk, and the seconds of all workers."""

    keeps: Keeps
    requested: int
    """Number of requested kept fractions."""
    seconds: float = 0.0
    search_seconds: float = 0.0
    compilation_seconds: float = 0.0
    is_target: bool = False
    """Whether the method is the target itself, which has no ticket."""


@dataclasses.dataclass(frozen=True, eq=False)
class Recorder:
    """Finds the tickets of a comparison and measures them, in files of its run folder.

    Args:
        task: The target and its data.
        protocol: Methods, seeds, kept fractions and settings.
        folder: The run folder.
        stages: Called with the name of each stage of the work.
    """

    task: Task
    protocol: Protocol
    folder: Path
    stages: Stages = no_stages

    @functools.cached_property
    def target(self) -> Target:
        """The target, batch normalisations folded."""
        return fold_batch_norm(self.task.target)

    @functools.cached_property
    def known(self) -> dict[str, Method]:
        """Methods by label, among them those that the selected ones depend on."""
        return {**self.protocol.selection.known, **{method.label: method for method in self.protocol.methods}}

    @property
    def pending(self) -> PendingRecords:
        """Records that are not yet joined to the others."""
        return PendingRecords(self.folder / "records")

    def ticket_path(self, key: Key) -> Path:
        """The file of a ticket."""
        return ticket_path(self.folder, key)

    def unfinished(self, label: str, seed: int) -> Path:
        """The folder of the unfinished trainings of a method and seed."""
        return self.folder / "unfinished" / name_of_run(label, seed)

    def found(self, label: str, seed: int, keeps: Keeps) -> FoundTickets | None:
        """The tickets that `find` has found; None if it has not, or their files are missing."""
        path = self._found_file(label, seed, keeps)
        if not path.exists():
            return None
        values = json.loads(path.read_text())
        found = FoundTickets(**{**values, "keeps": tuple(values["keeps"])})
        whole = found.is_target or all(self.ticket_path((label, seed, keep)).exists() for keep in found.keeps)
        return found if whole else None

    def find(
        self, label: str, seed: int, keeps: Keeps, *, groups: tuple[Group, ...] | None = None, number: int = 0
    ) -> FoundTickets:
        """Find the tickets of a method and seed, and save each.

        Args:
            label: Label of the method. The ticket of the method that it depends on exists.
            seed: Seed of the random source.
            keeps: Kept fractions.
            groups: The groups of runs to train, see `Checkpoints`; None: all.
            number: Number of the first group among all of the comparison.

        Raises:
            Pending: Other calls train the missing groups.
        """
        if (found := self.found(label, seed, keeps)) is not None:
            return found
        method, paths = self.known[label], {keep: self.ticket_path((label, seed, keep)) for keep in keeps}
        checkpoints = Checkpoints(self.unfinished(label, seed), groups, first=number)
        context = MethodContext(
            self.target,
            self.task.dataset,
            self.protocol.tolerance,
            self.protocol.candidates,
            self.protocol.epochs,
            lambda model, seed: load_ticket(self.ticket_path((model, seed, None)), limit=math.inf),
            self._stages((label, seed, None))("finding"),
            self.protocol.tune,
            checkpoints,
            self.protocol.transforms,
            self.task.loss,
        )
        watch = Stopwatch()
        try:
            with watch:
                tickets = method.find(context, seed, [] if None in keeps else keeps)  # type: ignore[arg-type]
        except Pending:
            checkpoints.folder.mkdir(parents=True, exist_ok=True)
            seconds = json.dumps([watch.seconds, watch.work, watch.compilation])
            write_atomically(checkpoints.folder / f"{secrets.token_hex(8)}{_SECONDS}", seconds.encode())
            raise
        saved = list(keeps)  # those of the target itself, which has no tickets
        for keep, ticket in zip(keeps, tickets, strict=True) if tickets else ():
            if ticket is None:
                paths[keep].unlink(missing_ok=True)
                saved.remove(keep)
            else:
                ticket.save(paths[keep])
        times = [[watch.seconds, watch.work, watch.compilation]]
        for path in checkpoints.folder.glob(f"*{_SECONDS}"):
            times.append(json.loads(path.read_text()))
        found = FoundTickets(tuple(saved), len(keeps), *map(sum, zip(*times, strict=True)), is_target=not tickets)
        checkpoints.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._found_file(label, seed, keeps), json.dumps(dataclasses.asdict(found)).encode())
        return found

    def record(self, key: Key, found: FoundTickets) -> None:
        """Measure a ticket file and write its pending record."""
        record = None
        if key[-1] in found.keeps:
            path, stages = self.ticket_path(key), self._stages(key)
            record = make_record(path, found, key, self.task, self.target, self.protocol, stages=stages)
        self.pending.write(key, record)

    def _found_file(self, label: str, seed: int, keeps: Keeps) -> Path:
        return self.unfinished(label, seed) / f"found-{name_of({'keeps': keeps})}.json"

    def _stages(self, key: Key) -> Stages:
        label, seed, keep = key
        kept = "" if keep is None else f", keep {keep:g}"
        return lambda part: self.stages(f"{label}{kept}, seed {seed}: {part}")


def make_record(
    path: Path, found: FoundTickets, key: Key, task: Task, target: Target, protocol: Protocol, *, stages: Stages
) -> Record:
    """The record of a ticket file, or of the target itself; ``target`` has its batch normalisations folded."""
    values: dict[str, Any] = {"trained": True}
    if found.is_target:
        own = task.test_outputs
        metrics = compare_outputs(own, own, task.dataset.test.labels, task.loss.resolved(task.dataset))
    else:
        measured = measure(path, task, protocol.tolerance, stages=stages)
        metrics, certificate, network = measured.metrics, measured.certificate, measured.ticket.network
        tensors, bits, fractions = network.random_tensors, sum(certificate.description_bits.values()), {}
        for name, kept in certificate.kept_by_tensor.items():
            fractions[name] = kept / tensors[name].size
        values = {
            "source_weights": certificate.source_weights,
            "kept_weights": certificate.kept_weights,
            "kept_per_target_weight": certificate.kept_weights / target.weights,
            "kept_fractions": fractions,
            "outcome": certificate.outcome,
            "within_tolerance": certificate.within_tolerance,
            "worst_residual": certificate.worst_residual,
            "output_bound": output_bound(measured, task),
            "description_bits": bits,
            "bits_per_target_weight": bits / target.weights,
            "rounding_bits_per_target_weight": certificate.rounding_bits_per_target_weight,
            "ticket_bytes": measured.ticket_bytes,
            "ticket_sha256": file_digest(path),
            "seconds": found.seconds / found.requested,
            "search_seconds": found.search_seconds / found.requested,
            "compilation_seconds": found.compilation_seconds / found.requested,
            "evaluated": measured.evaluated,
            "source": describe(network),
            "trained": certificate.trained,
            "learning_rate": measured.ticket.header.settings.get("learning_rate") if protocol.tune else None,
        }
    for name, value in dataclasses.asdict(metrics).items():
        # JSON has no NaN.
        values[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    values["loss"] = task.loss.recorded(task.dataset) or None
    method, seed, keep = key
    return Record(
        method=method,
        task=task.name,
        seed=seed,
        keep=keep,
        target_weights=target.weights,
        device=environment.device(),
        versions=environment.versions(),
        **values,
    )
