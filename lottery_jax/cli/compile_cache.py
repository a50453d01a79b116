"""JAX's cache of compiled programs on disk, so that a user waits for compilation once.

It is in the folder `compiled` of the cache (LOTTERY_JAX_CACHE, ~/.cache/lottery_jax if that is not set), by processor
and version, for a program compiled for one processor need not run on another. JAX_COMPILATION_CACHE_DIR names another
folder; JAX_ENABLE_COMPILATION_CACHE=false turns it off.
"""

import hashlib
import os
import platform
from pathlib import Path

import jax

from lottery_jax.io.cache import cache_folder

_LEAST_SECONDS = 0.05  # programs that compile sooner are not worth a file


def switch_on() -> None:
    """Use the cache from here on, unless the environment says otherwise."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled" / processor()))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)


def processor() -> str:
    """A name for what a compiled program depends on: JAX's version, the kind of processor, and what it can do."""
    text = jax.__version__ + platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:  # not Linux
        text += platform.processor()
    return hashlib.sha256(text.encode()).hexdigest()[:12]
