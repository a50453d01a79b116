"""The verifier: every residual of a ticket, recomputed in float64 NumPy from seed and masks, without the solver."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from lottery_jax.errors import InputError, TicketError
from lottery_jax.io.tensor_file import read_float64
from lottery_jax.networks.network import Network, summary
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress, no_progress
from lottery_jax.tickets.box_bounds import Box, BoxBound, bound_box
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.effective_slices import (
    ApproximatedTensor,
    EffectiveSlice,
    approximated_tensors,
    effective_slices,
)
from lottery_jax.tickets.faults import (
    forced_entry_faults,
    rounding_faults,
    stored_weight_faults,
    target_faults,
    trained_faults,
)
from lottery_jax.tickets.given_target import FileName, GivenTarget, TargetFile, given_target
from lottery_jax.tickets.header import check_tolerance
from lottery_jax.tickets.linear_terms import random_terms
from lottery_jax.tickets.overflow import overflow_doubts
from lottery_jax.tickets.rounding import (
    LARGEST,
    Float32Bound,
    LayerRounding,
    RowSums,
    any_cancels,
    float32_bound,
    float64_faults,
    layer_rounding,
)
from lottery_jax.tickets.size.description_length import description_bits, rounding_bits
from lottery_jax.tickets.ticket import Ticket, count_kept, load_ticket


@dataclasses.dataclass(frozen=True, eq=False)
class Verification:
    """A certificate, and what was reconstructed for it.

    `target` is in the form of the ticket's network. `weights` are the ``effective_weights``; None if no residuals were
    computed, or for a model without a graph, whose weights are only read in slices.
    """

    certificate: Certificate
    ticket: Ticket
    target: Target | None
    weights: dict[str, np.ndarray] | None


def verify(
    ticket: Ticket | FileName,
    *,
    target: Target | TargetFile | FileName | None = None,
    expect: Network | FileName | None = None,
    tolerance: float | None = None,
    box: Box | None = None,
    limit: float = 1.0,
    progress: Progress = no_progress,
) -> Certificate:
    """Recompute every residual of a ticket without the solver, and bound what float32 may add.

    Args:
        target: The target or its .safetensors file; batch normalisations are folded and attention is merged as in the
            ticket. Default: the ticket's unverified copy of its target, which proves no more than that. What a file
            does not fix is taken from the ticket, unless `expect` is given.
        expect: The target's network, or a JSON file of it (`export --network`); a ticket for another one is broken.
        tolerance: Largest allowed residual; default: the one that the ticket promises. Not used for trained weights.
        box: The smallest and the largest input of the promise. Default: [0, 1] for inputs that are never negative,
            otherwise [-1, 1].
        limit: Multiple of the work that a file may ask for, as in ``load_ticket``.

    Raises:
        TicketError: The file is not a valid ticket.
        InputError: A file cannot be read or asks for more work than the limit, or an argument is wrong.

    >>> from lottery_jax.approximation import approximate
    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> target = mlp_target([np.array([[0.3, -0.2]], np.float32)])
    >>> verify(approximate(target, seed=0, candidates=8, tolerance=0.1), target=target).outcome
    'holds'
    """
    options = {"target": target, "expect": expect, "tolerance": tolerance, "box": box, "limit": limit}
    return verify_with_weights(ticket, **options, progress=progress).certificate


def verify_with_weights(
    ticket: Ticket | FileName,
    *,
    target: Target | TargetFile | FileName | None = None,
    expect: Network | FileName | None = None,
    tolerance: float | None = None,
    box: Box | None = None,
    limit: float = 1.0,
    progress: Progress = no_progress,
) -> Verification:
    """``verify``, with the effective weights for those who need them next: they are reconstructed once."""
    if not isinstance(ticket, Ticket):
        ticket = load_ticket(ticket, limit=limit)
    if tolerance is not None:
        check_tolerance(tolerance, zero=True)
    given = given_target(ticket.network, target, expect)
    box = _checked_box(ticket.network, box)
    kept = {}
    for name in ticket.network.random_tensors:
        kept[name] = count_kept(ticket.content, name)
    reference, residuals, float32, doubts = None, None, None, list[str]()
    reasons = [*given.faults] or forced_entry_faults(ticket)
    if not reasons and ticket.network.trained_tensors:
        # Stored weights can be near to any target, which would say nothing about seed and masks.
        reasons = trained_faults(ticket, kept)
    elif not reasons and (reference := _reference(ticket, given.target, tolerance)) is not None:
        reasons = stored_weight_faults(ticket) or ([] if given.target is None else target_faults(ticket, given.target))
        if not reasons:
            residuals = _residuals(ticket, reference, progress)
            reasons = _promise_faults(ticket, reference, residuals, sum(kept.values()))
        if not reasons and residuals is not None:
            doubts = _empty_promises(ticket.network.approximated, residuals)
            if box is not None:  # otherwise there is no graph, and no network is run
                float32 = _bound_float32(ticket, given, reference.target, residuals, box)
                reasons, doubts = float32.bound.faults, doubts + float32.bound.doubts + float32.doubts
                cancels = any_cancels(residuals.sums, residuals.largest)
                (reasons if cancels else doubts).extend(float32.values.copy_faults)
            if not reasons and reference.tolerance > 0:
                reasons = float64_faults(residuals.sums, residuals.allowed)
    certificate = _certificate(ticket, given, kept, reasons, doubts, reference, residuals, float32, box)
    return Verification(certificate, ticket, reference and reference.target, residuals and residuals.weights)


def _checked_box(network: Network, box: Box | None) -> Box | None:
    """The box of the promise, by default that of usual data; None for a model without a graph."""
    given = network.input_spec
    if given is None:
        if box is not None:
            raise InputError("box must be omitted for a model without a graph, which has no inputs")
        return None
    if box is None:
        return (0.0, 1.0) if given.nonnegative else (-1.0, 1.0)
    low, high = box
    if not (low <= high and max(-low, high) <= LARGEST):
        raise InputError(f"box must be two finite float32 numbers, the smaller one first, got {low} and {high}")
    if given.nonnegative and low < 0:
        raise InputError(
            f"box must be 0 or more for a ticket whose inputs are never negative, got {low}. Give a box from 0 up."
        )
    return float(low), float(high)


@dataclasses.dataclass(frozen=True, eq=False)
class _Reference:
    """What weights are compared with; `relative`: the tolerance is a fraction of each tensor's largest weight."""

    target: Target
    own: bool
    tolerance: float
    relative: bool


