"""Constructions on the layers that they are made for: a trained target, its ticket, and the result of the verifier.

Command: python benchmarks/bench_constructions.py [--rows vit-digits ...] [--data-dir TFDS] [--target FILE] [--quick]
Cost: vit-digits and lenet5-mnist a minute each, the others up to a quarter of an hour on two CPU cores, most of it
training (kept in the cache) and running the random network on the test images.
Goals: every ticket holds against the original target. Accuracy within 0.3 points for vit-digits and vit-mnist, within
0.2 for resnet20-cifar10 and resnet20-burkholz (--target is its file; the latter takes most of an hour). lenet5-mnist:
20 candidates, every residual at most 7.3e-4 of its tensor's largest weight (da Cunha et al. 2022: "many hours" of
Gurobi for the convolutions alone) in under 30 seconds.

`--quick`: seconds instead of minutes, with targets too small for conclusions. Rows of an earlier run on the same
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
import numpy as np

from lottery_jax import environment
from lottery_jax.approximation import ToleranceObjective, plan_job, run_to_file
from lottery_jax.comparison.evaluate import measure
from lottery_jax.constructions import CONSTRUCTIONS, Construction, Otsuka, Pensia
from lottery_jax.data import Dataset, Split, load
from lottery_jax.networks.architectures import architecture, vit
from lottery_jax.networks.node import Spec
from lottery_jax.tasks import Task, load_task
from lottery_jax.tasks.task import Recipe, train_target
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket

DEFAULT_OBJECTIVE = ToleranceObjective(0.01)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options."""

    quick: bool = False
    data_dir: Path | None = None
    target: Path | None = None


def approximated(
    name: str, task: Task, construction: Construction, objective: ToleranceObjective = DEFAULT_OBJECTIVE
) -> dict:
    """A row: the ticket of a task's target from seed 0, verified against the target as it was trained, and run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.safetensors"
        start = time.perf_counter()
        run_to_file(plan_job(task.target, construction, objective, seed=0), path)
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
        "tolerance": objective.tolerance,
        "objective": objective.select,
        "max_redraws": objective.max_redraws,
        "target_weights": task.target.weights,
        "approximated_weights": certificate.target_weights,
        "within_tolerance": certificate.within_tolerance,
        "outcome": certificate.outcome,
        "own_target": certificate.own_target,
        "worst_residual": certificate.worst_residual,
        "worst_tensor": certificate.worst_tensor,
        "mean_residual": certificate.mean_residual,
        "worst_of_largest": worst_of_largest(found.ticket, construction, task),
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


def worst_of_largest(ticket: Ticket, construction: Construction, task: Task) -> float:
    """The largest residual of a tensor over its largest weight, of all tensors the worst."""
    target, found = construction.prepare(task.target), 0.0
    for name, values in effective_weights(ticket).items():
        wanted = target.array(name).astype(float)
        found = max(found, float(abs(values - wanted).max() / (abs(wanted).max() or 1.0)))  # biases may be zero yet
    return found


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


def trained_task(settings: Settings, data: str, name: str, *, width: float = 1.0) -> Task:
    """A target of an architecture, trained here or, a ResNet-20, read from its file."""
    if settings.quick:
        dataset = enlarged(load("digits").first(300), 28 if data == "mnist" else 32, 1 if data == "mnist" else 3)
        network = architecture(name, Spec(dataset.shape, True), dataset.classes, width=width / 4)
        return Task("digits", dataset, train_target(network, dataset, Recipe(1, 50), seed=0))
    target = settings.target if name == "resnet20" else None
    return load_task(data, architecture=name, target=target, width=width, data_dir=settings.data_dir)


def enlarged(dataset: Dataset, size: int, channels: int) -> Dataset:
    """The digits in the shape of other images, [size, size, channels]."""

    def shaped(split: Split) -> Split:
        large = np.asarray(split.images).repeat(size // 8 + 1, 1).repeat(size // 8 + 1, 2)
        return Split(large[:100, :size, :size].repeat(channels, 3), split.labels[:100])

    parts = {name: shaped(getattr(dataset, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(dataset, **parts)


def lenet5_mnist(settings: Settings) -> list[dict]:
    """Convolutions, pooling and biases, with 20 candidates, so near that redraws are needed for few weights."""
    task = trained_task(settings, "mnist", "lenet5")
    # One tolerance for all tensors: that of the one with the smallest weights; before training these are nothing.
    least = min(task.target.scan(name).largest for name in task.target.network.approximated)
    objective = DEFAULT_OBJECTIVE if settings.quick else ToleranceObjective(7.3e-4 * least, max_redraws=255)
    return [approximated("lenet5-mnist", task, CONSTRUCTIONS["dacunha"](20), objective)]


def on_a_task(data: str, name: str, *constructions: str, width: float = 1.0) -> Callable[[Settings], list[dict]]:
    """Rows of some constructions for an architecture."""

    def rows(settings: Settings) -> list[dict]:
        task = trained_task(settings, data, name, width=width)
        return [approximated(f"{name}-{data}", task, CONSTRUCTIONS[one](_CANDIDATES[one])) for one in constructions]

    return rows


def resnet20_burkholz(settings: Settings) -> list[dict]:
    """Every neuron fifteen times, on some of the test images: it has 225 random weights for one of a kernel."""
    task = trained_task(settings, "cifar10", "resnet20")
    test = task.dataset.test
    few = dataclasses.replace(task.dataset, test=Split(test.images[:300], test.labels[:300]))
    task = Task(task.name, few, task.target)
    # Errors of copies add up over twenty layers: a tenth of the usual tolerance.
    return [
        approximated("resnet20-burkholz", task, CONSTRUCTIONS["burkholz"](15), ToleranceObjective(0.001, "smallest"))
    ]


_CANDIDATES = {"pensia": 21, "dacunha": 21, "natale": 21, "orseau": 60}
ROWS: dict[str, Callable[[Settings], list[dict]]] = {
    "vit-digits": vit_digits,
    "vit-mnist": vit_mnist,
    "lenet5-mnist": lenet5_mnist,
    "lenet-300-100-mnist": on_a_task("mnist", "lenet-300-100", "pensia", "natale", "orseau"),
    "conv2-cifar10": on_a_task("cifar10", "conv2", "dacunha", width=1 / 8),
    "conv4-cifar10": on_a_task("cifar10", "conv4", "dacunha", width=1 / 8),
    "resnet20-cifar10": on_a_task("cifar10", "resnet20", "dacunha"),
    "resnet20-burkholz": resnet20_burkholz,
}
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
    parser = argparse.ArgumentParser(description="Tickets of constructions compared with their targets.")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=USUAL, help="what is measured")
    parser.add_argument("--quick", action="store_true", help="with targets that are trained in seconds")
    parser.add_argument("--data-dir", type=Path, help="folder with data sets prepared by TensorFlow Datasets")
    parser.add_argument("--target", type=Path, help="file of the trained ResNet-20")
    parser.add_argument("--out", type=Path, help="JSON file; default: in benchmarks/results, none with --quick")
    arguments = parser.parse_args()
    settings = Settings(arguments.quick, arguments.data_dir, arguments.target)
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
