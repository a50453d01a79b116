"""The independent verifier: every residual of a ticket again, in float64 NumPy, from the seed and the bits alone.

What it says is about the target that it is given; a target inside a ticket is only the ticket's own word.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Literal

import jax
import numpy as np

from lottery_jax.errors import InputError, TicketError
from lottery_jax.networks.merge import as_in
from lottery_jax.networks.summary import summary
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress, unseen
from lottery_jax.storage.store import read_float64
from lottery_jax.tickets.description import description_bits, rounding_bits
from lottery_jax.tickets.effective import Effective, approximated_leaves, decided_bits, effective_slices
from lottery_jax.tickets.header import check_tolerance
from lottery_jax.tickets.probe import probe
from lottery_jax.tickets.ticket import Ticket, kept_bits, load_ticket
from lottery_jax.tickets.trained_faults import trained_faults

Outcome = Literal["holds", "broken", "promises nothing"]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `verify` found. Residuals are |approximation - target weight| in the target's units.

    outcome: `holds`, `broken` (`reasons` say why) or `promises nothing`. nonnegative_inputs: whether it is about inputs
    that are never negative (of a model without a graph: None). own_target: True where nothing but the ticket's own
    target was there to compare with. description_bits: everything that was free, by part. bits_per_target_weight: the
    sum of these over the weights that the network stands for, the target itself not counted. rounding_bits: what the
    target takes, rounded to a grid with the same largest residual (of each tensor, where the tolerance is relative).
    network_deviation: largest difference of the float32 network from its exact collapsed form on random inputs.
    network: what is approximated, in words: layers, shapes [out, in, ...], inputs. trained: whether weights of it were
    trained, not drawn, so that it is no strong ticket and proves nothing of a target. relative_tolerance: what is
    asked, where it counts in each tensor's largest |target weight|; `tolerance` is then what it comes to for the
    largest of them.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    method: str
    seed: int
    source_weights: int
    kept_weights: int
    kept_by_tensor: dict[str, int]
    redrawn_blocks: int
    largest_attempt: int
    description_bits: dict[str, int]
    bits_per_target_weight: float
    samplers: tuple[str, ...]
    nonnegative_inputs: bool | None
    network: str
    kept_budget: int | None = None
    target_sha256: str | None = None
    own_target: bool = True
    tolerance: float | None = None
    target_weights: int | None = None
    within_tolerance: int | None = None
    mean_residual: float | None = None
    worst_residual: float | None = None
    worst_tensor: str | None = None
    worst_weight: tuple[int, ...] | None = None
    rounding_bits: dict[str, int] | None = None
    network_deviation: float | None = None
    trained: bool = False
    relative_tolerance: float | None = None

    @property
    def holds(self) -> bool:
        """True where every target weight is within the tolerance, and all else that is promised is so."""
        return self.outcome == "holds"

    @property
    def rounding_bits_per_target_weight(self) -> float | None:
        """`rounding_bits` in all, for each target weight; None where there is nothing to compare with."""
        if self.rounding_bits is None or self.target_weights is None:
            return None
        return sum(self.rounding_bits.values()) / self.target_weights


def certify(
    ticket: Ticket | str | os.PathLike[str],
    *,
    target: Target | None = None,
    tolerance: float | None = None,
    progress: Progress = unseen,
) -> Certificate:
    """Recompute every residual of a ticket, or of a ticket's file, without the solver.

    target: the network that it shall approximate; its batch normalisations are folded first, and its attention merged
    where the ticket's is. If left out, the ticket is held to the target that it brings, which proves no more than that.
    tolerance: what is asked of each weight, if not what the ticket promises. Of a ticket whose weights were trained,
    neither is asked. progress: called with (weights checked, weights in all). Memory is bounded by the slice.
    Raises `TicketError` for a file that is no valid ticket, `InputError` for one that cannot be read.
    """
    if not isinstance(ticket, Ticket):
        ticket = load_ticket(ticket)
    if tolerance is not None:
        check_tolerance(tolerance, zero=True)
    own = ticket.target
    if target is not None:
        target = as_in(target, ticket.network)
    wanted = target or own
    asked, relative = (ticket.header.tolerance, ticket.header.relative) if tolerance is None else (tolerance, False)
    found = _counted(ticket)
    if reasons := _against_the_seed(ticket):
        return dataclasses.replace(found, outcome="broken", reasons=tuple(reasons))
    if found.trained:
        # Stored weights can be near to any target, which would say nothing of seed and bits.
        reasons = trained_faults(ticket, found.kept_by_tensor)
        return dataclasses.replace(found, outcome="broken", reasons=tuple(reasons)) if reasons else found
    if wanted is None or asked is None:
        return found
    try:
        digest = wanted.digest
    except InputError as error:  # NaN in it: there is nothing to be near to
        if target is not None:
            raise
        raise TicketError(f"the ticket is not valid: {error}") from error
    found = dataclasses.replace(found, target_sha256=digest, own_target=target is None, tolerance=asked)
    reasons = _not_random(ticket) or ([] if target is None else _differences(ticket, target))
    if reasons:
        return dataclasses.replace(found, outcome="broken", reasons=tuple(reasons))
    if asked == 0:
        reasons += _roundings(ticket)
    allowed = {name: asked * (wanted.scan(name).largest if relative else 1.0) for name in ticket.network.approximated}
    if relative:
        found = dataclasses.replace(found, relative_tolerance=asked, tolerance=max(allowed.values()))
        asked = max(allowed.values())
    found, made = _residuals(ticket, wanted, allowed, found, progress)
    assert found.within_tolerance is not None and found.target_weights is not None
    if found.within_tolerance < found.target_weights:
        missed = found.target_weights - found.within_tolerance
        limit = f"{found.relative_tolerance:g} of their tensor's largest" if relative else f"{asked:g}"
        reasons.append(f"{missed:,} target weights are not within {limit}")
    if found.kept_budget is not None and found.kept_weights > found.kept_budget:
        reasons.append(f"it keeps {found.kept_weights:,} weights and promises at most {found.kept_budget:,}")
    if not reasons and ticket.network.given is not None:
        try:
            probed = probe(ticket, made, asked)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            raise InputError(f"the ticket's network cannot be run here: {str(error).splitlines()[0]}") from error
        found = dataclasses.replace(found, network_deviation=probed.deviation)
        if not probed.passed:
            reasons.append(
                f"its float32 network is {probed.deviation:.3g} away from what its weights say, on random inputs where"
                f" rounding may explain {probed.allowed:.3g}"
            )
        if probed.apart > probed.apart_allowed:
            reasons.append(
                f"the copies of its neurons differ so much that the network is {probed.apart:.3g} away from one without"
                f" copies on random inputs, where weights moved by the tolerance explain {probed.apart_allowed:.3g}"
            )
    return dataclasses.replace(found, outcome="broken" if reasons else "holds", reasons=tuple(reasons))


def _counted(ticket: Ticket) -> Certificate:
    """What can be said of any ticket."""
    network = ticket.network
    counts = {name: kept_bits(ticket.content, name) for name in network.drawn}
    redraws = [rows for name in network.drawn if len(rows := ticket.redraws(name))]
    bits = description_bits(ticket)
    return Certificate(
        outcome="promises nothing",
        reasons=(),
        method=ticket.header.method,
        seed=ticket.seed,
        source_weights=network.source_weights,
        kept_weights=sum(counts.values()),
        kept_by_tensor=counts,
        redrawn_blocks=sum(map(len, redraws)),
        largest_attempt=max((int(rows[:, 1].max()) for rows in redraws), default=0),
        description_bits=bits,
        bits_per_target_weight=sum(bits.values()) / sum(map(math.prod, network.approximated.values())),
        samplers=tuple(dict.fromkeys(drawn.sampler.in_words() for drawn in network.drawn.values())),
        nonnegative_inputs=None if network.given is None else network.given.nonnegative,
        network=summary(network.target),
        kept_budget=ticket.header.kept_budget,
        trained=bool(network.trained),
    )


def _against_the_seed(ticket: Ticket) -> list[str]:
    """Why masks are none of this source: what the seed says is absent is kept, or what it has locked is not."""
    decided = {name: decided_bits(ticket, name) for name in ticket.network.drawn}
    absent = [repr(name) for name, own in decided.items() if own.absent_kept]
    pruned = [repr(name) for name, own in decided.items() if own.locked_pruned]
    reasons = []
    if absent:
        reasons.append(f"it counts weights as kept that its source does not have, in {', '.join(absent[:3])}")
    if pruned:
        reasons.append(f"it prunes weights that its source has locked as kept, in {', '.join(pruned[:3])}")
    return reasons


def _not_random(ticket: Ticket) -> list[str]:
    """Layers that would be approximated by nothing: residuals are those of random leaves."""
    stored = sorted(ticket.network.affine)
    if stored:
        more = f" and {len(stored) - 3:,} more" if len(stored) > 3 else ""
        return [f"the weights of {', '.join(map(repr, stored[:3]))}{more} are stored in it, not made of random ones"]
    return [] if ticket.network.sources else ["no weight of its network is random"]


def _differences(ticket: Ticket, target: Target) -> list[str]:
    """Why a ticket's network is no approximation of this target, whatever its weights are."""
    mine, theirs = ticket.network.target, target.network
    if mine.root != theirs.root or (mine.given and mine.given.shape) != (theirs.given and theirs.given.shape):
        return ["it was made for a network of other layers than this target"]
    if mine.given and theirs.given and mine.given.nonnegative and not theirs.given.nonnegative:
        return ["it is for inputs that are never negative, and this target's may be"]
    kept = set(mine.tensors) - set(mine.approximated)
    changed = [name for name in kept if not np.array_equal(ticket.stored[name], target.array(name).astype(np.float32))]
    return [f"the stored tensors {sorted(changed)} are not the target's"] if changed else []


