"""Layers between replicated neurons: every neuron has several copies (Burkholz 2022, arXiv 2205.02321), depth L + 1.

Copies of a neuron are equal up to the errors of their weights, so the random weights on the copies of an input are the
candidates of one target weight: no products, no signs of inputs, any activation. Each copy of an output has its own
random weights and subset. Only the first layer, whose inputs have one copy, becomes two random layers, a gadget.

As published, a bias is a sum of random weights on a constant, as many as copies of an input. Every layer has this
constant as an input, so that no units of the layer in front compute it. The constant need not be 1: with biases much
larger than weights (after folding batch normalisation), one gain for both would leave large weights that cancel.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.node import LinearLayer, Spec, Weights
from lottery_jax.networks.sources.base import NamedArrays, Source, check_gain, merge_copies
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.rng.random_tensor import MatrixLayout, RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class ReplicatedNeurons(Source):
    """`layer` on copies of its inputs, with copies of its outputs.

    Masks: `weight` [*shape of the tensor, output_copies, input_copies] and `bias` [O, output_copies, input_copies].
    Weights are drawn at their positions in the theorem's matrix [I * input_copies, kernel, O * output_copies].

    Args:
        input_copies: Copies of each input.
        output_copies: Copies of each output; they are contiguous.
        copy_stride: Distance of two copies of an input, as in `Spec`.
        constant: The input whose weights are the biases.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> layer = ReplicatedNeurons(Dense(3, 2, bias=True), 15, 15, Sampler.uniform(-1, 1))
    >>> {name: tensor.shape for name, tensor in layer.random_tensors().items()}
    {'weight': (2, 3, 15, 15), 'bias': (2, 15, 15)}
    >>> layer.output_spec(Spec((45,), copies=15)).shape
    (30,)
    """

    layer: LinearLayer
    input_copies: int
    output_copies: int
    sampler: Sampler
    copy_stride: int = 1
    gain: float = 1.0
    constant: float = 1.0
    kind: ClassVar[str] = "replicated_neurons"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_gain(self.constant)
        _check_copies(self.input_copies)
        _check_copies(self.output_copies)
        if self.copy_stride < 1 or (
            self.copy_stride > 1 and (self.layer.inputs % self.copy_stride or self.layer.groups > 1)
        ):
            raise InputError(
                f"copy_stride must be at least 1, divide the inputs and be 1 for layers with groups, got"
                f" {self.copy_stride} for {self.layer.inputs} inputs in {self.layer.groups} groups"
            )

    @property
    def rows_per_weight(self) -> int:
        return self.output_copies

    @property
    def effective_layer(self) -> LinearLayer:
        return self.layer.with_copies(self.input_copies, self.output_copies)

    def random_tensors(self) -> dict[str, RandomTensor]:
        layer, count, copies = self.layer, self.input_copies, self.output_copies
        per_group, size = layer.inputs // layer.groups, math.prod(layer.kernel_shape)
        offset = per_group * count * size * layer.outputs * copies
        layouts = {
            "weight": MatrixLayout(layer.outputs, per_group, size, count, copies=copies),
            # The constant is the last input of the same matrix.
            "bias": MatrixLayout(layer.outputs, 1, 1, count, offset, copies),
        }
        return {
            name: RandomTensor((*shape, copies, count), count, self.sampler, layouts[name])
            for name, shape in layer.tensors().items()
        }

    def output_spec(self, input_spec: Spec) -> Spec:
        if (input_spec.copies, input_spec.copy_stride) != (self.input_copies, self.copy_stride):
            raise InputError(
                f"the input must have {self.input_copies} copies of stride {self.copy_stride}, got"
                f" {input_spec.copies} of stride {input_spec.copy_stride}"
            )
        return dataclasses.replace(self.effective_layer.output_spec(input_spec), copies=self.output_copies)

    def coefficients(self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: NamedArrays) -> float:
        return self.gain * self.constant if name == "bias" else self.gain

    def effective_tensor(self, name: str, values: np.ndarray, kept: Callable[[], np.ndarray]) -> np.ndarray:
        # The copies of an input differ by the errors of their weights, so the output depends on which ones are kept.
        if name == "bias":
            return _merge_output_copies(values, self.output_copies)
        return self.gain * merge_copies(kept().astype(np.float64), self.copy_stride)[None]

    def apply(self, kept: Callable[[str], jax.Array], x: jax.Array) -> jax.Array:
        weights = {"weight": merge_copies(kept("weight"), self.copy_stride)}
        if self.layer.bias:
            weights["bias"] = self.constant * kept("bias").sum(-1).reshape(-1)
        return self.effective_layer.module(Weights(weights))(x)  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class ReplicatedGadget(Gadget):
    """A gadget with contiguous `copies` of each output: the first layer of a network with replicated neurons.

    Masks `weight` and `bias` are [*shape of the tensor, copies, U]. All copies share the hidden units.
    """

    copies: int = 1
    kind: ClassVar[str] = "replicated_gadget"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_copies(self.copies)

    @property
    def rows_per_weight(self) -> int:
        return self.copies

    @property
    def effective_layer(self) -> LinearLayer:
        return self.layer.with_copies(1, self.copies)

    def random_tensors(self) -> dict[str, RandomTensor]:
        found = super().random_tensors()
        for name, shape in self.layer.tensors().items():
            found[name] = dataclasses.replace(found[name], shape=(*shape, self.copies, self.units))
        return found

    def output_spec(self, input_spec: Spec) -> Spec:
        if input_spec.copies > 1:
            raise InputError("the first layer of a network with replicated neurons must have one copy of each input")
        return dataclasses.replace(self.effective_layer.output_spec(input_spec), copies=self.copies)

    def effective_tensor(self, name: str, values: np.ndarray, kept: Callable[[], np.ndarray]) -> np.ndarray:
        return _merge_output_copies(values, self.copies)


def _merge_output_copies(values: np.ndarray, copies: int) -> np.ndarray:
    """[signs * copies, O, ...] -> [signs, O * copies, ...] with contiguous copies of an output."""
    split = np.moveaxis(values.reshape(-1, copies, *values.shape[1:]), 1, 2)
    return split.reshape(len(split), -1, *values.shape[2:])


def _check_copies(copies: int) -> None:
    if copies < 1:
        raise InputError(f"a neuron must have at least 1 copy, got {copies}")
