"""Tickets of a method and seed: found by this process, or in parts by all that share a comparison, and saved once."""

import contextlib
import dataclasses
import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from lottery_jax.checkpoints import Checkpoints, name_of
from lottery_jax.cluster.crew import Elsewhere
from lottery_jax.stopwatch import Stopwatch
from lottery_jax.storage.files import write_atomically
from lottery_jax.tickets.ticket import Ticket

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
    """Find tickets and save each; raises `Elsewhere` where that is being done by another process, or left to one.

    place: where what is unfinished is kept, and whose it is. shares: whether the method shares its trainings itself, so
    that all processes enter it; of another one process finds everything.
    """
    unit = f"tickets-{name_of({'keeps': list(keeps)})}"
    note = place.note(unit)
    if note is not None:
        said = json.loads(note)
        return FoundTickets(**{**said, "keeps": tuple(said["keeps"])})
    if not shares and not place.take(unit, 0):
        raise Elsewhere([place.unit(unit)])
    watch = Stopwatch()
    try:
        with watch:
            tickets = find([keep for keep in keeps if keep is not None])
        if shares and not place.take(unit):
            raise Elsewhere([place.unit(unit)])
    except Elsewhere:
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
