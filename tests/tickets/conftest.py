"""Tickets that hold, to be forged."""

from pathlib import Path

import pytest

from lottery_jax.approximation import approximate
from tests.tickets.forging import TARGET, TOLERANCE


@pytest.fixture(scope="package")
def honest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A ticket of each kind of source that holds."""
    folder = tmp_path_factory.mktemp("honest")
    for name in ("pensia", "scalar"):
        approximate(TARGET, seed=0, construction=name, candidates=9, tolerance=TOLERANCE).save(folder / name)
    return {path.name: path for path in folder.iterdir()}
