"""One way from task to record for every method, resumed where it was left."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lottery_jax import comparison
from lottery_jax.comparison.comparing import Comparison, check
from lottery_jax.data import Dataset, Split
from lottery_jax.errors import InputError
from lottery_jax.comparison.methods import METHODS, Bench, Method, shuffle
from lottery_jax.networks.architecture import Linear
from lottery_jax.comparison.records import read_records
from lottery_jax.sampler import Sampler
from lottery_jax.cli.settings import Compare
from lottery_jax.tasks import Target, Task
from lottery_jax.ticket import Ticket

SIZES = (4, 3, 2)
ARCHITECTURE = tuple(Linear(i, o, Sampler.uniform(-1, 1)) for i, o in itertools.pairwise(SIZES))


def tiny_task() -> Task:
    """Forty random examples of four numbers, and a target whose predictions are their labels."""
    random = np.random.default_rng(0)
    weights = tuple(random.standard_normal(pair).astype(np.float32) for pair in ((4, 3), (3, 2)))
    images = random.random((40, 4), dtype=np.float32)
    labels = (np.maximum(images @ weights[0], 0) @ weights[1]).argmax(1).astype(np.int32)
    split = Split(images, labels)
    return Task("tiny", Dataset("tiny", split, split, split, (2, 2, 1), 2, True), Target(weights))


def masked(keep: float, seed: int, *, promise: bool = False) -> Ticket:
    random = np.random.default_rng(seed)
    masks = {f"{place}.kernel": random.random((i, o)) < keep for place, (i, o) in enumerate(((4, 3), (3, 2)))}
    target = tiny_task().target.weights if promise else None
    return Ticket(ARCHITECTURE, seed, masks, "masked", target=target, tolerance=1.0 if promise else None)


class Calls:
    """Methods that count how often they are asked for each seed."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self.methods = {
            "dense": Method(None),
            "pensia": Method(self.promise),
            "sweep": Method(self.sweep, sweeps=True, after="pensia"),
            "random": Method(shuffle, after="pensia"),
        }

    def promise(self, bench: Bench, seed: int, keeps: Sequence[float | None]) -> list[Ticket]:
        self.counts["pensia", seed] += 1
        return [masked(0.5, seed, promise=True)]

    def sweep(self, bench: Bench, seed: int, keeps: Sequence[float | None]) -> list[Ticket]:
        self.counts["sweep", seed] += len(keeps)
        assert bench.ticket("pensia", seed).seed == seed
        return [masked(keep or 0.0, seed) for keep in keeps]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(comparison, "METHODS", calls.methods)
    monkeypatch.setattr(comparison, "load_task", lambda name, **_: tiny_task())
    return calls


def run(settings: Compare) -> Comparison:
    found = Comparison(settings)
    for method, seed in found.pairs:
        found.run(method, seed)
    return found


def test_every_record_is_what_its_ticket_file_says(calls: Calls, tmp_path: Path) -> None:
    found = run(Compare(seeds=(3,), keeps=(0.25, 0.75), out=tmp_path))
    dense, pensia, low, high, random = found.records()
    assert (dense.accuracy, dense.agreement, dense.max_deviation) == (1.0, 1.0, 0.0)
    assert dense.source_weights is dense.ticket_bytes is dense.seconds is dense.within_tolerance is None
    for record, name in ((pensia, "pensia-seed3"), (low, "sweep-seed3-keep0.25"), (random, "random-seed3")):
        path = found.folder / "tickets" / f"{name}.safetensors"
        ticket = Ticket.load(path)
        assert record.ticket_bytes == path.stat().st_size
        assert (record.source_weights, record.kept_weights) == (18, ticket.kept_weights)
        assert record.kept_per_target_weight == ticket.kept_weights / 18
        assert record.source == "linear 4 x 3, linear 3 x 2"
        assert record.seconds is not None and record.device and record.versions["jax"]
    assert pensia.within_tolerance is not None and pensia.worst_residual is not None
    assert low.within_tolerance is low.worst_residual is None
    assert (low.keep, high.keep) == (0.25, 0.75)
    # Chance keeps as many weights of each tensor as the construction, elsewhere.
    model, chance = (Ticket.load(found.folder / "tickets" / f"{m}-seed3.safetensors") for m in ("pensia", "random"))
    assert {n: m.sum() for n, m in model.masks.items()} == {n: m.sum() for n, m in chance.masks.items()}


