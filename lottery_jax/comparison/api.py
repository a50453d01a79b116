"""`compare` as a program calls it: methods by name, or objects."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from lottery_jax.comparison.methods import Method
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.records import Record
from lottery_jax.comparison.registry import all_methods, as_method, chosen_methods, suggest_method
from lottery_jax.comparison.runner import Comparison
from lottery_jax.constructions.base import Construction
from lottery_jax.errors import InputError
from lottery_jax.networks.transforms import Transform
from lottery_jax.progress import Progress, no_progress
from lottery_jax.tasks import Task
from lottery_jax.training.learner import Learner
from lottery_jax.workers.workers import SERIAL, Workers


def compare(
    task: Task,
    methods: Sequence[str | Method | Construction | Learner | type] = (),
    *,
    seeds: Sequence[int] = (0, 1, 2),
    keeps: Sequence[float] = (0.005, 0.01, 0.03, 0.1, 0.3, 0.5),
    candidates: int = 21,
    tolerance: float = 0.01,
    epochs: int = 10,
    tune: Sequence[float] = (),
    transforms: Sequence[Transform] = (),
    out: str | os.PathLike[str] = "runs",
    progress: Progress = no_progress,
    workers: Workers = SERIAL,
) -> list[Record]:
    """Put methods side by side on a task: the records, and a report in a folder of its own inside `out`.

    Args:
        task: The target and its data.
        methods: Names, or your own: a `Method`, `Construction` or `Learner`, or its class. Default: the usual ones.
        seeds: Seeds of the random sources.
        keeps: Kept fractions of methods that sweep.
        candidates: Candidates per weight of constructions given by name or class, and of the random network of Theorem
            1, which learned masks and kept fractions refer to. A construction given as an object keeps its own.
        tolerance: Largest error of a weight.
        epochs: Epochs of the training of masks.
        tune: Factors of each learner's own learning rate; the best on the validation split counts.
        transforms: Transforms of every random source, such as `PrePrune(0.5)`.
        out: Folder in which each configuration gets its own; its finished methods and seeds are not run again.
        progress: Called with (done, total) of the current method.
        crew: The processes that share the work, from `cluster.join.join`. All make the same call with a folder that all
            of them see; the leader gets the records and writes the report, the others get no records.

    Raises:
        InputError: A method is unknown, two methods have the same label, or an option is wrong.
    """
    known, wanted, options = all_methods(candidates=candidates), [], {}
    for method in methods:
        if isinstance(method, str):
            if method not in known:
                raise InputError(f"method {method!r} is unknown; {suggest_method(method, known)}")
            wanted.append(method)
            continue
        own = as_method(method, candidates=candidates)
        if known.get(own.label) != own:  # other options are other results, and another folder
            options[own.label] = repr(own) if dataclasses.is_dataclass(own) else type(own).__qualname__
        known[own.label] = own
        wanted.append(own.label)
    chosen = chosen_methods(known, wanted)
    protocol = Protocol(
        chosen, tuple(seeds), tuple(keeps), candidates, tolerance, epochs, tuple(tune), options, tuple(transforms)
    )
    comparison = Comparison(task, protocol, Path(out), others=known, stages=lambda part: progress, workers=workers)
    with comparison.held():
        if workers is not SERIAL:
            comparison.contribute_all()
        if not workers.leads:
            return []
        records = [record for method, seed in comparison.pairs for record in comparison.run(method, seed)]
        comparison.clear()
        comparison.report(records, "lottery_jax.compare(task, ...)")
    return records
