"""Zhou et al. 2019 (arXiv 1905.01067), the table of supermasks, first row: a fully connected network on MNIST.

How accurate is a random network under a mask alone? Masks come from a trained network (large final weights with an
unchanged sign; initial weights or signed constants) or are learned as probabilities (the same two, also with dynamic
weight rescaling); the trained network is the comparison. Each ticket is rebuilt from seed and bits before it is
evaluated, the trained network from its stored weights, because it is not a strong ticket. Measured: test accuracy.

Command: python experiments/zhou_supermasks.py --data-dir FOLDER [--scale 1] [--out FILE]
Cost: at the default scale about a minute on two CPU cores (3 epochs, one seed). --scale 1 is 55 epochs, five seeds.
Published, accuracy in %, 784-300-100-10: same sign 79.3, its signed constant 86.3; learned 95.3, signed constant 96.4;
with rescaling 97.8, signed constant 98.0; trained 97.7.
"""

import dataclasses
import itertools
import time

from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import load
from lottery_jax.errors import InputError, suggest
from lottery_jax.mask_learning.learner_sources import plain_source
from lottery_jax.mask_learning.supermask import RescaledSupermask, Supermask
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.magnitude import Magnitude, MagnitudeSupermask
from lottery_jax.training.learner import Learner, TrainingRequest

INIT, CONSTANT = "xavier-normal", "signed-constant"
ROWS: dict[str, tuple[Learner, float | None, float]] = {
    "same sign, initial weights": (MagnitudeSupermask(mask_1_action="rewind", same_sign=False), 0.5, 79.3),
    "same sign, signed constant": (MagnitudeSupermask(), 0.5, 86.3),
    "learned, initial weights": (Supermask(init=INIT, batch_size=60), None, 95.3),
    "learned, signed constant": (Supermask(init=CONSTANT, batch_size=60), None, 96.4),
    "rescaled, initial weights": (RescaledSupermask(init=INIT, batch_size=60), None, 97.8),
    "rescaled, signed constant": (RescaledSupermask(init=CONSTANT, batch_size=60), None, 98.0),
    "trained": (Magnitude(), 1.0, 97.7),
}
"""Learner, requested kept fraction, and published accuracy in %."""


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Accuracy of random networks under masks alone, 55 epochs and five seeds."""

    scale: float = 0.055
    """Fraction of the published epochs and seeds, at least one of each."""
    same_sign_keeps: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65)
    """Kept fractions of masks from the trained network; the best on the validation split counts."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Rows of the table."""
    data: str = "mnist"
    """Data set."""


def run(settings: Settings, rows: Results) -> None:
    """Every row and seed. The validation split selects the kept fraction; the test split is used once."""
    for name in settings.rows:
        if name not in ROWS:
            raise InputError(f"the row {name!r} is unknown; {suggest(name, ROWS)}")
    epochs, seeds = settings.part(55), range(settings.part(5))
    dataset = load(settings.data, data_dir=settings.data_dir)
    target = architecture("lenet-300-100", Spec(dataset.shape, dataset.nonnegative), dataset.classes)
    source = plain_source(target)

    def one(task: tuple[str, int]) -> None:
        label, seed = task
        learner, keep, published = ROWS[label]
        taken = isinstance(learner, MagnitudeSupermask)
        keeps = settings.same_sign_keeps if taken else () if keep is None else (keep,)
        # Only trained networks have biases; masks have no bias entries.
        given = target if isinstance(learner, Magnitude) and not taken else source
        start = time.perf_counter()
        tickets = learner.learn(
            given, TrainingRequest(dataset, seeds=[seed], keeps=keeps, epochs=epochs, checkpoints=rows.checkpoints)
        )
        seconds = time.perf_counter() - start
        best = max(tickets, key=lambda ticket: accuracy(ticket.forward(), dataset.validation))
        rows.keep(
            row=label,
            data=dataset.name,
            seed=seed,
            epochs=epochs,
            scale=settings.scale,
            published=published,
            accuracy=accuracy(best.forward(), dataset.test),
            kept=best.kept_weights / source.source_weights,
            seconds=seconds,
        )

    rows.each("rows and seeds", list(itertools.product(settings.rows, seeds)), one, splits=True)


def show(rows: Results, console: Console) -> None:
    """The rows as a table."""
    title = f"{rows[0]['epochs']} epochs, at scale {rows[0]['scale']:g} of the published run"
    table = Table("mask and weights", "seed", "kept %", "accuracy %", "published %", "s", title=title)
    for row in rows:
        numbers = (f"{100 * row['kept']:.1f}", f"{100 * row['accuracy']:.2f}", f"{row['published']:.1f}")
        table.add_row(row["row"], str(row["seed"]), *numbers, f"{row['seconds']:.0f}")
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
