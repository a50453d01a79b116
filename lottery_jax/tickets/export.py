"""What a ticket makes, as plain safetensors: the weights under their names, a model with them in it, or the masks.

Everything is written in slices, so that memory does not grow with the model. For inputs of both signs a gadget makes
two weights, one for each sign, which both are near to the target; a plain network has room for one, and gets their
mean.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.files import replacing
from lottery_jax.io.tensor_file import FLOATS, TYPES, Tensor, TensorFile, layout, read_array
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import child_path
from lottery_jax.networks.rewrites import batch_norm_folds
from lottery_jax.tickets.reconstruct import approximated_leaves, effective_slices
from lottery_jax.tickets.ticket import Ticket

Name = str | os.PathLike[str]


def export_weights(ticket: Ticket, out: Name) -> str:
    """Write the weights of the target's network as the ticket makes them, float32; returns that in words."""
    shapes = ticket.network.target.tensors
    tensors = [Tensor(name, "F32", shape) for name, shape in shapes.items()]
    _write(Path(out), tensors, _values(ticket))
    return f"{len(shapes)} tensors, float32, as the ticket makes them"


def export_masks(ticket: Ticket, out: Name) -> str:
    """Write the masks, one byte of 0 or 1 for each random weight; returns what was written, in words."""
    tensors = [Tensor(name, "U8", drawn.shape) for name, drawn in ticket.network.random_tensors.items()]
    _write(Path(out), tensors, ((name, 0, ticket.mask(name).reshape(-1)) for name in ticket.network.random_tensors))
    return f"{len(tensors)} masks, one byte for each random weight"


def export_into(ticket: Ticket, model: Name, out: Name, network: Network | None = None) -> str:
    """Write a copy of a model's file with the ticket's weights in it, in the types it has; returns that in words.

    network: the model's own, where it has batch normalisations that were folded for the ticket; they become neutral and
    add the folded bias. Raises `InputError` where a tensor is not there, or has another shape.
    """
    neutral = _neutral(ticket, network) if network is not None else {}
    file = TensorFile(model)
    wanted = {**ticket.network.target.tensors, **{name: value.shape for name, value in neutral.items()}}
    moved = {child_path(fold.layer, "bias") for fold in batch_norm_folds(network)} if network is not None else set()
    wanted = {name: shape for name, shape in wanted.items() if name in neutral or name not in moved}
    for name, shape in wanted.items():
        tensor = file.tensors.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype not in FLOATS:
            found = "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise InputError(
                f"{file.where} must hold floats {list(shape)} as {name!r}, but holds {found}; choose the model"
            )
    with replacing(Path(out)) as temporary:
        shutil.copyfile(file.path, temporary)
        handle = os.open(temporary, os.O_WRONLY)
        try:
            values = (part for part in _values(ticket) if part[0] in wanted and part[0] not in neutral)
            for name, first, part in (*((name, 0, value.reshape(-1)) for name, value in neutral.items()), *values):
                tensor = file.tensors[name]
                own = np.asarray(part).astype(TYPES[tensor.dtype])
                os.pwrite(handle, own.tobytes(), tensor.start + first * own.itemsize)
        finally:
            os.close(handle)
    return f"a copy of {str(model)!r} with {len(wanted)} tensors as the ticket makes them"


def _values(ticket: Ticket) -> Iterator[tuple[str, int, np.ndarray]]:
    """Every tensor of the target's network in parts: its name, the place of the first value, and the values."""
    for leaf in approximated_leaves(ticket):
        for part in effective_slices(ticket, leaf):
            yield part.name, part.first, part.values.mean(0)
    for name in (name for name in ticket.network.tensors if name in ticket.network.target.tensors):
        yield name, 0, read_array(ticket.content, f"stored.{name}").reshape(-1)


def _neutral(ticket: Ticket, network: Network) -> dict[str, np.ndarray]:
    """Tensors of batch normalisations that do nothing but add the bias that was folded, and zeros for other biases."""
    found: dict[str, np.ndarray] = {}
    biases = {child_path(fold.layer, "bias"): fold for fold in batch_norm_folds(network)}
    made = {leaf.name: leaf for leaf in approximated_leaves(ticket) if leaf.name in biases}
    for name, fold in biases.items():
        if name in made:
            bias = np.concatenate([part.values.mean(0) for part in effective_slices(ticket, made[name])])
        elif name in ticket.network.tensors:  # of weights that were trained
            bias = read_array(ticket.content, f"stored.{name}").astype(np.float64)
        else:
            continue
        ones = np.ones_like(bias)
        own = {"weight": ones, "bias": 0 * ones, "running_mean": -bias, "running_var": (1 - fold.node.epsilon) * ones}
        found |= {child_path(fold.norm, part): own[part] for part in fold.node.tensors()}
        if name in network.tensors:
            found[name] = 0 * ones
    return found


def _write(out: Path, tensors: list[Tensor], values: Iterator[tuple[str, int, np.ndarray]]) -> None:
    """A safetensors file from parts that come in any order."""
    start, placed = layout(tensors, {"format": "pt"})
    with replacing(out) as temporary, temporary.open("wb", buffering=0) as file:
        file.write(start)
        for name, first, part in values:
            own = part.astype(TYPES[placed[name].dtype])
            file.seek(placed[name].start + first * own.itemsize)
            view = memoryview(own.tobytes())
            while view:
                view = view[file.write(view) :]
