"""Independent answers in NumPy: a ticket's candidates, from stated stream positions, and what errors can do."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.networks.node import child_path
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.sources.binary_ladder import BinaryLadder
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.replicated_neurons import ReplicatedNeurons
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler, draw_host
from lottery_jax.tickets.ticket import Ticket
from tests.subset_sum.oracles import all_residuals

STRIDE = 1 << 16
"""From the streams of one attempt to those of the next."""

Candidates = tuple[np.ndarray, np.ndarray]
"""Of each weight of a tensor, float64 [P, N], and which bits of its mask they are, [P, N]."""
Draws = Callable[[int], list[Candidates]]
"""From an attempt to the candidates for each sign of input."""


@dataclasses.dataclass(frozen=True)
class RandomTensor:
    """The candidates of a target tensor; `each` of its weights, neighbours, are redrawn together.

    copies: neighbours among the problems that are for one target weight.
    """

    name: str
    draws: Draws
    each: int = 1
    copies: int = 1


def draws_of(ticket: Ticket) -> Iterator[RandomTensor]:
    """The candidates of every target tensor of a ticket, in order, each drawn whole by NumPy from its streams."""
    stream = 0
    for path, source in ticket.network.sources.items():
        if isinstance(source, Gadget):
            yield from _gadget(ticket, path, source, stream)
            stream += 2
        elif isinstance(source, ReplicatedNeurons):
            yield from _redundant(ticket, path, source, stream)
            stream += 1
        elif isinstance(source, BinaryLadder):
            yield from _ladder(ticket, path, source, stream)
            stream += 2 + source.rungs
        else:
            assert isinstance(source, CandidatesPerWeight)
            for own, sampler in zip(source.layer.tensors(), source.samplers, strict=True):
                yield _copies(ticket, child_path(path, own), source, sampler, stream)
                stream += 1


def _copies(ticket: Ticket, name: str, source: CandidatesPerWeight, sampler: Sampler, stream: int) -> RandomTensor:
    """Row p of a stream has the copies of weight p, or of output p if they are shared."""
    shape = ticket.network.approximated[name]
    rows = shape[0] if source.shared else math.prod(shape)
    each = math.prod(shape) // rows

    def draws(attempt: int) -> list[Candidates]:
        at = stream + STRIDE * attempt
        drawn = draw_host(sampler, seed=ticket.seed, stream=at, shape=(rows, source.candidates)).astype(np.float64)
        values = np.repeat(drawn, each, 0)
        return [(values, np.broadcast_to(np.arange(source.candidates), values.shape))]

    return RandomTensor(name, draws, each)


def _redundant(ticket: Ticket, path: str, source: ReplicatedNeurons, stream: int) -> Iterator[RandomTensor]:
    """The theorem's matrix [inputs * copies, places, outputs * copies] in full; constants are its last rows."""
    of, given, copies = source.layer, source.input_copies, source.output_copies
    own, places = of.inputs // of.groups, math.prod(of.kernel_shape)

    def draws(attempt: int, name: str) -> list[Candidates]:
        shape = (own * places + of.bias, given * of.outputs * copies)
        flat = draw_host(source.sampler, seed=ticket.seed, stream=stream + STRIDE * attempt, shape=shape).reshape(-1)
        split = own * given * places * of.outputs * copies
        weight = flat[:split].reshape(own, given, places, of.outputs, copies).transpose(3, 0, 2, 4, 1)
        bias = flat[split:].reshape(given, -1).T
        rows = (weight if name == "weight" else bias).reshape(-1, given).astype(np.float64)
        scale = source.gain * (source.constant if name == "bias" else 1)
        return [(scale * rows, np.broadcast_to(np.arange(given), rows.shape))]

    for name in of.tensors():
        yield RandomTensor(child_path(path, name), functools.partial(draws, name=name), copies=copies)


