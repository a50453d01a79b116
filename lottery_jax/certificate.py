"""The independent verifier: every residual of a ticket again, in float64 NumPy, from the seed and the bits alone."""

import dataclasses

import numpy as np

from lottery_jax.networks.architecture import Gadget, Layer, copies
from lottery_jax.networks.copies import Copies, kept_sums
from lottery_jax.ticket import Ticket

_SLAB_WEIGHTS = 1 << 18
_SLAB = 64  # inputs taken to float64 at a time, so that memory stays bounded


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `verify` found. Residuals are |approximation - target weight| in the target's units.

    The fields about residuals are None for a ticket without a target (a learned mask).
    worst_weight is (layer, input, output), or for a model's ticket (tensor, index in it), and worst_tensor its name.
    The tolerance of a ticket made within a budget is what it came to, rounded up: what it promises is kept_budget.
    """

    method: str
    seed: int
    source_weights: int
    kept_weights: int
    kept_by_tensor: dict[str, int]
    redrawn_blocks: int
    tolerance: float | None = None
    target_weights: int | None = None
    within_tolerance: int | None = None
    mean_residual: float | None = None
    worst_residual: float | None = None
    worst_weight: tuple[int, ...] | None = None
    worst_tensor: str | None = None
    kept_budget: int | None = None

    @property
    def within_budget(self) -> bool:
        """True when no more weights are kept than promised (and for a ticket that promises no number)."""
        return self.kept_budget is None or self.kept_weights <= self.kept_budget

    @property
    def holds(self) -> bool:
        """True when every target weight is within the tolerance and the budget is kept, where they are promised."""
        return self.within_tolerance == self.target_weights and self.within_budget


def layer_weights(layer: Layer, source: dict[str, np.ndarray], masks: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The dense weights [I, O] that a masked layer computes, float64: one matrix per sign of input that must agree.

    For inputs >= 0 a gadget's units with a positive first weight u_k give sum_k u_k v_k; for inputs < 0 those with
    a negative one do. Without ReLU, and for the other layers, one matrix serves both.
    """
    if isinstance(layer, Copies):
        step = max(_SLAB_WEIGHTS // (layer.copies * layer.block_weights), 1)
        rows = masks["kernel"].reshape(layer.blocks, -1)
        starts = range(0, layer.blocks, step)
        sums = [kept_sums(layer, source["kernel"][b : b + step], rows[b : b + step]) for b in starts]
        return [np.concatenate(sums).reshape(layer.shape)]
    if not isinstance(layer, Gadget):
        kernel = source["kernel"]
        if kernel.ndim == 2:
            return [layer.gain * np.where(masks["kernel"], kernel.astype(np.float64), 0.0)]
        wide = np.broadcast_to(kernel, masks["kernel"].shape)
        slabs = [slice(i, i + _SLAB) for i in range(0, layer.inputs, _SLAB)]
        parts = [np.where(masks["kernel"][s], wide[s].astype(np.float64), 0.0).sum(1) for s in slabs]
        return [layer.gain * np.concatenate(parts)]
    first = np.where(masks["first"], source["first"].astype(np.float64), 0.0)
    if not layer.relu:
        branches = [first]
    elif layer.signed:
        branches = [np.maximum(first, 0.0), np.minimum(first, 0.0)]
    else:
        branches = [np.maximum(first, 0.0)]
    totals = [np.empty((layer.inputs, layer.outputs)) for _ in branches]
    for start in range(0, layer.inputs, _SLAB):
        slab = slice(start, start + _SLAB)
        second = np.where(masks["second"][slab], source["second"][slab].astype(np.float64), 0.0)
        for branch, total in zip(branches, totals, strict=True):
            total[slab] = layer.gain * np.matmul(branch[slab, None, :], second)[:, 0]
    return totals


def approximated_weights(ticket: Ticket) -> list[list[np.ndarray]]:
    """For each layer, the dense float64 matrices of `layer_weights`: the collapsed form of the masked network."""
    collapsed = []
    for place, layer in enumerate(ticket.architecture):
        names = {name: f"{place}.{name}" for name in layer.shapes()}
        source = {name: ticket.source[full] for name, full in names.items()}
        masks = {name: ticket.masks[full] for name, full in names.items()}
        collapsed.append(layer_weights(layer, source, masks))
    return collapsed


def verify(ticket: Ticket) -> Certificate:
    """Recompute every residual of a ticket without the solver; a learned ticket is only counted."""
    names = {f"{place}.kernel": layer.name for place, layer in enumerate(copies(ticket.architecture))}
    counts = {names.get(name, name): int(np.count_nonzero(mask)) for name, mask in ticket.masks.items()}
    found = Certificate(
        ticket.method,
        ticket.seed,
        ticket.source_weights,
        sum(counts.values()),
        counts,
        sum(len(rows) for rows in ticket.redraws.values()),
        ticket.tolerance,
        kept_budget=ticket.kept_budget,
    )
    if ticket.target is None or ticket.tolerance is None:
        return found
    within, total, mean, worst, where = 0, 0, 0.0, -1.0, (0,)
    for place, (target, sums) in enumerate(zip(ticket.target, approximated_weights(ticket), strict=True)):
        residual = np.max([np.abs(weight - target.astype(np.float64)) for weight in sums], axis=0)
        within += int(np.count_nonzero(residual <= ticket.tolerance))
        total += residual.size
        mean += float(residual.sum())
        if residual.max() > worst:
            worst = float(residual.max())
            where = (place, *(int(i) for i in np.unravel_index(int(residual.argmax()), residual.shape)))
    return dataclasses.replace(
        found,
        target_weights=total,
        within_tolerance=within,
        mean_residual=mean / total,
        worst_residual=worst,
        worst_weight=where,
        worst_tensor=names.get(f"{where[0]}.kernel"),
    )
