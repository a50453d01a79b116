"""Any model as a target: traced to a graph, and compared with the original before it is returned."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.importers.agreement import check_agreement, random_inputs
from lottery_jax.importers.frameworks import ModelFunction, model_function
from lottery_jax.importers.graph_builder import Placement, layer_before
from lottery_jax.importers.jax_trace import TracedModel, trace
from lottery_jax.networks.layers.graph import INPUT, GraphModule
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target

_EXAMPLES = 16  # of the user's examples that are compared; as many as of each random batch, so as to compile once
_OPERATIONS = 1 << 26  # of the target on one batch, for large networks fewer examples
_DIFFERENT = 1e-3  # a difference of values, as a part of the largest |value| of a node


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedModel:
    """A target, the model that it was imported from, and where the target's tensors are in the model's parameters.

    `dtype` is that of the inputs.
    """

    target: Target
    model: ModelFunction
    placements: dict[str, Placement]
    dtype: Any


def target_from(model: Any, example: Any, parameters: Any = None, *, nonnegative: bool = False) -> Target:
    """The target of any model, proven on examples to compute what the model computes.

    The model is traced to a graph of layers and elementary operations. Batch normalisation in evaluation mode is folded
    into the layer in front of it. Parameters that no linear layer multiplies by, such as those of layer normalisation,
    are stored and have no masks. The target is compared with the model on the example and on random inputs.

    Args:
        model: A Flax NNX module in evaluation mode, a Linen module, an Equinox module (of one example), a JAX function
            x -> outputs or (parameters, x) -> outputs, a PyTorch module, or the path of an .onnx file.
        example: A batch [N, ...], or its shape with the batch axis. Integers are tokens.
        parameters: Variables of a Linen module, or the parameters of a function: a tree of arrays.
        nonnegative: Whether inputs are never negative, as pixels are. Otherwise gadgets get weights for both signs.

    Returns:
        The target; its tensors have the names of the model's parameters, weights [out, in, ...].

    Raises:
        InputError: The model has an operation that a graph does not have, or the target computes something else.

    >>> from flax import nnx
    >>> class Net(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.hidden, self.out = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
    ...
    ...     def __call__(self, x):
    ...         return self.out(nnx.gelu(self.hidden(x))) + x[:, :2]
    >>> target_from(Net(nnx.Rngs(0)), (1, 4)).network.approximated
    {'hidden.weight': (8, 4), 'hidden.bias': (8,), 'out.weight': (2, 8), 'out.bias': (2,)}
    """
    return import_model(model, example, parameters, nonnegative=nonnegative).target


def import_model(model: Any, example: Any, parameters: Any = None, *, nonnegative: bool = False) -> ImportedModel:
    """`target_from`, with the model and the placements of its parameters, for weights that go back into it."""
    examples, spec, dtype = _examples(example, nonnegative)
    own = model_function(model, np.zeros((1, *spec.shape), dtype), parameters)
    one = jax.ShapeDtypeStruct(spec.shape, dtype)
    traced = trace(own.function, own.parameters, one)
    target = Target(Network(traced.graph, spec), traced.tensors, own.notes)  # type: ignore[arg-type]
    _check(target, traced, own, examples, spec, dtype)
    return ImportedModel(target, own, traced.placements, dtype)


def _examples(example: Any, nonnegative: bool) -> tuple[np.ndarray | None, Spec, Any]:
    """The user's examples, if any, the spec of one example, and its dtype."""
    shape, dtype, examples = getattr(example, "shape", None), getattr(example, "dtype", np.dtype(np.float32)), None
    if isinstance(example, tuple | list) and all(isinstance(size, int | np.integer) for size in example):
        shape = tuple(map(int, example))
    elif not isinstance(example, jax.ShapeDtypeStruct):
        try:
            examples = np.asarray(example)
        except (TypeError, ValueError):
            shape = None
        else:
            shape, dtype = examples.shape, examples.dtype
    if not shape or len(shape) < 2 or min(shape) < 1:
        raise InputError(
            f"example must be a batch [N, ...] or its shape, got {list(shape or ())}. Pass one with its batch axis,"
            " such as images[:8]."
        )
    dtype = jax.dtypes.canonicalize_dtype(dtype) if np.dtype(dtype).kind in "iuf" else dtype
    integers = np.issubdtype(dtype, np.integer)
    if not integers and not jnp.issubdtype(dtype, np.floating):
        raise InputError(f"example must hold floats or integers, got {dtype}. Convert it to float32.")
    if examples is not None:
        examples = np.resize(examples, (_EXAMPLES, *shape[1:])).astype(dtype if integers else np.float32)
        if not np.isfinite(examples).all():
            raise InputError(
                f"example must be finite, got {examples[~np.isfinite(examples)][0]:g}. Remove such examples."
            )
        if nonnegative and examples.min() < 0:
            raise InputError(
                f"nonnegative must be False for an example with negative inputs, got {examples.min():g}. Omit it."
            )
    return examples, Spec(tuple(shape[1:]), nonnegative), dtype if integers else np.dtype(np.float32)


def _check(
    target: Target, traced: TracedModel, own: ModelFunction, examples: np.ndarray | None, spec: Spec, dtype: Any
) -> None:
    """Refuse a target whose outputs are not those of the model, and name the first node that differs."""
    batches = [] if examples is None else [examples]
    if dtype.kind == "f":
        batches += random_inputs(spec)
    elif examples is None:
        batches.append(np.random.default_rng(0).integers(0, 2, (_EXAMPLES, *spec.shape)))
    else:  # tokens that the model has seen, in another order
        batches.append(np.random.default_rng(0).permutation(examples.reshape(-1)).reshape(examples.shape))
    count, compared = int(np.clip(_OPERATIONS // target.network.cost.operations, 4, _EXAMPLES)), 0
    for number, batch in enumerate(batches):
        batch = batch[:count]
        with jax.default_matmul_precision("highest"):
            outputs = np.asarray(own.original(jnp.asarray(batch, dtype)))
        if (number > 0 or examples is None) and not np.isfinite(outputs).all():
            continue  # inputs of a scale that the model is not for
        try:
            check_agreement(target, lambda _, found=outputs: found, batch, what="the model")
        except InputError as error:
            node = _first_difference(target, own, traced, batch[:1].astype(dtype))
            raise InputError(f"{error} {node}") from None
        compared += 1
    if not compared:
        raise InputError(
            "model must have finite outputs on random inputs, got NaN or infinity for all. Pass a batch of your data as"
            " the example."
        )


def _first_difference(target: Target, own: ModelFunction, traced: TracedModel, x: np.ndarray) -> str:
    """The first node of the graph whose values differ from the model's own, in a sentence."""
    one = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    expected = trace(own.function, own.parameters, one, jnp.asarray(x)).values
    module = target.module()
    assert isinstance(module, GraphModule)
    found = module.values(jnp.asarray(x), keep=True)
    for name, node, _ in traced.graph.nodes:
        if name in expected and name in found and expected[name].size == found[name].size:
            values = expected[name].reshape(-1).astype(np.float64)
            if not np.abs(np.asarray(found[name]).reshape(-1) - values).max() <= _DIFFERENT * np.abs(values).max():
                layer = layer_before(traced.graph.nodes, name)
                where = repr(name) if layer == name else f"{name!r} ({node.kind} behind {layer or INPUT!r})"
                return f"The first layer that differs is {where}. Please report it."
    return (
        "One example alone gives equal outputs: the outputs of the model depend on other examples of the batch. Use a"
        " model in evaluation mode."
    )
