"""The tensors of a file of weights under PyTorch's names and in its layout: Flax's names, reparametrisations.

`torch.nn.utils.prune` stores a weight as `weight_orig` and `weight_mask`, weight normalisation (Salimans and Kingma
2016) as a length `weight_g` and a direction `weight_v`.
"""

import dataclasses
import os

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.tensor_file import FLOAT_DTYPES, InMemoryTensors, TensorReader, TensorView, read_array
from lottery_jax.io.weight_files import open_tensors

Shapes = dict[str, tuple[int, ...]]

_SHOWN_TENSORS = 6  # in a message
_COUNTERS = ("num_batches_tracked", "n_averaged")
_FLAX = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_COLLECTIONS = ("params", "batch_stats")  # of Linen, the first part of each name
MASK, _NORM, _OTHER = "torch.nn.utils.prune", "weight normalisation", "a reparametrisation"
_REMOVE = "torch.nn.utils.parametrize.remove_parametrizations(module, {!r})"


@dataclasses.dataclass(frozen=True)
class Reparametrisation:
    """A tensor that a file holds as a function of two others.

    `kind` names the function, `remove` is PyTorch's call that stores the tensor itself.
    """

    name: str
    parts: tuple[str, ...]
    kind: str
    remove: str

    def refused(self, where: str) -> InputError:
        """The refusal of a file that must hold the tensor itself."""
        module, _, tensor = self.name.rpartition(".")
        return InputError(
            f"{where} must hold {self.name!r} itself, got {' and '.join(map(repr, self.parts))} of {self.kind}. Call"
            f" {self.remove.format(tensor)} for the module {module!r}, and save it again."
        )


def reparametrisations(shapes: Shapes) -> list[Reparametrisation]:
    """The tensors that a file holds as functions of others, by the names and shapes of these.

    >>> [found.name for found in reparametrisations({"fc.weight_orig": (2, 3), "fc.weight_mask": (2, 3)})]
    ['fc.weight']
    """
    found: list[Reparametrisation] = []
    endings = (
        ("_orig", "_mask", MASK, "torch.nn.utils.prune.remove(module, {!r})"),
        ("_orig", "_u", "spectral normalisation", "torch.nn.utils.remove_spectral_norm(module, {!r})"),
        ("_g", "_v", _NORM, "torch.nn.utils.remove_weight_norm(module, {!r})"),
    )
    for first, second, kind, remove in endings:
        for name in sorted(shapes):
            stem = name.removesuffix(first)
            if stem == name or stem + second not in shapes:
                continue
            # Matrices W_g and W_v of a gate and a value are no length and direction.
            if kind not in (MASK, _NORM) or _fit(kind, shapes[name], shapes[stem + second]):
                found.append(Reparametrisation(stem, (name, stem + second), kind, remove))
    parametrized: dict[str, list[str]] = {}
    for name in sorted(shapes):
        module, marker, rest = f".{name}".rpartition(".parametrizations.")
        if marker:
            parametrized.setdefault(f"{module}.{rest.partition('.')[0]}".lstrip("."), []).append(name)
    for name, parts in parametrized.items():
        both = [part.rpartition(".")[2] for part in parts] == ["original0", "original1"]
        found.append(Reparametrisation(name, tuple(parts[:2]), _NORM if both else _OTHER, _REMOVE))
    return found


@dataclasses.dataclass(frozen=True)
class StateTensors:
    """The float tensors of a file by PyTorch's names: where each is in the reader, and notes on the changes."""

    reader: TensorReader
    where: str
    views: dict[str, TensorView]
    is_flax: bool
    notes: tuple[str, ...]

    @property
    def shapes(self) -> Shapes:
        return {name: view.shape(self.reader.tensors[view.name].shape) for name, view in self.views.items()}


