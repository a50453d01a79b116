"""Random subset sums: the exact solver's counts against brute force, the heuristic against both, the constant."""

import itertools

import numpy as np
import pytest

from experiments.phase_diagram import phase_figure
from lottery_jax.errors import InputError
from lottery_jax.theory import (
    DISTRIBUTIONS,
    best_subsets,
    estimate_constant,
    least_residuals,
    predicted_median,
    predicted_success,
    residual_law,
    success_probability,
)
from lottery_jax.theory import success as measured
from lottery_jax.theory.candidates import FixedSizeCandidates, GadgetCandidates

COUNT = 6


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_least_residuals_are_those_of_all_subsets(name: str) -> None:
    kind = DISTRIBUTIONS[name]()
    drawn, targets = kind.draw(COUNT, 40, 3).astype(float), kind.targets(COUNT, 40, 3).astype(float)
    assert np.abs(targets).max() <= kind.largest_target and drawn.shape[:2] == (40, COUNT)
    masks = [mask for mask in itertools.product((0, 1), repeat=COUNT) if name != "fixed-size" or sum(mask) == 4]
    sums = np.einsum("mn,tnd->tmd", masks, drawn.reshape(40, COUNT, -1))
    wanted = np.abs(sums - targets.reshape(40, 1, -1)).max(2).min(1)
    found = least_residuals(COUNT, name, trials=40, seed=3)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    again = success_probability(COUNT, 0.1, name, trials=40, seed=3)
    assert again.successes == np.count_nonzero(wanted <= 0.1)
    low, high = again.interval
    assert 0 <= low <= again.probability <= high <= 1


@pytest.mark.parametrize("name", ["scalar", "product", "gadget"])
def test_the_heuristic_is_near_the_experiment(name: str) -> None:
    found = success_probability(10, 0.003, name, trials=1000, seed=1)
    assert found.probability == pytest.approx(predicted_success(10, 0.003, name), abs=0.05)
    median = float(np.median(least_residuals(10, name, trials=1000, seed=1)))
    assert median == pytest.approx(predicted_median(10, name), rel=0.15)


def test_the_chance_grows() -> None:
    for name in DISTRIBUTIONS:
        chances = [predicted_success(count, 0.01, name) for count in range(5, 20)]
        assert chances == sorted(chances)
    assert residual_law(4, 0.5) == 0.5 * 2 / 16


def test_a_gadget_has_the_usable_half_of_its_units() -> None:
    kind = GadgetCandidates()
    there = np.count_nonzero(kind.draw(8, 4000, 0), axis=1)
    chances = kind.count_probabilities(8)
    assert chances.sum() == pytest.approx(1) and chances[8] == pytest.approx(0.598, abs=1e-3)  # P(Bin(16, 1/2) >= 8)
    assert np.bincount(there, minlength=9) / 4000 == pytest.approx(chances, abs=0.03)


def test_quantised_sums_meet_their_targets_or_are_a_step_away() -> None:
    found = least_residuals(10, "quantised 4", trials=200, seed=0)
    assert set(np.unique(found * 16 % 1)) == {0.0}
    for tolerance in (1e-6, 0.06):  # below a step nothing changes
        expected = predicted_success(10, tolerance, "quantised 4")
        assert np.mean(found <= tolerance) == pytest.approx(expected, abs=0.06)


def test_one_subset_for_two_numbers_needs_twice_the_candidates() -> None:
    found = least_residuals(12, "vectors", trials=300, seed=0)
    assert float(np.median(found)) == pytest.approx(predicted_median(12, "vectors"), rel=0.2)
    assert predicted_success(12, 0.05, "vectors 2") < predicted_success(7, 0.05, "scalar")
    kind = DISTRIBUTIONS["vectors"]()
    subsets = best_subsets(12, kind, trials=300, seed=0).subsets
    sums = np.einsum("tn,tnd->td", subsets.astype(float), kind.draw(12, 300, 0).astype(float))
    np.testing.assert_allclose(np.abs(sums - kind.targets(12, 300, 0)).max(1), found, atol=1e-7)
    with pytest.raises(InputError, match="1 to 8 numbers"):
        least_residuals(6, "vectors 9", trials=5, seed=0)


def test_exactly_so_many_are_kept() -> None:
    found = best_subsets(COUNT, FixedSizeCandidates(size=4), trials=20, seed=0)
    assert set(found.sizes) == {4}


def test_the_constant_is_deterministic_and_in_its_interval() -> None:
    asked = {"trials": 300, "seed": 5}
    first, second = (estimate_constant(0.1, 0.1, "product", **asked) for _ in range(2))
    assert first == second and first.low <= first.candidates <= first.high
    assert first.value == pytest.approx(first.candidates / 2.302585) and first.interval[0] <= first.value
    assert success_probability(first.candidates, 0.1, "product", **asked).probability >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kept", [measured.SCALAR, measured.PRODUCT, measured.GADGET, measured.FIXED_SIZE])
def test_the_constants_of_the_table_are_estimated_again(kept: measured.Constant) -> None:
    name = kept.distribution.partition(" ")[0]
    assert estimate_constant(kept.tolerance, kept.delta, name, trials=kept.trials, seed=kept.seed) == kept


def test_the_figure_is_a_png() -> None:
    rows = [
        {
            "kind": "problems",
            "distribution": "scalar",
            "candidates": count,
            "tolerances": [0.1, 0.01],
            "probability": [0.5, 0.1],
            "median": 0.1,
            "predicted_median": 0.1,
            "factor": 0.4,
            "kept_nearest": count / 2,
            "kept_smallest": 2.0,
        }
        for count in (4, 6)
    ]
    assert phase_figure(rows).startswith(b"\x89PNG")


def test_bad_input_is_refused() -> None:
    for words, call in {
        "count must be from 1 to 24 for scalar, got 25": lambda: least_residuals(25, "scalar", trials=1, seed=0),
        "count must be from 4 to 40": lambda: least_residuals(3, "fixed-size", trials=1, seed=0),
        "trials must be": lambda: least_residuals(5, "scalar", trials=0, seed=0),
        "tolerance must be in": lambda: success_probability(5, 1.0, seed=0),
        "did you mean 'gadget'": lambda: predicted_success(5, 0.1, "gadgets"),
        "must be in \\(0, 1\\), got 0.1 and 2": lambda: estimate_constant(0.1, 2, seed=0),
        "trials must be at least 10000 .* got 10": lambda: estimate_constant(0.1, 0.001, trials=10, seed=0),
        "Choose larger ones": lambda: estimate_constant(1e-4, 0.1, FixedSizeCandidates(size=38), trials=100, seed=0),
        "size must be from 1": lambda: FixedSizeCandidates(size=0),
    }.items():
        with pytest.raises(InputError, match=words):
            call()
