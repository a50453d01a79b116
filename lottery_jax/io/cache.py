"""Cached tensors: files with a checksum; a damaged file counts as missing and is rebuilt."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.files import write_atomically
from lottery_jax.progress import log


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of cached data and targets: ``cache_dir``, else $LOTTERY_JAX_CACHE, else ~/.cache/lottery_jax.

    >>> cache_folder("cache").name
    'cache'
    """
    return Path(cache_dir or os.environ.get("LOTTERY_JAX_CACHE") or "~/.cache/lottery_jax").expanduser()


def write_cached(path: Path, tensors: Mapping[str, np.ndarray]) -> bool:
    """Write tensors to the cache; False, with a warning, if the folder cannot be written."""
    from safetensors.numpy import save

    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    content = save(ordered, metadata={"crc32": _checksum(ordered)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except (OSError, InputError):
        log.warning("the folder %s cannot be written, so nothing is cached there", path.parent)
        return False
    return True


def read_cached(path: Path) -> dict[str, np.ndarray] | None:
    """The tensors of ``write_cached``; None if the file is missing, unreadable or changed since it was written."""
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            if (file.metadata() or {}).get("crc32") == _checksum(tensors):
                return tensors
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        pass
    log.warning("the cached file %s is damaged and will be rebuilt", path)
    return None


def _checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """CRC-32 of names, dtypes, shapes and bytes, in the order given."""
    value = 0
    for name, tensor in tensors.items():
        value = zlib.crc32(f"{name}{tensor.dtype}{tensor.shape}".encode(), value)
        value = zlib.crc32(tensor.data, value)
    return f"{value:08x}"
