"""The methods are those of the registries, each runs, and one's own stand beside them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from lottery_jax.comparison.api import compare
from lottery_jax.comparison.budget_methods import BudgetMethod
from lottery_jax.comparison.methods import (
    ConstructionMethod,
    LearnerMethod,
    Method,
    MethodContext,
    MethodSelection,
)
from lottery_jax.comparison.protocol import Protocol
from lottery_jax.comparison.registry import all_methods, as_method, select_methods
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.constructions.registry import CONSTRUCTIONS
from lottery_jax.constructions.scalar import Scalar
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.registry import LEARNERS, SOURCES
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import BatchNorm, LayerNorm
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.pruning import TRAINED
from lottery_jax.tasks import Task
from lottery_jax.tickets.ticket import Ticket, load_ticket
from tests.comparison import tiny

pytestmark = pytest.mark.usefixtures("plain_figure")

SETTINGS = {"seeds": (0,), "keeps": (0.5,), "candidates": 8, "tolerance": 1.0, "epochs": 1}


def test_they_are_derived_from_the_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    def wanted() -> set[str]:
        constructed = {
            name + ("" if objective == "least-error" else f"-{objective}")
            for name, kind in CONSTRUCTIONS.items()
            for objective in kind.objectives
        }
        learned = {
            name if len(learner.sources) == 1 else f"{name}-{source}"
            for name, learner in LEARNERS.items()
            for source in learner.sources or SOURCES
        }
        budgeted = {
            f"{name}-{how}"
            for name, kind in CONSTRUCTIONS.items()
            if len(kind.objectives) > 1 and not kind.exact and not kind.replicates_neurons
            for how in ("budget", "loss-aware")
        }
        alone = {"dense", "random", "edge-popup-from-pensia", "target-pruned"}
        return alone | budgeted | constructed | learned | set(TRAINED)

    found = all_methods()
    assert set(found) == wanted() and all(method.label == label for label, method in found.items())

    @dataclasses.dataclass(frozen=True)
    class Another(Scalar):
        name: ClassVar[str] = "another"

    monkeypatch.setitem(CONSTRUCTIONS, "another", Another)
    monkeypatch.setitem(SOURCES, "same", lambda source: source)
    assert {"another", "another-smallest", "edge-popup-same"} <= set(all_methods()) == wanted()


def test_methods_come_after_those_they_build_on() -> None:
    order = list(all_methods())
    for place, method in enumerate(all_methods().values()):
        assert method.depends_on is None or order.index(method.depends_on) < place


SOME = {
    "target-pruned",
    "scalar",
    "scalar-smallest",
    "edge-popup-from-pensia",
    "magnitude",
    "magnitude-supermask",
}
"""Methods that have no others like them; all of them are run by the slow tests."""


@pytest.mark.parametrize("which", ["some", pytest.param("all", marks=pytest.mark.slow)])
def test_every_method_that_is_not_usual_runs(which: str, tmp_path: Path) -> None:
    """The usual ones do in the tests of the command line; learners of masks have a catalogue of their own."""
    labels = [label for label, method in all_methods().items() if not method.is_default]
    labels = [label for label in labels if not label.endswith(("-gadget", "-wide", "-plain"))]
    # Constructions for other networks, or for more candidates, have tests of their own.
    labels = [label for label in labels if not label.startswith(("dacunha", "ferbach", "otsuka", "kumar", "binary"))]
    labels = [label for label in labels if which == "all" or label in SOME]
    records = {record.method: record for record in compare(tiny.task(), labels, out=tmp_path, **SETTINGS)}
    assert list(records) == labels
    for label, record in records.items():
        suffixes = "-smallest", "-first", "-budget", "-loss-aware"
        constructed = label in {name + suffix for name in CONSTRUCTIONS for suffix in ("", *suffixes)}
        assert record.outcome == ("holds" if constructed else "no guarantee")
        assert record.trained == (label == "target-pruned" or (label in TRAINED and label != "magnitude-supermask"))
        assert record.evaluated == f"the {'trained' if record.trained else 'random'} network on all 40 images"
    assert records["scalar-smallest"].kept_weights < records["scalar"].kept_weights


def test_seeds_may_be_an_array(tmp_path: Path) -> None:
    records = compare(tiny.task(), ["random"], out=tmp_path, **{**SETTINGS, "seeds": np.arange(2)})
    assert [(record.seed, type(record.seed)) for record in records] == [(0, int), (1, int)]


def run_with(norm: Node, labels: list[str], out: Path) -> tuple[Task, dict[str, Ticket]]:
    """The tickets of these methods for a small network with a normalisation in it."""
    nodes = (("flatten", Flatten()), ("fc1", Dense(4, 3)), ("norm", norm), ("fc2", Dense(3, 2, bias=True)))
    task = tiny.task(network=Network(Chain(nodes), Spec((2, 2, 1), True)), examples=80)
    records = compare(task, labels, out=out, **SETTINGS)
    assert [record.method for record in records] == labels and records[0].agreement > 0.5
    return task, {path.name.split("-seed")[0]: load_ticket(path) for path in out.rglob("tickets/*")}


def test_batch_normalisations_are_folded_for_every_method(tmp_path: Path) -> None:
    _, tickets = run_with(BatchNorm(3), ["dense", "scalar"], tmp_path)
    assert tickets["scalar"].network.target.tensors.keys() == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}


def test_other_normalisations_are_stored(tmp_path: Path) -> None:
    task, tickets = run_with(LayerNorm(3), ["scalar", "edge-popup-wide"], tmp_path)
    for name in ("norm.weight", "norm.bias"):
        np.testing.assert_array_equal(tickets["scalar"].stored[name], task.target.array(name))
    wide = tickets["edge-popup-wide"]  # wider than the target: its normalisation is as before training
    units = wide.network.target.tensors["fc1.weight"][0]
    assert units > 3 and wide.stored["norm.weight"].tolist() == [1] * units


@dataclasses.dataclass(frozen=True)
class Thin(Method):
    """A method of the user's own: random masks of one density."""

    label: ClassVar[str] = "thin"  # type: ignore[misc]

    keep: float = 0.25
    """Kept fraction."""

    def find(self, context: MethodContext, seed: int, keeps: Sequence[float]) -> list[Ticket]:
        context.progress(1, 1)
        return [tiny.masked(context.target, self.keep, seed)]


