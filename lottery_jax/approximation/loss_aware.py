"""The loss-aware objective: at most N kept weights, chosen so that the network's output stays near the target's.

Layers are solved in order, each by error feedback (`error_feedback`) on the inputs that it gets from the layers before
it (`moments`), at the price per kept weight that spends its share of the budget. Residuals are large, because weights
compensate for others; compare the outputs instead. Masks may differ between kinds of devices.
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from lottery_jax.approximation.allocation import ParetoFronts
from lottery_jax.approximation.budget import Budget, JobFronts, rounded_up
from lottery_jax.approximation.error_feedback import (
    ChosenSubsets,
    LayerProblem,
    error_feedback,
    inverse_hessian_factor,
    within_budget,
)
from lottery_jax.approximation.importance import outputs_importance
from lottery_jax.approximation.job import Chunk, ChunkMasks, ChunkResult, Job, Objective, ObjectiveResult
from lottery_jax.approximation.moments import Moments, example_weights, moments_of, weights_by_row
from lottery_jax.approximation.solve_weights import FLOAT32_STEP, draw_candidates, subsets_to_mask
from lottery_jax.constructions.base import Construction, SignBranch, TensorProblem
from lottery_jax.data.checks import LabelKind
from lottery_jax.errors import InputError
from lottery_jax.networks.forward import batch_size, forward, outputs
from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.node import LinearLayer, child_path
from lottery_jax.progress import log
from lottery_jax.subset_sum import pack_bits
from lottery_jax.tickets.reconstruct import collapsed_network

_SILENT_SECONDS = 5.0  # after which the progress is logged
_SUM_BITS = 28  # of the sum of a weight's candidates, as integers
_MIN_IMPORTANCE = 0.3  # of the mean, added to the importance of every output
_IMPORTANCE_EXAMPLES = 512  # examples for the importance of the outputs


@dataclasses.dataclass(frozen=True, eq=False)
class LossAware(Objective):
    """At most `kept` weights of the source, chosen so that each layer's outputs stay near the target's.

    Args:
        images: Training examples [N, *input shape], without labels.
        damping: Multiple of the mean squared input that is added to each, for inputs that hardly vary.
        sweeps: Passes over a layer after error feedback that exchange subsets.
        label_kind: Whether outputs predict one class, the numbers of a regression, or several labels. Their errors
            weigh by the Fisher information of these predictions, whatever loss the target was trained with.
    """

    kept: int
    images: np.ndarray
    damping: float = 0.01
    sweeps: int = 1
    k_max: int = 2
    label_kind: LabelKind = "classification"

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
            **({} if self.label_kind == "classification" else {"label_kind": self.label_kind}),
        }

    def check(self, construction: Construction) -> "LossAware":
        self._budget.check(construction)
        if construction.replicates_neurons:
            raise InputError(
                f"{construction.name} makes layers of copies that are added up, and error feedback needs layers that"
                " exist once; use pensia or scalar"
            )
        if self.kept < 1:
            raise InputError(f"kept must be at least 1 for a loss-aware ticket, got {self.kept}")
        if not (math.isfinite(self.damping) and self.damping >= 0):
            raise InputError(f"damping must be a number from 0 up, got {self.damping!r}; 0.01 is usual")
        if type(self.sweeps) is not int or self.sweeps < 0:
            raise InputError(f"sweeps must be a whole number from 0 up, got {self.sweeps!r}")
        if type(self.k_max) is not int or self.k_max < 1:
            raise InputError(f"k_max must be a whole number from 1 up, got {self.k_max!r}")
        return self

    def check_source(self, construction: Construction, network: Network) -> None:
        if network.input_spec is None:
            raise InputError("a loss-aware ticket needs a network that can be run; name the architecture of the model")
        shape, given = self.images.shape, network.input_spec.shape
        if len(self.images) == 0 or shape[1:] != given:
            raise InputError(
                f"images must have shape {['N', *given]} with N from 1 up for a loss-aware ticket, got {list(shape)}"
            )

    def solve_chunk(self, job: Job, chunk: Chunk) -> ChunkResult:
        return self._budget.solve_chunk(job, chunk)

    def validation_error(self, chunk: Chunk, arrays: ChunkResult) -> str | None:
        return self._budget.validation_error(chunk, arrays)

    def result_bytes(self, chunk: Chunk) -> int:
        return self._budget.result_bytes(chunk)

    def finalise(self, job: Job, read: Callable[[Chunk], ChunkResult]) -> ObjectiveResult:
        start, solver = time.monotonic(), _LayerSolver(job, self)
        price, budgets = solver.layer_budgets(read)
        kept = available = 0
        for number, path in enumerate(solver.layers, 1):
            available += budgets[path]  # includes what earlier layers did not spend
            kept += solver.solve_layer(path, max(available - kept, 0), price)
            if time.monotonic() - start > _SILENT_SECONDS:
                log.info("loss-aware: %s, layer %d of %d, %s kept", path, number, len(solver.layers), f"{kept:,}")
        return ObjectiveResult(rounded_up(solver.largest_residual), int(self.kept), {}, solver.masks)


class _LayerSolver:
    """Solves the layers of a job in order; the layers that are not solved yet have the target's weights."""

    def __init__(self, job: Job, objective: LossAware) -> None:
        self.job, self.objective, self.largest_residual = job, objective, 0.0
        self.target = job.target.arrays()
        self.network, self.target_network = collapsed_network(job.network), job.target.network
        self.tensors = {}
        for name, shape in self.network.tensors.items():
            self.tensors[name] = np.broadcast_to(np.asarray(self.target[name], np.float32), shape)
        self.problems = {problem.tensor: problem for problem in job.problems}
        self.layers: dict[str, LinearLayer] = {}
        for path, source in job.network.sources.items():
            assert isinstance(source.layer, LinearLayer)
            self.layers[path] = source.layer
        importance = outputs_importance(job.target, objective.images[:_IMPORTANCE_EXAMPLES], objective.label_kind)
        self.importance = {path: each + _MIN_IMPORTANCE * each.mean() for path, each in importance.items()}
        run = forward(self.target_network, self.target)
        logits = outputs(run, objective.images, batch_size=batch_size(self.target_network))
        self.example_weights = example_weights(logits, objective.label_kind)
        self.subsets: dict[str, list[np.ndarray]] = {}

    def layer_budgets(self, read: Callable[[Chunk], ChunkResult]) -> tuple[float, dict[str, int]]:
        """The price of a kept weight under one budget for all layers, and each layer's share of the budget."""
        importance = {}
        for path in self.layers:
            importance |= self._compensated_importance(path)
        fronts = JobFronts(self.job, read, importance)
        allocation = ParetoFronts(fronts.residuals, fronts.importance, larger=True).within_kept(self.objective.kept)
        kept, ends, stop = np.append(0, np.cumsum(allocation.sizes)), {}, 0
        for chunk in self.job.chunks:
            stop += chunk.weights * len(chunk.problem.branches)
            ends[chunk.problem.tensor] = stop
        shares = [0]
        for path in self.layers:
            end = max(ends[name] for name in self._names(path))
            shares.append(int(kept[end] / max(kept[-1], 1) * self.objective.kept))
        return allocation.multiplier, dict(zip(self.layers, np.diff(shares).tolist(), strict=True))

    def _names(self, path: str) -> list[str]:
        return [child_path(path, name) for name in self.layers[path].tensors()]

    def _compensated_importance(self, path: str) -> dict[str, np.ndarray]:
        """Importance of each weight's squared error [signs, *shape] if later weights of its output compensate."""
        layer, signs = self.layers[path], self._signs(path)
        moments = self._moments(path, self.target_network, self.target)
        factor = self._inverse_factor(path, self._damped(moments.gram))
        loss = 1 / np.diagonal(factor, axis1=1, axis2=2) ** 2  # [G, R]
        loss = np.repeat(loss, layer.outputs // layer.groups, 0) * self.importance[path][:, None]  # [O, R]
        weights = loss[:, : loss.shape[1] - layer.bias].reshape(layer.outputs, signs, -1).swapaxes(0, 1)
        found = {child_path(path, "weight"): weights.reshape(signs, *layer.tensors()["weight"])}
        return found | {child_path(path, "bias"): loss[None, :, -1]} if layer.bias else found

    def _signs(self, path: str) -> int:
        return len(self.problems[child_path(path, "weight")].branches)

    def _moments(self, path: str, network: Network, tensors: Any) -> Moments:
        networks, both = (network, self.target_network), (tensors, self.target)
        layer, images = self.layers[path], self.objective.images
        return moments_of(networks, both, path, layer, self._signs(path), images, self.example_weights)

    def _damped(self, gram: np.ndarray) -> np.ndarray:
        mean = np.diagonal(gram, axis1=1, axis2=2).mean(1)
        # In a group of inputs that are always 0 the weights do not matter.
        extra = np.where(mean > 0, self.objective.damping * mean, 1.0)
        return gram + extra[:, None, None] * np.eye(gram.shape[1])

    def _inverse_factor(self, path: str, gram: np.ndarray) -> np.ndarray:
        factor = inverse_hessian_factor(gram) if np.isfinite(gram).all() else None
        if factor is None:
            damping = self.objective.damping
            raise InputError(
                f"the second moments of the inputs of {path!r} are singular or not finite on these examples; use a"
                f" damping above {damping:g}, for example {max(10 * damping, 0.01):g}, or other examples"
            )
        return factor

    def solve_layer(self, path: str, budget: int, price: float) -> int:
        """Solve one layer within its budget, and use its weights from then on; returns the number of kept weights."""
        layer, signs = self.layers[path], self._signs(path)
        moments = self._moments(path, self.network, self.tensors)
        hessian = self._damped(moments.gram)
        own = {name: self.target[child_path(path, name)] for name in layer.tensors()}
        weights = weights_by_row(layer, own, signs)
        extra = (hessian - moments.gram).reshape(layer.groups, *hessian.shape[1:])
        split = weights.reshape(len(weights), layer.groups, -1).swapaxes(0, 1)  # [G, R, O / G]
        targets = np.linalg.solve(hessian, moments.cross + extra @ split).swapaxes(0, 1).reshape(weights.shape)
        order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2).sum(0), kind="stable")
        hessian = hessian[:, order][:, :, order]
        candidates, steps, gains = self._candidates(path)
        problem = LayerProblem(
            jnp.asarray(np.round(candidates / steps[:, None, None])[order].astype(np.int32)),
            jnp.asarray((steps * gains)[order], jnp.float32),
            jnp.asarray(targets[order], jnp.float32),
            jnp.asarray(hessian, jnp.float32),
            jnp.asarray(self._inverse_factor(path, hessian), jnp.float32),
            jnp.asarray(self.importance[path], jnp.float32),
        )
        has_edges = any(self.problems[name].edge_tensor for name in self._names(path))

        def in_order(subsets: ChosenSubsets) -> np.ndarray:
            chosen = np.empty(subsets.chosen.shape, bool)
            chosen[order] = np.asarray(subsets.chosen)
            return chosen

        def solve(price: float) -> tuple[int, ChosenSubsets]:
            options = {"largest": self.objective.k_max, "sweeps": self.objective.sweeps}
            subsets = error_feedback(problem, np.float32(min(price, 3e38)), **options)
            edges = self._count_edges(path, in_order(subsets)) if has_edges else 0
            return int(np.asarray(subsets.chosen.sum())) + edges, subsets

        kept, subsets = within_budget(solve, budget, price)
        chosen = in_order(subsets)
        sums = np.where(chosen, candidates, np.float32(0)).sum(1, dtype=np.float64) * gains[:, None]
        margin, values = 0.0, dict[str, list[np.ndarray]]()
        for one, _, rows in self._parts(path):
            margin = max(margin, one.gain * one.bound * one.candidates * FLOAT32_STEP)
            self.subsets.setdefault(one.tensor, []).append(np.asarray(pack_bits(_by_weight(chosen[rows]))))
            values.setdefault(one.tensor, []).append(sums[rows].T)
        for name, parts in values.items():
            self.tensors[name] = np.stack(parts).reshape(self.tensors[name].shape).astype(np.float32)
        self.largest_residual = max(self.largest_residual, float(np.abs(sums - weights).max()) + margin)
        return kept

    def _parts(self, path: str) -> Iterator[tuple[TensorProblem, SignBranch | None, slice]]:
        """The problems of a layer and their branches, with their rows."""
        start = 0
        for name in self._names(path):
            problem = self.problems[name]
            rows = problem.random_tensor.rows // self.layers[path].outputs
            for branch in problem.branches:
                yield problem, branch, slice(start, start + rows)
                start += rows

    def _candidates(self, path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Candidates of a layer, float32 [R, N, O]; for each row a power of two as their step, and the gain [R]."""
        parts, steps, gains = [], [], []
        for problem, branch, rows in self._parts(path):
            drawn = []
            for chunk in self.job.chunks:
                if chunk.problem is problem:
                    blocks = chunk.first + np.arange(chunk.count)
                    own = draw_candidates(problem, branch, blocks, attempt=0, seed=self.job.seed)
                    drawn.append(np.asarray(own)[: chunk.count].repeat(problem.random_tensor.rows_per_block, 0))
            by_output = np.concatenate(drawn).reshape(self.layers[path].outputs, -1, problem.candidates)
            parts.append(by_output.transpose(1, 2, 0))
            largest = max(problem.candidates * problem.bound, 2.0**-90)
            steps.append(np.full(rows.stop - rows.start, 2.0 ** (math.ceil(math.log2(largest)) - _SUM_BITS)))
            gains.append(np.full(rows.stop - rows.start, problem.gain))
        return np.concatenate(parts), np.concatenate(steps), np.concatenate(gains)

    def _count_edges(self, path: str, chosen: np.ndarray) -> int:
        """Number of first edges that subsets [R, N, O] use."""
        used = 0
        for problem, _, rows in self._parts(path):
            packed = np.packbits(_by_weight(chosen[rows]), axis=1)
            order, _, first = problem.sort_by_group(np.arange(len(packed)))
            used += int(np.bitwise_count(np.bitwise_or.reduceat(packed[order], first)).sum())
        return used

    def masks(self, chunk: Chunk) -> ChunkMasks:
        """The masks of a chunk of a solved layer."""
        subsets = [bits[chunk.rows] for bits in self.subsets[chunk.problem.tensor]]
        mask = subsets_to_mask(chunk.problem, chunk.rows, subsets)
        return ChunkMasks(np.packbits(mask, bitorder="little"), NO_REDRAWS)


def _by_weight(chosen: np.ndarray) -> np.ndarray:
    """ChosenSubsets [R, N, O] in the order of the tensor's weights, [O R, N]."""
    return chosen.transpose(2, 0, 1).reshape(-1, chosen.shape[1])
