"""Settling the layers of a network one after the other, each for the inputs that it has behind those before it."""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from lottery_jax.approximation.budget.budget import JobParetoFronts
from lottery_jax.approximation.budget.importance import outputs_importance
from lottery_jax.approximation.budget.pareto_budget import ParetoFronts
from lottery_jax.approximation.job import Chunk, Job, Masks, Solved
from lottery_jax.approximation.loss_aware.error_feedback import Found, LayerProblem, factor_of, settled, within_share
from lottery_jax.approximation.loss_aware.moments import Moments, example_weights, moments_of, weights_by_row
from lottery_jax.approximation.solve_weights import branches_of, candidates, mask_rows
from lottery_jax.constructions.base import Branch, Plan
from lottery_jax.errors import InputError
from lottery_jax.networks.forward import batch_size, forward, outputs
from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.networks.node import LinearLayer, child_path
from lottery_jax.subset_sum import pack_bits
from lottery_jax.tickets.reconstruct import collapsed_network

_BITS = 28  # of the sum of a weight's candidates, as integers

_SURE = 0.3  # of the mean importance, that every output has besides its own

_SLOPES = 512  # examples that tell how much the outputs mind


class Terms(Protocol):
    """What a goal says of how layers are settled; see `LossAware`."""

    @property
    def kept(self) -> int: ...
    @property
    def images(self) -> np.ndarray: ...
    @property
    def damping(self) -> float: ...
    @property
    def sweeps(self) -> int: ...
    @property
    def k_max(self) -> int: ...


