"""Targets from the weights of an MLP: a list of matrices, PyTorch's names, Flax's parameters or a module."""

import contextlib
import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.importers.agreement import TARGET_FROM, Original, check_on_random_inputs
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target

_ALLOWED = (
    "Pass matrices [out, in] or pairs (matrix, bias) in a list, or by name NAME.weight [out, in] or NAME.kernel"
    " [in, out], and NAME.bias [out]."
)
_LAYOUTS = {"torch": (1, 0), "keras": (0, 1)}  # the axes of inputs and outputs of a matrix

_TENSORS = ("weight", "kernel", "bias")
_MAX_DIGITS = 1000  # of a number in a name; Python refuses to read longer ones


@dataclasses.dataclass(frozen=True)
class DenseWeights:
    """A dense layer's weight [out, in] and bias [out] or None, float32."""

    name: str
    weight: np.ndarray
    bias: np.ndarray | None


def dense_layers(weights: Any, biases: Any = None, layout: str | None = None) -> list[DenseWeights]:
    """The dense layers of an MLP in order, from the arguments of `mlp_target`; raises `InputError` for other weights.

    >>> kernels = {"Dense_1": {"kernel": np.ones((3, 1))}, "Dense_0": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}
    >>> [(layer.name, layer.weight.shape) for layer in dense_layers({"params": kernels})]
    [('Dense_0', (3, 2)), ('Dense_1', (1, 3))]
    """
    if layout not in (None, *_LAYOUTS):
        raise InputError(f"layout must be 'torch' ([out, in]) or 'keras' ([in, out]), got {layout!r}. Choose one.")
    if isinstance(weights, Mapping | nnx.Module):
        if biases is not None:
            raise InputError(
                f"biases must be None if the weights are a {type(weights).__name__}. Put them there under their names."
            )
        if layout is not None:
            raise InputError(
                f"layout must be None if the weights are a {type(weights).__name__}, got {layout!r}. Name the tensors"
                " 'weight' for [out, in], or 'kernel' for [in, out]."
            )
        layers, ordered = _named(weights), isinstance(weights, nnx.Module)
    else:
        layers, ordered = _listed(weights, biases, layout), True
    if not layers:
        raise InputError(f"the weights must be matrices, one for each layer, got none. {_ALLOWED}")
    for left, right in itertools.pairwise(layers):
        if right.weight.shape[1] != left.weight.shape[0]:
            raise InputError(
                f"layer {right.name!r} has {right.weight.shape[1]} inputs, but {left.name!r} before it has"
                f" {left.weight.shape[0]} outputs. Pass the layers in order, with weights [out, in] or kernels"
                " [in, out]."
            )
    if not ordered:
        _check_order(layers)
    return layers


def natural_order(names: Iterable[str]) -> list[str]:
    """Names that differ in their numbers sorted by these; other names keep their order.

    >>> natural_order(["hidden_10", "hidden_9", "out"]), natural_order(["up.0", "down.1", "up.1", "down.0"])
    (['hidden_9', 'hidden_10', 'out'], ['up.0', 'up.1', 'down.0', 'down.1'])
    """
    names = list(names)
    ranks: dict[str, int] = {}

    def key(name: str) -> list[int]:
        *parts, last = re.split(r"(\d+)", name)
        found, stem = [], ""
        for part in (*parts, last + "\n"):  # a word before a number differs from one at the end
            number = part.isdecimal() and len(part) < _MAX_DIGITS
            stem += "#" if number else part
            found.append(int(part) if number else ranks.setdefault(stem, len(ranks)))
        return found

    keys = {name: key(name) for name in names}
    return sorted(names, key=keys.__getitem__)


def _listed(weights: Any, biases: Any, layout: str | None) -> list[DenseWeights]:
    """The layers of a list: matrices, pairs (matrix, bias), or matrices and biases in turn, as in `get_weights()`."""
    items = _sequence("weights", weights)
    if biases is not None:
        vectors = _sequence("biases", biases)
        if len(vectors) != len(items):
            raise InputError(f"biases must be one for each of {len(items)} weights, or None, got {len(vectors)}")
        pairs = list(zip(items, vectors, strict=True))
    elif any(map(_is_pair, items)):
        pairs = [item if _is_pair(item) else (item, None) for item in items]
    else:
        pairs = []
        for item in items:
            if len(_shape(item) or ()) == 1 and pairs and pairs[-1][1] is None:
                pairs[-1] = pairs[-1][0], item
            else:
                pairs.append((item, None))
    biased = [bias is not None for _, bias in pairs]
    if layout is None and biases is None and any(biased):  # nothing says which axis is the first one
        fits = [name for name in _LAYOUTS if _chain(pairs, name)]
        if len(fits) == len(_LAYOUTS):
            raise InputError(
                "layout must be given for these weights, because [out, in] and [in, out] both fit, got None. Pass"
                " layout='torch' or layout='keras'."
            )
        layout = fits[0] if fits else None
    tensor = "kernel" if layout == "keras" else "weight"
    return [
        _layer(f"fc{number}", tensor, weight, bias, biased=has_bias)
        for number, ((weight, bias), has_bias) in enumerate(zip(pairs, biased, strict=True), start=1)
    ]


