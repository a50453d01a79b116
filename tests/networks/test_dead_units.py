"""Without its dead hidden units a pruned network is smaller, and computes the same."""

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.networks.forward import forward, without_dead_units
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Spec
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler

U = Sampler.uniform(-1, 1)
OPERATIONS = (
    (Dense(4, 6), Spec((4,))),
    (Dense(4, 6, True), Spec((4,))),
    (Conv(4, 6, (3, 3), padding=(1, 1), bias=True), Spec((5, 5, 4))),
    (Conv(4, 6, (2, 2), groups=2), Spec((5, 5, 4))),
    (Conv(4, 4, (3, 3), groups=4, bias=True), Spec((5, 5, 4))),
)


def pruned(network: Network, alive: int) -> dict[str, np.ndarray]:
    """Half of everything is pruned, and of each input's edges all but `alive`."""
    random = np.random.default_rng(0)
    found = {name: value * (random.random(value.shape) < 0.5) for name, value in network.draw(3).items()}
    for name in found:
        if name.endswith("first"):
            found[name] = network.draw(3)[name] * (random.random(found[name].shape).argsort(1) < alive)
    return found


@pytest.mark.parametrize(("layer", "given"), OPERATIONS, ids=str)
@pytest.mark.parametrize("alive", [0, 2, 3, 4, 7])
def test_it_computes_the_same(layer: LinearLayer, given: Spec, alive: int) -> None:
    network = Network(Chain((("a", Gadget(layer, 7, U, U, gain=0.5)),)), given)
    random = pruned(network, alive)
    smaller, left = without_dead_units(network, random)
    assert smaller.sources["a"].units_per_input == (3 if alive <= 3 else 7)
    assert {name: value.shape for name, value in left.items()} == {
        name: d.shape for name, d in smaller.random_tensors.items()
    }
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, *given.shape)), jnp.float32)
    np.testing.assert_allclose(forward(smaller, left)(x), forward(network, random)(x), atol=1e-6)


def test_leaves_without_hidden_units_stay() -> None:
    network = Network(Chain((("a", RandomLayer(Dense(3, 2), U)), ("b", Gadget(Dense(2, 2), 1, U, U)))), Spec((3,)))
    random = pruned(network, 0)
    smaller, left = without_dead_units(network, random)
    assert smaller == network and all(left[name] is value for name, value in random.items())
