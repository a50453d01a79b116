"""The convolution with a weight gradient of its own against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.networks.layers.conv import NHWC, convolve


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 0), (0, 0)), ((2, 0), (0, 1))])
@pytest.mark.parametrize(("count", "inputs"), [(8, 2), (3, 2), (4, 9)])
def test_values_and_gradients_are_those_of_xla(padding, count: int, inputs: int) -> None:
    random = np.random.default_rng(0)
    shapes = (count, 6, 5, inputs), (3, 2, inputs, 4)
    x, kernel = (jnp.asarray(random.normal(size=shape) / inputs, jnp.float32) for shape in shapes)

    def of(conv):
        def loss(x, kernel):
            return (jnp.sin(conv(x, kernel, (1, 1), padding, **NHWC)) ** 2).sum()

        def second(x, kernel):  # forward over reverse, as GraSP needs it
            slope = jax.grad(loss, (0, 1))
            return jax.jvp(slope, (x, kernel), (x, kernel))

        return jax.jit(second)(x, kernel)

    for ours, theirs in zip(
        jax.tree.leaves(of(convolve)), jax.tree.leaves(of(jax.lax.conv_general_dilated)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"feature_group_count": 2}, {"rhs_dilation": (2, 1)}, {}],
)
def test_what_it_does_not_do_is_left_to_xla(options: dict) -> None:
    x, kernel = jnp.ones((8, 6, 6, 2)), jnp.ones((2, 2, 2 // options.get("feature_group_count", 1), 4))
    given = {**NHWC, **options}
    for strides in ((1, 1), (2, 2)):
        found = convolve(x, kernel, strides, "VALID", **given)
        np.testing.assert_array_equal(found, jax.lax.conv_general_dilated(x, kernel, strides, "VALID", **given))
