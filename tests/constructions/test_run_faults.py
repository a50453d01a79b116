"""What goes wrong with long jobs: kills, a full disk, a folder that cannot be written, files damaged or mixed up."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lottery_jax.certificate import verify
from lottery_jax.constructions.model import Job, approximate_model, chunk_folder, merge, plan_job, run_job, solve_chunks
from lottery_jax.constructions.model.chunks import chunk_path
from lottery_jax.model_certificate import verify_file
from lottery_jax.ticket import Ticket
from safetensors.numpy import save_file

from lottery_jax.errors import InputError, TicketError
from lottery_jax.storage.sealed import SealedFile, seal
from tests.constructions.kill_driver import Nearest

OPTIONS = {"seed": 1, "candidates": 6, "tolerance": 0.5, "solver": Nearest(), "max_redraws": 1, "chunk_weights": 64}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 280 weights, its chunks in `whole`, and its ticket."""
    folder = tmp_path_factory.mktemp("faults")
    rng = np.random.default_rng(0)
    sizes = {"a": (20, 9), "b": (2, 5, 5, 2)}
    save_file({k: rng.normal(size=size).astype(np.float32) for k, size in sizes.items()}, folder / "model.safetensors")
    job = plan(folder)
    assert len(job.chunks) == 5
    solve_chunks(job, folder / "whole")
    shutil.copytree(folder / "whole", folder / "copy")
    merge(job, folder / "copy", folder / "ticket")
    return folder


