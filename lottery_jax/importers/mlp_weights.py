"""The weights of an MLP as their owners have them: matrices in a list, PyTorch's names, Flax's parameters or modules.

Layouts are told by the names: `weight` is [out, in], `kernel` is [in, out].

Multi-layer perceptrons.
"""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target

_ALLOWED = (
    "give matrices [out, in] in a list, or by name NAME.weight [out, in] or NAME.kernel [in, out], and NAME.bias [out]"
)

_LEAVES = ("weight", "kernel", "bias")

_DIGITS = 1000  # of a number in a name; Python refuses to read long ones


@dataclasses.dataclass(frozen=True)
class GivenLayer:
    """A dense layer: weight [out, in] and bias [out] or none, float32."""

    name: str
    weight: np.ndarray
    bias: np.ndarray | None


def given_layers(weights: Any, biases: Any = None) -> list[GivenLayer]:
    """Dense layers in the order in which they follow each other; raises `InputError` for what is no chain of them.

    >>> kernels = {"Dense_1": {"kernel": np.ones((3, 1))}, "Dense_0": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}
    >>> [(layer.name, layer.weight.shape) for layer in given_layers({"params": kernels})]
    [('Dense_0', (3, 2)), ('Dense_1', (1, 3))]
    """
    if isinstance(weights, Mapping | nnx.Module):
        if biases is not None:
            raise InputError(f"biases are given beside a {type(weights).__name__}; put them there under their names")
        layers = _named(weights)
        trusted = isinstance(weights, nnx.Module)
    else:
        layers, trusted = _listed(weights, biases), True
    for left, right in itertools.pairwise(layers):
        if right.weight.shape[1] != left.weight.shape[0]:
            raise InputError(
                f"layer {right.name!r} takes {right.weight.shape[1]} inputs, but {left.name!r} before it has"
                f" {left.weight.shape[0]} outputs; give layers in their order, with weights [out, in] or kernels"
                " [in, out]"
            )
    if not trusted:
        _check_order(layers)
    return layers


def in_order(names: Iterable[str]) -> list[str]:
    """Names that differ in numbers by these, other names in the order in which they come.

    >>> in_order(["hidden_10", "hidden_9", "out"]), in_order(["up.0", "down.1", "up.1", "down.0"])
    (['hidden_9', 'hidden_10', 'out'], ['up.0', 'up.1', 'down.0', 'down.1'])
    """
    names = list(names)
    places: dict[str, int] = {}

    def key(name: str) -> list[int]:
        found, stem = [], ""
        for part in _parts(name):
            number = part.isdecimal() and len(part) < _DIGITS
            stem += "#" if number else part
            found.append(int(part) if number else places.setdefault(stem, len(places)))
        return found

    keys = {name: key(name) for name in names}
    return sorted(names, key=keys.__getitem__)


def _parts(name: str) -> list[str]:
    """Words and numbers of a name; a word that a number follows is not the same as one that ends it."""
    parts = re.split(r"(\d+)", name)
    return [*parts[:-1], parts[-1] + "\n"]


def _listed(weights: Any, biases: Any) -> list[GivenLayer]:
    rows = _rows("weights", weights)
    columns = [None] * len(rows) if biases is None else _rows("biases", biases)
    if len(columns) != len(rows):
        raise InputError(f"{len(columns)} biases are given for {len(rows)} weights; give one for each, or none at all")
    return [
        _layer(f"fc{number}", "weight", weight, bias, there=biases is not None)
        for number, (weight, bias) in enumerate(zip(rows, columns, strict=True), start=1)
    ] or _nothing()


def _rows(what: str, value: Any) -> list[Any]:
    if not isinstance(value, str | bytes | Mapping):
        with contextlib.suppress(TypeError):  # not iterable, or an array without axes
            return list(value)
    raise InputError(f"the {what} are a {type(value).__name__}; {_ALLOWED}")


def _named(weights: Any) -> list[GivenLayer]:
    """Layers of a mapping or a module, as its names say."""
    pairs = list(_leaves(_tree(weights)))
    leaves = dict(pairs)
    if len(leaves) < len(pairs):
        raise InputError(f"the weights hold two tensors of one name among {', '.join(list(leaves)[:6])}; {_ALLOWED}")
    if leaves and all(name.startswith("params.") for name in leaves):
        leaves = {name.removeprefix("params."): value for name, value in leaves.items()}
    layers: dict[str, dict[str, Any]] = {}
    for name, value in leaves.items():
        layer, _, leaf = name.rpartition(".")
        if leaf not in _LEAVES:
            raise InputError(f"the weights hold {name!r}, which is no part of a dense layer; {_ALLOWED}")
        layers.setdefault(layer, {})[leaf] = value
    found = []
    for name in in_order(layers):
        held = layers[name]
        matrices = [leaf for leaf in held if leaf != "bias"]
        if len(matrices) != 1:
            raise InputError(f"layer {name!r} holds {' and '.join(held)}; {_ALLOWED}, one matrix for each layer")
        found.append(_layer(name or "fc1", matrices[0], held[matrices[0]], held.get("bias"), there="bias" in held))
    return found or _nothing()


def _nothing() -> list[GivenLayer]:
    raise InputError(f"the weights must be matrices, one for each layer, but there are none; {_ALLOWED}")


def _tree(weights: Any) -> Mapping[Any, Any]:
    """Plain nested mappings of what Flax has; those of a module in the order in which its layers were made."""
    if not isinstance(weights, nnx.Module | nnx.State):
        return weights
    state = weights if isinstance(weights, nnx.State) else nnx.state(weights)
    # Keys of dropout are no weights; running means are, and are refused.
    tree = nnx.to_pure_dict(nnx.filter_state(state, nnx.Not(nnx.RngState)))
    return tree if isinstance(weights, nnx.State) else _as_made(weights, tree)


