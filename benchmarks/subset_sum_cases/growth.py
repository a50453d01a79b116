"""How time and memory grow with the number of weights: one size per process, so that the peak is its own."""

import numpy as np

from lottery_jax.certificate import verify
from lottery_jax.constructions import approximate

from .instances import DEVIATION, TOLERANCE, Run
from .measure import measure, memory_of_jax

_COLUMNS = 625


def growth(run: Run, times: int) -> list[dict]:
    """From a target's weights to the ticket in memory, `times` as many weights as the smallest size."""
    start = memory_of_jax()
    count = run.sizes.growth * times
    weights = np.random.default_rng(0).normal(0, DEVIATION, (count // _COLUMNS or 1, min(count, _COLUMNS)))
    target = [weights.astype(np.float32)]
    ticket, row = measure(
        lambda: approximate(target, seed=0, construction="scalar", candidates=run.sizes.candidates),
        1,
        target[0].size,
    )
    found = verify(ticket)
    return [
        {
            "solver": "MeetInTheMiddle",
            "candidates": run.sizes.candidates,
            "beyond_jax_gib": row["peak_memory_gib"] - start / 2**30,
            "mean_residual": found.mean_residual,
            "worst_residual": found.worst_residual,
            "within": found.within_tolerance,
            "kept_per_weight": found.kept_weights / target[0].size,
            "tolerance": TOLERANCE,
        }
        | row
    ]
