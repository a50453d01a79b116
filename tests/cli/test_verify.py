"""`lottery-jax verify`: the four endings, and what its sentences name."""

import re
from pathlib import Path

import pytest

from lottery_jax import Ticket, approximate, import_target, load_ticket, verify
from lottery_jax.networks.node import Spec
from tests.cli.calling import MODEL, SMALL, answer, lottery_jax, matrices, refusal
from tests.comparison import tiny


@pytest.fixture(scope="module")
def ticket(target: Path) -> Path:
    path = target.with_name("ticket.safetensors")
    assert lottery_jax("approximate", "--target", target, *SMALL, "--out", path) == 0
    return path


def said(capsys: pytest.CaptureFixture[str], *words: str | Path | float) -> tuple[int, str]:
    code = lottery_jax("verify", *words)
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, " ".join(captured.out.split())


def test_a_ticket_that_holds_says_for_what(ticket: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, ticket, "--target", target)
    given = import_target(target, Spec((8, 8, 1), True), 10)
    found = verify(ticket, target=given)
    assert code == 0 and f"{ticket.stat().st_size:,} bytes, made by pensia from seed 0" in text
    assert f"{found.source_weights:,} random weights from U[-1, 1]; the masks keep {found.kept_weights:,}" in text
    assert f"Description length: {sum(found.description_bits.values()):,} bits" in text
    assert "296 of 296 target weights are within 0.2; the mean residual is" in text
    assert f"the worst {found.worst_residual:.3g} ({found.worst_tensor}[" in text
    assert f"{found.kept_weights / 296:.3f} random weights are kept per target weight" in text
    assert (
        f"weights moved by at most {found.float32_addition:.2g} more would compute ({found.float32_tensor}, 0.2 is"
        in text
    )
    assert f"On inputs from 0 to 1 no value is beyond {found.largest_value:.2g} ({found.largest_value_layer})." in text
    assert text.endswith(f"HOLDS for the target {given.digest[:16]}..., for inputs from 0 to 1.")


def test_a_target_inside_a_ticket_is_its_own_word(ticket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, ticket)
    assert code == 0 and "..., an unverified copy in the ticket, for inputs from 0 to 1." in text


def test_what_was_drawn_again_is_counted(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--target", target, "--construction", "scalar", "--candidates", 4, "--tolerance", 0.02)
    made = answer(capsys, "approximate", *asked, "--out", tmp_path / "t")
    ticket = load_ticket(tmp_path / "t")
    rows = [row for name in ticket.network.random_tensors for row in ticket.redraws(name)]
    blocks, attempt = len(rows), max(attempt for _, attempt in rows)
    assert (made["redrawn_blocks"], made["largest_attempt"]) == (blocks, attempt) and attempt > 1
    assert f"({blocks} redrawn blocks, at most {attempt} times each)." in said(capsys, tmp_path / "t")[1]


def test_another_target_or_a_smaller_tolerance_is_broken(
    ticket: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = matrices(tmp_path / "same.safetensors", **{"fc1.weight": (4, 64), "fc2.weight": (10, 4)})
    code, text = said(capsys, ticket, "--target", same)
    missed, digest = re.findall(r"BROKEN: (\d+) target weights are not within 0.2 \(the target (\w+)\.\.\.\)", text)[0]
    assert code == 1 and 0 < int(missed) < 296
    assert digest == import_target(same, Spec((8, 8, 1), True), 10).digest[:16]
    code, text = said(capsys, ticket, "--target", target, "--tolerance", 1e-6)
    assert code == 1 and "target weights are not within 1e-06 (the target" in text
    other = matrices(tmp_path / "other.safetensors", **{"fc1.weight": (5, 64), "fc2.weight": (10, 5)})
    code, text = said(capsys, ticket, "--target", other)
    assert code == 1 and "BROKEN: its network has other layers than this target" in text
    assert "tolerance" in refusal(capsys, 2, "verify", ticket, "--tolerance", "nan")


def test_a_model_is_held_to_its_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = matrices(tmp_path / "model.safetensors", a=(4, 18), b=(2, 9))
    assert lottery_jax("approximate", "--model", model, *MODEL, "--out", tmp_path / "t") == 0
    capsys.readouterr()
    code, text = said(capsys, tmp_path / "t", "--target", model)
    assert code == 0 and re.search(r"HOLDS for the target \w{16}\.\.\.\.$", text)
    lacking = matrices(tmp_path / "lacking.safetensors", a=(4, 18))
    assert "must hold b. Choose the file of the model." in refusal(
        capsys, 2, "verify", tmp_path / "t", "--target", lacking
    )


def without_target(path: Path, **more) -> Ticket:
    ticket = tiny.masked(tiny.task().target, 0.5, seed=4, **more)
    ticket.save(path)
    return ticket


def test_a_ticket_that_promises_nothing_has_a_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = without_target(tmp_path / "t")
    code, text = said(capsys, tmp_path / "t")
    assert code == 4 and "made by masked from seed 4; its checksums and its random weights are intact" in text
    assert text.endswith("NO GUARANTEE: the ticket contains no target to compare with.")
    assert lottery_jax("verify", tmp_path / "t", "--json") == 4
    captured = capsys.readouterr().out
    assert f'"kept_weights": {made.kept_weights}' in captured and '"worst_residual": null' in captured


def test_inputs_of_any_sign_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tiny.task(signed=True).target
    approximate(target, seed=0, candidates=8, tolerance=0.9).save(tmp_path / "t")
    code, text = said(capsys, tmp_path / "t")
    assert code == 0 and text.endswith("an unverified copy in the ticket, for inputs from -1 to 1.")


def damaged(content: bytes, how: str) -> bytes:
    return {
        "changed": content[:-1] + bytes([content[-1] ^ 1]),
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "foreign": b"\x89PNG" + bytes(100),
    }[how]


@pytest.mark.parametrize("how", ["changed", "truncated", "empty", "foreign"])
def test_a_damaged_ticket_is_bad_input_because_no_verdict_was_reached(
    how: str, ticket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damaged(ticket.read_bytes(), how))
    assert str(path) in refusal(capsys, 2, "verify", path)


def test_files_that_are_not_there_are_bad_input(
    ticket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere.safetensors"
    assert str(nowhere) in refusal(capsys, 2, "verify", nowhere)
    assert str(nowhere) in refusal(capsys, 2, "verify", ticket, "--target", nowhere)


def test_outputs_are_bounded_on_a_box(ticket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "verify", ticket, "--box", 0, 1)
    assert found["box"] == [0, 1] and 0 < found["output_searched"] <= found["output_bound"]
    assert found["output_bound"] <= min(found["output_bound_by_intervals"], found["output_bound_by_lines"])
    assert found["output_bound_by_intervals"] <= found["output_promised"]
    assert (
        found["output_promised"]
        < answer(capsys, "verify", ticket, "--box", 0, 1, "--tolerance", 0.3)["output_promised"]
    )
    code, text = said(capsys, ticket, "--box", 0, 1)
    assert code == 0 and f"On all inputs from 0 to 1, |f - g| is at most {found['output_bound']:.3g}" in text
    assert f"of each weight has |f - g| at most {found['output_promised']:.3g}." in text
    assert "box must be 0 or more" in refusal(capsys, 2, "verify", ticket, "--box", -1, 1)
