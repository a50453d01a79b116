"""Prepared folders of TensorFlow Datasets, in the ArrayRecord format: read without TensorFlow."""

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax.data.downloads import Pictures
from lottery_jax.errors import InputError

CHUNK = 2000


def prepared_folder(root: Path, name: str) -> Path | None:
    """The folder of the newest version, such as root/mnist/3.0.1, or None; InputError for another format."""
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
        raise InputError(f"{str(folder / 'dataset_info.json')!r} is damaged; prepare the folder again") from None
    if file_format != "array_record":
        raise InputError(
            f"{str(folder)!r} holds {file_format!r} files, which only TensorFlow reads; prepare it with"
            " tfds.data_source (array_record), or name another folder by --data-dir or TFDS_DATA_DIR"
        )
    return folder


def read_prepared(folder: Path) -> dict[str, Pictures]:
    """Decode the train and test sets of a prepared folder; InputError where a file is missing or damaged."""
    with _quietly():
        import tensorflow_datasets as tfds

        try:
            builder: Any = tfds.builder_from_directory(folder)
            raw = {"image": tfds.decode.SkipDecoding()}
            parts = ("train", "test")
            sources = builder.as_data_source(decoders=raw)  # one for each split
            return {part: _decode(sources[part]) for part in parts}
        except Exception as error:  # its readers raise anything from OSError to protobuf's own errors
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"the data set prepared in {str(folder)!r} cannot be read ({reason}); prepare it again"
            ) from error


def _decode(source: Any) -> Pictures:
    """Images uint8 [N, H, W, C] and labels int32 [N] of a random-access source of encoded images."""
    # Decoded here: twice as fast as the reader, and the same pixels whatever image library it would choose.
    from PIL import Image

    images, labels = [], []
    for start in range(0, len(source), CHUNK):
        rows = source.__getitems__(list(range(start, min(start + CHUNK, len(source)))))
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows])
        images.append(pixels[..., None] if pixels.ndim == 3 else pixels)
        labels.append(np.array([row["label"] for row in rows], np.int32))
    return np.concatenate(images), np.concatenate(labels)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the reader's own remarks (no OpenCV, old NumPy calls), which a user can do nothing about."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
