"""The fixed scaling of a network's inputs."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lottery_jax.errors import InputError
from lottery_jax.networks.node import Plain, Spec


@dataclasses.dataclass(frozen=True)
class Normalize(Plain):
    """(x - mean) / deviation of each channel, numbers that belong to the network itself.

    >>> Normalize((0.5,), (0.25,))(jnp.array([[1.0]])).tolist()
    [[2.0]]
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    kind: ClassVar[str] = "normalize"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.deviation) or not self.mean or min(self.deviation) <= 0:
            raise InputError("normalize needs a mean and a positive deviation for each channel")

    def output(self, given: Spec) -> Spec:
        if given.shape[-1] != len(self.mean):
            raise InputError(f"normalize has {len(self.mean)} channels and is given {list(given.shape)}")
        return Spec(given.shape, given.nonnegative and max(self.mean) <= 0)

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, deviation = (jnp.asarray(values, x.dtype) for values in (self.mean, self.deviation))
        return (x - mean) / deviation
