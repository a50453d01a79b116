"""How many tickets would you need to buy? Small random networks instead of the pruning of a large one.

A random network of the size of a ticket is drawn many times. Measured: the number of draws until one is as accurate on
the training examples as a mask of a larger random network that keeps as many weights, found by edge-popup. It is
counted up to the number of draws. Beyond that it is extrapolated in two ways that see no better networks: the
exponential tail through the best thousandth, and the normal distribution of the logits of all accuracies. The two
differ by many powers of ten, which is the uncertainty of the answer.

Command: python experiments/tickets_to_buy.py [--scale 1] [--out FILE]
Cost: two minutes on two CPU cores; --scale is the fraction of 2**18 draws per size, and of 60 epochs of edge-popup.
Published: nothing that we know of; the question is the name that Frankle and Carbin 2019 gave their hypothesis.
"""

import dataclasses
import functools
import math
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import load
from lottery_jax.errors import InputError
from lottery_jax.io.files import png_bytes, write_atomically
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.learner_sources import plain_source
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.training.learner import TrainingRequest

HIDDEN = (1, 2, 4, 8, 16)
DRAWS, EPOCHS, WIDE = 1 << 18, 60, 256
BATCH = 256  # networks at a time
TAIL = 1000  # one draw in TAIL is in the extrapolated tail


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Random networks of a ticket's size, drawn until one is as accurate as the ticket."""

    seeds: int = 3
    """Tickets of each size."""

    def check(self) -> None:
        super().check()
        if self.part(DRAWS) < 10 * TAIL:
            raise InputError(f"scale must be at least {10 * TAIL / DRAWS:.2g} for {10 * TAIL} draws, got {self.scale}")


