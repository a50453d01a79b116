"""The comparison: every method takes the same way from task to ticket file to record.

A ticket is saved, read back from its file, verified and rebuilt before it is measured, so that every number
is one of the file. What is recorded is never run again; a killed run goes on where it was.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lottery_jax import environment
from lottery_jax.certificate import Certificate, verify
from lottery_jax.data import DATASETS
from lottery_jax.errors import InputError, suggest
from lottery_jax.evaluation import Metrics, evaluate
from lottery_jax.storage.files import check_writable
from lottery_jax.methods import METHODS, Bench
from lottery_jax.networks.architecture import Architecture
from lottery_jax.records import Record, append_records, read_records, run_folder, write_configuration
from lottery_jax.settings import Compare, Problem, learning_epochs
from lottery_jax.tasks import Target, Task, load_task
from lottery_jax.ticket import Ticket

FORMAT = 1
"""Version of what a run folder holds; another version gets another folder."""
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Measured:
    """A ticket file and what the verifier and the test set say of it."""

    ticket: Ticket
    certificate: Certificate
    metrics: Metrics
    ticket_bytes: int


def measure(path: Path, task: Task) -> Measured:
    """Read a ticket file, verify it, rebuild its network and evaluate it on the test set."""
    ticket = Ticket.load(path)
    metrics = evaluate(ticket.network(), task.target.network(), task.dataset.test)
    return Measured(ticket, verify(ticket), metrics, path.stat().st_size)


def check_problem(settings: Problem) -> None:
    """Refuse what no construction can approximate, before anything is loaded or written."""
    if settings.data not in DATASETS:
        raise InputError(f"data set {settings.data!r} is unknown; {suggest(settings.data, DATASETS)}")
    if not 0 < settings.tolerance < math.inf:
        raise InputError(f"tolerance {settings.tolerance} must be a number above 0; for example --tolerance 0.01")
    if settings.candidates < 1:
        raise InputError(f"candidates {settings.candidates} must be 1 or more; for example --candidates 21")


def check(settings: Compare) -> None:
    """Refuse what cannot work, before anything is loaded or written."""
    check_problem(settings)
    for name in settings.methods:
        if name not in METHODS:
            raise InputError(f"method {name!r} is unknown; {suggest(name, METHODS)}")
    for name in settings.methods or METHODS:
        METHODS[name].check(settings)
    if (
        not settings.seeds
        or not all(0 <= seed < 2**64 for seed in settings.seeds)
        or len(set(settings.seeds)) < len(settings.seeds)
    ):
        raise InputError(f"seeds {settings.seeds} must be different integers in [0, 2**64); for example --seeds 0 1 2")
    if not settings.keeps or not all(0 <= keep <= 1 for keep in settings.keeps):
        raise InputError(f"keeps {settings.keeps} must be kept fractions in [0, 1]; for example --keeps 0.1 0.5")
    if len(set(settings.keeps)) < len(settings.keeps):
        raise InputError(f"keeps {settings.keeps} must differ; leave out the second of equal ones")
    if settings.epochs is not None and settings.epochs < 1:
        raise InputError(f"epochs {settings.epochs} must be 1 or more; leave --epochs out for the default")


def configuration(settings: Compare, task: Task) -> dict[str, Any]:
    """What the results depend on, as JSON; not methods, seeds and keeps: a run folder grows along them."""
    return {
        "format": FORMAT,
        "task": task.name,
        "data_hash": task.dataset.fingerprint,
        "target_hash": fingerprint(task.target),
        "candidates": settings.candidates,
        "tolerance": settings.tolerance,
        "learning_epochs": learning_epochs(settings),
    }


def fingerprint(target: Target) -> str:
    """A short hash of a target's shapes and weights."""
    digest = hashlib.sha256(str(target.sizes).encode())
    for weight in target.weights:
        digest.update(weight.tobytes())
    return digest.hexdigest()[:16]


def describe(architecture: Architecture) -> str:
    """A source network in words.

    >>> from lottery_jax.networks.architecture import Linear
    >>> from lottery_jax.sampler import Sampler
    >>> describe((Linear(4, 3, Sampler.normal(1)), Linear(3, 2, Sampler.normal(1))))
    'linear 4 x 3, linear 3 x 2'
    """

    def sizes(shapes: dict[str, tuple[int, ...]]) -> str:
        return " x ".join(map(str, max(shapes.values(), key=len)))

    return ", ".join(f"{layer.kind} {sizes(layer.shapes())}" for layer in architecture)


def unseen(done: int, total: int) -> None:
    """Progress that nobody watches."""


