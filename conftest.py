"""Settings of every test: strict dtype promotion, and no test may leave a mark outside its own folder."""

import os
import tempfile

# Set before JAX is imported: an implicit int/float promotion is then an error instead of a silent widening.
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
# matplotlib draws to files only; no test may need a screen.
os.environ.setdefault("MPLBACKEND", "Agg")
# Data and targets are cached for this run alone: no test may pass, or fail, by what an earlier run left.
_cache = tempfile.TemporaryDirectory(prefix="lottery_jax-cache-")
os.environ.setdefault("LOTTERY_JAX_CACHE", _cache.name)

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a random target for the digits, small enough to be approximated at once."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("target") / "target.safetensors"
    first, second = (random.uniform(-0.2, 0.2, shape).astype(np.float32) for shape in ((4, 64), (10, 4)))
    save_file({"fc1.weight": first, "fc2.weight": second}, path)
    return path
