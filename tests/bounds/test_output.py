"""What is measured is at most what is searched for, and that at most the bound; on a plane all pieces are known."""

import itertools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lottery_jax.bounds import attack, bound_output, bound_output_from_tolerance, verify_box
from lottery_jax.bounds.difference import IntervalArray, multiply
from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.forward import forward
from lottery_jax.networks.layers.activations import Gelu, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import LayerNorm, Normalize
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.target import Target
from lottery_jax.tickets.reconstruct import collapse, effective_weights
from lottery_jax.tickets.ticket import Ticket
from tests.comparison import tiny
from tests.constructions.catalogue import NETWORKS, random_target
from tests.constructions.test_catalogue import approximated


def run_float64(network: Network, tensors: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """Outputs of a network for inputs [B, ...], in float64."""
    # Flax's normalisations mix their float32 with the inputs' float64.
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        return np.asarray(forward(network, dict(tensors))(jnp.asarray(x, jnp.float64)))


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
    "rotations": chain(
        *(Spec((3, 3, 1)), RotationConv(1, 2, 2, padding=1, bias=True), Relu(), RotationConv(2, 2, 2, rotations=4)),
        *(GlobalPool(), Dense(2, 2)),
    ),
    "mean of places": chain(Spec((3, 3, 1), True), Conv(1, 3, (2, 2)), Relu(), GlobalPool()),
}


def far(network: Network, seed: int = 0) -> tuple[Target, Ticket]:
    """A ticket of random masks, far from its target."""
    target = random_target(network, seed)
    return target, tiny.masked(target, 0.5, seed, promise=True)


def whole(target: Target, name: str) -> np.ndarray:
    return target.array(name).astype(np.float64)


def near(name: str) -> Callable[[], tuple[Target, Ticket]]:
    return lambda: approximated("pensia", name, "least-error")


CASES: dict[str, Callable[[], tuple[Target, Ticket]]] = {
    **{name: (lambda network=network: far(network)) for name, network in SHAPES.items()},
    "pensia, nonnegative": near("mlp, inputs never negative"),
    "pensia, any sign": near("mlp with biases, inputs of any sign"),
    "pensia, residual": near("residual, inputs of any sign"),
}


SLOW = {"pensia, residual", "convolutions", "pensia, nonnegative", "mean of places", "rotations"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES])
def test_measured_is_at_most_searched_is_at_most_the_bound(name: str) -> None:
    target, ticket = CASES[name]()
    assert ticket.network.input_spec is not None
    low = 0.0 if ticket.network.input_spec.nonnegative else -1.0
    bound = bound_output(ticket, target, box=(low, 1.0))
    random = np.random.default_rng(1)
    x = random.uniform(low, 1.0, (200, *ticket.network.input_spec.shape))
    plain, made = collapse(ticket, effective_weights(ticket))
    theirs = {name: target.array(name).astype(np.float64) for name in target.network.tensors}
    measured = np.abs(run_float64(plain, made, x) - run_float64(target.network, theirs, x))
    assert (measured.max(0) <= bound.by_output).all()
    found = attack(ticket, target, box=(low, 1.0), starts=8, steps=20, images=x[:8])
    assert measured[:8].max() <= found <= bound.largest
    assert bound.linear is not None and 0 < bound.largest < 100 * found
    assert (bound.linear <= bound.interval * (1 + 1e-9)).all()
    # Of the worst residual alone, and of what is promised, more can be said only of the ticket itself.
    wanted = fold_batch_norm(target)
    worst = max(np.abs(value - whole(wanted, name)).max() for name, value in effective_weights(ticket).items())
    alone = bound_output_from_tolerance(target, worst, box=(low, 1.0))
    assert bound.from_tolerance is not None and ticket.header.tolerance is not None and worst <= ticket.header.tolerance
    assert (bound.interval <= alone * (1 + 1e-9)).all() and (alone <= bound.from_tolerance).all()


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
    assert (exact <= bound.by_output).all() and (bound.by_output <= 3 * exact).all()
    assert attack(ticket, target, starts=16, steps=50) == pytest.approx(exact.max(), rel=1e-2)


@pytest.mark.parametrize("low", [0.0, -0.5])
def test_what_is_promised_is_reached_and_follows_by_hand(low: float) -> None:
    """Positive weights and biases, all of them the tolerance too large: no ReLU is at 0, and nothing cancels."""
    network = mlp((3, 4, 2), Spec((3,), low >= 0), bias=True)
    random, eps = np.random.default_rng(0), 0.03
    arrays = {name: random.uniform(0.1, 0.2, shape).astype(np.float32) for name, shape in network.tensors.items()}
    arrays["fc1.bias"] += 1
    target = Target(network, arrays)  # type: ignore[arg-type]
    first, bias, second = (whole(target, name) for name in ("fc1.weight", "fc1.bias", "fc2.weight"))
    error = eps * (3 + 1)  # each of three inputs is at most 1 in size, and the constant is 1
    hidden = first.sum(1) + bias + error
    by_hand = second.sum(1) * error + eps * (hidden.sum() + 1)
    found = bound_output_from_tolerance(target, eps, box=(low, 1.0))
    assert found == pytest.approx(by_hand, rel=1e-9) and (found >= by_hand).all()
    moved = {name: value.astype(np.float64) + eps for name, value in arrays.items()}
    x = np.ones((1, 3))
    theirs = {name: whole(target, name) for name in arrays}
    assert np.abs(run_float64(network, moved, x) - run_float64(network, theirs, x))[0] == pytest.approx(found, rel=1e-9)


