"""What goes wrong with long jobs: kills, a full disk, a folder that cannot be written, files damaged or mixed up."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lottery_jax.approximation import Budget, Job, ToleranceObjective, plan_job, run_to_file
from lottery_jax.approximation.chunk_store import FolderChunkStore
from lottery_jax.approximation.job import Objective
from lottery_jax.approximation.run import JobResult, _write_ticket, chunk_folder, is_ticket_of, solve_job
from lottery_jax.constructions import Scalar, ScalarShared
from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import ChecksummedFile, checksummed_bytes
from lottery_jax.io.tensor_file import read_array
from lottery_jax.tasks import load_model
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import Nearest, model_file

ROOT = Path(__file__).parents[2]
SIZES = {"a": (20, 9), "b": (2, 5, 5, 2)}
CHUNKS = 5
HOLDS = ToleranceObjective(2.0)
NEAREST = ToleranceObjective(0.5, max_redraws=1, solver=Nearest())
OBJECTIVES: dict[str, Objective] = {"tolerance": NEAREST, "budget": Budget(300, k_max=1)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 280 weights and, by objective, the chunks of a job and its ticket."""
    folder = tmp_path_factory.mktemp("faults")
    model_file(folder / "model.safetensors", SIZES)
    for name, objective in OBJECTIVES.items():
        job = plan(folder, objective=objective)
        assert len(job.chunks) == CHUNKS
        (folder / f"{name}.whole").mkdir()
        solve_job(job, FolderChunkStore(folder / f"{name}.whole"))
        run_to_file(job, folder / name)
    return folder


def plan(folder: Path, **changes: object) -> Job:
    options = {"construction": Scalar(6), "objective": NEAREST, "seed": 1, "chunk_weights": 64, **changes}
    return plan_job(load_model(folder / "model.safetensors")[0], **options)  # type: ignore[arg-type]


def stopped(place: Path, folder: Path, name: str = "tolerance") -> Path:
    """The output of a job that was stopped when all of its chunks were solved."""
    shutil.copytree(place / f"{name}.whole", chunk_folder(folder / "ticket"))
    return folder / "ticket"


def run_while(happens: Callable[[], object], job: Job, out: Path) -> JobResult:
    """Run a job; something happens when its chunks are solved, before the ticket is written."""

    def write(*arguments: Any, **options: Any) -> Path:
        happens()
        return _write_ticket(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lottery_jax.approximation.run._write_ticket", write)
        return run_to_file(job, out)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 20])
def test_kill_9_at_random_moments(kills: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.approximation.kill_driver", str(tmp_path), str(kills), str(kills)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"{kills} kills")


def test_a_second_job_on_the_same_output_is_told_who_is_there(place: Path, tmp_path: Path) -> None:
    """Also one that finds its ticket finished there while another job is at work: it takes no chunks away."""
    out = Path(shutil.copy(place / "tolerance", tmp_path / "ticket"))
    other, refused = plan(place, seed=2, objective=HOLDS), []

    def second(done: int, total: int) -> None:
        for job in (other, plan(place)):
            with pytest.raises(InputError, match=rf"in use by process {os.getpid()} on .* since .*; wait for it") as e:
                run_to_file(job, out, force=True)
            refused.append(e)

    run_to_file(other, out, force=True, progress=second)
    assert len(refused) == 2 * (CHUNKS + 1) and list(tmp_path.iterdir()) == [out]
    assert out.read_bytes() != (place / "tolerance").read_bytes()
    assert run_to_file(other, out).solved == 0


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def resealed(path: Path, **changes: object) -> bytes:
    """A chunk with another header and a digest that is right for it."""
    with ChecksummedFile(path, "chunk") as file:
        return checksummed_bytes(
            "chunk", {**file.header, **changes}, {name: read_array(file, name) for name in file.tensors}
        )


@st.composite
def damages(draw: st.DrawFn) -> Callable[[FolderChunkStore], int]:
    """Something that befalls a chunk in a folder; it returns how many of them are wrong then."""
    number, how = (
        draw(st.integers(0, CHUNKS - 1)),
        draw(st.sampled_from(["flip", "cut", "lengthen", "foreign", "swap"])),
    )
    part, bytes_ = draw(st.floats(0, 1, exclude_max=True)), draw(st.binary(max_size=200))

    def damage(folder: FolderChunkStore) -> int:
        path, other = folder.file(number), folder.file((number + 1 + int(part * (CHUNKS - 1))) % CHUNKS)
        content = path.read_bytes()
        if how == "swap":
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
            return 2
        changed = {
            "flip": flipped(content, int(part * 8 * len(content))),
            "cut": content[: int(part * len(content))],
            "lengthen": content + b"\0",
            "foreign": bytes_,
        }
        path.write_bytes(changed[how])
        return 1

    return damage


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=damages(), name=st.sampled_from(sorted(OBJECTIVES)), late=st.booleans())
def test_a_damaged_chunk_is_solved_again(damage, name, late, place, tmp_path_factory) -> None:
    """Also where it is damaged after it was found whole, while the ticket is written."""
    out = stopped(place, tmp_path_factory.mktemp("damage"), name)
    job, folder = plan(place, objective=OBJECTIVES[name]), FolderChunkStore(chunk_folder(out))
    wrong = [] if late else [damage(folder)]
    done = run_while(lambda: late and wrong.append(damage(folder)), job, out)
    assert [len(done.damaged)] == ([0] if late else wrong) and all(str(folder.path) in words for words in done.damaged)
    assert out.read_bytes() == (place / name).read_bytes() and wrong[0] > 0 and not folder.path.exists()


