"""How much the target's output minds an error in each of its weights: the diagonal of the Fisher information.

For a small change d of the weights, the mean Kullback-Leibler divergence between the class probabilities before and
after is d^T F d / 2 with the Fisher information F. Its diagonal is F_i = E_x E_{y ~ p(y|x)} (d log p(y|x) / d w_i)^2
(Martens 2020, sections 5 and 9). The labels y are the network's own predictions, not those of the data (that would be
the "empirical" Fisher), and the mean over them is taken exactly, over all classes: nothing is drawn.

It is about small changes. Where a budget is so small that most weights are left out, their errors are neither small
nor independent, and weights that matter to few examples are left out first. Damping, a constant added to the diagonal,
counts all weights in: measured in benchmarks/bench_budget.py.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError


def fisher_importance(
    weights: Sequence[np.ndarray],
    images: np.ndarray | jax.Array,
    *,
    damping: float = 0.0,
    batch_size: int = 500,
) -> tuple[np.ndarray, ...]:
    """The diagonal Fisher information of each layer's weights, float64 [I, O], of a bias-free ReLU network.

    weights: float32 [I, O] of each layer; the last one's outputs are the logits of the classes. images: float32 [N, D],
    training examples; their labels are not needed. damping: how many times the mean over all weights is added to each.
    Memory is bounded by the batch. Sums are in floating point, so another device may differ in the last digits. Raises
    `InputError` for what does not fit or is not finite.

    >>> images = np.array([[1.0, 2.0]], np.float32)
    >>> fisher_importance([np.zeros((2, 2), np.float32)], images)[0].tolist()
    [[0.25, 0.25], [1.0, 1.0]]
    """
    given = np.asarray(images)
    _check(weights, given, damping, batch_size)
    batch_size = min(batch_size, len(given))
    kernels = tuple(jnp.asarray(weight, jnp.float32) for weight in weights)
    totals = [np.zeros(weight.shape) for weight in weights]
    for start in range(0, len(given), batch_size):
        batch = given[start : start + batch_size].astype(np.float32)
        used = np.arange(batch_size) < len(batch)
        padded = np.pad(batch, ((0, batch_size - len(batch)), (0, 0)))
        for total, part in zip(totals, _batch_sum(kernels, padded, used), strict=True):
            total += np.asarray(part, np.float64)
    found = tuple(total / len(given) for total in totals)
    if not all(np.isfinite(layer).all() for layer in found):
        raise InputError("the target's gradients overflow float32 on these images; scale images to [0, 1]")
    mean = sum(float(layer.sum()) for layer in found) / sum(layer.size for layer in found)
    return tuple(layer + damping * mean for layer in found)


@jax.jit
def _batch_sum(kernels: tuple[jax.Array, ...], images: jax.Array, used: jax.Array) -> list[jax.Array]:
    """Sum over the used examples [B] of the squared gradients' means, [I, O] for each layer."""
    product = functools.partial(jnp.matmul, precision="highest")

    def log_probabilities(shifts: list[jax.Array], image: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        inputs, x = [], image
        for place, (kernel, shift) in enumerate(zip(kernels, shifts, strict=True)):
            x = jax.nn.relu(x) if place else x
            inputs.append(x)
            x = product(x, kernel) + shift
        return jax.nn.log_softmax(x), inputs

    def one_example(image: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        # A weight's gradient is input times the gradient of a shift of the unit's sum, so its square factors too:
        # no gradient [I, O] of a single example is ever made.
        shifts = [jnp.zeros(kernel.shape[1]) for kernel in kernels]
        logs, back, inputs = jax.vjp(lambda s: log_probabilities(s, image), shifts, has_aux=True)
        (slopes,) = jax.vmap(back)(jnp.eye(len(logs)))
        return inputs, [(jnp.exp(logs)[:, None] * slope**2).sum(0) for slope in slopes]

    inputs, squares = jax.vmap(one_example)(images)
    weight = used.astype(jnp.float32)[:, None]
    return [product((x**2).T, weight * square) for x, square in zip(inputs, squares, strict=True)]


def _check(weights: Sequence[np.ndarray], images: np.ndarray, damping: float, batch_size: int) -> None:
    if not (np.isfinite(damping) and damping >= 0):
        raise InputError(f"damping must be a number from 0 up, not {damping}")
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}; it must be at least 1")
    if not weights:
        raise InputError("the target has no layers")
    for place, weight in enumerate(weights):
        if weight.ndim != 2 or 0 in weight.shape or not np.isfinite(weight).all():
            raise InputError(
                f"layer {place} of the target must be a finite matrix [inputs, outputs], not {weight.shape}"
            )
        if place and weight.shape[0] != weights[place - 1].shape[1]:
            raise InputError(
                f"layer {place} of the target takes {weight.shape[0]} inputs, but the layer before it has"
                f" {weights[place - 1].shape[1]} outputs"
            )
    if weights[-1].shape[1] < 2:
        raise InputError("the target has one output and predicts no class; Fisher information needs two or more")
    if images.ndim != 2 or images.shape[0] == 0 or images.shape[1] != weights[0].shape[0]:
        raise InputError(f"images must have shape [N, {weights[0].shape[0]}] with N from 1 up, not {images.shape}")
    if not np.isfinite(images).all():
        raise InputError("images hold NaN or infinite values; remove these examples")
