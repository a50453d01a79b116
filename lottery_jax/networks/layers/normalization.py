"""Batch and layer normalisation, and the fixed normalisation of a network's inputs."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import NO_RNGS, Node, Spec, StatelessLayer, Weights, constant_init


class _Norm(Node):
    features: int
    epsilon: float

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise InputError(f"{self.kind} must have a positive epsilon, got {self.epsilon}")

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        return dataclasses.replace(self, features=input_spec.shape[-1])

    def output_spec(self, input_spec: Spec) -> Spec:
        if input_spec.shape[-1] != self.features:
            raise InputError(
                f"the input of {self.kind} must have {self.features} features, got {list(input_spec.shape)}"
            )
        return Spec(input_spec.shape)


@dataclasses.dataclass(frozen=True)
class BatchNorm(_Norm):
    """Batch normalisation with PyTorch's tensors: `running_mean`, `running_var`, and with `affine` `weight` and `bias`.

    It has no masks: constructions fold it into the layer in front of it (`rewrites.fold_batch_norm`).
    """

    features: int
    affine: bool = True
    epsilon: float = 1e-5
    kind: ClassVar[str] = "batch_norm"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        names = (*(("weight", "bias") if self.affine else ()), "running_mean", "running_var")
        return dict.fromkeys(names, (self.features,))

    def module(self, weights: Weights) -> nnx.Module:
        layer = nnx.BatchNorm(
            self.features,
            use_running_average=not weights.training,
            momentum=0.9,
            epsilon=self.epsilon,
            use_bias=self.affine,
            use_scale=self.affine,
            bias_init=constant_init(weights["bias"] if self.affine else None),
            scale_init=constant_init(weights["weight"] if self.affine else None),
            rngs=NO_RNGS,
        )
        layer.mean = nnx.BatchStat(weights["running_mean"])
        layer.var = nnx.BatchStat(weights["running_var"])
        return layer

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        values = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        return {name: jnp.full(shape, values[name]) for name, shape in self.tensors().items()}

    def statistics(self, module: Any) -> dict[str, jax.Array]:
        return {"running_mean": module.mean[...], "running_var": module.var[...]}


@dataclasses.dataclass(frozen=True)
class LayerNorm(_Norm):
    """Layer normalisation over features, with `weight` and `bias`, which have no masks."""

    features: int
    epsilon: float = 1e-6
    kind: ClassVar[str] = "layer_norm"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.features,), "bias": (self.features,)}

    def initial(self, key: jax.Array) -> dict[str, jax.Array]:
        return {"weight": jnp.ones(self.features), "bias": jnp.zeros(self.features)}

    def module(self, weights: Weights) -> nnx.Module:
        return nnx.LayerNorm(
            self.features,
            epsilon=self.epsilon,
            bias_init=constant_init(weights["bias"]),
            scale_init=constant_init(weights["weight"]),
            rngs=NO_RNGS,
        )


@dataclasses.dataclass(frozen=True)
class Normalize(StatelessLayer):
    """(x - mean) / deviation of each channel, with constants that are part of the network.

    >>> Normalize((0.5,), (0.25,))(jnp.array([[1.0]])).tolist()
    [[2.0]]
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    kind: ClassVar[str] = "normalize"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.deviation) or not self.mean or min(self.deviation) <= 0:
            raise InputError("normalize must have a mean and a positive deviation for each channel")

    def output_spec(self, input_spec: Spec) -> Spec:
        if input_spec.shape[-1] != len(self.mean):
            raise InputError(
                f"the input of normalize must have {len(self.mean)} channels, got {list(input_spec.shape)}"
            )
        return Spec(input_spec.shape, input_spec.nonnegative and max(self.mean) <= 0)

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, deviation = (jnp.asarray(values, x.dtype) for values in (self.mean, self.deviation))
        return (x - mean) / deviation