def read_state(path: str | os.PathLike[str]) -> StateTensors:
    """The tensors of a file, an index or a folder of safetensors; they stay there unless they are reparametrised.

    Raises:
        InputError: The file is not one, holds integers, or a reparametrisation other than masks and weight
            normalisation.
    """
    file = open_tensors(path)
    names = [name for name in file.tensors if name.rpartition(".")[2] not in _COUNTERS]
    wrong = [f"{name} is {file.tensors[name].dtype}" for name in names if file.tensors[name].dtype not in FLOAT_DTYPES]
    if wrong:
        raise InputError(f"{file.where} must hold floats, got {listed_first(wrong)}. Save it as float32.")
    reader: TensorReader = file
    found, notes = reparametrisations({name: file.tensors[name].shape for name in names}), []
    if found:
        arrays = {name: read_array(file, name) for name in names}
        for one in found:
            arrays[one.name] = _folded(one, [arrays.pop(part) for part in one.parts], file.where)
        reader, names = InMemoryTensors(arrays, file.path), list(arrays)
        kinds = " and ".join(dict.fromkeys(one.kind for one in found))
        notes.append(f"{len(found)} tensors of {kinds} are computed from their parts")
    is_flax = any(_last(name) == "kernel" for name in names)
    views: dict[str, TensorView] = {}
    for name in names:
        plain, view = _from_flax(name, len(reader.tensors[name].shape)) if is_flax else (name, TensorView(name))
        if plain in views:
            raise InputError(
                f"{file.where} must hold one {plain!r}, got {views[plain].name!r} and {name!r}. Remove one of them."
            )
        views[plain] = view
    if is_flax:
        notes.append("kernels [..., in, out] of Flax are read as weights [out, in, ...]")
    return StateTensors(reader, file.where, views, is_flax, tuple(notes))


def _fit(kind: str, first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether a weight and its mask, or a length and a direction, may have these shapes."""
    if kind == MASK:
        return first == second
    sizes = list(zip(first, second, strict=False))
    return first == () or (len(first) == len(second) and 1 in first and all(a in (1, b) for a, b in sizes))


def listed_first(texts: list[str]) -> str:
    """The first few of many words, and the number of others."""
    more = f" and {len(texts) - _SHOWN_TENSORS} more" if len(texts) > _SHOWN_TENSORS else ""
    return (", ".join(texts[:_SHOWN_TENSORS]) or "nothing") + more


def _last(name: str) -> str:
    return name.replace("/", ".").rpartition(".")[2]


def _from_flax(name: str, axes: int) -> tuple[str, TensorView]:
    """PyTorch's name of one of Flax's tensors, and its layout."""
    parts = name.replace("/", ".").split(".")
    if parts[0] in _COLLECTIONS and len(parts) > 1:
        parts = parts[1:]
    is_kernel = parts[-1] == "kernel" and axes > 1
    parts[-1] = _FLAX.get(parts[-1], parts[-1])
    return ".".join(parts), TensorView(name, (axes - 1, axes - 2, *range(axes - 2)) if is_kernel else ())


def _folded(one: Reparametrisation, parts: list[np.ndarray], where: str) -> np.ndarray:
    """The tensor that two others make: exactly for masks, else computed in float64 and rounded to float32."""
    first, second = parts[0], parts[-1]
    if one.kind == MASK and first.shape == second.shape and np.isin(second, (0, 1)).all():
        return first * second.astype(first.dtype)
    if one.kind == _NORM and len(parts) == 2 and _fit(_NORM, first.shape, second.shape):
        axes = tuple(axis for axis, size in enumerate(first.shape) if size == 1) if first.shape else None
        wide = second.astype(np.float64)
        length = np.sqrt(np.square(wide).sum(axes, keepdims=first.shape != ()))
        if length.shape == first.shape:
            if not length.all():
                raise InputError(
                    f"{one.parts[1]!r} in {where} must have no zero vectors, because they have no direction. Remove"
                    " the weight normalisation in PyTorch."
                )
            return (first.astype(np.float64) * wide / length).astype(np.float32)
    raise one.refused(where)