def test_a_ticket_that_is_its_target_is_no_further_than_rounding() -> None:
    target, ticket = far(SHAPES["mlp"])
    same = {name: value[0].astype(np.float32) for name, value in effective_weights(ticket).items()}
    bound = bound_output(ticket, Target(target.network, same))  # type: ignore[arg-type]
    assert bound.largest < 1e-5  # what a float32 weight is rounded by
    assert bound_output_from_tolerance(target, 0).max() < 1e-9
    assert bound_output(tiny.masked(target, 0.5, 0), target).from_tolerance is None  # of a ticket without a guarantee


@pytest.mark.parametrize(
    ("make", "box", "message"),
    [
        (
            lambda: far(chain(Spec((2,)), Dense(2, 2), Gelu())),
            (0.0, 1.0),
            "at the layer 'n1' the output cannot be bounded through 'gelu': it is not monotone",
        ),
        (
            lambda: approximated("burkholz", "mlp, inputs never negative", "least-error"),
            (0.0, 1.0),
            "replicated neurons, as in the layer 'fc1', cannot be bounded",
        ),
        (
            lambda: (random_target(mlp((4, 6, 6, 3), Spec((4,), True), bias=True)), far(SHAPES["mlp"])[1]),
            (0.0, 1.0),
            "network has other layers than this target",
        ),
        (lambda: far(chain(Spec((2,)), Dense(2, 2), LeakyRelu(2.0))), (0.0, 1.0), "LeakyReLU of slope 2"),
        (lambda: far(SHAPES["mlp"]), (-1.0, 1.0), "never negative, and the box begins at -1.0; give 0 or more"),
        (lambda: far(SHAPES["mlp"]), (1.0, 0.0), r"the box is \[1.0, 0.0\]"),
        (lambda: far(SHAPES["mlp"]), (0.0, float("nan")), "give two numbers in order"),
    ],
)
def test_what_has_no_bound_is_refused(make, box: tuple[float, float], message: str) -> None:
    target, ticket = make()
    with pytest.raises(InputError, match=message):
        bound_output(ticket, target, box=box)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (NETWORKS["transformer"](True), "at the layer 'pos_embed' the output cannot be bounded through 'position"),
        (
            chain(Spec((3, 2)), Dense(2, 2), LayerNorm(2), Dense(2, 2)),
            "at the layer 'n1' the output cannot be bounded through 'layer_norm'",
        ),
        (
            chain(Spec((3, 2)), Residual(Attention(1, Dense(2, 6), Dense(2, 2)))),
            "at the layer 'n0' the output cannot be bounded through 'attention', only through dense layers",
        ),
    ],
)
def test_attention_and_what_normalises_have_none(network: Network, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bound_output_from_tolerance(random_target(network), 0.01)


@pytest.mark.parametrize("tolerance", [None, 1e-9])
def test_verify_box_reconstructs_weights_once(tolerance: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    target, ticket = CASES["pensia, any sign"]()
    bound, found = bound_output(ticket, target, box=(-1, 1)), attack(ticket, target, box=(-1, 1))
    for module in ("output", "verify_box"):
        monkeypatch.setattr(sys.modules[f"lottery_jax.bounds.{module}"], "effective_weights", None)
    verified = verify_box(ticket, target=target, box=(-1, 1), tolerance=tolerance)
    if tolerance is not None:
        assert verified.certificate.outcome == "broken" and verified.output_bound is verified.largest_found is None
        return
    assert verified.output_bound is not None
    assert (verified.output_bound.largest, verified.largest_found) == (bound.largest, found)


def test_a_network_whose_outputs_have_no_bound_is_verified_all_the_same() -> None:
    target, ticket = approximated("burkholz", "mlp, inputs of any sign", "least-error")
    found = verify_box(ticket, target=target, box=(-2, 2))
    assert found.certificate.holds and found.certificate.box == (-2, 2)
    assert found.output_bound is None and "replicated neurons" in str(found.not_bounded)


FINITE = st.floats(-1e3, 1e3)


@given(st.lists(FINITE, min_size=2, max_size=2), st.lists(st.floats(0, 2), min_size=2, max_size=2), st.floats(0, 1))
def test_products_of_intervals_hold_all_products(ends: list[float], slopes: list[float], part: float) -> None:
    values, factors = (IntervalArray(np.array(min(both)), np.array(max(both))) for both in (ends, slopes))
    found = multiply(factors, values)
    for value in (*ends, ends[0] + part * (ends[1] - ends[0])):
        for factor in (*slopes, slopes[0] + part * (slopes[1] - slopes[0])):
            assert found.low <= value * factor <= found.high
