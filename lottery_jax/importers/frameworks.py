"""A user's model as a pure function of its parameters: Flax NNX and Linen, Equinox, JAX functions, PyTorch, ONNX."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.importers.torch_export import is_torch_module, torch_function

NamedParameters = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFunction:
    """A model as a pure function.

    Args:
        function: (parameters by name, x [N, ...]) -> outputs [N, ...], in JAX.
        parameters: Arrays by name.
        original: The model as its user runs it, x [N, ...] -> outputs; the import is compared with it.
        with_parameters: Returns the model with other parameters, arrays by name; a module of Flax NNX is changed.
        notes: What was assumed, in sentences.
        input_shape: Of a batch, if the model has one; None for an axis of any size.
    """

    function: Callable[[NamedParameters, jax.Array], Any]
    parameters: dict[str, np.ndarray]
    original: Callable[[jax.Array], Any]
    with_parameters: Callable[[NamedParameters], Any]
    notes: tuple[str, ...] = ()
    input_shape: tuple[int | None, ...] | None = None


def model_function(model: Any, example: Any, parameters: Any = None) -> ModelFunction:
    """A user's model as a pure function; the arguments are those of `target_from`."""
    if isinstance(model, ModelFunction):
        return model
    kinds = _kinds(model)
    if isinstance(model, nnx.Module):
        _no_parameters(parameters, "a Flax NNX module")
        return _of_nnx(model)
    if "flax.linen" in kinds:
        return _of_linen(model, parameters)
    if is_torch_module(model):
        _no_parameters(parameters, "a PyTorch module")
        return _of_torch(model, example)
    if "onnx" in kinds or isinstance(model, str | os.PathLike):
        _no_parameters(parameters, "an ONNX model")
        return _of_onnx(model)
    if "equinox" in kinds:
        _no_parameters(parameters, "an Equinox module")
        return _of_equinox(model)
    if not callable(model):
        raise InputError(
            "model must be a Flax module, an Equinox module, a JAX function, a PyTorch module or the path of an .onnx"
            f" file, got a {type(model).__name__}. Pass a function x -> outputs, or its weights to mlp_target."
        )
    if parameters is None:
        return ModelFunction(lambda _, x: model(x), {}, jax.jit(model), _fixed)
    return _of_tree(lambda tree, x: model(tree, x), parameters)


def _kinds(model: Any) -> set[str]:
    """The packages of a model's classes; packages that are not installed need not be imported."""
    found = set()
    for kind in type(model).__mro__:
        package, _, rest = kind.__module__.partition(".")
        found.add(package)
        if package == "flax" and rest.startswith("linen"):
            found.add("flax.linen")
    return found


def _no_parameters(parameters: Any, what: str) -> None:
    if parameters is not None:
        raise InputError(f"parameters must be omitted for {what}, which holds its own. Pass the model and an example.")


def _fixed(parameters: NamedParameters) -> Any:
    raise InputError(
        "model must have parameters to load weights into, got a function without. Pass a module, or a function"
        " (parameters, x) with its parameters."
    )


def path_name(path: tuple[Any, ...]) -> str:
    """The path of a leaf in a tree as a name.

    >>> path_name(jax.tree_util.tree_flatten_with_path({"layers": [{"w": 1}]})[0][0][0])
    'layers.0.w'
    """
    parts = []
    for key in path:
        for attribute in ("key", "idx", "name"):
            if hasattr(key, attribute):
                parts.append(str(getattr(key, attribute)))
                break
    return ".".join(parts)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | np.generic | jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def _unique(names: Iterable[str]) -> list[str]:
    """Different names: a number is added to one that occurs again.

    >>> _unique(["a", "a.2", "a", ""])
    ['a', 'a.2', 'a.3', 'weight']
    """
    found = []
    for name in names:
        name = name or "weight"
        options = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(2)))
        found.append(next(one for one in options if one not in found))
    return found


