"""The figure: accuracy, or another metric, against kept weights."""

import statistics
from collections.abc import Sequence

import numpy as np

from lottery_jax.comparison.records import Record
from lottery_jax.comparison.report.summary import Row, rows
from lottery_jax.errors import printable
from lottery_jax.io.files import png_bytes

# Okabe and Ito's palette, told apart by colour-blind readers; markers differ too, for print without colour.
STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#999999", "X"),
)


def figure(records: Sequence[Record], *, dark: bool = False) -> bytes:
    """Accuracy, or another metric, against kept weights (log axis) with the target as a line.

    Bars of an accuracy are 95 % intervals of the test images, bands the minimum and maximum over seeds. Methods with
    trained weights have hollow markers. Returns PNG bytes.
    """
    # Imported here, because only a comparison that is finished needs it.
    from matplotlib.figure import Figure

    ink, paper = ("#dddddd", "#16181d") if dark else ("#222222", "#ffffff")
    drawing = Figure(figsize=(8.0, 4.8), dpi=150, facecolor=paper, layout="constrained")
    axes = drawing.add_subplot(facecolor=paper)
    metric = records[0].metric if records else None
    value, factor = ("metric_value", 1) if metric else ("accuracy", 100)
    # Another metric has no interval.
    low_value, high_value = (value, value) if metric else ("accuracy_low", "accuracy_high")
    methods: dict[str, list[Row]] = {}
    for row in rows(records):
        if row.mean("kept_weights") and row.values(value):
            methods.setdefault(row.method, []).append(row)
    for number, (method, points) in enumerate(methods.items()):
        colour, marker = _style(number)
        line = ("-", "--", "-.", ":")[number // len(STYLES) % 4]
        names = ("kept_weights", value, low_value, high_value)
        kept, accuracy, low, high = (np.array([row.mean(name) or 0.0 for row in points]) for name in names)
        if len(points) > 1:
            seeds = [row.values(value) for row in points]
            worst, best = factor * np.array([[min(each), max(each)] for each in seeds]).T
            axes.fill_between(kept, worst, best, color=colour, alpha=0.18, lw=0)
        axes.errorbar(
            kept,
            factor * accuracy,
            # Clipped at zero: an interval may end at the accuracy itself, and rounding may put the end past it.
            yerr=factor * np.maximum(0.0, [accuracy - low, high - accuracy]),
            color=colour,
            marker=marker,
            markerfacecolor=paper if points[0].records[0].trained else colour,
            linestyle=line if len(points) > 1 else "none",
            markersize=7,
            linewidth=1.6,
            capsize=3,
            label=printable(method),
        )
    if records:
        target = factor * statistics.fmean(getattr(record, f"target_{value}") or 0.0 for record in records)
        weights = records[0].target_weights
        label = (
            f"target, {weights:,} weights: {target:.4g}" if metric else f"target, {weights:,} weights: {target:.2f} %"
        )
        axes.axhline(target, color=ink, linewidth=1.2, linestyle="--", label=label)
        axes.axvline(weights, color=ink, linewidth=0.8, linestyle=":", label="as many weights as the target")
    axes.set_xscale("log")
    axes.set_xlabel("kept weights", color=ink)
    axes.set_ylabel(printable(metric) if metric else "test accuracy, %", color=ink, parse_math=False)
    axes.grid(visible=True, which="major", color=ink, alpha=0.15)
    axes.tick_params(colors=ink, which="both")
    for spine in axes.spines.values():
        spine.set_color(ink)
    if records:
        handles, labels = axes.get_legend_handles_labels()
        # matplotlib lists lines before error bars; here the methods are first.
        order = [*handles[2:], *handles[:2]], [*labels[2:], *labels[:2]]
        legend = drawing.legend(*order, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
        for text in legend.get_texts():
            text.set_color(ink)
            text.set_parse_math(False)  # the name of a method is no formula
    return png_bytes(drawing)


def _style(number: int) -> tuple[str, str]:
    """Colour and marker of a method; repeated colours have other markers."""
    cycle, index = divmod(number, len(STYLES))
    return STYLES[index][0], STYLES[(index + cycle) % len(STYLES)][1]
