"""Masked layers: each multiplies its frozen random weight by the mask its gate gives."""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.networks import architecture as arch
from lottery_jax.networks.variables import Frozen


class Gate(Protocol):
    """Anything callable that gives a mask (bool or float) of a tensor's shape."""

    def __call__(self) -> jax.Array: ...


def _masked(weight: jax.Array, gate: Gate) -> jax.Array:
    mask = gate()
    # A boolean mask selects, so that a pruned weight is exactly zero; a float mask carries a gradient.
    return jnp.where(mask, weight, 0.0) if mask.dtype == bool else weight * mask


class MaskedLinear(nnx.Module):
    """x [B, I] -> [B, O] through the kept weights of one random matrix [I, O]."""

    def __init__(self, layer: arch.Linear, source: dict[str, jax.Array], gates: dict[str, Gate]) -> None:
        self.gain = layer.gain
        self.kernel = Frozen(source["kernel"])
        self.gates = nnx.Dict(gates)

    def __call__(self, x: jax.Array) -> jax.Array:
        return (x @ _masked(self.kernel[...], self.gates["kernel"])) * self.gain


class MaskedGadget(nnx.Module):
    """x [B, I] -> hidden [B, I, U] through each input's own edges, ReLU -> [B, O] through the second matrix."""

    def __init__(self, layer: arch.Gadget, source: dict[str, jax.Array], gates: dict[str, Gate]) -> None:
        self.gain, self.relu = layer.gain, layer.relu
        self.first = Frozen(source["first"])
        self.second = Frozen(source["second"])
        self.gates = nnx.Dict(gates)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = x[..., None] * _masked(self.first[...], self.gates["first"])
        hidden = jax.nn.relu(hidden) if self.relu else hidden
        second = _masked(self.second[...], self.gates["second"])
        inputs, units, outputs = second.shape
        return (hidden.reshape(*x.shape[:-1], inputs * units) @ second.reshape(-1, outputs)) * self.gain


class MaskedParallel(nnx.Module):
    """x [B, I] -> [B, O], every edge the sum of its kept copies; the kernel [I or 1, C, O] may be shared."""

    def __init__(self, layer: arch.Parallel, source: dict[str, jax.Array], gates: dict[str, Gate]) -> None:
        self.gain = layer.gain
        self.kernel = Frozen(source["kernel"])
        self.gates = nnx.Dict(gates)

    def __call__(self, x: jax.Array) -> jax.Array:
        return (x @ _masked(self.kernel[...], self.gates["kernel"]).sum(1)) * self.gain


MODULES = {arch.Linear: MaskedLinear, arch.Gadget: MaskedGadget, arch.Parallel: MaskedParallel}
