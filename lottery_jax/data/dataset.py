"""Data sets: examples with labels in three splits, and the user's own data sets from .npz files."""

import concurrent.futures
import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from lottery_jax.environment import cores
from lottery_jax.errors import InputError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Split:
    """Examples and labels of one split, a pytree.

    Args:
        images: float32 [N, H, W, C], or other examples [N, ...].
        labels: int32 [N] classes, or float32 [N, K] targets of a regression or 0 and 1 of several labels.

    >>> len(Split(np.zeros((3, 4), np.float32), np.zeros(3, np.int32)))
    3
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def __repr__(self) -> str:
        # A pytree's leaves need not be arrays.
        return f"<Split of examples {list(getattr(self.images, 'shape', ()))[:8]}>"


_SPLITS = ("train", "validation", "test")

LabelKind = Literal["classification", "regression", "multilabel"]
"""What the labels of a data set are: one class, K real numbers, or K labels of which each is 0 or 1."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set.

    Args:
        classes: Outputs of a network for it: classes, numbers of a regression, or labels.
        validation: Examples for choices, such as of hyper-parameters.
        test: Examples for the final evaluation only.
        nonnegative: Whether examples are never negative, as pixels are.
        digest: SHA-256 of the user's file, or "".
        kind: What the labels are. Those of a regression or of several labels become float32 [N, K].
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    nonnegative: bool
    digest: str = ""
    kind: LabelKind = "classification"

    def __post_init__(self) -> None:
        if self.kind == "classification":
            return
        for name in _SPLITS:
            split: Split = getattr(self, name)
            # With labels [N] and outputs [N, 1] a user's loss would broadcast to [N, N].
            labels = np.asarray(split.labels, np.float32).reshape(len(split), -1)
            if labels.shape[1:] != (self.classes,):
                raise InputError(
                    f"the labels of {self.name} must be [N] or [N, {self.classes}], got {list(np.shape(split.labels))}."
                    " Give a number for each output."
                )
            object.__setattr__(self, name, Split(split.images, labels))

    @property
    def outputs(self) -> str:
        """The outputs of a network for it, in words."""
        what = {"classification": "classes", "regression": "targets", "multilabel": "labels"}[self.kind]
        return f"{self.classes:,} {what}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an example, [H, W, C] of an image."""
        return tuple(self.train.images.shape[1:])

    @property
    def fingerprint(self) -> str:
        """A short hash of the training examples, independent of where they were read from."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train.labels).tobytes())
        digest.update(np.ascontiguousarray(self.train.images[::16]).tobytes())
        digest.update(self.digest.encode())
        digest.update(b"" if self.kind == "classification" else self.kind.encode())
        return digest.hexdigest()[:16]

    def first(self, count: int) -> "Dataset":
        """The data set with its first training examples and an equal part of the validation split.

        Args:
            count: Training examples, from 1 to all.

        >>> some = Split(np.zeros((6, 4), np.float32), np.zeros(6, np.int32))
        >>> Dataset("zeros", some, some, some, 2, True).first(2)
        <Dataset zeros: 2 + 2 + 6 examples [4] never negative, for training, choosing and the test; 2 classes>
        """
        whole = len(self.train)
        if not 1 <= count <= whole:
            raise InputError(f"count must be from 1 to the {whole:,} training examples of {self.name}, got {count:,}")
        if count == whole:
            return self
        validated = -(-len(self.validation) * count // whole)
        train, validation = (
            Split(split.images[:part], split.labels[:part])
            for split, part in ((self.train, count), (self.validation, validated))
        )
        return dataclasses.replace(self, train=train, validation=validation)

    def __repr__(self) -> str:
        counts = " + ".join(f"{len(split):,}" for split in (self.train, self.validation, self.test))
        sign = "never negative" if self.nonnegative else "of any sign"
        return (
            f"<Dataset {self.name[:40]}: {counts} examples {list(self.shape)[:8]} {sign}, for training, choosing and"
            f" the test; {self.outputs}>"
        )


def unit_floats(images: np.ndarray, white: int) -> np.ndarray:
    """Images uint8 [N, ...] divided by `white`, as float32, on all cores.

    >>> unit_floats(np.array([[0, 51]], np.uint8), 255)
    array([[0. , 0.2]], dtype=float32)
    """
    found, step = np.empty(images.shape, np.float32), 4096

    def scale(start: int) -> None:
        np.divide(images[start : start + step], np.float32(white), out=found[start : start + step])

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        list(pool.map(scale, range(0, len(images), step)))
    return found


def fixed_order(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A shuffle by hashes of the examples, independent of their order in a file."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    digests = [
        hashlib.blake2b(row.data, digest_size=8, salt=int(label).to_bytes(4, "little")).digest()
        for row, label in zip(rows, labels, strict=True)
    ]
    return np.argsort(np.array(digests, "S8").view(">u8"), kind="stable")


def stratified(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The order changed so that every interval has the classes in their overall proportions."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(position[order], kind="stable")]


_FRACTION = 10  # one of so many examples goes to validation, and as many to the test, if the file has no such split


def load_npz(path: Path) -> Dataset:
    """A data set in a .npz file.

    The file has `images` [N, H, W, C], [N, H, W] or [N, D] and `labels` [N], from 0; or these for each split:
    `train_images`, `train_labels`, `test_images`, `test_labels`, optionally `validation_images`, `validation_labels`. A
    missing split takes one tenth of the examples, in an order that depends on the examples alone. uint8 images are
    scaled to [0, 1], floats are unchanged.

    Raises:
        InputError: If the file is missing, damaged, or has other content.
    """
    where = f"the data set {str(path)!r}"
    arrays = _read(path, where)
    if {"images", "labels"} <= set(arrays):
        parts = _divided(_examples(arrays, "", where), ("test", "validation", "train"), where)
    elif {"train_images", "train_labels", "test_images", "test_labels"} <= set(arrays):
        parts = {part: _examples(arrays, f"{part}_", where) for part in _SPLITS if f"{part}_images" in arrays}
        if "validation" not in parts:
            parts |= _divided(parts["train"], ("validation", "train"), where)
    else:
        raise InputError(
            f"{where} must hold images and labels, or train_images, train_labels, test_images and test_labels, got"
            f" {sorted(arrays) or 'nothing'}. Write it with numpy.savez(path, images=..., labels=...)."
        )
    shapes = {split.images.shape[1:] for split in parts.values()}
    if len(shapes) > 1:
        raise InputError(f"the splits of {where} must have examples of one shape, got {sorted(shapes)}")
    classes = 1 + max(int(np.max(split.labels)) for split in parts.values())
    if classes < 2:
        raise InputError(f"{where} must have at least 2 classes, got 1")
    nonnegative = all(float(np.min(split.images)) >= 0 for split in parts.values())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    splits = (parts[part] for part in _SPLITS)
    return Dataset(path.stem, *splits, classes=classes, nonnegative=nonnegative, digest=digest)


def _read(path: Path, where: str) -> dict[str, np.ndarray]:
    if path.exists() and not path.is_file():  # reading a pipe or a device may never end
        raise InputError(f"{where} must be a .npz file on disk. Copy its content into one.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise InputError(f"{where} does not exist. Check the path.") from None
    except Exception as error:  # zip and array readers raise many types for damaged files
        reason = " ".join((str(error) or type(error).__name__).split())
        raise InputError(
            f"{where} must be a .npz file of plain arrays ({reason}). Write it with numpy.savez."
        ) from None


def _examples(arrays: dict[str, np.ndarray], prefix: str, where: str) -> Split:
    images, labels = arrays[f"{prefix}images"], arrays.get(f"{prefix}labels")
    if labels is None or labels.ndim != 1 or labels.shape != images.shape[:1] or not len(labels):
        raise InputError(f"{where} must have at least one example, and one label for each in {prefix}labels")
    if images.ndim not in (2, 3, 4) or 0 in images.shape:
        raise InputError(
            f"{prefix}images of {where} must be [N, H, W, C], [N, H, W] or [N, D], got the shape {list(images.shape)}"
        )
    if images.dtype == np.uint8:
        images = unit_floats(images, 255)
    if images.dtype.kind != "f":
        raise InputError(f"{prefix}images of {where} must be uint8 or finite floats, got {images.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise InputError(
            f"{prefix}images of {where} must be finite, got numbers that are NaN, infinite or beyond float32"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= 1 << 16:
        raise InputError(f"{prefix}labels of {where} must be integers from 0 to 65535")
    images = images[..., None] if images.ndim == 3 else images
    return Split(images, labels.astype(np.int32))


def _divided(split: Split, names: tuple[str, ...], where: str) -> dict[str, Split]:
    """One tenth of the examples for each name, and the rest for the last; classes are in proportion."""
    images, labels = np.asarray(split.images), np.asarray(split.labels)
    order = stratified(labels, fixed_order(images, labels))
    size = max(len(labels) // _FRACTION, 1)
    if len(labels) <= size * (len(names) - 1):
        raise InputError(
            f"{where} must have at least {len(names)} examples for {' and '.join(names)}, got {len(labels)}"
        )
    bounds = [*range(0, size * len(names), size), len(labels)]
    parts = (order[start:stop] for start, stop in itertools.pairwise(bounds))
    return {name: Split(images[part], labels[part]) for name, part in zip(names, parts, strict=True)}