def plan(folder: Path, **changes: object) -> Job:
    return plan_job(folder / "model.safetensors", **{**OPTIONS, **changes})


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(kills: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.constructions.kill_driver", str(tmp_path), str(kills), str(kills)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"{kills} kills")


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def resealed(path: Path, **changes: object) -> bytes:
    """A chunk with another header and a digest that is right for it."""
    with SealedFile(path, "chunk") as file:
        arrays = {name: file.array(name) for name in file.tensors}
        return seal("chunk", {**file.header, **changes}, arrays)


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "whole", tmp_path / "chunks"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_chunk_is_refused_by_the_merge_and_solved_again(place, tmp_path_factory, data) -> None:
    folder = Path(shutil.copytree(place / "whole", tmp_path_factory.mktemp("damage") / "chunks"))
    job, out = plan(place), folder.with_name("ticket")
    number = data.draw(st.integers(0, len(job.chunks) - 1), "chunk")
    path = chunk_path(folder, number)
    content = path.read_bytes()
    how = data.draw(st.sampled_from(["flip", "truncate", "lengthen", "foreign", "swap"]), "how")
    if how == "swap":
        other = data.draw(st.integers(0, len(job.chunks) - 1).filter(lambda n: n != number), "other")
        path.write_bytes(chunk_path(folder, other).read_bytes())
        chunk_path(folder, other).write_bytes(content)
    elif how == "flip":
        path.write_bytes(flipped(content, data.draw(st.integers(0, 8 * len(content) - 1), "bit")))
    elif how == "truncate":
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1), "length")])
    else:
        path.write_bytes(content + b"\0" if how == "lengthen" else data.draw(st.binary(max_size=200), "content"))
    with pytest.raises(InputError, match="run the same command again"):
        merge(job, folder, out)
    assert not out.exists()
    done = solve_chunks(job, folder)
    wrong = 2 if how == "swap" else 1
    assert len(done.damaged) == wrong and path.name in "".join(done.damaged)
    merge(job, folder, out)
    assert out.read_bytes() == (place / "ticket").read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 2}, "another job"),
        ({"tolerance": 0.4}, "another job"),
        ({"chunk_weights": 128}, "another job"),
        ({"objective": "smallest"}, "another job"),
    ],
)
def test_chunks_of_another_job_are_refused_and_kept(changes, words, place, folder) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for refused in (lambda job: solve_chunks(job, folder), lambda job: merge(job, folder, folder / "ticket")):
        with pytest.raises(InputError, match=words):
            refused(plan(place, **changes))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_chunks_of_another_model_are_refused(place, folder, tmp_path) -> None:
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(20, 9)), "b": rng.normal(size=(2, 5, 5, 2))}
    weights["a"][3, 3] += 1e-3
    save_file({k: w.astype(np.float32) for k, w in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="another model"):
        solve_chunks(plan(tmp_path), folder)


def test_a_chunk_of_another_version_is_named(place, folder) -> None:
    path = chunk_path(folder, 2)
    path.write_bytes(resealed(path, version=9))
    with pytest.raises(InputError, match="version 9, and this program reads 1"):
        solve_chunks(plan(place), folder)


def test_a_chunk_of_another_shape_is_solved_again(place, folder) -> None:
    """Not by accident can a file be sealed again: chunk 4 under the number of chunk 1."""
    chunk_path(folder, 1).write_bytes(resealed(chunk_path(folder, 4), number=1))
    assert "other shapes" in solve_chunks(plan(place), folder).damaged[0]


def test_a_model_that_changes_under_way_is_refused(place, folder, tmp_path) -> None:
    model = Path(shutil.copy(place / "model.safetensors", tmp_path))
    job = plan(tmp_path)
    model.write_bytes(flipped(model.read_bytes(), 8 * model.stat().st_size - 12))
    with pytest.raises(InputError, match=r"tensor 'b' .* changed while"):
        merge(job, folder, tmp_path / "ticket")
    assert not (tmp_path / "ticket").exists() and len(list(folder.iterdir())) == 5


@contextlib.contextmanager
def tiny_disk(size: int) -> Iterator[None]:
    """A limit on file sizes: writing past it fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("size", "chunks"), [(100, 0), (700, 5)])
def test_a_full_disk_keeps_what_is_finished_and_nothing_half(size, chunks, place, tmp_path) -> None:
    """First no chunk can be written, then all chunks but not the ticket."""
    out = tmp_path / "new" / "ticket"
    with pytest.raises(InputError, match=r"cannot write .*free some space"), tiny_disk(size):
        run_job(plan(place), out)
    assert not out.exists()
    folder = chunk_folder(out)
    assert folder.exists() == bool(chunks)
    if chunks:
        assert sorted(folder.iterdir()) == [chunk_path(folder, number) for number in range(chunks)]
    finished = run_job(plan(place), out)
    assert (finished.found, finished.solved) == ((280, 0) if chunks else (0, 280))
    assert out.read_bytes() == (place / "ticket").read_bytes()
    assert list(out.parent.iterdir()) == [out]


def test_too_little_space_is_told_before_the_work(place, tmp_path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"need .* GB, and .* has 0.00 GB free"):
        run_job(plan(place), tmp_path / "ticket")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused(place, tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        run_job(plan(place), tmp_path / "ticket")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody may write")
def test_a_place_for_nobody_is_refused(place) -> None:
    with pytest.raises(InputError, match="/proc"):
        run_job(plan(place), Path("/proc/ticket"))


def test_a_file_in_the_way_is_refused(place, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "ticket.chunks").write_text("")
    with pytest.raises(InputError, match="file"):
        run_job(plan(place), tmp_path / "file" / "ticket")
    with pytest.raises(InputError, match=r"ticket.chunks"):
        run_job(plan(place), tmp_path / "ticket")
    with pytest.raises(InputError, match="is a folder"):
        run_job(plan(place), tmp_path)
    with pytest.raises(InputError, match="own file"):
        run_job(plan(place), place / "model.safetensors")


def test_a_finished_job_is_not_done_again(place, tmp_path) -> None:
    out = Path(shutil.copy(place / "ticket", tmp_path))
    shutil.copytree(place / "whole", chunk_folder(out))  # killed between the ticket and the removal
    before = out.stat().st_mtime_ns
    assert run_job(plan(place), out).solved == 0
    assert out.stat().st_mtime_ns == before and list(tmp_path.iterdir()) == [out]
    out.write_bytes(flipped(out.read_bytes(), 9000))
    assert run_job(plan(place), out).solved == 280
    assert out.read_bytes() == (place / "ticket").read_bytes()


def test_an_interrupt_keeps_what_is_finished(place, tmp_path) -> None:
    def stop(weights: int, solved: bool) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "ticket"
    with pytest.raises(KeyboardInterrupt):
        run_job(plan(place), out, progress=stop)
    finished = run_job(plan(place), out)
    assert finished.found >= 64 and finished.found + finished.solved == 280
    assert out.read_bytes() == (place / "ticket").read_bytes()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_ticket_that_was_changed_is_refused(place, tmp_path_factory, data) -> None:
    content = (place / "ticket").read_bytes()
    if data.draw(st.booleans(), "flip"):
        content = flipped(content, data.draw(st.integers(0, 8 * len(content) - 1), "bit"))
    else:
        content = content[: data.draw(st.integers(0, len(content) - 1), "length")]
    path = tmp_path_factory.mktemp("ticket") / "ticket"
    path.write_bytes(content)
    for read in (verify_file, Ticket.load):
        with pytest.raises(TicketError):
            read(path)


ROW = np.array([[0, 1]], np.int64)
FORGED = {
    "mask too short": ({"mask.0.kernel": np.zeros(5, np.uint8)}, {}),
    "mask of other numbers": ({"mask.0.kernel": np.zeros(135, np.int32)}, {}),
    "no mask": ({"mask.0.kernel": None}, {}),
    "target of another shape": ({"target.0": np.zeros((9, 20), np.float32)}, {}),
    "target of integers": ({"target.0": np.zeros((20, 9), np.int32)}, {}),
    "no target": ({"target.1": None}, {}),
    "a tensor too many": ({"other": np.zeros(3, np.uint8)}, {}),
    "a block that is not there": ({"redraws.0.kernel": np.array([[180, 1]], np.int64)}, {}),
    "a block below": ({"redraws.0.kernel": np.array([[-1, 1]], np.int64)}, {}),
    "a block twice": ({"redraws.0.kernel": np.concatenate([ROW, ROW])}, {}),
    "blocks in no order": ({"redraws.0.kernel": np.array([[170, 1], [3, 1]], np.int64)}, {}),
    "attempt 0": ({"redraws.0.kernel": 0 * ROW}, {}),
    "an attempt beyond": ({"redraws.0.kernel": (1 << 16) * ROW}, {}),
    "redraws in 32 bits": ({"redraws.0.kernel": ROW.astype(np.int32)}, {}),
    "another seed": ({}, {"seed": 2}),
    "a seed below": ({}, {"seed": -1}),
    "a seed in words": ({}, {"seed": "one"}),
    "no tolerance": ({}, {"tolerance": None}),
    "tolerance in words": ({}, {"tolerance": "small"}),
    "no layers": ({}, {"architecture": []}),
    "layers in words": ({}, {"architecture": "two"}),
    "no version": ({}, {"version": None}),
    "another sampler": ({}, {"sampler_version": 2}),
}


@pytest.mark.parametrize(("arrays", "header"), FORGED.values(), ids=FORGED.keys())
def test_a_ticket_whose_parts_do_not_fit_is_refused(arrays, header, place, tmp_path) -> None:
    """With a digest that is right: only what the parts say can tell."""
    with SealedFile(place / "ticket", "ticket") as file:
        whole = {name: file.array(name) for name in file.tensors}
        changed = {name: value for name, value in {**whole, **arrays}.items() if value is not None}
        content = seal("ticket", {**file.header, **header}, changed)
        assert seal("ticket", file.header, whole) == (place / "ticket").read_bytes()
    (tmp_path / "forged").write_bytes(content)
    for read in (verify_file, Ticket.load):
        with pytest.raises(TicketError):
            read(tmp_path / "forged")


def test_masks_of_another_ticket_do_not_hold(place, tmp_path) -> None:
    """Two valid files mixed, sealed again: nothing but the residuals can tell, and they do."""
    other = approximate_model(place / "model.safetensors", tmp_path / "other", **{**OPTIONS, "seed": 2})
    assert other.solved == 280
    with SealedFile(place / "ticket", "ticket") as file, SealedFile(tmp_path / "other", "ticket") as second:
        mixed = {name: file.array(name) for name in file.tensors} | {
            name: second.array(name) for name in second.tensors if name.startswith("mask")
        }
        (tmp_path / "mixed").write_bytes(seal("ticket", file.header, mixed))
    honest, found = verify_file(place / "ticket"), verify_file(tmp_path / "mixed")
    assert found.within_tolerance < honest.within_tolerance
    assert found.within_tolerance == verify(Ticket.load(tmp_path / "mixed")).within_tolerance
