"""Two computations of one function agree to float accuracy; any other function is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.importers.agreement import check_agreement, check_on_random_inputs, random_inputs
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target

SIZES = (7, 20, 15, 1)


def weights(seed: int = 0, scale: float = 1.0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    pairs = zip(SIZES[1:], SIZES[:-1], strict=True)
    return [scale * random.normal(size=pair).astype(np.float32) for pair in pairs]


def with_activation(activation, matrices):
    def function(x):
        for place, matrix in enumerate(matrices):
            x = (activation(x) if place else x) @ matrix.T
        return x

    return function


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e3])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_same_function_agrees_at_every_scale_of_weights(scale: float, nonnegative: bool) -> None:
    """In another order of operations: float64 on the host, and compiled."""
    for seed in range(20):
        matrices = weights(seed, scale)
        target = mlp_target(matrices, nonnegative=nonnegative)
        wide = [matrix.astype(np.float64) for matrix in matrices]
        exact = with_activation(lambda x: np.maximum(x, 0), wide)
        check_on_random_inputs(target, lambda x, exact=exact: exact(np.asarray(x, np.float64)), what="numpy")
        check_on_random_inputs(target, jax.jit(with_activation(jax.nn.relu, matrices)), what="jit")


ACTIVATIONS = {
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "leaky": jax.nn.leaky_relu,
    "relu6": jax.nn.relu6,
    "elu": jax.nn.elu,
    "none": lambda x: x,
    "softplus": jax.nn.softplus,
}


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_other_activation_is_seen(name: str, scale: float) -> None:
    matrices = weights(1, scale)
    if name == "relu6":  # never reached by hidden values below 6
        matrices = [matrices[0] / scale, *matrices[1:]]
    for nonnegative in (False, True):
        with pytest.raises(InputError, match=r"^the function must have the outputs of the target, got .* Do that\.$"):
            check_on_random_inputs(
                mlp_target(matrices, nonnegative=nonnegative),
                with_activation(ACTIVATIONS[name], matrices),
                what="the function",
                advice="Do that.",
            )


def test_one_wrong_output_of_many_is_named() -> None:
    """Also an output that is small compared with the others."""
    first = np.concatenate([1000 * np.eye(4), 1e-1 * np.eye(4)]).astype(np.float32)
    x, expected = random_inputs(Spec((4,)))[0], first.T
    for row in range(8):
        changed = expected * np.where(np.arange(8) == row, 1.01, 1).astype(np.float32)
        with pytest.raises(InputError, match=rf"for output {row} of example \d+ \(difference"):
            check_agreement(mlp_target([first]), lambda x, changed=changed: x @ changed, x, what="it")


def test_what_cannot_be_compared_is_refused() -> None:
    target: Target = mlp_target(weights())
    right = with_activation(jax.nn.relu, weights())
    x = random_inputs(Spec((7,)))[0]

    def refused(function, words: str, examples=x) -> None:
        with pytest.raises(InputError, match=words):
            check_agreement(target, function, examples, what="same_as")

    refused(lambda x: right(x)[:, 0], r"same_as must have outputs \[16, 1\] for inputs \[16, 7\], .*, got \[16\]\.$")
    refused(lambda x: right(x)[:1], r"got \[1, 1\]")
    refused(lambda x: right(x) * jnp.nan, r"got nan instead of")
    refused(lambda x: right(x).at[3].set(jnp.inf), r"got inf instead of .* of example 3 \(difference inf\)")
    refused(lambda x: right(x[:, :3]), r"must take inputs \[16, 7\], float32, and return an array, but it raised Type")
    refused(lambda x: None, "same_as must")
    refused(lambda: None, "raised TypeError")
    refused(right, "at least one example, got none", x[:0])
