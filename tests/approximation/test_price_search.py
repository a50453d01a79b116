"""The price at which a layer spends its budget."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lottery_jax.approximation.error_feedback import within_budget


@example(918864, 1.0, 1.0, 0.6875)
@given(st.integers(0, 10**6), st.floats(1e-9, 1.0), st.floats(1e-3, 1e3), st.floats(0.3, 0.8))
def test_nearly_all_of_a_budget_and_never_more(budget: int, price: float, scale: float, power: float) -> None:
    def solve(price: float) -> tuple[int, float]:
        return (0 if math.isinf(price) else min(int((scale / max(price, 1e-30)) ** power), 10**6)), price

    kept, at = within_budget(solve, budget, price)
    assert kept <= budget and solve(at)[0] == kept
    if budget >= 1000:
        assert kept >= 0.8 * budget


def test_a_budget_above_all_weights_takes_all() -> None:
    assert within_budget(lambda price: (100 if price < 1 else 0, price), 10**6, 5.0)[0] == 100


@pytest.mark.parametrize("budget", [0, 5])
def test_steps_that_cannot_be_split_keep_less(budget: int) -> None:
    assert within_budget(lambda price: (10 if price < 1 else 0, price), budget, 0.01)[0] == 0


def test_a_first_price_of_nothing_is_left_behind() -> None:
    assert within_budget(lambda price: (int(1000 / (1 + 1e6 * price)), price), 500, 0.0)[0] >= 490
