"""The comparison: every method takes the same way from task to ticket file to record.

A ticket is saved, read back from its file, verified against the task's own target and rebuilt before it is measured, so
that every number is one of the file. What is recorded is never run again; a killed run goes on where it was.
"""

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lottery_jax import environment
from lottery_jax.checkpoints import Checkpoints
from lottery_jax.comparison.evaluation import Metrics, compared
from lottery_jax.comparison.measuring import Measured, describe, measure, output_bound
from lottery_jax.comparison.methods import Bench, Method
from lottery_jax.comparison.records import Key, Record, append_records, read_records, run_folder, write_configuration
from lottery_jax.comparison.report import write_report
from lottery_jax.errors import InputError
from lottery_jax.networks.fold import folded
from lottery_jax.networks.transforms import Transform
from lottery_jax.progress import Stages, log, unnamed
from lottery_jax.stopwatch import Stopwatch
from lottery_jax.storage.files import check_writable
from lottery_jax.storage.lock import locked
from lottery_jax.tasks import Task
from lottery_jax.tickets.header import check_tolerance
from lottery_jax.tickets.ticket import Ticket, load_ticket

_FORMAT = 2
"""Version of what a run folder holds; another version gets another folder."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a comparison asks of its methods.

    methods: in the order of the report, each after the one it builds on. keeps: kept fractions of the methods that
    sweep. tune: factors of each learner's own learning rate, the best of which on the validation split counts.
    options: what is not usual of the methods' own options, for the configuration. transforms: of every random source.
    """

    methods: tuple[Method, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    keeps: tuple[float, ...] = (0.005, 0.01, 0.03, 0.1, 0.3, 0.5)
    candidates: int = 21
    tolerance: float = 0.01
    epochs: int = 10
    tune: tuple[float, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    transforms: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance)
        for method in self.methods:
            method.check(self.candidates, self.tolerance)
            if self.transforms and not method.transformable:
                raise InputError(
                    f"{method.label} trains the weights of a source of its own, which a density below 1, locked"
                    " weights and folded layers do not change; leave these out, or the method"
                )
        seeds, keeps = self.seeds, self.keeps
        if not seeds or not all(0 <= seed < 2**64 for seed in seeds) or len(set(seeds)) < len(seeds):
            raise InputError(f"seeds {seeds} must be different integers in [0, 2**64); for example --seeds 0 1 2")
        if not keeps or not all(0 <= keep <= 1 for keep in keeps):
            raise InputError(f"keeps {keeps} must be kept fractions in [0, 1]; for example --keeps 0.1 0.5")
        if len(set(keeps)) < len(keeps):
            raise InputError(f"keeps {keeps} must differ; leave out the second of equal ones")
        if not all(0 < factor < math.inf for factor in self.tune) or len(set(self.tune)) < len(self.tune):
            raise InputError(f"tune {self.tune} must be different positive factors; for example --tune 0.3 1 3")
        if self.epochs < 1:
            raise InputError(f"epochs {self.epochs} must be 1 or more; leave --epochs out for the default")

    def keeps_of(self, method: Method) -> tuple[float | None, ...]:
        """What a method is asked to keep; (None,) where it has no such setting."""
        return self.keeps if method.sweeps else (None,)


def configuration(protocol: Protocol, task: Task) -> dict[str, Any]:
    """What the results depend on, as JSON; not methods, seeds and keeps: a run folder grows along them."""
    return {
        "format": _FORMAT,
        "task": task.name,
        "data_hash": task.dataset.fingerprint,
        "target_hash": task.target.digest[:16],
        "candidates": protocol.candidates,
        "tolerance": protocol.tolerance,
        "learning_epochs": protocol.epochs,
        **({"tune": list(protocol.tune)} if protocol.tune else {}),
        **({"options": dict(protocol.options)} if protocol.options else {}),
        **({"transforms": [repr(each) for each in protocol.transforms]} if protocol.transforms else {}),
    }


class Comparison:
    """One configuration's run folder: what is recorded there, what is still to do, and how to do it.

    others: methods that those of the protocol may build on, by label. stages: told of each part of the work.
    """

    def __init__(
        self,
        task: Task,
        protocol: Protocol,
        out: Path,
        *,
        others: Mapping[str, Method] | None = None,
        stages: Stages = unnamed,
    ) -> None:
        check_writable(out)
        self.task, self.protocol, self.stages = task, protocol, stages
        self.target = folded(task.target)
        self.known = {**(others or {}), **{method.label: method for method in protocol.methods}}
        self.configuration = configuration(protocol, task)
        self.folder = run_folder(out, self.configuration)
        self.records_file = self.folder / "records.jsonl"
        (self.folder / "tickets").mkdir(parents=True, exist_ok=True)
        write_configuration(self.folder, self.configuration)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No other comparison writes into the folder while this block runs."""
        with locked(self.folder, "the run folder"):
            yield

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
        """The records of a method and seed; missing ones are found, measured and recorded now."""
        finished = self._finished()
        missing = [keep for keep in self.protocol.keeps_of(method) if (method.label, seed, keep) not in finished]
        if missing:
            append_records(self.records_file, self._measure(method, seed, missing))
        return [record for record in self.records() if (record.method, record.seed) == (method.label, seed)]

    def _measure(self, method: Method, seed: int, keeps: Sequence[float | None]) -> list[Record]:
        watch = self._find(method, seed, keeps)
        if watch is None:
            logits = self.task.test_outputs
            record = self._record(method, seed, None, compared(logits, logits, self.task.dataset.test.labels))
            return [dataclasses.replace(record, trained=True)]
        found = []
        for keep in (keep for keep in keeps if self._path(method, seed, keep).exists()):
            stages = self._stages(method, seed, keep)
            measured = measure(self._path(method, seed, keep), self.task, self.protocol.tolerance, stages=stages)
            record = self._ticket_record(method, seed, keep, measured)
            times = (each / len(keeps) for each in (watch.seconds, watch.work, watch.compilation))
            names = ("seconds", "search_seconds", "compilation_seconds")
            found.append(dataclasses.replace(record, **dict(zip(names, times, strict=True))))
        return found

    def _stages(self, method: Method, seed: int, keep: float | None = None) -> Stages:
        kept = "" if keep is None else f", keep {keep:g}"
        return lambda part: self.stages(f"{method.label}{kept}, seed {seed}: {part}")

    def _ticket_record(self, method: Method, seed: int, keep: float | None, measured: Measured) -> Record:
        certificate = measured.certificate
        bits = sum(certificate.description_bits.values())
        return dataclasses.replace(
            self._record(method, seed, keep, measured.metrics),
            source_weights=certificate.source_weights,
            kept_weights=certificate.kept_weights,
            kept_per_target_weight=certificate.kept_weights / self.target.weights,
            kept_fractions={
                name: kept / measured.ticket.network.drawn[name].size
                for name, kept in certificate.kept_by_tensor.items()
            },
            outcome=certificate.outcome,
            within_tolerance=certificate.within_tolerance,
            worst_residual=certificate.worst_residual,
            output_bound=output_bound(measured, self.task),
            description_bits=bits,
            bits_per_target_weight=bits / self.target.weights,
            rounding_bits_per_target_weight=certificate.rounding_bits_per_target_weight,
            ticket_bytes=measured.ticket_bytes,
            source=describe(measured.ticket.network),
            evaluated=measured.evaluated,
            trained=certificate.trained,
            learning_rate=measured.ticket.header.settings.get("learning_rate") if self.protocol.tune else None,
        )

    def _find(self, method: Method, seed: int, keeps: Sequence[float | None]) -> Stopwatch | None:
        """Find and save the tickets of a method; returns what finding took, None where there are none."""
        if method.after is not None:
            self._need(self.known[method.after], method, seed)

        def on_file(label: str, seed: int) -> Ticket:
            return load_ticket(self._path(self.known[label], seed, None))

        bench = Bench(
            self.target,
            self.task.dataset,
            self.protocol.tolerance,
            self.protocol.candidates,
            self.protocol.epochs,
            on_file,
            self._stages(method, seed)("finding"),
            self.protocol.tune,
            Checkpoints(unfinished := self.folder / "unfinished" / f"{method.label}-seed{seed}"),
            self.protocol.transforms,
        )
        with Stopwatch() as watch:
            tickets = method.find(bench, seed, [keep for keep in keeps if keep is not None])
        for keep, ticket in zip(keeps, tickets, strict=True) if tickets else ():
            if ticket is None:
                self._path(method, seed, keep).unlink(missing_ok=True)
            else:
                ticket.save(self._path(method, seed, keep))
        shutil.rmtree(unfinished, ignore_errors=True)
        with contextlib.suppress(OSError):  # others may have something unfinished, or nobody had
            unfinished.parent.rmdir()
        return watch if tickets else None

    def _need(self, model: Method, method: Method, seed: int) -> None:
        """What a method builds on is there; found now, it is recorded under its own name like any other."""
        if self._path(model, seed, None).exists():
            return
        log.info("%s builds on %s, which is found first (seed %d)", method.label, model.label, seed)
        keeps = self.protocol.keeps_of(model)
        if (model.label, seed, keeps[0]) in self._finished():
            self._find(model, seed, keeps)  # only its file was lost
        else:
            append_records(self.records_file, self._measure(model, seed, keeps))

    def _finished(self) -> dict[Key, Record]:
        return {record.key: record for record in read_records(self.records_file)}

    def _path(self, method: Method, seed: int, keep: float | None) -> Path:
        suffix = "" if keep is None else f"-keep{keep}"
        return self.folder / "tickets" / f"{method.label}-seed{seed}{suffix}.safetensors"

    def _record(self, method: Method, seed: int, keep: float | None, metrics: Metrics) -> Record:
        return Record(
            method=method.label,
            task=self.task.name,
            seed=seed,
            keep=keep,
            accuracy=metrics.accuracy,
            accuracy_low=metrics.accuracy_low,
            accuracy_high=metrics.accuracy_high,
            target_accuracy=metrics.target_accuracy,
            agreement=metrics.agreement,
            # JSON has no NaN: a network that gives NaN has no largest deviation.
            max_deviation=metrics.max_deviation if math.isfinite(metrics.max_deviation) else None,
            target_weights=self.target.weights,
            device=environment.device(),
            versions=environment.versions(),
        )
