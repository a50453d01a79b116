"""Forged and mutated tickets with valid digests: never a wrong "holds", never a traceback (tests/fuzz)."""

import collections
from pathlib import Path

import pytest

from tests.fuzz.originals import write_originals
from tests.fuzz.trial import run_trials

QUICK = ("pensia", "scalar, coded", "scalar, rare unit")


def test_honest_tickets_are_judged_right_and_forgeries_are_seen(tmp_path: Path) -> None:
    write_originals(tmp_path, QUICK)
    trials = list(run_trials(tmp_path, QUICK, seed=0, first=0, count=150))
    counts = collections.Counter(trial.outcome for trial in trials)
    assert [trial for trial in trials if trial.bad] == []
    assert counts["holds"] > 5 and counts["broken"] > 5 and counts["refused"] > 50


@pytest.mark.slow
def test_every_original_survives(tmp_path: Path) -> None:
    from tests.fuzz.originals import ORIGINALS

    labels = write_originals(tmp_path)
    trials = list(run_trials(tmp_path, labels, seed=1, first=0, count=30 * len(ORIGINALS)))
    assert [trial for trial in trials if trial.bad] == []
    assert {trial.label for trial in trials if trial.outcome == "holds"} > {"pensia", "scalar, bag"}
