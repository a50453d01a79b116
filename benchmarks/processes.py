"""Processes of one job on this machine, and the job of the benchmarks of sharing."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

METHODS = ("dense", "pensia", "random", "edge-popup-wide", "iterative-magnitude", "snip")


def address() -> str:
    """A free address for the coordinator."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def started(words: Sequence[str], processes: int, *, pinned: bool = False) -> list[subprocess.Popen]:
    """Start processes of a command, which share its work if there are several; pinned: each to a core."""
    coordinator, found = address(), []
    for process in range(processes):
        core = ["taskset", "--cpu-list", str(process)] if pinned else []
        sharing = ["--coordinator", coordinator, "--processes", str(processes), "--process", str(process)]
        command = [*core, sys.executable, "-m", "lottery_jax", *words, *(sharing if processes > 1 else [])]
        found.append(
            subprocess.Popen(
                [*command, "--quiet", "--json"],
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return found


def ended(processes: Sequence[subprocess.Popen]) -> None:
    """Wait until all processes have ended; exits if one failed."""
    errors = [process.communicate(timeout=3000)[1] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("\n".join(["the job failed:", *errors]))


def model(path: Path, tensors: int, size: int, seed: int = 0) -> Path:
    """A file of square normal tensors."""
    normal = np.random.default_rng(seed)
    save_file({f"layer{k:03d}": normal.normal(0, 0.1, (size, size)).astype(np.float32) for k in range(tensors)}, path)
    return path


def write(result: dict[str, Any], out: Path, without: str) -> None:
    """Write the result as JSON, and print the row of each job except the field ``without``."""
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["jobs"]:
        print({key: value for key, value in row.items() if key != without})
    print(f"written: {out}")
