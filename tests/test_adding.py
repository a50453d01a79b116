"""Layers, sources, constructions, learners, solvers of one's own, each one file and one line: all else takes them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lottery_jax import approximate, compare, load_ticket, verify
from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.cli import main
from lottery_jax.constructions import Scalar
from lottery_jax.constructions.registry import CONSTRUCTIONS
from lottery_jax.data import Dataset, Split
from lottery_jax.errors import TicketError
from lottery_jax.mask_learning.learner_sources import redundant_source, wide_source
from lottery_jax.mask_learning.registry import LEARNERS
from lottery_jax.networks.architectures import ARCHITECTURES, mlp
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.pooling import GlobalPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Spec
from lottery_jax.networks.registry import NODES
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler
from lottery_jax.subset_sum import Problem, solve
from lottery_jax.tasks import Task
from lottery_jax.tickets.export import export_weights
from lottery_jax.tickets.ticket import make_ticket
from lottery_jax.training.learner import TrainingRequest
from tests.adding.toy_construction import Normal
from tests.adding.toy_layer import Conv1d
from tests.adding.toy_learner import Scored
from tests.adding.toy_solver import Nearest
from tests.adding.toy_source import Halved
from tests.comparison import tiny

pytestmark = pytest.mark.usefixtures("plain_figure")

SETTINGS = {"seeds": (0,), "keeps": (0.5,), "candidates": 8, "tolerance": 1.0, "epochs": 2}
FILES = Path(__file__).parent / "adding"


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NODES, Conv1d.kind, Conv1d)


@pytest.fixture
def tokens() -> Task:
    """Sixty rows of six tokens of two numbers, of any sign, and a network of the new layers."""
    nodes = (("conv1", Conv1d(2, 3, bias=True)), ("relu", Relu()), ("conv2", Conv1d(3, 3, 5)))
    network = Network(Chain((*nodes, ("pool", GlobalPool()), ("head", Dense(3, 2)))), Spec((6, 2)))
    random = np.random.default_rng(0)
    arrays = {name: random.uniform(-1, 1, shape).astype(np.float32) for name, shape in network.tensors.items()}
    target = Target(network, arrays)  # type: ignore[arg-type]
    rows = random.normal(size=(60, 6, 2)).astype(np.float32)
    split = Split(rows, np.asarray(target.forward()(rows)).argmax(1).astype(np.int32))
    return Task("tokens", Dataset("tokens", split, split, split, 2, False), target)


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x [N, T, I] by weight [O, I, size] in NumPy, token by token."""
    half = weight.shape[2] // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (half, half), (0, 0)))
    windows = [np.einsum("nki,oik->no", padded[:, t : t + 2 * half + 1], weight) for t in range(x.shape[1])]
    return np.stack(windows, 1)


