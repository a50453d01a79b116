"""Shares of a job whose processes never communicate: the file of one process, also after a kill."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lottery_jax import load_model
from lottery_jax.approximation import ToleranceObjective, plan_job
from lottery_jax.approximation.job import Job
from lottery_jax.approximation.run import check_chunks_complete, chunk_folder, missing_chunks, run_share, run_to_file
from lottery_jax.constructions import Scalar
from lottery_jax.errors import InputError
from lottery_jax.io.locks import folder_lock
from lottery_jax.workers.units import Share
from tests.cli.calling import MODEL, answer, as_process, lottery_jax, matrices, refusal
from tests.workers import page

TENSORS, SIZE = 9, 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shapes = {f"layer{place}.weight": (SIZE, SIZE) for place in range(TENSORS)}
    return matrices(tmp_path_factory.mktemp("model") / "model.safetensors", **shapes)


@pytest.fixture(scope="module")
def job(model: Path) -> Job:
    """What the command plans."""
    return plan_job(load_model(model)[0], Scalar(candidates=8), ToleranceObjective(0.5), seed=0)


@pytest.fixture(scope="module")
def alone(model: Path) -> bytes:
    out = model.with_name("alone")
    assert lottery_jax("approximate", "--model", model, *MODEL, "--out", out) == 0
    return out.read_bytes()


def test_shares_and_a_last_command_make_the_same_file(
    model: Path, alone: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("approximate", "--model", model, *MODEL, "--out", tmp_path / "ticket")
    for place, share in enumerate(("4/4", "2/4", "4/4"), 1):
        found = answer(capsys, *asked, "--share", share)
        there = min(place, 2) * 2
        assert (found["finished_chunks"], found["missing_chunks"], found["ticket"]) == (there, TENSORS - there, None)
        assert (found["solved_weights"], found["found_weights"]) == (
            (2 * SIZE**2, 0) if place < 3 else (0, 2 * SIZE**2)
        )
    said = refusal(capsys, 2, *asked, "--join-only", "--quiet")
    assert said.startswith(f"5 of {TENSORS} chunks are missing (number 0, 2, 4, 6, 8, from 0)")
    assert lottery_jax(*asked, "--share", "1/4") == lottery_jax(*asked, "--share", "3/4") == 0
    assert "9 of 9 chunks are finished, none is missing" in capsys.readouterr().out
    found = answer(capsys, *asked, "--join-only")
    assert (found["solved_weights"], found["found_weights"]) == (0, TENSORS * SIZE**2)
    assert (tmp_path / "ticket").read_bytes() == alone and [each.name for each in tmp_path.iterdir()] == ["ticket"]
    assert lottery_jax(*asked, "--share", "1/4") == 0
    assert "exists already" in capsys.readouterr().out and not chunk_folder(tmp_path / "ticket").exists()


def test_what_is_missing_is_solved_by_the_last_command(job: Job, alone: bytes, tmp_path: Path) -> None:
    run_share(job, tmp_path / "ticket", Share(2, 2))
    assert missing_chunks(job, tmp_path / "ticket") == [0, 2, 4, 6, 8]
    done = run_to_file(job, tmp_path / "ticket")
    assert (done.found, done.solved) == (4 * SIZE**2, 5 * SIZE**2) and (tmp_path / "ticket").read_bytes() == alone


def test_a_damaged_chunk_is_missing(job: Job, tmp_path: Path) -> None:
    run_share(job, tmp_path / "ticket", Share(1, 1))
    check_chunks_complete(job, tmp_path / "ticket")
    damaged = chunk_folder(tmp_path / "ticket") / "chunk-00000003.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"^1 of 9 chunks are missing \(number 3, from 0\)"):
        check_chunks_complete(job, tmp_path / "ticket")


def test_no_share_works_while_the_ticket_is_written_and_the_reverse(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "ticket"
    folder = chunk_folder(out)
    folder.mkdir()
    with folder_lock(folder, "it"), pytest.raises(InputError, match=r"folder of chunks .* is in use by process"):
        run_share(job, out, Share(1, 3))
    with folder_lock(folder, "it", shared=True):
        assert run_share(job, out, Share(1, 3)).solved == 3 * SIZE**2  # it leaves, and the other still holds
        with pytest.raises(InputError, match=r"folder of chunks .* is in use by process"):
            run_to_file(job, out)
    assert not (folder / "lock").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--share", "9/8"), "share must be from 1/8 to 8/8, got 9/8"),
        (("--share", "0/8"), "got 0/8"),
        (("--share", "1/0"), "got 1/0"),
        (("--share", "x"), "K/N, as in 3/8"),
        (("--share", "1/2/3"), "K/N, as in 3/8"),
        (("--share", "-1/2"), "K/N, as in 3/8"),
        (("--share", "1/2", "--kept", 9, "--loss-aware"), "needs a single process"),
        (("--share", "1/2", "--join-only"), "must be given without --share"),
    ],
)
def test_what_is_no_share_is_refused(
    words: tuple, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"{words[0]}={words[1]}", *words[2:])
    assert said in refusal(capsys, 2, "approximate", "--out", tmp_path / "ticket", *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_share_is_killed_and_started_again(tmp_path: Path) -> None:
    """Three at the same time."""
    model = matrices(tmp_path / "model.safetensors", **{f"layer{place:03d}": (64, 64) for place in range(120)})
    asked = ("approximate", "--model", model, *MODEL, "--out")
    assert lottery_jax(*asked, tmp_path / "alone") == 0
    out = tmp_path / "ticket"

    def start(number: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "lottery_jax", *asked, out, "--share", f"{number}/3", "--json"]
        return subprocess.Popen([*map(str, command)], env=as_process(), stdout=subprocess.PIPE, text=True)

    shares = [start(number) for number in (1, 2, 3)]
    own = [chunk_folder(out) / f"chunk-{number:08d}.safetensors" for number in (1, 4)]  # of share 2
    while not own[0].exists():
        assert shares[1].poll() is None
        time.sleep(0.001)
    shares[1].kill()
    shares[1].communicate(timeout=60)
    lost = [
        number for number in range(1, 120, 3) if not (chunk_folder(out) / f"chunk-{number:08d}.safetensors").exists()
    ]
    assert lost, "it was over before; give it more to do"
    shares.append(start(2))
    found = [json.loads(share.communicate(timeout=200)[0]) for share in shares if share is not shares[1]]
    assert [share.returncode for share in shares] == [0, -9, 0, 0]
    assert max(each["finished_chunks"] for each in found) == 120
    assert [each["solved_weights"] // 64**2 for each in found] == [40, 40, len(lost)]
    assert lottery_jax(*asked, out, "--join-only") == 0
    assert out.read_bytes() == (tmp_path / "alone").read_bytes() and not chunk_folder(out).exists()


@pytest.mark.slow
def test_the_script_of_a_job_array_runs(model: Path, alone: bytes, tmp_path: Path) -> None:
    """As it is in docs/clusters.md, task after task, but for its paths and for `srun`."""
    script = page.script("shares")
    tasks = int(re.findall(r"#SBATCH --array=1-(\d+)", script)[0])
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH")
    (programs / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    (programs / "lottery-jax").write_text(f'#!/bin/bash\nexec {sys.executable} -m lottery_jax "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (tmp_path / "model.safetensors").write_bytes(model.read_bytes())
    script = script.replace("/shared", str(tmp_path)).replace("--candidates 21", " ".join(map(str, MODEL)))
    out = tmp_path / "ticket.safetensors"
    for task in range(1, tasks + 1):
        assert not out.exists()
        environment = {**as_process(), "SLURM_ARRAY_TASK_ID": str(task)}
        subprocess.run(["bash", "-ec", script], env=environment, check=True, capture_output=True, timeout=200)
    words = ("--model", tmp_path / "model.safetensors", *MODEL, "--out", out)
    assert lottery_jax("approximate", *words, "--join-only") == 0 and out.read_bytes() == alone
