"""Planting: find the weights of a random network that compute a known sparse one, as a ticket of seed and bits.

A ticket changes no weight, so planted weights are searched, not written. A ReLU unit may be scaled: it adds relu(in .
x) out to the logits, the same for (a in, out / a) with a > 0, so a unit is its product out in^T and a sign. All logits
may be scaled by one factor, because the class is that of the largest. Each unit of the known network gets its own
hidden unit with a similar product at the nonzero weights. The wider the random network, the smaller the difference.

Differences add up. Therefore the units are selected again, one after another, each among the nearest, so that all
logits together are nearest on random inputs.
"""

import dataclasses

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.learner_sources import plain_source
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.target import Target
from lottery_jax.tickets.ticket import Ticket, make_ticket

Matrices = tuple[np.ndarray, np.ndarray]
_FACTORS = 24  # factors of all logits to try
_NEAREST = 64  # hidden units to select each unit from
_ROUNDS = 4
_POINTS = 512  # random inputs to compare logits on


@dataclasses.dataclass(frozen=True, eq=False)
class Planted:
    """A planted ticket.

    Attributes:
        ticket: The ticket.
        units: The hidden unit of each unit of the known network, int [units].
        factor: Factor of the known network's logits.
        error: Root mean square of the difference of the logits on random inputs, relative to the known network's
            logits, both without their means over the classes.
    """

    ticket: Ticket
    units: np.ndarray
    factor: float
    error: float

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The planted masks by name, with as many weights as the known network has nonzero ones."""
        return self.ticket.masks

    @property
    def keep(self) -> float:
        """The planted fraction of all random weights."""
        return self.ticket.kept_weights / self.ticket.network.source_weights


def planting_source(truth: Target, width: int) -> Network:
    """A random network with one hidden layer of this width and the inputs of the known one; weights N(0, 2 / fan-in).

    >>> from planted.truths import helix_truth
    >>> planting_source(helix_truth(), 100).source_weights
    600
    """
    first, second = _matrices(truth)
    if type(width) is not int or not len(first) <= width <= 1 << 20:
        raise InputError(f"width must be an integer from {len(first)} to {1 << 20}, got {width!r}")
    return plain_source(mlp((first.shape[1], width, len(second)), Spec(first.shape[1:])))


def plant(truth: Target, source: Network, *, seed: int, refine: bool = True) -> Planted:
    """The ticket of a seed that is nearest to the known network; raises ``InputError`` if they do not fit.

    Args:
        truth: The known network.
        source: The random network.
        seed: Its seed.
        refine: Select units again by the logits of all of them; else each is the nearest by itself.

    >>> from planted.truths import relu_unit_truth
    >>> planted = plant(relu_unit_truth(), planting_source(relu_unit_truth(), 64), seed=1)
    >>> planted.ticket.kept_weights, planted.error < 0.1
    (4, True)
    """
    known = _matrices(truth)
    names = _names(source, *known)
    drawn = source.draw(seed)
    random = drawn[names[0]].astype(np.float64), drawn[names[1]].astype(np.float64)
    units, factor, near = _nearest(known, random)
    if refine:
        units = _refined(known, random, units, factor, near)
    masks = {name: np.zeros(drawn[name].shape, bool) for name in names}
    masks[names[0]][units] = known[0] != 0
    masks[names[1]][:, units] = known[1] != 0
    points = _points(known[0].shape[1])
    objective = _centred(_parts(points, *known).sum(axis=1))
    planted = _parts(points, *(tensor * masks[name] for name, tensor in zip(names, random, strict=True)))
    logits = _centred(planted.sum(axis=1))
    factor = float((logits**2).sum() / (logits * objective).sum())  # the one that leaves the least error
    error = logits / factor - objective
    ticket = make_ticket(
        source, seed=seed, masks=masks, method="planted", settings={"units": len(units), "refine": refine}
    )
    return Planted(ticket, units, factor, float(np.sqrt(np.mean(error**2) / np.mean(objective**2))))


def _matrices(truth: Target) -> Matrices:
    """The weights float64 [units, inputs] and [classes, units] of a known network."""
    shapes, kinds = list(truth.network.tensors.values()), [type(node) for _, node in truth.network.nodes()]
    if kinds != [Chain, Dense, Relu, Dense] or len(shapes) != 2:
        raise InputError(f"a planted network must have one hidden layer of ReLU and no biases, got {truth!r}")
    first, second = (truth.array(name).astype(np.float64) for name in truth.network.tensors)
    if not (first.any(axis=1).all() and second.any(axis=0).all()):
        raise InputError(f"hidden units must have input and output weights, got {truth!r}. Remove the others.")
    return first, second


def _names(source: Network, first: np.ndarray, second: np.ndarray) -> list[str]:
    """The two random tensors of a source that the matrices fit into."""
    kinds = [type(node) for _, node in source.nodes()]
    shapes = [drawn.shape for drawn in source.random_tensors.values()]
    if kinds != [Chain, RandomLayer, Relu, RandomLayer] or len(shapes) != 2:
        raise InputError(f"the source must be made by planting_source, got {source!r}")
    width = shapes[0][0]
    if shapes != [(width, first.shape[1]), (len(second), width)] or width < len(first):
        raise InputError(
            "the source must have the inputs and classes of the planted network, and at least as many hidden units, got"
            f" shapes {shapes} for {first.shape} and {second.shape}"
        )
    return list(source.random_tensors)


def _products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The product out in^T [units, classes, inputs], which with a sign determines relu(in . x) out."""
    return second.T[:, :, None] * first[:, None, :]


