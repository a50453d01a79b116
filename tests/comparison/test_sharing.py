"""A comparison on workers or in shares: the records and tickets of one process, and nothing is found twice."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lottery_jax.comparison.api import compare
from lottery_jax.comparison.methods import (
    DenseTarget,
    LearnerMethod,
    Method,
    MethodContext,
    MethodSelection,
    RandomMask,
)
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.records import PendingRecords, read_records
from lottery_jax.comparison.runner import Comparison, run_comparison
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.checkpoints import Checkpoint, Snapshot
from lottery_jax.workers.units import Share
from tests.cli.calling import as_process
from tests.comparison import tiny
from tests.comparison.test_records import record
from tests.comparison.test_runner import OTHERS, LeavesOut, Sweep, ToleranceObjective

pytestmark = pytest.mark.usefixtures("plain_figure")

METHODS = (
    DenseTarget(),
    ToleranceObjective(),
    Sweep(),
    RandomMask(),
    LeavesOut(),
    LearnerMethod(EdgePopup(batch_size=8), "wide"),
    LearnerMethod(Magnitude(batch_size=8), "gadget"),
)
SEEDS = (0, 1)
FILES = {"configuration.json", "figure.png", "records.jsonl", "report.html", "tickets"}


@pytest.fixture
def counts() -> Counter:
    ToleranceObjective.counts.clear()
    return ToleranceObjective.counts


def protocol(methods: Sequence[Method] = METHODS, **changes: Any) -> Protocol:
    settings = {"seeds": SEEDS, "keeps": (0.5, 0.9), "tolerance": 9.0, "epochs": 2}
    return Protocol(MethodSelection(tuple(methods), OTHERS), **{**settings, **changes})


def comparison(out: Path, **changes: Any) -> Comparison:
    return Comparison(tiny.task(), protocol(**changes), out)


def work(out: Path, share: Share | None = None, executor: Any = None, **changes: Any) -> Comparison:
    """The comparison after it has run."""
    run_comparison(tiny.task(), protocol(**changes), out, command="compare", share=share, executor=executor)
    return comparison(out, **changes)


def contents(found: Comparison) -> tuple[list[dict], dict[str, bytes]]:
    """Records but for seconds, in the order of the file, and tickets by name."""
    rows = [dataclasses.asdict(each) for each in list(read_records(found.records_file).values())]
    rows = [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]
    return rows, {path.name: path.read_bytes() for path in (found.folder / "tickets").iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], dict[str, bytes]]:
    return contents(work(tmp_path_factory.mktemp("alone")))


def test_workers_record_what_one_process_does(counts: Counter, alone: tuple, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        found = work(tmp_path, executor=executor)
    assert contents(found) == alone
    times = {"pensia": 1, "sweep": 2, "leaves-out": 2}  # one for each kept fraction
    assert counts == {(name, seed): count for name, count in times.items() for seed in SEEDS}
    assert {path.name for path in found.folder.iterdir()} == FILES
    for each in found.records():
        assert each.seconds is None or each.seconds > 0


_RECORDS = """
import sys
from pathlib import Path
import jax
from tests.comparison.test_sharing import digest, work
assert jax.local_device_count() == 8
print(digest(work(Path(sys.argv[1]))))
"""


def digest(found: Comparison) -> str:
    """Of records and tickets."""
    rows, tickets = contents(found)
    return hashlib.sha256(repr((rows, sorted(tickets.items()))).encode()).hexdigest()


@pytest.mark.slow
def test_eight_devices_record_what_one_does(tmp_path: Path) -> None:
    """Learned and trained tickets: each device has some of the runs, and some have none."""
    environment = {**as_process(), "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    words = [sys.executable, "-c", _RECORDS, str(tmp_path / "eight")]
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == digest(work(tmp_path / "one"))


def test_it_is_called_from_python(tmp_path: Path) -> None:
    """The client gets the records, a share none."""
    methods = [DenseTarget(), ToleranceObjective(), Sweep()]
    asked: dict[str, Any] = {"seeds": SEEDS, "keeps": (0.5, 0.9), "tolerance": 9.0}
    with ThreadPoolExecutor(2) as executor:
        found = compare(tiny.task(), methods, out=tmp_path / "shared", executor=executor, **asked)
    alone = compare(tiny.task(), methods, out=tmp_path / "alone", **asked)
    assert [record.key for record in found] == [record.key for record in alone] and found.report is not None
    share = compare(tiny.task(), methods, out=tmp_path / "share", share=Share(1, 2), **asked)
    assert share == [] and share.report is None and 0 < len(share.missing) < share.requested
    with pytest.raises(InputError, match="join_only must be used without an executor or a share"):
        compare(tiny.task(), methods, out=tmp_path / "share", share=Share(1, 2), join_only=True, **asked)


def test_shares_and_a_last_command_record_what_one_does(
    counts: Counter, alone: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, save = Counter[str](), Checkpoint.save

    def counting(self: Checkpoint, kept: Snapshot, *, now: bool = False) -> None:
        trained[str(self.path)] += now
        save(self, kept, now=now)

    monkeypatch.setattr(Checkpoint, "save", counting)
    for number in (3, 1, 2):
        share = work(tmp_path, Share(number, 3))
        assert number == 2 or {key[0] for key in share.missing()} > {"edge-popup-wide", "magnitude"}
    assert set(trained.values()) == {1}
    assert share.missing() == [], "the last one has put together what was left"
    share.refuse_missing()
    assert not share.records_file.exists()
    before = dict(counts)
    assert contents(work(tmp_path)) == alone
    assert counts == before, "nothing is found again"
    assert {path.name for path in share.folder.iterdir()} == FILES


def test_what_shares_left_out_is_named_and_done_by_a_process_alone(alone: tuple, tmp_path: Path) -> None:
    one = work(tmp_path, Share(2, 3))
    missing = [key for key in one.missing() if key[0] != "dense"]
    assert 0 < len(missing) < len(one.numbers)
    words = rf"^\d+ of {len(one.numbers)} records are missing \(.*-seed0.*, ...\)\. Start"
    with pytest.raises(InputError, match=words):
        one.refuse_missing()
    found = work(tmp_path)
    rows, tickets = contents(found)
    assert tickets == alone[1] and sorted(map(str, rows)) == sorted(map(str, alone[0]))
    assert found.missing() == [] or {key[0] for key in found.missing()} == {"leaves-out"}


def test_a_damaged_record_is_made_anew(alone: tuple, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    share = work(tmp_path, Share(1, 1))
    files = sorted(share.pending.folder.glob("pensia-*"))
    files[0].write_text(files[0].read_text()[:-10])
    files[1].write_text(json.dumps({"method": "another"}))
    assert contents(work(tmp_path)) == alone
    assert sum("is damaged and is computed again" in line for line in caplog.messages) == 2


def test_nothing_is_left_over_by_a_process_that_was_killed_after_its_records_were_joined(tmp_path: Path) -> None:
    found = work(tmp_path)
    left = found.records()[-1]
    found.pending.write(left.key, left)
    unfinished = found.folder / "unfinished" / f"{left.method}-seed{left.seed}"
    unfinished.mkdir(parents=True)
    work(tmp_path)
    assert {path.name for path in found.folder.iterdir()} == FILES


def test_what_is_unfinished_of_a_method_that_others_build_on_is_kept(tmp_path: Path) -> None:
    """A process was killed while it trained that."""
    found = comparison(tmp_path, methods=(RandomMask(),))
    model = RandomMask().depends_on
    assert model is not None
    unfinished = found.folder / "unfinished" / f"{model}-seed0"
    unfinished.mkdir(parents=True)
    with found.locked():
        found._join(found.recorder.known[model], 0, may_be_unfinished=True)
    assert unfinished.is_dir()


def test_a_method_that_fails_ends_all(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Fails(ToleranceObjective):
        label: ClassVar[str] = "fails"  # type: ignore[misc]

        def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
            raise InputError("it cannot be")

    with ThreadPoolExecutor(2) as executor, pytest.raises(InputError, match=r"^it cannot be$"):
        work(tmp_path, executor=executor, methods=(Fails(), ToleranceObjective()), seeds=(0,))
    assert not list(tmp_path.rglob("shared-*"))


def test_a_share_works_beside_others_but_not_beside_the_last_command(tmp_path: Path) -> None:
    shares, last = [comparison(tmp_path) for _ in range(2)], comparison(tmp_path)
    in_use = r"the run folder .* is in use by process"
    with shares[0].locked(shared=True), shares[1].locked(shared=True), pytest.raises(InputError, match=in_use):
        last.locked().__enter__()
    with last.locked(), pytest.raises(InputError, match=in_use):
        shares[0].locked(shared=True).__enter__()


def test_records_are_pending(tmp_path: Path) -> None:
    pending, one = PendingRecords(tmp_path / "records"), record()
    assert pending.read(one.key) is None and not pending.has(one.key) and pending.count() == 0
    pending.remove(one.key)
    pending.write(one.key, one)
    pending.write(("other", 0, 0.5), None)
    assert pending.read(one.key) == one and pending.has(("other", 0, 0.5)) and pending.read(("other", 0, 0.5)) is None
    assert pending.count() == 2
    pending.remove(one.key)
    pending.remove(("other", 0, 0.5))
    assert not pending.folder.exists()
