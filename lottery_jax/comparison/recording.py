"""From a ticket's file to its record: every number is one of the file, measured after it was read back."""

import math
from pathlib import Path

from lottery_jax import environment
from lottery_jax.comparison.evaluation import Metrics, compared
from lottery_jax.comparison.finding import FoundTickets
from lottery_jax.comparison.measuring import Measured, describe, measure, output_bound
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.records import Key, Record
from lottery_jax.networks.target import Target
from lottery_jax.progress import Stages
from lottery_jax.tasks import Task


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
            name: kept / measured.ticket.network.drawn[name].size for name, kept in certificate.kept_by_tensor.items()
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