def _reference(ticket: Ticket, target: Target | None, tolerance: float | None) -> _Reference | None:
    """The target and the tolerance; None if one of them is missing."""
    header, compared = ticket.header, target or ticket.target
    asked, relative = (header.tolerance, header.relative) if tolerance is None else (tolerance, False)
    if compared is None or asked is None:
        return None
    try:
        _ = compared.digest
    except InputError as error:  # it contains NaN: nothing is near to that
        if target is not None:
            raise
        raise TicketError(f"the ticket is not valid: {error}") from error
    return _Reference(compared, target is None, asked, relative)


@dataclasses.dataclass(frozen=True, eq=False)
class _Residuals:
    """Statistics of all residuals, and by tensor what float32 is bounded from.

    `allowed` is the tolerance of each tensor, `largest` its largest absolute target weight. `copy_sizes` are the sums
    of absolute terms of tensors whose inputs have copies, `layers` the rounding of random layers by path.
    """

    allowed: dict[str, float]
    largest: dict[str, float]
    sums: dict[str, RowSums]
    layers: dict[str, LayerRounding]
    copy_sizes: dict[str, np.ndarray]
    target_weights: int
    within_tolerance: int
    mean: float
    worst: float
    worst_tensor: str
    worst_weight: tuple[int, ...]
    rounding_bits: dict[str, int] | None
    weights: dict[str, np.ndarray] | None

    @property
    def tolerance(self) -> float:
        """The largest residual allowed in any tensor, in the target's units."""
        return max(self.allowed.values())

    @property
    def empty_promises(self) -> tuple[str, ...]:
        """Tensors other than zero of which zero weights would be within the tolerance."""
        return tuple(name for name, largest in self.largest.items() if 0 < largest <= self.allowed[name])


