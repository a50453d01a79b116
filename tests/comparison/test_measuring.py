"""A ticket's file is measured as it is, and the collapsed form stands in where the random network is too slow."""

import re
from pathlib import Path

import numpy as np
import pytest

from lottery_jax.approximation.api import approximate
from lottery_jax.comparison.evaluate import describe, measure, output_bound, ticket_outputs
from lottery_jax.data import Split
from lottery_jax.errors import TicketError
from lottery_jax.tasks import Task
from lottery_jax.tickets.ticket import Ticket
from tests.comparison import tiny


@pytest.fixture(scope="module", params=[False, True], ids=["pixels", "signed"])
def made(request: pytest.FixtureRequest) -> tuple[Task, Ticket]:
    task = tiny.task(signed=request.param, examples=1300)
    return task, approximate(task.target, seed=0, candidates=8, tolerance=1.0)


def test_both_forms_agree_and_what_was_run_is_said(made: tuple[Task, Ticket]) -> None:
    task, ticket = made
    images = np.asarray(task.dataset.test.images)
    whole, said = ticket_outputs(ticket, images)
    assert said == "the random network on all 1,300 images"
    fast, said = ticket_outputs(ticket, images, max_seconds=1e-9)
    shown = re.fullmatch(
        r"its collapsed form on all 1,300 images, the random network on 1,000 of them; their outputs differ by at most"
        r" (\S+)",
        said,
    )
    assert shown  # two batches, whatever it takes
    difference = np.abs(whole - fast)
    assert difference[:1000].max() == pytest.approx(float(shown[1]), rel=0.05)
    assert whole.shape == fast.shape == (1300, 2) and difference.max() < 1e-5


def test_what_is_measured_is_the_file(made: tuple[Task, Ticket], tmp_path: Path) -> None:
    task, ticket = made
    size = ticket.save(tmp_path / "t")
    found = measure(tmp_path / "t", task, 0.9)
    assert (found.ticket_bytes, found.ticket.seed) == (size, 0)
    assert found.certificate.own_target is False and found.certificate.tolerance == 0.9
    logits = np.asarray(ticket.forward()(task.dataset.test.images))
    assert found.metrics.accuracy == np.mean(logits.argmax(1) == task.dataset.test.labels) > 0.8
    assert found.metrics.max_deviation == pytest.approx(np.abs(logits - task.test_outputs).max(), rel=1e-3)
    bound = output_bound(found, task)
    if task.dataset.nonnegative:
        assert bound is not None and found.metrics.max_deviation <= bound < 100
    else:  # these inputs are in no box that is known
        assert bound is None
    assert output_bound(measure(tmp_path / "t", task, 1e-9), task) is None, "of a ticket that does not hold"
    assert measure(tmp_path / "t", task).certificate.tolerance == 1.0  # what the ticket itself promises
    content = bytearray((tmp_path / "t").read_bytes())
    content[-1] ^= 1
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(TicketError):
        measure(tmp_path / "t", task)


def test_a_ticket_for_another_target_is_broken(made: tuple[Task, Ticket], tmp_path: Path) -> None:
    task, ticket = made
    ticket.save(tmp_path / "t")
    weights = {name: -value for name, value in task.target.arrays().items()}
    other = Task(task.name, task.dataset, type(task.target)(task.target.network, weights))
    assert measure(tmp_path / "t", task).certificate.outcome == "holds"
    assert measure(tmp_path / "t", other).certificate.outcome == "broken"


def test_a_ticket_that_promises_nothing_or_a_budget_is_asked_for_no_tolerance(tmp_path: Path) -> None:
    task = tiny.task()
    tiny.masked(task.target, 0.5, 0).save(tmp_path / "t")
    found = measure(tmp_path / "t", task, 0.1)
    assert found.certificate.outcome == "no guarantee" and found.certificate.tolerance is None
    for budget, outcome in ((tiny.WEIGHTS, "no guarantee"), (1, "broken")):
        tiny.masked(task.target, 0.5, 0, promise=True, kept_budget=budget).save(tmp_path / "b")
        found = measure(tmp_path / "b", task, 1e-9)
        assert (found.certificate.outcome, found.certificate.tolerance) == (outcome, 9.0)


def test_one_example_is_enough(made: tuple[Task, Ticket]) -> None:
    task, ticket = made
    split = Split(*(np.asarray(part)[:1] for part in (task.dataset.test.images, task.dataset.test.labels)))
    found, said = ticket_outputs(ticket, np.asarray(split.images), max_seconds=1e-9)
    assert found.shape == (1, 2) and said == "the random network on all 1 images"


def test_many_leaves_are_described_in_short() -> None:
    from lottery_jax.mask_learning.learner_sources import redundant_source
    from lottery_jax.networks.architectures import architecture
    from lottery_jax.networks.node import Spec

    words = describe(redundant_source(architecture("conv8", Spec((32, 32, 3)), 10)))
    assert words.startswith("11 gadget leaves: conv1 [64, 3, 3, 3, 5], ") and words.endswith(" and 3 more")
