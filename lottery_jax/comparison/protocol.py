"""The protocol of a comparison: methods, seeds, kept fractions and settings, and the configuration of its records."""

import dataclasses
import math
from typing import Any

import numpy as np

from lottery_jax.comparison.methods import Method, MethodSelection
from lottery_jax.comparison.records import Key
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.errors import InputError
from lottery_jax.networks.transforms import Transform
from lottery_jax.tasks import Task
from lottery_jax.tickets.header import check_tolerance

_FORMAT = 3
"""Version of the files in a run folder; another version has another folder."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The settings of a comparison, which are arguments of ``compare``; raises ``InputError`` for wrong ones."""

    selection: MethodSelection
    seeds: tuple[int, ...] = (0, 1, 2)
    keeps: tuple[float, ...] = (0.005, 0.01, 0.03, 0.1, 0.3, 0.5)
    candidates: int = 21
    tolerance: float = 0.01
    epochs: int = 10
    tune: tuple[float, ...] = ()
    transforms: tuple[Transform, ...] = ()

    @property
    def methods(self) -> tuple[Method, ...]:
        """The selected methods in the order of the report."""
        return self.selection.methods

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance)
        Pensia(candidates=self.candidates)  # refuses a wrong number, which learners use too
        labels: list[str] = []
        for method in self.methods:
            labels.append(method.label)
        for label in labels:
            if labels.count(label) > 1:  # their records would be the same
                raise InputError(
                    f"methods must have different labels, got {label!r} {labels.count(label)} times. Name each method"
                    " once, and compare the same method with other options in a separate comparison."
                )
        for method in self.methods:
            method.check(self.candidates, self.tolerance)
            if self.transforms and not method.transformable:
                raise InputError(
                    f"{method.label} trains the weights of its own source, which density, locked weights and folded"
                    " layers do not change. Omit these transforms, or the method."
                )
        seeds, keeps = self.seeds, self.keeps
        if len(set(seeds)) < max(len(seeds), 1) or not 0 <= min(seeds) <= max(seeds) < 2**64:
            raise InputError(f"seeds must be different integers in [0, 2**64), got {seeds}. Try --seeds 0 1 2.")
        # NaN is not in [0, 1] either.
        if not keeps or not 0 <= np.min(keeps) <= np.max(keeps) <= 1:
            raise InputError(f"keeps must be kept fractions in [0, 1], got {keeps}. Try --keeps 0.1 0.5.")
        if len(set(keeps)) < len(keeps):
            raise InputError(f"keeps must be different, got {keeps}. Name each kept fraction once.")
        factors = [1.0, *self.tune]
        if not 0 < np.min(factors) <= np.max(factors) < math.inf or len(set(self.tune)) < len(self.tune):
            raise InputError(f"tune must be different positive factors, got {self.tune}. Try --tune 0.3 1 3.")
        if self.epochs < 1:
            raise InputError(f"epochs must be at least 1, got {self.epochs}. Omit --epochs for the default.")

    def keys(self, method: Method, seed: int) -> list[Key]:
        """The keys of the records of a method and seed: one per kept fraction, or one if the method does not sweep."""
        return [(method.label, seed, keep) for keep in (self.keeps if method.sweeps else (None,))]


def configuration(protocol: Protocol, task: Task) -> dict[str, Any]:
    """The settings that records depend on, as JSON.

    Methods, seeds and kept fractions are not among them: a run folder may grow by these.
    """
    return {
        "format": _FORMAT,
        "task": task.name,
        "data_hash": task.dataset.fingerprint,
        "target_hash": task.target.digest[:16],
        "candidates": protocol.candidates,
        "tolerance": protocol.tolerance,
        "learning_epochs": protocol.epochs,
        **({"loss": recorded} if (recorded := task.loss.recorded(task.dataset)) else {}),
        **({"tune": list(protocol.tune)} if protocol.tune else {}),
        **({"options": dict(protocol.selection.options)} if protocol.selection.options else {}),
        **({"transforms": [repr(each) for each in protocol.transforms]} if protocol.transforms else {}),
    }
