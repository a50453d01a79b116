"""Other views of the same numbers: an image as one vector, or as tokens."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.errors import InputError
from lottery_jax.networks.node import Plain, Spec


@dataclasses.dataclass(frozen=True)
class Flatten(Plain):
    """[H, W, C] to [C * H * W], channels first: so that a dense layer's weights are those of PyTorch's.

    >>> Flatten()(jnp.arange(4).reshape(1, 1, 2, 2)).tolist()
    [[0, 2, 1, 3]]
    """

    kind: ClassVar[str] = "flatten"

    def output(self, given: Spec) -> Spec:
        places = math.prod(given.shape[:-1])
        # Channels first: the places of each copy lie between a copy and the next.
        apart = given.apart * places if given.copies > 1 else 1
        return dataclasses.replace(given, shape=(math.prod(given.shape),), apart=apart)

    def __call__(self, x: jax.Array) -> jax.Array:
        return (jnp.moveaxis(x, -1, 1) if x.ndim > 2 else x).reshape(len(x), -1)


@dataclasses.dataclass(frozen=True)
class Tokens(Plain):
    """[H, W, C] to [H * W, C]: each place of an image is a token."""

    kind: ClassVar[str] = "tokens"

    def output(self, given: Spec) -> Spec:
        if len(given.shape) != 3:
            raise InputError(f"tokens are made of an image [H, W, C], not of {list(given.shape)}")
        return dataclasses.replace(given, shape=(given.shape[0] * given.shape[1], given.shape[2]))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(len(x), -1, x.shape[-1])
