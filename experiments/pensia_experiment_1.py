"""Pensia et al. 2020, Experiment 1: a trained 784-500-10 network from random scalars, 21 candidates per weight.

Measured for each construction and objective: kept weights, weights within the tolerance, test accuracy and seconds.

Command: python experiments/pensia_experiment_1.py --target pensia_fc2.safetensors
         Without --target a target of the same shape is trained; --data-dir or TFDS_DATA_DIR names a prepared MNIST.
Cost: about a minute on two CPU cores, most of it compilation.
Published (the authors' result files; Gurobi on 36 cores): all weights within 0.01, test accuracy 97.19 -> 97.19 %,
3,725,871 of 8,337,000 candidates kept (9.39 per weight), 77,266 s.
Differences: the paper shares one candidate vector in each output row (`scalar-shared` here) and evaluates the dense
network with the approximated weights. Here every row of the table is a ticket, rebuilt from seed and bits. `pensia` is
the paper's theorem itself: a random ReLU network, pruned.
"""

import dataclasses
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness import Experiment, Results, run_script
from lottery_jax import approximate, load_task, verify
from lottery_jax.comparison.evaluate import evaluate
from lottery_jax.constructions import Construction, Pensia, Scalar, ScalarShared


@dataclasses.dataclass(frozen=True)
class Settings(Experiment):
    """Random scalars instead of trained weights, found by subset sum."""

    target: Path | None = None
    """The published target, pensia_fc2.safetensors. Default: a target that is trained here."""
    data: str = "mnist"
    """Data set."""
    candidates: int = 21
    """Candidates per weight, n = 3 * round(log2(1 / tolerance))."""
    tolerance: float = 0.01
    """Largest allowed error of a weight."""
    seed: int = 0
    """Seed of the random candidates."""


def cases(candidates: int) -> list[tuple[Construction, str]]:
    """Constructions and objectives; scalar candidates are uniform over the range of all weights, as published."""
    shared, scalar = (kind(candidates=candidates, range="model") for kind in (ScalarShared, Scalar))
    pensia = Pensia(candidates=candidates)
    both = [(made, objective) for made in (scalar, pensia) for objective in ("least-error", "smallest")]
    return [(shared, "least-error"), *both]


COLUMNS = ("construction", "objective", "random weights", "kept", "per weight", "within", "worst", "test %", "seconds")


def run(settings: Settings, rows: Results) -> None:
    """Approximate, verify and evaluate the target in each setting."""
    task = load_task(settings.data, target=settings.target, data_dir=settings.data_dir)

    def one(case: tuple[Construction, str]) -> None:
        construction, objective = case
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
        rows.keep(
            construction=construction.name,
            objective=objective,
            candidates=settings.candidates,
            target_weights=task.target.weights,
            source_weights=found.source_weights,
            kept_weights=found.kept_weights,
            within_tolerance=found.within_tolerance,
            worst_residual=found.worst_residual,
            accuracy=metrics.accuracy,
            target_accuracy=metrics.target_accuracy,
            seconds=seconds,
        )

    rows.each("settings", cases(settings.candidates), one)


def show(rows: Results, console: Console) -> None:
    """One line per setting."""
    one = rows[0]
    table = Table(*COLUMNS, title=f"{one['target_weights']:,} weights, n = {one['candidates']}")
    for row in rows:
        table.add_row(
            row["construction"],
            row["objective"],
            f"{row['source_weights']:,}",
            f"{row['kept_weights']:,}",
            f"{row['kept_weights'] / row['target_weights']:.3f}",
            f"{row['within_tolerance']:,}",
            f"{row['worst_residual']:.1e}",
            f"{100 * row['accuracy']:.2f}",
            f"{row['seconds']:.1f}",
        )
    table.caption = f"target {100 * one['target_accuracy']:.2f} %; seconds include compilation"
    Console(width=120).print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
