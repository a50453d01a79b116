"""The protocol of a comparison: what it asks of its methods, and what its results depend on."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lottery_jax.comparison.methods import Method
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.errors import InputError
from lottery_jax.networks.transforms import Transform
from lottery_jax.tasks import Task
from lottery_jax.tickets.header import check_tolerance

_FORMAT = 3
"""Version of what a run folder holds; another version gets another folder."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a comparison asks of its methods.

    methods: in the order of the report, each after the one it builds on. keeps: kept fractions of the methods that
    sweep. tune: factors of each learner's own learning rate, the best of which on the validation split counts.
    options: what is not usual of the methods' own options, for the configuration. transforms: of every random source.
    """

    methods: tuple[Method, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    keeps: tuple[float, ...] = (0.005, 0.01, 0.03, 0.1, 0.3, 0.5)
    candidates: int = 21
    tolerance: float = 0.01
    epochs: int = 10
    tune: tuple[float, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    transforms: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance)
        Pensia(candidates=self.candidates)  # refuses a wrong number, which other methods than constructions use too
        check_labels([method.label for method in self.methods])
        for method in self.methods:
            method.check(self.candidates, self.tolerance)
            if self.transforms and not method.transformable:
                raise InputError(
                    f"{method.label} trains the weights of a source of its own, which a density below 1, locked"
                    " weights and folded layers do not change; leave these out, or the method"
                )
        seeds, keeps = self.seeds, self.keeps
        if not seeds or not all(0 <= seed < 2**64 for seed in seeds) or len(set(seeds)) < len(seeds):
            raise InputError(f"seeds {seeds} must be different integers in [0, 2**64); for example --seeds 0 1 2")
        if not keeps or not all(0 <= keep <= 1 for keep in keeps):
            raise InputError(f"keeps {keeps} must be kept fractions in [0, 1]; for example --keeps 0.1 0.5")
        if len(set(keeps)) < len(keeps):
            raise InputError(f"keeps {keeps} must differ; leave out the second of equal ones")
        if not all(0 < factor < math.inf for factor in self.tune) or len(set(self.tune)) < len(self.tune):
            raise InputError(f"tune {self.tune} must be different positive factors; for example --tune 0.3 1 3")
        if self.epochs < 1:
            raise InputError(f"epochs {self.epochs} must be 1 or more; leave --epochs out for the default")

    def keeps_of(self, method: Method) -> tuple[float | None, ...]:
        """What a method is asked to keep; (None,) where it has no such setting."""
        return self.keeps if method.sweeps else (None,)


def check_labels(labels: Sequence[str]) -> None:
    """Refuse equal labels of methods, whose records would be one; raises `InputError`."""
    label, count = max(Counter(labels).items(), key=lambda each: each[1], default=("", 0))
    if count > 1:
        raise InputError(
            f"methods must have different labels, got {label!r} {count} times. Name each method once, and compare the"
            " same method with other options in a separate comparison."
        )


def configuration(protocol: Protocol, task: Task) -> dict[str, Any]:
    """What the results depend on, as JSON; not methods, seeds and keeps: a run folder grows along them."""
    return {
        "format": _FORMAT,
        "task": task.name,
        "data_hash": task.dataset.fingerprint,
        "target_hash": task.target.digest[:16],
        "candidates": protocol.candidates,
        "tolerance": protocol.tolerance,
        "learning_epochs": protocol.epochs,
        **({"tune": list(protocol.tune)} if protocol.tune else {}),
        **({"options": dict(protocol.options)} if protocol.options else {}),
        **({"transforms": [repr(each) for each in protocol.transforms]} if protocol.transforms else {}),
    }