def test_own_classes_and_objects_become_methods() -> None:
    assert as_method(Thin) == as_method(Thin()) == Thin() and as_method(Thin, {"keep": 0.5}) == Thin(0.5)
    assert as_method(Scalar) == ConstructionMethod(Scalar()) and as_method(Scalar(range="model")).label == "scalar"
    assert as_method(Scalar, candidates=8) == ConstructionMethod(Scalar(8))
    assert as_method(Scalar(4), candidates=8) == ConstructionMethod(Scalar(4))
    assert as_method(EdgePopup) == LearnerMethod(EdgePopup()) and as_method(EdgePopup()).label == "edge-popup-wide"
    for wrong in (int, 3, "pensia", Ticket, None):
        with pytest.raises(InputError, match=r"is not a Method, Construction or Learner\. Derive it from one of them"):
            as_method(wrong)


def test_a_class_that_leaves_something_open_is_refused() -> None:
    class Unfinished(Method):
        label = "unfinished"

    with pytest.raises(InputError, match="Unfinished does not define find"):
        as_method(Unfinished)


@pytest.mark.slow
def test_few_examples_are_one_batch(tmp_path: Path) -> None:
    records = compare(tiny.task(examples=12), ["edge-popup-wide"], out=tmp_path, **SETTINGS)
    assert records[0].kept_weights


