"""The units of a comparison: measure a ticket, find the tickets of a method and seed, train a group of runs.

A unit names those that it needs. A record needs its tickets. Tickets need the groups of runs into which the learner
splits its trainings, and the records of the method that they depend on.
"""

import dataclasses
from collections.abc import Sequence

from lottery_jax.comparison.recording import Keeps, Recorder
from lottery_jax.comparison.records import Key, name_of_run
from lottery_jax.progress import log
from lottery_jax.training.checkpoints import Group, Pending
from lottery_jax.workers.shared_objects import LocalObject, SharedObject
from lottery_jax.workers.units import Unit

SharedRecorder = SharedObject | LocalObject


@dataclasses.dataclass(frozen=True)
class Tickets:
    """The tickets of a method and seed that are to be found.

    Args:
        shared: The recorder of the comparison.
        label: Label of the method.
        seed: Its seed.
        keeps: Kept fractions without a record.
        number: Number among the methods and seeds.
        splits: Whether the method splits its trainings into groups of runs.
        needed: Whether another method depends on it; each share then finds all, because others may not finish in time.
    """

    shared: SharedRecorder
    label: str
    seed: int
    keeps: Keeps
    number: int
    splits: bool
    needed: bool = False

    @property
    def recorder(self) -> Recorder:
        """The recorder of the comparison, read once in each process."""
        return self.shared.load()

    @property
    def share_number(self) -> int | None:
        """The number of their units; None if all shares split the trainings, and the last one finds the tickets."""
        return None if self.splits or self.needed else self.number

    def unit(self) -> Unit:
        """The unit that finds them; each share takes part in a method that splits its trainings."""
        return Unit(f"tickets of {name_of_run(self.label, self.seed)}", find_tickets, (self,), self.share_number)

    def record_unit(self, keep: float | None) -> Unit:
        """The unit that measures one of them, in the share that finds it."""
        name = f"record {name_of_run(self.label, self.seed, keep)}"
        return Unit(name, measure_ticket, (self, keep), self.share_number)

    def training_units(self, groups: Sequence[Group]) -> list[Unit]:
        """The units that train groups of runs."""
        units = list[Unit]()
        for group in groups:
            number = None if self.needed else group.number
            units.append(Unit(f"runs {group.name}", train_group, (self, group), number))
        return units


def measure_ticket(tickets: Tickets, keep: float | None) -> Sequence[Unit]:
    """Write the pending record of a ticket."""
    key: Key = (tickets.label, tickets.seed, keep)
    recorder = tickets.recorder
    if not recorder.pending.has(key):
        found = recorder.found(*key[:2], tickets.keeps)
        if found is None:
            return [tickets.unit()]
        recorder.record(key, found)
    return ()


def find_tickets(tickets: Tickets) -> Sequence[Unit]:
    """Find and save tickets."""
    recorder, label, seed = tickets.recorder, tickets.label, tickets.seed
    if recorder.found(label, seed, tickets.keeps) is not None:
        return ()
    needed = recorder.known[label].depends_on
    if needed is not None and not recorder.ticket_path((needed, seed, None)).exists():
        log.info("%s depends on %s, which is found first (seed %d)", label, needed, seed)
        splits = recorder.known[needed].shares
        model = dataclasses.replace(tickets, label=needed, keeps=(None,), splits=splits, needed=True)
        return [model.record_unit(None)]
    try:
        recorder.find(label, seed, tickets.keeps, groups=() if tickets.splits else None, number=tickets.number)
    except Pending as pending:
        return tickets.training_units(pending.groups)
    return ()


def train_group(tickets: Tickets, group: Group) -> Sequence[Unit]:
    """Train a group of runs of a learner."""
    try:
        tickets.recorder.find(tickets.label, tickets.seed, tickets.keeps, groups=(group,), number=tickets.number)
    except Pending as pending:
        return () if group.name in pending.trained else tickets.training_units(pending.groups)
    return ()  # the tickets are found already
