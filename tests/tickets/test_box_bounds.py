"""Intervals of all values on a box: whatever a float32 network computes there lies inside, for every kind of node."""

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.networks.architectures import vit
from lottery_jax.networks.intervals import IntervalArray
from lottery_jax.networks.layers.activations import Gelu, LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.attention import Attention, MergedAttention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense, PositionEmbedding
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm, Normalize
from lottery_jax.networks.layers.operations import OPERATIONS
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec, StatelessLayer
from lottery_jax.networks.registry import NODES
from lottery_jax.networks.target import Target
from lottery_jax.tickets.box_bounds import ChannelBounds, NotBounded, _Walk, bound_box
from lottery_jax.tickets.linear_terms import LinearTerms, target_terms
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import random_target
from tests.constructions.test_catalogue import approximated


def chain(given: Spec, *nodes: Node) -> Network:
    return Network(Chain(tuple((f"n{at}", node) for at, node in enumerate(nodes))), given)


BLOCK = Residual(Chain((("conv", Conv(4, 4, (3, 3), padding=(1, 1), bias=True)), ("bn", BatchNorm(4)), ("a", Gelu()))))
MERGED = MergedAttention(2, Dense(4, 8, bias=True), Dense(8, 4))
PROJECTED = Residual(
    Chain((("conv", Conv(2, 4, (3, 3), stride=(2, 1), padding=(1, 0), groups=2)),)), Conv(2, 4, (1, 3), stride=(2, 1))
)
NETWORKS: dict[str, Network] = {
    "dense": chain(Spec((5,)), Dense(5, 4, bias=True), LeakyRelu(0.3), Dense(4, 6), Tanh(), Dense(6, 3), Sigmoid()),
    "negative slope": chain(Spec((5,)), LeakyRelu(-2.0), Dense(5, 2)),
    "images": chain(
        *(Spec((6, 6, 2), nonnegative=True), Normalize((0.5, 0.1), (0.2, 3.0)), PROJECTED, Relu()),
        *(MaxPool((2, 2), (1, 1), (1, 0)), BLOCK, AveragePool((2, 2), padding=(1, 1)), Flatten(), Dense(24, 3, True)),
    ),
    "rotations": chain(
        *(Spec((4, 4, 1)), RotationConv(1, 2, 3, padding=1), Relu(), RotationConv(2, 3, 2, rotations=4, bias=True)),
        *(GlobalPool(), BatchNorm(3, affine=False), Dense(3, 2)),
    ),
    "tokens": chain(
        *(Spec((3, 3, 4)), Tokens(), PositionEmbedding(9, 4), LayerNorm(4)),
        *(Attention(2, Dense(4, 12, bias=True), Dense(4, 4)), LayerNorm(4), MERGED, GlobalPool()),
    ),
    "transformer": vit(Spec((4, 4, 1), True), 3, 1 / 32, patch=2, depth=1),
}


def outputs_on(target: Target, terms: object, box: tuple[float, float], *, copied: bool = False) -> ChannelBounds:
    """Bounds of the outputs of a network."""
    network = target.network
    assert network.input_spec is not None
    channels = network.input_spec.shape[-1]
    inputs = IntervalArray(np.full(channels, box[0]), np.full(channels, box[1]))
    walk = _Walk(network, terms, lambda name: target.array(name).astype(np.float64))  # type: ignore[arg-type]
    return walk.through(network.root, "", ChannelBounds(inputs))


def inputs_of(network: Network, box: tuple[float, float], seed: int) -> np.ndarray:
    """Random inputs, corners and constant inputs."""
    assert network.input_spec is not None
    random, shape = np.random.default_rng(seed), network.input_spec.shape
    inside = random.uniform(*box, (100, *shape))
    corners = random.choice(box, (100, *shape))
    constant = np.multiply.outer(np.linspace(*box, 21), np.ones(shape))
    return np.concatenate([inside, corners, constant]).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("box", [(0.0, 1.0), (0.0, 1e-6), (0.5, 300.0)])
def test_every_output_lies_in_its_interval(name: str, box: tuple[float, float]) -> None:
    for seed in range(3):
        target = random_target(NETWORKS[name], seed)
        terms = target_terms(lambda own, target=target: target.array(own).astype(np.float64))
        bounds = outputs_on(target, terms, box).values
        made = np.asarray(target.forward()(jnp.asarray(inputs_of(target.network, box, seed))), np.float64)
        assert (made >= bounds.low).all() and (made <= bounds.high).all()
        if name == "negative slope":  # and they are no wider than they must be
            assert np.ptp(made, 0).max() > 0.3 * (bounds.high - bounds.low).max()


