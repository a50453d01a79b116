"""Planted tickets (Fischer & Burkholz 2022): which methods find a sparse solution that is known to exist?

A hand-built network that solves the task is planted in the weights of a random one (experiments/planted/planting.py):
its ticket is a seed and a mask, and its accuracy rises with the width. Then each method searches the same random
network (magnitude pruning: the same weights up to a scale per layer) at the planted kept fraction and at multiples of
it. Methods that find their own kept fraction have one row. Measured: test accuracy, and recall, precision and Jaccard
index of the planted mask, compared with chance.

Command: python experiments/planted_tickets.py                                  (three tasks, six methods)
         python experiments/planted_tickets.py --scale 0.1 --tasks relu-unit    (small)
         python experiments/planted_tickets.py --scale 5 --seeds 0 1 2 3 4      (for numbers to quote)
Cost: about a minute on two CPU cores, most of it compilation; 15 s for the small one, 15 to 20 minutes for the last
one. Data: generated (experiments/planted/tasks.py).
Expected: at the planted kept fraction, recall near chance and an accuracy far below the planted one; with more weights
a better accuracy, by other tickets.
Limits: hidden units are not matched, so a low recall with a high accuracy means another ticket, not none. Magnitude
pruning prunes once, with its own defaults. A class that it leaves without a path is never predicted, and training after
pruning cannot repair that.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.comparison.evaluate import accuracy, wilson_interval
from lottery_jax.data import Dataset
from lottery_jax.errors import InputError, suggest
from lottery_jax.mask_learning import LEARNERS, Learner
from lottery_jax.networks.network import Network
from lottery_jax.pruning import Magnitude
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.learner import TrainingRequest
from planted import PLANTED_DATA, TRUTHS, Planted, merged_overlap, overlaps, plant, planting_source

METHODS = {
    **{name: LEARNERS[name] for name in ("edge-popup", "gem-miner", "supermask", "hard-concrete")},
    "magnitude": functools.partial(Magnitude, retrain=False),
    "magnitude-retrained": Magnitude,
}


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Which methods find a planted ticket?"""

    epochs: int = 60
    """Epochs of each training, at scale 1."""
    tasks: tuple[str, ...] = tuple(PLANTED_DATA)
    """Tasks."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Methods that search."""
    multiples: tuple[float, ...] = (1, 4, 16)
    """Kept fractions, as multiples of the planted one."""
    width: int = 512
    """Hidden units of the random network that is searched."""
    widths: tuple[int, ...] = (32, 128, 512, 2048)
    """Hidden units of the random networks in which tickets are planted only."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the random network, and of the methods; the data have seed 0."""
    noise: float = 0.0
    """Fraction of randomly redrawn labels, never of the test split."""


def run(settings: Settings, rows: Results) -> None:
    """One row per planted ticket and per ticket that a method finds."""
    for given, known, what in ((settings.tasks, PLANTED_DATA, "task"), (settings.methods, METHODS, "method")):
        for name in given:
            if name not in known:
                raise InputError(f"the {what} {name!r} is unknown; {suggest(name, known)}")
    if not settings.seeds or not all(0 < multiple < np.inf for multiple in settings.multiples):
        raise InputError(
            f"seeds must not be empty and multiples must be positive, got {settings.seeds} and {settings.multiples}"
        )
    if settings.epochs < 1:
        raise InputError(f"epochs must be at least 1, got {settings.epochs}")

    def one(task: str) -> None:
        dataset = PLANTED_DATA[task](noise=settings.noise)
        for row in _rows(settings, task, dataset):
            rows.keep(task=task, **row)

    rows.each("tasks", settings.tasks, one)


def _rows(settings: Settings, task: str, dataset: Dataset) -> Iterator[dict]:
    truth, planted_by_seed = TRUTHS[task](), {}
    for width in dict.fromkeys([*settings.widths, settings.width]):
        if width < truth.network.tensors["fc1.weight"][0]:
            continue  # narrower than what is planted
        for seed in settings.seeds:
            planted = plant(truth, planting_source(truth, width), seed=seed)
            planted_by_seed |= {seed: planted} if width == settings.width else {}
            yield _row("planted", planted.ticket, planted, dataset) | {"width": width, "logit_error": planted.error}
    source = planting_source(truth, settings.width)
    keep = planted_by_seed[settings.seeds[0]].keep
    keeps = list(dict.fromkeys(min(keep * multiple, 1.0) for multiple in settings.multiples))
    for method in settings.methods:
        start = time.perf_counter()
        found = _learned(METHODS[method](), source, dataset, settings, keeps)
        seconds = time.perf_counter() - start
        for ticket in found:
            row = _row(method, ticket, planted_by_seed[ticket.seed], dataset)
            yield row | {"width": settings.width, "seconds_of_all_runs": seconds}


def _learned(
    learner: Learner, source: Network, dataset: Dataset, settings: Settings, keeps: list[float]
) -> list[Ticket]:
    epochs = settings.part(settings.epochs)
    return learner.learn(
        source, TrainingRequest(dataset, seeds=settings.seeds, keeps=keeps if learner.sweeps else (), epochs=epochs)
    )


def _row(method: str, ticket: Ticket, planted: Planted, dataset: Dataset) -> dict:
    parts = overlaps(ticket.masks, planted.masks)
    correct, whole, count = accuracy(ticket.forward(), dataset.test), merged_overlap(parts.values()), len(dataset.test)
    low, high = wilson_interval(round(correct * count), count)
    return {
        "method": method,
        "seed": ticket.seed,
        "keep": whole.found / whole.size,
        "planted_keep": planted.keep,
        "kept_weights": whole.found,
        "accuracy": correct,
        "accuracy_low": low,
        "accuracy_high": high,
        "majority": float(np.bincount(np.asarray(dataset.test.labels)).max() / count),
        "recall": whole.recall,
        "recall_by_chance": whole.chance_recall,
        "precision": whole.precision,
        "precision_by_chance": whole.chance_precision,
        "jaccard": whole.jaccard,
        "jaccard_by_chance": whole.chance_jaccard,
        "recall_by_layer": {name: part.recall for name, part in parts.items()},
    }


def show(rows: Results, console: Console) -> None:
    """The rows as a table."""
    table = Table(title="Planted tickets", box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for column in ("task", "method", "width", "seed", "kept %", "accuracy %", "recall %", "chance %"):
        table.add_column(column, no_wrap=column in ("task", "method"))
    for row in rows:
        numbers = (row[name] for name in ("accuracy", "recall", "recall_by_chance"))
        cells = (row["task"], row["method"], str(row["width"]), str(row["seed"]), f"{100 * row['keep']:.2f}")
        table.add_row(*cells, *(f"{100 * number:.1f}" for number in numbers))
    console.print(table)
    share = ", ".join(f"{task} {100 * value:.1f} %" for task, value in {r["task"]: r["majority"] for r in rows}.items())
    console.print(f"accuracy of the largest class alone: {share}")


if __name__ == "__main__":
    run_script(Settings, run, show)
