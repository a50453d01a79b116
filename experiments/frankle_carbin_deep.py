"""Frankle and Carbin 2019 (arXiv 1803.03635), Figures 7 and 8: VGG-19 and ResNet-18 on CIFAR-10 need a warm-up.

At which learning rates do deep networks, pruned and rewound, beat the same masks with other random weights? At a high
rate, SGD finds tickets only with a warm-up or with rewinding to a later epoch. Weights are pruned globally, a fifth per
round. Measured: test accuracy of rewound networks and of the same masks with new weights.

Command: python experiments/frankle_carbin_deep.py --data-dir FOLDER [--scale 1] [--out FILE]
Cost: at the default scale 4 minutes on two busy CPU cores (ResNet-20 at two rates, 2 epochs, one seed, 1,125 training
examples, a tenth of the width). --scale 1 is for a GPU: 85 and 159 epochs, five seeds, all examples, the full width and
up to 19 rounds.
Published, as curves: at rate 0.1 VGG-19 is no better rewound than with new weights. With a warm-up of 10,000 steps it
is, and as good as the dense network. ResNet-18 at 0.1 has no tickets; at 0.03 with a warm-up of 20,000 steps, 90.5 % at
27.1 % kept. Frankle et al. 2019 (arXiv 1903.01611): rewound to 0.1 to 7 % of the training, tickets exist without a
warm-up; this script rewinds to 5 %.
Differences: the dense output layer is pruned with the others (the paper never prunes it), the rate falls at 1/2 and 3/4
of the training, and VGG-19 has batches of 128 (paper: 64). The ResNet-18 of the paper is resnet20 here.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import Dataset, load
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.forward import forward
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.base import initial_tensors, random_network
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.pruning.retraining import InitialState
from lottery_jax.tasks.task import STATISTICS
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.learner import TrainingRequest

NETWORKS = {"resnet20": (85, 57, (0.271, 0.512, 0.134, 0.08)), "vgg19": (159, 14, (0.069, 0.512, 0.262, 0.015))}
"""Epochs, epochs of the warm-up, and kept fractions."""
RATES = (0.1, 0.01, 0.03)
LATER = 0.05  # fraction of the training that late rewinding returns to
NEW = 10_000  # added to the seed for new first weights


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Deep networks, pruned and rewound: learning rate, warm-up and rewinding to a later epoch, five seeds."""

    scale: float = 0.025
    """Fraction of the published epochs, seeds, examples, rounds, kept fractions, rates and networks, at least two
    epochs and one of each other. The width is four times this fraction, at most 1. Below 1, batches have 16 examples,
    for more steps."""
    networks: tuple[Literal["resnet20", "vgg19"], ...] = ()
    """Networks. Default: this fraction of resnet20 and vgg19, at least one."""
    data: str = "cifar10"
    """Data set."""

    @property
    def width(self) -> float:
        """The factor of all hidden widths."""
        return min(1.0, 4 * self.scale)

    @property
    def batch_size(self) -> int:
        """Batch size."""
        return 128 if self.scale == 1 else 16


