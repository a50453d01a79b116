"""Tickets of a method and seed: found by this process, or in parts by all that share a comparison, and saved once.

From a ticket's file to its record: every number is one of the file, measured after it was read back.
Pairs of a method and a seed, gone through by each process of a crew: what others are at is left for later.
"""

import contextlib
import dataclasses
import json
import math
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lottery_jax import environment
from lottery_jax.comparison.evaluate import Measured, Metrics, compared, describe, measure, output_bound
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.records import Key, Record
from lottery_jax.io.files import write_atomically
from lottery_jax.networks.target import Target
from lottery_jax.progress import Stages, Stopwatch
from lottery_jax.tasks import Task
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.checkpoints import Checkpoints, name_of
from lottery_jax.workers.workers import Pending, Workers

_SECONDS = ".seconds"


@dataclasses.dataclass(frozen=True)
class FoundTickets:
    """The kept fractions that a ticket was found for, and the seconds of all processes in which they were.

    asked: number of the kept fractions that were asked for. no_ticket: whether the method is the target itself, which
    needs none.
    """

    keeps: tuple[float | None, ...]
    asked: int
    seconds: float = 0.0
    work: float = 0.0
    compilation: float = 0.0
    no_ticket: bool = False


def find_shared(
    find: Callable[[Sequence[float]], Sequence[Ticket | None]],
    keeps: Sequence[float | None],
    place: Checkpoints,
    save: Callable[[float | None, Ticket | None], None],
    *,
    shares: bool,
) -> FoundTickets:
    """Find tickets and save each; raises `Pending` where that is being done by another process, or left to one.

    place: where what is unfinished is kept, and whose it is. shares: whether the method shares its trainings itself, so
    that all processes enter it; of another one process finds everything.
    """
    unit = f"tickets-{name_of({'keeps': list(keeps)})}"
    note = place.note(unit)
    if note is not None:
        said = json.loads(note)
        return FoundTickets(**{**said, "keeps": tuple(said["keeps"])})
    if not shares and not place.take(unit, 0):
        raise Pending([place.unit(unit)])
    watch = Stopwatch()
    try:
        with watch:
            tickets = find([keep for keep in keeps if keep is not None])
        if shares and not place.take(unit):
            raise Pending([place.unit(unit)])
    except Pending:
        if place.taken:
            place.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(place.folder / f"{secrets.token_hex(8)}{_SECONDS}", json.dumps(_times(watch)).encode())
        raise
    for keep, ticket in zip(keeps, tickets, strict=True) if tickets else ():
        save(keep, ticket)
    there = [keep for keep, ticket in zip(keeps, tickets, strict=True) if ticket is not None] if tickets else keeps
    times = [_times(watch), *(json.loads(path.read_text()) for path in place.folder.glob(f"*{_SECONDS}"))]
    total = {name: sum(each[name] for each in times) for name in times[0]}
    found = FoundTickets(tuple(there), len(keeps), **total, no_ticket=not tickets)
    place.done(unit, json.dumps(dataclasses.asdict(found)))
    return found


def _times(watch: Stopwatch) -> dict[str, float]:
    return {"seconds": watch.seconds, "work": watch.work, "compilation": watch.compilation}


def forget(folder: Path) -> None:
    """Remove what was kept of a method and seed, or of what several need; and the folder around it with the last."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # others have something there
        folder.parent.rmdir()


def recorded(
    path: Path, found: FoundTickets, key: Key, task: Task, target: Target, protocol: Protocol, *, stages: Stages
) -> Record:
    """The record of a ticket's file, or of the target itself, which has none.

    target: the task's, batch normalisations folded. stages: told of each part of the work.
    """
    if found.no_ticket:
        logits = task.test_outputs
        return _record(key, task, target, compared(logits, logits, task.dataset.test.labels), trained=True)
    measured = measure(path, task, protocol.tolerance, stages=stages)
    return _record(
        key,
        task,
        target,
        measured.metrics,
        **_of_ticket(measured, task, target),
        learning_rate=measured.ticket.header.settings.get("learning_rate") if protocol.tune else None,
        seconds=found.seconds / found.asked,
        search_seconds=found.work / found.asked,
        compilation_seconds=found.compilation / found.asked,
    )


def _of_ticket(measured: Measured, task: Task, target: Target) -> dict:
    certificate = measured.certificate
    bits = sum(certificate.description_bits.values())
    return {
        "source_weights": certificate.source_weights,
        "kept_weights": certificate.kept_weights,
        "kept_per_target_weight": certificate.kept_weights / target.weights,
        "kept_fractions": {
            name: kept / measured.ticket.network.random_tensors[name].size
            for name, kept in certificate.kept_by_tensor.items()
        },
        "outcome": certificate.outcome,
        "within_tolerance": certificate.within_tolerance,
        "worst_residual": certificate.worst_residual,
        "output_bound": output_bound(measured, task),
        "description_bits": bits,
        "bits_per_target_weight": bits / target.weights,
        "rounding_bits_per_target_weight": certificate.rounding_bits_per_target_weight,
        "ticket_bytes": measured.ticket_bytes,
        "source": describe(measured.ticket.network),
        "evaluated": measured.evaluated,
        "trained": certificate.trained,
    }


def _record(key: Key, task: Task, target: Target, metrics: Metrics, **more: object) -> Record:
    method, seed, keep = key
    return Record(
        method=method,
        task=task.name,
        seed=seed,
        keep=keep,
        accuracy=metrics.accuracy,
        accuracy_low=metrics.accuracy_low,
        accuracy_high=metrics.accuracy_high,
        target_accuracy=metrics.target_accuracy,
        agreement=metrics.agreement,
        # JSON has no NaN: a network that gives NaN has no largest deviation.
        max_deviation=metrics.max_deviation if math.isfinite(metrics.max_deviation) else None,
        target_weights=target.weights,
        device=environment.device(),
        versions=environment.versions(),
        **more,  # type: ignore[arg-type]
    )


_Pair = TypeVar("_Pair")


def run_units(pairs: Sequence[_Pair], contribute: Callable[[_Pair], None], workers: Workers) -> list[_Pair]:
    """Contribute to each pair what comes to this process, until all is done; returns what is left to others.

    contribute: raises `Pending` where others are at what is left of a pair. Nothing is left where processes meet;
    shares, which do not, go through what is left once more.

    >>> from lottery_jax.workers.workers import SERIAL
    >>> run_units(["a", "b"], print, SERIAL)
    a
    b
    []
    """
    waiting: dict[int, tuple[str, ...]] = dict.fromkeys(range(len(pairs)), ())
    attempts = 0
    while waiting and (workers.meets or attempts < 2):
        left, attempts = dict[int, tuple[str, ...]](), attempts + 1
        for place, units in waiting.items():
            if units and not workers.ready(units):
                left[place] = units
                continue
            try:
                contribute(pairs[place])
            except Pending as other:
                left[place] = other.units
        waiting = left
        workers.wait([unit for units in left.values() for unit in units])
    return [pairs[place] for place in waiting]
