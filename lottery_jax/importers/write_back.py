"""Weights of a ticket back into the model whose target it is for."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.importers.agreement import check_on_random_inputs
from lottery_jax.importers.graph_builder import Placement
from lottery_jax.importers.target_from import ImportedModel, import_model
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target

_LOADED = "the model with the ticket's weights"


def load_weights(
    model: Any, network: Network, tensors: Mapping[str, np.ndarray], *, example: Any = None, parameters: Any = None
) -> Any:
    """A model with the weights of a target's network, proven on random inputs to compute what the network computes.

    Args:
        model: The model, as `target_from` takes it. A Flax NNX or PyTorch module is changed.
        network: The network of the target.
        tensors: Its tensors by name.
        example: As for `target_from`; by default one float example of the network.
        parameters: As for `target_from`.

    Returns:
        The changed module; the new parameters of a Linen module or a function; a new Equinox module; or the new ONNX
        model.

    Raises:
        InputError: The model has other layers, or computes something else with these weights.
    """
    spec = network.input_spec
    if spec is None:
        raise InputError("a ticket must be for a network to be loaded into a model, got a ticket of a file's tensors")
    example = (1, *spec.shape) if example is None else example
    imported = import_model(model, example, parameters, nonnegative=spec.nonnegative)
    return loaded_model(imported, network, tensors)


def loaded_model(imported: ImportedModel, network: Network, tensors: Mapping[str, np.ndarray]) -> Any:
    """`load_weights` for a model that is imported already."""
    check_tensors(imported.target.network, network)
    found = parameters_with(imported, tensors)

    def loaded(x: jax.Array) -> Any:
        return imported.model.function({name: jnp.asarray(value) for name, value in found.items()}, x)

    target = Target(network, tensors)  # type: ignore[arg-type]
    if np.issubdtype(imported.dtype, np.floating):
        check_on_random_inputs(target, jax.vmap(jax.jit(lambda x: loaded(x[None])[0])), what=_LOADED)
    return imported.model.with_parameters(found)


def check_tensors(model: Network, ticket: Network) -> None:
    """Raise `InputError`, which names the first difference, unless both have tensors of equal names and shapes."""
    for name in [*ticket.tensors, *model.tensors]:
        if model.tensors.get(name) != ticket.tensors.get(name):
            own, other = (
                f"{name!r} {list(shapes[name])}" if name in shapes else f"no {name!r}"
                for shapes in (model.tensors, ticket.tensors)
            )
            raise InputError(
                f"model must be the one that the ticket is for, got {own} instead of {other}. Pass the model whose"
                " target was approximated."
            )


def parameters_with(imported: ImportedModel, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's parameters with which it computes the target with other tensors.

    Normalisations that were folded into a layer stay in the model: the layer's parameters are divided by their factors.

    Args:
        tensors: Arrays by the names of the target's tensors, in their shapes.

    Raises:
        InputError: A tensor differs that no parameter holds.
    """
    changed: dict[str, np.ndarray] = {}
    written: dict[str, np.ndarray] = {}
    for name, values in tensors.items():
        old, new = imported.target.array(name).astype(np.float64), np.asarray(values, np.float64)
        if np.array_equal(old, new):
            continue
        placement = imported.placements.get(name)
        if placement is None or placement.index is None:
            origin = "" if placement is None else f" from {placement.parameter!r}"
            raise InputError(
                f"the model must hold {name!r} as a parameter to take other weights, but it computes the"
                f" tensor{origin}. Export the ticket's weights instead (lottery-jax export)."
            )
        parameter = placement.parameter
        before = imported.model.parameters[parameter].astype(np.float64).reshape(-1)
        if parameter not in changed:
            changed[parameter], written[parameter] = before.copy(), np.zeros(before.shape, bool)
        values = _values(placement, old, new, before[placement.index])
        flat, taken = changed[parameter], written[parameter]
        if np.any(taken[placement.index] & (flat[placement.index] != values)):
            raise InputError(
                f"the model must have one parameter for each layer to take other weights, but {name!r} shares"
                f" {parameter!r} with another layer, and the ticket has different weights for them."
            )
        flat[placement.index], taken[placement.index] = values, True
    found = {}
    for name, array in imported.model.parameters.items():
        found[name] = changed.get(name, array).reshape(array.shape).astype(array.dtype)
    return found


def _values(placement: Placement, old: np.ndarray, new: np.ndarray, before: np.ndarray) -> np.ndarray:
    """A parameter's numbers after a tensor changed, from those before: the change divided by the factor."""
    scale = np.broadcast_to(np.asarray(placement.scale, np.float64), old.shape)
    # A channel whose normalisation multiplies by 0 has no weights that matter.
    change = np.divide(new - old, scale, out=np.zeros_like(old), where=scale != 0)
    return np.where(scale == 1, new + (before - old), before + change)