def run(settings: Settings, rows: Results) -> None:
    """Every network, rate, warm-up, rewinding, kept fraction and seed; the test split is used once."""
    whole = load(settings.data, data_dir=settings.data_dir)
    dataset, given = whole.first(settings.part(len(whole.train))), Spec(whole.shape, whole.nonnegative)
    normalize = Normalize(*STATISTICS[whole.name]) if whole.name in STATISTICS else None
    rates = RATES[: max(2, settings.part(len(RATES)))]
    tasks = []
    for name in settings.networks or list(NETWORKS)[: settings.part(len(NETWORKS))]:
        published, warming, keeps = NETWORKS[name]
        epochs = max(2, settings.part(published))
        # At least an epoch, so that a reduced run has a warm-up and a late rewinding.
        warmup, later = max(1, round(epochs * warming / published)), max(1, round(epochs * LATER))
        kept = keeps[: settings.part(len(keeps))]
        cases = [(name, keep, *case) for keep in (1.0, *kept) for case in ((0, 0), (warmup, 0), (0, later))]
        # A dense network is never rewound.
        tasks += [case for case in cases if case[1] < 1 or not case[3]]

    def one(task: tuple[str, float, int, int]) -> None:
        name, keep, warm, rewind = task
        published = NETWORKS[name][0]
        epochs = max(2, settings.part(published))
        target = architecture(name, given, dataset.classes, width=settings.width, normalize=normalize)
        rounds = max(1, round(settings.scale * math.log(keep) / math.log(0.8)))
        learner = Magnitude(
            batch_size=settings.batch_size,
            optimizer="sgd",
            weight_decay=1e-4,
            augment="crop-flip",
            schedule="steps",
            warmup=warm,
            scope="global",
            rounds=rounds,
            rewind=rewind,
        )
        start = time.perf_counter()
        tickets = learner.sweep(
            target,
            TrainingRequest(
                dataset, seeds=range(settings.part(5)), keeps=[keep], epochs=epochs, checkpoints=rows.checkpoints
            ),
            {"learning_rate": rates},
        )
        for ticket in tickets:
            rate = ticket.header.settings["learning_rate"]
            own = dataclasses.replace(learner, learning_rate=rate)
            for method, found in measured(own, target, ticket, dataset, epochs):
                rows.keep(
                    network=name,
                    method=method,
                    learning_rate=rate,
                    warmup=warm,
                    rewind=rewind,
                    rounds=rounds,
                    data=dataset.name,
                    seed=ticket.seed,
                    keep=keep,
                    kept_weights=ticket.kept_weights,
                    accuracy=found,
                    epochs=epochs,
                    published_epochs=published,
                    examples=len(dataset.train),
                    batch_size=settings.batch_size,
                    width=settings.width,
                    scale=settings.scale,
                    seconds_of_all_runs=time.perf_counter() - start,
                )

    rows.each("cases", tasks, one)


def measured(
    learner: Magnitude, target: Network, ticket: Ticket, dataset: Dataset, epochs: int
) -> Iterator[tuple[str, float]]:
    """Accuracy of the ticket, and of its masks trained with new weights in the same order of examples."""
    whole = ticket.header.settings["keep"] == 1
    yield "dense" if whole else "rewound", accuracy(ticket.forward(), dataset.test)
    if whole:
        return
    drawn = initial_tensors(random_network(target, trained=True), ticket.seed + NEW)
    begun = drawn | {name: np.where(mask, drawn[name], np.float32(0)) for name, mask in ticket.masks.items()}
    start = InitialState(ticket.seed, begun, ticket.masks, learner.hyperparameters)
    (finish,) = learner.training(target, 1).runs([start], dataset, epochs)
    if finish is not None:
        yield "new weights", accuracy(forward(target, finish.tensors), dataset.test)


def show(rows: Results, console: Console) -> None:
    """Means over seeds as a table."""
    one = rows[0]
    title = f"{one['examples']:,} training examples in batches of {one['batch_size']} (of 128), width x{one['width']:g}"
    names = ("network", "epochs (of)", "rate", "warm-up", "rewound to", "kept %", "rounds", "method", "accuracy %")
    table = Table(*names, "seeds", title=f"{title}, at scale {one['scale']:g} of the published run")
    kinds = ("network", "learning_rate", "warmup", "rewind", "keep", "method")
    for kind in dict.fromkeys(tuple(row[key] for key in kinds) for row in rows):
        own = [row for row in rows if tuple(row[key] for key in kinds) == kind]
        network, rate, warmup, rewind, keep, method = kind
        mean = statistics.fmean(row["accuracy"] for row in own)
        table.add_row(
            *(network, f"{own[0]['epochs']} ({own[0]['published_epochs']})", f"{rate:g}", str(warmup), str(rewind)),
            *(f"{100 * keep:g}", str(own[0]["rounds"]), method, f"{100 * mean:.2f}", str(len(own))),
        )
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
