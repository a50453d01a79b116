"""A tolerance of the outputs becomes one of the weights, or more candidates, and the bound is below it."""

import pytest

from lottery_jax.approximation import ToleranceObjective
from lottery_jax.approximation import output_tolerance as module
from lottery_jax.approximation.output_tolerance import meet_output_tolerance
from lottery_jax.constructions import Pensia
from lottery_jax.errors import InputError
from tests.constructions.catalogue import COUNT, TARGETS

TARGET = TARGETS["mlp, inputs never negative"]()


@pytest.mark.slow  # a program for each number of candidates
@pytest.mark.parametrize(("objective", "asked"), [("least-error", 0.02), ("smallest", 0.1)])
def test_the_bound_is_below_what_is_asked(objective: str, asked: float) -> None:
    construction, objective, bound = meet_output_tolerance(
        TARGET, Pensia(COUNT), ToleranceObjective(0.05, objective), asked, seed=1
    )
    assert bound.largest <= asked
    if objective == "smallest":
        assert objective.tolerance < 0.05
    else:
        assert construction.candidates > COUNT and objective.tolerance == 0.05


def test_what_cannot_be_reached_says_how_many_it_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CANDIDATES", 10)
    with pytest.raises(InputError, match=r"need about \d\d candidates for each weight, and up to 10 are searched"):
        meet_output_tolerance(TARGET, Pensia(COUNT), ToleranceObjective(0.05), 1e-6, seed=1)
    for wrong in (0.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="output_tolerance must be positive and finite"):
            meet_output_tolerance(TARGET, Pensia(COUNT), ToleranceObjective(0.05), wrong, seed=1)