def _as_made(module: Any, tree: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A state comes sorted by name; attributes are in the order in which they were set."""
    inner = getattr(module, "__dict__", {})
    order = {name: place for place, name in enumerate(inner)}
    there = {str(name) for name in tree}
    for name, part in inner.items():
        if isinstance(part, nnx.Module) and name not in there and nnx.state(part, nnx.Param):
            raise InputError(
                f"layer {name!r} shares its weights with another one, and a state holds them once; give the matrices"
                " [out, in] in a list, as often as they are used"
            )
    names = sorted(tree, key=lambda name: order.get(str(name), len(order)))
    return {
        name: _as_made(inner.get(str(name)), tree[name]) if isinstance(tree[name], Mapping) else tree[name]
        for name in names
    }


def _leaves(tree: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _layer(name: str, leaf: str, weight: Any, bias: Any, *, there: bool) -> GivenLayer:
    found = _floats(f"{leaf} of {name!r}", weight)
    if found.ndim != 2 or 0 in found.shape:
        axes = "[in, out]" if leaf == "kernel" else "[out, in]"
        raise InputError(
            f"the {leaf} of {name!r} must be a matrix {axes}, not of shape {list(found.shape)}; {_ALLOWED}"
        )
    found = np.ascontiguousarray(found.T) if leaf == "kernel" else found
    if not there:
        return GivenLayer(name, found, None)
    offset = _floats(f"bias of {name!r}", bias)
    if offset.shape != found.shape[:1]:
        raise InputError(
            f"the bias of {name!r} has the shape {list(offset.shape)}, but the layer has {found.shape[0]} outputs; give"
            f" it as [{found.shape[0]}]"
        )
    return GivenLayer(name, found, offset)


def _floats(what: str, value: Any) -> np.ndarray:
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths, a JAX array that was donated
        raise InputError(f"the {what} ({type(value).__name__}) is no array; {_ALLOWED}") from None
    if not (jnp.issubdtype(found.dtype, jnp.floating) or jnp.issubdtype(found.dtype, jnp.integer)):
        raise InputError(f"the {what} ({type(value).__name__}) holds {found.dtype.name}, no real numbers; {_ALLOWED}")
    with np.errstate(over="ignore"):  # what is beyond float32 is refused with all that is no number
        return found.astype(np.float32)


def _check_order(layers: Sequence[GivenLayer]) -> None:
    """Refuse layers whose order nothing tells: neither numbers, nor how they come, nor their shapes.

    A tree of arrays that went through JAX comes sorted by name, so that `decoder` stands before `encoder`. All orders
    in which layers chain are made from one by exchanging two stretches between the same two sizes, or, where it ends
    with the size that it begins with, by beginning elsewhere (Eulerian paths; Pevzner 1995).
    """
    names = [layer.name for layer in layers]
    # Layers that differ in their numbers alone are in order: one stretch.
    stretches = [list(group) for _, group in itertools.groupby(layers, lambda layer: re.sub(r"\d+", "#", layer.name))]
    if len(stretches) < 2 or names != in_order(sorted(names)):
        return
    sizes = [layers[0].weight.shape[1], *(stretch[-1].weight.shape[0] for stretch in stretches)]
    same = [(a, b) for a, b in itertools.combinations(range(len(sizes)), 2) if sizes[a] == sizes[b]]
    crossed = any(a < c <= b < d for (a, b), (c, d) in itertools.product(same, same))
    if sizes[0] == sizes[-1] or crossed:
        raise InputError(
            f"the layers {', '.join(names[:6])}{', ...' if len(names) > 6 else ''} come in alphabetical order and would"
            " fit in another one, too; number them (fc1, fc2, ...), or give matrices [out, in] in a list"
        )


def mlp_target(weights: Any, biases: Sequence[Any] | None = None, *, nonnegative: bool = False) -> Target:
    """The MLP of these weights, with ReLU between its layers; float32. Raises `InputError` for what is no such network.

    weights: matrices [out, in] in a list, with `biases` [out] beside them; arrays by PyTorch's names (`fc1.weight`
    [out, in], `fc1.bias`); Flax's parameters (`Dense_0`: `kernel` [in, out], `bias`), with or without `params` around
    them; an `nnx.State`, or an `nnx.Module` of linear layers. Names with numbers are put in order by these, others are
    taken as they come, unless they come sorted and another order fits, too. nonnegative: whether its inputs are never
    negative (pixels); otherwise sign branches are built for them.

    >>> import numpy as np
    >>> mlp_target([np.ones((3, 2), np.float32), np.ones((1, 3), np.float32)]).weights
    9
    >>> params = {"Dense_0": {"kernel": np.ones((2, 3))}, "Dense_1": {"kernel": np.ones((3, 1)), "bias": np.ones(1)}}
    >>> mlp_target(params)
    <Target of 10 weights, 2 layers: Dense_0.weight [3, 2], Dense_1.weight [1, 3], Dense_1.bias [1] ([out, in]),
    inputs [2] of any sign>
    """
    layers = given_layers(weights, biases)
    sizes = (layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers))
    biased = [layer.bias is not None for layer in layers]
    network = mlp(sizes, Spec(sizes[:1], nonnegative), bias=biased, names=[layer.name for layer in layers])
    arrays = {f"{layer.name}.weight": layer.weight for layer in layers}
    arrays |= {f"{layer.name}.bias": layer.bias for layer in layers if layer.bias is not None}
    return Target(network, arrays)  # type: ignore[arg-type]
