"""The goal of a loss-aware ticket: at most so many kept weights, chosen for what the network computes.

The layers are settled one after the other (`layer`), each for the inputs that it has behind those before it (`inputs`),
at the price of a weight at which it keeps its share of the budget (`prices`). The shares are those of a budget over all
layers (`budget`) in which an error counts what is lost of it when the weights behind it make up for the rest.

The ticket's promise is about the target's own weights all the same: how far each one is, and how many are kept. The
distances are large, for weights that make up for others are meant to be somewhere else; what is near to the target is
the network's output, and that is measured. The moments are sums in floating point, so that the masks of other kinds of
devices may differ here and there.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lottery_jax.approximation.budget.budget import Budget, rounded_up
from lottery_jax.approximation.job import Chunk, Job, Objective, ObjectiveResult, Solved
from lottery_jax.approximation.loss_aware.layer_by_layer import LayerByLayer
from lottery_jax.constructions.base import Construction
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.progress import log

_LONG = 5.0  # seconds that pass in silence


@dataclasses.dataclass(frozen=True, eq=False)
class LossAware(Objective):
    """At most `kept` weights of the source, first edges included, so that the layers' outputs stay near the target's.

    images: [N, *given], training examples; their labels are not needed. damping: how many times the mean of the inputs'
    squares is added to each, for inputs that hardly vary. sweeps: how often subsets are exchanged after a layer's error
    feedback. k_max: the largest subset tried for a weight.
    """

    kept: int
    images: np.ndarray
    damping: float = 0.01
    sweeps: int = 1
    k_max: int = 2

    @property
    def suffix(self) -> str:
        return "loss-aware"

    @property
    def _budget(self) -> Budget:
        return Budget(self.kept, k_max=self.k_max)

    def settings(self) -> dict[str, Any]:
        images = np.ascontiguousarray(self.images, np.float32)
        return {
            "objective": "loss-aware",
            "kept": int(self.kept),
            "damping": float(self.damping),
            "sweeps": self.sweeps,
            "k_max": self.k_max,
            "examples": len(images),
            "examples_sha256": hashlib.sha256(images.data).hexdigest()[:16],
        }

    def check(self, construction: Construction) -> None:
        self._budget.check(construction)
        if not construction.layers_once:
            raise InputError(
                f"{construction.name} makes layers of copies that are added up; error feedback is for layers that stand"
                " once, as those of pensia and scalar"
            )
        if self.kept < 1:
            raise InputError(f"a loss-aware ticket of {self.kept} weights computes nothing; keep at least 1")
        if not (math.isfinite(self.damping) and self.damping >= 0):
            raise InputError(f"damping must be a number from 0 up, not {self.damping!r}; 0.01 is usual")
        if type(self.sweeps) is not int or self.sweeps < 0:
            raise InputError(f"sweeps must be a whole number from 0 up, not {self.sweeps!r}")
        if type(self.k_max) is not int or self.k_max < 1:
            raise InputError(f"k_max must be a whole number from 1 up, not {self.k_max!r}")

    def check_source(self, construction: Construction, network: Network) -> None:
        if network.input_spec is None:
            raise InputError(
                "a loss-aware ticket needs a network that can be run; of a model's tensors nothing is known"
            )
        shape, given = self.images.shape, network.input_spec.shape
        if len(self.images) == 0 or shape[1:] != given:
            raise InputError(
                f"a loss-aware ticket needs examples of shape {['N', *given]} with N from 1 up, not {list(shape)}"
            )

    def solve(self, job: Job, chunk: Chunk) -> Solved:
        return self._budget.solve(job, chunk)

    def validation_error(self, job: Job, chunk: Chunk, arrays: Solved) -> str | None:
        return self._budget.validation_error(job, chunk, arrays)

    def chunk_bytes(self, job: Job) -> Callable[[Chunk], int]:
        return self._budget.chunk_bytes(job)

    def finalise(self, job: Job, solved: Callable[[Chunk], Solved]) -> ObjectiveResult:
        start, run = time.monotonic(), LayerByLayer(job, self)
        choice, shares = run.shares({chunk.number: solved(chunk) for chunk in job.chunks})
        kept = 0
        for number, path in enumerate(run.leaves, 1):
            # What earlier layers left of their shares is the next one's.
            share = max(sum(shares[own] for own in run.leaves[:number]) - kept, 0)
            kept += run.finalise(path, share, choice)
            if time.monotonic() - start > _LONG:
                log.info("loss-aware: %s, layer %d of %d, %s kept so far", path, number, len(run.leaves), f"{kept:,}")
        return ObjectiveResult(rounded_up(run.worst), int(self.kept), {}, run.masks)
