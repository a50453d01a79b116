"""`lottery-jax theory`: a row for each theorem and one for what is drawn here; what is refused."""

import json

import numpy as np
import pytest

from lottery_jax.constructions.pensia import Pensia
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.theory import THEOREMS, theorem_named
from tests.cli.calling import lottery_jax, own_data, refusal


def rows(capsys: pytest.CaptureFixture[str], *words: str | float) -> dict[str, dict]:
    assert lottery_jax("theory", *words, "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = [json.loads(line) for line in captured.out.splitlines()]
    return {row["theorem"]: row for row in found}


def test_a_row_for_each_theorem_and_one_for_ours(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--architecture", "fc2", "--tolerance", 0.01)
    assert list(found) == [*THEOREMS, "ours, n=21"]
    ours = found["ours, n=21"]
    assert ours["source_weights"] == 16_727_928 and ours["hidden"] == [784 * 42, 500 * 42]  # the README's table
    assert "52,989,552 weights" in ours["note"]  # 784^2 42 + 500^2 42 + 397,000 * 42
    network = architecture("fc2", Spec((28, 28, 1), True), 10)
    for name in THEOREMS:
        wanted = theorem_named(name).require(network, tolerance=0.01, delta=0.01)
        assert found[name]["source_weights"] == wanted.source_weights and found[name]["widest"] == wanted.widest
        assert found[name]["constant"] == wanted.constant and found[name]["origin"] == wanted.origin


def test_ours_is_the_constructions_own_source(capsys: pytest.CaptureFixture[str]) -> None:
    network = architecture("lenet5", Spec((28, 28, 1), True), 10)
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in network.tensors.items()}
    source = Pensia(13).source(Target(network, weights))
    ours = rows(capsys, "--candidates", 13)["ours, n=13"]
    assert ours["source_weights"] == source.source_weights and ours["depth"] == 10 and ours["covered"] == 5


def test_a_narrow_terminal_can_read_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "64")
    assert lottery_jax("theory", "--architecture", "lenet5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 64
    text = " ".join(line.strip() for line in lines)
    assert "61,706 weights to approximate; eps 0.01, delta 0.01" in text
    for name in THEOREMS:
        assert sum(line.split()[:1] == [name] for line in lines) == 1  # numbers
        assert sum(line.startswith(f"{name}: ") for line in lines) == 1  # words
    assert "C is not given in the paper; 6.51 is estimated here" in text
    assert "covers none of the layers (convolution, dense)" in text and "covers 3 of 5 layers" in text


def test_what_cannot_be_drawn_here_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--architecture", "conv2", "--data", "cifar10")["ours, n=21"]
    assert found["source_weights"] is None and "16384 inputs" in found["note"]


def test_data_of_ones_own_and_widths(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    own_data(tmp_path / "own.npz")
    found = rows(capsys, "--architecture", "mlp-6", "--width", 0.5, "--data", tmp_path / "own.npz")
    assert found["ours, n=21"]["hidden"] == [4 * 42, 3 * 42]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--tolerance", 1), "tolerance must be an error in (0, 1), got 1.0"),
        (("--delta", 0), "delta must be a failure probability in (0, 1), got 0.0"),
        (("--delta", "nan"), "delta must be a failure probability in (0, 1), got nan"),
        (("--architecture", "lenet-5"), "did you mean 'lenet5'?"),
        (("--architecture", "lenet5", "--data", "digits"), "Choose another architecture"),
        (("--data", "mnits"), "did you mean 'mnist'?"),
        (("--candidates", 0), "candidates must be from 1"),
        (("--width", 0), "width"),
    ],
)
def test_bad_input_is_one_sentence(words, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert named in refusal(capsys, 2, "theory", *words)
