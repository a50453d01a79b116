"""Pensia et al. 2020 (arXiv 2006.07990), Theorem 2: the necessary and the sufficient width of a two-layer source.

The target is a random d x d matrix in [-1, 1]. For each d and eps the number of candidates grows until half of the
random sources, none of them redrawn, have every weight within eps in both sign branches. Measured: the width at which
this happens, compared with the width below which no source can succeed by counting masks, d log2(1/eps) / 2.

Command: python experiments/pensia_lower_bound.py [--scale 1] [--out FILE]
Cost: two minutes on two CPU cores; --scale is the fraction of 40 sources per width, and of the sizes.
Published: a width of Omega(d log 1/eps) is needed, and O(d log(d / eps)) is enough; no constants.
"""

import dataclasses
import itertools

import numpy as np
from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions import Pensia
from lottery_jax.statistics import wilson_interval
from lottery_jax.theory import lower_bound_target, theorem_named
from lottery_jax.tickets.reconstruct import effective_weights

SIZES = (2, 4, 8, 16)
TOLERANCES = (0.1, 0.03, 0.01, 0.003)
SOURCES, MAX_CANDIDATES = 40, 40


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """The width at which half of random sources have a ticket, compared with the lower bound."""


def run(settings: Settings, rows: Results) -> None:
    """The smallest number of candidates at which half of the sources succeed, for each size and accuracy."""
    sources = max(settings.part(SOURCES), 4)
    cases = list(itertools.product(SIZES[: max(settings.part(len(SIZES)), 2)], TOLERANCES))

    def one(case: tuple[int, float]) -> None:
        size, tolerance = case
        bound = theorem_named("pensia-lower").require(lower_bound_target(size, seed=0).network, tolerance=tolerance)
        enough = theorem_named("pensia").require(lower_bound_target(size, seed=0).network, tolerance=tolerance)
        assert bound.hidden is not None and enough.hidden is not None
        candidates = max(bound.hidden[0] // (2 * size), 1)  # none succeeds with fewer
        while (found := _successes(size, candidates, tolerance, sources)) < sources / 2 and candidates < MAX_CANDIDATES:
            candidates += 1
        rows.keep(
            size=size,
            tolerance=tolerance,
            candidates=candidates,
            width=2 * candidates * size,
            bound=bound.hidden[0],
            theorem=enough.hidden[0],
            successes=found,
            sources=sources,
            interval=wilson_interval(found, sources),
            scale=settings.scale,
        )

    rows.each("sizes and accuracies", cases, one)


def _successes(size: int, candidates: int, tolerance: float, sources: int) -> int:
    """Number of random sources that have a ticket for their own matrix; residuals are recomputed from its bits."""
    found = 0
    for seed in range(sources):
        target = lower_bound_target(size, seed=seed)
        ticket = run_in_memory(
            plan_job(target, Pensia(candidates), ToleranceObjective(tolerance, max_redraws=0), seed=seed)
        )
        residuals = effective_weights(ticket)["fc1.weight"] - target.array("fc1.weight").astype(np.float64)
        found += bool((np.abs(residuals) <= tolerance).all())
    return found


def show(rows: Results, console: Console) -> None:
    """Widths as a table."""
    names = ("d", "eps", "candidates", "successes", "width", "lower bound", "width / bound", "Theorem 1, C estimated")
    table = Table(*names, title=f"{rows[0]['sources']} sources for each width")
    for row in rows:
        table.add_row(
            str(row["size"]),
            f"{row['tolerance']:g}",
            str(row["candidates"]),
            f"{row['successes']} of {row['sources']}",
            f"{row['width']:,}",
            f"{row['bound']:,}",
            f"{row['width'] / row['bound']:.1f}",
            f"{row['theorem']:,}",
        )
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
