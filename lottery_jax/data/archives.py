"""The published archives of the data sets, and prepared folders of TensorFlow Datasets, decoded without TensorFlow.

TensorFlow Datasets cannot prepare these data sets without TensorFlow. So the first download is made here, from the
addresses and with the checksums that it publishes.
"""

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import logging
import re
import tarfile
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax.errors import InputError

IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)

CIFAR10_FILES = ("cifar-10-binary.tar.gz",)

# Address of the folder, and the SHA-256 of each file in the order of IDX_FILES or CIFAR10_FILES.
DOWNLOADS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mnist": (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion_mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    "cifar10": (
        "https://www.cs.toronto.edu/~kriz/",
        ("c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",),
    ),
}

LabelledImages = tuple[np.ndarray, np.ndarray]  # images uint8 [N, H, W, C], labels int32 [N]
Fetch = Callable[[str], bytes]


class DownloadError(Exception):
    """An archive cannot be fetched, or is not the published one."""


def download(name: str, *, fetch: Fetch | None = None) -> dict[str, LabelledImages]:
    """The published training and test set of a data set, decoded; raises `DownloadError`."""
    folder, checksums = DOWNLOADS[name]
    files = CIFAR10_FILES if name == "cifar10" else IDX_FILES
    contents = []
    for file, checksum in zip(files, checksums, strict=True):
        content = (fetch or fetch_address)(folder + file)
        if hashlib.sha256(content).hexdigest() != checksum:
            raise DownloadError(f"{folder}{file} is not the published file (its SHA-256 differs)")
        contents.append(content)
    if name == "cifar10":
        return decode_cifar10(contents[0])
    return {"train": decode_idx(*contents[:2]), "test": decode_idx(*contents[2:])}


def fetch_address(address: str) -> bytes:
    """The content of an address; raises `DownloadError`."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException) as error:  # URLError, HTTPError, time-outs, broken answers
        raise DownloadError(f"{address}: {getattr(error, 'reason', None) or error}") from error


def decode_idx(images: bytes, labels: bytes) -> LabelledImages:
    """Images and labels of a gzipped pair of IDX files, the format of MNIST."""
    pixels = gzip.decompress(images)
    count, height, width = (int.from_bytes(pixels[at : at + 4], "big") for at in (4, 8, 12))
    decoded = np.frombuffer(pixels, np.uint8, offset=16).reshape(count, height, width, 1)
    return decoded, np.frombuffer(gzip.decompress(labels), np.uint8, offset=8).astype(np.int32)


def decode_cifar10(archive: bytes) -> dict[str, LabelledImages]:
    """Training and test set of CIFAR-10's binary version: rows of a label byte and 3 x 32 x 32 pixels."""
    batches = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
        for member in members:
            content = members.extractfile(member)
            if content is not None and member.name.endswith(".bin"):
                rows = np.frombuffer(content.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
                batches[member.name.rsplit("/", 1)[-1]] = rows
    train = np.concatenate([batches[f"data_batch_{number}.bin"] for number in range(1, 6)])
    return {"train": _rows(train), "test": _rows(batches["test_batch.bin"])}


def _rows(rows: np.ndarray) -> LabelledImages:
    """Images [N, 32, 32, 3] and labels of CIFAR-10's rows."""
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int32)


_CHUNK = 2000  # images decoded at once


def prepared_folder(root: Path, name: str) -> Path | None:
    """The folder of the newest version, such as root/mnist/3.0.1, or None; raises `InputError` for another format."""
    try:
        versions = [
            folder
            for folder in (root / name).iterdir()
            if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and (folder / "dataset_info.json").is_file()
        ]
    except OSError:
        return None
    if not versions:
        return None
    folder = max(versions, key=lambda folder: tuple(map(int, folder.name.split("."))))
    info = (folder / "dataset_info.json").read_bytes()
    try:
        file_format = json.loads(info)["fileFormat"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{str(folder / 'dataset_info.json')!r} is damaged. Prepare the folder again.") from None
    if file_format != "array_record":
        raise InputError(
            f"{str(folder)!r} must hold array_record files, got {file_format!r}, which only TensorFlow reads. Prepare"
            " it with tfds.data_source, or name another folder by --data-dir or TFDS_DATA_DIR."
        )
    return folder


def read_prepared(folder: Path) -> dict[str, LabelledImages]:
    """Training and test set of a prepared folder; raises `InputError` if a file is missing or damaged."""
    with _silenced():
        import tensorflow_datasets as tfds

        try:
            builder: Any = tfds.builder_from_directory(folder)
            raw = {"image": tfds.decode.SkipDecoding()}
            parts = ("train", "test")
            sources = builder.as_data_source(decoders=raw)  # one for each split
            return {part: _decode(sources[part]) for part in parts}
        except Exception as error:  # the readers raise many types, from OSError to protobuf's errors
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"the prepared data set in {str(folder)!r} cannot be read ({reason}). Prepare it again."
            ) from error


def _decode(source: Any) -> LabelledImages:
    """Images uint8 [N, H, W, C] and labels int32 [N] of a random-access source of encoded images."""
    # Decoded here: twice as fast as the reader's decoder, and independent of its choice of image library.
    from PIL import Image

    images, labels = [], []
    for start in range(0, len(source), _CHUNK):
        rows = source.__getitems__(list(range(start, min(start + _CHUNK, len(source)))))
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows])
        images.append(pixels[..., None] if pixels.ndim == 3 else pixels)
        labels.append(np.array([row["label"] for row in rows], np.int32))
    return np.concatenate(images), np.concatenate(labels)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Silence the reader's warnings (no OpenCV, old NumPy calls), which users cannot fix."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
