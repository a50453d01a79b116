"""`Greedy` and `Differencing` against plain Python, and how good they are; which solver is chosen when."""

import heapq

import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.subset_sum import (
    Auto,
    Differencing,
    Greedy,
    MeetInTheMiddle,
    Problem,
    Randomized,
    Smallest,
    Vector,
    VectorWindows,
    choose_solver,
    solve,
)
from tests.subset_sum.oracles import recomputed


def integers(count, problems=48, seed=0):
    """Integers as floats: exact in both, so that answers must be equal."""
    rng = np.random.default_rng(seed)
    candidates = rng.integers(-(2**15), 2**15, (problems, count))
    return candidates, rng.integers(-(2**14), 2**14, problems)


def test_greedy_takes_what_plain_python_takes():
    candidates, targets = integers(30)
    solution = solve(Problem(candidates.astype(np.float32), targets.astype(np.float32), 0.5), Greedy())
    for row, target, subset in zip(candidates.tolist(), targets.tolist(), solution.subsets, strict=True):
        sign, left, kept = (-1 if target < 0 else 1), abs(target), []
        for value, place in sorted(((sign * v, k) for k, v in enumerate(row)), reverse=True):
            if 0 < value <= left:
                left, kept = left - value, [*kept, place]
        assert sorted(kept) == np.flatnonzero(subset).tolist()


def differencing_by_heap(row, target):
    """|sum - target| by Karmarkar and Karp, for integers."""
    positive, wanted = [abs(v) for v in row], target - sum(min(v, 0) for v in row)
    wanted = min(max(wanted, 0), sum(positive))
    heap = [-v for v in [*positive, abs(sum(positive) - 2 * wanted)]]
    heapq.heapify(heap)
    while len(heap) > 1:
        heapq.heappush(heap, heapq.heappop(heap) - heapq.heappop(heap))
    return -heap[0] / 2


def test_differencing_leaves_what_a_heap_leaves():
    candidates, targets = integers(30)
    solution = solve(Problem(candidates.astype(np.float32), targets.astype(np.float32), 0.5), Differencing())
    expected = [differencing_by_heap(*both) for both in zip(candidates.tolist(), targets.tolist(), strict=True)]
    found = np.abs((solution.subsets * candidates).sum(1) - targets)
    np.testing.assert_array_equal(found, expected)


def test_differencing_on_the_textbook_example():
    # 8, 7, 6, 5, 4 in two parts: differencing leaves 2 (16 against 14), though 15 against 15 exists.
    problem = Problem(np.array([[8.0, 7.0, 6.0, 5.0, 4.0]]), np.array([15.0]), 0.5)
    assert np.abs(solve(problem, Differencing()).residuals) == 1


def test_differencing_gets_better_with_more_candidates():
    rng = np.random.default_rng(1)
    medians = []
    for count in (30, 200):
        candidates, targets = rng.uniform(-1, 1, (48, count)), rng.uniform(-1, 1, 48)
        solution = solve(Problem(candidates, targets, 1e-3), Differencing())
        medians.append(np.median(recomputed(solution, candidates, targets)))
    # n**(-0.72 ln n) is 2e-4 and 2e-9 for these.
    assert medians[0] < 2e-3 and medians[1] < 2e-8


def test_greedy_on_log_uniform_candidates_reaches_their_least():
    rng = np.random.default_rng(2)
    candidates = np.exp(rng.uniform(np.log(1e-4), 0, (48, 60))).astype(np.float32)
    targets = rng.uniform(0.1, 0.9, 48).astype(np.float32)
    solution = solve(Problem(candidates, targets, 1e-3), Greedy())
    uniform = rng.uniform(0, 1, (48, 60)).astype(np.float32)
    on_uniform = solve(Problem(uniform, targets, 1e-3), Greedy())
    assert np.median(np.abs(solution.residuals)) < 2e-4 < 5e-3 < np.median(np.abs(on_uniform.residuals))
    assert (solution.residuals <= 0).all()  # never above a positive target


@pytest.mark.parametrize(
    ("candidates", "options", "solver"),
    [
        (21, {}, MeetInTheMiddle()),
        (44, {}, MeetInTheMiddle()),
        (45, {}, Randomized()),
        (40, {"objective": "smallest"}, Smallest()),
        (24, {"objective": "any", "tolerance": 0.01}, MeetInTheMiddle()),
        (30, {"objective": "any", "tolerance": 0.01}, Differencing()),
        (30, {"objective": "any", "tolerance": 1e-4}, Randomized()),
        (1000, {"objective": "any", "tolerance": 1e-6}, Differencing()),
        (24, {"vectors": True}, Vector()),
        (25, {"vectors": True}, VectorWindows()),
    ],
)
def test_choice(candidates, options, solver):
    assert choose_solver(candidates, **options) == solver


def test_auto_says_what_it_picked():
    candidates, targets = integers(30)
    problem = Problem(candidates.astype(np.float32), targets.astype(np.float32), 0.5)
    assert solve(problem, Auto("any")).solver == Differencing()
    np.testing.assert_array_equal(solve(problem, Auto("any")).bits, solve(problem, Differencing()).bits)


def test_auto_refuses_what_nothing_can_do():
    with pytest.raises(InputError, match=r"did you mean 'smallest'"):
        Auto("smalest")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"up to 40 candidates, not 41"):
        choose_solver(41, objective="smallest")
    with pytest.raises(InputError, match=r"not vectors"):
        choose_solver(10, objective="smallest", vectors=True)
    with pytest.raises(InputError, match=r"Randomized draws at random: pass key"):
        solve(Problem(np.zeros((1, 50)), np.zeros(1), 0.1), Auto())
