"""Comparisons of a regression, of several labels and of a user's loss: metric, records, table, report and checks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score

from lottery_jax import Task, compare
from lottery_jax.comparison.records import Record
from lottery_jax.comparison.report.summary import rows, tables
from lottery_jax.data import Dataset
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.tasks.task import Recipe, train_target
from lottery_jax.tickets.ticket import load_ticket
from lottery_jax.training.losses import DEFAULT_LOSS, TaskLoss
from tests.comparison.tiny import task as tiny_task


def sine() -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(-3, 3, 600)
    return np.stack([x, np.ones_like(x)], 1), np.sin(x)  # a constant input, because the network has no biases


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_diabetes(return_X_y=True)
    return np.concatenate([20 * np.asarray(x), np.ones((len(x), 1))], 1), (y - np.mean(y)) / np.std(y)


METHODS = ["dense", "pensia", "pensia-loss-aware", "edge-popup-wide", "magnitude"]


@pytest.mark.parametrize(("read", "least"), [(sine, 0.95), (diabetes, 0.2)])
def test_regression_from_arrays(read: Callable, least: float, tmp_path: Path) -> None:
    x, y = read()
    data = Dataset.from_arrays(x.astype(np.float32), y.astype(np.float32), name=read.__name__)
    network = architecture("mlp-16", Spec(data.shape), data.classes)
    target = train_target(network, data, Recipe(60, 32, 1e-2), seed=0, cache_dir=tmp_path)
    task = Task(data.name, data, target)
    found = compare(task, METHODS, seeds=[0], keeps=[0.3], epochs=30, out=tmp_path)

    by_method = {record.method: record for record in found}
    assert set(by_method) == set(METHODS) and not found.faults
    labels, of_target = np.asarray(data.test.labels), task.test_outputs
    for method, record in by_method.items():
        assert record.metric == "R^2" and record.accuracy is record.agreement is None
        assert record.loss == {"loss": "squared error", "metric": "R^2"}
        outputs = of_target
        if method != "dense":
            (path,) = found.folder.glob(f"tickets/{method}-seed0*")
            outputs = np.asarray(load_ticket(path).forward()(data.test.images))
        assert record.metric_value == pytest.approx(r2_score(labels, outputs), abs=1e-4)
        assert record.rms_deviation == pytest.approx(float(np.sqrt(np.mean((outputs - of_target) ** 2))), abs=1e-5)
        assert record.target_metric_value == by_method["dense"].metric_value
    values: dict[str, Any] = {method: record.metric_value for method, record in by_method.items()}
    assert all(values[method] > least for method in ("dense", "pensia", "pensia-loss-aware"))
    assert values["edge-popup-wide"] > least - 0.2 and values["magnitude"] > 0.1
    assert abs(values["pensia"] - values["dense"]) < 0.01 and by_method["pensia"].outcome == "holds"
    headings = [column.header for table in tables(found, width=500) for column in table.columns]
    assert "R^2" in headings and not any("accuracy" in str(each) or "agree" in str(each) for each in headings)
    assert "R^2" in (found.folder / "report.html").read_text()
    assert not compare(task, METHODS, seeds=[0], keeps=[0.3], epochs=30, out=tmp_path, check=True).faults


def squared_margin(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.square(outputs - jax.nn.one_hot(labels, outputs.shape[-1]))


def negative_error(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    return -jnp.mean(squared_margin(outputs, labels))


def test_a_loss_and_metric_of_the_user_choose_records_folder_and_learning_rate(tmp_path: Path) -> None:
    task, learner, folders = tiny_task(), EdgePopup(batch_size=8), set()
    for loss in (DEFAULT_LOSS, TaskLoss(squared_margin), TaskLoss(squared_margin, negative_error)):
        own = Task(task.name, task.dataset, task.target, loss)
        found = compare(own, [learner], seeds=[0], keeps=[0.5], epochs=3, tune=[0.1, 1, 10], out=tmp_path)
        (record,) = found
        folders.add(found.folder)
        assert Record.from_json(record.to_json()) == record
        line = (found.folder / "records.jsonl").read_text()
        if loss == DEFAULT_LOSS:  # as earlier versions wrote it
            assert '"metric' not in line and '"loss"' not in line and '"rms' not in line
            continue
        assert record.loss is not None and record.loss["loss"].startswith(f"{__name__}.squared_margin ")
        if loss.metric is None:
            assert record.accuracy is not None and record.metric is None
            continue
        assert record.accuracy is None and record.metric == "negative_error"
        outputs = np.asarray(load_ticket(next(found.folder.glob("tickets/*"))).forward()(task.dataset.test.images))
        assert record.metric_value == pytest.approx(float(negative_error(outputs, task.dataset.test.labels)), rel=1e-5)
    assert len(folders) == 3


def test_several_labels_are_compared_by_the_accuracy_of_each(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    data = Dataset.from_arrays(x, x[:, :2] > 0, name="signs")
    network = architecture("mlp-8", Spec(data.shape), 2)
    target = train_target(network, data, Recipe(20, 20, 1e-2), seed=0, cache_dir=tmp_path)
    found = compare(Task("signs", data, target), ["dense", "pensia-loss-aware"], seeds=[0], keeps=[0.3], out=tmp_path)
    for record in found:
        assert record.metric == "label accuracy" and record.metric_value is not None and record.metric_value > 0.85
    assert [row.mean("metric_value") for row in rows(found)] == [record.metric_value for record in found]
