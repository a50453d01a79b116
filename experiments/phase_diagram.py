"""Phase diagram of random subset sums: when does one succeed? (Pensia et al. 2020; Natale et al. 2024)

Measured: P(the best subset is within eps of the target) for n candidates, compared with a first-moment heuristic. The
candidates are plain numbers from U[-1, 1], products of two, the gadget (2 n units, those of one sign usable), subsets
of exactly 4, multiples of 2^-8, and vectors of two numbers that one subset must approximate. Sums of multiples of 2^-8
are exact or not at all. From the same problems: the median least residual divided by its law, sqrt(n) 2^-n (sqrt(k) /
C(n, k) for subsets of k, sqrt(n) 2^(-n / 2) for vectors of two), and the number of kept candidates. Last, the constant
C that the theorems leave open: candidates for a failure chance of eps at accuracy eps, divided by ln(1/eps).

Command: python experiments/phase_diagram.py [--scale 1] [--out FILE]
Cost: about a minute on two CPU cores, most of it compilation; --scale is the fraction of the 10,000 problems per case.
Published: O(log 1/eps) candidates are enough (Lueker 1998; Pensia et al. 2020), n >= c log2(k/eps) / H2(k/n) of which k
are kept (Natale et al. 2024); no constants.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.io.files import png_bytes, write_atomically
from lottery_jax.subset_sum import Smallest
from lottery_jax.theory import (
    Success,
    best_subsets,
    estimate_constant,
    least_residuals,
    predicted_median,
    predicted_success,
    residual_law,
)
from lottery_jax.theory.candidates import DISTRIBUTIONS, FixedSizeCandidates, candidates_named

COUNTS = {name: tuple(range(2, 25, 2)) for name in ("scalar", "product", "gadget")}
COUNTS["fixed-size"] = (6, 8, 10, 12, 16, 20, 24, 32)
COUNTS["quantised"] = COUNTS["scalar"]
COUNTS["vectors"] = (4, 6, 8, 10, 12, 14, 16)
TOLERANCES = tuple(10.0 ** (-place / 2) for place in range(1, 11))
KEPT_WITHIN = 0.01
ACCURACIES = (0.1, 0.03, 0.01, 0.003)


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """P(success), least residuals, kept candidates and the constant of random subset sums."""

    seed: int = 0
    """Seed of the problems."""


def run(settings: Settings, rows: Results) -> None:
    """One row per distribution and number of candidates, then the constants."""
    cases = [(name, count) for name, counts in COUNTS.items() for count in counts]

    def problems(case: tuple[str, int]) -> None:
        name, count = case
        trials = settings.part(2000 if name in ("fixed-size", "vectors") else 10000)
        asked = {"trials": trials, "seed": settings.seed}
        residuals = least_residuals(count, name, **asked)
        found = [Success(int(np.count_nonzero(residuals <= tolerance)), trials) for tolerance in TOLERANCES]
        median = float(np.median(residuals))
        rows.keep(
            kind="problems",
            distribution=DISTRIBUTIONS[name]().label,
            candidates=count,
            scale=settings.scale,
            **asked,
            tolerances=[float(f"{tolerance:.6g}") for tolerance in TOLERANCES],
            probability=[one.probability for one in found],
            low=[round(one.interval[0], 6) for one in found],
            high=[round(one.interval[1], 6) for one in found],
            predicted=[round(predicted_success(count, tolerance, name), 6) for tolerance in TOLERANCES],
            median=median,
            predicted_median=predicted_median(count, name),
            factor=median / _law(name, count),
            **_kept(name, count, settings.part(2000), settings.seed),
        )

    def constant(case: tuple[str, float, float, int]) -> None:
        name, accuracy, chance, trials = case
        made = estimate_constant(accuracy, chance, name, trials=trials, seed=settings.seed)
        rows.keep(kind="constant", **dataclasses.asdict(made), value=made.value, interval=made.interval)

    rows.each("problems", cases, problems)
    constants = [
        (name, accuracy, accuracy, max(settings.part(round(100 / accuracy)), round(10 / accuracy) + 1))
        for name in ("scalar", "product", "gadget")
        for accuracy in ACCURACIES
    ]
    rows.each("constants", [*constants, ("fixed-size", 0.01, 0.1, max(settings.part(2000), 101))], constant)


def _law(name: str, count: int) -> float:
    """The law of the median: sqrt(n) 2^-n, or sqrt(k) divided by the number of subsets of exactly k."""
    kind = DISTRIBUTIONS[name]()
    if kind.dimension > 1:
        return residual_law(count, 1.0) * 2.0 ** (count - count / kind.dimension)
    return residual_law(count, 1.0) if kind.padded else kind.largest_target / kind.subsets(count)


def _kept(name: str, count: int, trials: int, seed: int) -> dict[str, float | None]:
    """Mean number of kept candidates of the nearest subset, and of the smallest subset within 0.01 if one exists."""
    if name == "fixed-size":
        return {"kept_nearest": float(FixedSizeCandidates().size), "kept_smallest": None}
    if DISTRIBUTIONS[name]().dimension > 1:
        return {"kept_nearest": None, "kept_smallest": None}
    asked = {"trials": trials, "seed": seed, "tolerance": KEPT_WITHIN}
    nearest = best_subsets(count, name, **asked)
    smallest = best_subsets(count, name, solver=Smallest(), **asked)
    within = smallest.within
    return {
        "kept_nearest": float(nearest.sizes.mean()),
        "kept_smallest": float(smallest.sizes[within].mean()) if within.any() else None,
    }


def show(rows: Results, console: Console) -> None:
    """Medians and constants as tables, and the figure."""
    table = Table("distribution", "n", "P(0.01)", "predicted", "median / law", "predicted", "kept", "smallest")
    at = TOLERANCES.index(min(TOLERANCES, key=lambda tolerance: abs(tolerance - 0.01)))
    for row in (row for row in rows if row["kind"] == "problems"):
        low, high = row["low"][at], row["high"][at]
        predicted = row["predicted_median"] / row["median"] * row["factor"] if row["median"] else 0.0
        nearest, smallest = (
            "-" if row[key] is None else f"{row[key]:.2f}" for key in ("kept_nearest", "kept_smallest")
        )
        table.add_row(
            row["distribution"],
            str(row["candidates"]),
            f"{row['probability'][at]:.4f} [{low:.4f}, {high:.4f}]",
            f"{row['predicted'][at]:.4f}",
            f"{row['factor']:.3f}",
            f"{predicted:.3f}",
            nearest,
            smallest,
        )
    console.print(table)
    constants = Table("distribution", "eps", "delta", "candidates", "C = candidates / ln(1/eps)")
    for row in (row for row in rows if row["kind"] == "constant"):
        low, high = row["interval"]
        counted = f"{row['candidates']} [{row['low']}, {row['high']}]"
        value = f"{row['value']:.2f} [{low:.2f}, {high:.2f}]"
        constants.add_row(row["distribution"], f"{row['tolerance']:g}", f"{row['delta']:g}", counted, value)
    console.print(constants)
    write_atomically(rows.path.with_suffix(".png"), phase_figure(rows))


_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_COLUMNS = 3  # panels in a row


def phase_figure(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The phase diagram as PNG bytes.

    Top: P(success) over n and eps for each distribution, with the heuristic's contours of 0.5 and 0.99. Bottom: the
    median least residual (lines: the heuristic; dotted: its law), and kept candidates against n.
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
        image = _success_panel(axes, name, [row for row in problems if row["distribution"] == name])
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


def _success_panel(axes: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> Any:
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


if __name__ == "__main__":
    run_script(Settings, run, show)
