"""Planted tickets (Fischer & Burkholz 2022): which methods find a sparse solution that is known to be there?

Command: python experiments/planted_tickets.py                                  (three tasks, six methods)
         python experiments/planted_tickets.py --scale 0.1 --tasks relu-unit    (small)
         python experiments/planted_tickets.py --scale 5 --seeds 0 1 2 3 4      (for numbers to be quoted)
Cost: about a minute on two CPU cores, most of it compiling; the small one 15 s, the last one 15 to 20 minutes.
Data: made on the spot (experiments/planted/tasks.py).

A hand-built network that solves the task is found in the weights of a random one (experiments/planted/planting.py): its
ticket is a seed and a mask, its accuracy is measured like any other's, and rises with the width. Then each method
searches the same random network (magnitude pruning: the same weights up to a scale for each layer) at the planted kept
fraction and at multiples of it. Methods that find their own kept fraction have one row.

The tickets are there: their accuracy is measured. To be expected of the methods: at the planted kept fraction, recall
near that of chance and an accuracy far below the planted one; with more weights a better accuracy, by other tickets.
Hidden units are not matched, so a low recall beside a high accuracy says that another ticket was found, not that none
was. Magnitude pruning prunes once, with its own defaults; a class that it leaves without a path is never chosen, and
training after pruning cannot mend that.
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
from planted import PLANTED_DATA, TRUTHS, Planted, overlaps, plant, planting_source, runs_per_step

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
    """Fraction of labels drawn anew, those of the test never."""


def run(settings: Settings, rows: Results) -> None:
    """One row for each planted ticket, and for each that a method finds."""
    for given, known, what in ((settings.tasks, PLANTED_DATA, "task"), (settings.methods, METHODS, "method")):
        for name in given:
            if name not in known:
                raise InputError(f"the {what} {name!r} is unknown; {suggest(name, known)}")
    if not settings.seeds or not all(0 < multiple < np.inf for multiple in settings.multiples):
        raise InputError(f"seeds {settings.seeds}, multiples {settings.multiples}; give a seed, and numbers above 0")
    if settings.epochs < 1:
        raise InputError(f"the number of epochs is {settings.epochs}; it must be at least 1")

    def one(task: str) -> None:
        dataset = PLANTED_DATA[task](noise=settings.noise)
        for row in _rows(settings, task, dataset):
            rows.keep(task=task, **row)

    rows.each("tasks", settings.tasks, one)


def _rows(settings: Settings, task: str, dataset: Dataset) -> Iterator[dict]:
    truth, there = TRUTHS[task](), {}
    for width in dict.fromkeys([*settings.widths, settings.width]):
        if width < truth.network.tensors["fc1.weight"][0]:
            continue  # narrower than what is planted
        for seed in settings.seeds:
            planted = plant(truth, planting_source(truth, width), seed=seed)
            there |= {seed: planted} if width == settings.width else {}
            yield _row("planted", planted.ticket, planted, dataset) | {"width": width, "logit_error": planted.error}
    source = planting_source(truth, settings.width)
    keeps = list(dict.fromkeys(min(there[settings.seeds[0]].keep * multiple, 1.0) for multiple in settings.multiples))
    for method in settings.methods:
        start = time.perf_counter()
        found = _learned(METHODS[method](), source, dataset, settings, keeps)
        seconds = time.perf_counter() - start
        for ticket in found:
            row = _row(method, ticket, there[ticket.seed], dataset)
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
    correct, whole, count = accuracy(ticket.forward(), dataset.test), runs_per_step(parts.values()), len(dataset.test)
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
