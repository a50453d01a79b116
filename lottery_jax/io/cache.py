"""Caches on disk: tensors with a checksum, of which a damaged one is rebuilt, and JAX's compiled programs."""

import hashlib
import os
import platform
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.files import write_atomically
from lottery_jax.progress import log

_MIN_COMPILE_SECONDS = 0.05  # faster compilations are not worth a file


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


def enable_compile_cache() -> None:
    """Keep compiled programs in the cache folder from now on.

    JAX_COMPILATION_CACHE_DIR names another folder, and JAX_ENABLE_COMPILATION_CACHE=false turns the cache off.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        # A subfolder for each processor, because a program compiled for one may not run on another.
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled" / processor()))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)


def processor() -> str:
    """A digest of JAX's version, the machine and the processor's features."""
    text = jax.__version__ + platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        text += platform.processor()
    return hashlib.sha256(text.encode()).hexdigest()[:12]
