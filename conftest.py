"""Settings of every test: strict dtype promotion, and no test may leave a mark outside its own folder."""

import io
import os
import tempfile
from pathlib import Path

# Set before JAX is imported: an implicit int/float promotion is then an error instead of a silent widening.
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
# matplotlib draws to files only; no test may need a screen.
os.environ.setdefault("MPLBACKEND", "Agg")
# Data and targets are cached for this run alone: no test may pass, or fail, by what an earlier run left. The workers of
# pytest-xdist inherit the folder from the process that starts them.
if "LOTTERY_JAX_CACHE" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="lottery_jax-cache-")
    os.environ["LOTTERY_JAX_CACHE"] = _cache.name
# Most of the time of a first run is compilation, and many tests compile the same programs, so all of them are kept, for
# the other worker, the processes that tests start, the other Python, and later runs. JAX finds a program by a digest of
# all that it depends on.
_compiled = Path(__file__).parent / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from lottery_jax.io.cache import processor

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_compiled / processor())
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Release compiled programs at the end of a folder: few serve the next one, and those of all take gigabytes."""
    if nextitem is not None and nextitem.path.parent != item.path.parent:
        jax.clear_caches()


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a random target for the digits, small enough to be approximated at once."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("target") / "target.safetensors"
    first, second = (random.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in ((4, 64), (10, 4)))
    save_file({"fc1.weight": first, "fc2.weight": second}, path)
    return path


@pytest.fixture
def plain_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed image for the figure of a report, which takes longer to draw than a small comparison to run."""
    drawn = io.BytesIO()
    Image.new("RGB", (8, 8)).save(drawn, "PNG")
    monkeypatch.setattr("lottery_jax.comparison.report.page.figure", lambda records, *, dark=False: drawn.getvalue())
