"""One way from task to record for every method, resumed where it was left."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from lottery_jax.comparison.methods import (
    DenseTarget,
    LearnerMethod,
    Method,
    MethodContext,
    MethodSelection,
    RandomMask,
)
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.records import Record, read_records
from lottery_jax.comparison.registry import all_methods
from lottery_jax.comparison.report import rows, tables, write_report
from lottery_jax.comparison.runner import Callbacks, Comparison, run_comparison
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.node import Spec
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.ticket import Ticket, load_ticket, make_ticket
from tests.cli.calling import lottery_jax
from tests.comparison import tiny

pytestmark = pytest.mark.usefixtures("plain_figure")


@dataclasses.dataclass(frozen=True)
class ToleranceObjective(Method):
    """Counts how often it is asked for each seed."""

    label: ClassVar[str] = "pensia"  # type: ignore[misc]
    counts: ClassVar[Counter] = Counter()

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        self.counts["pensia", seed] += 1
        return [tiny.masked(context.target, 0.5, seed, promise=True)]


@dataclasses.dataclass(frozen=True)
class Sweep(ToleranceObjective):
    """The same for each kept fraction, with the ticket of the other before it."""

    label: ClassVar[str] = "sweep"  # type: ignore[misc]
    sweeps: ClassVar[bool] = True
    depends_on: ClassVar[str | None] = "pensia"

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        self.counts["sweep", seed] += len(keeps)
        assert context.ticket("pensia", seed).seed == seed
        return [tiny.masked(context.target, keep, seed) for keep in keeps]


METHODS = (DenseTarget(), ToleranceObjective(), Sweep(), RandomMask())
OTHERS = {method.label: method for method in METHODS}


@pytest.fixture
def counts() -> Counter:
    ToleranceObjective.counts.clear()
    return ToleranceObjective.counts


def protocol(methods: Sequence[Method] = METHODS, options: Mapping | None = None, **changes) -> Protocol:
    selection = MethodSelection(tuple(methods), OTHERS, options or {})
    return Protocol(selection, **{"seeds": (0,), "keeps": (0.5,), "tolerance": 9.0, "epochs": 1, **changes})


def run(out: Path, settings: Protocol, task=None) -> Comparison:
    run_comparison(task or tiny.task(), settings, out, command="compare")
    return Comparison(task or tiny.task(), settings, out)


def test_every_record_is_what_its_ticket_file_says(tmp_path: Path) -> None:
    found = run(tmp_path, protocol(seeds=(3,), keeps=(0.25, 0.75)))
    dense, pensia, low, high, random = found.records()
    assert (dense.accuracy, dense.agreement, dense.max_deviation) == (1.0, 1.0, 0.0)
    assert (
        dense.source_weights is dense.ticket_bytes is dense.seconds is dense.within_tolerance is dense.outcome is None
    )
    for record, name in ((pensia, "pensia-seed3"), (low, "sweep-seed3-keep0.25"), (random, "random-seed3")):
        path = found.folder / "tickets" / f"{name}.safetensors"
        ticket = load_ticket(path)
        assert record.ticket_bytes == path.stat().st_size
        assert (record.source_weights, record.kept_weights) == (tiny.WEIGHTS, ticket.kept_weights)
        assert record.kept_per_target_weight == ticket.kept_weights / tiny.WEIGHTS
        assert record.source == "2 random_layer leaves: fc1 [3, 4], fc2 [2, 3]"
        assert record.evaluated == "the random network on all 40 images"
        assert record.seconds is not None and record.search_seconds is not None
        assert record.compilation_seconds == pytest.approx(record.seconds - record.search_seconds)
        assert record.description_bits and record.device and record.versions["jax"]
        assert record.bits_per_target_weight == record.description_bits / tiny.WEIGHTS
    assert (pensia.outcome, pensia.within_tolerance) == ("no guarantee", tiny.WEIGHTS) and 0 < pensia.worst_residual < 9
    assert low.output_bound is None and 0 < pensia.max_deviation <= pensia.output_bound
    assert 0 < pensia.rounding_bits_per_target_weight < pensia.bits_per_target_weight
    assert low.rounding_bits_per_target_weight is dense.bits_per_target_weight is None
    assert low.outcome == "no guarantee" and low.within_tolerance is low.worst_residual is None
    assert (low.keep, high.keep) == (0.25, 0.75)
    # Chance keeps as many weights of each tensor as the construction, elsewhere.
    model, chance = (load_ticket(found.folder / "tickets" / f"{m}-seed3.safetensors") for m in ("pensia", "random"))
    assert {n: m.sum() for n, m in model.masks.items()} == {n: m.sum() for n, m in chance.masks.items()}
    assert any((mask != chance.masks[name]).any() for name, mask in model.masks.items())


def test_what_is_finished_is_never_run_again(counts: Counter, tmp_path: Path) -> None:
    settings = protocol(seeds=(0, 1))
    first = run(tmp_path, settings).records()
    assert run(tmp_path, settings).records() == first
    assert set(counts.values()) == {1}
    records = run(tmp_path, dataclasses.replace(settings, seeds=(1, 2), keeps=(0.5, 0.9))).records()
    pensia, sweep = ({seed: counts[label, seed] for seed in range(3)} for label in ("pensia", "sweep"))
    assert (pensia, sweep) == ({0: 1, 1: 1, 2: 1}, {0: 1, 1: 2, 2: 2})
    asked = (("dense", None), ("pensia", None), ("sweep", 0.5), ("sweep", 0.9), ("random", None))
    assert {r.key for r in records} == {(method, seed, keep) for seed in (1, 2) for method, keep in asked}
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_method_builds_on_is_found_once_under_its_own_name(
    counts: Counter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "lottery_jax"):
        found = run(tmp_path, protocol(methods=(RandomMask(),)))
    assert caplog.messages == ["random depends on pensia, which is found first (seed 0)"]
    assert [record.method for record in list(read_records(found.records_file).values())] == ["pensia", "random"]
    assert [record.method for record in found.records()] == ["random"], "who did not ask for it does not see it"
    run(tmp_path, protocol(methods=(ToleranceObjective(), RandomMask())))
    assert counts == {("pensia", 0): 1}
    (found.folder / "tickets" / "pensia-seed0.safetensors").unlink()
    found.records_file.write_text("".join(found.records_file.read_text().splitlines(True)[:1]))
    run(tmp_path, protocol(methods=(RandomMask(),)))
    assert counts == {("pensia", 0): 2} and len(list(read_records(found.records_file).values())) == 2


def test_whatever_changes_results_is_another_folder(tmp_path: Path) -> None:
    dense = protocol(methods=(DenseTarget(),))
    changes = [{}, {"tolerance": 8.0}, {"candidates": 20}, {"epochs": 2}, {"options": {"scalar": {"range": "model"}}}]
    folders = [run(tmp_path, protocol((DenseTarget(),), **change)).folder for change in changes]
    folders += [run(tmp_path, dense, task).folder for task in (tiny.task(examples=41), tiny.task(signed=True))]
    other = tiny.task(network=mlp((4, 2, 2), Spec((2, 2, 1), True)))
    folders.append(run(tmp_path, dense, dataclasses.replace(other, dataset=tiny.task().dataset)).folder)
    assert len(set(folders)) == len(folders) == len(list(tmp_path.iterdir()))
    assert all(json.loads((folder / "configuration.json").read_text())["task"] == "tiny" for folder in folders)
    more = protocol((DenseTarget(), ToleranceObjective()), seeds=(5,), keeps=(0.1,))
    assert run(tmp_path, more).folder == folders[0], "a folder grows along methods, seeds and keeps"


def test_callbacks_and_join_only(tmp_path: Path) -> None:
    opened, overall, recorded = list[Path](), list[tuple](), list[str]()
    callbacks = Callbacks(
        opened=opened.append,
        overall=lambda *state: overall.append(state),
        recorded=lambda records: recorded.extend(record.method for record in records),
    )
    settings = protocol((DenseTarget(), ToleranceObjective()), seeds=(0, 1))
    with pytest.raises(InputError, match=r"^4 of 4 records are missing \(dense-seed0, .*\)\. Start the unfinished"):
        run_comparison(tiny.task(), settings, tmp_path, command="c", join_only=True)
    found = run_comparison(tiny.task(), settings, tmp_path, command="c", callbacks=callbacks)
    assert opened == [found.folder] and recorded == [record.method for record in found]
    assert [state[:2] for state in overall] == [(done, 4) for done in range(4)]
    assert overall[0][2] is None and overall[2][2] > 0 and found.requested == 4
    assert run_comparison(tiny.task(), settings, tmp_path, command="c", join_only=True) == found


class Fails(ToleranceObjective):
    """Stops half-way."""

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        raise InputError("no")


def test_a_method_that_fails_leaves_no_record(tmp_path: Path) -> None:
    found = Comparison(tiny.task(), protocol(methods=(DenseTarget(), Fails())), tmp_path)
    found.run(DenseTarget(), 0)
    with pytest.raises(InputError, match="no"):
        found.run(Fails(), 0)
    assert [record.method for record in found.records()] == ["dense"]


class Broken(ToleranceObjective):
    """Promises what it does not keep."""

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        ticket = tiny.masked(context.target, 0.5, seed)
        return [
            make_ticket(
                ticket.network, seed=seed, masks=ticket.masks, method="b", target=context.target, tolerance=1e-9
            )
        ]


class NotANumber(ToleranceObjective):
    """A network whose numbers overflow: behind the second layer most are NaN, which of them by the order of adding."""

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        source = tiny.single(context.target.network, Sampler.uniform(-(2.0**64), 2.0**64), gain=2.0**64)
        masks = tiny.random_masks(source, 1.1, seed)
        return [make_ticket(source, seed=seed, masks=masks, method="n", target=context.target, tolerance=1e39)]


def the_record(method: Method, tmp_path: Path, **changes) -> Record:
    found = run(tmp_path, protocol(methods=(method,), **changes))
    (record,) = found.records()
    assert list(read_records(found.records_file).values()) == [record]
    text = write_report(
        found.folder, [record], title="t", configuration={}, command="c", methods=found.recorder.known
    ).read_text()
    assert f"<td>{record.method}</td>" in text and ">nan<" not in text and tables([record], width=200)
    return record


def test_a_ticket_that_is_broken_is_recorded_as_broken(tmp_path: Path) -> None:
    record = the_record(Broken(), tmp_path, tolerance=1e-9)
    assert record.outcome == "broken" and record.within_tolerance < tiny.WEIGHTS and record.worst_residual > 1e-9
    assert rows([record])[0].within() == f"{record.within_tolerance:,}"
    assert record.accuracy <= 1 and record.ticket_bytes > 0


def test_a_network_that_gives_nan_is_recorded(tmp_path: Path) -> None:
    record = the_record(NotANumber(), tmp_path, tolerance=1e39)
    assert record.max_deviation is None and record.outcome == "no guarantee" and record.within_tolerance
    assert rows([record])[0].within() == "\u2013"
    assert record.accuracy == record.agreement < 0.5 and record.target_accuracy == 1


def test_a_second_comparison_in_one_folder_is_refused_in_a_sentence(counts: Counter, tmp_path: Path) -> None:
    first, second = (Comparison(tiny.task(), protocol(), tmp_path) for _ in range(2))
    with first.locked():
        with pytest.raises(
            InputError, match=rf"the run folder .* is in use by process {os.getpid()} on .*; wait"
        ) as said:
            second.locked().__enter__()
        other = Comparison(tiny.task(), protocol(tolerance=8.0), tmp_path)
        with other.locked():  # another configuration is another folder
            pass
    assert "\n" not in str(said.value)
    with second.locked():
        second.run(ToleranceObjective(), 0)
    assert counts["pensia", 0] == 1


ALL = all_methods()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, r"seeds must be different integers .*, got \(1, 1\)"),
        ({"seeds": (-1,)}, r"in \[0, 2\*\*64\)"),
        ({"seeds": (2**64,)}, r"in \[0, 2\*\*64\)"),
        ({"keeps": ()}, "keeps"),
        ({"keeps": (1.5,)}, r"keeps must be kept fractions in \[0, 1\], got \(1.5,\)"),
        ({"keeps": (float("nan"),)}, "keeps"),
        ({"keeps": (0.1, 0.1)}, "keeps must be different"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        *(({"candidates": 0, "methods": (method,)}, "candidates must be from 1") for method in ALL.values()),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        Comparison(tiny.task(), protocol(**changes), tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Comparison(tiny.task(), protocol(), tmp_path / "file" / "runs")


def test_a_killed_run_goes_on_where_it_was(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--methods", "dense", "scalar"]
    words += ["--target", str(target), "--candidates", "8", "--tolerance", "0.2"]
    words += ["--seeds", "0", "1", "2", "--json", "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"}
    environment["LOTTERY_JAX_CACHE"] = str(tmp_path / "cache")  # a killed process may leave half a compiled program
    command = [sys.executable, "-m", "lottery_jax", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as first:
        assert first.stdout is not None
        seen = [json.loads(first.stdout.readline()) for _ in range(2)]
        first.send_signal(signal.SIGKILL)
    assert lottery_jax(*words) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    asked = [(method, seed) for seed in (0, 1, 2) for method in ("dense", "scalar")]
    assert [(record["method"], record["seed"]) for record in records] == asked
    assert records[: len(seen)] == seen  # seconds included: nothing was run again
    (folder,) = (tmp_path / "runs").iterdir()
    lines = (folder / "records.jsonl").read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == records
    assert (folder / "report.html").exists() and not (folder / "lock").exists()


class LeavesOut(Sweep):
    """Has no ticket for keep 0.9: a training that diverged."""

    label: ClassVar[str] = "leaves-out"  # type: ignore[misc]
    depends_on: ClassVar[str | None] = None

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket | None]:  # type: ignore[override]
        self.counts["leaves-out", seed] += len(keeps)
        return [None if keep == 0.9 else tiny.masked(context.target, keep, seed) for keep in keeps]


def test_a_kept_fraction_without_a_ticket_is_left_out_and_tried_again(counts: Counter, tmp_path: Path) -> None:
    asked = protocol(methods=(LeavesOut(),), keeps=(0.5, 0.9))
    found = run(tmp_path, asked)
    assert [record.keep for record in found.records()] == [0.5]
    assert [record.keep for record in run(tmp_path, asked).records()] == [0.5] and counts == {("leaves-out", 0): 3}


def test_a_learning_rate_is_chosen_on_the_validation_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The factor 1e30 diverges, and 1e-6 learns nothing."""
    caplog.set_level("INFO")
    tuned = protocol(methods=(LearnerMethod(EdgePopup(), "wide"),), keeps=(0.5,), epochs=4, tune=(1e-6, 1.0, 1e30))
    comparison = Comparison(tiny.task(), tuned, tmp_path)
    ((method, seed),) = comparison.pairs
    (record,) = comparison.run(method, seed)
    assert record.learning_rate == EdgePopup().learning_rate
    assert sum("of the validation split at" in line for line in caplog.messages) == 2
    assert "learning rate" in [
        column.header.replace("\n", " ") for table in tables([record], width=90) for column in table.columns
    ]  # type: ignore[union-attr]
    assert not (comparison.folder / "unfinished").exists()


@pytest.mark.parametrize("tune", [(0.0, 1.0), (1.0, 1.0), (float("nan"),)])
def test_bad_factors_are_refused(tune: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="must be different positive factors"):
        protocol(tune=tune)
