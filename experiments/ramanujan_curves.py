"""Ramanujan et al. 2020 (arXiv 1911.13299), Figures 3 to 5: edge-popup on Conv-2, 4, 6 and 8, CIFAR-10.

How accurate is the best subnetwork of a random convolutional network, by kept fraction, by width, and by the
distribution of the weights, compared with the trained network? A score per frozen weight is trained, and the top scores
of each layer are kept. Weights are Kaiming-normal or signed constants, scaled by sqrt(1 / kept fraction) or as drawn.
Measured: test accuracy.

Command: python experiments/ramanujan_curves.py --data-dir FOLDER [--scale 1] [--out FILE]
Cost: at the default scale 3 minutes on two CPU cores (Conv-2, 4 epochs, one seed, 1,800 training examples, an eighth of
the width). --scale 1 is for a GPU: 100 epochs, five seeds, nine kept fractions, four networks, four widths and
distributions, all examples and the full width.
Published, as curves, best accuracies in % on Conv-2, 4, 6 and 8: 77.5, 86, 88, 88.5 (trained: 79.5, 86.5, 88.5, 88), at
30 to 70 % kept. Wider random networks reach trained ones; signed constants are better than normal weights.
Differences: images are not normalised; the paper does not give the number of seeds.
"""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Literal, TypeVar

from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import load
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.learner_sources import plain_source
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.training.learner import Learner, TrainingRequest

PUBLISHED = {"conv2": (77.5, 79.5), "conv4": (86.0, 86.5), "conv6": (88.0, 88.5), "conv8": (88.5, 88.0)}
"""Best accuracies of edge-popup and of the trained network in %, read off curves."""
KEEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WIDTHS = (2.0, 1.5, 0.5)
"""Other widths, at kept fraction 0.5."""
Weights = tuple[str, Literal["keep", "drawn"]]
BEST: Weights = ("signed-constant", "keep")
WEIGHTS: tuple[Weights, ...] = (
    BEST,
    ("kaiming-normal", "drawn"),
    ("kaiming-normal", "keep"),
    ("signed-constant", "drawn"),
)
"""Distributions of the random weights, and their scaling."""

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Edge-popup by kept fraction, width and distribution of the weights, 100 epochs and five seeds."""

    scale: float = 0.04
    """Fraction of the epochs, seeds, examples and widths, at least one of each, and of kept fractions and
    distributions, at least 3 and 2. All widths have three times this factor, at most 1. Below 1, batches have 8
    examples, for more steps."""
    networks: tuple[Literal["conv2", "conv4", "conv6", "conv8"], ...] = ()
    """Networks. Default: this fraction of conv2, conv4, conv6, conv8, at least one."""
    data: str = "cifar10"
    """Data set."""

    @property
    def narrow(self) -> float:
        """The factor of all hidden widths."""
        return min(1.0, 3 * self.scale)

    def spread(self, values: Sequence[Value], least: int) -> list[Value]:
        """This fraction of the values, at least ``least``, from the first to the last."""
        count = max(least, self.part(len(values)))
        return [values[place * (len(values) - 1) // max(1, count - 1)] for place in range(count)]


def run(settings: Settings, rows: Results) -> None:
    """Every network, width, distribution, kept fraction and seed. Nothing is selected; the test split is used once."""
    whole, epochs = load(settings.data, data_dir=settings.data_dir), settings.part(100)
    dataset, given = whole.first(settings.part(len(whole.train))), Spec(whole.shape, whole.nonnegative)
    seeds, keeps = range(settings.part(5)), settings.spread(KEEPS, 3)
    size = 128 if settings.scale == 1 else 8
    popup = {"batch_size": size, "learning_rate": 0.1, "weight_decay": 1e-4, "augment": "crop-flip"}
    # The learning rate of the paper's trained networks; 0.1 is for scores.
    sgd = {**popup, "optimizer": "sgd", "learning_rate": 0.01, "schedule": "cosine"}
    tasks: list[tuple[str, float, str, Learner, Sequence[float]]] = []
    for network in settings.networks or list(PUBLISHED)[: settings.part(len(PUBLISHED))]:
        for init, scaled in WEIGHTS[: max(2, settings.part(len(WEIGHTS)))]:
            name = f"{init}, {'scaled' if scaled == 'keep' else 'as drawn'}"
            tasks.append((network, 1.0, name, EdgePopup(init=init, scale=scaled, **popup), keeps))
        for width in settings.spread(WIDTHS, 1):
            learner = EdgePopup(init=BEST[0], scale="keep", **popup)
            tasks.append((network, width, f"{BEST[0]}, scaled", learner, [0.5]))
        tasks += [(network, width, "trained", Magnitude(**sgd), [1.0]) for width in (1.0, *settings.spread(WIDTHS, 1))]

    def one(task: tuple[str, float, str, Learner, Sequence[float]]) -> None:
        network, width, weights, learner, kept = task
        start = time.perf_counter()
        # The published width times the factor of this scale.
        factor = width * settings.narrow
        target = architecture(network, given, dataset.classes, width=factor)
        source = plain_source(target) if isinstance(learner, EdgePopup) else target
        tickets = learner.learn(
            source, TrainingRequest(dataset, seeds=seeds, keeps=kept, epochs=epochs, checkpoints=rows.checkpoints)
        )
        for ticket in tickets:
            rows.keep(
                network=network,
                weights=weights,
                data=dataset.name,
                seed=ticket.seed,
                keep=ticket.header.settings["keep"],
                kept_weights=ticket.kept_weights,
                accuracy=accuracy(ticket.forward(), dataset.test),
                epochs=epochs,
                examples=len(dataset.train),
                batch_size=size,
                width=width,
                built_width=factor,
                scale=settings.scale,
                published_best=PUBLISHED[network][isinstance(learner, Magnitude)] if width == 1 else None,
                seconds_of_all_runs=time.perf_counter() - start,
            )

    rows.each("networks", tasks, one, splits=True)


def show(rows: Results, console: Console) -> None:
    """Means over seeds as a table."""
    one = rows[0]
    narrow = one["built_width"] / one["width"]
    trained_on = f"{one['examples']:,} training examples in batches of {one['batch_size']} (of 128)"
    title = f"{one['epochs']} epochs (of 100), {trained_on}"
    names = ("network", "weights", "width", "kept %", "kept weights", "accuracy %", "published %", "seeds")
    table = Table(*names, title=f"{title}, all widths x{narrow:g}, at scale {one['scale']:g} of the published run")
    kinds = ("network", "weights", "width", "keep")
    for kind in dict.fromkeys(tuple(row[key] for key in kinds) for row in rows):
        own = [row for row in rows if tuple(row[key] for key in kinds) == kind]
        network, weights, width, keep = kind
        mean, best = statistics.fmean(row["accuracy"] for row in own), own[0]["published_best"]
        table.add_row(
            *(network, weights, f"{width:g}", f"{100 * keep:g}", f"{own[0]['kept_weights']:,}", f"{100 * mean:.2f}"),
            *("" if best is None else f"{best:g}", str(len(own))),
        )
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