def _nearest(known: Matrices, random: Matrices) -> tuple[np.ndarray, float, np.ndarray]:
    """A hidden unit [units] for each known one, the logits' factor, and squared distances [units, width] under it."""
    wanted, there = _products(*known), _products(*random)
    products = np.where(wanted[:, None] != 0, there, 0)  # [units, width, classes, inputs]
    # Not the sign of each weight alone: that of a small weight may differ.
    flipped = known[0] @ random[0].T <= 0
    size = np.median(np.abs(products[products != 0])) / np.median(np.abs(wanted[wanted != 0]))
    best: tuple[float, np.ndarray, float, np.ndarray] | None = None
    for factor in size * np.geomspace(0.1, 10, _FACTORS):
        distances = ((products / factor - wanted[:, None]) ** 2).sum(axis=(2, 3))
        distances[flipped] = np.inf
        units = _assigned(distances, np.argsort(-(wanted**2).sum(axis=(1, 2)), kind="stable"))
        total = float(distances[np.arange(len(units)), units].sum())
        if best is None or total < best[0]:
            best = total, units, float(factor), distances
    assert best is not None
    if not np.isfinite(best[0]):
        raise InputError(
            f"the source must have enough hidden units for {len(wanted)} planted ones, got"
            f" {random[0].shape[0]}. Use a wider source."
        )
    return best[1:]


def _assigned(distances: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The nearest column for each row, in this order, none twice."""
    left, units = distances.copy(), np.zeros(len(distances), np.int64)
    for place in order:
        units[place] = np.argmin(left[place])
        left[:, units[place]] = np.inf
    return units


def _refined(known: Matrices, random: Matrices, units: np.ndarray, factor: float, near: np.ndarray) -> np.ndarray:
    """Each unit selected again, in turn, so that all logits together are nearest."""
    points, units = _points(known[0].shape[1]), units.copy()
    objective = factor * _parts(points, *known).sum(axis=1)

    def parts(place: int, among: np.ndarray) -> np.ndarray:
        inner = random[0][among] * (known[0][place] != 0)
        return _parts(points, inner, random[1][:, among] * (known[1][:, place, None] != 0))

    now = np.concatenate([parts(place, units[[place]]) for place in range(len(units))], axis=1)
    for _ in range(_ROUNDS):
        for place in range(len(units)):
            others = np.delete(units, place)
            among = np.argsort(near[place], kind="stable")[: _NEAREST + len(others)]
            among = among[np.isfinite(near[place, among]) & ~np.isin(among, others)]
            rest = now.sum(axis=1) - now[:, place] - objective
            found = parts(place, among)
            best = np.argmin((_centred(rest[:, None] + found) ** 2).sum(axis=(0, 2)))
            units[place], now[:, place] = among[best], found[:, best]
    return units


def _points(inputs: int) -> np.ndarray:
    """Inputs of the kind of the tasks [points, inputs]: uniform in [-1, 1], the last one 1."""
    points = np.random.default_rng(0).uniform(-1, 1, (_POINTS, inputs))
    points[:, -1] = 1
    return points


def _parts(points: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The contribution of each hidden unit to the logits [points, units, classes]."""
    return np.maximum(points @ first.T, 0)[:, :, None] * second.T


def _centred(logits: np.ndarray) -> np.ndarray:
    """Logits [..., classes] minus their mean, which determine the class."""
    return logits - logits.mean(axis=-1, keepdims=True)
