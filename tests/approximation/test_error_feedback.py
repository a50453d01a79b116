"""Error feedback against an oracle in NumPy, and the effect of feedback and sweeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.approximation.error_feedback import LayerProblem, error_feedback, inverse_hessian_factor

ROWS, COUNT, OUTPUTS = 6, 5, 8
STEP = 2.0**-20


def layer(seed: int, groups: int = 1, spread: float = 1.0) -> LayerProblem:
    """Random candidates, and moments of inputs that go along with one another."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(groups, 40, ROWS)) + 2 * random.normal(size=(groups, 40, 1))
    moments = np.einsum("gnr,gns->grs", inputs, inputs) / 40 + 0.01 * np.eye(ROWS)
    factor = inverse_hessian_factor(moments)
    assert factor is not None
    candidates = np.round(random.uniform(-1, 1, (ROWS, COUNT, OUTPUTS)) / STEP).astype(np.int32)
    wanted = spread * random.uniform(-0.5, 0.5, (ROWS, OUTPUTS))
    importance = random.uniform(0.5, 2, OUTPUTS)
    given = np.full(ROWS, STEP), wanted, moments, factor, importance
    return LayerProblem(candidates, *(np.asarray(value, np.float32) for value in given))


def error(layer: LayerProblem, made: np.ndarray) -> np.ndarray:
    """(q - t)^T H (q - t) of each output, float64."""
    groups, own = layer.hessian.shape[0], layer.targets.shape[1] // layer.hessian.shape[0]
    off = (np.asarray(made, np.float64) - layer.targets).reshape(-1, groups, own)
    return np.einsum("rgo,grs,sgo->go", off, layer.hessian.astype(np.float64), off).reshape(-1)


def oracle(layer: LayerProblem, price: float, largest: int) -> np.ndarray:
    """Feedback row by row and output by output, all subsets tried, float64: what the subsets sum to."""
    groups, own = layer.hessian.shape[0], layer.targets.shape[1] // layer.hessian.shape[0]
    wanted, made = layer.targets.astype(np.float64), np.zeros((ROWS, OUTPUTS))
    for output in range(OUTPUTS):
        factor = layer.inverse_factor[output // own].astype(np.float64)
        for row in range(ROWS):
            values = layer.candidates[row, :, output] * STEP
            best = np.inf
            for bits in range(1 << COUNT):
                kept = [place for place in range(COUNT) if bits >> place & 1]
                miss = (wanted[row, output] - values[kept].sum()) / factor[row, row]
                cost = layer.importance[output] * miss**2 + price * len(kept)
                if len(kept) <= largest and cost < best:
                    best, made[row, output] = cost, values[kept].sum()
            miss = (wanted[row, output] - made[row, output]) / factor[row, row]
            wanted[row + 1 :, output] -= factor[row, row + 1 :] * miss
    assert groups
    return made


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("price", [0.0, 0.01])
def test_feedback_is_the_oracles(groups: int, price: float) -> None:
    one = layer(groups, groups)
    found = error_feedback(one, np.float32(price), largest=2, sweeps=0)
    np.testing.assert_allclose(found.sums, oracle(one, price, 2), atol=2e-5)
    sums = np.where(found.chosen, one.candidates, 0).sum(1, dtype=np.int64) * STEP
    np.testing.assert_allclose(found.sums, sums, atol=1e-6)
    assert np.asarray(found.chosen).sum(1).max() <= 2


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.003, 0.1]))
@settings(deadline=None, max_examples=20)
def test_sweeps_never_raise_the_error_or_what_is_kept(seed: int, price: float) -> None:
    one = layer(seed)
    before = error_feedback(one, np.float32(price), largest=2, sweeps=0)
    after = error_feedback(one, np.float32(price), largest=2, sweeps=2)
    paid = [
        (one.importance * error(one, found.sums)).sum() + price * np.asarray(found.chosen).sum()
        for found in (before, after)
    ]
    assert paid[1] <= paid[0] * (1 + 1e-4) + 1e-6
    assert np.asarray(after.chosen).sum() <= np.asarray(before.chosen).sum()


def test_what_is_made_up_for_is_less_than_what_single_weights_miss() -> None:
    one, alone = layer(3), layer(3)
    diagonal = np.sqrt(np.diagonal(np.linalg.inv(one.hessian), axis1=1, axis2=2))
    alone = alone._replace(inverse_factor=np.asarray([np.diag(each) for each in diagonal], np.float32))
    with_feedback, without = (error_feedback(each, np.float32(0), largest=1, sweeps=0).sums for each in (one, alone))
    assert error(one, np.asarray(with_feedback)).sum() < 0.7 * error(one, np.asarray(without)).sum()


def test_an_infinite_price_keeps_nothing() -> None:
    found = error_feedback(layer(0), np.float32(3e38), largest=2, sweeps=1)
    assert not np.asarray(found.chosen).any() and not np.asarray(found.sums).any()


def test_singular_moments_have_no_factor() -> None:
    assert inverse_hessian_factor(np.zeros((1, 2, 2))) is None
    assert inverse_hessian_factor(np.full((1, 2, 2), np.nan)) is None
