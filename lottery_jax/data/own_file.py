"""The user's own data sets from .npz files."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax.data.dataset import SPLITS, Dataset, Given, assembled
from lottery_jax.errors import InputError

_LAYOUTS = (("images", "labels", "{}_images", "{}_labels"), ("x", "y", "x_{}", "y_{}"))
_FRACTION = 0.1  # of the examples, of each split that the file lacks


def load_npz(path: Path) -> Dataset:
    """A data set in a .npz file.

    The file has `images` and `labels`, or `x` and `y`, as those of `Dataset.from_arrays`. Or it has these for each
    split: `train_images`, `train_labels`, `test_images`, `test_labels` and optionally `validation_images` and
    `validation_labels`; or `x_train`, `y_train` and so on. A missing split takes one tenth of the examples, in an order
    that depends on the examples alone. `images` [N, H, W] get one channel, `x` is taken as it is. The options `kind`,
    `classes` and `channels_first` of `from_arrays` may be arrays of one value.

    Raises:
        InputError: If the file is missing, damaged, or has other content.
    """
    where = f"the data set {str(path)!r}"
    arrays = _read(path, where)
    options = {name: arrays.pop(name) for name in ("kind", "classes", "channels_first") if name in arrays}
    for name, value in options.items():
        if value.size != 1:
            raise InputError(f"{name} of {where} must be one value, got the shape {list(value.shape)}. Omit it.")
        options[name] = value.item()
    given, fractions = _parts(arrays, where)
    return assembled(
        path.stem,
        given,
        fractions,
        seed=0,
        kind=options.get("kind"),
        classes=options.get("classes"),
        channels_first=bool(options.get("channels_first", False)),
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _parts(arrays: dict[str, np.ndarray], where: str) -> tuple[dict[str, Given], dict[str, float]]:
    """The splits of the file, and the fractions of the others."""

    def named(x: str, y: str) -> Given:
        images = arrays[x]
        if x.endswith("images") and images.ndim == 3:
            images = images[..., None]
        if y not in arrays:
            raise InputError(f"{where} must have labels for {x}, got no {y}. Add them.")
        return f"{x} of {where}", images, f"{y} of {where}", arrays[y]

    for x, y, x_of, y_of in _LAYOUTS:
        if {x, y} <= set(arrays):
            return {"train": named(x, y)}, {"test": _FRACTION, "validation": _FRACTION}
        needed = {each.format(part) for each in (x_of, y_of) for part in ("train", "test")}
        if needed <= set(arrays):
            present = [part for part in SPLITS if x_of.format(part) in arrays]
            missing = {part: _FRACTION for part in SPLITS if part not in present}
            return {part: named(x_of.format(part), y_of.format(part)) for part in present}, missing
    raise InputError(
        f"{where} must hold images and labels, or train_images, train_labels, test_images and test_labels, got"
        f" {sorted(arrays) or 'nothing'}. Write it with numpy.savez(path, images=..., labels=...)."
    )


def _read(path: Path, where: str) -> dict[str, np.ndarray]:
    if path.exists() and not path.is_file():  # reading a pipe or a device may never end
        raise InputError(f"{where} must be a .npz file on disk. Copy its content into one.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: _plain(arrays, name, where) for name in arrays.files}
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{where} does not exist. Check the path.") from None
    except Exception as error:  # zip and array readers raise many types for damaged files
        reason = " ".join((str(error) or type(error).__name__).split())
        raise InputError(
            f"{where} must be a .npz file of plain arrays ({reason}). Write it with numpy.savez."
        ) from None


def _plain(arrays: Any, name: str, where: str) -> np.ndarray:
    """An array of the file; Python objects, which are pickled, are not loaded."""
    try:
        return arrays[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
    raise InputError(
        f"{name} of {where} must be numbers, got Python objects. Write integers or floats: numpy.unique(labels,"
        " return_inverse=True)[1] numbers labels."
    )
