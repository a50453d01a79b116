"""The figure of the phase diagram of random subset sums, with the contours of the heuristic."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lottery_jax.io.files import png_bytes
from lottery_jax.theory.candidates import candidates_named
from lottery_jax.theory.success import predicted_success, residual_law

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_COLUMNS = 3  # panels in a row


def phase_figure(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The phase diagram as PNG bytes.

    Top: P(success) over n and eps for each distribution, with the heuristic's contours of 0.5 and 0.99. Bottom: the
    median least residual (lines: the heuristic; dotted: its law), and kept candidates against n.

    Args:
        rows: Rows of `experiments/phase_diagram.py`.
    """
    from matplotlib.figure import Figure  # imported here: numbers do not need it

    problems = [row for row in rows if row["kind"] == "problems"]
    names = list(dict.fromkeys(row["distribution"] for row in problems))
    rows_above = -(-len(names) // _COLUMNS)
    drawing = Figure(figsize=(4 * _COLUMNS, 3.2 * (rows_above + 1)), dpi=90, layout="constrained")
    grid = drawing.add_gridspec(rows_above + 1, 2 * _COLUMNS)
    image = None
    for index, name in enumerate(names):
        row, column = divmod(index, _COLUMNS)
        axes = drawing.add_subplot(grid[row, 2 * column : 2 * column + 2])
        image = _success(axes, name, [row for row in problems if row["distribution"] == name])
    bottom = [drawing.add_subplot(grid[-1, part * _COLUMNS : (part + 1) * _COLUMNS]) for part in (0, 1)]
    for index, name in enumerate(names):
        own, colour = [row for row in problems if row["distribution"] == name], _COLOURS[index % len(_COLOURS)]
        # Lattices have residuals of 0, which a logarithmic axis cannot show.
        medians = [(row["candidates"], row["median"], row["predicted_median"]) for row in own if row["median"] > 0]
        counts, found, predicted = zip(*medians, strict=True)
        bottom[0].semilogy(counts, found, "o", color=colour, label=name, markersize=4)
        bottom[0].semilogy(counts, predicted, "-", color=colour, linewidth=1)
        for key, mark in (("kept_nearest", "o-"), ("kept_smallest", "s--")):
            kept = [(row["candidates"], row[key]) for row in own if row[key] is not None]
            if kept:
                bottom[1].plot(*zip(*kept, strict=True), mark, color=colour, markersize=3)
    law = [row for row in problems if row["distribution"] == names[0]]
    counts = [row["candidates"] for row in law]
    laws = [residual_law(count, law[-1]["factor"]) for count in counts]
    bottom[0].semilogy(counts, laws, ":", color="#222222", label=f"{law[-1]['factor']:.2f} sqrt(n) 2^-n")
    bottom[0].set(xlabel="candidates n", ylabel="median least residual", title="lines: heuristic")
    bottom[1].set(xlabel="candidates n", ylabel="kept", title="kept: nearest; dashed: fewest within 0.01")
    for axes in bottom:
        axes.grid(visible=True, alpha=0.2)
    bottom[0].legend(frameon=False, fontsize="small")
    if image is not None:
        drawing.colorbar(image, ax=drawing.axes[: len(names)], label="P(success)", fraction=0.02)
    return png_bytes(drawing)


def _success(axes: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    counts, tolerances = [row["candidates"] for row in rows], rows[0]["tolerances"]
    chances = np.array([row["probability"] for row in rows]).T
    edges = _edges(np.array(counts, float)), np.exp(_edges(np.log(tolerances)))
    image = axes.pcolormesh(*edges, chances, vmin=0, vmax=1, cmap="cividis")
    fine = np.geomspace(min(tolerances), max(tolerances), 40)
    whole = np.arange(min(counts), max(counts) + 1)
    kind = candidates_named(name)
    predicted = [[predicted_success(int(count), float(tolerance), kind) for count in whole] for tolerance in fine]
    axes.contour(whole, fine, predicted, levels=(0.5, 0.99), colors=("white", "black"), linewidths=1.4)
    axes.set(yscale="log", xlabel="candidates n", ylabel="eps", title=f"{name} (white 0.5, black 0.99)")
    axes.title.set_fontsize("medium")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return image


def _edges(centres: np.ndarray) -> np.ndarray:
    """The edges of cells around these centres."""
    middles = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([2 * centres[:1] - middles[:1], middles, 2 * centres[-1:] - middles[-1:]])
