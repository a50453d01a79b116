"""From a safetensors file to a ticket on disk, streaming: how it grows, and a transformer.

One size per process, so that the peak of memory is its own. The answer is judged by `verify`, which recomputes
every residual in float64 from seed and bits, on the host and after the memory was read.
"""

import hashlib
import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from lottery_jax.approximation import ToleranceObjective, plan_job, run_to_file
from lottery_jax.constructions import Scalar
from lottery_jax.io.tensor_file import TensorInfo, file_layout
from lottery_jax.tasks import load_model
from lottery_jax.tickets.verify import verify

from .instances import DEVIATION, TOLERANCE, Run
from .measure import device_memory, measure, memory_of_jax

_COLUMNS = 625
_BLOCK = 1 << 20  # weights written at once
Shapes = dict[str, tuple[int, int]]


def growth(run: Run, times: int) -> list[dict]:
    """One matrix with `times` as many weights as the smallest size."""
    shape = (run.sizes.growth * times // _COLUMNS, _COLUMNS)
    return [_stream(run, {"weight": shape}, DEVIATION, repeats=3 if times < 16 else 1)]


def transformer(run: Run) -> list[dict]:
    """124 million random weights, deviation 0.02, of GPT-2 small's shapes."""
    shapes = gpt2_shapes(768, 12, 50257, 1024) if run.sizes.large else gpt2_shapes(8, 2, 64, 16)
    return [_stream(run, shapes, 0.02, repeats=1)]


def gpt2_shapes(width: int, blocks: int, words: int, positions: int) -> Shapes:
    """The matrices of Radford et al. 2019's smallest model, as its file has them, for any sizes.

    >>> sum(map(math.prod, gpt2_shapes(768, 12, 50257, 1024).values()))
    124318464
    """
    shapes = {"wte.weight": (words, width), "wpe.weight": (positions, width)}
    for block in range(blocks):
        shapes |= {
            f"h.{block}.attn.c_attn.weight": (width, 3 * width),
            f"h.{block}.attn.c_proj.weight": (width, width),
            f"h.{block}.mlp.c_fc.weight": (width, 4 * width),
            f"h.{block}.mlp.c_proj.weight": (4 * width, width),
        }
    return shapes


def _stream(run: Run, shapes: Shapes, deviation: float, repeats: int) -> dict:
    before = memory_of_jax()
    with tempfile.TemporaryDirectory() as folder:
        model, ticket = Path(folder) / "model.safetensors", Path(folder) / "ticket.safetensors"
        _write_model(model, shapes, deviation)

        def approximate() -> None:
            ticket.unlink(missing_ok=True)  # or it would be found finished
            target, _ = load_model(model)
            run_to_file(plan_job(target, Scalar(run.sizes.candidates), ToleranceObjective(TOLERANCE), seed=0), ticket)

        weights = sum(map(math.prod, shapes.values()))
        _, row = measure(approximate, repeats, weights)
        row |= {"solver": "MeetInTheMiddle", "candidates": run.sizes.candidates, "data": "files"}
        row |= {"beyond_jax_gib": row["peak_memory_gib"] - before / 2**30, "ticket_bytes": ticket.stat().st_size}
        row |= device_memory() | _disk(model, ticket)
        found = verify(ticket, target=load_model(model)[0])
    return row | {
        "mean_residual": found.mean_residual,
        "worst_residual": found.worst_residual,
        "within": found.within_tolerance,
        "kept_per_weight": found.kept_weights / weights,
        "redrawn_blocks": found.redrawn_blocks,
    }


def _write_model(path: Path, shapes: Shapes, deviation: float) -> None:
    """Block by block, so that the memory of this process is that of the engine."""
    rng = np.random.default_rng(0)
    start, placed = file_layout([TensorInfo(name, "F32", shape) for name, shape in shapes.items()], {})
    with path.open("wb") as file:
        file.write(start)
        for tensor in sorted(placed.values(), key=lambda tensor: tensor.start):
            for first in range(0, tensor.size, _BLOCK):
                block = rng.standard_normal(min(_BLOCK, tensor.size - first), np.float32)
                file.write((block * np.float32(deviation)).tobytes())


def _disk(model: Path, ticket: Path) -> dict[str, float]:
    """Seconds that the digest of the model, and writing as many bytes as the ticket has, take by themselves."""
    start = time.perf_counter()
    with model.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    hashed = time.perf_counter()
    block = bytes(1 << 24)
    with ticket.with_name("zeros").open("wb") as file:
        for _ in range(0, ticket.stat().st_size, len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return {"digest_seconds": hashed - start, "write_seconds": time.perf_counter() - hashed}
