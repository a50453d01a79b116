"""The weights that a plain network needs to compute what a ticket computes, in the layouts of other frameworks."""

from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError, suggest
from lottery_jax.io.tensor_file import TensorReader, read_array
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer
from lottery_jax.tickets.effective_slices import ApproximatedTensor, approximated_tensors, effective_slices

WeightLayout = Literal["torch", "jax", "flax"]


def plain_weight(network: Network, seed: int, content: TensorReader, name: str, *, mean: bool) -> np.ndarray:
    """One tensor of the target's network as a ticket makes it: its effective weights, or the stored tensor; float32.

    Args:
        network: The ticket's source.
        seed: Of the ticket.
        content: Of the ticket.
        name: In the target's network.
        mean: Whether to take the mean of several effective weights.

    Raises:
        InputError: The name is unknown, or there are several effective weights and ``mean`` is False.
    """
    shapes = network.target.tensors
    if name not in shapes:
        raise InputError(f"name must be a tensor of the target's network, got {name!r}; {suggest(name, shapes)}")
    for tensor in approximated_tensors(network, seed, content, name):
        values = np.concatenate([part.values for part in effective_slices(tensor)], 1)
        same = not tensor.copied and bool((values == values[0]).all())
        if not (same or mean):
            raise InputError(_several(tensor))
        return (values[0] if same else values.mean(0)).astype(np.float32).reshape(shapes[name])
    return read_array(content, f"stored.{name}")


def _several(tensor: ApproximatedTensor) -> str:
    why = "copies of its neurons with different weights"
    if not tensor.copied:
        why = "two effective weights for each target weight, one for inputs of each sign"
    return (
        f"mean must be True for {tensor.name!r}, which has {why}. Pass mean=True for their mean, read all of them with"
        " `lottery_jax.tickets.effective_weights`, or run `Ticket.module()`, which uses all of them."
    )


def in_layout(network: Network, name: str, value: np.ndarray, layout: str) -> np.ndarray:
    """A tensor [out, in, ...] of a target's network in the layout of a framework.

    Raises:
        InputError: The layout is unknown, or depends on the graph of the model, which is unknown.
    """
    if layout not in get_args(WeightLayout):
        raise InputError(f"layout must be a known name, got {layout!r}; {suggest(layout, get_args(WeightLayout))}")
    if layout == "torch":
        return value
    if network.input_spec is None:
        raise InputError(
            f"layout must be 'torch' for a model whose graph is unknown, got {layout!r}. Transpose the kernels of its"
            " linear layers."
        )
    path, _, parameter = name.rpartition(".")
    if parameter != "weight" or not isinstance(network.weight_nodes.get(path), LinearLayer):
        return value
    return np.ascontiguousarray(value.transpose(*range(2, value.ndim), 1, 0))


def as_bcoo(value: np.ndarray) -> Any:
    """The nonzero entries of an array as a `jax.experimental.sparse.BCOO`."""
    from jax.experimental import sparse  # slow to import

    return sparse.BCOO.fromdense(jnp.asarray(value))
