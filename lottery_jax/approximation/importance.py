"""Importance of each target weight: the diagonal of the Fisher information (Martens 2020, sections 5 and 9).

F_i = E_x E_{y ~ p(y|x)} (d log p(y|x) / d w_i)^2, with the network's own predictions as labels and the exact mean over
them: a class by the softmax of the outputs, several labels by their sigmoids, the numbers of a regression by a normal
distribution of variance 1 around the outputs. It is an approximation for small changes of the weights. Damping, a
constant added to the diagonal, gives all weights some importance; benchmarks/bench_budget.py measures its effect.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.data.checks import LabelKind
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec, Weights, child_path
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.target import Target

IMPORTANCES = {"uniform": None, "fisher": 0.0, "fisher-damped": 1.0}
"""Importances by name, with their damping: uniform, or the Fisher information plus damping times its mean."""


def fisher_importance(
    target: Target,
    images: np.ndarray | jax.Array,
    *,
    label_kind: LabelKind = "classification",
    damping: float = 0.0,
    batch_size: int | None = None,
) -> dict[str, np.ndarray]:
    """The diagonal Fisher information of a target's approximated weights, float64 by tensor; batch norm is folded.

    Sums are in floating point, so that another device may differ in the last digits.

    Args:
        images: Training examples [N, *input shape], without labels.
        label_kind: Whether outputs predict one class, the numbers of a regression, or several labels.
        damping: Multiple of the mean over all weights that is added to each.
        batch_size: Examples per batch, which bounds memory. Default: 500 for an MLP, fewer for layers that share
            weights between positions, whose gradients are computed for every example and class.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> images = np.array([[1.0, 2.0]], np.float32)
    >>> fisher_importance(mlp_target([np.zeros((2, 2), np.float32)]), images)["fc1.weight"].tolist()
    [[0.25, 1.0], [0.25, 1.0]]
    """
    target, examples = fold_batch_norm(target), np.asarray(images)
    network = target.network
    _check(network, examples, label_kind, damping, batch_size)
    found = _mean(target, examples, batch_size or _batch_size(network), functools.partial(_weight_sums, label_kind))
    if not all(np.isfinite(values).all() for values in found.values()):
        raise InputError("the target's gradients overflow float32 on these images; scale images to [0, 1]")
    mean = sum(float(values.sum()) for values in found.values()) / sum(values.size for values in found.values())
    return {name: values + damping * mean for name, values in found.items()}


def outputs_importance(target: Target, images: np.ndarray, label_kind: LabelKind) -> dict[str, np.ndarray]:
    """The diagonal Fisher information of each linear layer's outputs, float64 [O] by path, mean over positions."""
    _check(target.network, images, label_kind, 0.0, None)
    return _mean(target, images, _batch_size(target.network), functools.partial(_output_sums, label_kind))


def _mean(
    target: Target, images: np.ndarray, size: int, sum_of: Callable[..., Mapping[str, jax.Array]]
) -> dict[str, np.ndarray]:
    """The mean over all examples of `sum_of(network, tensors, batch, used)`, float64 by name."""
    size, totals = min(size, len(images)), dict[str, np.ndarray]()
    tensors = {name: jnp.asarray(value) for name, value in target.arrays().items()}
    for start in range(0, len(images), size):
        batch = images[start : start + size].astype(np.float32)
        used = np.arange(size) < len(batch)
        padded = np.pad(batch, ((0, size - len(batch)), *[(0, 0)] * (batch.ndim - 1)))
        for name, part in sum_of(target.network, tensors, padded, used).items():
            totals[name] = totals.get(name, 0) + np.asarray(part, np.float64)
    return {name: total / len(images) for name, total in totals.items()}


@dataclasses.dataclass(frozen=True)
class ProbedLayer(Node):
    """A linear layer that adds the tensor "shift" to its output, and records its input as the statistic "input"."""

    layer: LinearLayer
    kind: ClassVar[str] = "probed"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return self.layer.tensors()

    def output_spec(self, input_spec: Spec) -> Spec:
        return self.layer.output_spec(input_spec)

    def module(self, weights: Weights) -> nnx.Module:
        return _Probe(self.layer.module(weights), weights["shift"])

    def statistics(self, module: Any) -> dict[str, jax.Array]:
        return {"input": module.input[...]}


class _Probe(nnx.Module):
    def __init__(self, operation: nnx.Module, shift: jax.Array) -> None:
        self.operation, self.shift = operation, nnx.Intermediate(shift)
        self.input = nnx.Intermediate(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        self.input = nnx.Intermediate(x)
        return self.operation(x) + self.shift[...]  # type: ignore[operator]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _weight_sums(
    label_kind: LabelKind, network: Network, tensors: Mapping[str, Any], images: jax.Array, used: jax.Array
) -> dict[str, jax.Array]:
    """Sum over the used examples [B] of the squared gradients' means over the predicted labels, by tensor."""
    found = {}
    with jax.default_matmul_precision("highest"):
        weights, inputs, gradients = _gradients(label_kind, network, tensors, images, used)
        for path, layer in _linear_layers(network).items():
            own = {name: tensors[child_path(path, name)] for name in layer.tensors()}
            for name, value in _squares(layer, own, inputs[path], gradients[path], weights).items():
                found[child_path(path, name)] = value
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _output_sums(
    label_kind: LabelKind, network: Network, tensors: Mapping[str, Any], images: jax.Array, used: jax.Array
) -> dict[str, jax.Array]:
    """As `_weight_sums`, with respect to the outputs [O] of each layer by path; mean over positions."""
    with jax.default_matmul_precision("highest"):
        weights, _, gradients = _gradients(label_kind, network, tensors, images, used)
        found = {}
        for path, gradient in gradients.items():
            positions = gradient.reshape(*gradient.shape[:2], -1, gradient.shape[-1])
            found[path] = jnp.einsum("bc,bcpo->o", weights, positions**2) / positions.shape[2]
        return found


