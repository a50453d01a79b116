"""The verifier: every residual of a ticket, recomputed in float64 NumPy from seed and masks, without the solver."""

import dataclasses
import math

import jax
import numpy as np

from lottery_jax.errors import InputError, TicketError
from lottery_jax.io.tensor_file import read_float64
from lottery_jax.networks.network import Network, summary
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress, no_progress
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.faults import (
    forced_entry_faults,
    rounding_faults,
    stored_weight_faults,
    target_faults,
    trained_faults,
)
from lottery_jax.tickets.given_target import FileName, GivenTarget, TargetFile, given_target
from lottery_jax.tickets.header import check_tolerance
from lottery_jax.tickets.probe import Probe, probe_float32
from lottery_jax.tickets.reconstruct import EffectiveSlice, approximated_tensors, effective_slices
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
    limit: float = 1.0,
    progress: Progress = no_progress,
) -> Certificate:
    """Recompute every residual of a ticket without the solver.

    Args:
        target: The target or its .safetensors file; batch normalisations are folded and attention is merged as in the
            ticket. Default: the ticket's unverified copy of its target, which proves no more than that. What a file
            does not fix is taken from the ticket, unless `expect` is given.
        expect: The target's network, or a JSON file of it (`export --network`); a ticket for another one is broken.
        tolerance: Largest allowed residual; default: the one that the ticket promises. Not used for trained weights.
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
    found = verify_with_weights(
        ticket, target=target, expect=expect, tolerance=tolerance, limit=limit, progress=progress
    )
    return found.certificate


def verify_with_weights(
    ticket: Ticket | FileName,
    *,
    target: Target | TargetFile | FileName | None = None,
    expect: Network | FileName | None = None,
    tolerance: float | None = None,
    limit: float = 1.0,
    progress: Progress = no_progress,
) -> Verification:
    """``verify``, with the effective weights for those who need them next: they are reconstructed once."""
    if not isinstance(ticket, Ticket):
        ticket = load_ticket(ticket, limit=limit)
    if tolerance is not None:
        check_tolerance(tolerance, zero=True)
    given = given_target(ticket.network, target, expect)
    kept = {}
    for name in ticket.network.random_tensors:
        kept[name] = count_kept(ticket.content, name)
    reference, residuals, probe = None, None, None
    reasons = [*given.faults] or forced_entry_faults(ticket)
    if not reasons and ticket.network.trained_tensors:
        # Stored weights can be near to any target, which would say nothing about seed and masks.
        reasons = trained_faults(ticket, kept)
    elif not reasons and (reference := _reference(ticket, given.target, tolerance)) is not None:
        reasons = stored_weight_faults(ticket) or ([] if given.target is None else target_faults(ticket, given.target))
        if not reasons:
            residuals = _residuals(ticket, reference, progress)
            reasons = _promise_faults(ticket, reference, residuals, sum(kept.values()))
        if not reasons and residuals is not None and residuals.weights is not None:
            try:
                probe = probe_float32(ticket, residuals.weights, residuals.tolerance)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                raise InputError(f"the ticket's network cannot be run here: {str(error).splitlines()[0]}") from error
            reasons = probe.faults
    certificate = _certificate(ticket, given, kept, reasons, reference, residuals, probe)
    return Verification(certificate, ticket, reference and reference.target, residuals and residuals.weights)


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
    """Statistics of all residuals; `tolerance`: the largest one allowed in any tensor, in the target's units."""

    tolerance: float
    target_weights: int
    within_tolerance: int
    mean: float
    worst: float
    worst_tensor: str
    worst_weight: tuple[int, ...]
    rounding_bits: dict[str, int] | None
    weights: dict[str, np.ndarray] | None


def _residuals(ticket: Ticket, reference: _Reference, progress: Progress) -> _Residuals:
    """Compare all effective weights with the target, slice by slice; they are gathered if the graph is known."""
    target, shapes = reference.target, ticket.network.approximated
    scale = {name: target.scan(name).largest if reference.relative else 1.0 for name in shapes}
    allowed = {name: reference.tolerance * factor for name, factor in scale.items()}
    gathered: dict[str, np.ndarray] = {}
    within, checked, total, worst, worst_at = 0, 0, 0.0, -1.0, ("", 0)
    worst_by_tensor: dict[str, float] = {}

    def subtract(part: EffectiveSlice) -> EffectiveSlice:
        count = part.values.shape[1]
        if part.name in gathered:
            gathered[part.name][:, part.first : part.first + count] = part.values
        difference = part.values - read_float64(target.tensors, part.name, part.first, count)
        return dataclasses.replace(part, values=np.abs(difference).max(0))

    for tensor in approximated_tensors(ticket):
        name, copies = tensor.name, tensor.source.rows_per_weight
        if ticket.network.input_spec is not None:
            gathered[name] = np.empty((len(tensor.signs) * copies, tensor.random_tensor.rows // copies))
        for part in effective_slices(ticket, tensor, subtract):
            residuals, index = part.values, int(part.values.argmax())
            within += int(np.count_nonzero(residuals <= allowed[name]))
            checked += len(residuals)
            total += float(residuals.sum())
            worst_by_tensor[name] = float(np.maximum(worst_by_tensor.get(name, 0.0), residuals[index]))
            if not residuals[index] <= worst:  # a NaN is worst
                worst, worst_at = float(residuals[index]), (name, part.first + index)
            progress(checked, target.weights)
    name, index = worst_at
    return _Residuals(
        tolerance=max(allowed.values()),
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


def _certificate(
    ticket: Ticket,
    given: GivenTarget,
    kept: dict[str, int],
    reasons: list[str],
    reference: _Reference | None,
    residuals: _Residuals | None,
    probe: Probe | None,
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
        outcome="broken" if reasons else "no guarantee" if residuals is None else "holds",
        reasons=tuple(reasons),
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
        network_deviation=probe and probe.deviation,
        trained=bool(network.trained_tensors),
        relative_tolerance=reference.tolerance if reference and residuals and reference.relative else None,
        taken_from_ticket=given.taken_from_ticket,
    )
