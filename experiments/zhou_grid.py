"""Zhou et al. 2019 (arXiv 1905.01067): which parts of a lottery ticket matter, on MNIST, a fully connected network.

A ticket is a mask criterion (which weights are kept), an action on kept weights (rewound, redrawn, shuffled, constant;
with or without their signs) and an action on pruned ones (zero, frozen at their first values, or frozen only if they
moved away from zero). Each cell of the grid prunes once and trains again. Measured: its test accuracy, and that of each
mask on untrained weights, rewound or constant. Dense networks are trained once for all cells.

Command: python experiments/zhou_grid.py --data-dir FOLDER [--full] [--scale 1] [--out FILE]
Cost: at the default scale a minute and a half on two CPU cores: 1 epoch, one seed, cells that differ in one thing from
the default ticket (large_final, rewind, zero). --full --scale 1 is all 273 cells, 55 epochs, five seeds.
Published, as curves: criteria that keep large final weights are best (large_final, magnitude_increase). Kept weights
that lose their signs fail, and with their signs do nearly as well as rewound ones. Freezing pruned weights at their
first values is worse than zero; freezing those that moved away from zero is as good or better. Untrained, a mask of
large final weights is far better than chance, most of all with same signs: 79.3 %, constant 86.3 %.
"""

import dataclasses
import itertools
import time

from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import load
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.pruning.criteria import CRITERIA
from lottery_jax.pruning.magnitude import Magnitude
from lottery_jax.training.learner import TrainingRequest

KEPT: dict[str, dict] = {
    "rewind": {},
    **{kind: {"mask_1_action": kind} for kind in ("reinit", "reshuffle", "constant")},
    **{f"{k}, same sign": {"mask_1_action": k, "same_sign": True} for k in ("reinit", "reshuffle", "constant")},
}
"""Actions on kept weights, as options of `Magnitude`."""
PRUNED = ("zero", "freeze", "movement")
UNTRAINED = ("rewind", "constant, same sign")
DEFAULT = ("large_final", "rewind", "zero")


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Criteria, and actions on kept and pruned weights, 55 epochs and five seeds."""

    scale: float = 0.02
    """Fraction of the published epochs and seeds, at least one of each."""
    criteria: tuple[str, ...] = tuple(CRITERIA)
    """Mask criteria of `lottery_jax.pruning.CRITERIA`."""
    keeps: tuple[float, ...] = (0.2, 0.05)
    """Kept fractions."""
    full: bool = False
    """Every combination. Default: those that differ from large_final, rewind, zero in one thing."""
    data: str = "mnist"
    """Data set."""


def cells(settings: Settings) -> list[tuple[bool, str, str, str]]:
    """Whether the ticket is trained, criterion, action on kept weights, action on pruned weights."""
    trained = itertools.product((True,), settings.criteria, KEPT, PRUNED)
    untrained = itertools.product((False,), settings.criteria, UNTRAINED, PRUNED if settings.full else PRUNED[:1])
    near = (cell for cell in trained if settings.full or sum(map(str.__ne__, cell[1:], DEFAULT)) <= 1)
    return [*near, *untrained]


def run(settings: Settings, rows: Results) -> None:
    """Every cell, kept fraction and seed on the test split, because nothing is selected."""
    epochs, seeds = settings.part(55), range(settings.part(5))
    dataset = load(settings.data, data_dir=settings.data_dir)
    target = architecture("lenet-300-100", Spec(dataset.shape, dataset.nonnegative), dataset.classes)

    def one(cell: tuple[bool, str, str, str]) -> None:
        trained, criterion, kept, pruned = cell
        learner = Magnitude(criterion=criterion, mask_0_action=pruned, retrain=trained, **KEPT[kept])  # type: ignore[arg-type]
        start = time.perf_counter()
        tickets = learner.learn(
            target,
            TrainingRequest(dataset, seeds=seeds, keeps=settings.keeps, epochs=epochs, checkpoints=rows.checkpoints),
        )
        seconds = (time.perf_counter() - start) / len(tickets)
        for ticket in tickets:
            rows.keep(
                criterion=criterion,
                kept_weights=kept,
                pruned_weights=pruned,
                trained=trained,
                keep=ticket.header.settings["keep"],
                data=dataset.name,
                seed=ticket.seed,
                epochs=epochs,
                scale=settings.scale,
                full=settings.full,
                accuracy=accuracy(ticket.forward(), dataset.test),
                seconds=seconds,
            )

    rows.each("cells", cells(settings), one, splits=True)


def show(rows: Results, console: Console) -> None:
    """The rows as a table, one column per kept fraction."""
    part = "the whole grid" if rows[0]["full"] else "a part of the grid"
    scale = f"{rows[0]['epochs']} epochs, at scale {rows[0]['scale']:g} of the published run"
    keeps = sorted({row["keep"] for row in rows}, reverse=True)
    heads = (
        "criterion",
        "kept weights",
        "pruned weights",
        "trained",
        "seed",
        *(f"{100 * keep:g} % kept" for keep in keeps),
    )
    table = Table(*heads, title=f"{scale}; accuracy in %, {part}")
    names = ("criterion", "kept_weights", "pruned_weights", "trained", "seed")
    found = {(*(row[name] for name in names), row["keep"]): f"{100 * row['accuracy']:.2f}" for row in rows}
    for cell in dict.fromkeys(key[:-1] for key in found):
        criterion, kept, pruned, trained, seed = cell
        words = str(criterion).replace("_", " "), str(kept), str(pruned), "yes" if trained else "no", str(seed)
        table.add_row(*words, *(found.get((*cell, keep), "diverged") for keep in keeps))
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
