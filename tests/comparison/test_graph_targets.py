"""A comparison of an imported graph: methods of the target's width run, those of another width are named."""

import logging
from pathlib import Path

import numpy as np
import pytest

from lottery_jax import InputError, compare, target_from
from lottery_jax.comparison.registry import select_methods
from lottery_jax.data import load
from lottery_jax.tasks import Task


@pytest.fixture(scope="module")
def task() -> Task:
    random = np.random.default_rng(0)
    weights = {"up": random.normal(size=(64, 6)), "down": random.normal(size=(6, 10))}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    target = target_from(
        lambda p, x: np.tanh(1) * ((x.reshape(len(x), 64) @ p["up"]) ** 2 @ p["down"]),
        (1, 8, 8, 1),
        weights,
        nonnegative=True,
    )
    return Task("digits", load("digits"), target)


def test_the_default_methods_omit_wide_sources_with_a_line(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    everything = select_methods()
    with caplog.at_level(logging.WARNING, "lottery_jax"):
        fitting = everything.for_network(task.target.network)
    labels = [method.label for method in fitting.methods]
    assert [method.label for method in everything.methods if method.label not in labels] == ["edge-popup-wide"]
    assert "edge-popup-wide is omitted" in caplog.text and "edge-popup-plain" in caplog.text


def test_a_named_wide_method_is_refused_before_work_begins(task: Task, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 'edge-popup-wide'"):
        compare(task, ["pensia", "edge-popup-wide"], seeds=[0], out=tmp_path)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_the_others_run_on_a_graph(task: Task, tmp_path: Path) -> None:
    methods = ["dense", "scalar-smallest", "edge-popup-plain"]
    records = compare(task, methods, seeds=[0], keeps=[0.5], epochs=1, candidates=8, tolerance=0.5, out=tmp_path)
    assert [record.method for record in records] == methods
    assert all(record.outcome != "broken" for record in records)
