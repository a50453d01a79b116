"""Second moments of a layer's inputs, and their cross moments with the target's outputs.

Inputs come from the network as approximated so far, outputs from the target's layer on the target's own inputs.
Examples with uncertain predictions have more weight, by the trace of the Fisher information: sum_c p_c (1 - p_c), or a
constant for a regression.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.approximation.importance import ProbedLayer
from lottery_jax.data.checks import LabelKind
from lottery_jax.networks.layers.conv import Conv, sides
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Spec, Weights, child_path

_MAX_BATCH_VALUES = 1 << 24  # in the rows of a batch
_DEFAULT_ROWS, _MIN_EXAMPLES = 1 << 21, 1000
_MIN_WEIGHT = 0.3  # of the mean, added to the weight of every example


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Weighted means over examples and positions of a layer with G groups of R inputs.

    Args:
        gram: Second moments of the inputs, float64 [G, R, R].
        cross: Moments of the inputs with the target's outputs, float64 [G, R, O / G].
    """

    gram: np.ndarray
    cross: np.ndarray


def default_examples(network: Network) -> int:
    """Number of examples for the moments: two million rows in the layer with the most positions, at least 1000.

    >>> from lottery_jax.networks.architectures import mlp
    >>> from lottery_jax.networks.node import Spec
    >>> default_examples(mlp((4, 3, 2), Spec((4,))))
    2097152
    """
    positions = 1
    for path, layer in network.weight_nodes.items():
        if (spec := network.input_spec_of(path)) is not None:
            positions = max(positions, math.prod(layer.output_spec(spec).shape[:-1]))
    return max(_DEFAULT_ROWS // positions, _MIN_EXAMPLES)


def rows_of(of: LinearLayer, x: jax.Array, signs: int) -> jax.Array:
    """The inputs of a layer as rows [N positions, G, R]: its output is rows times weights.

    Args:
        signs: 2 if negative inputs have separate weights, which then come second; a bias is always last.

    >>> rows_of(Dense(2, 5, bias=True), jnp.array([[3.0, -4.0]]), 2).tolist()
    [[[3.0, 0.0, 0.0, -4.0, 1.0]]]
    """
    found = [_rows(of, part) for part in ([x] if signs == 1 else [jnp.maximum(x, 0), jnp.minimum(x, 0)])]
    if of.bias:
        found.append(jnp.ones((*found[0].shape[:2], 1), x.dtype))
    return jnp.concatenate(found, -1)


def _rows(of: LinearLayer, x: jax.Array) -> jax.Array:
    if isinstance(of, Dense):
        return x.reshape(-1, 1, of.inputs)
    if isinstance(of, Conv):
        return _windows(of, x)
    _, *shape = of.tensors()["weight"]
    each = int(np.prod(shape))
    # The layer itself, with one weight of 1 for each row.
    ones = jnp.tile(jnp.eye(each).reshape(each, *shape), (of.groups, *[1] * len(shape)))
    one_each = dataclasses.replace(of, outputs=of.groups * each, bias=False)
    y = one_each.module(Weights({"weight": ones}))(x)  # type: ignore[operator]
    return y.reshape(-1, of.groups, each)


def _windows(of: Conv, x: jax.Array) -> jax.Array:
    """The image patches of a convolution, one slice of the image per kernel position: faster than a convolution."""
    height, width, _ = of.output_spec(Spec(x.shape[1:])).shape
    padded = jnp.pad(x, ((0, 0), *sides(of.padding), (0, 0)))
    (down, right), parts = of.stride, []
    rows, columns = (range(0, size, step) for size, step in zip(of.window, of.dilation, strict=True))
    for top, left in itertools.product(rows, columns):
        parts.append(padded[:, top : top + down * height : down, left : left + right * width : right])
    seen = jnp.stack(parts, -1)[:, :height, :width]  # [N, H', W', I, places of the window]
    return seen.reshape(-1, of.groups, of.inputs // of.groups * len(parts))


def weights_by_row(of: LinearLayer, tensors: Mapping[str, Any], signs: int) -> np.ndarray:
    """The target weights of a layer in the order of `rows_of`, float64 [R, O], the bias last."""
    parts = [np.asarray(tensors["weight"], np.float64).reshape(of.outputs, -1).T] * signs
    return np.concatenate([*parts, np.asarray(tensors["bias"], np.float64)[None]] if of.bias else parts)


def moments_of(
    networks: tuple[Network, ...],
    tensors: tuple[Mapping[str, Any], ...],
    path: str,
    of: LinearLayer,
    signs: int,
    images: np.ndarray,
    counts: np.ndarray,
) -> Moments:
    """The moments of the layer `of` at `path`, from the approximated network and the target's with their tensors.

    `signs` is as for `rows_of`, `counts` the weight of each example [N].
    """
    shapes = of.tensors()
    rows = int(np.prod(shapes["weight"][1:])) * signs + of.bias
    given = networks[1].input_spec_of(path)
    assert given is not None
    if networks[0] is networks[1] and tensors[0] is tensors[1]:
        networks, tensors = networks[1:], tensors[1:]  # run one network once
    places = int(np.prod(of.output_spec(given).shape[:-1]))
    size = int(min(max(_MAX_BATCH_VALUES // (rows * of.groups * places), 1), 2048, len(images)))
    gram = np.zeros((of.groups, rows, rows))
    cross = np.zeros((of.groups, rows, of.outputs // of.groups))
    for batch, count in _batches(images, counts, size):
        more = _sums(networks, path, of, signs, tensors, batch, count)
        gram += np.asarray(more[0], np.float64)
        cross += np.asarray(more[1], np.float64)
    total = float(counts.sum())
    return Moments(gram / total, cross / total)


def _batches(images: np.ndarray, counts: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(images), size):
        batch, count = images[start : start + size].astype(np.float32), counts[start : start + size]
        more = size - len(batch)
        yield np.pad(batch, ((0, more), *[(0, 0)] * (batch.ndim - 1))), np.pad(count, (0, more)).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _sums(
    networks: tuple[Network, ...],
    path: str,
    of: LinearLayer,
    signs: int,
    tensors: tuple[Mapping[str, Any], ...],
    images: jax.Array,
    counts: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    with jax.default_matmul_precision("highest"):
        own_input, *target_input = (_layer_input(*pair, path, images) for pair in zip(networks, tensors, strict=True))
        rows = rows_of(of, own_input, signs)
        target = of.module(Weights({name: tensors[-1][child_path(path, name)] for name in of.tensors()}))
        output = target(target_input[0] if target_input else own_input)  # type: ignore[operator]
        output = output.reshape(-1, of.groups, of.outputs // of.groups)
        counted = rows * jnp.repeat(counts, len(rows) // len(counts))[:, None, None]
        return jnp.einsum("ngr,ngs->grs", counted, rows), jnp.einsum("ngr,ngo->gro", counted, output)


def _layer_input(network: Network, tensors: Mapping[str, Any], path: str, images: jax.Array) -> jax.Array:
    """The input of the layer at `path`."""
    probed = network.map_layers(lambda at, node: ProbedLayer(node) if at == path else node)  # type: ignore[arg-type]
    _, statistics = probed.train({**tensors, child_path(path, "shift"): jnp.zeros(())}, images)
    return statistics[child_path(path, "input")]


def example_weights(logits: np.ndarray, label_kind: LabelKind = "classification") -> np.ndarray:
    """Weights of examples [N] with mean 1; larger for uncertain predictions, from logits [N, C].

    >>> example_weights(np.array([[0.0, 0.0], [90.0, 0.0]])).round(2).tolist()
    [1.77, 0.23]
    """
    if label_kind == "regression":
        return np.ones(len(logits))
    if label_kind == "multilabel":
        logits = np.stack([logits, np.zeros_like(logits)], 1)  # the sigmoid is the softmax of a logit and 0
    probabilities = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf), dtype=np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)
    probabilities = probabilities.reshape(len(logits), -1)
    uncertainty = (probabilities * (1 - probabilities)).sum(1)
    counts = uncertainty + _MIN_WEIGHT * uncertainty.mean() if uncertainty.any() else np.ones(len(logits))
    return counts / counts.mean()
