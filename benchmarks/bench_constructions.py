"""Constructions on the layers that they are for: a trained target, its ticket, and what the verifier says of it.

Command: python benchmarks/bench_constructions.py [--rows vit-digits vit-mnist] [--data-dir TFDS] [--quick]
Cost: vit-digits a minute and vit-mnist a quarter of an hour on two CPU cores, most of it training (kept in the cache).
Goal: the ticket holds against the original target, and its accuracy is within 0.3 points of the target's.

`--quick`: minutes become seconds, with targets too small to be worth anything. Rows of an earlier run on the same
device stay in the file unless they are run again.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from lottery_jax import environment
from lottery_jax.comparison.measuring import measure
from lottery_jax.constructions import Construction, Otsuka, Pensia, Promise, plan_job, run_to_file
from lottery_jax.data import load
from lottery_jax.networks.node import Spec
from lottery_jax.networks.zoo.transformers import vit
from lottery_jax.tasks import Task
from lottery_jax.tasks.recipes import Recipe
from lottery_jax.tasks.train import train_target

TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Settings:
    """What was asked for on the command line."""

    quick: bool = False
    data_dir: Path | None = None


def approximated(name: str, task: Task, construction: Construction, *, tolerance: float = TOLERANCE) -> dict:
    """A row: the ticket of a task's target from seed 0, verified against the target as it was trained, and run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.safetensors"
        start = time.perf_counter()
        run_to_file(plan_job(task.target, construction, Promise(tolerance), seed=0), path)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        found = measure(path, task)
        measuring = time.perf_counter() - start
    certificate, metrics = found.certificate, found.metrics
    return {
        "row": name,
        "task": task.name,
        "construction": construction.name,
        "candidates": construction.candidates,
        "tolerance": tolerance,
        "target_weights": task.target.weights,
        "approximated_weights": certificate.target_weights,
        "within_tolerance": certificate.within_tolerance,
        "outcome": certificate.outcome,
        "own_target": certificate.own_target,
        "worst_residual": certificate.worst_residual,
        "worst_tensor": certificate.worst_tensor,
        "mean_residual": certificate.mean_residual,
        "redrawn_blocks": certificate.redrawn_blocks,
        "source_weights": certificate.source_weights,
        "kept_weights": certificate.kept_weights,
        "target_accuracy": metrics.target_accuracy,
        "accuracy": metrics.accuracy,
        "agreement": metrics.agreement,
        "max_deviation": metrics.max_deviation,
        "test_images": len(task.dataset.test),
        "evaluated": found.evaluated,
        "seconds": seconds,
        "verify_and_run_seconds": measuring,
    }


def transformer(data: str, settings: Settings, *, width: float, patch: int, depth: int, recipe: Recipe) -> Task:
    """A small vision transformer of `32 width` features a head and 4 heads, trained here."""
    dataset = load(data, data_dir=settings.data_dir)
    given = Spec(dataset.shape, dataset.nonnegative)
    if settings.quick:
        network = vit(given, dataset.classes, 1 / 16, patch=patch, depth=1)
        recipe = Recipe(2, min(128, len(dataset.train)), 3e-3)
    else:
        network = vit(given, dataset.classes, width, patch=patch, depth=depth)
    return Task(dataset.name, dataset, train_target(network, dataset, recipe, seed=0))


def vit_digits(settings: Settings) -> list[dict]:
    """16 tokens of 64 features, two layers; by its products, and by its four matrices."""
    task = transformer("digits", settings, width=0.5, patch=2, depth=2, recipe=Recipe(100, 32, 1e-3, 0.1))
    candidates = 12 if settings.quick else 21
    rows = [approximated("vit-digits", task, Otsuka(candidates)), approximated("vit-digits", task, Pensia(candidates))]
    return [row | {"tokens": 16, "features": 8 if settings.quick else 64, "heads": 4} for row in rows]


def vit_mnist(settings: Settings) -> list[dict]:
    """49 tokens of 32 features, two layers."""
    task = transformer("mnist", settings, width=0.25, patch=4, depth=2, recipe=Recipe(10, 128, 2e-3, 0.05))
    row = approximated("vit-mnist", task, Otsuka(12 if settings.quick else 21))
    return [row | {"tokens": 49, "features": 8 if settings.quick else 32, "heads": 4}]


ROWS: dict[str, Callable[[Settings], list[dict]]] = {"vit-digits": vit_digits, "vit-mnist": vit_mnist}
"""What can be measured, by name: each gives rows for the file."""
USUAL = ("vit-digits",)
"""What needs no data from outside."""


def added(path: Path, results: dict) -> dict:
    """The results with the rows of an earlier run on the same device that were not run again."""
    if not path.exists():
        return results
    before = json.loads(path.read_text())
    if before["device"] != results["device"]:
        raise SystemExit(f"{path} is of the device {before['device']}; name another file with --out")
    again = {row["row"] for row in results["rows"]}
    kept = [row for row in before["rows"] if row["row"] not in again]
    return results | {"rows": sorted(kept + results["rows"], key=lambda row: list(ROWS).index(row["row"]))}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tickets of constructions beside their targets.")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=USUAL, help="what is measured")
    parser.add_argument("--quick", action="store_true", help="with targets that are trained in seconds")
    parser.add_argument("--data-dir", type=Path, help="folder with data sets prepared by TensorFlow Datasets")
    parser.add_argument("--out", type=Path, help="JSON file; beside this file if left out, and none with --quick")
    arguments = parser.parse_args()
    settings = Settings(arguments.quick, arguments.data_dir)
    out = arguments.out or Path(__file__).parent / "results" / f"constructions_{jax.default_backend()}.json"
    for name in arguments.rows:
        rows = ROWS[name](settings)
        for row in rows:
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        if arguments.quick and arguments.out is None:
            continue
        results = {"device": environment.device(), "versions": environment.versions(), "rows": rows}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(added(out, results), indent=1) + "\n")
        print(f"written to {out}")


if __name__ == "__main__":
    main()
