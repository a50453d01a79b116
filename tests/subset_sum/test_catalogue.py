"""What holds for every solver: true residuals, none better than the best, symmetries, chunks, retraces, edges."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lottery_jax.errors import InputError
from lottery_jax.subset_sum import FixedSize, Status
from tests.subset_sum.catalogue import COUNT, SOLVERS, Entry
from tests.subset_sum.instances import instances
from tests.subset_sum.oracles import least_of, recomputed

every_solver = pytest.mark.parametrize("name", SOLVERS)


@every_solver
@pytest.mark.parametrize("count", [1, COUNT])
def test_residuals_are_true_and_none_is_better_than_the_best(name, count):
    entry = SOLVERS[name] if count == COUNT or name != "FixedSize" else Entry(FixedSize(1), exact=True, size=1)
    candidates, targets = instances(count)
    solution = entry.solve(candidates, targets)
    found = recomputed(solution, candidates, targets)
    best = least_of(entry.coefficients(count), candidates, targets)
    # Within N + 1 steps of the 32-bit grid, whose step is at most 2 sum |a| / 2**28 (opposites count too).
    slack = (count + 1) * np.abs(candidates).sum(1) * 2.0**-27
    assert (found >= best - slack).all()
    if entry.exact:
        assert (found <= best + slack).all()
    np.testing.assert_allclose(np.abs(solution.residuals), found, rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(solution.within, found <= 0.03)
    proves = entry.exact or name in ("Smallest", "FirstFeasible")
    assert set(np.unique(solution.status)) <= {Status.WITHIN, Status.INFEASIBLE if proves else Status.NOT_FOUND}
    np.testing.assert_array_equal(solution.sizes, np.abs(solution.coefficients).sum(1))
    if entry.size is None:
        assert not solution.subsets[candidates == 0].any()


values = st.integers(-(2**12), 2**12).map(lambda v: v / 2**12)


# What is the first depends on the order, which is the point of it.
@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "FirstFeasible"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(values, min_size=COUNT, max_size=COUNT), values, st.randoms(use_true_random=False))
def test_permuting_and_negating_keep_the_residual(name, row, target, random):
    """Values on the grid, so the residuals must be equal to the last bit."""
    orders = [random.sample(range(COUNT), COUNT) for _ in range(8)]
    permuted = np.array([row, *([row[k] for k in order] for order in orders)], np.float32)
    candidates, targets = np.concatenate([permuted, -permuted]), np.full(18, target, np.float32)
    targets[9:] *= -1
    solution = SOLVERS[name].solve(candidates, targets, grid="int32")
    found = recomputed(solution, candidates, targets)
    np.testing.assert_array_equal(found, np.abs(solution.residuals))
    np.testing.assert_array_equal(found, np.full(18, found[0]))


@every_solver
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=COUNT, max_size=COUNT), min_size=9, max_size=9),
    st.floats(-1e3, 1e3, width=32),
)
def test_no_solver_beats_the_exact_one(name, rows, target):
    """Any floats, subnormal ones and wide ranges included, within the rounding of the 32-bit grid."""
    candidates, targets = np.array(rows, np.float32), np.full(9, target, np.float32)
    entry = SOLVERS[name]
    solution = entry.solve(candidates, targets, 1e-3, grid="int32")
    found = recomputed(solution, candidates, targets)
    best = least_of(entry.coefficients(COUNT), candidates, targets)
    slack = (COUNT + 2) * np.abs(candidates).sum(1) * 2.0**-27 + 2.0**-20 * np.abs(targets)
    assert (found >= best - 1e-9).all()
    if entry.exact:
        assert (found <= best + slack).all()


@every_solver
def test_chunks_and_neighbours_change_no_bit(name):
    candidates, targets = instances(COUNT)
    whole = SOLVERS[name].solve(candidates, targets)
    for part in (slice(0, 40), slice(43, 48)):
        alone = SOLVERS[name].solve(candidates[part], targets[part])
        np.testing.assert_array_equal(alone.bits, whole.bits[part])
        np.testing.assert_array_equal(alone.residuals, whole.residuals[part])
        np.testing.assert_array_equal(alone.status, whole.status[part])
        np.testing.assert_array_equal(alone.coefficients, whole.coefficients[part])


@every_solver
def test_the_same_shapes_compile_once(name, caplog):
    candidates, targets = instances(COUNT)
    SOLVERS[name].solve(candidates, targets)
    # Other data; mirrored, so that each pass of a solver with several leaves as many problems open.
    with jax.log_compiles():
        SOLVERS[name].solve(-candidates, -targets)
    assert "Compiling" not in caplog.text


@every_solver
def test_no_problems_no_answers_and_no_nan(name):
    solution = SOLVERS[name].solve(np.zeros((0, COUNT), np.float32), np.zeros(0, np.float32))
    assert solution.bits.shape == (0, 1) and solution.coefficients.shape == (0, COUNT)
    candidates, targets = instances(COUNT)
    with pytest.raises(InputError, match="candidates hold NaN"):
        SOLVERS[name].solve(candidates * np.float32(np.nan), targets)
    with pytest.raises(InputError, match="targets hold NaN or infinite"):
        SOLVERS[name].solve(candidates, targets + np.float32(np.inf))


@every_solver
def test_too_many_candidates_are_refused_with_the_number_allowed(name):
    entry = SOLVERS[name]
    allowed = entry.solver.max_candidates
    zeros = np.zeros((1, allowed + 1), np.float32)
    with pytest.raises(InputError, match=rf"N = {allowed + 1} candidates.*up to {allowed}"):
        entry.solve(zeros, np.zeros(1, np.float32))
