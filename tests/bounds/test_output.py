"""What is measured is at most what is searched for, and that at most the bound; on a plane all pieces are known."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lottery_jax.bounds import attack, bound_output
from lottery_jax.bounds.difference import Pair, through
from lottery_jax.bounds.interval import Box, times
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.activations import Gelu, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.layer_norm import LayerNorm
from lottery_jax.networks.layers.normalize import Normalize
from lottery_jax.networks.layers.pooling import AveragePool, GlobalPool, MaxPool
from lottery_jax.networks.layers.reshape import Flatten
from lottery_jax.networks.layers.residual import Residual
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.target import Target
from lottery_jax.networks.zoo.mlp import mlp
from lottery_jax.tickets.collapse import collapsed
from lottery_jax.tickets.effective import effective_weights
from lottery_jax.tickets.probe import _exact
from lottery_jax.tickets.ticket import Ticket
from tests.comparison import tiny
from tests.constructions.catalogue import random_target
from tests.constructions.test_catalogue import approximated


def chain(given: Spec, *nodes: Node) -> Network:
    return Network(Chain(tuple((f"n{at}", node) for at, node in enumerate(nodes))), given)


BODY = Chain((("conv", Conv(2, 2, (3, 3), padding=(1, 1), bias=True)), ("tanh", Tanh())))
SHAPES: dict[str, Network] = {
    "mlp": mlp((4, 5, 6, 3), Spec((4,), True), bias=True),
    "tanh, sigmoid, leaky": chain(
        Spec((4,), True), Dense(4, 5, True), Tanh(), Dense(5, 4), LeakyRelu(0.2), Dense(4, 4), Sigmoid(), Dense(4, 2)
    ),
    "convolutions": chain(
        *(Spec((4, 4, 1)), Normalize((0.5,), (0.3,)), Conv(1, 2, (3, 3), padding=(1, 1)), Relu(), Residual(BODY)),
        *(MaxPool((2, 2)), Conv(2, 3, (2, 2), bias=True), Relu(), AveragePool((1, 1)), Flatten(), Dense(3, 2)),
    ),
    "mean of places": chain(Spec((3, 3, 1), True), Conv(1, 3, (2, 2)), Relu(), GlobalPool()),
}


def far(network: Network, seed: int = 0) -> tuple[Target, Ticket]:
    """A ticket of random masks, far from its target."""
    target = random_target(network, seed)
    return target, tiny.masked(target, 0.5, seed, promise=True)


def near(name: str) -> Callable[[], tuple[Target, Ticket]]:
    return lambda: approximated("pensia", name, "least-error")


CASES: dict[str, Callable[[], tuple[Target, Ticket]]] = {
    **{name: (lambda network=network: far(network)) for name, network in SHAPES.items()},
    "pensia, nonnegative": near("mlp, inputs never negative"),
    "pensia, any sign": near("mlp with biases, inputs of any sign"),
    "pensia, residual": near("residual, inputs of any sign"),
}


SLOW = {"pensia, residual", "convolutions", "pensia, nonnegative", "mean of places"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES])
def test_measured_is_at_most_searched_is_at_most_the_bound(name: str) -> None:
    target, ticket = CASES[name]()
    assert ticket.network.given is not None
    low = 0.0 if ticket.network.given.nonnegative else -1.0
    bound = bound_output(ticket, target, low=low, high=1.0)
    random = np.random.default_rng(1)
    x = random.uniform(low, 1.0, (200, *ticket.network.given.shape))
    plain, made = collapsed(ticket, effective_weights(ticket))
    theirs = {name: target.array(name).astype(np.float64) for name in target.network.tensors}
    measured = np.abs(_exact(plain, made, x) - _exact(target.network, theirs, x))
    assert (measured.max(0) <= bound.smaller).all()
    found = attack(ticket, target, low=low, high=1.0, starts=8, steps=20, images=x[:8])
    assert measured[:8].max() <= found <= bound.largest
    assert 0 < bound.largest < 100 * found and (bound.linear <= bound.interval * (1 + 1e-9)).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_small_network_against_all_its_pieces(seed: int) -> None:
    """On a plane and one hidden layer g - f is linear between lines: its largest size is where two of them cross."""
    target, ticket = far(mlp((2, 3, 2), Spec((2,), True), bias=True), seed)
    made = {name: value[0] for name, value in effective_weights(ticket).items()}
    theirs = {name: target.array(name).astype(np.float64) for name in target.network.tensors}

    def outputs(own: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ own["fc1.weight"].T + own["fc1.bias"], 0) @ own["fc2.weight"].T + own["fc2.bias"]

    edges = [(1.0, 0.0, 0.0), (1.0, 0.0, -1.0), (0.0, 1.0, 0.0), (0.0, 1.0, -1.0)]
    kinks = []
    for own in (made, theirs):
        kinks += [(*row, bias) for row, bias in zip(own["fc1.weight"], own["fc1.bias"], strict=True)]
    corners = [
        np.linalg.solve([one[:2], two[:2]], [-one[2], -two[2]])
        for one, two in itertools.combinations([*edges, *kinks], 2)
        if abs(np.linalg.det([one[:2], two[:2]])) > 1e-12
    ]
    inside = np.array([corner for corner in corners if (corner >= -1e-12).all() and (corner <= 1 + 1e-12).all()])
    exact = np.abs(outputs(made, inside) - outputs(theirs, inside)).max(0)
    bound = bound_output(ticket, target)
    assert (exact <= bound.smaller).all() and (bound.smaller <= 3 * exact).all()
    assert attack(ticket, target, starts=16, steps=50) == pytest.approx(exact.max(), rel=1e-2)


def test_a_ticket_that_is_its_target_is_no_further_than_rounding() -> None:
    target, ticket = far(SHAPES["mlp"])
    same = {name: value[0].astype(np.float32) for name, value in effective_weights(ticket).items()}
    bound = bound_output(ticket, Target(target.network, same))  # type: ignore[arg-type]
    assert bound.largest < 1e-5  # what a float32 weight is rounded by


@pytest.mark.parametrize(
    ("make", "box", "message"),
    [
        (lambda: far(chain(Spec((2,)), Dense(2, 2), Gelu())), (0.0, 1.0), "through 'gelu': it falls somewhere"),
        (lambda: far(chain(Spec((2,)), Dense(2, 2), LeakyRelu(2.0))), (0.0, 1.0), "LeakyReLU of slope 2"),
        (lambda: far(SHAPES["mlp"]), (-1.0, 1.0), "never negative, and the box begins at -1.0; give 0 or more"),
        (lambda: far(SHAPES["mlp"]), (1.0, 0.0), r"the box is \[1.0, 0.0\]"),
        (lambda: far(SHAPES["mlp"]), (0.0, float("nan")), "give two finite numbers"),
    ],
)
def test_what_has_no_bound_is_refused(make, box: tuple[float, float], message: str) -> None:
    target, ticket = make()
    with pytest.raises(InputError, match=message):
        bound_output(ticket, target, low=box[0], high=box[1])


def test_attention_has_none() -> None:
    zero = Box(np.zeros(3), np.zeros(3))
    with pytest.raises(InputError, match="no bound of the output through a node 'layer_norm'"):
        through(LayerNorm(3), Pair(zero, zero))


FINITE = st.floats(-1e3, 1e3)


@given(st.lists(FINITE, min_size=2, max_size=2), st.lists(st.floats(0, 2), min_size=2, max_size=2), st.floats(0, 1))
def test_products_of_intervals_hold_all_products(ends: list[float], slopes: list[float], part: float) -> None:
    values, factors = (Box(np.array(min(both)), np.array(max(both))) for both in (ends, slopes))
    found = times(factors, values)
    for value in (*ends, ends[0] + part * (ends[1] - ends[0])):
        for factor in (*slopes, slopes[0] + part * (slopes[1] - slopes[0])):
            assert found.low <= value * factor <= found.high