class Comparison:
    """One configuration's run folder: what is recorded there, what is still to do, and how to do it."""

    def __init__(self, settings: Compare, *, progress: Progress = unseen) -> None:
        """Refuse what can be refused, then load the task; `progress(done, total)` hears of a method's work.

        Nothing is written before all of that has passed.
        """
        check(settings)
        check_writable(settings.out)
        self.settings = settings
        self.progress = progress
        self.task = load_task(settings.data, target=settings.target, data_dir=settings.data_dir)
        self.configuration = configuration(self.settings, self.task)
        self.folder = run_folder(settings.out, self.configuration)
        self.records_file = self.folder / "records.jsonl"
        (self.folder / "tickets").mkdir(parents=True, exist_ok=True)
        write_configuration(self.folder, self.configuration)

    @property
    def lead(self) -> str:
        """The report's first sentence."""
        sizes = " x ".join(map(str, self.task.target.sizes))
        return (
            f"A trained {sizes} network on {self.task.name} is the target. Each method prunes a random"
            " network that is never trained. Every ticket was saved, read back, verified and rebuilt before"
            " it was measured."
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods asked for, in the order of `METHODS`: each comes after the one it builds on."""
        asked = self.settings.methods or tuple(METHODS)
        return tuple(name for name in METHODS if name in asked)

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Every (method, seed) asked for: a whole comparison of the first seed comes first."""
        return [(method, seed) for seed in self.settings.seeds for method in self.methods]

    def keeps(self, method: str) -> tuple[float | None, ...]:
        """What a method is asked to keep; (None,) where it has no such setting."""
        return self.settings.keeps if METHODS[method].sweeps else (None,)

    def records(self) -> list[Record]:
        """The finished records that were asked for, in order."""
        finished = {record.key: record for record in read_records(self.records_file)}
        wanted = [(method, seed, keep) for method, seed in self.pairs for keep in self.keeps(method)]
        return [finished[key] for key in wanted if key in finished]

    def run(self, method: str, seed: int) -> list[Record]:
        """The records of a method and seed; missing ones are found, measured and recorded now."""
        finished = {record.key for record in read_records(self.records_file)}
        missing = [keep for keep in self.keeps(method) if (method, seed, keep) not in finished]
        if missing:
            append_records(self.records_file, self._measure(method, seed, missing))
        return [record for record in self.records() if (record.method, record.seed) == (method, seed)]

    def _measure(self, method: str, seed: int, keeps: Sequence[float | None]) -> list[Record]:
        if METHODS[method].find is None:
            network, test = self.task.target.network(), self.task.dataset.test
            return [self._record(method, seed, None, evaluate(network, network, test))]
        seconds = self._find(method, seed, keeps)
        found = []
        for keep in keeps:
            measured = measure(self._path(method, seed, keep), self.task)
            certificate = measured.certificate
            found.append(
                dataclasses.replace(
                    self._record(method, seed, keep, measured.metrics),
                    source_weights=certificate.source_weights,
                    kept_weights=certificate.kept_weights,
                    kept_per_target_weight=certificate.kept_weights / self.task.target.count,
                    within_tolerance=certificate.within_tolerance,
                    worst_residual=certificate.worst_residual,
                    ticket_bytes=measured.ticket_bytes,
                    seconds=seconds / len(keeps),
                    source=describe(measured.ticket.architecture),
                )
            )
        return found

    def _find(self, method: str, seed: int, keeps: Sequence[float | None]) -> float:
        """Find and save the tickets of a method; returns the seconds that finding took."""
        model = METHODS[method].after
        if model is not None and not self._path(model, seed, None).exists():
            self._find(model, seed, self.keeps(model))
        find = METHODS[method].find
        assert find is not None  # the target itself has no ticket, and no method builds on it

        def on_file(name: str, seed: int) -> Ticket:
            return Ticket.load(self._path(name, seed, None))

        bench = Bench(self.task, self.settings, on_file, self.progress)
        start = time.perf_counter()
        tickets = find(bench, seed, keeps)
        seconds = time.perf_counter() - start
        for keep, ticket in zip(keeps, tickets, strict=True):
            ticket.save(self._path(method, seed, keep))
        return seconds

    def _path(self, method: str, seed: int, keep: float | None) -> Path:
        suffix = "" if keep is None else f"-keep{keep}"
        return self.folder / "tickets" / f"{method}-seed{seed}{suffix}.safetensors"

    def _record(self, method: str, seed: int, keep: float | None, metrics: Metrics) -> Record:
        return Record(
            method=method,
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
            target_weights=self.task.target.count,
            device=environment.device(),
            versions=environment.versions(),
        )
