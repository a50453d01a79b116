"""`--quantise-target`: what is rounded is said in the ticket, and only the rounded target is met."""

from pathlib import Path

import pytest

from lottery_jax import load_ticket
from tests.cli.calling import answer, lottery_jax, matrices, refusal


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return matrices(tmp_path / "target.safetensors", **{"fc1.weight": (2, 64), "fc2.weight": (10, 2)})


def test_a_rounded_target_is_met_exactly_and_the_unrounded_one_is_not(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ticket"
    asked = ("approximate", "--target", target, "--construction", "kumar", "--kumar.bits", 4, "--candidates", 14)
    found = answer(capsys, *asked, "--quantise-target", 5, "--out", out)
    assert (found["worst_residual"], found["tolerance"], found["outcome"]) == (0.0, 0.0, "holds")
    assert found["agreement"] == 1.0, "the rounded target's outputs"
    notes = load_ticket(out).header.settings["quantised_target"]
    rounded = answer(capsys, "verify", out, "--target", target, "--quantise-target", 5)
    assert (rounded["outcome"], rounded["own_target"]) == ("holds", False)
    assert rounded["target_sha256"] == found["target_sha256"] != notes["of_target_sha256"] and notes["bits"] == 5
    for words in ((), ("--quantise-target", 6)):
        assert lottery_jax("verify", out, "--target", target, *words, "--quiet") == 1
        assert "target weights are not within 0" in capsys.readouterr().out
    sentence = refusal(capsys, 2, "verify", out, "--quantise-target", 5)
    assert "give it with --target" in sentence


def test_an_unrounded_target_is_refused(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("approximate", "--target", target, "--out", tmp_path / "t", "--quiet")
    assert "--quantise-target 8" in refusal(capsys, 2, *asked, "--construction", "kumar")
    assert "from 1 to 24" in refusal(capsys, 2, *asked, "--quantise-target", 0)
