"""The overlap of masks against counting, and its expected values against all masks of the same count."""

import itertools

import numpy as np
import pytest

from lottery_jax.errors import InputError
from planted.measure import Overlap, merged_overlap, overlaps


def all_masks(size: int, kept: int) -> list[np.ndarray]:
    return [np.isin(np.arange(size), places) for places in itertools.combinations(range(size), kept)]


def counted(found: np.ndarray, planted: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and Jaccard of two masks, by sets."""
    own, true = set(np.flatnonzero(found)), set(np.flatnonzero(planted))
    return len(own & true) / len(own), len(own & true) / len(true), len(own & true) / len(own | true)


def test_fractions_are_those_of_the_sets() -> None:
    random = np.random.default_rng(4)
    found, planted = ({"a": random.random((3, 5)) < 0.5, "b": random.random(7) < 0.3} for _ in range(2))
    found["b"][0] = planted["b"][0] = True
    parts = overlaps(found, planted)
    for name, part in parts.items():
        assert (part.precision, part.recall, part.jaccard) == counted(found[name].ravel(), planted[name].ravel())
    whole = merged_overlap(parts.values())
    joined = (np.concatenate([masks["a"].ravel(), masks["b"]]) for masks in (found, planted))
    assert (whole.precision, whole.recall, whole.jaccard) == counted(*joined)
    assert whole.size == 22


@pytest.mark.parametrize(("size", "planted", "found"), [(6, 2, 3), (5, 4, 3), (4, 4, 1), (3, 1, 3)])
def test_chance_is_the_mean_over_all_masks_of_the_count(size: int, planted: int, found: int) -> None:
    true = np.arange(size) < planted
    mean = np.mean([counted(mask, true) for mask in all_masks(size, found)], axis=0)
    one = Overlap(0, ((size, planted, found),))
    np.testing.assert_allclose((one.chance_precision, one.chance_recall, one.chance_jaccard), mean)


def test_chance_of_two_tensors_keeps_the_count_of_each() -> None:
    true = np.concatenate([np.arange(4) < 2, np.arange(5) < 1])
    both = [np.concatenate(pair) for pair in itertools.product(all_masks(4, 1), all_masks(5, 3))]
    mean = np.mean([counted(mask, true) for mask in both], axis=0)
    whole = merged_overlap([Overlap(0, ((4, 2, 1),)), Overlap(0, ((5, 1, 3),))])
    np.testing.assert_allclose((whole.chance_precision, whole.chance_recall, whole.chance_jaccard), mean)


def test_empty_masks_share_nothing() -> None:
    none = Overlap(0, ((5, 0, 0),))
    values = none.precision, none.recall, none.jaccard, none.chance_precision, none.chance_recall, none.chance_jaccard
    assert values == (0, 0, 0, 0, 0, 0)


def test_chance_holds_for_large_counts() -> None:
    large = Overlap(0, ((1 << 20, 44, 1 << 19),))
    assert large.chance_recall == 0.5
    np.testing.assert_allclose(large.chance_jaccard, 22 / (1 << 19), rtol=1e-3)


@pytest.mark.parametrize(
    "planted", [{"a": np.ones(3, bool)}, {"a": np.ones(2, bool), "b": np.ones(1, bool)}, {"a": np.ones(2)}, {}]
)
def test_other_tensors_are_refused(planted: dict) -> None:
    with pytest.raises(InputError, match="must be boolean and of the same tensors"):
        overlaps({"a": np.ones(2, bool)}, planted)
