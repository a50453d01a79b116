"""Forged and mutated tickets with valid digests: never a wrong "holds", never a traceback (tests/fuzz)."""

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lottery_jax.tickets.ticket import load_ticket
from lottery_jax.tickets.verify import verify
from tests.fuzz.attacks import cancelling
from tests.fuzz.judge import judge
from tests.fuzz.originals import ORIGINALS, write_originals
from tests.fuzz.trial import run_trials

QUICK = ("pensia", "scalar, coded", "scalar, rare unit")


def test_honest_tickets_are_judged_right_and_forgeries_are_seen(tmp_path: Path) -> None:
    write_originals(tmp_path, QUICK)
    trials = list(run_trials(tmp_path, QUICK, seed=0, first=0, count=150))
    counts = collections.Counter(trial.outcome for trial in trials)
    assert [trial for trial in trials if trial.bad] == []
    assert counts["holds"] > 5 and counts["broken"] > 5 and counts["refused"] > 50


def test_the_judge_tells_a_wrong_network_from_an_honest_one(tmp_path: Path) -> None:
    """Without this a fuzz that finds nothing would say nothing."""
    label = "scalar, rare unit"
    write_originals(tmp_path, [label])
    ticket, target = load_ticket(tmp_path / "0"), ORIGINALS[label].target()
    certificate = verify(ticket, target=target)
    honest = judge(ticket, target, certificate)
    assert certificate.holds and not honest.wrong and honest.ratio < 0.5
    attacks = [cancelling(ticket, target, np.random.default_rng(seed)) for seed in range(6)]
    judged = [judge(attack, target, certificate) for attack in attacks if attack is not None]
    assert any(found.wrong for found in judged) and not any(found.vacuous for found in judged)
    assert judge(ticket, target, dataclasses.replace(certificate, tolerance=1e6)).vacuous


@pytest.mark.slow
def test_every_original_survives(tmp_path: Path) -> None:
    labels = write_originals(tmp_path)
    trials = list(run_trials(tmp_path, labels, seed=1, first=0, count=30 * len(ORIGINALS)))
    assert [trial for trial in trials if trial.bad] == []
    assert {trial.label for trial in trials if trial.outcome == "holds"} > {"pensia", "scalar, bag"}
