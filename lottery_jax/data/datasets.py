"""Data sets: read where prepared, downloaded where not, decoded once, always split in the same way."""

import dataclasses
import hashlib
import os
from pathlib import Path

import jax
import numpy as np

from lottery_jax.data.cache import cache_folder, recall, store
from lottery_jax.data.downloads import Arrays, DownloadError, download
from lottery_jax.data.prepared import prepared_folder, read_prepared
from lottery_jax.errors import InputError, suggest

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10")
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
VALIDATION_SIZES = {"mnist": 5000, "fashion_mnist": 5000, "cifar10": 5000}
DIGITS_SIZES = (1257, 180, 360)
CLASSES = 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one purpose, a pytree: images float32 [N, D] in [0, 1], labels int32 [N].

    >>> len(Split(np.zeros((3, 4), np.float32), np.zeros(3, np.int32)))
    3
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array

    def __len__(self) -> int:
        return int(self.images.shape[0])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named data set; `test` is for the last evaluation only, choices are made on `validation`."""

    name: str
    train: Split
    validation: Split
    test: Split
    image_shape: tuple[int, int, int]
    classes: int
    nonnegative: bool

    @property
    def inputs(self) -> int:
        """Numbers per example, D."""
        return int(np.prod(self.image_shape))

    @property
    def fingerprint(self) -> str:
        """A short hash of the training examples: equal data, equal fingerprint, wherever it was read from."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train.labels).tobytes())
        digest.update(np.ascontiguousarray(self.train.images[::16]).tobytes())
        return digest.hexdigest()[:16]


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load a data set; `InputError` for an unknown name, or where there are neither data nor a network.

    `data_dir` holds prepared TensorFlow Datasets folders ($TFDS_DATA_DIR or ~/tensorflow_datasets if None).

    >>> digits = load("digits")
    >>> digits.train.images.shape, len(digits.validation), len(digits.test)
    ((1257, 64), 180, 360)
    """
    if name not in DATASETS:
        raise InputError(f"unknown data set {name!r}; {suggest(name, DATASETS)}")
    if name == "digits":
        images, labels = _read_digits()
        first, second, _ = DIGITS_SIZES
        order = _stratified(labels, _fixed_order(images, labels))
        parts = (order[:first], order[first : first + second], order[first + second :])
        splits = [_split(images[part], labels[part], 16) for part in parts]
    else:
        arrays = _read_once(name, data_dir, cache_folder(cache_dir))
        held = VALIDATION_SIZES[name]
        images, labels = arrays["train"]
        splits = [
            _split(images[held:], labels[held:], 255),
            _split(images[:held], labels[:held], 255),
            _split(*arrays["test"], 255),
        ]
    return Dataset(name, *splits, image_shape=SHAPES[name], classes=CLASSES, nonnegative=True)


def _read_digits() -> Arrays:
    """The handwritten digits inside scikit-learn: images uint8 [1797, 8, 8, 1] with values 0..16."""
    from sklearn.datasets import load_digits

    images, labels = (np.asarray(part) for part in load_digits(return_X_y=True))  # frames, by their types
    return images.astype(np.uint8).reshape(-1, 8, 8, 1), labels.astype(np.int32)


def _read_once(name: str, data_dir: str | os.PathLike[str] | None, cache: Path) -> dict[str, Arrays]:
    """Train and test arrays in the fixed order: from the cache, a prepared folder or the network."""
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = prepared_folder(root, name)
    # The key says where the data came from: an altered copy must not pass for the published one.
    origin = "published"
    if folder is not None:
        origin = hashlib.sha256((folder / "dataset_info.json").read_bytes()).hexdigest()[:12]
    path = cache / "data" / f"{name}-{origin}.safetensors"
    kept = recall(path)
    if kept is not None and set(kept) == {"train.images", "train.labels", "test.images", "test.labels"}:
        return {part: (kept[f"{part}.images"], kept[f"{part}.labels"]) for part in ("train", "test")}
    try:
        arrays = download(name) if folder is None else read_prepared(folder)
    except DownloadError as error:
        raise InputError(
            f"data set {name!r} is not in {str(root)!r} and cannot be downloaded ({error});"
            " connect to a network, or name a folder with prepared TensorFlow Datasets (ArrayRecord)"
            " by --data-dir or TFDS_DATA_DIR"
        ) from None
    ordered = {}
    for part, (images, labels) in arrays.items():
        if images.shape[1:] != SHAPES[name] or len(images) != len(labels):
            raise InputError(
                f"data set {name!r} in {str(folder)!r} has images of shape {images.shape[1:]} where"
                f" {SHAPES[name]} is expected; prepare the folder again"
            )
        order = _fixed_order(images, labels)
        ordered[part] = (images[order], labels[order])
    kinds = ("images", "labels")
    store(path, {f"{part}.{kind}": ordered[part][at] for part in ordered for at, kind in enumerate(kinds)})
    return ordered


def _fixed_order(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A shuffle that depends on the examples alone: by hash, so the files' own order does not matter."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    digests = [
        hashlib.blake2b(row.data, digest_size=8, salt=bytes([label])).digest()
        for row, label in zip(rows, labels, strict=True)
    ]
    return np.argsort(np.array(digests, "S8").view(">u8"), kind="stable")


def _stratified(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Reorder so that every stretch of the result holds the classes in their overall proportions."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place[order], kind="stable")]


def _split(images: np.ndarray, labels: np.ndarray, white: int) -> Split:
    """Flatten and scale uint8 images [N, H, W, C] to float32 [N, D] in [0, 1]."""
    flat = images.reshape(len(images), -1)
    return Split(np.divide(flat, np.float32(white), dtype=np.float32), np.asarray(labels, np.int32))
