"""Pensia et al. 2020, Experiment 2: edge-popup on redundant structure and on a wide network of equal size.

Command: python experiments/pensia_experiment_2.py                      (the whole of the 2-layer figure)
         python experiments/pensia_experiment_2.py --epochs 1 --keeps 0.5 0.1 0.05 --seeds 0      (small)
         python experiments/pensia_experiment_2.py --hidden 500 500 500             (the 4-layer figure)
Cost: one epoch of one run is 859 steps, 11 to 15 ms each on two CPU cores: about 12 s. The small command trains
      9 runs, 2 minutes; the whole one 126 runs of 30 epochs, 13 hours, so it is for a GPU, where the 42 runs of a
      network share each step by vmap (about 2.5 GB).
Data: MNIST; --data-dir or TFDS_DATA_DIR for a prepared folder, else it is downloaded on first use.

Published, test accuracy in % at kept weights, read off the figures (1 to 2 points either way); 2-layer networks
have 1,991,420 source weights (wide: 2508 hidden units), 4-layer networks 4,496,420 (wide: 1314):

| layers (dense)  | structure-linear               | structure-relu                  | wide                            |
|-----------------|--------------------------------|---------------------------------|---------------------------------|
| 2 (397K: 98.5)  | 500K 97.5; 200K 96; 100K 89;   | 1M 96.5; 500K 93; 200K 79;      | 500K 98; 200K 97.5; 100K 96;    |
|                 | 50K 74; 20K 39                 | 100K 57; 50K 29                 | 50K 91; 20K 86                  |
| 4 (897K: 98.8)  | 1.12M 98; 450K 97.5; 225K 94;  | 1.12M 96; 450K 82; 225K 44      | 450K 98.5; 225K 98; 112K 96.5;  |
|                 | 112K 73                        |                                 | 45K 88                          |

All curves fall to chance as the kept fraction goes to 1. Published setting: batch 64, SGD 0.1 with momentum 0.9,
weight decay 5e-4 on the scores, cosine, 30 to 150 epochs, top-k for each tensor, weights N(0, 2) and N(0, 2 / inputs).
With `--normalise` the layers are scaled to unit outputs for each kept fraction, which the paper does not do.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lottery_jax import environment
from lottery_jax.comparison.evaluation import accuracy, wilson_interval
from lottery_jax.data import load
from lottery_jax.errors import InputError
from lottery_jax.learned.edge_popup import EdgePopup
from lottery_jax.learned.sources import redundant_source, wide_source
from lottery_jax.networks.node import Spec
from lottery_jax.networks.zoo.registry import architecture
from lottery_jax.storage.files import check_writable, write_atomically


@dataclasses.dataclass(frozen=True)
class Settings:
    """Edge-popup on redundant structure against a wide network of equal size."""

    epochs: int = 30
    """Epochs of each training."""
    keeps: tuple[float, ...] = (1, 0.99, 0.98, 0.975, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.025, 0.02, 0.01)
    """Kept fractions of each tensor."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of source, scores and order of examples."""
    networks: tuple[str, ...] = ("structure-linear", "structure-relu", "wide")
    """Networks to train."""
    hidden: tuple[int, ...] = (500,)
    """Hidden widths of the target that the structure stands for."""
    copies: int = 5
    """Hidden units for each input of a gadget."""
    normalise: bool = False
    """Scale the layers to unit outputs for each kept fraction."""
    data: str = "mnist"
    """Data set."""
    data_dir: Path | None = None
    """Folder with prepared TensorFlow Datasets."""
    together: int | None = None
    """Runs that share a step by vmap; left out, all on an accelerator and one on a CPU."""
    out: Path = Path("experiment_2.jsonl")
    """JSON lines, one for each network, seed and kept fraction; replaced."""


def run(settings: Settings, console: Console) -> list[dict]:
    """Train every network, all its seeds and kept fractions in one program; one row for each of them."""
    check_writable(settings.out.parent)
    dataset = load(settings.data, data_dir=settings.data_dir)
    name = "-".join(["mlp", *map(str, settings.hidden)])
    target = architecture(name, Spec(dataset.shape, dataset.nonnegative), dataset.classes)
    linear = redundant_source(target, copies=settings.copies, relu=False)
    relu = redundant_source(target, copies=settings.copies)
    sources = {"structure-linear": linear, "structure-relu": relu, "wide": wide_source(relu)}
    if unknown := set(settings.networks) - set(sources):
        raise InputError(f"networks {sorted(unknown)} are unknown; choose from {', '.join(sources)}")
    learner = EdgePopup(normalise=settings.normalise, together=settings.together)
    rows = []
    with Progress(console=console) as bars:
        for network in settings.networks:
            bar, start = bars.add_task(network, total=settings.epochs), time.perf_counter()
            tickets = learner.learn(
                sources[network],
                dataset,
                seeds=settings.seeds,
                keeps=settings.keeps,
                epochs=settings.epochs,
                progress=lambda done, total, bar=bar: bars.update(bar, completed=done, total=total),
            )
            seconds = time.perf_counter() - start
            for ticket in tickets:
                correct, made = accuracy(ticket.forward(), dataset.test), ticket.header.settings
                low, high = wilson_interval(round(correct * len(dataset.test)), len(dataset.test))
                rows.append(
                    {
                        "network": network,
                        "data": dataset.name,
                        "seed": ticket.seed,
                        "keep": made["keep"],
                        "epochs": settings.epochs,
                        "normalise": settings.normalise,
                        "source_weights": ticket.network.source_weights,
                        "kept_weights": ticket.kept_weights,
                        "accuracy": correct,
                        "accuracy_low": low,
                        "accuracy_high": high,
                        "loss": made["loss"],
                        "seconds_of_all_runs": seconds,
                        "device": environment.device(),
                        "versions": environment.versions(),
                    }
                )
            write_atomically(settings.out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return rows


def show(rows: list[dict], console: Console) -> None:
    """The rows as a table."""
    table = Table("network", "seed", "keep", "kept weights", "accuracy %", "loss", title="Experiment 2")
    for row in rows:
        table.add_row(
            row["network"],
            str(row["seed"]),
            f"{row['keep']:g}",
            f"{row['kept_weights']:,}",
            f"{100 * row['accuracy']:.2f}",
            f"{row['loss']:.3f}",
        )
    console.print(table)


if __name__ == "__main__":
    settings = tyro.cli(Settings, description=__doc__)
    try:
        show(run(settings, Console(stderr=True)), Console())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"written to {settings.out}")
