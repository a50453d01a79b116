"""From a method to records: find the tickets of a seed, save them, and measure their files."""

import dataclasses
import json
import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottery_jax import environment
from lottery_jax.comparison.evaluate import compare_logits, describe, measure, output_bound
from lottery_jax.comparison.methods import Method, MethodContext
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.records import Key, Record
from lottery_jax.io.files import file_digest, write_atomically
from lottery_jax.networks.target import Target
from lottery_jax.progress import Stages, Stopwatch
from lottery_jax.tasks import Task
from lottery_jax.training.checkpoints import name_of
from lottery_jax.workers.workers import Pending

_SECONDS = ".seconds"


@dataclasses.dataclass(frozen=True)
class FoundTickets:
    """The kept fractions of a method and seed that have a ticket on disk, and the seconds of all processes."""

    keeps: tuple[float | None, ...]
    requested: int
    """Number of requested kept fractions."""
    seconds: float = 0.0
    search_seconds: float = 0.0
    compilation_seconds: float = 0.0
    is_target: bool = False
    """Whether the method is the target itself, which has no ticket."""


def find_tickets(method: Method, context: MethodContext, seed: int, paths: Mapping[float | None, Path]) -> FoundTickets:
    """Find the tickets of a method for a seed and save each.

    Args:
        method: A method that shares its trainings is entered by all processes; any other by one process.
        context: Its ``checkpoints`` hold unfinished trainings and the processes that share them.
        seed: Seed of the random source.
        paths: The ticket file for each kept fraction.

    Raises:
        Pending: Another process finds the tickets, or has to.
    """
    checkpoints, keeps = context.checkpoints, list(paths)
    assert checkpoints is not None
    unit = f"found-{name_of({'keeps': keeps})}"
    note = checkpoints.note(unit)
    if note is not None:
        values = json.loads(note)
        return FoundTickets(**{**values, "keeps": tuple(values["keeps"])})
    if not method.shares and not checkpoints.take(unit, 0):
        raise Pending([checkpoints.unit(unit)])
    watch = Stopwatch()
    try:
        with watch:
            tickets = method.find(context, seed, [] if None in keeps else keeps)  # type: ignore[arg-type]
        if method.shares and not checkpoints.take(unit):
            raise Pending([checkpoints.unit(unit)])
    except Pending:
        if checkpoints.taken:
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
    checkpoints.done(unit, json.dumps(dataclasses.asdict(found)))
    return found


def make_record(
    path: Path, found: FoundTickets, key: Key, task: Task, target: Target, protocol: Protocol, *, stages: Stages
) -> Record:
    """The record of a ticket file, or of the target itself; ``target`` has its batch normalisations folded."""
    values: dict[str, Any] = {"trained": True}
    if found.is_target:
        logits = task.test_outputs
        metrics = compare_logits(logits, logits, task.dataset.test.labels)
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
    values |= dataclasses.asdict(metrics)
    if not math.isfinite(metrics.max_deviation):
        values["max_deviation"] = None  # JSON has no NaN
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
