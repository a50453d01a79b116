"""The comparison: every method takes the same way from task to ticket file to record.

A ticket is saved, read back from its file, verified against the task's own target and rebuilt before it is measured, so
that every number is one of the file. What is recorded is never run again; a killed run goes on where it was.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax

from lottery_jax import environment
from lottery_jax.comparison.methods import Method, MethodContext
from lottery_jax.comparison.protocol import Protocol, configuration
from lottery_jax.comparison.recording import FoundTickets, find_shared, forget, recorded, run_units
from lottery_jax.comparison.records import (
    Key,
    PendingRecords,
    Record,
    append_records,
    name_of_run,
    read_records,
    run_folder,
    write_configuration,
)
from lottery_jax.comparison.report import write_report
from lottery_jax.errors import InputError
from lottery_jax.io.files import check_writable, wait_for_file
from lottery_jax.io.locks import folder_lock
from lottery_jax.progress import Stages, log, no_stages
from lottery_jax.tasks import Task
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.training.checkpoints import Checkpoints
from lottery_jax.workers.workers import FOUND, SERIAL, Pending, Share, Workers, unit_of

_NAMED = 8  # missing records that are listed


class Comparison:
    """One configuration's run folder: what is recorded there, what is still to do, and how to do it.

    others: methods that those of the protocol may build on, by label. stages: told of each part of the work. crew: who
    does it; the processes of a crew `contribute`, and the one that leads joins all with `run`.
    """

    def __init__(
        self,
        task: Task,
        protocol: Protocol,
        out: Path,
        *,
        others: Mapping[str, Method] | None = None,
        stages: Stages = no_stages,
        workers: Workers = SERIAL,
    ) -> None:
        if workers.opens:
            check_writable(out)
        self.task, self.protocol, self.stages, self.workers = task, protocol, stages, workers
        self.target = fold_batch_norm(task.target)
        self.known = {**(others or {}), **{method.label: method for method in protocol.methods}}
        self.configuration = configuration(protocol, task)
        self.folder = run_folder(out, self.configuration)
        self.records_file, self.aside = self.folder / "records.jsonl", PendingRecords(self.folder / "records")
        if workers.opens:
            (self.folder / "tickets").mkdir(parents=True, exist_ok=True)
            write_configuration(self.folder, self.configuration)
        keys = [(method.label, seed, keep) for method, seed in self.pairs for keep in protocol.keeps_of(method)]
        self._list = f"records {self.folder.name}"
        self._units = {key: unit_of(self._list, number) for number, key in enumerate(keys)}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No other comparison writes into the folder while this block runs, but the processes of its crew."""
        with contextlib.ExitStack() as stack:
            if self.workers.opens:
                stack.enter_context(folder_lock(self.folder, "the run folder", shared=not self.workers.leads))
            self.workers.begin(self._facts(), self.folder)
            self.workers.expect(self._list, len(self._units))
            yield

    def _facts(self) -> dict[str, str]:
        """What all processes must have in common, by name."""
        asked = [self.configuration, list(self._units)]
        device = jax.local_devices()[0]
        return {
            **environment.version_facts(),
            "target": self.task.target.digest[:16],
            "comparison (data, methods, seeds, keeps or options)": hashlib.sha256(
                json.dumps(asked).encode()
            ).hexdigest()[:16],
            # How many runs share a step depends on them.
            "number or kind of devices": f"{jax.local_device_count()} {device.platform} {device.device_kind}",
        }

    def report(self, records: Sequence[Record], command: str) -> Path:
        """Write the report of some records into the run folder; command: what makes it again."""
        lead = (
            f"A trained network of {self.target.weights:,} weights on {self.task.name} is the target. Each method"
            " prunes a random network; the table says whether the kept weights stayed random or were trained. Every"
            " ticket was saved, read back, verified against the target and rebuilt before it was measured."
        )
        title = f"Strong lottery tickets on {self.task.name}"
        methods = {label: self.known[label].about for label in dict.fromkeys(record.method for record in records)}
        return write_report(
            self.folder,
            records,
            title=title,
            configuration=self.configuration,
            command=command,
            lead=lead,
            methods=methods,
        )

    @property
    def pairs(self) -> list[tuple[Method, int]]:
        """Every (method, seed) asked for: a whole comparison of the first seed comes first."""
        return [(method, seed) for seed in self.protocol.seeds for method in self.protocol.methods]

    def records(self) -> list[Record]:
        """The finished records that were asked for, in order."""
        finished = self._finished()
        wanted = [(method.label, seed, keep) for method, seed in self.pairs for keep in self.protocol.keeps_of(method)]
        return [finished[key] for key in wanted if key in finished]

    def run(self, method: Method, seed: int) -> list[Record]:
        """The records of a method and seed; missing ones are joined, or found, measured and recorded now."""
        missing = self._missing(method, seed)
        if missing:
            if method.after is not None:
                self._join(self.known[method.after], seed)
            records = self._aside(method, seed, missing)
            left = [keep for keep in missing if keep not in records]
            records |= self._recorded(method, seed, missing, left, SERIAL) if left else {}
            append_records(self.records_file, [records[keep] for keep in missing if keep in records])
        self._forget(method, seed)
        return [record for record in self.records() if (record.method, record.seed) == (method.label, seed)]

    def _join(self, model: Method, seed: int) -> None:
        """Append what lies aside of a method that another one builds on."""
        append_records(self.records_file, self._aside(model, seed, self._missing(model, seed)).values())
        if not self._missing(model, seed):
            self._forget(model, seed)

    def _aside(self, method: Method, seed: int, keeps: Sequence[float | None]) -> dict[float | None, Record]:
        """What lies aside of some kept fractions."""
        found = {}
        for keep in keeps:
            comes = self.workers.note(self._unit(method, seed, keep)) not in (None, FOUND)
            record = self.aside.read((method.label, seed, keep), comes=comes)
            if record is not None:
                found[keep] = record
        return found

    def _forget(self, method: Method, seed: int) -> None:
        """Clear away what is recorded now, or was by a process that was killed before it came to that."""
        for keep in self.protocol.keeps_of(method):
            self.aside.remove((method.label, seed, keep))
        forget(self._unfinished(method, seed))

    def contribute(self, method: Method, seed: int) -> None:
        """Do of a method and seed what comes to this process of a crew.

        Raises `Pending` where others are at what is left, or it is left to them.
        """
        missing, left = self._missing(method, seed), []
        for keep in self.protocol.keeps_of(method):
            unit = self._unit(method, seed, keep)
            if self.workers.note(unit) is not None:
                continue
            if keep not in missing or self.aside.has((method.label, seed, keep)):
                self.workers.found(unit)
            else:
                left.append(keep)
        if left:
            self._recorded(method, seed, missing, left, self.workers)

    def contribute_all(self) -> list[tuple[Method, int]]:
        """Contribute to all pairs; those that are left to others, where processes do not meet."""
        seeds, methods, process = self.protocol.seeds, list(self.protocol.methods), self.workers.process
        # Each begins elsewhere, so that they compile different programs; but the first seed comes first.
        turned = process * len(methods) // self.workers.processes
        pairs = [(method, seed) for seed in seeds for method in methods[turned:] + methods[:turned]]
        left = run_units(pairs, lambda pair: self.contribute(*pair), self.workers)
        self.workers.gather(self._list)  # nobody reads any more what is cleared away from here on
        return left

    @property
    def asked(self) -> int:
        """How many records are asked for."""
        return len(self._units)

    def missing(self) -> list[Key]:
        """What is asked for and not recorded, nor lies aside."""
        finished = self._finished()
        return [key for key in self._units if key not in finished and not self.aside.has(key)]

    def refuse_missing(self) -> None:
        """Raise `InputError`, which says what is missing, unless every record is there."""
        if keys := self.missing():
            listed = ", ".join(name_of_run(*key) for key in keys[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")
            raise InputError(
                f"{len(keys)} of {self.asked} records are missing ({listed}); start again the shares that did not come"
                " to their end, or leave --join-only out to do what is missing here"
            )

    def clear(self) -> None:
        """Forget what several methods needed of what is unfinished; they have been recorded."""
        forget(self.folder / "unfinished" / "dense")

    def _missing(self, method: Method, seed: int) -> list[float | None]:
        finished = self._finished()
        return [keep for keep in self.protocol.keeps_of(method) if (method.label, seed, keep) not in finished]

    def _recorded(
        self, method: Method, seed: int, keeps: Sequence[float | None], left: Sequence[float | None], workers: Workers
    ) -> dict[float | None, Record]:
        """New records, of what is left of the kept fractions that tickets are found for; a crew's lie aside."""
        found, records, elsewhere = self._found(method, seed, keeps, workers), {}, []
        for keep in left:
            unit = self._unit(method, seed, keep)
            if keep not in found.keeps:
                if workers is not SERIAL:
                    self.aside.give_up((method.label, seed, keep))
                    workers.done(unit, "no ticket")
            elif workers.take(unit):
                records[keep] = self._measured(method, seed, keep, found)
                if workers is not SERIAL:
                    self.aside.write(records[keep])
                    workers.done(unit, "measured")
            elif workers.note(unit) is None:
                elsewhere.append(unit)
        if elsewhere:
            raise Pending(elsewhere)
        return records

    def _unit(self, method: Method, seed: int, keep: float | None) -> str:
        return self._units.get((method.label, seed, keep)) or f"record {name_of_run(method.label, seed, keep)}"

    def _unfinished(self, method: Method, seed: int) -> Path:
        return self.folder / "unfinished" / name_of_run(method.label, seed)

    def _found(self, method: Method, seed: int, keeps: Sequence[float | None], workers: Workers) -> FoundTickets:
        """Find and save the tickets of a method, or see that they are."""
        if method.after is not None:
            self._need(self.known[method.after], method, seed, workers)

        def on_file(label: str, seed: int) -> Ticket:
            return load_ticket(self._path(self.known[label], seed, None))

        pairs = [(each.label, seed) for each, seed in self.pairs]
        number = pairs.index((method.label, seed)) if (method.label, seed) in pairs else len(pairs)
        place = Checkpoints(self._unfinished(method, seed), workers, number)
        context = MethodContext(
            self.target,
            self.task.dataset,
            self.protocol.tolerance,
            self.protocol.candidates,
            self.protocol.epochs,
            on_file,
            self._stages(method, seed)("finding"),
            self.protocol.tune,
            place,
            self.protocol.transforms,
        )

        def save(keep: float | None, ticket: Ticket | None) -> None:
            if ticket is None:
                self._path(method, seed, keep).unlink(missing_ok=True)
            else:
                ticket.save(self._path(method, seed, keep))

        return find_shared(lambda wanted: method.find(context, seed, wanted), keeps, place, save, shares=method.shares)

    def _need(self, model: Method, method: Method, seed: int, workers: Workers) -> None:
        """What a method builds on is there; found now, it is recorded under its own name like any other."""
        path, keeps = self._path(model, seed, None), self.protocol.keeps_of(model)
        if path.exists():
            return
        log.info("%s builds on %s, which is found first (seed %d)", method.label, model.label, seed)
        own = Share(1, 1) if isinstance(workers, Share) else workers  # of another share it may not come in time
        if self._missing(model, seed):
            records = self._recorded(model, seed, keeps, keeps, own)
            if workers is SERIAL:
                append_records(self.records_file, records.values())
        else:
            self._found(model, seed, keeps, own)  # only its file was lost
        wait_for_file(path)

    def _measured(self, method: Method, seed: int, keep: float | None, found: FoundTickets) -> Record:
        stages, path = self._stages(method, seed, keep), self._path(method, seed, keep)
        return recorded(path, found, (method.label, seed, keep), self.task, self.target, self.protocol, stages=stages)

    def _stages(self, method: Method, seed: int, keep: float | None = None) -> Stages:
        kept = "" if keep is None else f", keep {keep:g}"
        return lambda part: self.stages(f"{method.label}{kept}, seed {seed}: {part}")

    def _finished(self) -> dict[Key, Record]:
        return {record.key: record for record in read_records(self.records_file)}

    def _path(self, method: Method, seed: int, keep: float | None) -> Path:
        return self.folder / "tickets" / f"{name_of_run(method.label, seed, keep)}.safetensors"
