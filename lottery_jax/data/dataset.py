"""What a data set is: examples with labels, split for training, choosing and the last evaluation.

A data set of the user's own: one .npz file with images and labels.
"""

import concurrent.futures
import dataclasses
import hashlib
import itertools
from pathlib import Path

import jax
import numpy as np

from lottery_jax.environment import cores
from lottery_jax.errors import InputError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one purpose, a pytree: images float32 [N, H, W, C] (or other examples [N, ...]), labels int32 [N].

    >>> len(Split(np.zeros((3, 4), np.float32), np.zeros(3, np.int32)))
    3
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def __repr__(self) -> str:
        # As a pytree it may hold anything in place of arrays.
        return f"<Split of examples {list(getattr(self.images, 'shape', ()))[:8]}>"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set; `test` is for the last evaluation only, choices are made on `validation`.

    nonnegative: whether examples are never negative, as pixels are. digest: of the file they came from, if it may
    change.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    nonnegative: bool
    digest: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an example; [H, W, C] of an image."""
        return tuple(self.train.images.shape[1:])

    @property
    def fingerprint(self) -> str:
        """A short hash of the training examples: equal data, equal fingerprint, wherever it was read from."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train.labels).tobytes())
        digest.update(np.ascontiguousarray(self.train.images[::16]).tobytes())
        digest.update(self.digest.encode())
        return digest.hexdigest()[:16]

    def first(self, count: int) -> "Dataset":
        """The same with its first training examples and as large a part of the validation split; the test is whole.

        >>> some = Split(np.zeros((6, 4), np.float32), np.zeros(6, np.int32))
        >>> Dataset("zeros", some, some, some, 2, True).first(2)
        <Dataset zeros: 2 + 2 + 6 examples [4] never negative, for training, choosing and the test; 2 classes>
        """
        whole = len(self.train)
        if not 1 <= count <= whole:
            raise InputError(f"{self.name} has {whole:,} training examples; take 1 to {whole:,} of them, not {count:,}")
        if count == whole:
            return self
        held = -(-len(self.validation) * count // whole)
        train, validation = (
            Split(split.images[:part], split.labels[:part])
            for split, part in ((self.train, count), (self.validation, held))
        )
        return dataclasses.replace(self, train=train, validation=validation)

    def __repr__(self) -> str:
        counts = " + ".join(f"{len(split):,}" for split in (self.train, self.validation, self.test))
        sign = "never negative" if self.nonnegative else "of any sign"
        return (
            f"<Dataset {self.name[:40]}: {counts} examples {list(self.shape)[:8]} {sign}, for training, choosing and"
            f" the test; {self.classes:,} classes>"
        )


def unit_floats(images: np.ndarray, white: int) -> np.ndarray:
    """Images uint8 [N, ...] as float32 in [0, 1], by all cores.

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
    """A shuffle that depends on the examples alone: by hash, so the files' own order does not matter."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    digests = [
        hashlib.blake2b(row.data, digest_size=8, salt=int(label).to_bytes(4, "little")).digest()
        for row, label in zip(rows, labels, strict=True)
    ]
    return np.argsort(np.array(digests, "S8").view(">u8"), kind="stable")


def stratified(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Reorder so that every stretch of the result holds the classes in their overall proportions."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place[order], kind="stable")]


PARTS = ("train", "validation", "test")

_HELD = 10  # one of so many examples goes to validation, and as many to the test, where the file does not say


def load_npz(path: Path) -> Dataset:
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
