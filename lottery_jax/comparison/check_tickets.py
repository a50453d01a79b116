"""`compare --check`: the tickets of a run folder are verified and measured again, and compared with their records."""

import math
from collections.abc import Iterable
from pathlib import Path

from lottery_jax.comparison.evaluate import measure
from lottery_jax.comparison.records import Key, Record, ticket_faults, ticket_path
from lottery_jax.errors import InputError, TicketError
from lottery_jax.progress import Stages, no_stages
from lottery_jax.tasks import Task

_VERIFIED = ("outcome", "source_weights", "kept_weights", "within_tolerance", "worst_residual")
_MEASURED = ("accuracy", "agreement", "metric_value")
"""Fields of a record that the verifier and the test images give, under the same names."""

_MOVED = 1e-3  # fraction of the predictions, or of a metric, that rounding may change on another processor


def check_tickets(
    folder: Path, records: Iterable[Record], task: Task, tolerance: float, *, stages: Stages = no_stages
) -> dict[Key, str]:
    """Verify the tickets of records again for the target of their task, and run them on its test images.

    Args:
        folder: The run folder.
        records: Its records; those without a ticket are skipped.
        task: The task of the comparison.
        tolerance: The tolerance of the comparison.
        stages: Called with the name of each ticket and stage.

    Returns:
        What is wrong, by key: files that are missing, changed or invalid, and results that are not those recorded.
    """
    records = [record for record in records if record.outcome is not None]
    faults = ticket_faults(folder, records)
    for record in records:
        path = ticket_path(folder, record.key)
        if path.is_file() and (fault := _fault(path, record, task, tolerance, stages)):
            faults[record.key] = fault
        elif path.is_file() and record.ticket_sha256 is None:
            del faults[record.key]  # its content is what the record says
    return faults


def _fault(path: Path, record: Record, task: Task, tolerance: float, stages: Stages) -> str | None:
    """What is wrong with a ticket; None if it is what its record says."""
    try:
        measured = measure(path, task, tolerance, limit=1.0, stages=lambda part: stages(f"{path.stem}: {part}"))
    except (TicketError, InputError) as error:
        return f"is refused: {error}"
    for names, found, moved in ((_VERIFIED, measured.certificate, 0.0), (_MEASURED, measured.metrics, _MOVED)):
        for name in names:
            recorded, now = getattr(record, name), getattr(found, name)
            equal = recorded == now
            if recorded is None and isinstance(now, float) and not math.isfinite(now):
                continue  # as the record writes it
            if not equal and isinstance(recorded, int | float) and isinstance(now, int | float):
                equal = math.isclose(recorded, now, rel_tol=max(1e-9, moved), abs_tol=moved)
            if not equal:
                return f"has the {name.replace('_', ' ')} {now}, and {recorded} in its record"
    return None
