"""From how far outputs may be from the target's to what is asked of each weight: candidates, and a tolerance.

A ticket is made, its output bounded, and if that is too much another one is made: with more candidates (each halves the
residuals) where the least error is asked for, with a smaller tolerance where the fewest weights are, and with more
candidates where these cannot hold it.
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
from lottery_jax.progress import Progress, no_progress
from lottery_jax.tickets.verify import verify_with_weights

MOST_CANDIDATES = 28
"""Beyond these the search of a weight takes milliseconds."""

_TRIALS = 16


def for_output(
    target: Target,
    construction: Construction,
    objective: ToleranceObjective,
    output_tolerance: float,
    *,
    seed: int,
    low: float = 0.0,
    high: float = 1.0,
    transforms: Sequence[Transform] = (),
    progress: Progress = no_progress,
) -> tuple[Construction, ToleranceObjective, OutputBound]:
    """The construction and the promise whose ticket has outputs within `output_tolerance` on inputs of [low, high].

    Raises `InputError` where that takes more candidates than are searched, and says about how many.

    >>> import numpy as np
    >>> from lottery_jax.constructions.pensia import Pensia
    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> target = mlp_target([np.array([[0.3, -0.2]], np.float32)])
    >>> made, objective, bound = for_output(target, Pensia(8), ToleranceObjective(0.1), 1e-3, seed=0)
    >>> bound.largest <= 1e-3
    True
    """
    if not 0 < output_tolerance < math.inf:
        raise InputError(f"the output tolerance is {output_tolerance}; it must be positive and finite")
    for _ in range(_TRIALS):
        job = plan_job(target, construction, objective, seed=seed, transforms=transforms)
        ticket = run_in_memory(job, progress=progress)
        verification = verify_with_weights(ticket, target=target)
        holds = verification.certificate.holds
        bound = bound_output(ticket, target, box=(low, high), weights=verification.weights)
        if holds and bound.largest <= output_tolerance:
            return construction, objective, bound
        too_much = bound.largest / output_tolerance
        if holds and objective.select != "least-error":
            objective = dataclasses.replace(objective, tolerance=objective.tolerance * min(0.9 / too_much, 0.9))
            continue
        more = construction.candidates + max(1, math.ceil(math.log2(max(too_much, 1.0))))
        if more > MOST_CANDIDATES:
            raise InputError(
                f"outputs within {output_tolerance:g} need about {more} candidates for each weight, and up to"
                f" {MOST_CANDIDATES} are searched; with {construction.candidates} the bound is {bound.largest:.3g}. Ask"
                " for less, or for a smaller box"
            )
        construction = dataclasses.replace(construction, candidates=more)
    raise InputError(
        f"outputs within {output_tolerance:g} were not reached in {_TRIALS} trials; the bound is {bound.largest:.3g}"
    )
