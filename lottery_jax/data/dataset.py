"""What a data set is: examples with labels, split for training, choosing and the last evaluation."""

import concurrent.futures
import dataclasses
import hashlib

import jax
import numpy as np

from lottery_jax.cores import cores
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
