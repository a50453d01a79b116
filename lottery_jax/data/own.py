"""A data set of the user's own: one .npz file with images and labels."""

import hashlib
import itertools
from pathlib import Path

import numpy as np

from lottery_jax.data.dataset import Dataset, Split, fixed_order, stratified, unit_floats
from lottery_jax.errors import InputError

PARTS = ("train", "validation", "test")
_HELD = 10  # one of so many examples goes to validation, and as many to the test, where the file does not say


def load_own(path: Path) -> Dataset:
    """Read `images` [N, H, W, C], [N, H, W] or [N, D] and `labels` [N], classes counted from 0; raises `InputError`.

    Whole numbers of eight bits are scaled to [0, 1], floats taken as they are. With `train_images`, `train_labels`,
    `test_images`, `test_labels` and perhaps `validation_...` in their place these are the splits; what is missing is
    held back from the training examples, one of ten, in an order that depends on the examples alone.
    """
    where = f"the data set {str(path)!r}"
    arrays = _read(path, where)
    if {"images", "labels"} <= set(arrays):
        whole = _examples(arrays, "", where)
        parts = _cut(whole, ("test", "validation", "train"), where)
    elif {"train_images", "train_labels", "test_images", "test_labels"} <= set(arrays):
        parts = {part: _examples(arrays, f"{part}_", where) for part in PARTS if f"{part}_images" in arrays}
        if "validation" not in parts:
            parts |= _cut(parts["train"], ("validation", "train"), where)
    else:
        raise InputError(
            f"{where} must hold images and labels, or train_images, train_labels, test_images and test_labels, but"
            f" holds {sorted(arrays) or 'nothing'}; write it with numpy.savez(path, images=..., labels=...)"
        )
    shapes = {split.images.shape[1:] for split in parts.values()}
    if len(shapes) > 1:
        raise InputError(f"{where} has examples of different shapes, {sorted(shapes)}; all splits need the same")
    classes = 1 + max(int(np.max(split.labels)) for split in parts.values())
    if classes < 2:
        raise InputError(f"{where} has one class only; a network that tells classes apart needs two")
    nonnegative = all(float(np.min(split.images)) >= 0 for split in parts.values())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    splits = (parts[part] for part in PARTS)
    return Dataset(path.stem, *splits, classes=classes, nonnegative=nonnegative, digest=digest)


def _read(path: Path, where: str) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise InputError(f"{where} does not exist; check the path") from None
    except Exception as error:  # the readers of zip files and arrays raise anything for a damaged one
        reason = " ".join((str(error) or type(error).__name__).split())
        raise InputError(
            f"{where} is no readable .npz file of plain arrays ({reason}); write it with numpy.savez"
        ) from None


def _examples(arrays: dict[str, np.ndarray], prefix: str, where: str) -> Split:
    images, labels = arrays[f"{prefix}images"], arrays.get(f"{prefix}labels")
    if labels is None or labels.ndim != 1 or labels.shape != images.shape[:1] or not len(labels):
        raise InputError(f"{where} needs one label for each example in {prefix}labels, and at least one example")
    if images.ndim not in (2, 3, 4) or 0 in images.shape:
        raise InputError(
            f"{prefix}images of {where} have shape {list(images.shape)}; use [N, H, W, C], [N, H, W] or [N, D]"
        )
    if images.dtype == np.uint8:
        images = unit_floats(images, 255)
    if images.dtype.kind != "f":
        raise InputError(f"{prefix}images of {where} must be bytes or finite floats, not {images.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise InputError(
            f"{prefix}images of {where} hold numbers that are NaN, infinite or beyond float32; use finite ones"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= 1 << 16:
        raise InputError(f"{prefix}labels of {where} must be whole numbers from 0 to 65535")
    images = images[..., None] if images.ndim == 3 else images
    return Split(images, labels.astype(np.int32))


def _cut(split: Split, names: tuple[str, ...], where: str) -> dict[str, Split]:
    """Stretches of one tenth, and the rest under the last name, each with all classes in proportion."""
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    order = stratified(labels, fixed_order(images, labels))
    held = max(len(labels) // _HELD, 1)
    if len(labels) <= held * (len(names) - 1):
        raise InputError(
            f"{where} has {len(labels)} examples, too few to be split into {' and '.join(names)}; give it more"
        )
    bounds = [held * place for place in range(len(names))] + [len(labels)]
    chosen = (order[start:stop] for start, stop in itertools.pairwise(bounds))
    return {name: Split(images[part], labels[part]) for name, part in zip(names, chosen, strict=True)}