def test_a_chunk_of_another_shape_is_solved_again(place: Path, tmp_path: Path) -> None:
    """Not by accident can a file be sealed again: one chunk under another's number, or with what is not asked."""
    for name, words in (("tolerance", "a mask of another shape"), ("budget", "fronts of other shapes")):
        out = stopped(place, tmp_path, name)
        job, folder = plan(place, objective=OBJECTIVES[name]), FolderChunkStore(chunk_folder(out))
        folder.file(1).write_bytes(resealed(folder.file(4), number=1))
        folder.file(2).write_bytes(
            checksummed_bytes("chunk", {**header(folder.file(2))}, {"mask": np.zeros(3, np.uint8)})
        )
        damaged = run_to_file(job, out).damaged
        assert words in damaged[0] and "the arrays ['mask']" in damaged[1] and len(damaged) == 2
        assert out.read_bytes() == (place / name).read_bytes()
        out.unlink()


def header(path: Path) -> dict[str, object]:
    with ChecksummedFile(path, "chunk") as file:
        return file.header


def test_redraws_of_other_blocks_are_solved_again(place: Path, tmp_path: Path) -> None:
    out = stopped(place, tmp_path)
    path = FolderChunkStore(chunk_folder(out)).file(1)
    with ChecksummedFile(path, "chunk") as file:
        arrays = {"mask": read_array(file, "mask"), "redraws": np.array([[3, 1]])}
    path.write_bytes(checksummed_bytes("chunk", header(path), arrays))
    assert "redraws of other blocks" in run_to_file(plan(place), out).damaged[0]
    assert out.read_bytes() == (place / "tolerance").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"chunk_weights": 128},
        {"objective": ToleranceObjective(0.4, max_redraws=1, solver=Nearest())},
        {"objective": ToleranceObjective(0.5, max_redraws=2, solver=Nearest())},
        {"objective": ToleranceObjective(0.5, max_redraws=1)},
        {"objective": ToleranceObjective(0.5, "smallest", max_redraws=1, solver=Nearest())},
        {"objective": OBJECTIVES["budget"]},
        {"construction": Scalar(7)},
        {"construction": Scalar(6, range="model")},
        {"construction": ScalarShared(6)},
    ],
    ids=str,
)
def test_chunks_of_another_job_are_refused_and_kept(changes: dict, place: Path, tmp_path: Path) -> None:
    """Also where the other job is finished, and only its chunks would be left to take away."""
    out, other = stopped(place, tmp_path), plan(place, **changes)
    before = {path: path.read_bytes() for path in chunk_folder(out).iterdir()}
    with pytest.raises(InputError, match=r"belongs to another job .*remove '.*ticket.chunks', or choose another --out"):
        run_to_file(other, out)
    run_to_file(other, tmp_path / "other")
    (tmp_path / "other").rename(out)
    assert run_to_file(other, out).solved == 0
    assert {path: path.read_bytes() for path in chunk_folder(out).iterdir()} == before