def _linear_layers(network: Network) -> dict[str, LinearLayer]:
    return {path: layer for path, layer in network.weight_nodes.items() if isinstance(layer, LinearLayer)}


def _softmax_fisher(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    logs = jax.nn.log_softmax(logits)
    return logs, jnp.exp(logs)


def _sigmoid_fisher(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    probabilities = jax.nn.sigmoid(logits)
    return logits, probabilities * (1 - probabilities)


_FISHER: dict[LabelKind, Callable[[jax.Array], tuple[jax.Array, jax.Array]]] = {
    "classification": _softmax_fisher,
    "regression": lambda outputs: (outputs, jnp.ones_like(outputs)),
    "multilabel": _sigmoid_fisher,
}
"""From outputs [C] to values [C] and weights [C]: Fisher's information is the weighted sum of squared gradients."""


def _gradients(
    label_kind: LabelKind, network: Network, tensors: Mapping[str, Any], images: jax.Array, used: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    """Weights [B, C] of the squared gradients of the used examples; by path each linear layer's input [B, ...], and the
    gradients of the values of `_FISHER` with respect to its output [B, C, ...]."""
    probed = network.map_layers(lambda path, node: ProbedLayer(node) if isinstance(node, LinearLayer) else node)
    layers = _linear_layers(network)
    specs = {path: layer.output_spec(given) for path, layer in layers.items() if (given := network.input_spec_of(path))}
    shifts = {path: jnp.zeros(spec.shape) for path, spec in specs.items()}

    def values_of(shifts: Mapping[str, jax.Array], image: jax.Array) -> tuple[jax.Array, Any]:
        named = {child_path(path, "shift"): shift for path, shift in shifts.items()}
        outputs, inputs = probed.train({**tensors, **named}, image[None])
        values, weights = _FISHER[label_kind](outputs[0])
        return values, (weights, inputs)

    def gradients_of(image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
        # A weight's gradient follows from the layer's input and the gradient with respect to its output.
        values, back, (weights, inputs) = jax.vjp(lambda s: values_of(s, image), shifts, has_aux=True)
        return weights, inputs, jax.vmap(back)(jnp.eye(len(values)))[0]

    weights, inputs, gradients = jax.vmap(gradients_of)(images)
    weights = weights * used.astype(jnp.float32)[:, None]
    return weights, {path: inputs[child_path(path, "input")][:, 0] for path in layers}, gradients


def _squares(
    layer: LinearLayer,
    tensors: dict[str, jax.Array],
    x: jax.Array,
    output_gradients: jax.Array,
    weights: jax.Array,
) -> dict[str, jax.Array]:
    """sum_b sum_c w[b, c] g[b, c]**2 of a layer's tensors, from its output gradients [B, C, *output]."""
    if x.ndim == 2:
        # One position: the gradient and its square are outer products, so that no example's gradient is formed.
        squares = jnp.einsum("bc,bco->bo", weights, output_gradients**2)
        found = {"weight": jnp.einsum("bo,bi->oi", squares, x**2)}
        return found | {"bias": squares.sum(0)} if layer.bias else found

    def one(x: jax.Array, output_gradients: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
        def apply(tensors: dict[str, jax.Array]) -> jax.Array:
            return layer.module(Weights(tensors))(x[None])[0]  # type: ignore[operator]

        _, back = jax.vjp(apply, tensors)
        (gradients,) = jax.vmap(back)(output_gradients)
        return {name: jnp.tensordot(weights, value**2, 1) for name, value in gradients.items()}

    summed = jax.vmap(one)(x, output_gradients, weights)
    return {name: value.sum(0) for name, value in summed.items()}


def _batch_size(network: Network) -> int:
    """500 examples of an MLP; fewer if weights are shared between positions, to bound their gradients."""
    largest = 0
    for path, layer in network.weight_nodes.items():
        if len(getattr(network.input_spec_of(path), "shape", ())) > 1:
            largest = max(largest, layer.weights)
    classes = network.output_spec.shape[-1] if network.output_spec else 1
    return 500 if not largest else int(min(max((1 << 25) // (largest * classes), 1), 500))


def _check(network: Network, images: np.ndarray, label_kind: LabelKind, damping: float, batch_size: int | None) -> None:
    if label_kind not in _FISHER:
        raise InputError(f"label_kind must be one of {', '.join(_FISHER)}, got {label_kind!r}. Choose one.")
    if not (np.isfinite(damping) and damping >= 0):
        raise InputError(f"damping must be a number from 0 up, got {damping}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    if network.input_spec is None or network.output_spec is None:
        raise InputError("Fisher information needs a network that can be run; name the architecture of the model")
    if label_kind == "classification" and network.output_spec.shape[-1] < 2:
        raise InputError(
            "Fisher information needs a classifier with two or more outputs, got one output. Give the label_kind"
            " regression, or multilabel for the logit of one label."
        )
    if images.ndim < 2 or images.shape[0] == 0 or images.shape[1:] != network.input_spec.shape:
        raise InputError(
            f"images must have shape {['N', *network.input_spec.shape]} with N from 1 up, got {list(images.shape)}"
        )
    if not np.isfinite(images).all():
        raise InputError("images hold NaN or infinite values; remove these examples")