def _of_tree(apply: Callable[[Any, jax.Array], Any], tree: Any) -> ModelFunction:
    """A function of a tree of parameters and a batch."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    places = [place for place, (_, leaf) in enumerate(leaves) if _is_array(leaf)]
    if not places:
        raise InputError(
            f"parameters must hold arrays, got {type(tree).__name__} without. Pass the trained parameters."
        )
    names = [path_name(leaves[place][0]) for place in places]
    short = [name.removeprefix("params.") for name in names]
    names = _unique(short if len({*short}) == len(short) else names)

    def rebuilt(arrays: Iterable[Any]) -> Any:
        parts = [leaf for _, leaf in leaves]
        for place, array in zip(places, arrays, strict=True):
            parts[place] = array
        return structure.unflatten(parts)

    def by_name(parameters: NamedParameters, x: jax.Array) -> Any:
        return apply(rebuilt(parameters[name] for name in names), x)

    own = [leaves[place][1] for place in places]
    whole = jax.jit(lambda arrays, x: apply(rebuilt(arrays), x))
    return ModelFunction(
        by_name,
        {name: np.asarray(array) for name, array in zip(names, own, strict=True)},
        lambda x: whole(own, x),
        lambda parameters: rebuilt(jnp.asarray(parameters[name]) for name in names),
    )


def _of_linen(model: Any, variables: Any) -> ModelFunction:
    if variables is None:
        if getattr(model, "scope", None) is None:
            raise InputError(
                "parameters must be the variables of a Linen module, got none. Pass target_from(module, example,"
                " variables), or a bound module."
            )
        model, variables = model.unbind()
    return _of_tree(lambda tree, x: model.apply(tree, x), variables)


def _of_equinox(model: Any) -> ModelFunction:
    # A module of Equinox takes one example.
    return _of_tree(lambda tree, x: jax.vmap(tree)(x), model)


def _of_nnx(model: nnx.Module) -> ModelFunction:
    graph, state = nnx.split(model)
    variables, paths = dict(nnx.to_flat_state(state)), []
    for path, variable in variables.items():
        if _is_array(variable.get_raw_value()) and not isinstance(variable, nnx.RngState):
            paths.append(path)
    names = dict(zip(paths, _unique(".".join(map(str, path)) for path in paths), strict=True))
    arrays = {name: np.asarray(variables[path].get_raw_value()) for path, name in names.items()}

    def apply(parameters: NamedParameters, x: jax.Array) -> Any:
        own = {}
        for path, variable in variables.items():
            own[path] = variable.replace(parameters[names[path]]) if path in names else variable.replace()
        before = {path: variable.get_raw_value() for path, variable in own.items()}
        merged = nnx.merge(graph, nnx.from_flat_state(own))
        outputs = merged(x)  # type: ignore[operator]
        for path, variable in nnx.to_flat_state(nnx.state(merged)):
            if path in before and variable.get_raw_value() is not before[path]:
                reason = "draws random numbers" if isinstance(variable, nnx.RngState) else "updates its state"
                raise InputError(
                    f"model must be in evaluation mode, got one that {reason} at {'.'.join(map(str, path))!r} when it"
                    " runs (dropout, batch normalisation). Call model.eval() first."
                )
        return outputs

    def loaded(parameters: NamedParameters) -> nnx.Module:
        own = {}
        for path, name in names.items():
            own[path] = variables[path].replace(jnp.asarray(parameters[name]))
        nnx.update(model, nnx.from_flat_state(own))
        return model

    whole = jax.jit(lambda state, x: nnx.merge(graph, state)(x))  # type: ignore[operator]
    return ModelFunction(apply, arrays, functools.partial(whole, state), loaded)


def _of_onnx(model: Any) -> ModelFunction:
    from lottery_jax.importers.onnx_function import onnx_function
    from lottery_jax.importers.onnx_model import with_parameters

    if isinstance(model, str | os.PathLike) and Path(model).suffix != ".onnx":
        raise InputError(
            f"the file of a model must end in .onnx, got {str(model)!r}. Read weights without a graph with"
            " import_target or load_model."
        )
    made = onnx_function(model)
    batch = made.input_shape[0] if made.input_shape else None
    if batch not in (None, 1):
        raise InputError(
            f"the batch axis of an ONNX model must be dynamic or 1, got {batch}. Export it with a dynamic batch axis."
        )

    def original(x: jax.Array) -> np.ndarray:
        examples = np.asarray(x)
        parts = [examples] if batch is None else np.split(examples, len(examples))
        return np.concatenate([made.reference(part) for part in parts])

    def loaded(values: NamedParameters) -> Any:
        return with_parameters(made.model, values)

    return ModelFunction(made, dict(made.parameters), original, loaded, made.notes, made.input_shape)


def _of_torch(model: Any, example: Any) -> ModelFunction:
    import torch  # type: ignore[import-not-found]

    made = torch_function(model, example)
    device = next((one.device for one in model.parameters()), torch.device("cpu"))

    def original(x: jax.Array) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(np.array(x)).to(device)).cpu().numpy()

    def loaded(values: NamedParameters) -> Any:
        state = model.state_dict()
        own = {name: torch.from_numpy(np.array(value)) for name, value in values.items() if name in state}
        model.load_state_dict({**state, **own})
        return model

    return ModelFunction(made, dict(made.parameters), original, loaded, made.notes)
