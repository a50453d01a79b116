"""Tickets of weights that are taken several times: they hold, last, collapse, and cannot be forged by their factors."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import TicketError
from lottery_jax.networks.forward import forward
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.random_layer import MultiLevelLayer
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.export import export_weights
from lottery_jax.tickets.reconstruct import collapse, effective_weights
from lottery_jax.tickets.ticket import Ticket, load_ticket, make_ticket
from lottery_jax.tickets.verify import verify
from tests.tickets.forging import forge, read, resourced

LEAVES = {
    "fc1": MultiLevelLayer(Dense(6, 5, bias=True), Sampler.normal(0.5), (1.0, -1.0, 0.25), gain=0.5),
    "fc2": MultiLevelLayer(Dense(5, 3), Sampler.uniform(-1, 1), (1.0, 0.5)),
}
SOURCE = Network(Chain((("fc1", LEAVES["fc1"]), ("relu", Relu()), ("fc2", LEAVES["fc2"]))), Spec((6,)))
REDRAWS = {"fc1.weight": np.array([[2, 1], [29, 255]])}
MASKS = {name: np.random.default_rng(0).random(drawn.shape) < 0.5 for name, drawn in SOURCE.random_tensors.items()}


def made_by_hand() -> dict[str, np.ndarray]:
    """Gain times random weight times the sum of the kept factors."""
    weights, found = SOURCE.draw(7, REDRAWS), {}
    for name, mask in MASKS.items():
        leaf = LEAVES[name.partition(".")[0]]
        once = weights[name].astype(np.float64)
        assert (once == once[..., :1]).all()
        found[name] = leaf.gain * (mask * once) @ np.array(leaf.factors)
    return found


@pytest.fixture(scope="module")
def target() -> Target:
    """What the ticket makes, but for float32."""
    return Target(SOURCE.target, {name: value.astype(np.float32) for name, value in made_by_hand().items()})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ticket(target: Target) -> Ticket:
    return make_ticket(SOURCE, seed=7, masks=MASKS, method="by hand", redraws=REDRAWS, target=target, tolerance=1e-6)


def test_the_verifier_finds_what_is_made(ticket: Ticket, target: Target, tmp_path: Path) -> None:
    for name, value in made_by_hand().items():
        np.testing.assert_allclose(effective_weights(ticket)[name][0], value, rtol=1e-12, atol=1e-12)
    ticket.save(tmp_path / "ticket")
    for one in (ticket, load_ticket(tmp_path / "ticket")):
        found = verify(one, target=target)
        assert found.holds and found.source_weights == 6 * 5 + 5 + 5 * 3
        assert found.kept_weights == sum(np.count_nonzero(mask) for mask in MASKS.values())
        assert found.description_bits["masks"] > 0.9 * sum(mask.size for mask in MASKS.values())
    mask = MASKS["fc1.bias"].copy()
    mask[0, 1] ^= True
    other = make_ticket(SOURCE, seed=7, masks={**MASKS, "fc1.bias": mask}, method="x", redraws=REDRAWS)
    assert verify(other, target=target, tolerance=1e-6).outcome == "broken"


@pytest.mark.slow
def test_it_collapses_and_is_exported(ticket: Ticket, target: Target, tmp_path: Path) -> None:
    x = jnp.asarray(np.random.default_rng(1).normal(size=(9, 6)), jnp.float32)
    network, weights = collapse(ticket, effective_weights(ticket))
    exact = forward(network, {name: np.asarray(value, np.float32) for name, value in weights.items()})(x)
    np.testing.assert_allclose(ticket.forward()(x), exact, atol=1e-5)
    np.testing.assert_allclose(ticket.module()(x), exact, atol=1e-5)  # type: ignore[operator]
    assert export_weights(ticket, tmp_path / "weights") == "3 tensors, float32, as the ticket makes them"


@pytest.mark.parametrize(
    "factors",
    [
        *([], [0.0, -1.0, 0.25], [math.nan, -1.0, 0.25], [math.inf, -1.0, 0.25], [1.0, 1.0, 0.25], [1.0, -1.0, 0.3]),
        *([1.0, -1.0, 2.0], [1.0, -1.0, 2.0**-16], [1.0, -1.0], "1", [[1.0], -1.0, 0.25], [True, -1.0, 0.25], None),
        *([2.0**-place for place in range(16)] * 4, [1.0] * 10**5),
    ],
    ids=lambda factors: str(factors)[:20],
)
def test_forged_factors_are_refused(factors: object, ticket: Ticket, target: Target, tmp_path: Path) -> None:
    ticket.save(tmp_path / "ticket")
    header, tensors = read(tmp_path / "ticket")
    header["network"]["root"]["nodes"][0][1]["factors"] = factors
    with pytest.raises(TicketError):
        verify(forge(tmp_path / "forged", json.loads(json.dumps(header)), tensors), target=target)


def test_other_factors_are_another_network(ticket: Ticket, target: Target, tmp_path: Path) -> None:
    ticket.save(tmp_path / "ticket")
    header, tensors = read(tmp_path / "ticket")
    header["network"]["root"]["nodes"][0][1]["factors"] = [1.0, -1.0, 0.5]
    assert verify(forge(tmp_path / "forged", resourced(header), tensors), target=target).outcome == "broken"
