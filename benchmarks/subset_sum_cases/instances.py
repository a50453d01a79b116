"""What is solved, and how an answer is judged: in float64, by NumPy, from the subset's bits alone."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax.networks.node import Spec
from lottery_jax.tasks import import_target

LOW, HIGH, DEVIATION = -0.46423155, 0.54070216, 0.025514113  # of the published target
TOLERANCE = 0.01
_ROWS = 1 << 16


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything is measured."""

    candidates: int = 21
    weights: int = 397_000
    repeats: int = 3
    slow_weights: int = 32_768
    """Weights for solvers that are expected to be slow, and for the plain-JAX peer."""
    exact: tuple[tuple[int, int], ...] = ((10, 65_536), (21, 65_536), (30, 1024), (40, 64))
    """N and number of problems of the exact search beyond Experiment 1."""
    random: tuple[tuple[int, int], ...] = ((100, 16_384), (200, 16_384), (1000, 4096))
    """N and number of problems of the randomised search."""
    budgets: tuple[tuple[int, int], ...] = ((20, 1), (24, 1), (24, 8))
    """Numbers left and restarts of the randomised search."""
    growth: int = 625_000
    peer_instances: int = 32
    large: bool = True
    """GPT-2 small's shapes; otherwise the same with a hundredth of the widths."""


FULL = Sizes()
QUICK = Sizes(
    candidates=10,
    weights=3000,
    repeats=1,
    slow_weights=64,
    exact=((8, 256), (26, 2)),
    random=((60, 4),),
    budgets=((8, 1), (12, 2)),
    growth=1250,
    peer_instances=2,
    large=False,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the benchmark: how much, and on which target."""

    sizes: Sizes
    target: Path | None = None

    @property
    def target_name(self) -> str:
        """Which targets the n = 21 cases have, in words."""
        if self.target is None:
            return f"synthetic: normal, deviation {DEVIATION:.4f}, clipped to [{LOW:.4f}, {HIGH:.4f}], seed 0"
        return self.target.name

    def targets(self) -> np.ndarray:
        """float32 [weights]: the published target's weights in the order of its file, or synthetic ones."""
        count = self.sizes.weights
        if self.target is None:
            drawn = np.random.default_rng(0).normal(0, DEVIATION, count).clip(LOW, HIGH).astype(np.float32)
            drawn[:2] = LOW, HIGH
            return drawn
        target = import_target(self.target, Spec((28, 28, 1), nonnegative=True), 10)
        return np.concatenate([target.array(name).reshape(-1) for name in target.network.tensors])[:count]

    def instances(self) -> tuple[np.ndarray, np.ndarray]:
        """Candidates [P, N], U[min w, max w] and independent, and targets [P], both float32."""
        targets = self.targets()
        return self.draw(len(targets), targets), targets

    def draw(self, count: int, targets: np.ndarray) -> np.ndarray:
        """Candidates float32 [count, N] between the least and the largest target."""
        shape = (count, self.sizes.candidates)
        return np.random.default_rng(1).uniform(targets.min(), targets.max(), shape).astype(np.float32)

    def sample(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Some of the instances, picked at random: neighbours in a target are not alike the rest of it."""
        candidates, targets = self.instances()
        picked = np.random.default_rng(2).choice(len(targets), min(count, len(targets)), replace=False)
        return candidates[picked], targets[picked]


def judge(
    subsets: Any, candidates: np.ndarray, targets: np.ndarray, tolerance: float = TOLERANCE
) -> dict[str, float | int]:
    """Residuals and sizes of subsets [P, N] (bool, or -1, 0, 1), recomputed in float64.

    candidates: [P, N], [N], or [P, N, D] with targets [P, D], where a residual is the largest of the D.
    """
    error, kept = np.empty(len(targets)), 0
    for start in range(0, len(targets), _ROWS):
        part = slice(start, start + _ROWS)
        rows = candidates[part] if candidates.ndim > 1 else candidates[None]
        chosen = np.asarray(subsets[part], np.float64)
        shaped = chosen[..., None] if rows.ndim == 3 else chosen
        left = np.abs((shaped * rows.astype(np.float64)).sum(1) - targets[part].astype(np.float64))
        error[part] = left.max(1) if rows.ndim == 3 else left
        kept += np.count_nonzero(chosen)
    return {
        "mean_residual": float(error.mean()),
        "median_residual": float(np.median(error)),
        "worst_residual": float(error.max()),
        "within": int((error <= tolerance).sum()),
        "kept_per_weight": kept / len(targets),
    }
