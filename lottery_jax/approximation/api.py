"""`approximate`: from a target to the ticket of a pruned random network that computes the same."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lottery_jax.approximation.budget.budget import Budget
from lottery_jax.approximation.job import Objective, plan_job
from lottery_jax.approximation.loss_aware.loss_aware import LossAware
from lottery_jax.approximation.run import run_in_memory, run_to_file
from lottery_jax.approximation.tolerance import ToleranceObjective, make_lossless
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.registry import construction_named
from lottery_jax.errors import InputError
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Transform
from lottery_jax.progress import Progress, no_progress
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.workers.workers import SERIAL, Workers


def approximate(
    target: Target,
    *,
    seed: int,
    construction: str | Construction = "pensia",
    candidates: int | None = None,
    objective: str = "least-error",
    tolerance: float = 0.01,
    kept: int | None = None,
    importance: Mapping[str, np.ndarray] | None = None,
    images: np.ndarray | None = None,
    max_redraws: int = 20,
    lossless: bool = False,
    transforms: Sequence[Transform] = (),
    out: str | os.PathLike[str] | None = None,
    coded: bool = False,
    force: bool = False,
    progress: Progress = no_progress,
    workers: Workers = SERIAL,
) -> Ticket:
    """Find a ticket whose random network, pruned and never trained, computes what the target computes.

    construction: its name or itself, with its options. candidates: n per weight, 21 if left out. objective:
    `least-error` or `smallest` (fewest kept) within `tolerance`, the largest |error| of a weight; weights that fail
    after `max_redraws` new draws stay, and `verify` counts them. kept: a budget of kept weights in place of both, with
    `importance` of the target's weights by tensor, or loss-aware for `images` [N, *given] of the training data: what a
    weight misses is then made up for by others of its output. lossless: every weight within half the last float32 bit
    of the largest in its tensor, 2**-25 of it, in place of `tolerance`; scalar and scalar-shared can, with 32 and 48
    candidates if left out. transforms: of the random source, such as `PrePrune(0.5)` and `ShareLayers()` of
    `lottery_jax.networks.transforms`. Batch normalisations are folded first. Whether sign branches are built depends on
    what the target's network says of its inputs. Raises `InputError` for what is no `Target`: `mlp_target`,
    `import_target`, `load_model` and `load_task(...).target` make one.

    out: a file for the ticket. Finished chunks are then kept beside it: call it again after a kill, and it goes on, to
    the same bytes; memory depends on the chunk alone. Another file that is there is refused, or replaced with `force`
    if the new ticket holds; one that does not goes beside it. coded: whether its masks are stored as an entropy coder
    has them. progress: called with (weights done, weights in all). crew: who solves the chunks, as `cluster.join.join`
    makes it: every process makes the same call, with a file that all of them see, and gets the same ticket.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> from lottery_jax.tickets.verify import verify
    >>> target = mlp_target([np.array([[0.3, -0.2]], np.float32)])
    >>> verify(approximate(target, seed=0, candidates=10), target=target).outcome
    'holds'
    """
    if not isinstance(target, Target):
        raise InputError(
            f"approximate takes a Target, not {_named(target)}; make one with mlp_target, import_target,"
            " load_model(...)[0] or load_task(...).target"
        )
    found = construction
    if isinstance(found, str):
        kind = construction_named(found)
        found = kind() if candidates is None else kind(candidates=candidates)
    elif candidates is not None:
        raise InputError(f"candidates {candidates} are given beside {found}; say them there")
    if kept is None and not (importance is None and images is None):
        raise InputError("importances and images decide how a budget is spent; give kept too, or leave them out")
    if importance is not None and images is not None:
        raise InputError("a loss-aware ticket says itself what an error counts; leave the importances or images out")
    if workers is not SERIAL and (out is None or images is not None or not workers.meets):
        raise InputError(
            "processes share the chunks of a file, each within its tolerance or budget; name it with out, leave images"
            " out, and make the crew with cluster.join.join"
        )
    if coded and out is None:
        raise InputError("coded says how the ticket's file stores its masks; name the file with out, or leave it out")
    promise = ToleranceObjective(tolerance, objective, max_redraws)
    objective: Objective = promise
    if kept is not None:
        objective = Budget(kept, importance=importance) if images is None else LossAware(kept, np.asarray(images))
    if lossless:
        if kept is not None:
            raise InputError(f"a lossless ticket keeps as many weights as it takes, not {kept}; leave one of them out")
        found, objective = make_lossless(target, found, promise)
    job = plan_job(target, found, objective, seed=seed, transforms=transforms)
    if out is None:
        return run_in_memory(job, progress=progress)
    done = run_to_file(job, Path(out), force=force, coded=coded, progress=progress, workers=workers)
    assert done.path is not None
    return load_ticket(done.path)


def _named(value: object) -> str:
    """What was given, in words: a path itself, of other things their type."""
    if isinstance(value, str | os.PathLike):
        return f"the path {str(value)[:80]!r}"
    return "None" if value is None else f"a {type(value).__name__}"
