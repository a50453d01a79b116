"""The target's network: a dense multi-layer perceptron without biases."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class MLP(nnx.Module):
    """x [B, I] -> logits [B, O]: kernels [I, O] with ReLU between them.

    >>> MLP([np.eye(2, dtype=np.float32), -np.ones((2, 1), np.float32)])(jnp.array([[1.0, -3.0]])).tolist()
    [[-1.0]]
    """

    def __init__(self, weights: Sequence[np.ndarray | jax.Array]) -> None:
        self.kernels = nnx.List([nnx.Param(jnp.asarray(weight)) for weight in weights])

    def __call__(self, x: jax.Array) -> jax.Array:
        for kernel in self.kernels[:-1]:
            x = jax.nn.relu(x @ kernel[...])
        return x @ self.kernels[-1][...]


def random_mlp(sizes: Sequence[int], *, key: jax.Array) -> MLP:
    """An MLP with normal weights of variance 2 / fan-in (He et al. 2015), to be trained.

    >>> [kernel.shape for kernel in random_mlp((4, 3, 2), key=jax.random.key(0)).kernels]
    [(4, 3), (3, 2)]
    """
    pairs = list(itertools.pairwise(sizes))
    keys = jax.random.split(key, len(pairs))
    initial = jax.nn.initializers.he_normal()
    return MLP([initial(k, pair, jnp.float32) for k, pair in zip(keys, pairs, strict=True)])