class LayerByLayer:
    """The layers of a job, those that are settled and those that are still the target's."""

    def __init__(self, job: Job, asked: Terms) -> None:
        self.job, self.asked, self.worst = job, asked, 0.0
        self.target = job.target.arrays()
        own = job.target.network
        self.networks = collapsed_network(job.network), own
        self.tensors = {
            name: np.broadcast_to(np.asarray(self.target[name], np.float32), shape)
            for name, shape in self.networks[0].tensors.items()
        }
        self.plans = {plan.tensor: plan for plan in job.plans}
        self.leaves = list(job.network.sources)
        few = asked.images[:_SLOPES]
        importance = outputs_importance(job.target, few)
        self.importance = {path: each + _SURE * each.mean() for path, each in importance.items()}
        self.counts = example_weights(outputs(forward(own, self.target), asked.images, batch_size=batch_size(own)))
        self.subsets: dict[str, list[np.ndarray]] = {}

    def shares(self, chunks: dict[int, Solved]) -> tuple[float, dict[str, int]]:
        """The price of a weight over all layers, and what each layer may keep of the budget."""
        lost = {name: value for path in self.leaves for name, value in self._lost(path)}
        fronts = JobParetoFronts(self.job, chunks, lost)
        hulls = ParetoFronts(fronts.residuals, fronts.importance, larger=True)
        choice = hulls.within_kept(self.asked.kept)
        ends, kept, place = {}, np.append(0, np.cumsum(choice.sizes)), 0
        for chunk in self.job.chunks:
            place += self.job.chunk_size(chunk) * len(branches_of(self.job.plans[chunk.plan]))
            ends[self._leaf_of(chunk)] = place
        bounds = [kept[ends[path]] / max(kept[-1], 1) for path in self.leaves]
        whole = [int(bound * self.asked.kept) for bound in bounds]
        return choice.multiplier, dict(zip(self.leaves, np.diff([0, *whole]).tolist(), strict=True))

    def _leaf_of(self, chunk: Chunk) -> str:
        tensor = self.job.plans[chunk.plan].tensor
        return next(path for path in self.leaves if tensor in self._names(path))

    def _names(self, path: str) -> list[str]:
        return [child_path(path, name) for name in self._operation(path).tensors()]

    def _operation(self, path: str) -> LinearLayer:
        of = self.job.network.sources[path].layer
        assert isinstance(of, LinearLayer)
        return of

    def _signs(self, path: str) -> int:
        return len(branches_of(self.plans[child_path(path, "weight")]))

    def _lost(self, path: str) -> Iterator[tuple[str, np.ndarray]]:
        """What a squared error of each weight counts, [signs, *shape], where others of its output make up for it."""
        of, signs = self._operation(path), self._signs(path)
        found = self._moments(path, self.networks[1], self.target, signs)
        factor = self._factor(path, self._damped(found.squares))
        each = 1 / np.diagonal(factor, axis1=1, axis2=2) ** 2  # [G, R]
        lost = np.repeat(each, of.outputs // of.groups, 0) * self.importance[path][:, None]  # [O, R]
        weights = lost[:, : lost.shape[1] - of.bias].reshape(of.outputs, signs, -1).swapaxes(0, 1)
        yield child_path(path, "weight"), weights.reshape(signs, *of.tensors()["weight"])
        if of.bias:
            yield child_path(path, "bias"), lost[None, :, -1]

    def _moments(self, path: str, network: Network, tensors: Any, signs: int) -> Moments:
        both = (network, self.networks[1]), (tensors, self.target)
        return moments_of(*both, path, self._operation(path), signs, self.asked.images, self.counts)

    def _damped(self, squares: np.ndarray) -> np.ndarray:
        mean = np.diagonal(squares, axis1=1, axis2=2).mean(1)
        # A group of inputs that are always 0 has any weights.
        extra = np.where(mean > 0, self.asked.damping * mean, 1.0)
        return squares + extra[:, None, None] * np.eye(squares.shape[1])

    def _factor(self, path: str, squares: np.ndarray) -> np.ndarray:
        found = factor_of(squares) if np.isfinite(squares).all() else None
        if found is None:
            raise InputError(
                f"the second moments of what {path!r} is given are singular or not finite on these examples; use a"
                f" damping above {self.asked.damping:g}, for example {max(10 * self.asked.damping, 0.01):g}, or other"
                " examples"
            )
        return found

    def finalise(self, path: str, share: int, price: float) -> int:
        """Settle one layer, and take its weights for the network from now on; how many it keeps."""
        of, signs = self._operation(path), self._signs(path)
        found = self._moments(path, self.networks[0], self.tensors, signs)
        squares = self._damped(found.squares)
        own = {name: self.target[child_path(path, name)] for name in of.tensors()}
        weights = weights_by_row(of, own, signs)
        extra = (squares - found.squares).reshape(of.groups, *squares.shape[1:])
        split = weights.reshape(len(weights), of.groups, -1).swapaxes(0, 1)  # [G, R, O / G]
        wanted = np.linalg.solve(squares, found.wanted + extra @ split).swapaxes(0, 1).reshape(weights.shape)
        order = np.argsort(-np.diagonal(squares, axis1=1, axis2=2).sum(0), kind="stable")
        squares = squares[:, order][:, :, order]
        drawn, steps = self._candidates(path)
        layer = LayerProblem(
            jnp.asarray(np.round(drawn / steps[:, None, None])[order].astype(np.int32)),
            jnp.asarray((steps * self._gains(path))[order], jnp.float32),
            jnp.asarray(wanted[order], jnp.float32),
            jnp.asarray(squares, jnp.float32),
            jnp.asarray(self._factor(path, squares), jnp.float32),
            jnp.asarray(self.importance[path], jnp.float32),
        )

        def solve(price: float) -> tuple[int, Found]:
            answer = settled(layer, np.float32(min(price, 3e38)), largest=self.asked.k_max, sweeps=self.asked.sweeps)
            return int(np.asarray(answer.chosen.sum())) + self._edges(path, answer, order), answer

        kept, answer = within_share(solve, share, price)
        chosen = np.empty(answer.chosen.shape, bool)
        chosen[order] = np.asarray(answer.chosen)
        made = np.where(chosen, drawn, np.float32(0)).sum(1, dtype=np.float64) * self._gains(path)[:, None]
        bound = max(
            plan.gain * plan.bound * plan.candidates * 2.0**-24
            for plan in (self.plans[name] for name in self._names(path))
        )
        self.worst = max(self.worst, float(np.abs(made - weights).max()) + bound)
        self._take(path, chosen, made)
        return kept

    def _parts(self, path: str) -> Iterator[tuple[Plan, Branch | None, slice]]:
        """The plans of a leaf and their branches, with the rows that each has."""
        start = 0
        for name in self._names(path):
            plan = self.plans[name]
            rows = plan.random_tensor.rows // self._operation(path).outputs
            for branch in branches_of(plan):
                yield plan, branch, slice(start, start + rows)
                start += rows

    def _candidates(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """The candidates of a leaf's rows, float32 [R, N, O], and a step for those of each row, a power of two."""
        outputs_, parts, steps = self._operation(path).outputs, [], []
        for plan, branch, rows in self._parts(path):
            chunks = [chunk for chunk in self.job.chunks if self.job.plans[chunk.plan] is plan]
            drawn = []
            for chunk in chunks:
                blocks = chunk.first + np.arange(chunk.count)
                own = np.asarray(candidates(plan, branch, blocks, attempt=0, seed=self.job.seed))[: chunk.count]
                drawn.append(own.repeat(plan.random_tensor.rows_per_block, 0))
            each = np.concatenate(drawn).reshape(outputs_, -1, plan.candidates)
            parts.append(each.transpose(1, 2, 0))
            reach = max(plan.candidates * plan.bound, 2.0**-90)
            steps.append(np.full(rows.stop - rows.start, 2.0 ** (math.ceil(math.log2(reach)) - _BITS)))
        return np.concatenate(parts), np.concatenate(steps)

    def _gains(self, path: str) -> np.ndarray:
        return np.concatenate([np.full(rows.stop - rows.start, plan.gain) for plan, _, rows in self._parts(path)])

    def _flat(self, chosen: np.ndarray, rows: slice) -> np.ndarray:
        """Some rows' subsets [R, N, O] in the order of their tensor's weights, [O R, N]."""
        return chosen[rows].transpose(2, 0, 1).reshape(-1, chosen.shape[1])

    def _edges(self, path: str, answer: Found, order: np.ndarray) -> int:
        """How many edges some weight behind them uses."""
        parts = [part for part in self._parts(path) if part[0].group is not None and part[0].edges is not None]
        if not parts:
            return 0
        chosen = np.empty(answer.chosen.shape, bool)
        chosen[order] = np.asarray(answer.chosen)
        used = 0
        for plan, _, rows in parts:
            assert plan.group is not None
            flat = self._flat(chosen, rows)
            packed, group = np.packbits(flat, axis=1), plan.group(np.arange(len(flat)))
            at = np.argsort(group, kind="stable")
            first = np.unique(group[at], return_index=True)[1]
            used += int(np.bitwise_count(np.bitwise_or.reduceat(packed[at], first)).sum())
        return used

    def _take(self, path: str, chosen: np.ndarray, made: np.ndarray) -> None:
        """The subsets and weights of a leaf that is settled."""
        values: dict[str, list[np.ndarray]] = {}
        for plan, _, rows in self._parts(path):
            self.subsets.setdefault(plan.tensor, []).append(np.asarray(pack_bits(self._flat(chosen, rows))))
            values.setdefault(plan.tensor, []).append(made[rows].T)
        for name, parts in values.items():
            self.tensors[name] = np.stack(parts).reshape(self.tensors[name].shape).astype(np.float32)

    def masks(self, chunk: Chunk) -> Masks:
        """The masks of a chunk of a layer that is settled."""
        plan = self.job.plans[chunk.plan]
        each = plan.random_tensor.rows_per_block
        rows = np.arange(chunk.first * each, (chunk.first + chunk.count) * each)
        mask = mask_rows(plan, rows, [bits[rows] for bits in self.subsets[plan.tensor]])
        return Masks(np.packbits(mask, bitorder="little"), NO_REDRAWS)