def _roundings(ticket: Ticket) -> list[str]:
    """Why residuals of 0 would not show equality: sums of these random weights are rounded in float64."""
    network = ticket.network
    grids = all(drawn.sampler.kind == "grid" for drawn in network.drawn.values())
    if grids and all(math.frexp(gain)[0] == 0.5 for gain in network.gains.values()):
        return []
    return ["equality is asked for, and its random weights times their gain are on no grid of powers of two"]


def _residuals(
    ticket: Ticket, target: Target, allowed: Mapping[str, float], found: Certificate, progress: Progress
) -> tuple[Certificate, dict[str, np.ndarray]]:
    """What the residuals are, and of a network also the weights made of it, [signs * copies, *shape] by name.

    allowed: the largest residual of each tensor.
    """
    made: dict[str, np.ndarray] = {}
    within, checked, total, worst, where = 0, 0, 0.0, -1.0, ("", 0)
    by_tensor: dict[str, float] = {}

    def subtract(part: Effective) -> Effective:
        if part.name in made:
            made[part.name][:, part.first : part.first + part.values.shape[1]] = part.values
        wanted = read_float64(target.tensors, part.name, part.first, part.values.shape[1])
        return dataclasses.replace(part, values=np.abs(part.values - wanted).max(0))

    weights = target.weights
    for leaf in approximated_leaves(ticket):
        if ticket.network.given is not None:
            copies = leaf.source.rows_each
            made[leaf.name] = np.empty((len(leaf.signs) * copies, leaf.drawn.rows // copies))
        for part in effective_slices(ticket, leaf, subtract):
            residual, place = part.values, int(part.values.argmax())
            within += int(np.count_nonzero(residual <= allowed[leaf.name]))
            checked += len(residual)
            total += float(residual.sum())
            by_tensor[leaf.name] = float(np.maximum(by_tensor.get(leaf.name, 0.0), residual[place]))
            if not residual[place] <= worst:  # a NaN is worst
                worst, where = float(residual[place]), (part.name, part.first + place)
            progress(checked, weights)
    shapes = ticket.network.approximated
    found = dataclasses.replace(
        found,
        target_weights=checked,
        within_tolerance=within,
        mean_residual=total / checked,
        worst_residual=worst,
        worst_tensor=where[0],
        worst_weight=tuple(int(i) for i in np.unravel_index(where[1], shapes[where[0]])),
        rounding_bits=rounding_bits(target, worst if found.relative_tolerance is None else by_tensor),
    )
    return found, {name: values.reshape(-1, *shapes[name]) for name, values in made.items()}
