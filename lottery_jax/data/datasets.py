"""Data sets by name: read from prepared folders or downloaded, decoded once, and split deterministically."""

import hashlib
import os
from pathlib import Path

import numpy as np

from lottery_jax.data.archives import DownloadError, LabelledImages, download, prepared_folder, read_prepared
from lottery_jax.data.dataset import Dataset, Split
from lottery_jax.data.own_file import load_npz
from lottery_jax.data.splitting import fixed_order, stratified, unit_floats
from lottery_jax.errors import InputError, suggest
from lottery_jax.io.cache import cache_folder, read_cached, write_cached

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10")
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
VALIDATION_SIZES = {"mnist": 5000, "fashion_mnist": 5000, "cifar10": 5000}
DIGITS_SIZES = (1257, 180, 360)
CLASSES = 10


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """A data set by name, or your own from a .npz file (`own_file.load_npz`).

    Args:
        name: One of `DATASETS`, or the path of a .npz file.
        data_dir: Folder of prepared TensorFlow Datasets. Defaults to $TFDS_DATA_DIR or ~/tensorflow_datasets.
        cache_dir: Folder of decoded data sets. Defaults to the user's cache.

    Raises:
        InputError: If the name is unknown, or the data can be neither read nor downloaded.

    >>> digits = load("digits")
    >>> digits.train.images.shape, len(digits.validation), len(digits.test)
    ((1257, 8, 8, 1), 180, 360)
    """
    if Path(name).suffix == ".npz":
        return load_npz(Path(name))
    if name not in DATASETS:
        raise InputError(
            f"the data set {name!r} is unknown; {suggest(name, DATASETS)}, or name a .npz file with images and labels"
        )
    if name == "digits":
        from sklearn.datasets import load_digits

        images, labels = (np.asarray(part) for part in load_digits(return_X_y=True))  # data frames, by their types
        images, labels = images.astype(np.uint8).reshape(-1, 8, 8, 1), labels.astype(np.int32)
        first, second, _ = DIGITS_SIZES
        order = stratified(labels, fixed_order(images, labels))
        parts = (order[:first], order[first : first + second], order[first + second :])
        splits = [_split(images[part], labels[part], 16) for part in parts]
    else:
        arrays = _read_once(name, data_dir, cache_folder(cache_dir))
        size = VALIDATION_SIZES[name]
        images, labels = arrays["train"]
        splits = [
            _split(images[size:], labels[size:], 255),
            _split(images[:size], labels[:size], 255),
            _split(*arrays["test"], 255),
        ]
    return Dataset(name, *splits, classes=CLASSES, nonnegative=True)


def _read_once(name: str, data_dir: str | os.PathLike[str] | None, cache: Path) -> dict[str, LabelledImages]:
    """Training and test arrays in the fixed order: from the cache, a prepared folder or the network."""
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = prepared_folder(root, name)
    # The cache key names the origin: an altered copy must not replace the published data.
    origin = "published"
    if folder is not None:
        origin = hashlib.sha256((folder / "dataset_info.json").read_bytes()).hexdigest()[:12]
    path = cache / "data" / f"{name}-{origin}.safetensors"
    cached = read_cached(path)
    if cached is not None and set(cached) == {"train.images", "train.labels", "test.images", "test.labels"}:
        return {part: (cached[f"{part}.images"], cached[f"{part}.labels"]) for part in ("train", "test")}
    try:
        arrays = download(name) if folder is None else read_prepared(folder)
    except DownloadError as error:
        raise InputError(
            f"the data set {name!r} is not in {str(root)!r} and cannot be downloaded ({error})."
            " Connect to a network, or name a folder with prepared TensorFlow Datasets (ArrayRecord)"
            " by --data-dir or TFDS_DATA_DIR."
        ) from None
    ordered, content = {}, {}
    for part, (images, labels) in arrays.items():
        if images.shape[1:] != SHAPES[name] or len(images) != len(labels):
            raise InputError(
                f"the images of {name!r} in {str(folder)!r} must have the shape {SHAPES[name]}, got"
                f" {images.shape[1:]}. Prepare the folder again."
            )
        order = fixed_order(images, labels)
        ordered[part] = images[order], labels[order]
        content[f"{part}.images"], content[f"{part}.labels"] = ordered[part]
    write_cached(path, content)
    return ordered


def _split(images: np.ndarray, labels: np.ndarray, white: int) -> Split:
    return Split(unit_floats(images, white), np.asarray(labels, np.int32))
