"""A folder of checked tensor files: what is found there is whole and unchanged, or it is made anew."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.files import write_atomically
from lottery_jax.progress import log


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where data and targets are kept: the argument, $LOTTERY_JAX_CACHE or ~/.cache/lottery_jax.

    >>> cache_folder("kept").name
    'kept'
    """
    return Path(cache_dir or os.environ.get("LOTTERY_JAX_CACHE") or "~/.cache/lottery_jax").expanduser()


def write_cached(path: Path, tensors: Mapping[str, np.ndarray]) -> bool:
    """Keep tensors; False, with a logged line, where the folder cannot be written: work goes on without."""
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
    """Tensors that `write_cached` kept, or None where the file is absent, unreadable or changed since."""
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
    log.warning("the cached file %s is damaged and will be made anew", path)
    return None


def _checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """CRC-32 over names, kinds, shapes and bytes, in the order of the names."""
    value = 0
    for name, tensor in tensors.items():
        value = zlib.crc32(f"{name}{tensor.dtype}{tensor.shape}".encode(), value)
        value = zlib.crc32(tensor.data, value)
    return f"{value:08x}"
