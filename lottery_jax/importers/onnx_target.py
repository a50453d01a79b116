"""The network of an ONNX file as the target for a data set, whose images have their channels last."""

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.importers.frameworks import ModelFunction, model_function
from lottery_jax.importers.target_from import ImportedModel, import_model
from lottery_jax.networks.node import Spec

_Layout = Callable[[Any], Any]


def is_onnx(path: str | os.PathLike[str]) -> bool:
    """Whether a path has the ending of ONNX files.

    >>> is_onnx("net.onnx"), is_onnx("net.safetensors")
    (True, False)
    """
    return Path(path).suffix == ".onnx"


def import_onnx(path: str | os.PathLike[str], spec: Spec) -> ImportedModel:
    """The network in an ONNX file for examples of a data set; its input is permuted or flattened to the file's.

    Raises:
        InputError: The file's input does not fit, or `target_from` refuses the model.
    """
    return import_model(onnx_model_for(path, spec), (1, *spec.shape), nonnegative=spec.nonnegative)


def onnx_model_for(path: str | os.PathLike[str], spec: Spec) -> ModelFunction:
    """The model in an ONNX file as a function of examples of a data set; raises `InputError` if they do not fit."""
    model = model_function(path, None)
    assert model.input_shape is not None, "ONNX files have the shape of their input"
    layout, note = _layout(model.input_shape[1:], spec.shape, str(path))
    return model if layout is None else _with_layout(model, layout, note)


def _layout(own: tuple[int | None, ...], data: tuple[int, ...], path: str) -> tuple[_Layout | None, str]:
    """How a batch of the data set becomes one of the model, and that in words; None if they are the same."""

    def fits(shape: tuple[int, ...]) -> bool:
        return len(own) == len(shape) and all(size in (None, got) for size, got in zip(own, shape, strict=True))

    first = (data[-1], *data[:-1])
    if len(data) == 3 and fits(first) and (own[0] is not None or not fits(data)):
        return lambda x: x.transpose(0, 3, 1, 2), f"the images {list(data)} are given to {path!r} with channels first"
    if fits(data):
        return None, ""
    if data[-1] == 1 and fits(data[:-1]):
        return lambda x: x[..., 0], f"the images {list(data)} are given to {path!r} without their axis of one channel"
    if len(data) == 3 and fits((math.prod(data),)):
        return (
            lambda x: x.transpose(0, 3, 1, 2).reshape(len(x), -1),
            f"the images {list(data)} are given to {path!r} flattened, channels first",
        )
    sizes = ["N", *("any" if size is None else str(size) for size in own)]
    raise InputError(
        f"the input of {path!r} must fit the examples {list(data)} of the data set, got [{', '.join(sizes)}]. Choose"
        " another data set (--data), or import it with lottery_jax.target_from(path, example)."
    )


def _with_layout(model: ModelFunction, layout: _Layout, note: str) -> ModelFunction:
    def original(x: jax.Array) -> Any:
        return model.original(jnp.asarray(np.asarray(layout(x))))

    def function(parameters: Any, x: jax.Array) -> Any:
        return model.function(parameters, layout(x))

    return dataclasses.replace(model, function=function, original=original, notes=(*model.notes, note))