def test_every_kind_of_node_is_covered() -> None:
    """A kind without an interval must be a random layer, a container of tensors, or not be there."""
    used = {type(node).kind for network in NETWORKS.values() for _, node in network.nodes()}
    sources = {kind for kind in NODES if kind not in used}
    assert sources <= {
        *("graph", *(operation.kind for operation in OPERATIONS)),  # in test_graph_bounds
        *(
            "candidates_per_weight",
            "gadget",
            "random_layer",
            "multi_level_layer",
            "replicated_neurons",
            "trained_layer",
        ),
        *("replicated_gadget", "binary_ladder", "partly_trained_layer", "tensor_dict", "named_tensor"),
    }


class Square(StatelessLayer):
    """A kind of node that the bounds do not know."""

    kind = "square"

    def output_spec(self, input_spec: Spec) -> Spec:
        return input_spec

    def __call__(self, x):  # type: ignore[no-untyped-def]
        return x * x


def test_an_unknown_node_and_an_overflow_are_not_bounded() -> None:
    target = random_target(NETWORKS["dense"])

    def tensor(name: str) -> np.ndarray:
        return target.array(name).astype(np.float64)

    assert bound_box(target.network, target_terms(tensor), tensor, (0, 1)).bounded
    over = bound_box(target.network, target_terms(tensor), tensor, (0, 3.4e38))
    assert not over.bounded and over.layer == "n0"
    unknown = chain(Spec((5,)), Dense(5, 4, bias=True), Square())
    found = bound_box(unknown, target_terms(tensor), tensor, (0, 1))
    assert not found.bounded and found.layer == "n1"
    with pytest.raises(NotBounded):
        outputs_on(Target(unknown, {name: tensor(name) for name in unknown.tensors}), target_terms(tensor), (0, 1))  # type: ignore[arg-type]


def test_copies_are_judged_for_each_output() -> None:
    """A neuron of 0.5 whose copies are 0.51: behind it absolute terms of 1000 are right for 1000, and not for 0.31."""
    network = chain(Spec((1,), True), Dense(1, 1), Dense(1, 2))
    zero, both = np.zeros(2), (0.01, 0.0)

    def terms(path: str, layer: LinearLayer) -> LinearTerms:
        first = path == "n0"
        target = np.array([0.5] if first else [1000.0, 0.31]).reshape(-1, 1, 1)
        none, size = np.zeros(len(target)), np.full(len(target), 0.51 if first else 1000.0)
        return LinearTerms(
            weight=(target + 0.01 if first else target)[None],
            bias=none,
            size=size,
            bias_size=none,
            relative=none,
            underflow=none,
            spread=None if first else size.reshape(-1, 1, 1),
            target=(target, none),
            tolerance=both,
        )

    found = bound_box(network, terms, lambda name: zero, (0, 1), copied=True)
    assert found.apart == pytest.approx(10) and found.apart_allowed == pytest.approx(4 * (0.32 * 0.01 + 0.01 * 0.51))
    assert "an output may be 10 away" in found.copy_faults[0]


@pytest.mark.parametrize(
    ("construction", "name"),
    [
        ("pensia", "mlp, inputs of any sign"),
        ("pensia", "convolutions, inputs never negative"),
        ("pensia", "transformer, inputs of any sign"),
        ("burkholz", "residual, inputs of any sign"),
        ("burkholz", "mlp with biases, inputs of any sign"),
        ("ferbach", "rotations, inputs of any sign"),
        ("binary", "mlp, inputs of any sign"),
    ],
)
def test_a_tickets_values_are_below_the_bound_and_its_outputs_near_the_targets(construction: str, name: str) -> None:
    target, ticket = approximated(construction, name, "least-error")
    found = verify(ticket, target=target)
    assert found.holds and found.box is not None and found.largest_value is not None
    x = jnp.asarray(inputs_of(ticket.network, found.box, 0))
    made, wanted = (np.asarray(function(x), np.float64) for function in (ticket.forward(), target.forward()))
    assert np.abs(made).max() < found.largest_value
    if construction == "burkholz":
        assert found.copies_apart is not None and found.copies_apart_allowed is not None
        assert 0 < np.abs(made - wanted).max() < found.copies_apart < found.copies_apart_allowed / 2
    else:
        assert found.copies_apart is None
