"""What a layer is fed with: second moments of its inputs, and what it should give for them.

The inputs are those of the network as it is approximated so far, and what is wanted of a layer is what the target's own
gives for the target's own inputs: so later layers make up for what earlier ones miss, too. Examples that the target is
unsure about count more, by the trace of the Fisher information of its outputs, sum_c p_c (1 - p_c).
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.approximation.budget.importance import Tapped
from lottery_jax.networks.layers.conv import Conv, sides
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Spec, Weights, child_path

_MOST_NUMBERS = 1 << 24  # of the rows of a batch

_ROWS, _FEW = 1 << 21, 1000

_FLOOR = 0.3  # of the mean weight, for examples that the target is sure about


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Of a layer's rows, G groups of R inputs, over examples and places: float64.

    squares: [G, R, R], the rows' second moments. wanted: [G, R, O / G], of rows and what the target gives.
    """

    squares: np.ndarray
    wanted: np.ndarray


def enough(network: Network) -> int:
    """Examples that tell a layer's moments: as many as make two million rows where it has most places, 1000 at least.

    >>> from lottery_jax.networks.architectures import mlp
    >>> from lottery_jax.networks.node import Spec
    >>> enough(mlp((4, 3, 2), Spec((4,))))
    2097152
    """
    given = {path: network.input_spec_of(path) for path in network.weight_nodes}
    places = [
        int(np.prod(leaf.output_spec(spec).shape[:-1]))
        for path, leaf in network.weight_nodes.items()
        if (spec := given[path]) is not None
    ]
    return max(_ROWS // max(places, default=1), _FEW)


def rows_of(of: LinearLayer, x: jax.Array, signs: int) -> jax.Array:
    """What the weights of one output are multiplied by, [N places, G, R]: an operation's output is rows times weights.

    x: [N, *given]. signs: 2 where negative inputs have weights of their own, which come second. A bias is the last row.

    >>> rows_of(Dense(2, 5, bias=True), jnp.array([[3.0, -4.0]]), 2).tolist()
    [[[3.0, 0.0, 0.0, -4.0, 1.0]]]
    """
    parts = [x] if signs == 1 else [jnp.maximum(x, 0), jnp.minimum(x, 0)]
    found = [_rows(of, part) for part in parts]
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
    # The operation itself, with a weight of 1 for one row at a time.
    ones = jnp.tile(jnp.eye(each).reshape(each, *shape), (of.groups, *[1] * len(shape)))
    one_each = dataclasses.replace(of, outputs=of.groups * each, bias=False)
    y = one_each.module(Weights({"weight": ones}))(x)  # type: ignore[operator]
    return y.reshape(-1, of.groups, each)


def _windows(of: Conv, x: jax.Array) -> jax.Array:
    """What the places of a convolution's window see, one slice of the image each: sooner than by convolution."""
    height, width, _ = of.output_spec(Spec(x.shape[1:])).shape
    padded = jnp.pad(x, ((0, 0), *sides(of.padding), (0, 0)))
    (down, right), parts = of.stride, []
    for top, left in itertools.product(*map(range, of.size)):
        parts.append(padded[:, top : top + down * height : down, left : left + right * width : right])
    seen = jnp.stack(parts, -1)[:, :height, :width]  # [N, H', W', I, places of the window]
    return seen.reshape(-1, of.groups, of.inputs // of.groups * len(parts))


def weights_by_row(of: LinearLayer, tensors: Mapping[str, Any], signs: int) -> np.ndarray:
    """The target weights of a leaf as the rows want them: [R, O], the bias last, float64."""
    weight = np.asarray(tensors["weight"], np.float64).reshape(of.outputs, -1).T
    parts = [weight] * signs
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
    """The moments of the leaf at `path`, of a network and the target beside it, on images [N, *given].

    networks, tensors: each time first the approximated one, then the target's. counts: of each example, [N].
    """
    shapes = of.tensors()
    rows = int(np.prod(shapes["weight"][1:])) * signs + of.bias
    given = networks[1].input_spec_of(path)
    assert given is not None
    if networks[0] is networks[1] and tensors[0] is tensors[1]:
        networks, tensors = networks[1:], tensors[1:]  # one network is run once
    places = int(np.prod(of.output_spec(given).shape[:-1]))
    size = int(min(max(_MOST_NUMBERS // (rows * of.groups * places), 1), 2048, len(images)))
    squares = np.zeros((of.groups, rows, rows))
    wanted = np.zeros((of.groups, rows, of.outputs // of.groups))
    for batch, count in _batches(images, counts, size):
        more = _sums(networks, path, of, signs, tensors, batch, count)
        squares += np.asarray(more[0], np.float64)
        wanted += np.asarray(more[1], np.float64)
    total = float(counts.sum())
    return Moments(squares / total, wanted / total)


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
        mine, *theirs = (_given(network, path, own, images) for network, own in zip(networks, tensors, strict=True))
        rows = rows_of(of, mine, signs)
        target = of.module(Weights({name: tensors[-1][child_path(path, name)] for name in of.tensors()}))
        output = target(theirs[0] if theirs else mine)  # type: ignore[operator]
        output = output.reshape(-1, of.groups, of.outputs // of.groups)
        counted = rows * jnp.repeat(counts, len(rows) // len(counts))[:, None, None]
        return jnp.einsum("ngr,ngs->grs", counted, rows), jnp.einsum("ngr,ngo->gro", counted, output)


def _given(network: Network, path: str, tensors: Mapping[str, Any], images: jax.Array) -> jax.Array:
    """What the leaf at `path` is given."""
    tapped = network.map_layers(lambda at, node: Tapped(node) if at == path else node)  # type: ignore[arg-type]
    _, seen = tapped.train({**tensors, child_path(path, "shift"): jnp.zeros(())}, images)
    return seen[child_path(path, "input")]


def example_weights(logits: np.ndarray) -> np.ndarray:
    """What each example counts, [N], 1 in the mean: more where a network with these outputs [N, C] is unsure.

    >>> example_weights(np.array([[0.0, 0.0], [90.0, 0.0]])).round(2).tolist()
    [1.77, 0.23]
    """
    shares = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf), dtype=np.float64)
    shares /= shares.sum(1, keepdims=True)
    unsure = (shares * (1 - shares)).sum(1)
    counts = unsure + _FLOOR * unsure.mean() if unsure.any() else np.ones(len(logits))
    return counts / counts.mean()
