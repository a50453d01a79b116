"""The experiment on quantised targets: its rows, and that the theory's page says what they say."""

import json
from pathlib import Path

import pytest

from experiments.kumar_exact import BITS, MORE, row
from lottery_jax.approximation.job import plan_job
from lottery_jax.approximation.run import run_in_memory
from lottery_jax.approximation.tolerance import ToleranceObjective
from lottery_jax.constructions.kumar import Kumar
from lottery_jax.networks.rewrites import quantise
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import TARGETS

ROOT = Path(__file__).parents[2]
OUT, PAGE = ROOT / "experiments" / "results" / "kumar_exact.jsonl", ROOT / "docs" / "theory.md"


@pytest.mark.slow
def test_more_candidates_meet_more_weights_at_once_and_redraws_the_rest() -> None:
    target = TARGETS["mlp, inputs never negative"]()
    few, many = row(target, 4, 8), row(target, 4, 16)
    assert few["exact_at_once"] < 0.6 < 0.9 < many["exact_at_once"]
    assert few["outcome"] == many["outcome"] == "holds"
    for found in (few, many):
        rounded = quantise(target, 7)
        once = plan_job(rounded, Kumar(found["candidates"], bits=4), ToleranceObjective(0.0, max_redraws=0), seed=0)
        met = verify(run_in_memory(once), target=rounded).within_tolerance
        assert met == round(found["exact_at_once"] * found["weights"])
    assert few["drawn_again"] >= round((1 - few["exact_at_once"]) * few["weights"]) > many["drawn_again"]


def test_the_page_says_what_was_measured() -> None:
    rows = [json.loads(line) for line in OUT.read_text().splitlines()]
    assert [(each["bits"], each["candidates"]) for each in rows] == [(k, 2 * k + more) for k in BITS for more in MORE]
    stated = []
    for more in (0, 4, 8):
        found = [100 * each["exact_at_once"] for each in rows if each["candidates"] == 2 * each["bits"] + more]
        stated.append(f"{min(found):.0f} to {max(found):.0f} %")
    kumar = next(line for line in PAGE.read_text().splitlines() if line.startswith("| `kumar`"))
    assert all(words in kumar for words in stated), stated
