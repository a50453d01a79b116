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

import numpy as np
from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.io.files import write_atomically
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
from lottery_jax.theory.candidates import DISTRIBUTIONS, FixedSizeCandidates
from lottery_jax.theory.phase_figure import phase_figure

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


if __name__ == "__main__":
    run_script(Settings, run, show)
