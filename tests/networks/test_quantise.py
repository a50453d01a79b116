"""Targets on a grid: a step that is a power of two, the nearest multiples of it, and what stays as it was."""

import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.architectures import resnet, vit
from lottery_jax.networks.node import Spec
from lottery_jax.networks.rewrites import grid_exponent, quantise
from tests.constructions.catalogue import bag, random_target


@pytest.mark.parametrize("bits", [1, 2, 8, 16])
def test_weights_are_the_nearest_of_so_many_steps(bits: int) -> None:
    target = bag()
    rounded = quantise(target, bits)
    for name in target.network.tensors:
        exact, found = target.array(name).astype(np.float64), rounded.array(name)
        assert found.dtype == np.float32
        if not exact.any():
            assert grid_exponent(rounded, name) is None and not found.any()
            continue
        reach = 2.0 ** np.ceil(np.log2(np.abs(exact).max()))
        step = 2 * reach / 2**bits
        np.testing.assert_array_equal(found, np.round(exact / step) * step)
        finest = grid_exponent(rounded, name)
        assert finest is None or 2.0**finest >= step
    again = quantise(rounded, bits)
    assert all(np.array_equal(again.array(name), rounded.array(name)) for name in target.network.tensors)


def test_the_finest_step_of_a_tensor() -> None:
    random = np.random.default_rng(0)
    whole = random.integers(-(2**15), 2**15, (40, 9))
    for exponent in (-90, -3, 0, 40):
        target = mlp_target([np.ldexp(whole.astype(np.float32), exponent)])
        assert grid_exponent(target, "fc1.weight") == exponent
        assert grid_exponent(mlp_target([np.ldexp(4 * whole.astype(np.float32), exponent)]), "fc1.weight") == (
            exponent + 2
        )


def test_batch_normalisations_are_folded_first_and_stored_tensors_stay() -> None:
    residual = random_target(resnet(Spec((4, 4, 1), True), 3, 1.0, channels=(2, 2), blocks=(1, 1), bottleneck=False))
    rounded = quantise(residual, 6)
    assert "conv1.bias" in rounded.network.tensors and "bn1.weight" not in rounded.network.tensors
    transformer = random_target(vit(Spec((4, 4, 1), True), 3, 1 / 32, patch=2, depth=1))
    rounded, approximated = quantise(transformer, 2), set(transformer.network.approximated)
    for name in transformer.network.tensors:
        assert np.array_equal(rounded.array(name), transformer.array(name)) == (name not in approximated), name


@pytest.mark.parametrize("bits", [0, 25, -1, 2.0, True, "8"])
def test_no_bits_are_refused(bits) -> None:
    with pytest.raises(InputError, match="from 1 to 24"):
        quantise(mlp_target([np.ones((1, 1), np.float32)]), bits)
