"""`compare`: methods by name or as objects, on one task."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax.comparison.methods import Method
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.registry import Options, select_methods
from lottery_jax.comparison.runner import Callbacks, Results, run_comparison
from lottery_jax.constructions.base import Construction
from lottery_jax.errors import InputError, listed_numbers, listed_values
from lottery_jax.networks.transforms import Transform
from lottery_jax.progress import Progress, no_progress
from lottery_jax.rng.threefry import checked_seeds
from lottery_jax.tasks import Task
from lottery_jax.training.learner import Learner
from lottery_jax.workers.units import Share


def compare(
    task: Task,
    methods: Sequence[str | Method | Construction | Learner | type] = (),
    *,
    options: Options | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    keeps: Sequence[float] = (0.005, 0.01, 0.03, 0.1, 0.3, 0.5),
    candidates: int = 21,
    tolerance: float = 0.01,
    epochs: int = 10,
    tune: Sequence[float] = (),
    transforms: Sequence[Transform] = (),
    out: str | os.PathLike[str] = "runs",
    progress: Progress = no_progress,
    executor: Any = None,
    share: Share | None = None,
    join_only: bool = False,
    check: bool = False,
) -> Results:
    """Compare methods on a task: records of every method, seed and kept fraction, and a report.

    Args:
        task: The target and its data.
        methods: Labels, classes in files (``FILE.py:CLASS``), or ``Method``, ``Construction`` or ``Learner`` objects or
            classes. Default: the methods with ``is_default``.
        options: Options by the name of a construction or learner, such as ``{"edge-popup": {"learning_rate": 0.05}}``.
            Objects keep their own.
        seeds: Seeds of the random sources.
        keeps: Kept fractions in [0, 1] of the methods that sweep.
        candidates: Candidates per weight of constructions given by name or class, and of the random network of Theorem
            1, which learned masks and kept fractions refer to. Objects keep their own.
        tolerance: Largest error of a weight.
        epochs: Epochs of the training of masks.
        tune: Factors of each learner's learning rate; the best on the validation split counts. An optax optimiser keeps
            its own rate.
        transforms: Transforms of every random source, such as ``PrePrune(0.5)``.
        out: Folder in which each configuration has its run folder. Finished records there are not recomputed.
        progress: Called with (done, total) of the current method.
        executor: Computes the records on its workers, which see the folder: a client of Dask, or any executor like
            those of ``concurrent.futures``. Default: this process.
        share: The share of the records that this process computes, while others with the same folder compute theirs.
        join_only: Join the records of finished shares without computing any.
        check: Verify the tickets of all finished records again, without computing any record.

    Returns:
        A list of records, with the folder, the report and the ``faults`` of their tickets as attributes. A share gets
        no records.

    Raises:
        InputError: A method is unknown, two methods have the same label, or an option is wrong.
    """
    if not isinstance(task, Task):
        raise InputError(f"task must be a Task, got a {type(task).__name__}. Make it with load_task, or Task(...).")
    candidates, epochs = (value.item() if isinstance(value, np.integer) else value for value in (candidates, epochs))
    protocol = Protocol(
        select_methods(methods, options, candidates=candidates),
        checked_seeds(seeds),
        listed_numbers("keeps", keeps, "[0.1, 0.5]"),
        candidates,
        tolerance,
        epochs,
        listed_numbers("tune", tune, "[0.3, 3.0]"),
        listed_values("transforms", transforms, "[PrePrune(0.5)]"),
    )
    callbacks, command = Callbacks(stages=lambda part: progress), "lottery_jax.compare(task, ...)"
    return run_comparison(
        task,
        protocol,
        Path(out),
        command=command,
        callbacks=callbacks,
        executor=executor,
        share=share,
        join_only=join_only,
        check=check,
    )
