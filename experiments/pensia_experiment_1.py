"""Pensia et al. 2020, Experiment 1: a trained 784-500-10 network from random scalars, 21 candidates per weight.

Command: python experiments/pensia_experiment_1.py --target pensia_fc2.safetensors
         (left out, a target of the same shape is trained here; --data-dir or TFDS_DATA_DIR for a prepared MNIST)
Cost: about a minute on two CPU cores, most of it compilation.

Published (the authors' result files; Gurobi on 36 cores): all weights within 0.01, test accuracy 97.19 -> 97.19 %,
3,725,871 of 8,337,000 candidates kept (9.39 per weight), 77,266 s. There one candidate vector serves an output row
(`scalar-shared` here) and the approximated weights are put into the dense network; here every row of the table is
a ticket, rebuilt from seed and bits. `pensia` is the paper's theorem itself: a random ReLU network, pruned.
"""

import dataclasses
import sys
import time
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lottery_jax import approximate, load_task, verify
from lottery_jax.comparison.evaluation import evaluate
from lottery_jax.constructions import Construction, Pensia, Scalar, ScalarShared
from lottery_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Random scalars in place of trained weights, found by subset sum."""

    target: Path | None = None
    """The published target, pensia_fc2.safetensors; trained here if left out."""
    data: str = "mnist"
    """Data set."""
    data_dir: Path | None = None
    """Folder with prepared TensorFlow Datasets."""
    candidates: int = 21
    """n = 3 * round(log2(1 / tolerance))."""
    tolerance: float = 0.01
    """Largest allowed error of a weight."""
    seed: int = 0
    """Seed of the random candidates."""


def rows(candidates: int) -> list[tuple[Construction, str]]:
    """Constructions and objectives; scalar candidates are uniform over the range of all weights, as published."""
    shared, scalar = (kind(candidates=candidates, range="model") for kind in (ScalarShared, Scalar))
    pensia = Pensia(candidates=candidates)
    both = [(made, objective) for made in (scalar, pensia) for objective in ("least-error", "smallest")]
    return [(shared, "least-error"), *both]


COLUMNS = ("construction", "objective", "random weights", "kept", "per weight", "within", "worst", "test %", "seconds")


def main(settings: Settings) -> None:
    """Approximate, verify and evaluate the target in each setting; print the table."""
    task = load_task(settings.data, target=settings.target, data_dir=settings.data_dir)
    table = Table(*COLUMNS, title=f"{task.target.weights:,} weights, n = {settings.candidates}")
    target_accuracy = 0.0
    for construction, objective in track(rows(settings.candidates), console=Console(stderr=True)):
        start = time.perf_counter()
        ticket = approximate(
            task.target,
            seed=settings.seed,
            construction=construction,
            tolerance=settings.tolerance,
            objective=objective,
        )
        seconds = time.perf_counter() - start
        found = verify(ticket, target=task.target)
        metrics = evaluate(ticket.forward(), task.target.forward(), task.dataset.test)
        target_accuracy = metrics.target_accuracy
        table.add_row(
            construction.name,
            objective,
            f"{found.source_weights:,}",
            f"{found.kept_weights:,}",
            f"{found.kept_weights / task.target.weights:.3f}",
            f"{found.within_tolerance:,}",
            f"{found.worst_residual:.1e}",
            f"{100 * metrics.accuracy:.2f}",
            f"{seconds:.1f}",
        )
    table.caption = f"target {100 * target_accuracy:.2f} %; seconds include compilation"
    Console(width=120).print(table)


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings, description=__doc__))
    except InputError as error:
        sys.exit(f"error: {error}")