def _gadget(ticket: Ticket, path: str, source: Gadget, stream: int) -> Iterator[RandomTensor]:
    """The first matrix is on one stream, the second on the next; both are the theorem's, in full."""
    of, units, copies = source.layer, source.units, source.rows_per_weight
    candidates, own, places = units // (1 + source.relu), of.inputs // of.groups, math.prod(of.kernel_shape)
    given = ticket.network.input_spec_of(path)
    assert given is not None
    both = source.relu and not given.nonnegative
    edges = _edges(ticket, child_path(path, "first"), source, both, stream)
    block = of.outputs // of.groups  # outputs that a group of inputs serves
    inputs = np.arange(of.outputs)[:, None, None] // block * own + np.arange(own)[:, None]
    inputs = np.broadcast_to(inputs, (of.outputs, own, places)).reshape(-1)

    def second(attempt: int) -> dict[str, np.ndarray]:
        """The second random weights of every copy of every target weight, [P, units]."""
        outputs = of.outputs * copies
        size = (own * places + of.bias) * units * outputs
        flat = draw_host(source.second, seed=ticket.seed, stream=stream + 1 + STRIDE * attempt, shape=(size,))
        split = own * places * units * outputs
        weight = flat[:split].reshape(own, units, places, of.outputs, copies).transpose(3, 0, 2, 4, 1)
        return {"weight": weight.reshape(-1, units), "bias": flat[split:].reshape(-1, outputs).T}

    def draws(attempt: int, name: str) -> list[Candidates]:
        v = second(attempt)[name].astype(np.float64)
        feeding = np.repeat(inputs if name == "weight" else np.full(of.outputs, of.inputs), copies)
        found = []
        for sign in (1, -1) if both and name == "weight" else (1,):
            # The first n units of the sign; units beyond those that there are count as nothing.
            speaks = sign * edges > 0 if source.relu else edges != 0
            usable = [np.flatnonzero(row)[:candidates] for row in speaks]
            rest = [np.setdiff1d(np.arange(units), chosen)[: candidates - len(chosen)] for chosen in usable]
            slots = np.stack([np.concatenate(pair) for pair in zip(usable, rest, strict=True)])[feeding]
            u = np.take_along_axis(np.where(speaks, edges, 0)[feeding], slots, 1)
            values = source.gain * u * np.take_along_axis(v, slots, 1)
            found.append((values, slots))
        return found

    for name in of.tensors():
        yield RandomTensor(child_path(path, name), functools.partial(draws, name=name), copies=copies)


def _ladder(ticket: Ticket, path: str, source: BinaryLadder, stream: int) -> Iterator[RandomTensor]:
    """The last matrix is the gadget's, on the second stream; multipliers are what the kept rungs make of x = +-1."""
    of, units, all_weights = source.layer, source.units, ticket.source()
    own, places, given = of.inputs // of.groups, math.prod(of.kernel_shape), ticket.network.input_spec_of(path)
    assert given is not None

    def carried(sign: int) -> np.ndarray:
        values = np.ones((of.inputs + of.bias, 1)) * sign
        for edge in source.hidden_tensors:
            name = child_path(path, edge)
            kept = all_weights[name].astype(np.float64) * ticket.mask(name)
            values = np.maximum(np.matmul(kept.reshape(len(values), units, -1), values[..., None])[..., 0], 0)
        return sign * values

    def draws(attempt: int, name: str) -> list[Candidates]:
        size, split = (own * places + of.bias) * units * of.outputs, own * places * units * of.outputs
        signs = Sampler.signed_constant(1)
        flat = draw_host(signs, seed=ticket.seed, stream=stream + 1 + STRIDE * attempt, shape=(size,))
        weight = flat[:split].reshape(own, units, places, of.outputs).transpose(3, 0, 2, 1).reshape(-1, units)
        v = (weight if name == "weight" else flat[split:].reshape(-1, of.outputs).T).astype(np.float64)
        feeding = of.input_channels(name, np.arange(len(v)))
        slots = np.broadcast_to(np.arange(units), v.shape)
        both = name == "weight" and not given.nonnegative
        return [(source.gain * carried(sign)[feeding] * v, slots) for sign in ((1, -1) if both else (1,))]

    for name in of.tensors():
        yield RandomTensor(child_path(path, name), functools.partial(draws, name=name))


def _edges(ticket: Ticket, name: str, source: Gadget, both: bool, stream: int) -> np.ndarray:
    """The first edges that lead from inputs to units of their own, [I, U]; those of weak inputs are redrawn."""
    inputs, units, bias = source.layer.inputs, source.units, source.layer.bias
    total = inputs + bias

    def diagonal(attempt: int) -> np.ndarray:
        full = draw_host(
            source.first,
            seed=ticket.seed,
            stream=stream + STRIDE * attempt,
            shape=(total, total, units),
        )
        return full[np.arange(total), np.arange(total)].astype(np.float64)

    def weak(edges: np.ndarray) -> np.ndarray:
        signs = np.array([[True] * total, [both] * inputs + [False] * bias])  # the constant 1 has one sign
        if ticket.header.settings["construction"] in ("pensia", "dacunha", "ferbach", "otsuka", "burkholz"):
            # Each sign's units reach less than half of what is to be expected of n of them.
            speaking = edges if source.relu else np.abs(edges)
            reach = np.stack([np.maximum(speaking, 0).sum(1), np.maximum(-speaking, 0).sum(1)])
            return ((reach < units / (8 if source.relu else 4)) & signs).any(0)
        least = {"natale": units / 2, "kumar": units * 3 / 8}.get(ticket.header.settings["construction"], units / 4)
        return ((np.stack([(edges > 0).sum(1), (edges < 0).sum(1)]) < least) & signs).any(0)

    edges, attempts, attempt = diagonal(0), np.zeros(total, np.int64), 0
    while weak(edges).any():
        attempt += 1
        attempts[weak(edges)] = attempt
        edges = np.where(weak(edges)[:, None], diagonal(attempt), edges)
    again = np.flatnonzero(attempts)
    np.testing.assert_array_equal(ticket.redraws(name), np.stack([again, attempts[again]], 1))
    return edges


