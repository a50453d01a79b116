"""Budgets of kept weights: accuracy against kept weights on the published 784-500-10 target, n = 21.

Command: python benchmarks/bench_budget.py --target pensia_fc2.safetensors [--data-dir TFDS]
Cost: a few minutes on two CPU cores.

For each construction and tolerance, `Smallest` keeps the fewest candidates with which every weight is within the
tolerance. A budget then has exactly as many kept weights, by plain squared residuals (`uniform`), weighted with the
target's Fisher information (`fisher`, from the training images), and with that plus its mean (`fisher-damped`), so the
tickets of a group differ only in the positions of their kept weights. `gap` is the relative distance of the error of a
ticket from the lower bound of all selections.

Seconds of the fronts (once for all budgets), of the Fisher information and of each ticket are wall time, compilation
included. They are only meaningful if the machine did nothing else: its load is in the file (1 per busy core).
"""

import argparse
import functools
import json
import os
import resource
import time
from pathlib import Path

import numpy as np

from lottery_jax import environment
from lottery_jax.approximation import Budget, approximate, plan_job, run_in_memory
from lottery_jax.approximation.chunk_store import MemoryChunkStore
from lottery_jax.approximation.importance import fisher_importance
from lottery_jax.comparison.evaluate import evaluate
from lottery_jax.constructions import Construction, Pensia, Scalar
from lottery_jax.data import Dataset, load
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.tasks import import_target
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.tickets.verify import verify

TOLERANCES = (0.01, 0.02, 0.03, 0.05, 0.08)


def measured(ticket: Ticket, target: Target, dataset: Dataset, fisher: dict[str, np.ndarray]) -> dict:
    """Certificate, both errors and test accuracy of a ticket."""
    found = verify(ticket, target=target)
    squares = {
        name: (branches[0] - target.array(name).astype(np.float64)) ** 2
        for name, branches in effective_weights(ticket).items()
    }
    metrics = evaluate(ticket.forward(), target.forward(), dataset.test)
    return {
        "kept": found.kept_weights,
        "kept_per_target_weight": found.kept_weights / target.weights,
        "holds": found.holds,
        "mean_squared_residual": sum(float(square.sum()) for square in squares.values()) / target.weights,
        "fisher_error": sum(float((fisher[name] * square).sum()) for name, square in squares.items()),
        "worst_residual": found.worst_residual,
        "accuracy": metrics.accuracy,
        "accuracy_low": metrics.accuracy_low,
        "accuracy_high": metrics.accuracy_high,
        "agreement": metrics.agreement,
        "max_deviation": metrics.max_deviation,
    }


def spent(
    target: Target,
    construction: Construction,
    solved: MemoryChunkStore,
    arguments: argparse.Namespace,
    kept: int,
    importance: dict[str, np.ndarray] | None,
) -> Ticket:
    """The ticket with a budget; the Pareto fronts are found once per construction."""
    objective = Budget(kept, importance=importance, k_max=arguments.k_max)
    return run_in_memory(plan_job(target, construction, objective, seed=arguments.seed), store=solved)


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy against kept weights within a budget.")
    parser.add_argument("--target", type=Path, required=True, help="pensia_fc2.safetensors")
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST prepared by TensorFlow Datasets")
    parser.add_argument("--k-max", type=int, default=6, help="largest subset of a weight")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file; default: benchmarks/results/budget_DEVICE.json")
    arguments = parser.parse_args()
    dataset = load("mnist", data_dir=arguments.data_dir)
    target = import_target(arguments.target, Spec(dataset.shape, dataset.nonnegative), dataset.classes)
    start = time.perf_counter()
    fisher = fisher_importance(target, dataset.train.images)
    fisher_seconds = time.perf_counter() - start
    damped = fisher_importance(target, dataset.train.images, damping=1.0)
    importances = {"uniform": None, "fisher": fisher, "fisher-damped": damped}
    dense = evaluate(target.forward(), target.forward(), dataset.test)
    assert dense.accuracy is not None, "the data set has classes"
    print(f"target {100 * dense.accuracy:.2f} %; Fisher information in {fisher_seconds:.1f} s")
    rows, fronts_seconds = [], {}
    constructions: tuple[Construction, ...] = (Scalar(range="model"), Pensia())
    for construction in constructions:
        label, solved = construction.name, MemoryChunkStore()
        within = functools.partial(spent, target, construction, solved, arguments)
        start = time.perf_counter()
        within(target.weights, None)
        fronts_seconds[label] = time.perf_counter() - start
        print(f"{label}: fronts of {target.weights} weights in {fronts_seconds[label]:.1f} s")
        for tolerance in TOLERANCES:
            kept = 0
            for choice in ("smallest", *importances):
                start = time.perf_counter()
                if choice == "smallest":
                    ticket = approximate(
                        target,
                        seed=arguments.seed,
                        construction=construction,
                        objective="smallest",
                        tolerance=tolerance,
                    )
                    kept = ticket.kept_weights
                else:
                    ticket = within(kept, importances[choice])
                row = {"construction": label, "choice": choice, "tolerance": tolerance}
                row["seconds"] = time.perf_counter() - start
                row |= measured(ticket, target, dataset, fisher)
                if choice != "smallest":
                    error, bound = (ticket.header.settings[name] for name in ("error", "error_bound"))
                    row |= {"error": error, "error_bound": bound, "gap": (error - bound) / error if error else 0.0}
                rows.append(row)
                print(
                    f"{label:7} {choice:13} kept {row['kept']:7}  accuracy {100 * row['accuracy']:.2f} %"
                    f"  agreement {100 * row['agreement']:.2f} %  mean r^2 {row['mean_squared_residual']:.3e}"
                    f"  Fisher error {row['fisher_error']:.3e}  worst {row['worst_residual']:.3f}"
                    f"  {row['seconds']:.1f} s" + (f"  gap {row['gap']:.1e}" if "gap" in row else ""),
                    flush=True,
                )
    result = {
        "load_average": os.getloadavg()[1],
        "device": environment.device(),
        "versions": environment.versions(),
        "target_accuracy": dense.accuracy,
        "target_weights": target.weights,
        "k_max": arguments.k_max,
        "fisher_seconds": fisher_seconds,
        "fronts_seconds": fronts_seconds,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "rows": rows,
    }
    kind = "cpu" if result["device"].startswith("cpu") else "gpu"
    out = arguments.out or Path(__file__).parent / "results" / f"budget_{kind}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {out}")


if __name__ == "__main__":
    main()