def run(settings: Settings, rows: Results) -> None:
    """The accuracies of random networks and of tickets on the training examples, for each size."""
    data = load("digits")
    given = Spec(data.shape, data.nonnegative)
    images = jnp.asarray(data.train.images).reshape(len(data.train), -1)
    labels = jnp.asarray(data.train.labels)
    sizes = [hidden * (images.shape[1] + data.classes) for hidden in HIDDEN]
    source = plain_source(architecture(f"mlp-{WIDE}", given, data.classes))
    tickets = EdgePopup().learn(
        source,
        TrainingRequest(
            data,
            seeds=range(settings.seeds),
            keeps=[size / source.source_weights for size in sizes],
            epochs=settings.part(EPOCHS),
        ),
    )

    def one(task: tuple[int, int]) -> None:
        hidden, size = task
        own = [ticket for ticket in tickets if abs(ticket.kept_weights - size) <= 1]
        found = [accuracy(ticket.forward(), data.train) for ticket in own]
        batches = math.ceil(settings.part(DRAWS) / BATCH)
        drawn = np.sort(np.asarray(_accuracies(hidden, data.classes, batches, images, labels), float).reshape(-1))
        rows.keep(
            weights=size,
            hidden=hidden,
            kept_weights=own[0].kept_weights,
            source_weights=source.source_weights,
            ticket_accuracy=found,
            ticket_test_accuracy=[accuracy(ticket.forward(), data.test) for ticket in own],
            draws=len(drawn),
            scale=settings.scale,
            best_of={str(n): _best_of(drawn, n) for n in _powers(len(drawn) // 10)},
            **_draws_needed(drawn, statistics.fmean(found), len(labels)),
        )

    rows.each("sizes", list(zip(HIDDEN, sizes, strict=True)), one)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _accuracies(hidden: int, classes: int, batches: int, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Accuracies of random networks of one hidden layer, float32 [batches, BATCH]."""

    def batch(number: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(hidden), number))
        first = jax.random.normal(keys[0], (BATCH * hidden, images.shape[1]))
        second = jax.random.normal(keys[1], (BATCH, classes, hidden))
        # The scale of the weights changes no prediction of a network without biases.
        inside = jax.nn.relu(first @ images.T).reshape(BATCH, hidden, -1)
        return ((second @ inside).argmax(1) == labels).mean(1, dtype=jnp.float32)

    return jax.lax.map(batch, jnp.arange(batches))


def _powers(most: int) -> list[int]:
    return [10**power for power in range(int(math.log10(most)) + 1)]


def _best_of(drawn: np.ndarray, count: int) -> float:
    """The expected best of `count` draws from accuracies in ascending order."""
    chance = (np.arange(len(drawn) + 1) / len(drawn)) ** count
    return float(drawn @ np.diff(chance))


def _draws_needed(drawn: np.ndarray, wanted: float, examples: int) -> dict[str, Any]:
    """log10 of the expected draws until one has the ticket's accuracy: counted if possible, and extrapolated."""
    as_good = int(np.count_nonzero(drawn >= wanted))
    start = drawn[-len(drawn) // TAIL]
    tail = drawn[drawn > start]
    scale = float(np.mean(tail - start)) or 1 / examples
    beyond = math.log10(len(drawn) / len(tail)) + (wanted - start) / scale / math.log(10)
    exponential = beyond if wanted > start else None
    bounded = np.clip(drawn, 0.5 / examples, 1 - 0.5 / examples)
    logits = np.log(bounded / (1 - bounded))
    away = (math.log(wanted / (1 - wanted)) - logits.mean()) / logits.std()
    normal = -_log10_tail(float(away))
    counted = None if as_good < 10 else math.log10(len(drawn) / as_good)
    return {"as_good": as_good, "log10_counted": counted, "log10_exponential": exponential, "log10_normal": normal}


def _log10_tail(away: float) -> float:
    """log10 of the chance that a standard normal number is larger; by Mills' ratio where float64 underflows."""
    if away < 30:
        return math.log10(math.erfc(away / math.sqrt(2)) / 2)
    return -(away**2 / 2 + math.log(away * math.sqrt(2 * math.pi))) / math.log(10)


def show(rows: Results, console: Console) -> None:
    """The table and the figure."""
    most = max(int(count) for count in rows[0]["best_of"])
    title = f"{rows[0]['draws']:,} draws of each size, accuracy on the training examples"
    names = (
        "weights",
        "ticket %",
        f"best of {most:,} %",
        "as good as the ticket",
        "draws: counted",
        "exponential",
        "normal",
    )
    table = Table(*names, title=title)
    for row in rows:
        table.add_row(
            f"{row['weights']:,}",
            f"{100 * statistics.fmean(row['ticket_accuracy']):.1f}",
            f"{100 * row['best_of'][str(most)]:.1f}",
            f"{row['as_good']:,}",
            *(_power(row[key]) for key in ("log10_counted", "log10_exponential", "log10_normal")),
        )
    console.print(table)
    write_atomically(rows.path.with_suffix(".png"), _figure(rows))


def _power(exponent: float | None) -> str:
    return "-" if exponent is None else f"10^{exponent:.1f}"


def _figure(rows: Results) -> bytes:
    """Left: the best of n draws, and the ticket as a line; right: draws needed against weights."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9, 3.9), dpi=90, layout="constrained")
    left, right = drawing.subplots(1, 2)
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
    for row, colour in zip(rows, colours, strict=False):
        counts = [int(count) for count in row["best_of"]]
        left.semilogx(counts, [100 * best for best in row["best_of"].values()], "o-", color=colour, markersize=3)
        ticket = 100 * statistics.fmean(row["ticket_accuracy"])
        left.axhline(ticket, color=colour, linestyle="--", linewidth=1, label=f"{row['weights']:,} weights")
    left.set(xlabel="draws", ylabel="accuracy % (training)", title="best of n draws (dashed: a ticket)")
    # Below: a ticket may be as accurate as any place within the axes.
    handles = left.get_legend_handles_labels()
    drawing.legend(*handles, loc="outside lower left", ncols=len(rows), frameon=False, fontsize="small")
    for key, mark, colour in (
        ("log10_normal", "s--", "#D55E00"),
        ("log10_exponential", "o--", "#0072B2"),
        ("log10_counted", "*", "black"),
    ):
        known = [(row["weights"], row[key]) for row in rows if row[key] is not None]
        right.plot(*zip(*known, strict=True), mark, color=colour, label=key.removeprefix("log10_"), markersize=5)
    right.axhline(math.log10(rows[0]["draws"]), color="#888888", linewidth=1, label="draws made")
    right.set(xscale="log", xlabel="weights", ylabel="log10 of draws", title="draws until one is as good")
    right.legend(frameon=False, fontsize="small")
    return png_bytes(drawing)


if __name__ == "__main__":
    run_script(Settings, run, show)
