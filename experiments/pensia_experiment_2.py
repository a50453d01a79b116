"""Pensia et al. 2020, Experiment 2: edge-popup on redundant structure, on a wide network of equal size, and training.

Gadgets in front of the layers of a target make a random network that contains the target (structure-relu; without ReLUs
in the gadgets, structure-linear). Does edge-popup find more accurate masks in it than in a plain random network with as
many weights (wide), and than the trained network of the target's own size (dense)? Targets: 784-500-10,
784-500-500-500-10, LeNet-5. Measured: test accuracy by kept fraction.

Command: python experiments/pensia_experiment_2.py --data-dir FOLDER [--scale 1] [--out FILE]
Cost: at the default scale half a minute on two CPU cores (the 2-layer networks, 2 epochs of 3,300 examples, one seed,
three kept fractions). --scale 1 is for a GPU, where runs of a network share each step by vmap: 387 runs of 30 epochs,
days on a CPU.
Published, test accuracy in % at kept weights, read off the figures (1 to 2 points either way); 2-layer networks
have 1,991,420 source weights (wide: 2508 hidden units), 4-layer networks 4,496,420 (wide: 1314):

| layers (dense)  | structure-linear               | structure-relu                  | wide                            |
|-----------------|--------------------------------|---------------------------------|---------------------------------|
| 2 (397K: 98.5)  | 500K 97.5; 200K 96; 100K 89;   | 1M 96.5; 500K 93; 200K 79;      | 500K 98; 200K 97.5; 100K 96;    |
|                 | 50K 74; 20K 39                 | 100K 57; 50K 29                 | 50K 91; 20K 86                  |
| 4 (897K: 98.8)  | 1.12M 98; 450K 97.5; 225K 94;  | 1.12M 96; 450K 82; 225K 44      | 450K 98.5; 225K 98; 112K 96.5;  |
|                 | 112K 73                        |                                 | 45K 88                          |

All curves fall to chance as the kept fraction goes to 1. The figure of LeNet-5 was not read off. Published setting:
batch 64, SGD 0.1 with momentum 0.9, weight decay 5e-4 on the scores, cosine, 30 to 150 epochs, top-k per tensor,
weights N(0, 2) and N(0, 2 / inputs). Dense networks are trained by the same SGD without weight decay. No biases.
Differences: `--weights unit` scales the layers to unit outputs for each kept fraction; the paper does not.
"""

import dataclasses
import itertools
import time
from typing import Literal

from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.comparison.evaluate import accuracy, wilson_interval
from lottery_jax.data import load
from lottery_jax.errors import InputError, suggest
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.learner_sources import plain_source, redundant_source, wide_source
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.training.learner import Learner, TrainingRequest

ARCHITECTURES = ("fc2", "fc4", "lenet5")
NETWORKS = ("structure-linear", "structure-relu", "wide", "dense")
KEEPS = (1, 0.99, 0.98, 0.975, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.025, 0.02, 0.01)
FEW = (0.5, 0.1, 0.05)
"""Kept fractions of a reduced run."""


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Edge-popup on redundant structure, a wide network of equal size, and the dense one, 30 epochs and three seeds."""

    scale: float = 0.06
    """Fraction of the published epochs, seeds, training examples and architectures, at least one of each."""
    architectures: tuple[str, ...] = ()
    """Architectures of the target: fc2, fc4, lenet5, mlp-A-B-... Default: this fraction of the first three."""
    networks: tuple[str, ...] = NETWORKS
    """Networks to train: structure-linear, structure-relu, wide, dense."""
    keeps: tuple[float, ...] = ()
    """Kept fractions of each tensor. Default: 14 from 1 to 0.01; below scale 1: 0.5, 0.1, 0.05."""
    seeds: tuple[int, ...] = ()
    """Seeds of source, scores and order of examples. Default: this fraction of 0, 1, 2."""
    copies: int = 5
    """Hidden units per input of a gadget."""
    weights: Literal["drawn", "unit"] = "drawn"
    """Scale of the random weights: as drawn, or unit outputs of each layer for each kept fraction."""
    data: str = "mnist"
    """Data set."""
    runs_per_step: int | None = None
    """Runs that share a step by vmap. Default: all on an accelerator, one on a CPU."""


def sources(target: Network, copies: int) -> dict[str, Network]:
    """The networks to train, by name."""
    relu = redundant_source(target, copies=copies)
    linear = redundant_source(target, copies=copies, relu=False)
    return dict(zip(NETWORKS, (linear, relu, wide_source(relu), target), strict=True))


def run(settings: Settings, rows: Results) -> None:
    """Train every network, all its seeds and kept fractions in one program; one row per run."""
    for network in settings.networks:
        if network not in NETWORKS:
            raise InputError(f"the network {network!r} is unknown; {suggest(network, NETWORKS)}")
    whole, epochs = load(settings.data, data_dir=settings.data_dir), settings.part(30)
    dataset, given = whole.first(settings.part(len(whole.train))), Spec(whole.shape, whole.nonnegative)
    keeps = settings.keeps or (KEEPS if settings.scale == 1 else FEW)
    seeds = settings.seeds or range(settings.part(3))
    popup = EdgePopup(scale=settings.weights, runs_per_step=settings.runs_per_step)
    sgd = Magnitude(
        batch_size=64, optimizer="sgd", learning_rate=0.1, schedule="cosine", runs_per_step=settings.runs_per_step
    )

    def one(task: tuple[str, str]) -> None:
        name, network = task
        # Masks have no bias entries, so the target has no biases.
        target = plain_source(architecture(name, given, dataset.classes)).target
        learner: Learner = sgd if network == "dense" else popup
        start = time.perf_counter()
        tickets = learner.learn(
            sources(target, settings.copies)[network],
            TrainingRequest(
                dataset,
                seeds=seeds,
                keeps=[1.0] if network == "dense" else keeps,
                epochs=epochs,
                checkpoints=rows.checkpoints,
            ),
        )
        seconds = time.perf_counter() - start
        for ticket in tickets:
            correct = accuracy(ticket.forward(), dataset.test)
            low, high = wilson_interval(round(correct * len(dataset.test)), len(dataset.test))
            rows.keep(
                architecture=name,
                network=network,
                data=dataset.name,
                seed=ticket.seed,
                keep=ticket.header.settings["keep"],
                source_weights=ticket.network.source_weights,
                kept_weights=ticket.kept_weights,
                accuracy=correct,
                accuracy_low=low,
                accuracy_high=high,
                loss=ticket.header.settings["loss"],
                weights="trained" if network == "dense" else settings.weights,
                epochs=epochs,
                examples=len(dataset.train),
                scale=settings.scale,
                seconds_of_all_runs=seconds,
            )

    names = settings.architectures or ARCHITECTURES[: settings.part(len(ARCHITECTURES))]
    rows.each("networks", list(itertools.product(names, settings.networks)), one, splits=True)


def show(rows: Results, console: Console) -> None:
    """The rows as a table."""
    one = rows[0]
    title = f"{one['epochs']} epochs (of 30), {one['examples']:,} training examples, at scale {one['scale']:g}"
    names = ("target", "network", "seed", "keep", "kept weights", "accuracy %", "loss")
    table = Table(*names, title=f"{title} of the published run")
    for row in rows:
        table.add_row(
            row["architecture"],
            row["network"],
            str(row["seed"]),
            f"{row['keep']:g}",
            f"{row['kept_weights']:,}",
            f"{100 * row['accuracy']:.2f}",
            f"{row['loss']:.3f}",
        )
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
