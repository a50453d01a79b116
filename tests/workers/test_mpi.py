"""Open MPI starts the processes, and JAX finds them: the command of docs/clusters.md."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.calling import MODEL, lottery_jax, matrices
from tests.workers import page


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun here (Debian: apt-get install openmpi-bin)")
def test_two_processes_make_the_ticket(tmp_path: Path) -> None:
    matrices(tmp_path / "model.safetensors", **{f"layer{place:03d}": (64, 64) for place in range(100)})
    out, words = tmp_path / "ticket.safetensors", " ".join(map(str, MODEL))
    start = {"mpirun -n 4": "mpirun --oversubscribe -n 2", "--candidates 21": words}
    text = "export PYTHONPATH JAX_PLATFORMS\n" + page.here(page.command("mpirun"), tmp_path, **start)
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment = {**os.environ, **root, "PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(["bash", "-ec", text], env=environment, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert "2 processes share the work" in ended.stderr and "HOLDS for the target" in ended.stdout
    words = ("--model", tmp_path / "model.safetensors", *MODEL, "--out", tmp_path / "alone")
    assert lottery_jax("approximate", *words) == 0 and out.read_bytes() == (tmp_path / "alone").read_bytes()
