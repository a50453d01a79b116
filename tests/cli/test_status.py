"""How far a job is, from its folder alone."""

import json
from pathlib import Path

import pytest

from harness import Results
from lottery_jax import load_model
from lottery_jax.approximation import ToleranceObjective, plan_job
from lottery_jax.approximation.run import chunk_folder, run_share
from lottery_jax.comparison.records import PendingRecords, append_records, run_folder
from lottery_jax.constructions import Scalar
from lottery_jax.io.locks import folder_lock, write_lock_status
from lottery_jax.workers.units import Share
from tests.cli.calling import answer, lottery_jax, matrices, refusal
from tests.comparison.test_records import record


def test_an_approximation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ticket"
    model = matrices(tmp_path / "model.safetensors", **{f"layer{place}": (8, 8) for place in range(5)})
    job = plan_job(load_model(model)[0], Scalar(candidates=8), ToleranceObjective(0.5), seed=0)
    run_share(job, out, Share(1, 2))
    folder = chunk_folder(out)
    before = sorted(path.name for path in folder.iterdir())
    for place in (out, folder, tmp_path):
        found = answer(capsys, "status", place)
        assert found.pop("changed") > "2000-01-01 00:00:00"
        assert found == {
            "folder": str(folder),
            "finished_chunks": 3,
            "chunks": 5,
            "missing_chunks": 2,
            "process": None,
            "last_message": None,
        }
    for shared in (False, True):
        with folder_lock(folder, "it", shared=shared):
            assert lottery_jax("status", out) == 0
        said = capsys.readouterr().out
        assert "3 of 5 chunks are finished" in said and "in use by process " in said and " since " in said
    # What the holder said stays when it is killed.
    with folder_lock(folder, "it"):
        write_lock_status("3 of 5 done, 1 running")
        left = (folder / "lock").read_bytes()
    (folder / "lock").write_bytes(left)
    said = answer(capsys, "status", out)["last_message"]
    assert said.startswith("3 of 5 done, 1 running (at 20")
    assert lottery_jax("status", out) == 0
    assert f"  {said}\n  in use by nobody; last changed " in capsys.readouterr().out
    (folder / "lock").write_bytes(b"{")
    assert answer(capsys, "status", out)["last_message"] is None
    (folder / "lock").unlink()
    (folder / "chunk-00000000.safetensors").write_bytes(b"no chunk")  # the others still say it
    assert answer(capsys, "status", out)["chunks"] == 5
    for path in folder.glob("chunk-*"):
        path.write_bytes(b"no chunk")
    assert answer(capsys, "status", out)["missing_chunks"] is None
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    folder = run_folder(runs, {"task": "digits"})
    folder.mkdir(parents=True)
    (folder / "configuration.json").write_text(json.dumps({"task": "digits"}))
    append_records(folder / "records.jsonl", [record("dense"), record(), record(seed=1)])
    (folder / "unfinished" / "edge-popup-wide-seed0").mkdir(parents=True)
    pending = record(seed=2)
    PendingRecords(folder / "records").write(pending.key, pending)
    for place in (runs, folder):
        found = answer(capsys, "status", place)
        assert (found["folder"], found["records"], found["process"]) == (str(folder), 3, None)
        assert found["records_by_method"] == {"dense": 1, "pensia": 2} and found["unfinished"] == [
            "edge-popup-wide-seed0"
        ]
        assert found["pending_records"] == 1
    assert lottery_jax("status", runs) == 0
    said = "3 records, 1 of dense, 2 of pensia; 1 pending records; unfinished: edge-popup-wide-seed0"
    assert said in capsys.readouterr().out
    (runs / "mine-another").mkdir()
    (runs / "mine-another" / "configuration.json").write_text("{}")
    assert lottery_jax("status", runs, "--json") == 0
    assert sorted(json.loads(line)["records"] for line in capsys.readouterr().out.splitlines()) == [0, 3]


def test_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def do(task: int) -> None:
        assert task < 2
        rows.keep(task=task)

    out = tmp_path / "rows.jsonl"
    rows = Results(out)
    with pytest.raises(AssertionError):
        rows.each("tasks", range(3), do)
    rows.close()
    for place in (out, rows.folder, tmp_path):
        found = answer(capsys, "status", place)
        assert (found["folder"], found["finished_units"], found["process"]) == (str(rows.folder), 2, None)
    monkeypatch.chdir(rows.folder)
    assert answer(capsys, "status", ".")["finished_units"] == 2
    assert lottery_jax("status", out) == 0
    assert f"{rows.folder}: 2 finished units\n" in capsys.readouterr().out


def test_what_is_no_job_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ticket").touch()
    assert "lottery-jax verify" in refusal(capsys, 2, "status", tmp_path / "ticket")
    for place in (tmp_path, tmp_path / "nowhere"):
        assert "has no unfinished job" in refusal(capsys, 2, "status", place)
