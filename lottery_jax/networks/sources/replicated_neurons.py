"""Networks in which every neuron exists several times (Burkholz 2022, arXiv 2205.02321): depth L + 1.

Copies of a neuron are equal but for the errors of their weights, so that the random weights on the copies of an input
are candidates for one target weight, as they are: no products, and no signs of inputs. So one random layer stands for a
target layer, after any activation. The copies of its outputs each have random weights and a subset of their own. Only
the first layer, whose inputs exist once, takes two random ones, a gadget.

The published constant units are there too: a bias is a sum of random weights on a constant, as many of them for each
copy as copies of an input. The constant is given to every layer, as everywhere in this package, so that no rows of a
layer in front make it. It need not be 1: a neuron may be any constant, and where biases are larger than weights (folded
batch normalisations make them ten times larger), one gain for both would leave large random weights that cancel.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import LinearLayer, Spec, Weights
from lottery_jax.networks.sources.base import MaskedModule, Source, check_gain, side_by_side
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.rng.random_tensor import Matrix, RandomTensor
from lottery_jax.rng.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class ReplicatedNeurons(Source):
    """The operation `of` on `input_copies` of each input, with `output_copies` of each output; its output times `gain`.

    Masks: `weight` [*shape of the tensor, output_copies, input_copies] and `bias` [O, output_copies, input_copies]. Weights are
    drawn at their positions in the theorem's matrix [I * input_copies, places, O * output_copies]. apart: how far the copies
    of an input are apart in what is given, as `Spec` says. constant: what biases are the weights of.

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
        check_gain(self.gain)
        check_gain(self.constant)
        _check_copies(self.input_copies)
        _check_copies(self.output_copies)
        if self.copy_stride < 1 or (
            self.copy_stride > 1 and (self.layer.inputs % self.copy_stride or self.layer.groups > 1)
        ):
            raise InputError(
                f"copies of {self.layer.inputs} inputs in {self.layer.groups} groups cannot be {self.copy_stride} numbers apart"
            )

    @property
    def rows_per_weight(self) -> int:
        return self.output_copies

    @property
    def effective_layer(self) -> LinearLayer:
        return self.layer.with_copies(self.input_copies, self.output_copies)

    def random_tensors(self) -> dict[str, RandomTensor]:
        of, count, copies = self.layer, self.input_copies, self.output_copies
        own, places = of.inputs // of.groups, int(np.prod(of.kernel_shape, dtype=np.int64))
        offset = own * count * places * of.outputs * copies
        layouts = {
            "weight": Matrix(of.outputs, own, places, count, copies=copies),
            # The constant is the last input of the same matrix.
            "bias": Matrix(of.outputs, 1, 1, count, offset, copies),
        }
        return {
            name: RandomTensor((*shape, copies, count), count, self.sampler, layouts[name])
            for name, shape in of.tensors().items()
        }

    def output_spec(self, input_spec: Spec) -> Spec:
        if (input_spec.copies, input_spec.copy_stride) != (self.input_copies, self.copy_stride):
            raise InputError(
                f"a layer for {self.input_copies} copies of its inputs, {self.copy_stride} apart, is given {input_spec.copies},"
                f" {input_spec.copy_stride} apart"
            )
        return dataclasses.replace(self.effective_layer.output_spec(input_spec), copies=self.output_copies)

    def coefficients(
        self, name: str, rows: np.ndarray, columns: np.ndarray, sign: int, hidden: Mapping[str, np.ndarray]
    ) -> float:
        return self.gain * self.constant if name == "bias" else self.gain

    def effective_tensor(self, name: str, made: np.ndarray, kept: Callable[[], np.ndarray]) -> np.ndarray:
        # Which copies of an input are kept shows in the output, if only by the errors of their weights.
        if name == "bias":
            return _of_outputs(made, self.output_copies)
        return self.gain * self.beside(kept().astype(np.float64))[None]

    def beside(self, weight: Any) -> Any:
        """The weight of `wide` from one in the mask's shape, for inputs as they are given."""
        return side_by_side(weight, self.copy_stride)

    def module(self, weights: Weights) -> nnx.Module:
        return MaskedReplicated(self, weights)


class MaskedReplicated(MaskedModule):
    """x -> the wide operation on all copies."""

    def __init__(self, source: ReplicatedNeurons, weights: Weights) -> None:
        super().__init__(source, weights, source.gain)
        self.source = source

    def __call__(self, x: jax.Array) -> jax.Array:
        kept = {"weight": self.source.beside(self.masked("weight"))}
        if self.source.layer.bias:
            kept["bias"] = self.source.constant * self.masked("bias").sum(-1).reshape(-1)
        return self.scaled(self.source.effective_layer.module(Weights(kept))(x))  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class ReplicatedGadget(Gadget):
    """A gadget with `copies` of each output, neighbours: the first layer of a network of `ReplicatedNeurons` ones.

    Masks are those of a gadget, with the copies as one more axis in front of the units: [*shape of the tensor, copies,
    U]. All copies have the hidden units in common, as the first layer of any network has its inputs.
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
            raise InputError("a layer whose inputs exist once is given copies of them")
        return dataclasses.replace(self.effective_layer.output_spec(input_spec), copies=self.copies)

    def effective_tensor(self, name: str, made: np.ndarray, kept: Callable[[], np.ndarray]) -> np.ndarray:
        return _of_outputs(made, self.copies)


def _of_outputs(made: np.ndarray, copies: int) -> np.ndarray:
    """[signs * copies, O, ...] -> [signs, O * copies, ...], copies of an output as neighbours."""
    split = np.moveaxis(made.reshape(-1, copies, *made.shape[1:]), 1, 2)
    return split.reshape(len(split), -1, *made.shape[2:])


def _check_copies(copies: int) -> None:
    if copies < 1:
        raise InputError(f"copies of a neuron are counted from 1, not {copies}")
