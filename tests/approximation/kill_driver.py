"""Run a job in forks of this process and kill them at random moments: `python -m tests.approximation.kill_driver`.

Imports are paid once, and every child is a real process that dies by SIGKILL while it solves, writes, assembles or
removes its chunks. After each death the files are looked at; what is wrong raises.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import jax

from lottery_jax.approximation import ToleranceObjective, plan_job, run_to_file
from lottery_jax.approximation.run import chunk_folder
from lottery_jax.constructions import Scalar
from lottery_jax.tasks import load_model
from tests.constructions.catalogue import Nearest, model_file


def run(folder: Path, out: Path) -> None:
    """What a child does."""
    target, _ = load_model(folder / "model.safetensors")
    objective = ToleranceObjective(0.5, max_redraws=1, solver=Nearest())
    done = run_to_file(plan_job(target, Scalar(6), objective, seed=1, chunk_weights=64), out)
    with (folder / "log").open("a") as log:
        log.write(f"{done.found} {done.solved}\n")


def child(folder: Path, out: Path) -> int:
    process = os.fork()
    if process == 0:
        code = 1
        try:
            run(folder, out)
            code = 0
        finally:
            os._exit(code)
    return process


def times(chunks: Path) -> dict[str, int]:
    """When each chunk that is there was written."""
    return {path.name: path.stat().st_mtime_ns for path in chunks.glob("chunk-*")} if chunks.exists() else {}


def main(folder: Path, kills: int, seed: int) -> None:
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    random_ = random.Random(seed)
    weights = model_file(folder / "model.safetensors", dict.fromkeys("abcd", (40, 40))).weights
    assert os.waitpid(child(folder, folder / "reference"), 0)[1] == 0
    reference = (folder / "reference").read_bytes()
    out, chunks = folder / "ticket", chunk_folder(folder / "ticket")
    # How long the work takes from the first chunk on, compilations found in the cache.
    started = child(folder, out)
    wait_for_work(started, out, chunks)
    begin = time.monotonic()
    assert os.waitpid(started, 0)[1] == 0
    seconds = time.monotonic() - begin
    out.unlink()

    killed = complete = interrupted = 0
    while killed < kills:
        before = times(chunks)
        process = child(folder, out)
        wait_for_work(process, out, chunks, len(before))
        time.sleep(random_.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        if not out.exists():
            assert before.items() <= times(chunks).items(), "a finished chunk was solved again"
        if os.WIFSIGNALED(status):
            killed += 1
            interrupted += not out.exists()
        if out.exists():
            assert out.read_bytes() == reference, "a ticket that is not whole, or another"
            complete += 1
            if not chunks.exists():
                out.unlink()
    assert os.waitpid(child(folder, out), 0)[1] == 0
    found, solved = map(int, (folder / "log").read_text().splitlines()[-1].split())
    assert found + solved == weights
    assert out.read_bytes() == reference
    left = {path.name for path in folder.iterdir()} - {"compiled"}
    assert left == {"model.safetensors", "reference", "ticket", "log"}, left
    print(
        f"{killed} kills, {interrupted} before the ticket was there, {complete} times finished, {found} found at last"
    )


def wait_for_work(process: int, out: Path, chunks: Path, before: int = 0) -> None:
    """Until a child has written a chunk, or is past it."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if out.exists() or len(times(chunks)) > before:
            return
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.002)
    raise TimeoutError("the child wrote nothing")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
