"""Counts are exact whatever the scope, at every kept fraction; equal scores are kept in order."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lottery_jax
from lottery_jax.errors import InputError
from lottery_jax.pruning.criteria import Scope, highest, kept_counts, pruned

LENET = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
SCOPES: tuple[Scope, ...] = ("layer", "global", "erk")
shapes = st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple), min_size=1, max_size=4).map(
    lambda sizes: {f"fc{place}": shape for place, shape in enumerate(sizes)}
)
keeps = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


@given(shapes, st.lists(keeps, min_size=1, max_size=4), st.sampled_from(SCOPES), st.integers(0, 9), st.floats(0.01, 1))
def test_counts_are_exact_and_masks_nested(
    sizes: dict[str, tuple[int, ...]], fractions: list[float], scope: Scope, seed: int, rate: float
) -> None:
    """Few different scores, so that most are tied; rounds of falling fractions."""
    random = np.random.default_rng(seed)
    scores = {name: random.integers(-2, 3, shape).astype(float) for name, shape in sizes.items()}
    masks = {name: np.ones(shape, bool) for name, shape in sizes.items()}
    for keep in sorted(fractions, reverse=True):
        found = pruned(scores, masks, keep, scope=scope, rates={list(sizes)[-1]: rate})
        assert {name: mask.shape for name, mask in found.items()} == sizes
        assert sum(map(np.count_nonzero, found.values())) == round(keep * sum(map(math.prod, sizes.values())))
        assert not any((found[name] & ~masks[name]).any() for name in sizes)
        masks = found


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=12), st.data())
def test_the_highest_are_kept_and_the_earliest_of_equal_ones(values: list[int], data: st.DataObject) -> None:
    scores = np.array(values, float)
    among = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    count = data.draw(st.integers(0, int(among.sum())))
    ranked = sorted((place for place in range(len(values)) if among[place]), key=lambda place: (-values[place], place))
    assert np.flatnonzero(highest(scores, count, among)).tolist() == sorted(ranked[:count])


def test_nan_is_last_and_minus_infinity_before_it() -> None:
    scores = np.array([np.nan, -np.inf, 1.0])
    assert [highest(scores, count, np.ones(3, bool)).tolist() for count in (1, 2)] == [
        [False, False, True],
        [False, True, True],
    ]


def test_the_output_layer_loses_half_as_much_as_published() -> None:
    """Seven rounds of 20 and 10 %: 21.1 % are left of LeNet-300-100."""
    kept = {name: math.prod(shape) * (0.9 if name == "fc3" else 0.8) ** 7 for name, shape in LENET.items()}
    keep = sum(kept.values()) / 266_200
    assert round(100 * keep, 1) == 21.1
    found = kept_counts(LENET, keep, scope="layer", rates={"fc3": 0.5})
    assert all(abs(found[name] - kept[name]) < 1 for name in LENET)
    alike = kept_counts(LENET, 0.25, scope="layer")
    assert alike == {"fc1": 58_800, "fc2": 7_500, "fc3": 250}


def test_convolutions_lose_half_as_much_as_published() -> None:
    """Conv-2 after ten rounds: 10 % of convolutions and of the output layer, 20 % of dense layers."""
    shapes = {"conv1": (64, 3, 3, 3), "conv2": (64, 64, 3, 3), "fc1": (256, 16384), "fc2": (256, 256), "fc3": (10, 256)}
    kept = {name: math.prod(shape) * (0.8 if name in ("fc1", "fc2") else 0.9) ** 10 for name, shape in shapes.items()}
    keep = sum(kept.values()) / sum(map(math.prod, shapes.values()))
    found = kept_counts(shapes, keep, scope="layer", rates={"conv1": 0.5, "conv2": 0.5, "fc3": 0.5})
    assert all(abs(found[name] - kept[name]) < 1 for name in shapes)


def test_erdos_renyi_densities_are_in_proportion_up_to_one() -> None:
    found = kept_counts(LENET, 0.05, scope="erk")
    per_sparsity = [found[name] / math.prod(shape) / (sum(shape) / math.prod(shape)) for name, shape in LENET.items()]
    assert max(per_sparsity) / min(per_sparsity) < 1.01
    assert kept_counts(LENET, 0.2, scope="erk")["fc3"] == 1000


def test_the_ranking_of_all_weights_together_ignores_layers() -> None:
    scores = {"a": np.array([5.0, 1.0]), "b": np.array([4.0, 3.0])}
    found = pruned(scores, {name: np.ones(2, bool) for name in scores}, 0.75, scope="global")
    assert {name: mask.tolist() for name, mask in found.items()} == {"a": [True, False], "b": [True, True]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 1.5}, "keep must be .* got 1.5"),
        ({"rates": {"fc3": 0.0}}, "rate of 'fc3' must be in .*, got 0.0"),
        ({"scope": "rows"}, "`scope` must be layer or erk for kept counts, got 'rows'"),
    ],
)
def test_bad_input_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kept_counts(LENET, **{"keep": 0.5, "scope": "layer", **options})


def test_pruning_imports_nothing_from_mask_learning() -> None:
    """What both use is in `training/`."""
    folder = Path(lottery_jax.__file__).parent
    for room in ("pruning", "training"):
        for path in (folder / room).glob("*.py"):
            assert "mask_learning" not in path.read_text(encoding="utf-8"), path
