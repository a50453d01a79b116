"""A ticket whose network overflows on the promised box never holds, also if its target overflows there as well."""

import collections
import math
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax import export_target
from lottery_jax.errors import InputError, TicketError
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import Graph, Step
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm
from lottery_jax.networks.layers.operations import Binary, Elementwise, Power
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.overflow import HEADROOM
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket, load_ticket, make_ticket
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import random_target
from tests.tickets.forging import forge, read
from tests.tickets.test_box_bounds import NETWORKS, chain, inputs_of

SIGN = Sampler.signed_constant(1.0)


def ticket_of_own_target(
    network: Network, stored: Mapping[str, np.ndarray], layers: Mapping[str, RandomLayer] | None = None
) -> Ticket:
    """A ticket that keeps all weights and promises what these are; layers that are not given have weights of +-1."""

    def random_layer(path: str, node: Node) -> Node:
        return (layers or {}).get(path, RandomLayer(node, SIGN)) if isinstance(node, LinearLayer) else node

    source = network.map_layers(random_layer)
    masks = {name: np.ones(tensor.shape, bool) for name, tensor in source.random_tensors.items()}
    stored = {name: stored[name].astype(np.float32) for name in source.tensors}
    parts = {"seed": 3, "masks": masks, "method": "x", "stored": stored}
    weights = {
        name: value[0].astype(np.float32) for name, value in effective_weights(make_ticket(source, **parts)).items()
    }
    target = Target(source.target, {**stored, **weights})  # type: ignore[arg-type]
    largest = max(target.scan(name).largest for name in weights)
    return make_ticket(source, **parts, target=target, tolerance=1e-3 * largest)


def overflows(network: Target | Ticket, box: tuple[float, float]) -> bool:
    """Whether an output is not finite for some inputs of the box."""
    forward = network.forward()
    spec = network.network
    return not np.isfinite(np.asarray(forward(jnp.asarray(inputs_of(spec, box, 0))))).all()


@pytest.mark.parametrize(("name", "overflowing", "negative"), [("images", 2, 3), ("tokens", 4, 0), ("rotations", 0, 3)])
def test_no_stored_number_of_a_ticket_makes_it_overflow_and_hold(
    name: str, overflowing: int, negative: int, tmp_path: Path
) -> None:
    """Every stored tensor in turn, with huge numbers and with variances that are negative, or zero with epsilon."""
    honest = ticket_of_own_target(NETWORKS[name], random_target(NETWORKS[name]).arrays())
    honest.save(tmp_path / "honest")
    assert verify(tmp_path / "honest").holds
    header, tensors = read(tmp_path / "honest")
    found = collections.Counter[str]()
    for own in honest.network.tensors:
        for value in (3e38, -3e38, 1e25, -0.9, -1e-5):
            changed = tensors[f"stored.{own}"].copy()
            changed.reshape(-1)[0] = value
            path = forge(tmp_path / "forged", header, {**tensors, f"stored.{own}": changed})
            if not overflows(load_ticket(path), (0.0, 1.0)):
                continue
            try:
                certificate = verify(path)
                assert certificate.outcome == "no guarantee", (own, value)
                assert "no bound in float32" in certificate.reasons[0]
                found["overflowing"] += 1
            except TicketError as error:
                assert own.endswith("running_var") and "a variance of 0 or more" in str(error)
                found["negative"] += 1
    assert found["overflowing"] >= overflowing and found["negative"] == negative, found


@pytest.mark.parametrize("variance", [-0.9, -1e-5])
@pytest.mark.parametrize("folded", [False, True])
def test_a_target_with_a_negative_variance_is_refused(variance: float, folded: bool) -> None:
    """Also one that epsilon makes positive in float64, and zero in float32."""
    nodes = (Conv(1, 2, (1, 1)), BatchNorm(2)) if folded else (Conv(1, 2, (1, 1)), Relu(), BatchNorm(2))
    honest = random_target(chain(Spec((3, 3, 1)), *nodes))
    norm = "n1" if folded else "n2"
    tensors = honest.arrays() | {f"{norm}.running_var": np.array([variance, 1], np.float32)}
    target, ticket = Target(honest.network, tensors), ticket_of_own_target(honest.network, honest.arrays())  # type: ignore[arg-type]
    assert verify(ticket, target=ticket.target).holds
    with pytest.raises(InputError, match=f"'{norm}.running_var' must be a variance of 0 or more, got -"):
        verify(ticket, target=target)


