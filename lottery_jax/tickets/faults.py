"""Checks of a ticket that need no residuals: each returns why the ticket is broken, in sentences."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from lottery_jax.io.checksummed_file import digest
from lottery_jax.io.tensor_file import read_array
from lottery_jax.networks.network import NO_REDRAWS, clipped
from lottery_jax.networks.target import Target
from lottery_jax.rng.forced_entries import forced_blocks, has_forced_entries
from lottery_jax.rng.random_tensor import block_attempts
from lottery_jax.tickets.effective_slices import kept_entries
from lottery_jax.tickets.ticket import Ticket

_SLICE = 1 << 18  # mask entries compared at once


def forced_entry_faults(ticket: Ticket) -> list[str]:
    """Masks that contradict the seed: they keep absent weights, or prune locked ones."""
    absent, pruned = [], []
    for name in ticket.network.random_tensors:
        absent_kept, locked_pruned = _count_contradictions(ticket, name)
        if absent_kept:
            absent.append(repr(name))
        if locked_pruned:
            pruned.append(repr(name))
    reasons = []
    if absent:
        reasons.append(f"its masks keep weights that are absent from its source, in {', '.join(absent[:3])}")
    if pruned:
        reasons.append(f"its masks prune locked weights of its source, in {', '.join(pruned[:3])}")
    return reasons


def _count_contradictions(ticket: Ticket, name: str) -> tuple[int, int]:
    """Numbers of absent weights that a mask keeps, and of locked weights that it prunes."""
    tensor = ticket.network.random_tensors[name]
    if not has_forced_entries(tensor):
        return 0, 0
    redraws, absent_kept, locked_pruned = ticket.redraws(name), 0, 0
    step = max(_SLICE // tensor.width // 8, 1) * 8  # whole bytes of the mask
    for first in range(0, tensor.rows, step):
        count = min(step, tensor.rows - first)
        kept = np.zeros((count, tensor.width), bool)
        kept[kept_entries(ticket.content, name, tensor.width, first, count)] = True
        begin, end = first // tensor.rows_per_block, (first + count - 1) // tensor.rows_per_block + 1
        blocks = forced_blocks(tensor, ticket.seed, np.arange(begin, end), block_attempts(redraws, begin, end))
        forced = blocks[(first + np.arange(count)) // tensor.rows_per_block - begin]
        absent_kept += int(np.count_nonzero(kept & (forced < 0)))
        locked_pruned += int(np.count_nonzero(~kept & (forced > 0)))
    return absent_kept, locked_pruned


def trained_faults(ticket: Ticket, kept: Mapping[str, int]) -> list[str]:
    """What is wrong with a ticket of trained weights: its weights, its counts, or its training.

    Only what its settings mention is checked; nothing in them is trusted. `kept` is by random tensor.
    """
    return [*_weight_faults(ticket), *_count_faults(ticket, kept), *_training_faults(ticket)]


def _weight_faults(ticket: Ticket) -> Iterator[str]:
    for name, stored in ticket.network.trained_tensors.items():
        weights, mask = read_array(ticket.content, f"stored.{stored}"), ticket.mask(name)
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
            yield f"weights of {clipped(name)} were redrawn, which training never does"


def _count_faults(ticket: Ticket, kept: Mapping[str, int]) -> Iterator[str]:
    settings, tensors = ticket.header.settings, ticket.network.random_tensors
    recorded, keep = settings.get("kept"), settings.get("keep")
    if recorded is not None:
        if not isinstance(recorded, Mapping):
            yield "the kept weights in its settings are not numbers by name"
        elif wrong := [n for n, count in kept.items() if type(recorded.get(n)) is not int or recorded[n] != count]:
            yield f"its mask of {clipped(wrong[0])} keeps {kept[wrong[0]]:,}, which is not what its settings say"
    if keep is not None:
        if type(keep) not in (int, float) or not 0 <= keep <= 1:
            yield "the kept fraction of its settings is not a number from 0 to 1"
            return
        size = sum(tensors[name].size for name in ticket.network.trained_tensors)
        found = sum(kept[name] for name in ticket.network.trained_tensors)
        expected = round(keep * size)
        if settings.get("mask") == "inverted":
            expected = size - expected
        if found != expected:
            yield f"it keeps {found:,} of {size:,} weights, and its settings ask for {expected:,}"


def _training_faults(ticket: Ticket) -> Iterator[str]:
    settings, network = ticket.header.settings, ticket.network
    revived = settings.get("revived_steps", 0)
    if type(revived) is not int or revived != 0:
        yield f"pruned weights had moved after {clipped(str(revived))} steps of its training"
    if "rewound_sha256" in settings and settings.get("rewound_to") == 0:
        initial = {
            name: network.random_tensors[name].draw_all(ticket.seed, NO_REDRAWS) for name in network.trained_tensors
        }
        if settings["rewound_sha256"] != digest("", initial):
            yield "the weights that it was rewound to are not those of its seed"
    if "dense_batches_sha256" in settings and settings["dense_batches_sha256"] != settings.get("batches_sha256"):
        yield "the dense and the pruned network were trained on other batches"


def stored_weight_faults(ticket: Ticket) -> list[str]:
    """Layers whose weights are stored: residuals are those of random weights."""
    stored = sorted(ticket.network.weight_nodes)
    if stored:
        more = f" and {len(stored) - 3:,} more" if len(stored) > 3 else ""
        return [f"the weights of {', '.join(map(repr, stored[:3]))}{more} are stored, not random"]
    return [] if ticket.network.sources else ["no weight of its network is random"]


def target_faults(ticket: Ticket, target: Target) -> list[str]:
    """Why a ticket's network does not approximate this target, whatever its random weights are."""
    own, other = ticket.network.target, target.network
    shapes = [network.input_spec and network.input_spec.shape for network in (own, other)]
    if own.root != other.root or shapes[0] != shapes[1]:
        return ["its network has other layers than this target"]
    if own.input_spec and other.input_spec and own.input_spec.nonnegative and not other.input_spec.nonnegative:
        return ["it is for inputs that are never negative, and this target's may be"]
    stored = set(own.tensors) - set(own.approximated)
    changed = [
        name for name in stored if not np.array_equal(ticket.stored[name], target.array(name).astype(np.float32))
    ]
    return [f"the stored tensors {sorted(changed)} are not the target's"] if changed else []


def rounding_faults(ticket: Ticket) -> list[str]:
    """Why residuals of 0 would not show equality: sums of these random weights are rounded in float64."""
    network = ticket.network
    on_grid = all(tensor.sampler.kind == "grid" for tensor in network.random_tensors.values())
    if on_grid and all(math.frexp(gain)[0] == 0.5 for gain in network.gains.values()):
        return []
    return ["a tolerance of 0 needs random weights that lie, times their gain, on a grid of powers of two"]
