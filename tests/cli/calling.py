"""Commands in this process, so that all of them share compiled programs; and files that they take."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lottery_jax.cli import main

SMALL = ("--candidates", 8, "--tolerance", 0.2)
"""Enough candidates for a target with weights up to 0.5."""
MODEL = ("--candidates", 8, "--tolerance", 0.5)
"""For normal weights."""
Word = str | Path | float


def lottery_jax(*words: Word) -> int:
    """Run a command; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def answer(capsys: pytest.CaptureFixture[str], *words: Word) -> dict:
    """What a command that succeeds prints with --json."""
    assert lottery_jax(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], code: int, *words: Word) -> str:
    """The one sentence of a command that refuses with an exit code, and prints nothing else."""
    assert lottery_jax(*words) == code
    captured = capsys.readouterr()
    (sentence,) = captured.err.splitlines()
    assert captured.out == "" and sentence.startswith("lottery-jax: ")
    return sentence.removeprefix("lottery-jax: ")


def matrices(path: Path, **shapes: tuple[int, ...]) -> Path:
    """A file with normal weights of these shapes, float32."""
    random = np.random.default_rng(0)
    save_file({name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}, path)
    return path


def own_data(path: Path) -> Path:
    """A data set of a hundred images [2, 2, 1] in two classes."""
    random = np.random.default_rng(0)
    images = random.random((100, 2, 2, 1), np.float32)
    np.savez(path, images=images, labels=(images[:, 0, 1, 0] > 0.5).astype(np.int64))
    return path


def as_process() -> dict[str, str]:
    """The environment in which a process finds the copy of the package beside these tests."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"}