def _is_pair(item: Any) -> bool:
    """A matrix and its bias or None; not the two rows of a matrix."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        return False
    return (
        _shape(item[0]) is not None and np.ndim(item[0]) == 2 and (item[1] is None or len(_shape(item[1]) or ()) == 1)
    )


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of an array or of nested lists; None for anything else."""
    try:
        return np.shape(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _chain(pairs: Sequence[tuple[Any, Any]], layout: str) -> bool:
    """Whether the layers fit together in a layout."""
    before, (inputs, outputs) = None, _LAYOUTS[layout]
    for matrix, bias in pairs:
        shape = _shape(matrix)
        if shape is None or len(shape) != 2 or before not in (None, shape[inputs]):
            return False
        before = shape[outputs]
        if bias is not None and _shape(bias) != (before,):
            return False
    return True


def _sequence(argument: str, value: Any) -> list[Any]:
    if not isinstance(value, str | bytes | Mapping):
        with contextlib.suppress(TypeError):  # not iterable, or an array without axes
            return list(value)
    raise InputError(f"the {argument} must be a sequence of arrays, got a {type(value).__name__}. {_ALLOWED}")


def _named(weights: Any) -> list[DenseWeights]:
    """The layers of a mapping or a module, by name."""
    if isinstance(weights, nnx.Module | nnx.State):
        state = weights if isinstance(weights, nnx.State) else nnx.state(weights)
        # The random keys of dropout are skipped; running means stay, and are refused.
        tree = nnx.to_pure_dict(nnx.filter_state(state, nnx.Not(nnx.RngState)))
        weights = tree if isinstance(weights, nnx.State) else _creation_order(weights, tree)
    pairs = list(_leaves(weights))
    leaves = dict(pairs)
    if len(leaves) < len(pairs):
        raise InputError(f"the weights hold two tensors of one name among {', '.join(list(leaves)[:6])}. {_ALLOWED}")
    if all(name.startswith("params.") for name in leaves):
        leaves = {name.removeprefix("params."): value for name, value in leaves.items()}
    layers: dict[str, dict[str, Any]] = {}
    for name, value in leaves.items():
        layer, _, tensor = name.rpartition(".")
        if tensor not in _TENSORS:
            raise InputError(f"the weights hold {name!r}, which is not a part of a dense layer. {_ALLOWED}")
        layers.setdefault(layer, {})[tensor] = value
    found = []
    for name in natural_order(layers):
        tensors = layers[name]
        matrices = [tensor for tensor in tensors if tensor != "bias"]
        if len(matrices) != 1:
            raise InputError(f"layer {name!r} must have one matrix, got {' and '.join(tensors)}. {_ALLOWED}")
        weight, bias = tensors[matrices[0]], tensors.get("bias")
        found.append(_layer(name or "fc1", matrices[0], weight, bias, biased="bias" in tensors))
    return found


def _creation_order(module: Any, tree: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The state, which is sorted by name, in the order in which the module's attributes were set."""
    attributes = getattr(module, "__dict__", {})
    order = {name: index for index, name in enumerate(attributes)}
    present = {str(name) for name in tree}
    for name, part in attributes.items():
        if isinstance(part, nnx.Module) and name not in present and nnx.state(part, nnx.Param):
            raise InputError(
                f"layer {name!r} shares its weights with another one, and a state holds them once. Pass the matrices"
                " [out, in] in a list, as often as they are used."
            )
    names = sorted(tree, key=lambda name: order.get(str(name), len(order)))
    return {
        name: _creation_order(attributes.get(str(name)), tree[name]) if isinstance(tree[name], Mapping) else tree[name]
        for name in names
    }


def _leaves(tree: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _layer(name: str, tensor: str, weight: Any, bias: Any, *, biased: bool) -> DenseWeights:
    """A layer from a `weight` or a `kernel`, with a bias if `biased`."""
    matrix = _floats(f"{tensor} of {name!r}", weight)
    if matrix.ndim != 2 or 0 in matrix.shape:
        axes = "[in, out]" if tensor == "kernel" else "[out, in]"
        raise InputError(
            f"the {tensor} of {name!r} must be a matrix {axes}, got the shape {list(matrix.shape)}. {_ALLOWED}"
        )
    matrix = np.ascontiguousarray(matrix.T) if tensor == "kernel" else matrix
    if not biased:
        return DenseWeights(name, matrix, None)
    vector = _floats(f"bias of {name!r}", bias)
    if vector.shape != matrix.shape[:1]:
        raise InputError(
            f"the bias of {name!r} must have the shape [{matrix.shape[0]}] of its outputs, got {list(vector.shape)}"
        )
    return DenseWeights(name, matrix, vector)


def _floats(label: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths, a JAX array that was donated
        raise InputError(f"the {label} must be an array, got a {type(value).__name__}. {_ALLOWED}") from None
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise InputError(
            f"the {label} must hold real numbers, got a {type(value).__name__} of {array.dtype.name}. {_ALLOWED}"
        )
    with np.errstate(over="ignore"):  # infinite weights are refused when the target is read
        return array.astype(np.float32)


def _check_order(layers: Sequence[DenseWeights]) -> None:
    """Refuse layers whose order is ambiguous: sorted names without numbers, and shapes that fit in another order.

    A tree of arrays that passed through JAX is sorted by name, so that `decoder` comes before `encoder`. All orders in
    which the layers chain follow from one by exchanging two runs between the same two sizes or, if the last size is the
    first one, by a rotation (Eulerian paths; Pevzner 1995).
    """
    names = [layer.name for layer in layers]
    # Layers that differ only in their numbers are in order: one run.
    runs = [list(group) for _, group in itertools.groupby(layers, lambda layer: re.sub(r"\d+", "#", layer.name))]
    if len(runs) < 2 or names != natural_order(sorted(names)):
        return
    sizes = [layers[0].weight.shape[1], *(run[-1].weight.shape[0] for run in runs)]
    same = [(a, b) for a, b in itertools.combinations(range(len(sizes)), 2) if sizes[a] == sizes[b]]
    crossed = any(a < c <= b < d for (a, b), (c, d) in itertools.product(same, same))
    if sizes[0] == sizes[-1] or crossed:
        raise InputError(
            f"the layers {', '.join(names[:6])}{', ...' if len(names) > 6 else ''} are in alphabetical order and would"
            " fit in another one, too. Number them (fc1, fc2, ...), or pass the matrices [out, in] in a list."
        )


def mlp_target(
    weights: Any,
    biases: Sequence[Any] | None = None,
    *,
    nonnegative: bool = False,
    input_shape: tuple[int, ...] | None = None,
    layout: str | None = None,
    same_as: Original | None = None,
) -> Target:
    """The target of an MLP with ReLU, float32, from its weights.

    Args:
        weights: Matrices [out, in] in a list; pairs (matrix, bias) in a list; matrices and biases in turn, as Keras's
            `get_weights()`; arrays by PyTorch's names (`fc1.weight` [out, in], `fc1.bias`); Flax's parameters
            (`Dense_0`: `kernel` [in, out], `bias`), with or without `params`; an `nnx.State`; or an `nnx.Module` of
            linear layers. Names are sorted by their numbers, others keep their order.
        biases: Vectors [out] for a list of matrices.
        nonnegative: Whether the inputs are never negative, as pixels are. Otherwise gadgets get weights for both
            signs.
        input_shape: Shape of an example, such as (8, 8, 1) of images [H, W, C], which are flattened in this order.
            Default: vectors.
        layout: Of the matrices in a list: ``torch`` for [out, in], ``keras`` for [in, out]. By default matrices are
            [out, in]; those with biases in the same list have the only layout that fits.
        same_as: The original, x [B, *input_shape] -> outputs [B, out]. The target is refused unless both have the same
            outputs on random inputs. An `nnx.Module` is compared without it.

    Raises:
        InputError: If the weights are not an MLP, its order or layout is ambiguous, or the original computes something
            else.

    >>> import numpy as np
    >>> mlp_target([np.ones((3, 2), np.float32), np.ones((1, 3), np.float32)]).weights
    9
    >>> params = {"Dense_0": {"kernel": np.ones((2, 3))}, "Dense_1": {"kernel": np.ones((3, 1)), "bias": np.ones(1)}}
    >>> mlp_target(params)
    <Target of 10 weights, 2 layers: Dense_0.weight [3, 2], Dense_1.weight [1, 3], Dense_1.bias [1] ([out, in]),
    inputs [2] of any sign>
    """
    layers = dense_layers(weights, biases, layout)
    sizes = (layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers))
    biased = [layer.bias is not None for layer in layers]
    spec = Spec(sizes[:1] if input_shape is None else input_shape, nonnegative)
    if math.prod(spec.shape) != sizes[0]:
        raise InputError(
            f"input_shape must have the {sizes[0]:,} numbers of the first layer's inputs, got {list(spec.shape)}."
            " Correct it, or omit it for vectors."
        )
    network = mlp(sizes, spec, bias=biased, names=[layer.name for layer in layers])
    arrays = {f"{layer.name}.weight": layer.weight for layer in layers}
    arrays |= {f"{layer.name}.bias": layer.bias for layer in layers if layer.bias is not None}
    names = ", ".join(layer.name for layer in layers[:6]) + (", ..." if len(layers) > 6 else "")
    assumed = f"the layers {names} in this order, with ReLU between them"
    originals = {"same_as": same_as}
    if isinstance(weights, nnx.Module) and callable(weights):
        module = nnx.view(weights, raise_if_not_found=False, deterministic=True)

        def on_images(x: Any) -> Any:
            try:
                return module(x)
            except Exception:  # a module of vectors, as nnx.Linear
                return module(x.reshape(len(x), -1))

        originals["the module"] = module if len(spec.shape) == 1 else on_images
    target = Target(network, arrays, (f"the target is taken as {assumed}",))  # type: ignore[arg-type]
    for what, original in originals.items():
        if original is not None:
            check_on_random_inputs(target, original, what=what, advice=f"The target has {assumed}. {TARGET_FROM}")
            target = dataclasses.replace(target, notes=())
    return target