def test_own_options_are_other_results_in_another_folder(tmp_path: Path) -> None:
    task, seen = tiny.task(), []

    def kept(*methods) -> list[int | None]:
        records = compare(task, methods, out=tmp_path, progress=lambda *done: seen.append(done), **SETTINGS)
        return [record.kept_weights for record in records]

    one, two = kept(Thin()), kept(Thin(keep=0.9))
    assert one[0] < two[0] and len(list(tmp_path.iterdir())) == 2
    assert kept("dense", Thin) == [None, *one] and len(seen) == 2, "found again, as class or object"
    assert kept(Scalar(range="model")) and kept("scalar") and len(list(tmp_path.iterdir())) == 4
    assert kept(Scalar(8)) == kept("scalar") and len(list(tmp_path.iterdir())) == 4, "with equal options it is the same"


def test_options_by_name_are_those_of_an_object(tmp_path: Path) -> None:
    selected = select_methods(["scalar", "edge-popup-wide"], {"scalar": {"range": "model"}, "edge-popup": {}})
    assert selected.methods[0] == ConstructionMethod(Scalar(range="model"))
    assert selected.options == {"scalar": {"range": "model"}}
    unchanged = select_methods(["scalar"], {"scalar": {"range": Scalar().range}})
    assert unchanged.options == {}, "a default is not another configuration"
    found = compare(tiny.task(), ["scalar"], options={"scalar": {"range": "model"}}, out=tmp_path, **SETTINGS)
    assert found.report == found.folder / "report.html" and found.report.exists() and found.missing == ()
    with pytest.raises(InputError, match=r"options must be of .*, got 'scalr'; did you mean 'scalar'\?"):
        select_methods(["scalar"], {"scalr": {}})


@pytest.mark.parametrize("kind", [ConstructionMethod, BudgetMethod])
def test_a_construction_keeps_the_candidates_that_it_was_given(kind: type, tmp_path: Path) -> None:
    """A name has those of the comparison; an object has its own, in the record, the ticket and the configuration."""
    label = kind(Scalar()).label
    for method, candidates in [(label, 8), (kind(Scalar(4)), 4)]:
        (record,) = compare(tiny.task(), [method], out=tmp_path / str(candidates), **SETTINGS)
        assert (record.method, record.source_weights) == (label, candidates * tiny.WEIGHTS)
        (path,) = (tmp_path / str(candidates)).rglob("tickets/*")
        assert load_ticket(path).header.settings["candidates"] == candidates
        (path,) = (tmp_path / str(candidates)).rglob("configuration.json")
        options = json.loads(path.read_text()).get("options", {})
        assert (f"Scalar(candidates={candidates}" in options.get(label, "")) == (method != label)


@pytest.mark.parametrize(
    ("methods", "times"),
    [
        (["scalar", Scalar(8), Scalar(16)], 3),
        (["dense", "scalar", "scalar"], 2),
        ([Scalar(8), Scalar(8)], 2),
        ([Scalar, "scalar"], 2),
    ],
)
def test_equal_labels_are_refused_before_anything_is_written(methods: list, times: int, tmp_path: Path) -> None:
    with pytest.raises(InputError) as said:
        compare(tiny.task(), methods, out=tmp_path / "runs", **SETTINGS)
    assert str(said.value).startswith(f"methods must have different labels, got 'scalar' {times} times. ")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="different labels, got 'scalar' 2 times"):
        Protocol(MethodSelection((ConstructionMethod(Scalar(8)), ConstructionMethod(Scalar(16)))))


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["pensai"], r"method 'pensai' is unknown; did you mean 'pensia'\?"),
        (["dense", int], "is not a Method, Construction or Learner"),
        ([Pensia, Thin, "thin2"], "method 'thin2' is unknown; did you mean 'thin'"),
    ],
)
def test_what_is_no_method_is_refused_before_anything_is_written(methods: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        compare(tiny.task(), methods, out=tmp_path / "runs", **SETTINGS)
    assert not list(tmp_path.iterdir())