def allowed_residuals(ticket: Ticket, values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|residual| of every subset that the construction may choose, [P, S], and their sizes [S] or [P, S]."""
    settings = ticket.header.settings
    if settings["construction"] == "malach":
        one = np.abs(np.concatenate([np.zeros((len(values), 1)), values], 1) - wanted[:, None])
        return one, (np.arange(one.shape[1]) > 0).astype(int)
    if settings["construction"] in ("orseau", "binary"):
        return greedy_residuals(values, wanted)
    residuals, sizes = all_residuals(values, wanted)
    if settings["construction"] == "natale":
        residuals = np.where(sizes == settings["size"], residuals, np.inf)
    return residuals, sizes


def greedy_residuals(values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Again and again the largest unused value that is not above what is left, weight for weight: [P, 1] each."""
    left, sizes = np.abs(wanted), np.zeros(len(wanted), int)
    for p, row in enumerate(values * np.where(wanted < 0, -1, 1)[:, None]):
        unused = [value for value in row if value > 0]
        while fitting := [value for value in unused if value <= left[p]]:
            left[p] -= max(fitting)
            unused.remove(max(fitting))
            sizes[p] += 1
    return left[:, None], sizes[:, None]


def check_against_all_subsets(ticket: Ticket, target: Target, objective: str) -> int:
    """Each weight's bits are as good as the best of all subsets of its candidates; returns how many were redrawn."""
    tolerance, again = ticket.header.tolerance, 0
    assert tolerance is not None
    for found in draws_of(ticket):
        wanted = np.repeat(target.array(found.name).astype(np.float64).reshape(-1), found.copies)
        mask = ticket.mask(found.name).reshape(len(wanted), -1)
        attempts = np.zeros(len(wanted) // found.each, np.int64)
        rows = ticket.redraws(found.name)
        attempts[rows[:, 0]] = rows[:, 1]
        attempts, again = np.repeat(attempts, found.each), again + len(rows)
        used = np.zeros_like(mask)
        for attempt in range(attempts.max() + 1):
            failed = np.zeros(len(wanted), bool)
            for values, slots in found.draws(attempt):
                residuals, sizes = allowed_residuals(ticket, values, wanted)
                least = residuals.min(1)
                failed |= least > tolerance * (1 - 1e-4)
                here = attempts == attempt
                chosen = np.take_along_axis(mask, slots, 1) & (values != 0)
                np.put_along_axis(used, slots, np.take_along_axis(used, slots, 1) | (chosen & here[:, None]), 1)
                reached = np.abs(np.where(chosen, values, 0).sum(1) - wanted)
                assert (reached[here] <= tolerance).all()
                if objective == "least-error":
                    assert (np.abs(reached - least) <= 1e-6)[here].all()
                else:
                    # What is at the tolerance but for rounding may count or not.
                    most, fewest = (
                        np.where(residuals <= tolerance * (1 + slack), sizes, 99).min(1) for slack in (-1e-5, 1e-5)
                    )
                    assert ((fewest <= chosen.sum(1)) & (chosen.sum(1) <= most))[here].all()
            # Drawn again only where a weight of the block could not be reached.
            assert failed.reshape(-1, found.each).any(1)[(attempts > attempt).reshape(-1, found.each)[:, 0]].all()
        np.testing.assert_array_equal(used, mask)
    return again


def sensitivity(target: Target) -> Callable[[np.ndarray], np.ndarray]:
    """How much each output [B, C] moves, to first order, for independent errors of size 1 in all weights: the root of
    the sum of its squared slopes."""
    target = fold_batch_norm(target)
    network, tensors = target.network, {name: jnp.asarray(value) for name, value in target.arrays().items()}

    def outputs(weights: dict[str, jax.Array], image: jax.Array) -> jax.Array:
        return network.module({**tensors, **weights})(image[None])[0]  # type: ignore[operator]

    def one(image: jax.Array) -> jax.Array:
        slopes = jax.jacrev(outputs)({name: tensors[name] for name in network.approximated}, image)
        return jnp.sqrt(sum((slope.reshape(len(slope), -1) ** 2).sum(1) for slope in slopes.values()))  # type: ignore

    run = jax.jit(jax.vmap(one))
    return lambda x: np.asarray(run(jnp.asarray(x)))
