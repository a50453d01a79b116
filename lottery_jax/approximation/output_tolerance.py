"""Tolerance of the outputs: candidates and a tolerance per weight are derived by trial.

If the bound of a trial's outputs is too large, the least error gets more candidates, and the fewest weights get a
smaller tolerance, or more candidates where these cannot meet it.
"""

import dataclasses
import math
from collections.abc import Sequence

from lottery_jax.approximation.job import plan_job
from lottery_jax.approximation.run import run_in_memory
from lottery_jax.approximation.tolerance import ToleranceObjective
from lottery_jax.bounds import OutputBound, bound_output
from lottery_jax.constructions.base import Construction
from lottery_jax.errors import InputError
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Transform
from lottery_jax.progress import Progress, log, no_progress
from lottery_jax.tickets.verify import verify

MAX_CANDIDATES = 28
"""With more the search of one weight takes milliseconds."""

_MAX_TRIALS = 16


def meet_output_tolerance(
    target: Target,
    construction: Construction,
    objective: ToleranceObjective,
    output_tolerance: float,
    *,
    seed: int,
    box: tuple[float, float] | None = None,
    transforms: Sequence[Transform] = (),
    progress: Progress = no_progress,
) -> tuple[Construction, ToleranceObjective, OutputBound]:
    """Derive a construction and an objective whose ticket has outputs within a tolerance of the target's.

    `construction` and `objective` are those of the first trial; a bound of all outputs on `box` (default (0, 1), or
    (-1, 1) if inputs may be negative) is returned with the last ones.

    Raises:
        InputError: More than `MAX_CANDIDATES` candidates would be needed; the sentence says about how many.
    """
    if not 0 < output_tolerance < math.inf:
        raise InputError(f"output_tolerance must be positive and finite, got {output_tolerance}")
    given = target.network.input_spec
    low, high = box or (0.0 if given is not None and given.nonnegative else -1.0, 1.0)
    for _ in range(_MAX_TRIALS):
        job = plan_job(target, construction, objective, seed=seed, transforms=transforms)
        ticket = run_in_memory(job, progress=progress)
        bound = bound_output(ticket, target, box=(low, high))
        # Outputs are asked for, so weights may be within the tolerance of zero.
        kept = verify(ticket, target=target, box=(low, high)).outcome != "broken"
        if kept and bound.largest <= output_tolerance:
            log.info(
                "outputs within %g on inputs from %g to %g: %d candidates, weights within %.3g; the bound is %.3g",
                *(output_tolerance, low, high, construction.candidates, objective.tolerance, bound.largest),
            )
            return construction, objective, bound
        excess = bound.largest / output_tolerance
        if kept and objective.select != "least-error":
            objective = dataclasses.replace(objective, tolerance=objective.tolerance * min(0.9 / excess, 0.9))
            continue
        more = construction.candidates + max(1, math.ceil(math.log2(max(excess, 1.0))))
        if more > MAX_CANDIDATES:
            raise InputError(
                f"outputs within {output_tolerance:g} need about {more} candidates for each weight, and up to"
                f" {MAX_CANDIDATES} are searched; with {construction.candidates} the bound is {bound.largest:.3g}."
                " Increase output_tolerance, or make the box smaller"
            )
        construction = dataclasses.replace(construction, candidates=more)
    raise InputError(
        f"outputs within {output_tolerance:g} were not reached in {_MAX_TRIALS} trials; the bound is"
        f" {bound.largest:.3g}. Increase output_tolerance"
    )
