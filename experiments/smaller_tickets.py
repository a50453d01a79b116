"""Smaller tickets than the theorems guarantee: accuracy against kept random weights on MNIST.

A theorem keeps several random weights per target weight. Here budgets are spent on the weights that change the loss
most (error feedback, `loss-aware`), for a dense target and for targets that were trained to be sparse (gradual
magnitude pruning), whose zeros cost nothing. Compared with: budgets of single weights, the dense target's own largest
weights, and masks that edge-popup learns on a wide network with five times the target's weights, as published. Every
ticket is verified. All weights but those of `target-pruned` are random; sparse and dense targets were trained.
Measured: test accuracy, kept weights and bits.

Command: python experiments/smaller_tickets.py --data-dir FOLDER [--target FILE] [--scale 1] [--out FILE]
Cost: 40 minutes on two CPU cores; --scale is the fraction of three seeds (edge-popup: one), of its ten epochs, and of
20 epochs of pruning.
Published: none for the tickets. A rough trial of error feedback alone had 97.1 % at 45,000 kept weights, 96.8 at
26,000, 96.0 at 13,700, 94.0 at 6,900, and 97.53 % at 7,464 kept weights of a sparse target.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.approximation import Budget, LossAware, plan_job, run_in_memory
from lottery_jax.approximation.chunk_store import MemoryChunkStore
from lottery_jax.approximation.importance import fisher_importance
from lottery_jax.approximation.job import Objective
from lottery_jax.comparison.budget_methods import largest_weights
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.constructions import Scalar
from lottery_jax.io.files import png_bytes, write_atomically
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.learner_sources import redundant_source, wide_source
from lottery_jax.networks.target import Target
from lottery_jax.pruning.gradual import Gradual, sparse_target
from lottery_jax.tasks import Task, load_task
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.tickets.verify import verify
from lottery_jax.training.learner import TrainingRequest

DENSE = (45_000, 26_000, 13_700, 6_900, 4_000, 2_000)
SPARSE = (10_000, 7_000, 4_300, 2_800, 2_000)
LEARNED = (49_784, 24_892, 9_956, 4_979, 2_000)
SWEEPS = 4  # of error feedback on the dense target, whose layers are large
WEIGHTS_PER_KEPT = 1.25  # weights of a sparse target per kept random weight
LINES = {
    "sparse target, loss-aware": "#D55E00",
    "loss-aware": "#0072B2",
    "budget": "#56B4E9",
    "target-pruned": "#999999",
    "edge-popup-wide": "#009E73",
}


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Accuracy against kept weights: error feedback, sparse targets, budgets, and learned masks."""

    data: str = "mnist"
    """Data set."""
    target: Path | None = None
    """The dense target, .safetensors. Default: a target that is trained here."""
    architecture: str = "mlp-300"
    """Network of the sparse targets."""


def run(settings: Settings, rows: Results) -> None:
    """Every method and budget for every seed; the test split is used once."""
    task = load_task(settings.data, target=settings.target, data_dir=settings.data_dir)
    begun = load_task(settings.data, architecture=settings.architecture, data_dir=settings.data_dir)
    train = np.asarray(task.dataset.train.images)
    fisher = fisher_importance(task.target, train, damping=1.0)
    scale, seeds = {"scale": settings.scale}, range(settings.part(3))
    # The same fractions of smaller targets.
    part = min(1.0, task.target.weights / 397_000)
    dense, sparse, learned = ([max(round(kept * part), 1) for kept in each] for each in (DENSE, SPARSE, LEARNED))

    def constructed(
        method: str, seed: int, target: Target, objective: Objective, more: dict[str, Any], memory: MemoryChunkStore
    ) -> None:
        start = time.perf_counter()
        ticket = run_in_memory(plan_job(target, Scalar(), objective, seed=seed), store=memory)
        seconds = time.perf_counter() - start
        rows.keep(method=method, seed=seed, seconds=seconds, **_measured(ticket, task, target), **scale, **more)

    def sparse_tickets(seed: int) -> None:
        for kept in sparse:
            how = Gradual(settings.part(20))
            left = min(round(WEIGHTS_PER_KEPT * kept), begun.target.weights)
            target = sparse_target(begun.target, task.dataset, left, how, seed=seed)
            more = {"target_weights_left": left, "pruning_epochs": how.epochs}
            constructed("sparse target, loss-aware", seed, target, LossAware(kept, train), more, MemoryChunkStore())

    def budgets(method: str, objective: Callable[[int], Objective]) -> Callable[[int], None]:
        def run_seed(seed: int) -> None:
            memory = MemoryChunkStore()
            for kept in dense:
                constructed(method, seed, task.target, objective(kept), {}, memory)

        return run_seed

    def masks(seed: int) -> None:
        source, epochs = wide_source(redundant_source(task.target.network)), settings.part(10)
        for kept in learned:
            start = time.perf_counter()
            (ticket,) = EdgePopup().learn(
                source, TrainingRequest(task.dataset, seeds=[seed], keeps=[kept / source.source_weights], epochs=epochs)
            )
            more = {"epochs": epochs, "seconds": time.perf_counter() - start}
            rows.keep(method="edge-popup-wide", seed=seed, **_measured(ticket, task, task.target), **scale, **more)

    def pruned_target(seed: int) -> None:
        for ticket in largest_weights(task.target, dense, seed):
            rows.keep(method="target-pruned", seed=seed, **_measured(ticket, task, task.target), **scale)

    budgeted = (
        sparse_tickets,
        budgets("loss-aware", lambda kept: LossAware(kept, train, sweeps=SWEEPS)),
        budgets("budget", lambda kept: Budget(kept, importance=fisher)),
    )
    # The pruned target is not random and edge-popup takes long: both have one seed.
    tasks = [(one, seed) for seed in seeds for one in budgeted] + [(pruned_target, 0), (masks, 0)]
    rows.each("methods and seeds", tasks, lambda task: task[0](task[1]))