def test_layers_that_overflow_together_hold_on_a_smaller_box_only(tmp_path: Path) -> None:
    """Two layers of weights 2**64: each is finite, and so is the target's copy, which the ticket chooses."""
    huge = {path: RandomLayer(Dense(4, 4), Sampler.signed_constant(2.0**64)) for path in ("n0", "n1")}
    ticket = ticket_of_own_target(chain(Spec((4,)), Dense(4, 4), Dense(4, 4)), {}, huge)
    ticket.save(tmp_path / "t")
    assert overflows(ticket, (-1, 1)) and not overflows(ticket, (-1e-3, 1e-3))
    for target in (None, ticket.target):
        found = verify(tmp_path / "t", target=target)
        assert found.outcome == "no guarantee" and found.reasons[0].endswith("; give a smaller box")
        assert verify(tmp_path / "t", target=target, box=(-1e-3, 1e-3)).holds


@pytest.mark.parametrize(
    "operations",
    [
        [("large", Binary("mul"), ("fc", "fc")), ("out", Power(8), ("large",))],
        [("out", Elementwise("exp"), ("fc",))],
        [("out", Elementwise("log"), ("fc",))],
        [("out", Binary("div"), ("fc", "fc"))],
    ],
    ids=["power", "exp", "log", "div"],
)
def test_a_ticket_that_chooses_an_operation_without_a_bound_does_not_hold(
    operations: list[Step], tmp_path: Path
) -> None:
    """A graph of the ticket's own choice is infinite, or NaN, for inputs of the box."""
    huge = RandomLayer(Dense(4, 4), Sampler.signed_constant(2.0**16))
    graph = Graph((("fc", Dense(4, 4), ("input",)), *operations), "out")
    ticket = ticket_of_own_target(Network(graph, Spec((4,))), {}, {"fc": huge})
    ticket.save(tmp_path / "t")
    assert overflows(ticket, (-1, 1))
    found = verify(tmp_path / "t")
    assert found.outcome == "no guarantee" and "no bound in float32" in found.reasons[0]


def deep(weight: float = 1.0, last: RandomLayer | None = None) -> Ticket:
    """Normalisations whose bounds in float32 multiply without end: no box has a bound, and values are near `weight`."""
    nodes: list[tuple[str, Node]] = []
    for at in range(6):
        nodes += [(f"norm{at}", LayerNorm(4, epsilon=2.0**-64)), (f"fc{at}", Dense(4, 4))]
    network = Network(Chain(tuple(nodes)), Spec((4,)))
    stored = {name: np.full(shape, float(name.endswith("weight"))) for name, shape in network.tensors.items()}
    stored["norm5.weight"] *= weight
    return ticket_of_own_target(network, stored, {} if last is None else {"fc5": last})


def test_without_a_bound_a_ticket_holds_only_for_a_target_that_the_user_gave(tmp_path: Path) -> None:
    ticket = deep()
    assert ticket.target is not None and not overflows(ticket, (-1, 1))
    ticket.save(tmp_path / "t")
    found = verify(tmp_path / "t", target=ticket.target)
    assert found.holds and found.largest_value is None and found.largest_value_layer == "norm3"
    own = verify(tmp_path / "t")
    assert own.outcome == "no guarantee" and own.reasons[0].endswith("give the target and its network")
    # A file of weights leaves the inputs to the ticket.
    export_target(ticket.target, tmp_path / "target.safetensors")
    given = verify(tmp_path / "t", target=tmp_path / "target.safetensors", expect=ticket.network.target)
    assert given.holds and given.taken_from_ticket == ()


def test_a_ticket_that_overflows_where_a_deep_target_does_not_never_holds(tmp_path: Path) -> None:
    """Neither has a bound. Sums in front of a small gain are 2**64 times those of the target, and overflow."""
    for power, outcome in (
        (0, "holds"),
        (10, "holds"),
        (int(math.log2(HEADROOM)) + 1, "no guarantee"),
        (64, "no guarantee"),
    ):
        last = RandomLayer(Dense(4, 4), Sampler.signed_constant(2.0**power), gain=2.0**-power)
        ticket = deep(2.0**64, last)
        ticket.save(tmp_path / "t")
        assert ticket.target is not None and not overflows(ticket.target, (-1, 1))
        assert overflows(ticket, (-1, 1)) == (power == 64)
        found = verify(tmp_path / "t", target=ticket.target)
        assert found.outcome == outcome and found.largest_value is None
        if outcome != "holds":
            assert f"sums of 'fc5' are {2.0**power:.3g} times the target's" in found.reasons[0]
