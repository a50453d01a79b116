"""JAX's cache of compiled programs on disk, so that a user waits for compilation once.

Its folder is `compiled` in LOTTERY_JAX_CACHE (default ~/.cache/lottery_jax), with a subfolder per processor
and version, because a program compiled for one processor may not run on another. JAX_COMPILATION_CACHE_DIR names
another folder. JAX_ENABLE_COMPILATION_CACHE=false turns the cache off.
"""

import hashlib
import os
import platform
from pathlib import Path

import jax

from lottery_jax.io.cache import cache_folder

_MIN_SECONDS = 0.05  # faster compilations are not worth a file


def enable_compile_cache() -> None:
    """Use the cache from now on, unless the environment turns it off."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled" / processor()))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)


def processor() -> str:
    """A digest of JAX's version, the machine and the processor's features."""
    text = jax.__version__ + platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        text += platform.processor()
    return hashlib.sha256(text.encode()).hexdigest()[:12]