def _residuals(ticket: Ticket, reference: _Reference, progress: Progress) -> _Residuals:
    """Compare all effective weights with the target, slice by slice; they are gathered if the graph is known."""
    target, network = reference.target, ticket.network
    shapes, runs = network.approximated, network.input_spec is not None
    largest = {name: target.scan(name).largest for name in shapes}
    allowed = {name: reference.tolerance * (largest[name] if reference.relative else 1.0) for name in shapes}
    gathered, copy_sizes = dict[str, np.ndarray](), dict[str, np.ndarray]()
    sums: dict[str, RowSums] = {}
    by_path: dict[str, list[ApproximatedTensor]] = {}
    within, checked, total, worst, worst_at = 0, 0, 0.0, -1.0, ("", 0)
    worst_by_tensor: dict[str, float] = {}

    def reduce(part: EffectiveSlice) -> tuple[int, np.ndarray, RowSums]:
        count = part.values.shape[1]
        for arrays, values in ((gathered, part.values), (copy_sizes, part.sizes)):
            if part.name in arrays:
                arrays[part.name][:, part.first : part.first + count] = values
        difference = part.values - read_float64(target.tensors, part.name, part.first, count)
        rows = RowSums.of_slice(part, math.prod(shapes[part.name][1:]))
        return part.first, np.abs(difference).max(0), rows

    for tensor in approximated_tensors(network, ticket.seed, ticket.content):
        name, copies = tensor.name, tensor.source.rows_per_weight
        by_path.setdefault(tensor.path, []).append(tensor)
        sums[name] = RowSums.zeros(copies, shapes[name][0])
        if runs:
            shape = len(tensor.signs) * copies, tensor.random_tensor.rows // copies
            gathered[name] = np.empty(shape)
            given = network.input_spec_of(tensor.path)
            if given is not None and given.copies > 1:
                copy_sizes[name] = np.empty(shape)
        for first, residuals, rows in effective_slices(tensor, reduce):
            index = int(residuals.argmax())
            sums[name].add(rows, first // math.prod(shapes[name][1:]))
            within += int(np.count_nonzero(residuals <= allowed[name]))
            checked += len(residuals)
            total += float(residuals.sum())
            worst_by_tensor[name] = float(np.maximum(worst_by_tensor.get(name, 0.0), residuals[index]))
            if not residuals[index] <= worst:  # a NaN is worst
                worst, worst_at = float(residuals[index]), (name, first + index)
            progress(checked, target.weights)
    layers = {}
    for path, tensors in by_path.items() if runs else ():
        own = {tensor.parameter: sums[tensor.name] for tensor in tensors}
        layers[path] = layer_rounding(path, tensors[0].source, own, tensors[0].edges)
    name, index = worst_at
    return _Residuals(
        allowed=allowed,
        largest=largest,
        sums=sums,
        layers=layers,
        copy_sizes=copy_sizes,
        target_weights=checked,
        within_tolerance=within,
        mean=total / checked,
        worst=worst,
        worst_tensor=name,
        worst_weight=tuple(int(i) for i in np.unravel_index(index, shapes[name])),
        rounding_bits=rounding_bits(target, worst_by_tensor if reference.relative else worst),
        weights={name: own.reshape(-1, *shapes[name]) for name, own in gathered.items()} or None,
    )


def _promise_faults(ticket: Ticket, reference: _Reference, residuals: _Residuals, kept: int) -> list[str]:
    """Promises that are not kept: equality, the tolerance, the budget of kept weights."""
    reasons = rounding_faults(ticket) if reference.tolerance == 0 else []
    missed, budget = residuals.target_weights - residuals.within_tolerance, ticket.header.kept_budget
    if missed:
        limit = f"{reference.tolerance:g}" + " of their tensor's largest" * reference.relative
        reasons.append(f"{missed:,} target weights are not within {limit}")
    if budget is not None and kept > budget:
        reasons.append(f"it keeps {kept:,} weights and promises at most {budget:,}")
    return reasons


@dataclasses.dataclass(frozen=True)
class _Float32:
    """What float32 may add to weights, the values on the box, and why these are no guarantee."""

    bound: Float32Bound
    values: BoxBound
    copied: bool
    doubts: list[str]


def _bound_float32(ticket: Ticket, given: GivenTarget, target: Target, residuals: _Residuals, box: Box) -> _Float32:
    """The bounds of float32 for a network that is run."""
    network = ticket.network

    def tensor(name: str) -> np.ndarray:
        return target.array(name).astype(np.float64)

    copied = any(source.rows_per_weight > 1 for source in network.sources.values())
    assert residuals.weights is not None
    terms = random_terms(
        residuals.layers, residuals.weights, residuals.copy_sizes, residuals.allowed, tensor if copied else None
    )
    values = bound_box(network.target, terms, tensor, box, copied=copied)
    doubts = overflow_doubts(network.target, values, terms, tensor, box, given=given.fixed, copied=copied)
    return _Float32(float32_bound(residuals.layers, residuals.allowed, residuals.largest), values, copied, doubts)


def _empty_promises(shapes: Mapping[str, tuple[int, ...]], residuals: _Residuals) -> list[str]:
    """Why the ticket has no guarantee: zero weights would be within the tolerance of a whole tensor."""
    # A layer with small biases approximates the target all the same.
    matrices = [name for name, shape in shapes.items() if len(shape) > 1] or list(shapes)
    found = [name for name in matrices if name in residuals.empty_promises]
    if not found:
        return []
    more = f" and {len(found) - 1:,} more tensors" if len(found) > 1 else ""
    name, least = found[0], min(residuals.largest[name] for name in found)
    return [
        f"zero weights would keep the promise for {name!r}{more}: the tolerance {residuals.allowed[name]:.3g} is not"
        f" below the largest target weight {residuals.largest[name]:.3g}, but --tolerance {least / 100:.1g} would be"
    ]


def _certificate(
    ticket: Ticket,
    given: GivenTarget,
    kept: dict[str, int],
    reasons: list[str],
    doubts: list[str],
    reference: _Reference | None,
    residuals: _Residuals | None,
    float32: _Float32 | None,
    box: Box | None,
) -> Certificate:
    """All results of the phases as one certificate; None for phases that were not reached."""
    network, bits = ticket.network, description_bits(ticket)
    approximated, redrawn, largest_attempt, samplers = 0, 0, 0, dict[str, None]()
    for name, tensor in network.random_tensors.items():
        rows = ticket.redraws(name)
        redrawn, largest_attempt = redrawn + len(rows), max(largest_attempt, int(rows[:, 1].max(initial=0)))
        samplers[tensor.sampler.in_words()] = None
    for shape in network.approximated.values():
        approximated += math.prod(shape)
    return Certificate(
        outcome="broken" if reasons else "no guarantee" if residuals is None or doubts else "holds",
        reasons=tuple(reasons or doubts),
        method=ticket.header.method,
        seed=ticket.seed,
        source_weights=network.source_weights,
        kept_weights=sum(kept.values()),
        kept_by_tensor=kept,
        redrawn_blocks=redrawn,
        largest_attempt=largest_attempt,
        description_bits=bits,
        bits_per_target_weight=sum(bits.values()) / approximated,
        samplers=tuple(samplers),
        nonnegative_inputs=network.input_spec and network.input_spec.nonnegative,
        network=summary(network.target),
        kept_budget=ticket.header.kept_budget,
        target_sha256=reference and reference.target.digest,
        own_target=reference is None or reference.own,
        tolerance=residuals.tolerance if residuals else reference and reference.tolerance,
        target_weights=residuals and residuals.target_weights,
        within_tolerance=residuals and residuals.within_tolerance,
        mean_residual=residuals and residuals.mean,
        worst_residual=residuals and residuals.worst,
        worst_tensor=residuals and residuals.worst_tensor,
        worst_weight=residuals and residuals.worst_weight,
        rounding_bits=residuals and residuals.rounding_bits,
        box=box,
        float32_addition=float32.bound.addition if float32 and math.isfinite(float32.bound.addition) else None,
        float32_allowed=float32 and float32.bound.allowed,
        float32_target_addition=float32 and float32.bound.target_addition,
        float32_tensor=float32 and float32.bound.tensor,
        largest_value=float32.values.largest if float32 and float32.values.bounded else None,
        largest_value_layer=float32 and float32.values.layer,
        copies_apart=float32.values.apart if float32 and float32.copied else None,
        copies_apart_allowed=float32.values.apart_allowed if float32 and float32.copied else None,
        empty_promises=residuals.empty_promises if residuals else (),
        trained=bool(network.trained_tensors),
        relative_tolerance=reference.tolerance if reference and residuals and reference.relative else None,
        taken_from_ticket=given.taken_from_ticket,
    )
