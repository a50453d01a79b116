"""`lottery-jax compare`: registered methods and one's own on data of one's own, in a folder that one process holds."""

import json
from pathlib import Path

import pytest

from lottery_jax import compare, load_task
from lottery_jax.cli.compare import protocol_of
from lottery_jax.cli.main import parse
from lottery_jax.comparison.registry import all_methods
from lottery_jax.constructions.registry import CONSTRUCTIONS
from lottery_jax.io.locks import folder_lock
from lottery_jax.mask_learning.registry import LEARNERS, SOURCES
from lottery_jax.pruning import TRAINED
from tests.cli.calling import Word, lottery_jax, matrices, own_data, refusal

pytestmark = pytest.mark.usefixtures("plain_figure")

METHODS = ["dense", "pensia", "edge-popup-wide", "random"]
RECORD = {"method", "task", "seed", "keep", "accuracy", "target_accuracy", "agreement", "max_deviation", "outcome"}
RECORD |= {"source_weights", "kept_weights", "target_weights", "kept_per_target_weight", "within_tolerance"}
RECORD |= {"worst_residual", "ticket_bytes", "seconds", "device", "versions", "description_bits"}

MINE = '''
import dataclasses

import numpy as np

from lottery_jax.comparison.methods import Method
from lottery_jax.tickets.ticket import make_ticket


@dataclasses.dataclass(frozen=True)
class Mine(Method):
    """Keeps every n-th weight."""

    step: int = 2
    """Distance of the kept weights."""
    label = "mine"

    def find(self, context, seed, keeps):
        source = context.gadget_source
        masks = {
            name: np.arange(tensor.size).reshape(tensor.shape) % self.step == 0
            for name, tensor in source.random_tensors.items()
        }
        return [make_ticket(source, seed=seed, masks=masks, method="mine")]


@dataclasses.dataclass(frozen=True)
class Pensia(Mine):
    label = "pensia"


class Other:
    pass
'''


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> tuple[Word, ...]:
    """The options that name a small task."""
    folder = tmp_path_factory.mktemp("task")
    target = matrices(folder / "target.safetensors", **{"fc1.weight": (3, 4), "fc2.weight": (2, 3)})
    data = ("--data", own_data(folder / "mine.npz"), "--target", target)
    return (*data, "--tolerance", 0.2, "--candidates", 8, "--seeds", 0, "--keeps", 0.2, 0.5, "--epochs", 1)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "my_method.py"
    path.write_text(MINE)
    return path


