"""The units of a comparison: measure a ticket, find the tickets of a method and seed, train a group of runs.

A unit names those that it needs: a record needs its tickets, tickets need the groups of runs that the learner splits its
trainings into, and the records of the method that they depend on.
"""

import dataclasses
from collections.abc import Sequence

import jax

from lottery_jax.comparison.records import Key, name_of_run
from lottery_jax.comparison.recording import Keeps, Recorder
from lottery_jax.errors import InputError
from lottery_jax.progress import log
from lottery_jax.training.checkpoints import Group, Pending
from lottery_jax.workers.executors import host
from lottery_jax.workers.shared_objects import LocalObject, SharedObject
from lottery_jax.workers.units import Unit

Shared = SharedObject | LocalObject


@dataclasses.dataclass(frozen=True)
class Tickets:
    """The tickets of a method and seed that are to be found.

    `number` counts the methods and seeds. `splits` is True for a method that splits its trainings into groups of runs.
    """

    shared: Shared
    label: str
    seed: int
    keeps: Keeps
    number: int
    splits: bool

    @property
    def recorder(self) -> Recorder:
        """The recorder of the comparison, read once in each process."""
        return self.shared.load()

    def unit(self) -> Unit:
        """The unit that finds them; each share takes part in a method that splits its trainings."""
        name = f"tickets of {name_of_run(self.label, self.seed)}"
        return Unit(name, find_tickets, (self,), None if self.splits else self.number)

    def record_unit(self, keep: float | None, number: int | None) -> Unit:
        """The unit that measures one of them."""
        return Unit(f"record {name_of_run(self.label, self.seed, keep)}", measure_ticket, (self, keep), number)

    def training_units(self, groups: Sequence[Group]) -> list[Unit]:
        """The units that train groups of runs, on devices like those of this process."""
        arguments = self, devices(), host()
        return [Unit(f"runs {name}", train_group, (*arguments, name), number) for name, number in groups]


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
        model = dataclasses.replace(tickets, label=needed, keeps=(None,), splits=splits)
        return [model.record_unit(None, None)]  # without a number: another share may not finish it in time
    try:
        recorder.find(label, seed, tickets.keeps, groups=() if tickets.splits else None, number=tickets.number)
    except Pending as pending:
        return tickets.training_units(pending.groups)
    return ()


def train_group(tickets: Tickets, expected: str, sender: str, group: str) -> Sequence[Unit]:
    """Train a group of runs of a learner."""
    if (own := devices()) != expected:  # the number of runs that share a step depends on them
        raise InputError(f"the devices are {own} here and {expected} on {sender}; give all workers the same")
    try:
        tickets.recorder.find(tickets.label, tickets.seed, tickets.keeps, groups=[group], number=tickets.number)
    except Pending as pending:
        return () if group in pending.trained else tickets.training_units(pending.groups)
    return ()  # the tickets are found already


def devices() -> str:
    """Number and kind of the devices of this process."""
    device = jax.local_devices()[0]
    return f"{jax.local_device_count()} {device.platform} {device.device_kind}"
