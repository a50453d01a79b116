"""Frankle and Carbin 2019 (arXiv 1803.03635), Figures 3 and 4: LeNet-300-100 on MNIST, pruned in rounds and rewound.

Does a pruned network, rewound to its first weights, train as well as the dense one, and does it with other random
weights? Each round prunes a fifth of the remaining weights (the output layer a tenth) and rewinds. One-shot masks,
rewound and with new weights, are the comparison. Measured: test accuracy.

Command: python experiments/frankle_carbin_lenet.py --data-dir FOLDER [--scale 1] [--out FILE]
Cost: at the default scale about a minute on two CPU cores (3 epochs, one seed, few rounds). --scale 1 is for a GPU: 55
epochs, five seeds and 7, 9 and 15 rounds.
Published: better than the dense network at 21.1 % and 13.5 % kept, as good at 3.6 %; with new weights worse from 21.1 %
on. A careful replication by others: 98.05 % dense, 98.33 at 21.1 %, 98.26 at 13.5 %, 98.16 at 3.6 %.
"""

import dataclasses
import math
import statistics
import time

from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import load
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.magnitude import Magnitude, MagnitudeReinit
from lottery_jax.training.learner import TrainingRequest

KEEPS = (0.211, 0.135, 0.036)


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Pruned and dense networks, with the first weights and with new ones, 55 epochs and five seeds."""

    scale: float = 0.055
    """Fraction of the published epochs, seeds and rounds, at least one of each."""
    data: str = "mnist"
    """Data set."""
    seeds: int | None = None
    """Number of seeds. Default: this fraction of the published five."""


def run(settings: Settings, rows: Results) -> None:
    """Every method, kept fraction and seed; the test split is used once."""
    epochs, seeds = settings.part(55), list(range(settings.seeds or settings.part(5)))
    dataset = load(settings.data, data_dir=settings.data_dir)
    target = architecture("lenet-300-100", Spec(dataset.shape, dataset.nonnegative), dataset.classes)
    runs: list[tuple[str, Magnitude, tuple[float, ...]]] = [("dense", Magnitude(), (1.0,))]
    for keep in KEEPS:
        rounds = max(2, round(settings.scale * math.log(keep) / math.log(0.8)))
        runs.append((f"{rounds} rounds", Magnitude(rounds=rounds), (keep,)))
    runs += [("one shot", Magnitude(), KEEPS), ("one shot, new weights", MagnitudeReinit(), KEEPS)]

    def one(task: tuple[str, Magnitude, tuple[float, ...]]) -> None:
        label, learner, keeps = task
        start = time.perf_counter()
        tickets = learner.learn(
            target, TrainingRequest(dataset, seeds=seeds, keeps=keeps, epochs=epochs, checkpoints=rows.checkpoints)
        )
        for ticket in tickets:
            made = ticket.header.settings
            rows.keep(
                method=label,
                data=dataset.name,
                seed=ticket.seed,
                keep=made["keep"],
                kept_weights=ticket.kept_weights,
                early_stop_epoch=made["early_stop_epoch"],
                epochs=epochs,
                scale=settings.scale,
                accuracy=accuracy(ticket.forward(), dataset.test),
                seconds_of_all_runs=time.perf_counter() - start,
            )

    rows.each("methods", runs, one, splits=True)


def show(rows: Results, console: Console) -> None:
    """Means over seeds as a table."""
    epochs, scale = rows[0]["epochs"], rows[0]["scale"]
    title = f"{epochs} epochs, at scale {scale:g} of the published run"
    table = Table("method", "kept %", "kept weights", "accuracy %", "seeds", title=title)
    for label, keep in dict.fromkeys((row["method"], row["keep"]) for row in rows):
        own = [row for row in rows if (row["method"], row["keep"]) == (label, keep)]
        mean = statistics.fmean(row["accuracy"] for row in own)
        table.add_row(label, f"{100 * keep:g}", f"{own[0]['kept_weights']:,}", f"{100 * mean:.2f}", str(len(own)))
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