def compared(capsys: pytest.CaptureFixture[str], *words: Word) -> list[dict]:
    assert lottery_jax("compare", *words, "--json") == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_it_prints_records_and_nothing_else_or_a_table(
    task: tuple[Word, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (*task, "--methods", *METHODS, "--out", tmp_path)
    records = compared(capsys, *asked)
    assert list(dict.fromkeys(record["method"] for record in records)) == METHODS
    assert all(record.keys() == records[0].keys() >= RECORD for record in records)
    assert len(records) == len(METHODS) + 1  # one sweeps over two keeps
    assert {record["task"] for record in records} == {"mine"}
    assert {record["target_weights"] for record in records} == {18}
    assert lottery_jax("compare", *asked) == 0
    text = capsys.readouterr().out
    assert all(method in text for method in METHODS)
    (folder,) = tmp_path.iterdir()
    assert f"report: {folder / 'report.html'}" in text.replace("\n", "")
    files = {"configuration.json", "figure.png", "records.jsonl", "report.html", "tickets"}
    assert {path.name for path in folder.iterdir()} == files
    assert compared(capsys, *asked) == records


def test_a_method_of_ones_own_stands_beside_the_others(
    task: tuple[Word, ...], mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (*task, "--methods", f"{mine}:Mine", "dense", "--out", tmp_path / "runs")
    dense, own = compared(capsys, *asked)
    assert (dense["method"], own["method"], own["outcome"]) == ("dense", "mine", "no guarantee")
    assert own["kept_weights"] == pytest.approx(own["source_weights"] / 2, abs=2)
    _, third = compared(capsys, *asked, "--mine.step", 3)
    assert third["kept_weights"] == pytest.approx(own["source_weights"] / 3, abs=3)
    found = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/configuration.json")]
    options = [each["options"]["mine"] for each in found]
    assert sorted(option.get("step", 2) for option in options) == [2, 3], "other options are another folder"
    mine.write_text(MINE + "\n# another version of the file is another method\n")
    compared(capsys, *asked)
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_python_makes_the_same_call(
    task: tuple[Word, ...], mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`compare` finds the records of the command, which are not computed again."""
    methods, out = ["scalar", f"{mine}:Mine"], tmp_path / "runs"
    options = ("--scalar.range", "model", "--mine.step", 3, "--out", out)
    records = compared(capsys, *task, "--methods", *methods, *options)
    data, _, target = (Path(str(word)) for word in task[1:4])
    settings = {"seeds": (0,), "keeps": (0.2, 0.5), "candidates": 8, "tolerance": 0.2, "epochs": 1, "out": out}
    given = {"scalar": {"range": "model"}, "mine": {"step": 3}}
    found = compare(load_task(str(data), target=target), methods, options=given, **settings)
    assert [json.loads(record.to_json()) for record in found] == records
    assert [path.name for path in out.iterdir()] == [found.folder.name]


def test_one_process_at_a_time_writes_into_a_folder(
    task: tuple[Word, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (*task, "--methods", "dense", "--out", tmp_path)
    compared(capsys, *asked)
    (folder,) = tmp_path.iterdir()
    with folder_lock(folder, "the run folder"):
        sentence = refusal(capsys, 2, "compare", *asked)
    assert f"the run folder {str(folder)!r} is in use by process " in sentence and " since " in sentence
    assert sentence.endswith("; wait for it, or choose another")
    assert len(compared(capsys, *asked)) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data mnits", "did you mean 'mnist'?"),
        ("--data nowhere.npz", "'nowhere.npz' does not exist"),
        ("--methods pensai", "did you mean 'pensia'?"),
        ("--methods nowhere.py:Mine", "'nowhere.py:Mine' names a file that does not exist"),
        ("--methods my_method.py:Yours", "'my_method.py' has no class Yours"),
        ("--methods my_method.py:Other", "is not a Method, Construction or Learner"),
        ("--methods my_method.py:Mine my_method.py:Mine", "has the name 'mine', which is taken"),
        ("--methods my_method.py:Pensia", "has the name 'pensia', which is taken"),
        ("--methods broken.py:Mine", "'broken.py' cannot be run (NameError: name 'nothing' is not defined)"),
        ("--methods scalar dense scalar", "methods must have different labels, got 'scalar' 2 times"),
        ("--tolerance 0", "tolerance"),
        ("--candidates 0", "candidates"),
        ("--keeps 1.5", "1.5"),
        ("--seeds -1", "-1"),
        ("--epochs 0", "epochs must be at least 1, got 0"),
        ("--target nowhere.safetensors", "nowhere.safetensors"),
        ("--out file/runs", "file/runs"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    arguments: str,
    words: str,
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.py").write_text("nothing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    before = sorted(tmp_path.rglob("*"))
    assert words in refusal(capsys, 2, "compare", *arguments.split())
    assert sorted(tmp_path.rglob("*")) == before


def test_without_names_the_usual_methods_are_compared() -> None:
    selection = protocol_of(parse(["compare"])).selection  # type: ignore[arg-type]
    methods, known, options = selection.methods, selection.known, selection.options
    is_default = [label for label, method in all_methods().items() if method.is_default]
    assert [method.label for method in methods] == is_default and set(is_default) < set(known) and options == {}
    constructed = {"pensia", "pensia-smallest", "pensia-loss-aware"}
    assert {"dense", *constructed, "edge-popup-gadget", "edge-popup-wide", "random"} == set(is_default)


def test_help_names_every_method_and_its_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert lottery_jax("compare", "--help") == 0
    text = capsys.readouterr().out
    parts = {*CONSTRUCTIONS, *LEARNERS, *TRAINED, *(f"-{source}" for source in SOURCES), "dense", "random", "-smallest"}
    assert all(part in text for part in parts)
    assert "--edge-popup.learning-rate" in text and "--scalar.range" in text


def test_trained_tickets_do_not_come_from_a_sparse_source(
    task: tuple[Word, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, 2, "compare", *task, "--methods", "magnitude", "--density", 0.5, "--out", tmp_path)
    assert "magnitude trains the weights of its own source" in said


@pytest.mark.slow
def test_constructed_learned_and_random_masks_share_a_sparse_folded_source(
    task: tuple[Word, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--density", 0.6, "--locked", 0.1, "--share-layers", "--out", tmp_path)
    methods = ("--methods", "pensia", "edge-popup-gadget", "edge-popup-wide", "random")
    assert lottery_jax("compare", *task, *methods, *options, "--json", "--quiet") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {record["method"]: record for record in records}
    assert len(found) == 4 and all(record["outcome"] != "broken" or name == "pensia" for name, record in found.items())
    assert found["random"]["kept_weights"] == found["pensia"]["kept_weights"]
    assert found["pensia"]["source_weights"] == found["edge-popup-gadget"]["source_weights"]