def test_a_layer_computes_what_it_says(tokens: Task) -> None:
    x, arrays = np.asarray(tokens.dataset.test.images), tokens.target.arrays()
    hidden = np.maximum(convolved(x, arrays["conv1.weight"]) + arrays["conv1.bias"], 0)
    wanted = convolved(hidden, arrays["conv2.weight"]).mean(1) @ arrays["head.weight"].T
    np.testing.assert_allclose(tokens.test_outputs, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("construction", ["scalar", "pensia"])
def test_a_layer_is_approximated_verified_saved_loaded_and_evaluated(
    construction: str, layer: None, tokens: Task, tmp_path: Path
) -> None:
    ticket = approximate(tokens.target, seed=0, construction=construction, candidates=8, tolerance=0.3)
    ticket.save(tmp_path / "t")
    again = load_ticket(tmp_path / "t")
    assert again.network == ticket.network and again.network.target == tokens.target.network
    found = verify(again, target=tokens.target)
    assert found.outcome == "holds" and found.target_weights == tokens.target.weights == 21 + 45 + 6
    made = load_exported(again, tmp_path / "w")
    assert max(np.abs(made[name] - value).max() for name, value in tokens.target.arrays().items()) <= 1.0
    x = np.asarray(tokens.dataset.test.images)
    difference = np.asarray(again.forward()(x)) - tokens.test_outputs
    assert 0 < np.abs(difference).mean() < np.abs(tokens.test_outputs).mean() / 2


def load_exported(ticket, path: Path) -> dict[str, np.ndarray]:
    export_weights(ticket, path)
    return load_file(path)


def test_without_its_line_in_the_registry_a_layer_is_unknown(tokens: Task, tmp_path: Path) -> None:
    approximate(tokens.target, seed=0, construction="scalar", candidates=8, tolerance=1.0).save(tmp_path / "t")
    with pytest.raises(TicketError, match="unknown kind 'conv1d'"):
        load_ticket(tmp_path / "t")


def test_masks_are_learned_on_the_sources_of_a_layer(layer: None, tokens: Task) -> None:
    source = redundant_source(tokens.target.network, copies=2)
    wide = wide_source(source)
    assert abs(wide.source_weights / source.source_weights - 1) < 0.3
    (ticket,) = Scored().learn(wide, TrainingRequest(tokens.dataset, seeds=[0], keeps=[0.5], epochs=1))
    assert np.isfinite(np.asarray(ticket.forward()(tokens.dataset.test.images))).all()


def test_a_construction_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(CONSTRUCTIONS, Normal.name, Normal)
    task = tiny.task()
    ticket = approximate(task.target, seed=1, construction="normal", candidates=8, tolerance=1.0, out=tmp_path / "t")
    assert verify(tmp_path / "t", target=task.target).samplers[0].startswith("N(0, ")
    for drawn in ticket.network.random_tensors.values():
        largest = np.abs(task.target.array(drawn_name(ticket, drawn))).max()
        assert drawn.sampler.scale == pytest.approx(0.5 * largest)
    records = compare(task, ["normal", "normal-smallest"], out=tmp_path, **SETTINGS)
    assert [(record.method, record.outcome) for record in records] == [
        ("normal", "holds"),
        ("normal-smallest", "holds"),
    ]
    assert records[0].kept_weights > records[1].kept_weights


def drawn_name(ticket, drawn) -> str:
    return next(name for name, other in ticket.network.random_tensors.items() if other is drawn)


def test_a_learner_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(LEARNERS, Scored.name, Scored)
    seen: list[tuple[int, int]] = []
    labels = ["scored-gadget", "scored-wide"]
    settings = {**SETTINGS, "keeps": (0.2, 0.5), "epochs": 20}
    records = compare(tiny.task(), labels, out=tmp_path, progress=lambda *done: seen.append(done), **settings)
    assert [(record.method, record.keep) for record in records] == [(label, k) for label in labels for k in (0.2, 0.5)]
    assert seen == [(1, 2), (2, 2)] * 2
    for record in records:
        assert record.outcome == "no guarantee"
        assert record.kept_weights == pytest.approx(record.keep * record.source_weights, abs=2)
    assert records[-1].accuracy > 0.8


def test_a_source_is_saved_verified_exported_and_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(NODES, Halved.kind, Halved)
    task = tiny.task(signed=True)
    uniform = Sampler.uniform(-1, 1)
    source = task.target.network.map_layers(lambda _, of: Halved(of, 3, uniform) if isinstance(of, LinearLayer) else of)
    masks = tiny.random_masks(source, 0.5, seed=2)
    made = make_ticket(source, seed=2, masks=masks, method="mine", target=task.target, tolerance=9.0)
    made.save(tmp_path / "t")
    ticket = load_ticket(tmp_path / "t")
    assert ticket.network == source and verify(tmp_path / "t", target=task.target).within_tolerance == tiny.WEIGHTS
    weights = load_exported(ticket, tmp_path / "w")
    for name, drawn in ticket.source().items():
        assert drawn.shape == (*task.target.array(name).shape, 3)
        np.testing.assert_allclose(weights[name], (masks[name] * drawn * [1, 0.5, 0.25]).sum(-1), rtol=1e-5, atol=1e-6)
    x = np.asarray(task.dataset.test.images)
    wanted = np.maximum(x.reshape(len(x), -1) @ weights["fc1.weight"].T, 0) @ weights["fc2.weight"].T
    np.testing.assert_allclose(ticket.forward()(x), wanted, rtol=1e-4, atol=1e-5)


def test_an_architecture_is_known_by_its_name(
    monkeypatch: pytest.MonkeyPatch, target: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def thin(given: Spec, classes: int, width: float) -> Network:
        return mlp((math.prod(given.shape), round(4 * width), classes), given)

    asked = ["approximate", "--target", str(target), "--construction", "scalar", "--candidates", "8"]
    asked += ["--tolerance", "0.2", "--out", str(tmp_path / "t"), "--architecture", "thin", "--json"]
    monkeypatch.setitem(ARCHITECTURES, "thin", thin)
    with pytest.raises(SystemExit, match="0"):
        main(asked)
    assert json.loads(capsys.readouterr().out)["outcome"] == "holds"
    with pytest.raises(SystemExit, match="2"):
        main([*asked, "--width", "2"])
    assert "must hold a thin: fc1.weight must be [8, 64], got [4, 64] (1 more)" in capsys.readouterr().err


def test_a_solver_answers_and_serves_constructions() -> None:
    random = np.random.default_rng(0)
    candidates, targets = (random.uniform(-1, 1, shape).astype(np.float32) for shape in ((30, 6), (30,)))
    found = solve(Problem(candidates, targets, 0.1), Nearest())
    best = np.minimum(np.abs(candidates - targets[:, None]).min(1), np.abs(targets))
    np.testing.assert_allclose(np.abs((found.subsets * candidates).sum(1) - targets), best, atol=1e-6)
    np.testing.assert_array_equal(found.within, best <= 0.1)
    assert found.sizes.max() == 1
    target = tiny.task().target
    ticket = run_in_memory(plan_job(target, Scalar(8), ToleranceObjective(0.5, solver=Nearest()), seed=0))
    assert verify(ticket, target=target).outcome == "holds" and ticket.kept_weights <= tiny.WEIGHTS
    assert ticket.header.settings["solver"] == "Nearest()"


def test_the_command_line_takes_the_files_as_they_are(
    target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a registry: FILE.py:CLASS, with the options of the class."""
    own = [f"{FILES / 'toy_construction.py'}:Normal", f"{FILES / 'toy_learner.py'}:Scored"]
    words = ["compare", "--methods", *own, "--target", str(target), "--candidates", "8", "--tolerance", "0.2"]
    words += ["--seeds", "0", "--keeps", "0.5", "--epochs", "1", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--normal.spread", "0.4", "--json"])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (ended.value.code, [record["method"] for record in records]) == (0, ["normal", "scored-wide"])
    (configuration,) = tmp_path.rglob("configuration.json")
    options = json.loads(configuration.read_text())["options"]
    assert options["normal"]["spread"] == 0.4 and set(options) == {"normal", "scored-wide"}
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--normal.spread" in text and "as a part of the largest" in text and "--scored.learning-rate" in text
