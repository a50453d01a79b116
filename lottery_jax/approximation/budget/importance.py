"""How much the target's output minds an error in each of its weights: the diagonal of the Fisher information.

For a small change d of the weights, the mean Kullback-Leibler divergence between the class probabilities before and
after is d^T F d / 2 with the Fisher information F. Its diagonal is F_i = E_x E_{y ~ p(y|x)} (d log p(y|x) / d w_i)^2
(Martens 2020, sections 5 and 9). The labels y are the network's own predictions, not those of the data (that would be
the "empirical" Fisher), and the mean over them is taken exactly, over all classes: nothing is drawn.

It is about small changes. Where a budget is so small that most weights are left out, their errors are neither small
nor independent, and weights that matter to few examples are left out first. Damping, a constant added to the diagonal,
counts all weights in: measured in benchmarks/bench_budget.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec, Weights, child_path
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.target import Target

IMPORTANCES = {"uniform": None, "fisher": 0.0, "fisher-damped": 1.0}
"""What an error in a weight may count: the same for all, or the Fisher information plus so many times its mean."""


def fisher_importance(
    target: Target, images: np.ndarray | jax.Array, *, damping: float = 0.0, batch_size: int | None = None
) -> dict[str, np.ndarray]:
    """The diagonal Fisher information of each approximated weight, float64 by tensor.

    images: [N, *given], training examples; their labels are not needed. damping: how many times the mean over all
    weights is added to each. Batch normalisations are folded first. Memory is bounded by the batch: an MLP's is 500;
    where weights are shared between places (convolutions, tokens) each example's gradient is made for every class, and
    it is smaller. Sums are in floating point, so another device may differ in the last digits. Raises `InputError` for
    what does not fit or is not finite.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> images = np.array([[1.0, 2.0]], np.float32)
    >>> fisher_importance(mlp_target([np.zeros((2, 2), np.float32)]), images)["fc1.weight"].tolist()
    [[0.25, 1.0], [0.25, 1.0]]
    """
    target, given = fold_batch_norm(target), np.asarray(images)
    network = target.network
    _check(network, given, damping, batch_size)
    found = _mean(target, given, batch_size or _batch_size(network), _batch_sum)
    if not all(np.isfinite(values).all() for values in found.values()):
        raise InputError("the target's gradients overflow float32 on these images; scale images to [0, 1]")
    mean = sum(float(values.sum()) for values in found.values()) / sum(values.size for values in found.values())
    return {name: values + damping * mean for name, values in found.items()}


def outputs_importance(target: Target, images: np.ndarray) -> dict[str, np.ndarray]:
    """The diagonal Fisher information of each operation's outputs, float64 [O] by its path, mean over their places.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> images = np.array([[1.0, 2.0]], np.float32)
    >>> outputs_importance(mlp_target([np.zeros((2, 2), np.float32)]), images)["fc1"].tolist()
    [0.25, 0.25]
    """
    _check(target.network, images, 0.0, None)
    return _mean(target, images, _batch_size(target.network), _outputs_sum)


def _mean(
    target: Target, images: np.ndarray, size: int, sum_of: Callable[..., Mapping[str, jax.Array]]
) -> dict[str, np.ndarray]:
    """What `sum_of` a network, its tensors, a batch and its used examples says, over all of them; float64."""
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
class Tapped(Node):
    """An operation whose output is shifted by a given tensor, and whose input is kept."""

    layer: LinearLayer
    kind: ClassVar[str] = "tapped"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return self.layer.tensors()

    def output_spec(self, given: Spec) -> Spec:
        return self.layer.output_spec(given)

    def module(self, weights: Weights) -> nnx.Module:
        return _Tap(self.layer.module(weights), weights["shift"])

    def statistics(self, module: Any) -> dict[str, jax.Array]:
        return {"input": module.input[...]}


class _Tap(nnx.Module):
    def __init__(self, operation: nnx.Module, shift: jax.Array) -> None:
        self.operation, self.shift = operation, nnx.Intermediate(shift)
        self.input = nnx.Intermediate(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        self.input = nnx.Intermediate(x)
        return self.operation(x) + self.shift[...]  # type: ignore[operator]


@functools.partial(jax.jit, static_argnums=0)
def _batch_sum(
    network: Network, tensors: Mapping[str, Any], images: jax.Array, used: jax.Array
) -> dict[str, jax.Array]:
    """Sum over the used examples [B] of the squared gradients' means over the classes, by tensor."""
    found = {}
    with jax.default_matmul_precision("highest"):
        probabilities, inputs, gradients = _slopes(network, tensors, images, used)
        for path, leaf in _operations(network).items():
            own = {name: tensors[child_path(path, name)] for name in leaf.tensors()}
            for name, value in _squares(leaf, own, inputs[path], gradients[path], probabilities).items():
                found[child_path(path, name)] = value
    return found


