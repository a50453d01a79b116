"""A bound of sup |g - f| over a box of inputs, for a target f and a ticket's network g, before any data are seen.

Two of them, by intervals and by linear bounds, in float64 rounded outwards; the smaller one counts, output by output.
It is about the weights that a ticket makes in exact arithmetic; that its float32 network computes them is what `verify`
checks. Hidden layers of up to 1,024 units get linear bounds of their own first, which makes all after them tighter.

Beside them what the theorems alone promise, before there is a ticket: the same intervals where nothing is known of a
weight but that it is within the tolerance, so that every layer adds the tolerance times the sum of its inputs' sizes to
the error that it multiplies. It is larger than the ticket's own by what its residuals cancel, and by how much smaller
they are.

Where this does not go. Attention: softmax of a product of what goes in with itself is neither linear nor monotone, and
the papers' own argument (Otsuka et al. 2025) needs bounds of norms. LayerNorm: its slope is 1 / the spread of what goes
in, without a bound where that may be 0. GELU: it falls somewhere. Copies of every neuron: their weights differ, so that
each of them has a difference of its own. A model whose graph is unknown. All of them are refused, and the layer named.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from lottery_jax.bounds.difference import Box, Layer, Pair, Promised, through
from lottery_jax.bounds.linear import Coefficients, Step, back
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.node import Node, child_path
from lottery_jax.networks.rewrites import fold_batch_norm, match_rewrites
from lottery_jax.networks.target import Target
from lottery_jax.tickets.header import check_tolerance
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket

_REFINED = 1024

_AT_ONCE = 256  # rows of coefficients


@dataclasses.dataclass(frozen=True, eq=False)
class OutputBound:
    """Largest |g - f| of each output [C] on inputs from `low` to `high`: by intervals, by linear bounds.

    promised: the same of any ticket whose weights are within the tolerance, residuals unseen; None where no tolerance
    is promised.
    """

    low: float
    high: float
    interval: np.ndarray
    linear: np.ndarray
    promised: np.ndarray | None = None

    @property
    def smaller(self) -> np.ndarray:
        """The smaller one for each output."""
        return np.minimum(self.interval, self.linear)

    @property
    def largest(self) -> float:
        """The bound of all outputs."""
        return float(self.smaller.max())


def bound_output(
    ticket: Ticket, target: Target, *, low: float = 0.0, high: float = 1.0, tolerance: float | None = None
) -> OutputBound:
    """How far a ticket's network can be from its target on inputs of [low, high]; raises `InputError`.

    Through dense layers, convolutions, ReLU, LeakyReLU, tanh, sigmoid, pooling and residual blocks; not through
    attention. A ticket for inputs that are never negative has no bound on others. tolerance: of each weight, for what
    is promised, if not the ticket's.
    """
    given = ticket.network.input_spec
    if given is None:
        raise InputError(
            "outputs are bounded of a network with a graph, and this ticket's is unknown; give another one"
        )
    if given.nonnegative and low < 0:
        raise InputError(
            f"the ticket is for inputs that are never negative, and the box begins at {low}; give 0 or more"
        )
    copied = [path for path, source in ticket.network.sources.items() if source.rows_per_weight > 1]
    if copied:
        raise InputError(
            "outputs are not bounded where every neuron exists several times, as behind the layer"
            f" {copied[0]!r}; use a ticket of another construction"
        )
    whole = match_rewrites(target, ticket.network)
    if whole.network.root != ticket.network.target.root:
        raise InputError("the ticket is for a network of other layers than this target; give the target it was made of")
    made = effective_weights(ticket)
    stored = sorted(set(whole.network.approximated) - set(made))
    if stored:
        raise InputError(f"outputs are bounded of tickets whose weights are all random, and {stored[0]!r} is stored")
    walk, begun = _Walk(whole, made), _begun(whole, low, high)
    root = whole.network.root
    coarse = walk.steps(root, "", begun, refine=False)
    fine = walk.steps(root, "", begun, refine=True)
    out = fine[-1].out if fine else begun
    tight = _refined(fine, begun, out)
    by_interval = coarse[-1].out.difference.largest if coarse else begun.difference.largest
    asked = tolerance
    if asked is None and ticket.header.tolerance is not None:
        # Of a promise for each tensor what it comes to for the largest one.
        largest = (whole.scan(name).largest for name in whole.network.approximated)
        asked = ticket.header.tolerance * (max(largest) if ticket.header.relative else 1.0)
    promised = None if asked is None else promised_output(whole, asked, low=low, high=high)
    return OutputBound(low, high, by_interval, tight.difference.largest, promised)


def promised_output(target: Target, tolerance: float, *, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """How far each output [C] of any ticket within a tolerance of every weight can be from the target's, before one is.

    By intervals, on inputs of [low, high]; raises `InputError` where `bound_output` does.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> target = mlp_target([np.array([[0.5, -0.5]], np.float32)])
    >>> promised_output(target, 0.01).round(9).tolist()
    [0.02]
    """
    tolerance, whole = check_tolerance(float(tolerance), zero=True), fold_batch_norm(target)
    begun = _begun(whole, low, high)
    steps = _Walk(whole, tolerance).steps(whole.network.root, "", begun, refine=False)
    return steps[-1].out.difference.largest


def _begun(target: Target, low: float, high: float) -> Pair:
    """What both networks are given: any input of the box."""
    given = target.network.input_spec
    if given is None or not (np.isfinite([low, high]).all() and low <= high):
        raise InputError(f"the box is [{low}, {high}]; give two finite numbers, and a network whose graph is known")
    box = Box(np.full(given.shape, np.float64(low)), np.full(given.shape, np.float64(high)))
    zero = np.zeros(given.shape)
    return Pair(box, Box(zero, zero))


@dataclasses.dataclass(frozen=True, eq=False)
class _Walk:
    """Through both networks at once; made: a ticket's weights, or the tolerance that is all that is known of them."""

    target: Target
    made: Mapping[str, np.ndarray] | float

    def steps(self, node: Node, path: str, given: Pair, *, refine: bool) -> list[Step]:
        """The layers of a node, one after the other, with what goes in and comes out."""
        if isinstance(node, Chain):
            found: list[Step] = []
            for name, child in node.nodes:
                last = found[-1].out if found else given
                found += self.steps(child, child_path(path, name), last, refine=refine)
                if refine and found and isinstance(found[-1].node, Layer) and len(found) > 1:
                    step = found[-1]
                    if step.out.f.low.size <= _REFINED:
                        found[-1] = dataclasses.replace(step, out=_refined(found, given, step.out))
            return found
        if isinstance(node, Residual):
            body = self.steps(node.body, path, given, refine=refine)
            other = self.steps(node.shortcut, child_path(path, "downsample"), given, refine=refine)
            ends = [part[-1].out if part else given for part in (body, other)]
            out = Pair(ends[0].f + ends[1].f, ends[0].difference + ends[1].difference)
            return [Step(node, given, out, (tuple(body), tuple(other)))]
        if isinstance(node, Dense | Conv | RotationConv):
            layer = self._layer(node, path)
            return [Step(layer, given, layer.through(given))]
        try:
            return [Step(node, given, through(node, given))]
        except InputError as error:
            raise InputError(f"at the layer {path!r} {error}") from None

    def _layer(self, of: Dense | Conv | RotationConv, path: str) -> Layer:
        names = {own: child_path(path, own) for own in of.tensors()}
        weight = self.target.array(names["weight"]).astype(np.float64)
        none = np.zeros((1, of.outputs))
        bias = self.target.array(names["bias"]).astype(np.float64) if of.bias else none[0]
        if not isinstance(self.made, Mapping):
            return Promised(of, weight, bias, weight[None], bias, self.made)
        made = self.made[names["bias"]] if of.bias else none
        return Layer(of, weight, bias, self.made[names["weight"]], made[0])


def _refined(steps: list[Step], given: Pair, out: Pair) -> Pair:
    """What comes out of the last step, also bounded by lines back to what the first one is given."""
    size, shape = out.f.low.size, out.f.low.shape
    ends: list[list[np.ndarray]] = [[], [], [], []]
    for first in range(0, size, _AT_ONCE):
        rows = np.eye(size)[first : first + _AT_ONCE].reshape(-1, *shape)
        none, zero = np.zeros_like(rows), np.zeros(len(rows))
        asked = (
            Coefficients(rows, none, zero),
            Coefficients(-rows, none, zero),
            Coefficients(none, rows, zero),
            Coefficients(none, -rows, zero),
        )
        for end, one in zip(ends, asked, strict=True):
            end.append(back(steps, one).at_most(given))
    high, low, f_high, f_low = (np.concatenate(end).reshape(shape) for end in ends)
    return Pair(out.f.meet(Box(-f_low, f_high)), out.difference.meet(Box(-low, high)))
