"""Export of a ticket as plain safetensors, in slices: its effective weights, a copy of a model with them, or its masks.

For inputs of both signs a gadget has two effective weights; a plain network gets their mean.
"""

import itertools
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.importers.agreement import random_inputs
from lottery_jax.importers.onnx_model import save_onnx
from lottery_jax.importers.onnx_target import import_onnx, is_onnx, onnx_model_for
from lottery_jax.importers.write_back import loaded_model
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
from lottery_jax.networks.node import child_path
from lottery_jax.networks.rewrites import batch_norm_folds, neutral_norms
from lottery_jax.networks.target import Target
from lottery_jax.tickets.effective_slices import approximated_tensors, effective_slices
from lottery_jax.tickets.given_target import FileName
from lottery_jax.tickets.ticket import Ticket

_COMPARED = 4  # batches of random inputs, of scales 0.1 and 1


def export_weights(ticket: Ticket, out: FileName) -> str:
    """Write the effective weights under the names of the target's network, float32; returns a description."""
    shapes = ticket.network.target.tensors
    _write(Path(out), [TensorInfo(name, "F32", shape) for name, shape in shapes.items()], _mean_slices(ticket))
    return f"{len(shapes)} tensors, float32, as the ticket makes them{_means(ticket)}"


def export_masks(ticket: Ticket, out: FileName) -> str:
    """Write the masks, one byte of 0 or 1 for each random weight; returns a description."""
    tensors = [TensorInfo(name, "U8", random.shape) for name, random in ticket.network.random_tensors.items()]
    _write(Path(out), tensors, ((tensor.name, 0, ticket.mask(tensor.name).reshape(-1)) for tensor in tensors))
    return f"{len(tensors)} masks, one byte for each random weight"


def export_into(ticket: Ticket, model: FileName, out: FileName, target: Target | None = None) -> str:
    """Write a copy of a model's file with the ticket's effective weights in its dtypes; returns a description.

    Args:
        model: The model's .safetensors file, or the folder of one file; or an .onnx file, which needs no `target`.
        target: The target in this file, if its graph is known: it has the names and the layout of the file's tensors.
            Batch normalisations that were folded for the ticket become neutral and add the folded bias.

    Raises:
        InputError: A tensor is missing, or has another shape, or the model is not one file of plain tensors.
    """
    if is_onnx(model):
        return _export_into_onnx(ticket, model, out)
    shapes, neutral, moved = ticket.network.target.tensors, dict[str, np.ndarray](), set[str]()
    if target is not None:
        network = target.network
        moved = {child_path(fold.layer, "bias") for fold in batch_norm_folds(network)}
        neutral = neutral_norms(network, {name: ticket.weights(name, mean=True) for name in moved & shapes.keys()})
    expected = {name: shape for name, shape in shapes.items() if name not in moved}
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
    return f"a copy of {str(model)!r} with {len(expected)} tensors as the ticket makes them{_means(ticket)}"


def _export_into_onnx(ticket: Ticket, model: FileName, out: FileName) -> str:
    """Write an ONNX file with the ticket's effective weights, and compare its outputs with the ticket's."""
    spec = ticket.network.input_spec
    if spec is None:
        raise InputError("--into must be a .safetensors file for a ticket of a file's tensors, got an ONNX file.")
    tensors = ticket.plain_tensors(mean=True)
    save_onnx(loaded_model(import_onnx(model, spec), ticket.network.target, tensors), out)
    written, run, apart = onnx_model_for(out, spec), ticket.forward(), 0.0
    for batch in map(jnp.asarray, random_inputs(spec)[:_COMPARED]):
        own, found = np.asarray(run(batch)), np.asarray(written.original(batch))
        apart = max(apart, float(np.abs(found - own).max() / np.abs(own).max()))
    return (
        f"a copy of {str(model)!r} with {len(tensors)} tensors as the ticket makes them{_means(ticket)}; on random"
        f" inputs its outputs are at most {apart:.2g} of the largest one away from the ticket's"
    )


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
    for tensor in approximated_tensors(ticket.network, ticket.seed, ticket.content):
        for part in effective_slices(tensor):
            yield part.name, part.first, part.values.mean(0)
    for name in ticket.network.tensors:
        if name in ticket.network.target.tensors:
            yield name, 0, read_array(ticket.content, f"stored.{name}").reshape(-1)


def _means(ticket: Ticket) -> str:
    """How many tensors `_mean_slices` averages, in words."""
    several = 0
    for path, source in ticket.network.sources.items():
        for parameter in source.layer.tensors():
            signs = source.input_signs(parameter, ticket.network.input_spec_of(path))
            several += len(signs) * source.rows_per_weight > 1
    return f"; means of several effective weights: {several}" if several else ""


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