def test_what_is_finished_is_never_run_again(calls: Calls, tmp_path: Path) -> None:
    settings = Compare(seeds=(0, 1), keeps=(0.5,), out=tmp_path)
    first = run(settings).records()
    assert run(settings).records() == first
    assert set(calls.counts.values()) == {1}
    more = dataclasses.replace(settings, seeds=(1, 2), keeps=(0.5, 0.9))
    records = run(more).records()
    assert calls.counts == {
        ("pensia", 0): 1,
        ("pensia", 1): 1,
        ("pensia", 2): 1,
        ("sweep", 0): 1,
        ("sweep", 1): 2,
        ("sweep", 2): 2,
    }
    assert {r.key for r in records} == {
        (method, seed, keep)
        for seed in (1, 2)
        for method, keep in (
            ("dense", None),
            ("pensia", None),
            ("sweep", 0.5),
            ("sweep", 0.9),
            ("random", None),
        )
    }
    assert len(list(tmp_path.iterdir())) == 1


def test_a_method_finds_the_one_it_builds_on_without_recording_it(calls: Calls, tmp_path: Path) -> None:
    found = run(Compare(methods=("random",), seeds=(0,), out=tmp_path))
    assert [record.method for record in read_records(found.records_file)] == ["random"]
    assert calls.counts == {("pensia", 0): 1}


def test_another_tolerance_is_another_run(calls: Calls, tmp_path: Path) -> None:
    settings = Compare(methods=("dense",), seeds=(0,), out=tmp_path)
    other = dataclasses.replace(settings, tolerance=0.02)
    assert run(settings).folder != run(other).folder


def test_a_method_that_fails_leaves_no_record(calls: Calls, tmp_path: Path) -> None:
    def fail(bench: Bench, seed: int, keeps: Sequence[float | None]) -> list[Ticket]:
        raise InputError("no")

    calls.methods["pensia"] = Method(fail)
    found = Comparison(Compare(seeds=(0,), out=tmp_path))
    found.run("dense", 0)
    with pytest.raises(InputError):
        found.run("pensia", 0)
    assert [record.method for record in found.records()] == ["dense"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("pensai",)}, r"method 'pensai' is unknown; did you mean 'pensia'\?"),
        ({"data": "mnits"}, r"data set 'mnits'.*did you mean 'mnist'\?"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, r"seeds \(1, 1\) must be different"),
        ({"seeds": (-1,)}, r"in \[0, 2\*\*64\)"),
        ({"keeps": (1.5,)}, r"keeps \(1.5,\) must be kept fractions in \[0, 1\]"),
        ({"keeps": (float("nan"),)}, "keeps"),
        ({"keeps": (0.1, 0.1)}, "must differ"),
        ({"epochs": 0}, "epochs 0 must be 1 or more"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"candidates": 0}, "candidates"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(changes: dict, message: str, tmp_path: Path) -> None:
    settings = dataclasses.replace(Compare(out=tmp_path / "runs"), **changes)
    with pytest.raises(InputError, match=message):
        check(settings)
    with pytest.raises(InputError, match=message):
        Comparison(settings)
    assert list(tmp_path.iterdir()) == []


def test_methods_come_after_those_they_build_on() -> None:
    order = list(METHODS)
    assert all(order.index(m.after) < place for place, m in enumerate(METHODS.values()) if m.after)


def test_a_killed_run_goes_on_where_it_was(target: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lottery_jax", "compare", "--methods", "dense", "pensia", "random"]
    command += ["--target", str(target), "--candidates", "8", "--tolerance", "0.2"]
    command += ["--seeds", "0", "1", "--json", "--out", str(tmp_path)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as first:
        assert first.stdout is not None
        seen = [json.loads(first.stdout.readline()) for _ in range(2)]
        first.send_signal(signal.SIGKILL)
    second = subprocess.run(command, capture_output=True, check=True, env=environment)
    records = [json.loads(line) for line in second.stdout.splitlines()]
    assert [(r["method"], r["seed"]) for r in records] == [
        (method, seed) for seed in (0, 1) for method in ("dense", "pensia", "random")
    ]
    assert records[: len(seen)] == seen  # seconds included: nothing was run again
    (folder,) = tmp_path.iterdir()
    lines = (folder / "records.jsonl").read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == records
    assert (folder / "report.html").exists()
