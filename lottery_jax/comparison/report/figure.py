"""The figure: accuracy against kept weights."""

import statistics
from collections.abc import Sequence

from lottery_jax.comparison.records import Record
from lottery_jax.comparison.report.summary import rows
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
    """Accuracy against kept weights (log axis) with the target as a line; PNG bytes.

    Bars are 95 % intervals of the test images, bands the least and largest of several seeds; methods whose weights were
    trained have hollow markers.
    """
    # Imported here: drawing is the last thing a comparison does, and the table does not need it.
    from matplotlib.figure import Figure

    ink, paper = ("#dddddd", "#16181d") if dark else ("#222222", "#ffffff")
    drawing = Figure(figsize=(8.0, 4.8), dpi=150, facecolor=paper, layout="constrained")
    axes = drawing.add_subplot(facecolor=paper)
    drawn = [row for row in rows(records) if row.mean("kept_weights")]
    methods = list(dict.fromkeys(row.method for row in drawn))
    for place, method in enumerate(methods):
        colour, marker = _style(place)
        line = ("-", "--", "-.", ":")[place // len(STYLES) % 4]
        points = [row for row in drawn if row.method == method]
        accuracy = [100 * (row.mean("accuracy") or 0.0) for row in points]
        low = [100 * (row.mean("accuracy_low") or 0.0) for row in points]
        high = [100 * (row.mean("accuracy_high") or 0.0) for row in points]
        kept = [row.mean("kept_weights") or 0.0 for row in points]
        if len(points) > 1:
            worst, best = zip(*(row.spread("accuracy") for row in points), strict=True)
            axes.fill_between(kept, [100 * a for a in worst], [100 * a for a in best], color=colour, alpha=0.18, lw=0)
        axes.errorbar(
            kept,
            accuracy,
            # Clipped at zero: an interval's end may lie on the accuracy itself, and rounding may put it past.
            yerr=[
                [max(0.0, a - b) for a, b in zip(accuracy, low, strict=True)],
                [max(0.0, b - a) for a, b in zip(accuracy, high, strict=True)],
            ],
            color=colour,
            marker=marker,
            markerfacecolor=paper if points[0].records[0].trained else colour,
            linestyle=line if len(points) > 1 else "none",
            markersize=7,
            linewidth=1.6,
            capsize=3,
            label=method,
        )
    if records:
        target = 100 * statistics.fmean(record.target_accuracy for record in records)
        weights = records[0].target_weights
        label = f"target, {weights:,} weights: {target:.2f} %"
        axes.axhline(target, color=ink, linewidth=1.2, linestyle="--", label=label)
        axes.axvline(weights, color=ink, linewidth=0.8, linestyle=":", label="as many weights as the target")
    axes.set_xscale("log")
    axes.set_xlabel("kept weights", color=ink)
    axes.set_ylabel("test accuracy, %", color=ink)
    axes.grid(visible=True, which="major", color=ink, alpha=0.15)
    axes.tick_params(colors=ink, which="both")
    for spine in axes.spines.values():
        spine.set_color(ink)
    if records:
        handles, labels = axes.get_legend_handles_labels()
        # matplotlib lists lines before error bars; the methods come first here.
        turned = [*handles[2:], *handles[:2]], [*labels[2:], *labels[:2]]
        legend = drawing.legend(*turned, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
        for text in legend.get_texts():
            text.set_color(ink)
    return png_bytes(drawing)


def _style(place: int) -> tuple[str, str]:
    """Colour and marker of a method; where colours come again, they have another marker each."""
    again, at = divmod(place, len(STYLES))
    return STYLES[at][0], STYLES[(at + again) % len(STYLES)][1]