def test_chunks_of_another_model_are_refused(place: Path, tmp_path: Path) -> None:
    """One weight differs, in its last bit."""
    out = stopped(place, tmp_path)
    content = (place / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(flipped(content, 8 * len(content) - 32))
    with pytest.raises(InputError, match="another job"):
        run_to_file(plan(tmp_path), out)


def test_a_chunk_of_another_version_is_named(place: Path, tmp_path: Path) -> None:
    out = stopped(place, tmp_path)
    path = FolderChunkStore(chunk_folder(out)).file(2)
    path.write_bytes(resealed(path, version=9))
    with pytest.raises(InputError, match="version 9, and this program reads 2"):
        run_to_file(plan(place), out)


def test_a_target_that_changes_under_way_is_refused(place: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(place / "model.safetensors", tmp_path))
    job, out, content = plan(tmp_path), tmp_path / "ticket", model.read_bytes()
    with pytest.raises(InputError, match=r"tensor 'b' of the target changed while"):
        run_while(lambda: model.write_bytes(flipped(content, 8 * len(content) - 12)), job, out)
    assert not out.exists() and len(list(chunk_folder(out).glob("chunk-*"))) == CHUNKS
    assert not list(chunk_folder(out).glob(".ticket-*")), "a half of a ticket stays"
    model.write_bytes(content)
    assert run_to_file(plan(tmp_path), out).found == 280
    assert out.read_bytes() == (place / "tolerance").read_bytes()


@contextlib.contextmanager
def tiny_disk(size: int) -> Iterator[None]:
    """A limit on file sizes: writing past it fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("size", "chunks"), [(0, 0), (100, 0), (700, CHUNKS)])
def test_a_full_disk_keeps_what_is_finished_and_nothing_half(
    size: int, chunks: int, place: Path, tmp_path: Path
) -> None:
    """First no chunk can be written, then all chunks but not the ticket."""
    out = tmp_path / "new" / "ticket"
    with pytest.raises(InputError, match=r"cannot write .*free some space"), tiny_disk(size):
        run_to_file(plan(place), out)
    assert not out.exists()
    folder = FolderChunkStore(chunk_folder(out))
    assert folder.path.exists() == bool(chunks)
    if chunks:
        assert sorted(folder.path.iterdir()) == [folder.file(number) for number in range(chunks)]
    done = run_to_file(plan(place), out)
    assert (done.found, done.solved) == ((280, 0) if chunks else (0, 280))
    assert out.read_bytes() == (place / "tolerance").read_bytes()
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_too_little_space_is_told_before_the_work(
    objective: Objective, place: Path, tmp_path: Path, monkeypatch
) -> None:
    """What is needed is about what is written: the ticket, and the chunks beside it."""
    job, out, needed, free = plan(place, objective=objective), tmp_path / "ticket", [], [0]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free[0]))
    for free[0] in range(0, 20_000, 100):
        try:
            run_while(lambda: needed.append(written(chunk_folder(out))), job, out)
        except InputError as error:
            assert "GB, and" in str(error) and "has 0.00 GB free" in str(error)
            assert not list(tmp_path.iterdir())
        else:
            break
    arrays = sum(needed) + written(out) - 500 * CHUNKS - 2000  # without headers
    assert 0.8 * arrays < free[0] <= sum(needed) + written(out)


def written(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.glob("chunk-*")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused(place: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        run_to_file(plan(place), tmp_path / "ticket")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody may write")
def test_a_place_for_nobody_is_refused(place: Path) -> None:
    for out, words in (("/proc/ticket", "'/proc"), ("/proc/new/ticket", "cannot create the folder '/proc/new'")):
        with pytest.raises(InputError, match=words):
            run_to_file(plan(place), Path(out))


def test_a_file_in_the_way_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "ticket.chunks").write_text("")
    for out, words in (
        (tmp_path / "file" / "ticket", "cannot create the folder .*file'"),
        (tmp_path / "ticket", r"cannot create the folder .*ticket.chunks'"),
        (tmp_path, "is a folder"),
        (place / "model.safetensors", "own file"),
    ):
        with pytest.raises(InputError, match=words):
            run_to_file(plan(place), out)


def test_a_finished_job_is_not_done_again(place: Path, tmp_path: Path) -> None:
    out = stopped(place, tmp_path)  # killed between the ticket and the removal
    shutil.copy(place / "tolerance", out)
    before = out.stat().st_mtime_ns
    assert run_to_file(plan(place), out).solved == 0
    assert out.stat().st_mtime_ns == before and list(tmp_path.iterdir()) == [out]
    out.write_bytes(flipped(out.read_bytes(), 9000))
    assert not is_ticket_of(plan(place), out)


def test_a_file_that_is_there_is_replaced_by_a_ticket_that_holds_and_only_if_asked(place: Path, tmp_path: Path) -> None:
    out = Path(shutil.copy(place / "tolerance", tmp_path / "ticket.safetensors"))
    before, other = out.read_bytes(), plan(place, seed=2, objective=HOLDS)
    with pytest.raises(InputError, match="already exists; choose another place with --out, or replace it"):
        run_to_file(other, out)
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]
    assert run_to_file(other, out, force=True).solved == 280
    assert out.read_bytes() != before and verify(out).holds
    after, bad = out.read_bytes(), plan(place, objective=ToleranceObjective(1e-7))
    done = run_to_file(bad, out, force=True)
    assert out.read_bytes() == after and done.path == tmp_path / "ticket.broken.safetensors"
    assert verify(done.path).outcome == "broken" and sorted(tmp_path.iterdir()) == [done.path, out]
    assert run_to_file(bad, out, force=True) == JobResult(280, 0, path=done.path), "it is known, wherever it is"
    assert run_to_file(bad, tmp_path / "new").path == tmp_path / "new", "where nothing is, it takes its place"


def test_an_interrupt_keeps_what_is_finished(place: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    out = tmp_path / "ticket"
    with pytest.raises(KeyboardInterrupt):
        run_to_file(plan(place), out, progress=stop)
    done = run_to_file(plan(place), out)
    assert done.found >= 64 and done.found + done.solved == 280
    assert out.read_bytes() == (place / "tolerance").read_bytes()
