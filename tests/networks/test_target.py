"""A target in memory: its tensors fit its network, and its digest is of both."""

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.single import Single
from lottery_jax.networks.target import Target
from tests.networks.catalogue import U, stored


def test_a_target_holds_what_its_network_has() -> None:
    network = Network(Chain((("fc", Dense(4, 3, bias=True)),)), Spec((4,)))
    arrays = stored(network.root)
    target = Target(network, arrays)  # type: ignore[arg-type]
    assert target.weights == 15 and target.scan("fc.weight").largest == np.abs(arrays["fc.weight"]).max()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
    np.testing.assert_allclose(target.forward()(x), target.module()(x), rtol=1e-6)  # type: ignore[operator]
    changed = {**arrays, "fc.bias": arrays["fc.bias"] + np.float32(1)}
    signed = Network(network.root, Spec((4,), nonnegative=True))
    digests = [Target(*pair).digest for pair in ((network, arrays), (signed, arrays), (network, changed))]  # type: ignore[arg-type]
    assert digests[0] == target.digest == digests[1] != digests[2]
    with pytest.raises(InputError, match=r"must hold fc.weight \[3, 4\], fc.bias \[3\], but holds fc.weight \[3, 4\]"):
        Target(network, {"fc.weight": arrays["fc.weight"]})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\['fc.bias'\] are no floats"):
        Target(network, {**arrays, "fc.bias": np.ones(3, np.int64)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no random leaves"):
        Target(Network(Single(Dense(4, 3), U), Spec((4,))), {})  # type: ignore[arg-type]
    broken = arrays["fc.weight"].copy()
    broken[0, 1], broken[2, 2] = np.nan, np.inf
    with pytest.raises(InputError, match=r"'fc.weight' of the target has 2 of 12 weights that are NaN"):
        Target(network, {**arrays, "fc.weight": broken}).scan("fc.weight")  # type: ignore[arg-type]
