"""What must hold of a ticket whose weights were trained: pruned is zero, or as drawn, and all else is as it says.

Published comparisons got these wrong: momentum or weight decay revived pruned weights, a threshold kept a few more or
fewer than was reported, weights were not rewound, and dense and pruned networks saw other batches.

The float32 network itself on random inputs: what the float64 weights say must be what it computes.

The certificate is about weights in exact arithmetic. A network whose numbers overflow, or whose large terms cancel,
could have perfect weights and compute something else; here it is run.
The independent verifier: every residual of a ticket again, in float64 NumPy, from the seed and the bits alone.

What it says is about the target that it is given; a target inside a ticket is only the ticket's own word.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError, TicketError
from lottery_jax.importers.state_dict import target_like
from lottery_jax.io.checksummed_file import digest
from lottery_jax.io.tensor_file import read_array, read_float64
from lottery_jax.networks.forward import batch_size, forward
from lottery_jax.networks.network import NO_REDRAWS, Network, clipped, summary
from lottery_jax.networks.rewrites import match_rewrites
from lottery_jax.networks.target import Target
from lottery_jax.progress import Progress, no_progress
from lottery_jax.tickets.header import check_tolerance
from lottery_jax.tickets.reconstruct import Effective, approximated_leaves, collapsed, effective_slices, forced_bits
from lottery_jax.tickets.size.description_length import description_bits, rounding_bits
from lottery_jax.tickets.ticket import Ticket, kept_bits, load_ticket


def trained_faults(ticket: Ticket, kept: Mapping[str, int]) -> list[str]:
    """Why a ticket of trained weights is not what it says it is, in sentences; none for a sound one.

    kept: set bits of each mask. What its settings do not speak of is not asked; what they say is not believed.
    """
    return [*_weight_faults(ticket), *_count_faults(ticket, kept), *_training_faults(ticket)]


def _weight_faults(ticket: Ticket) -> Iterator[str]:
    """What is wrong with the weights and masks themselves."""
    for name, own in ticket.network.trained_tensors.items():
        weights, mask = read_array(ticket.content, f"stored.{own}"), ticket.mask(name)
        revived = np.count_nonzero(weights[~mask])  # NaN is not zero
        if revived:
            yield f"{revived:,} pruned weights of {clipped(name)} are not zero"
        bad = np.count_nonzero(~np.isfinite(weights[mask]))
        if bad:
            yield f"{bad:,} kept weights of {clipped(name)} are not finite"
        frozen = ticket.network.frozen_tensors.get(name)
        both = 0 if frozen is None else np.count_nonzero(mask & ticket.mask(frozen))
        if both:
            yield f"{both:,} weights of {clipped(name)} are both trained and frozen"
        if any(len(ticket.redraws(part)) for part in (name, frozen) if part is not None):
            yield f"weights of {clipped(name)} were drawn again, which training never does"


def _count_faults(ticket: Ticket, kept: Mapping[str, int]) -> Iterator[str]:
    """Where it keeps another number of weights than its settings say, or than they asked for."""
    settings, drawn = ticket.header.settings, ticket.network.random_tensors
    said, keep = settings.get("kept"), settings.get("keep")
    if said is not None:
        if not isinstance(said, Mapping):
            yield "what its settings say is kept are not numbers by name"
        elif wrong := [name for name, count in kept.items() if type(said.get(name)) is not int or said[name] != count]:
            yield f"its mask of {clipped(wrong[0])} keeps {kept[wrong[0]]:,}, which is not what its settings say"
    if keep is not None:
        if type(keep) not in (int, float) or not 0 <= keep <= 1:
            yield "the kept fraction of its settings is no number from 0 to 1"
            return
        size = sum(drawn[name].size for name in ticket.network.trained_tensors)
        found = sum(kept[name] for name in ticket.network.trained_tensors)
        asked = round(keep * size)
        if settings.get("mask") == "inverted":
            asked = size - asked
        if found != asked:
            yield f"it keeps {found:,} of {size:,} weights, and its settings ask for {asked:,}"


def _training_faults(ticket: Ticket) -> Iterator[str]:
    """Where its training was not what it says: pruned weights that moved, other beginnings, other batches."""
    settings, network = ticket.header.settings, ticket.network
    revived = settings.get("revived_steps", 0)
    if type(revived) is not int or revived != 0:
        yield f"pruned weights had moved after {clipped(str(revived))} steps of its training"
    if "rewound_sha256" in settings and settings.get("rewound_to") == 0:
        began = {
            name: network.random_tensors[name].draw_all(ticket.seed, NO_REDRAWS) for name in network.trained_tensors
        }
        if settings["rewound_sha256"] != digest("", began):
            yield "the weights that it was rewound to are not those of its seed"
    if "dense_batches_sha256" in settings and settings["dense_batches_sha256"] != settings.get("batches_sha256"):
        yield "the dense and the pruned network were trained on other batches"


_RELATIVE = 1e-3


@dataclasses.dataclass(frozen=True)
class Probe:
    """The largest |f - g| of the float32 network f from the exact collapsed one g, and what rounding may explain.

    allowed: what a change of every weight by a tenth of the tolerance makes, and a thousandth of the largest output.
    apart: of a network with copies of its neurons, the largest |g - h| from the target's network h with the means of
    the copies' weights; apart_allowed: twice what a change of every weight of h by the tolerance makes. Each weight
    may be within the tolerance while large ones cancel, which they do not where the copies that they meet differ.
    """

    deviation: float
    allowed: float
    apart: float = 0.0
    apart_allowed: float = 0.0

    @property
    def passed(self) -> bool:
        """False where an output is NaN, too."""
        return self.deviation <= self.allowed


def probe(ticket: Ticket, made: Mapping[str, np.ndarray], tolerance: float) -> Probe:
    """Run the masked random network and its collapsed form on random inputs, negative ones where there may be any."""
    # made: the weights that the ticket makes, as `effective_weights` gives them.
    network = ticket.network
    assert network.input_spec is not None
    random = np.random.default_rng(0)
    low = 0.0 if network.input_spec.nonnegative else -1.0
    # As many as are evaluated at a time: the same compiled program serves both.
    x = random.uniform(low, 1.0, (batch_size(network), *network.input_spec.shape)).astype(np.float32)
    x[-1] *= 16  # pixels are not the only inputs
    found = np.asarray(ticket.forward()(jnp.asarray(x)), np.float64)
    plain, weights = collapsed(ticket, made)
    changed = {
        name: value + tolerance / 10 * random.choice((-1.0, 1.0), value.shape) if name not in network.tensors else value
        for name, value in weights.items()
    }
    exact, moved = _exact(plain, weights, x), _exact(plain, changed, x)
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = np.abs(moved - exact).max() + _RELATIVE * np.abs(exact).max() + np.finfo(np.float32).tiny
        deviation = float(np.abs(found - exact).max())
    found_apart = _copies_apart(ticket, made, tolerance, x, exact)
    return Probe(*_finite(deviation, float(allowed)), *found_apart)


def _copies_apart(
    ticket: Ticket, made: Mapping[str, np.ndarray], tolerance: float, x: np.ndarray, exact: np.ndarray
) -> tuple[float, float]:
    """How far a network with copies is from the one without, and how far it may be."""
    if all(source.rows_per_weight == 1 for source in ticket.network.sources.values()):
        return 0.0, 0.0
    random = np.random.default_rng(1)
    once = {name: value.astype(np.float64) for name, value in ticket.kept_stored.items()}
    means = {name: value.mean(0) for name, value in made.items()}
    changed = {name: value + tolerance * random.choice((-1.0, 1.0), value.shape) for name, value in means.items()}
    single, moved = (_exact(ticket.network.target, {**once, **weights}, x) for weights in (means, changed))
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = 2 * np.abs(moved - single).max() + _RELATIVE * np.abs(single).max() + np.finfo(np.float32).tiny
        return _finite(float(np.abs(single - exact).max()), float(allowed))


def _finite(deviation: float, allowed: float) -> tuple[float, float]:
    """What is not finite never passes."""
    return deviation if math.isfinite(deviation) else math.inf, allowed if math.isfinite(allowed) else 0.0


def _exact(network: Network, tensors: dict[str, Any], x: np.ndarray) -> np.ndarray:
    # Flax's normalisations mix their float32 with the inputs' float64.
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        return np.asarray(forward(network, tensors)(jnp.asarray(x, jnp.float64)))


Outcome = Literal["holds", "broken", "no guarantee"]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `verify` found. Residuals are |approximation - target weight| in the target's units.

    outcome: `holds`, `broken` (`reasons` say why) or `no guarantee`. nonnegative_inputs: whether it is about inputs
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


def verify(
    ticket: Ticket | str | os.PathLike[str],
    *,
    target: Target | str | os.PathLike[str] | None = None,
    tolerance: float | None = None,
    progress: Progress = no_progress,
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
        given = target if isinstance(target, Target) else target_like(ticket.network, target)
        target = match_rewrites(given, ticket.network)
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
    if not reasons and ticket.network.input_spec is not None:
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
    counts = {name: kept_bits(ticket.content, name) for name in network.random_tensors}
    redraws = [rows for name in network.random_tensors if len(rows := ticket.redraws(name))]
    bits = description_bits(ticket)
    return Certificate(
        outcome="no guarantee",
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
        samplers=tuple(dict.fromkeys(drawn.sampler.in_words() for drawn in network.random_tensors.values())),
        nonnegative_inputs=None if network.input_spec is None else network.input_spec.nonnegative,
        network=summary(network.target),
        kept_budget=ticket.header.kept_budget,
        trained=bool(network.trained_tensors),
    )


def _against_the_seed(ticket: Ticket) -> list[str]:
    """Why masks are none of this source: what the seed says is absent is kept, or what it has locked is not."""
    forced = {name: forced_bits(ticket, name) for name in ticket.network.random_tensors}
    absent = [repr(name) for name, own in forced.items() if own.absent_kept]
    pruned = [repr(name) for name, own in forced.items() if own.locked_pruned]
    reasons = []
    if absent:
        reasons.append(f"it counts weights as kept that its source does not have, in {', '.join(absent[:3])}")
    if pruned:
        reasons.append(f"it prunes weights that its source has locked as kept, in {', '.join(pruned[:3])}")
    return reasons


def _not_random(ticket: Ticket) -> list[str]:
    """Layers that would be approximated by nothing: residuals are those of random leaves."""
    stored = sorted(ticket.network.weight_nodes)
    if stored:
        more = f" and {len(stored) - 3:,} more" if len(stored) > 3 else ""
        return [f"the weights of {', '.join(map(repr, stored[:3]))}{more} are stored in it, not made of random ones"]
    return [] if ticket.network.sources else ["no weight of its network is random"]


def _differences(ticket: Ticket, target: Target) -> list[str]:
    """Why a ticket's network is no approximation of this target, whatever its weights are."""
    mine, theirs = ticket.network.target, target.network
    if mine.root != theirs.root or (mine.input_spec and mine.input_spec.shape) != (
        theirs.input_spec and theirs.input_spec.shape
    ):
        return ["it was made for a network of other layers than this target"]
    if mine.input_spec and theirs.input_spec and mine.input_spec.nonnegative and not theirs.input_spec.nonnegative:
        return ["it is for inputs that are never negative, and this target's may be"]
    kept = set(mine.tensors) - set(mine.approximated)
    changed = [name for name in kept if not np.array_equal(ticket.stored[name], target.array(name).astype(np.float32))]
    return [f"the stored tensors {sorted(changed)} are not the target's"] if changed else []


def _roundings(ticket: Ticket) -> list[str]:
    """Why residuals of 0 would not show equality: sums of these random weights are rounded in float64."""
    network = ticket.network
    grids = all(drawn.sampler.kind == "grid" for drawn in network.random_tensors.values())
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
        if ticket.network.input_spec is not None:
            copies = leaf.source.rows_per_weight
            made[leaf.name] = np.empty((len(leaf.signs) * copies, leaf.random_tensor.rows // copies))
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
