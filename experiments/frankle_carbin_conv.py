"""Frankle and Carbin 2019 (arXiv 1803.03635), Figure 5: Conv-2, Conv-4 and Conv-6 on CIFAR-10, pruned and rewound.

Do pruned convolutional networks, rewound to their first weights, train faster and better than dense ones, and do the
same masks with other random weights? A round prunes a fifth of dense layers, a tenth of the output layer, and of
convolutions a tenth (Conv-2 and Conv-4) or 15 % (Conv-6). Measured for each mask, with the first weights and with new
ones: test accuracy at the end, and at the epoch of least validation loss (early stopping).

Command: python experiments/frankle_carbin_conv.py --data-dir FOLDER [--scale 1] [--out FILE]
Cost: at the default scale about a minute on two CPU cores (Conv-2, 2 epochs, one seed, two kept fractions, 2,812
training examples, an eighth of the width). --scale 1 is for a GPU: 27, 34 and 40 epochs, five seeds, eight kept
fractions, all examples, the full width and up to 18 rounds.
Published: the best test accuracies, 3.4, 3.5 and 3.3 points above the dense networks, at 4.6, 11.1 and 26.4 % kept.
Early stopping 3.5, 3.5 and 2.5 times sooner at 8.8, 9.2 and 15.1 %. With new weights accuracy falls from the start.
Differences: the paper evaluates the validation loss every 100 steps, this script after each epoch.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import Dataset, load
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.forward import forward
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.base import initial_tensors, random_network
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.pruning.retraining import InitialState
from lottery_jax.training.learner import TrainingRequest

NETWORKS = {
    "conv2": (27, 2e-4, 0.046, 0.088, 0.5),
    "conv4": (34, 3e-4, 0.111, 0.092, 0.5),
    "conv6": (40, 3e-4, 0.264, 0.151, 0.75),
}
"""Epochs, learning rate of Adam, kept fractions of the published best accuracy and speed, and the pruning rate of
convolutions as a fraction of that of dense layers."""
CURVE = (0.512, 0.262, 0.134, 0.069, 0.035, 0.018)
"""Other kept fractions, after 3, 6, 9, ... rounds."""
NEW = 10_000  # added to the seed for new first weights


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Pruned and dense convolutional networks, with the first weights and with new ones, five seeds."""

    scale: float = 0.0625
    """Fraction of the published epochs, seeds, kept fractions, rounds and examples, at least one of each. The width is
    twice this fraction, at most 1. Below 1, batches have a quarter of the published size, for more steps."""
    networks: tuple[Literal["conv2", "conv4", "conv6"], ...] = ()
    """Networks. Default: this fraction of conv2, conv4, conv6, at least one."""
    data: str = "cifar10"
    """Data set."""

    @property
    def width(self) -> float:
        """The factor of all hidden widths."""
        return min(1.0, 2 * self.scale)

    @property
    def batch_size(self) -> int:
        """Batch size."""
        return 60 if self.scale == 1 else 15


def run(settings: Settings, rows: Results) -> None:
    """Every network, kept fraction and seed. The validation split selects the epoch; the test split is used once."""
    whole = load(settings.data, data_dir=settings.data_dir)
    dataset, given = whole.first(settings.part(len(whole.train))), Spec(whole.shape, whole.nonnegative)
    tasks = []
    for network in settings.networks or list(NETWORKS)[: settings.part(len(NETWORKS))]:
        _, _, best, fastest, _ = NETWORKS[network]
        keeps = (CURVE[0], best, fastest, *CURVE[1:])
        keeps = keeps[: max(2, settings.part(len(keeps)))]
        tasks += [(network, seed, keep) for seed in range(settings.part(5)) for keep in (1.0, *keeps)]

    def one(task: tuple[str, int, float]) -> None:
        network, seed, keep = task
        published, rate, _, _, slower = NETWORKS[network]
        epochs = settings.part(published)
        target = architecture(network, given, dataset.classes, width=settings.width)
        rounds = max(2, round(settings.scale * math.log(keep) / math.log(0.8))) if keep < 1 else 0
        numbers = {"learning_rate": rate, "batch_size": settings.batch_size}
        learner = Magnitude(**numbers, rounds=max(1, rounds), convolution_rate=slower, retrain=False)
        # The learner finds masks; `trained` trains them, with the first weights and with new ones.
        (ticket,) = learner.learn(
            target, TrainingRequest(dataset, seeds=[seed], keeps=[keep], epochs=epochs, checkpoints=rows.checkpoints)
        )
        weights = {"dense": seed} if keep == 1 else {"rewound": seed, "new weights": seed + NEW}
        for method, first in weights.items():
            start = time.perf_counter()
            found = trained(learner, target, ticket.masks, seed, first, dataset, epochs)
            rows.keep(
                network=network,
                method=method,
                data=dataset.name,
                seed=seed,
                keep=keep,
                kept_weights=ticket.kept_weights,
                rounds=rounds,
                **found,
                epochs=epochs,
                published_epochs=published,
                examples=len(dataset.train),
                batch_size=settings.batch_size,
                width=settings.width,
                scale=settings.scale,
                seconds=time.perf_counter() - start,
            )

    rows.each("networks, seeds and kept fractions", tasks, one)


def trained(
    learner: Magnitude,
    target: Network,
    masks: Mapping[str, np.ndarray],
    seed: int,
    first: int,
    dataset: Dataset,
    epochs: int,
) -> dict[str, Any]:
    """Accuracies at the end and at early stopping; ``seed`` orders the examples, ``first`` draws the weights."""
    drawn = initial_tensors(random_network(target, trained=True), first)
    begun = drawn | {name: np.where(mask, drawn[name], np.float32(0)) for name, mask in masks.items()}
    training = learner.training(target, 1)

    def until(epoch: int) -> tuple[float, np.ndarray]:
        (finish,) = training.runs([InitialState(seed, begun, dict(masks), learner.hyperparameters)], dataset, epoch)
        if finish is None:
            return math.nan, np.zeros(1)
        return accuracy(forward(target, finish.tensors), dataset.test), finish.by_epoch["validation_loss"]

    at_end, losses = until(epochs)
    early = 1 + int(np.argmin(losses))
    # Weights of earlier epochs are not stored, so the network is trained again up to that epoch.
    at_stop = at_end if early == epochs else until(early)[0]
    return {"accuracy": at_end, "early_stop_epoch": early, "early_stop_accuracy": at_stop}


def show(rows: Results, console: Console) -> None:
    """Means over seeds as a table."""
    one = rows[0]
    title = f"{one['examples']:,} training examples in batches of {one['batch_size']} (of 60), width x{one['width']:g}"
    names = ("network", "epochs (of)", "method", "kept %", "kept weights", "rounds", "accuracy %", "early stop %")
    table = Table(*names, "epoch", "seeds", title=f"{title}, at scale {one['scale']:g} of the published run")
    for network, keep, method in dict.fromkeys((row["network"], row["keep"], row["method"]) for row in rows):
        own = [row for row in rows if (row["network"], row["keep"], row["method"]) == (network, keep, method)]
        keys = ("accuracy", "early_stop_accuracy", "early_stop_epoch")
        end, stop, epoch = (statistics.fmean(row[key] for row in own) for key in keys)
        table.add_row(
            *(network, f"{own[0]['epochs']} ({own[0]['published_epochs']})", method, f"{100 * keep:g}"),
            *(f"{own[0]['kept_weights']:,}", str(own[0]["rounds"]), f"{100 * end:.2f}", f"{100 * stop:.2f}"),
            *(f"{epoch:g}", str(len(own))),
        )
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
