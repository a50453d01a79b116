"""`lottery-jax approximate`: what it prints, what it leaves, and how it goes on."""

import dataclasses
import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lottery_jax import export_target, load_ticket
from lottery_jax.approximation import run
from lottery_jax.approximation.tolerance import ToleranceObjective
from lottery_jax.constructions.registry import CONSTRUCTIONS
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.tickets.verify import verify
from tests.cli.calling import MODEL, SMALL, Word, answer, as_process, lottery_jax, matrices, own_data, refusal


def test_it_prints_what_the_verifier_finds_in_the_file(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "ticket.safetensors"
    found = answer(capsys, "approximate", "--target", target, *SMALL, "--out", out)
    verified = answer(capsys, "verify", out, "--target", target)
    assert verified.pop("taken_from_ticket") == ["inputs [8, 8, 1] that are never negative"]
    assert {name: found[name] for name in verified} == verified
    assert verified["outcome"] == "holds" and not verified["own_target"]
    assert verified["within_tolerance"] == verified["target_weights"] == 64 * 4 + 4 * 10
    assert 0 <= verified["worst_residual"] <= 0.2 and verified["ticket_bytes"] == out.stat().st_size
    assert found["seconds"] == pytest.approx(found["search_seconds"] + found["compilation_seconds"])
    assert "fc1.weight [4, 64]" in verified["network"] and "[out, in]" in verified["network"]
    assert "inputs [8, 8, 1] never negative" in verified["network"]
    assert found["agreement"] > 0.5 and found["evaluated"].startswith("the random network on all")
    content = out.read_bytes()
    assert lottery_jax("approximate", "--target", target, *SMALL, "--out", out) == 0
    text = capsys.readouterr().out
    assert "0 weights were solved" in text and "(296 were solved earlier)" in text
    assert f"HOLDS for the target {found['target_sha256'][:16]}..." in text and "Test accuracy" in text
    out.unlink()
    assert lottery_jax("approximate", "--target", target, *SMALL, "--out", out) == 0
    assert out.read_bytes() == content and list(out.parent.iterdir()) == [out]


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with conv2 for the digits, at a small width."""
    network = architecture("conv2", Spec((8, 8, 1), True), 10, width=0.03)
    random = np.random.default_rng(0)
    arrays = {name: random.uniform(-0.5, 0.5, shape).astype(np.float32) for name, shape in network.tensors.items()}
    path = tmp_path_factory.mktemp("target") / "conv2.safetensors"
    export_target(Target(network, arrays), path)  # type: ignore[arg-type]
    return path


def test_an_architecture_is_guessed_or_named(
    convolutions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("approximate", "--target", convolutions, *SMALL, "--construction", "scalar", "--out", tmp_path / "t")
    guessed = answer(capsys, *asked)
    assert guessed["outcome"] == "holds" and guessed["solved_weights"] == guessed["target_weights"]
    named = answer(capsys, *asked, "--architecture", "conv2", "--width", 0.03)
    assert named["found_weights"] == guessed["target_weights"], "it is the same ticket"
    wrong = refusal(capsys, 2, *asked, "--architecture", "conv2", "--width", 0.05)
    assert "must hold a conv2: conv1.weight must be [3, 1, 3, 3], got [2, 1, 3, 3] (4 more)" in wrong


@pytest.mark.slow
def test_a_network_is_trained_on_data_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--data", own_data(tmp_path / "mine.npz"), "--architecture", "mlp-3", "--out", tmp_path / "t")
    found = answer(capsys, "approximate", *asked, "--construction", "scalar", "--candidates", 12)
    assert (found["task"], found["target_weights"], found["outcome"]) == ("mine", 18, "holds")
    assert "on all 10 images" in found["evaluated"]


def test_the_options_of_constructions_are_their_fields(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as wide:
        wide.setenv("COLUMNS", "1000")
        assert lottery_jax("approximate", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, kind in CONSTRUCTIONS.items():
        for field in dataclasses.fields(kind):
            shown = field.name != "candidates" and name != "scalar-shared"  # whose options are those of scalar
            assert (f"--{name}.{field.name}" in text) == shown
    assert "scalar-shared: range, spread of scalar." in text
    assert "[min w, max w] over all weights, as published" in text
    asked = ("--target", target, *SMALL, "--construction", "scalar", "--out", tmp_path / "t")
    assert len(answer(capsys, "approximate", *asked)["samplers"]) == 2
    assert len(answer(capsys, "approximate", *asked, "--scalar.range", "model", "--force")["samplers"]) == 1
    assert lottery_jax("approximate", *asked, "--scalar.range", "some") == 2
    assert "--scalar.range" in capsys.readouterr().err


def test_a_model_is_approximated_tensor_by_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random, out, model = np.random.default_rng(0), tmp_path / "new" / "ticket.safetensors", tmp_path / "m.safetensors"
    named = {"conv.weight": random.normal(size=(4, 2, 3, 3)).astype(np.float16), "conv.bias": np.ones(4, np.float32)}
    save_file(named, model)
    asked = ("--model", model, *MODEL, "--out", out)
    found = answer(capsys, "approximate", *asked)
    assert (found["within_tolerance"], found["solved_weights"], found["found_weights"]) == (72, 72, 0)
    assert found["skipped"] == {"conv.bias": "it is 1-D"} and found["worst_tensor"] == "conv.weight"
    assert found["kept_by_tensor"] == {"conv.weight": found["kept_weights"]} and found["source_weights"] == 72 * 8
    verified = answer(capsys, "verify", out, "--target", model)
    assert verified.pop("taken_from_ticket") == ["the choice of 1 tensors of the model"]
    assert {name: found[name] for name in verified} == verified and "accuracy" not in found
    assert lottery_jax("approximate", *asked) == 0  # the ticket is there: nothing is solved
    text = capsys.readouterr().out
    assert "skipped conv.bias: it is 1-D" in text and "0 weights were solved" in text
    assert "72 of 72 target weights are within 0.5" in text and "(conv.weight[" in text
    assert lottery_jax("approximate", *asked, "--pattern", "*.bias", "--seed", 1, "--force") == 0
    assert "4 of 4 target weights" in capsys.readouterr().out


def test_a_budget_takes_the_place_of_the_tolerance(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, residuals = tmp_path / "ticket.safetensors", {}
    asked = ("--target", target, "--candidates", 8, "--construction", "scalar", "--kept", 200, "--out", out)
    for importance in ("uniform", "fisher"):
        assert lottery_jax("approximate", *asked, "--importance", importance, "--force") == 0
        assert "The budget is 200 kept weights" in capsys.readouterr().out
        found = answer(capsys, "verify", out, "--target", target)
        assert (found["kept_weights"], found["kept_budget"], found["outcome"]) == (200, 200, "holds")
        residuals[importance] = found["mean_residual"]
    assert residuals["uniform"] < residuals["fisher"]  # Fisher information cares less for the plain residuals


def test_a_file_that_is_there_is_only_replaced_if_asked_and_by_a_ticket_that_holds(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ticket.safetensors"
    asked = ("approximate", "--target", target, *SMALL, "--out", out)
    assert lottery_jax(*asked) == 0
    good = out.read_bytes()
    capsys.readouterr()
    assert "replace it with --force" in refusal(capsys, 2, *asked, "--seed", 1)
    assert lottery_jax(*asked, "--tolerance", 1e-6, "--force") == 1
    captured = capsys.readouterr()
    assert "is unchanged" in captured.err and "ticket.broken.safetensors: " in captured.out
    assert out.read_bytes() == good and verify(tmp_path / "ticket.broken.safetensors").outcome == "broken"
    assert lottery_jax(*asked, "--seed", 1, "--force") == 0
    assert out.read_bytes() != good and list(tmp_path.glob("*.chunks")) == []


@pytest.mark.slow
def test_many_candidates_are_said_to_take_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "_LONG", 0.0)
    model = matrices(tmp_path / "model.safetensors", w=(2, 5))
    asked = ("approximate", "--model", model, "--tolerance", 0.5, "--out")
    assert lottery_jax(*asked, tmp_path / "few", "--candidates", 24) == 0
    assert capsys.readouterr().err == ""
    assert lottery_jax(*asked, tmp_path / "many", "--candidates", 25) == 0
    assert re.search(r"25 candidates for each of 10 weights: the search takes about 1 min", capsys.readouterr().err)


def test_a_sparse_target_s_loss_aware_ticket_is_one_command(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--target", target, "--candidates", 8, "--construction", "scalar", "--kept", 60, "--loss-aware")
    asked += ("--examples", 50, "--prune-target", 80, "--prune-epochs", 1, "--out", tmp_path / "t")
    found = answer(capsys, "approximate", *asked)
    ticket = load_ticket(tmp_path / "t")
    assert (found["outcome"], found["method"], found["kept_budget"]) == ("no guarantee", "scalar-loss-aware", 60)
    assert 50 < found["kept_weights"] <= 60
    weights = [ticket.target.array(name) for name in ticket.network.approximated]  # type: ignore[union-attr]
    assert sum(np.count_nonzero(value) for value in weights) == 80
    settings = ticket.header.settings
    assert settings["sparse_target"]["kept"] == 80 and settings["examples"] == 50
    content = (tmp_path / "t").read_bytes()
    (tmp_path / "t").unlink()
    assert answer(capsys, "approximate", *asked)["kept_weights"] == found["kept_weights"]
    assert (tmp_path / "t").read_bytes() == content


def test_a_promise_that_is_not_kept_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = matrices(tmp_path / "model.safetensors", w=(4, 18))
    asked = ("--model", model, "--candidates", 8, "--tolerance", 1e-7, "--out", tmp_path / "ticket")
    assert lottery_jax("approximate", *asked) == 1
    assert "target weights are not within 1e-07" in capsys.readouterr().out.split("BROKEN: ")[1]
    assert (tmp_path / "ticket").exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Past the first check, which writes 64 KiB, but not enough for the bits of 75,000 weights."""
    model = matrices(tmp_path / "model.safetensors", w=(300, 250))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
    try:
        assert "free some space" in refusal(capsys, 2, "approximate", "--model", model, *MODEL, "--out", tmp_path / "t")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [model]


def three_chunks(folder: Path) -> tuple[Word, ...]:
    """A command for a model of three tensors, a chunk of 100 weights for each."""
    model = matrices(folder / "model.safetensors", a=(10, 10), b=(10, 10), c=(10, 10))
    return "approximate", "--model", model, *MODEL, "--out", folder / "t"


def test_an_interrupt_is_130_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, solve = three_chunks(tmp_path), ToleranceObjective.solve_chunk

    def interrupted(objective, job, chunk):
        if chunk.number == 2:
            raise KeyboardInterrupt
        return solve(objective, job, chunk)

    with monkeypatch.context() as patched:
        patched.setattr(ToleranceObjective, "solve_chunk", interrupted)
        assert "resumes from there" in refusal(capsys, 130, *asked)
    chunk, _ = sorted((tmp_path / "t.chunks").glob("chunk-*"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert lottery_jax(*asked, "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["found_weights"], found["solved_weights"]) == (100, 200)
    assert chunk.name in captured.err and "this chunk is solved again" in captured.err
    content = (tmp_path / "t").read_bytes()
    (tmp_path / "t").unlink()
    assert answer(capsys, *asked)["solved_weights"] == 300
    assert (tmp_path / "t").read_bytes() == content and not (tmp_path / "t.chunks").exists()


@pytest.mark.clock
def test_what_a_killed_process_finished_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = {f"layer{place:03d}": (8, 8) for place in range(150)}
    model, chunks = matrices(tmp_path / "model.safetensors", **shapes), tmp_path / "t.chunks"
    asked = ("approximate", "--model", model, *MODEL, "--out", tmp_path / "t")
    command = [sys.executable, "-m", "lottery_jax", *map(str, asked)]
    with subprocess.Popen(command, env=as_process(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as killed:
        end = time.monotonic() + 100
        while len(list(chunks.glob("chunk-*"))) < 3:
            assert time.monotonic() < end and killed.poll() is None, killed.communicate()
            time.sleep(0.001)
        killed.send_signal(signal.SIGSTOP)  # it holds the folder, and does not end meanwhile
        sentence = refusal(capsys, 2, *asked)
        assert f"in use by process {killed.pid} on " in sentence and "(__main__.py approximate --model" in sentence
        killed.kill()
    found = answer(capsys, *asked)
    assert found["found_weights"] >= 3 * 64 and found["found_weights"] + found["solved_weights"] == 150 * 64
    content = (tmp_path / "t").read_bytes()
    (tmp_path / "t").unlink()
    assert answer(capsys, *asked)["solved_weights"] == 150 * 64
    assert (tmp_path / "t").read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data digit", "did you mean 'digits'?"),
        ("--construction pensja", "did you mean 'pensia'?"),
        ("--objective least", "least"),
        ("--tolerance nan", "nan"),
        ("--candidates -1", "-1"),
        ("--architecture lenet-5", "did you mean 'lenet5'?"),
        ("--loss-aware", "loss_aware needs a budget of kept weights"),
        ("--loss-aware --kept 0", "kept must be at least 1 for a loss-aware ticket, got 0"),
        ("--loss-aware --kept 9 --importance fisher", "takes no importance"),
        ("--loss-aware --kept 9 --examples 0", "examples must be 1 or more, got 0"),
        ("--loss-aware --kept 9 --damping -1", "damping must be a number from 0 up, got -1.0"),
        ("--loss-aware --kept 9 --construction burkholz", "copies that are added up"),
        ("--kept 9 --examples 50", "examples is an option of loss_aware"),
        ("--prune-target 0", "prune_target must be 1 or more, got 0"),
        ("--prune-target 9 --prune-epochs 0", "epochs` must be a whole number from 1 up, got 0"),
        ("--width 0", "width must be a positive number, got 0.0"),
        ("--kept -1", "-1"),
        ("--kept 5 --objective smallest", "kept cannot be combined with objective 'smallest'"),
        ("--kept 5 --tolerance 0.1", "kept cannot be combined with tolerance 0.1"),
        ("--prune-epochs 3", "prune_epochs is an option of prune_target"),
        ("--lossless --construction scalar --tolerance 0.1", "lossless cannot be combined with tolerance 0.1"),
        (
            "--lossless --construction scalar --candidates 21",
            "candidates must be above 21 for a lossless ticket, got 21",
        ),
        ("--kept 5 --importance fischer", "did you mean 'fisher'?"),
        ("--kept 5 --candidates 41", "41"),
        ("--importance fisher", "as kept"),
        ("--seed -1", "-1"),
        ("--target nowhere.safetensors", "nowhere.safetensors"),
        ("--target nan.safetensors", "fc1.weight"),
        ("--target shape.safetensors", "maps 63 inputs to 10 classes"),
        ("--target small.safetensors --data mnist.npz", "'mnist.npz' does not exist"),
        ("--out file/ticket.safetensors", "file"),
        ("--out folder", "is a folder"),
        ("--target small.safetensors --out small.safetensors", "own file"),
        ("--pattern *.weight", "--model"),
        ("--model nowhere.safetensors", "nowhere.safetensors"),
        ("--model file", "not a readable safetensors file"),
        ("--model nan.safetensors", "fc1.weight"),
        ("--model shape.safetensors --pattern *.bias", "'*.bias'"),
        ("--model shape.safetensors --construction pensia", "use scalar"),
        ("--model shape.safetensors --target shape.safetensors", "--target"),
        ("--model shape.safetensors --data mnist", "--data"),
        ("--model shape.safetensors --architecture fc2", "--architecture"),
        ("--model shape.safetensors --kept 5 --importance fisher", "--importance"),
        ("--model shape.safetensors --out folder", "folder"),
        ("--model shape.safetensors --out shape.safetensors", "own file"),
        ("--model shape.safetensors --out file/ticket", "file"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    arguments: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    last = np.ones((10, 4), np.float32)
    firsts = {"nan": np.full((4, 64), np.nan), "shape": np.ones((4, 63)), "small": np.ones((4, 64))}
    for name, first in firsts.items():
        save_file({"fc1.weight": first.astype(np.float32), "fc2.weight": last}, tmp_path / f"{name}.safetensors")
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")}
    monkeypatch.chdir(tmp_path)
    assert words in refusal(capsys, 2, "approximate", *arguments.split())
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_the_ticket_says_how_it_was_made(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--target", target, *SMALL, "--objective", "smallest", "--seed", 7, "--out", tmp_path / "t")
    answer(capsys, "approximate", *asked)
    header = load_ticket(tmp_path / "t").header
    assert (header.method, header.seed, header.tolerance) == ("pensia-smallest", 7, 0.2)
    assert (header.settings["candidates"], header.settings["objective"]) == (8, "smallest")


def test_outputs_may_be_asked_for(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--target", target, *SMALL, "--out", tmp_path / "t")
    answer(capsys, "approximate", *asked, "--output-tolerance", 3)
    found = answer(capsys, "verify", tmp_path / "t", "--target", target, "--box", 0, 1)
    assert found["holds"] and found["output_bound"] <= 3
    assert "give output_tolerance too" in refusal(capsys, 2, "approximate", *asked, "--box", 0, 1)
    both = ("--target", target, "--out", tmp_path / "t", "--kept", 5, "--output-tolerance", 3)
    assert "kept cannot be combined with output_tolerance 3.0" in refusal(capsys, 2, "approximate", *both)


@pytest.mark.slow
def test_sparse_and_folded_sources_are_the_tickets_own_word(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ticket.safetensors"
    options = ("--construction", "scalar", "--density", 0.6, "--locked", 0.1, "--share-layers", "--tolerance", 0.2)
    found = answer(capsys, "approximate", "--target", target, *options, "--candidates", 12, "--out", out)
    verified = answer(capsys, "verify", out, "--target", target)
    assert verified["outcome"] == "holds" and {name: found[name] for name in verified} == verified
    assert verified["source_weights"] == 64 * 4 * 12  # the larger layer's
    assert all("0.4 of them absent, 0.1 of them always kept" in sampler for sampler in verified["samplers"])
    said = refusal(capsys, 2, "approximate", "--target", target, "--density", 2, "--out", tmp_path / "other")
    assert "the density is 2.0" in said
    locked = ("--density", 0.5, "--locked", 0.6)
    said = refusal(capsys, 2, "approximate", "--target", target, *locked, "--out", tmp_path / "other")
    assert "from 0 to the density 0.5, not 0.6" in said