def _measured(ticket: Ticket, task: Task, target: Target) -> dict[str, Any]:
    """The row of a ticket, from its certificate and the test split."""
    found = verify(ticket, target=target)
    return {
        "outcome": found.outcome,
        "kept_weights": found.kept_weights,
        "source_weights": found.source_weights,
        "bits": sum(found.description_bits.values()),
        "rounding_bits": None if found.rounding_bits is None else sum(found.rounding_bits.values()),
        "accuracy": accuracy(ticket.forward(), task.dataset.test),
        "target_accuracy": accuracy(target.forward(), task.dataset.test),
        "target_sha256": target.digest[:16],
    }


def means(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int, list[dict[str, Any]]]]:
    """(method, approximate kept weights, rows of all seeds), most weights first."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        same = [key for key in found if key[0] == row["method"] and abs(key[1] / row["kept_weights"] - 1) < 0.05]
        found.setdefault(same[0] if same else (row["method"], row["kept_weights"]), []).append(row)
    order = list(LINES)
    keys = sorted(found, key=lambda key: (order.index(key[0]), -key[1]))
    return [(*key, found[key]) for key in keys]


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """Accuracy against kept weights as PNG bytes: means, and bands from the minimum to the maximum over seeds."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7.5, 5.2), dpi=110, layout="constrained")
    axes = drawing.add_subplot()
    groups = means(rows)
    words = {
        "sparse target, loss-aware": "random weights, error feedback, target trained sparse",
        "loss-aware": "random weights, error feedback, dense target",
        "budget": "random weights, budget of single weights",
        "target-pruned": "the dense target's own largest weights",
        "edge-popup-wide": "random weights, learned mask (edge-popup)",
    }
    for method, colour in LINES.items():
        own = [(kept, [100 * row["accuracy"] for row in found]) for name, kept, found in groups if name == method]
        if own:
            x, ys = zip(*own, strict=True)
            mean, low, high = ([of(y) for y in ys] for of in (statistics.fmean, min, max))
            axes.semilogx(x, mean, "o-", color=colour, label=words[method], markersize=4)
            axes.fill_between(x, low, high, color=colour, alpha=0.15)
    dense = next((row["target_accuracy"] for row in rows if row["method"] == "loss-aware"), None)
    if dense is not None:
        label = f"the dense target, {100 * dense:.2f} %"
        axes.axhline(100 * dense, color="#222222", linestyle=":", linewidth=1, label=label)
    best = max(100 * row["accuracy"] for row in rows)
    axes.set_ylim(min(80.0, best - 10), min(best + 1, 100))
    axes.set(xlabel="kept weights", ylabel="test accuracy, %", title="Small tickets: accuracy against kept weights")
    for name_ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        name_ticks(lambda x, _: f"{x:,.0f}" if f"{x:.0e}"[0] in "125" else "")
    axes.grid(visible=True, which="both", alpha=0.2)
    drawing.legend(frameon=False, loc="outside lower center", ncols=2, fontsize="small")
    return png_bytes(drawing)


def show(rows: Results, console: Console) -> None:
    """Means over seeds as a table, and the figure."""
    table = Table("method", "kept weights", "accuracy %", "seeds", "outcome", "bits", "rounding", "seconds")
    for method, kept, found in means(rows):
        rounding = [row["rounding_bits"] for row in found if row["rounding_bits"] is not None]
        seconds = [row["seconds"] for row in found if "seconds" in row]
        table.add_row(
            method,
            f"{kept:,}",
            f"{100 * statistics.fmean(row['accuracy'] for row in found):.2f}",
            str(len(found)),
            ", ".join(dict.fromkeys(row["outcome"] for row in found)),
            f"{statistics.fmean(row['bits'] for row in found):,.0f}",
            f"{statistics.fmean(rounding):,.0f}" if rounding else "-",
            f"{statistics.fmean(seconds):.1f}" if seconds else "-",
        )
    console.print(table)
    write_atomically(rows.path.with_suffix(".png"), picture(rows))


if __name__ == "__main__":
    run_script(Settings, run, show)
