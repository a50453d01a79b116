"""Export of a ticket as plain safetensors, in slices: its effective weights, a copy of a model with them, or its masks.

For inputs of both signs a gadget has two effective weights; a plain network gets their mean.
"""

import itertools
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.files import atomic_replacement
from lottery_jax.io.tensor_file import (
    DTYPES,
    FLOAT_DTYPES,
    RenamedTensors,
    TensorFile,
    TensorInfo,
    TensorView,
    file_layout,
    read_array,
)
from lottery_jax.io.weight_files import open_tensors
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import child_path
from lottery_jax.networks.rewrites import batch_norm_folds
from lottery_jax.networks.target import Target
from lottery_jax.tickets.given_target import FileName
from lottery_jax.tickets.reconstruct import approximated_tensors, effective_slices
from lottery_jax.tickets.ticket import Ticket


def export_weights(ticket: Ticket, out: FileName) -> str:
    """Write the effective weights under the names of the target's network, float32; returns a description."""
    shapes = ticket.network.target.tensors
    _write(Path(out), [TensorInfo(name, "F32", shape) for name, shape in shapes.items()], _mean_slices(ticket))
    return f"{len(shapes)} tensors, float32, as the ticket makes them"


def export_masks(ticket: Ticket, out: FileName) -> str:
    """Write the masks, one byte of 0 or 1 for each random weight; returns a description."""
    tensors = [TensorInfo(name, "U8", random.shape) for name, random in ticket.network.random_tensors.items()]
    _write(Path(out), tensors, ((tensor.name, 0, ticket.mask(tensor.name).reshape(-1)) for tensor in tensors))
    return f"{len(tensors)} masks, one byte for each random weight"


def export_into(ticket: Ticket, model: FileName, out: FileName, target: Target | None = None) -> str:
    """Write a copy of a model's file with the ticket's effective weights in its dtypes; returns a description.

    Args:
        model: The model's .safetensors file, or the folder of one file.
        target: The target in this file, if its graph is known: it has the names and the layout of the file's tensors.
            Batch normalisations that were folded for the ticket become neutral and add the folded bias.

    Raises:
        InputError: A tensor is missing, or has another shape, or the model is not one file of plain tensors.
    """
    network = None if target is None else target.network
    neutral = _neutral_norms(ticket, network) if network is not None else {}
    moved = {child_path(fold.layer, "bias") for fold in batch_norm_folds(network)} if network is not None else set()
    expected = {name: shape for name, shape in ticket.network.target.tensors.items() if name not in moved}
    expected |= {name: value.shape for name, value in neutral.items()}
    file = open_tensors(model)
    if not isinstance(file, TensorFile):
        raise InputError(f"--into must be one file, got {file.where}. Export the weights alone, without --into.")
    views = {name: TensorView(name) for name in expected}
    if target is not None and isinstance(target.tensors, RenamedTensors):
        if not isinstance(target.tensors.reader, TensorFile):
            raise InputError(
                f"--into must be a file of plain tensors, got {file.where}, whose weights are computed from several"
                " tensors. Export the weights alone, without --into."
            )
        views |= target.tensors.views
    for name, shape in expected.items():
        tensor = file.tensors.get(views[name].name)
        if tensor is None or views[name].shape(tensor.shape) != shape or tensor.dtype not in FLOAT_DTYPES:
            found = "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise InputError(
                f"{file.where} must hold floats {list(shape)} as {name!r}, but holds {found}; choose the model"
            )
    with atomic_replacement(Path(out)) as temporary:
        shutil.copyfile(file.path, temporary)
        handle = os.open(temporary, os.O_WRONLY)
        try:
            weights = (part for part in _mean_slices(ticket) if part[0] in expected and part[0] not in neutral)
            neutral_parts = ((name, 0, value.reshape(-1)) for name, value in neutral.items())
            for name, first, part in _in_layout(itertools.chain(neutral_parts, weights), views, expected):
                tensor = file.tensors[views[name].name]
                values = np.asarray(part).astype(DTYPES[tensor.dtype])
                os.pwrite(handle, values.tobytes(), tensor.start + first * values.itemsize)
        finally:
            os.close(handle)
    return f"a copy of {str(model)!r} with {len(expected)} tensors as the ticket makes them"


def _in_layout(
    parts: Iterable[tuple[str, int, np.ndarray]],
    views: Mapping[str, TensorView],
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[str, int, np.ndarray]]:
    """The slices in the layout of the file: whole tensors if that is another one."""
    whole: dict[str, np.ndarray] = {}
    for name, first, part in parts:
        if not (views[name].axes or views[name].image):
            yield name, first, part
            continue
        values = whole.setdefault(name, np.empty(math.prod(shapes[name])))
        values[first : first + len(part)] = part
    for name, values in whole.items():
        yield name, 0, views[name].restore(values.reshape(shapes[name])).reshape(-1)


def _mean_slices(ticket: Ticket) -> Iterator[tuple[str, int, np.ndarray]]:
    """All tensors of the target's network in slices: name, position of the first value, values."""
    for tensor in approximated_tensors(ticket):
        for part in effective_slices(ticket, tensor):
            yield part.name, part.first, part.values.mean(0)
    for name in ticket.network.tensors:
        if name in ticket.network.target.tensors:
            yield name, 0, read_array(ticket.content, f"stored.{name}").reshape(-1)


def _neutral_norms(ticket: Ticket, network: Network) -> dict[str, np.ndarray]:
    """Tensors of batch normalisations that only add the folded bias, and zeros for the biases of their layers."""
    found: dict[str, np.ndarray] = {}
    biases = {child_path(fold.layer, "bias"): fold for fold in batch_norm_folds(network)}
    approximated = {tensor.name: tensor for tensor in approximated_tensors(ticket) if tensor.name in biases}
    for name, fold in biases.items():
        if name in approximated:
            parts = effective_slices(ticket, approximated[name])
            bias = np.concatenate([part.values.mean(0) for part in parts])
        elif name in ticket.network.tensors:  # of trained weights
            bias = read_array(ticket.content, f"stored.{name}").astype(np.float64)
        else:
            continue
        ones = np.ones_like(bias)
        neutral = {"weight": ones, "bias": 0 * ones, "running_mean": -bias}
        neutral["running_var"] = (1 - fold.node.epsilon) * ones
        found |= {child_path(fold.norm, part): neutral[part] for part in fold.node.tensors()}
        if name in network.tensors:
            found[name] = 0 * ones
    return found


def _write(out: Path, tensors: list[TensorInfo], values: Iterator[tuple[str, int, np.ndarray]]) -> None:
    """Write a safetensors file from slices in any order."""
    start, positions = file_layout(tensors, {"format": "pt"})
    with atomic_replacement(out) as temporary, temporary.open("wb", buffering=0) as file:
        file.write(start)
        for name, first, part in values:
            own = part.astype(DTYPES[positions[name].dtype])
            file.seek(positions[name].start + first * own.itemsize)
            view = memoryview(own.tobytes())
            while view:
                view = view[file.write(view) :]