@functools.partial(jax.jit, static_argnums=0)
def _outputs_sum(
    network: Network, tensors: Mapping[str, Any], images: jax.Array, used: jax.Array
) -> dict[str, jax.Array]:
    """As `_batch_sum`, of the gradients for each leaf's outputs [O] by path, the mean over their places."""
    with jax.default_matmul_precision("highest"):
        probabilities, _, gradients = _slopes(network, tensors, images, used)
        return {
            path: jnp.einsum("bc,bcpo->o", probabilities, places**2) / places.shape[2]
            for path, slope in gradients.items()
            for places in (slope.reshape(*slope.shape[:2], -1, slope.shape[-1]),)
        }


def _operations(network: Network) -> dict[str, LinearLayer]:
    return {path: leaf for path, leaf in network.weight_nodes.items() if isinstance(leaf, LinearLayer)}


def _slopes(
    network: Network, tensors: Mapping[str, Any], images: jax.Array, used: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    """Probabilities [B, C] of the used examples, and by path each operation's input [B, ...] and the gradients of the
    classes' log probabilities for its output [B, C, ...]."""
    tapped = network.map_layers(lambda path, node: Tapped(node) if isinstance(node, LinearLayer) else node)
    leaves = _operations(network)
    specs = {path: leaf.output_spec(given) for path, leaf in leaves.items() if (given := network.input_spec_of(path))}
    shifts = {path: jnp.zeros(spec.shape) for path, spec in specs.items()}

    def log_probabilities(shifts: Mapping[str, jax.Array], image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        named = {child_path(path, "shift"): shift for path, shift in shifts.items()}
        logits, inputs = tapped.train({**tensors, **named}, image[None])
        return jax.nn.log_softmax(logits[0]), inputs

    def slopes(image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
        # A weight's gradient follows from the operation's input and the gradient of a shift of its output.
        logs, back, inputs = jax.vjp(lambda s: log_probabilities(s, image), shifts, has_aux=True)
        return jnp.exp(logs), inputs, jax.vmap(back)(jnp.eye(len(logs)))[0]

    probabilities, inputs, gradients = jax.vmap(slopes)(images)
    probabilities = probabilities * used.astype(jnp.float32)[:, None]
    return probabilities, {path: inputs[child_path(path, "input")][:, 0] for path in leaves}, gradients


def _squares(
    leaf: LinearLayer, tensors: dict[str, jax.Array], x: jax.Array, slopes: jax.Array, probabilities: jax.Array
) -> dict[str, jax.Array]:
    """sum_b sum_c p[b, c] g[b, c]**2 for the gradients g of a leaf's tensors; slopes [B, C, *output], x [B, *given]."""
    if x.ndim == 2:
        # One place: the gradient is an outer product and so is its square; none of a single example is ever made.
        squares = jnp.einsum("bc,bco->bo", probabilities, slopes**2)
        found = {"weight": jnp.einsum("bo,bi->oi", squares, x**2)}
        return found | {"bias": squares.sum(0)} if leaf.bias else found

    def one(x: jax.Array, slopes: jax.Array, probabilities: jax.Array) -> dict[str, jax.Array]:
        def apply(tensors: dict[str, jax.Array]) -> jax.Array:
            return leaf.module(Weights(tensors))(x[None])[0]  # type: ignore[operator]

        _, back = jax.vjp(apply, tensors)
        (gradients,) = jax.vmap(back)(slopes)
        return {name: jnp.tensordot(probabilities, value**2, 1) for name, value in gradients.items()}

    summed = jax.vmap(one)(x, slopes, probabilities)
    return {name: value.sum(0) for name, value in summed.items()}


def _batch_size(network: Network) -> int:
    """500 examples of an MLP; where weights are shared between places, so many that their gradients stay small."""
    shared = [
        leaf
        for path, leaf in network.weight_nodes.items()
        if len(getattr(network.input_spec_of(path), "shape", ())) > 1
    ]
    largest = max((leaf.weights for leaf in shared), default=0)
    classes = network.output_spec.shape[-1] if network.output_spec else 1
    return 500 if not largest else int(min(max((1 << 25) // (largest * classes), 1), 500))


def _check(network: Network, images: np.ndarray, damping: float, batch_size: int | None) -> None:
    if not (np.isfinite(damping) and damping >= 0):
        raise InputError(f"damping must be a number from 0 up, not {damping}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; it must be at least 1")
    if network.input_spec is None or network.output_spec is None:
        raise InputError("Fisher information needs a network that can be run; of a model's tensors nothing is known")
    if network.output_spec.shape[-1] < 2:
        raise InputError("the target has one output and predicts no class; Fisher information needs two or more")
    if images.ndim < 2 or images.shape[0] == 0 or images.shape[1:] != network.input_spec.shape:
        raise InputError(
            f"images must have shape {['N', *network.input_spec.shape]} with N from 1 up, not {list(images.shape)}"
        )
    if not np.isfinite(images).all():
        raise InputError("images hold NaN or infinite values; remove these examples")
