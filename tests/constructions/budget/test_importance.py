"""Fisher information against finite differences in float64, and against what it is for: the divergence of outputs."""

import itertools

import numpy as np
import pytest
from lottery_jax.constructions.importance import fisher_importance

from lottery_jax.errors import InputError


def target(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.8, pair).astype(np.float32) for pair in itertools.pairwise(sizes)]


def log_probabilities(weights, images):
    x = images.astype(np.float64)
    for weight in weights[:-1]:
        x = np.maximum(x @ weight, 0)
    logits = x @ weights[-1]
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def by_differences(weights, images, step=1e-5):
    """F_i = mean over x of sum over y of p(y|x) (d log p(y|x) / d w_i)^2, one weight at a time."""
    wide = [weight.astype(np.float64) for weight in weights]
    probabilities = np.exp(log_probabilities(wide, images))
    found = []
    for layer in wide:
        fisher = np.empty_like(layer)
        for place in np.ndindex(layer.shape):
            kept, sides = layer[place], []
            for sign in (1, -1):
                layer[place] = kept + sign * step
                sides.append(log_probabilities(wide, images))
            layer[place] = kept
            slope = (sides[0] - sides[1]) / (2 * step)
            fisher[place] = (probabilities * slope**2).sum(1).mean()
        found.append(fisher)
    return found


@pytest.mark.parametrize("sizes", [(4, 3), (5, 4, 3), (4, 5, 3, 2)])
def test_against_finite_differences(sizes):
    weights = target(sizes)
    images = np.random.default_rng(1).uniform(0, 1, (7, sizes[0])).astype(np.float32)
    for found, wanted in zip(fisher_importance(weights, images), by_differences(weights, images), strict=True):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_it_predicts_the_divergence_of_a_changed_weight():
    weights = target((4, 6, 3))
    images = np.random.default_rng(2).uniform(0, 1, (50, 4)).astype(np.float32)
    fisher = fisher_importance(weights, images)
    before = log_probabilities([w.astype(np.float64) for w in weights], images)
    changed = [w.astype(np.float64) for w in weights]
    changed[1][2, 1] += 1e-3
    divergence = (np.exp(before) * (before - log_probabilities(changed, images))).sum(1).mean()
    assert divergence == pytest.approx(fisher[1][2, 1] * 1e-3**2 / 2, rel=2e-3)


def test_batches_only_round():
    weights, images = target((4, 5, 3)), np.random.default_rng(3).uniform(0, 1, (23, 4)).astype(np.float32)
    whole = fisher_importance(weights, images)
    for batch_size in (1, 8, 23, 100):
        for found, wanted in zip(fisher_importance(weights, images, batch_size=batch_size), whole, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
    again = fisher_importance(weights, images)
    assert all((first == second).all() for first, second in zip(whole, again, strict=True))


def test_a_dead_input_and_a_dead_unit_have_no_importance():
    weights, images = target((4, 5, 3)), np.random.default_rng(4).uniform(0, 1, (9, 4)).astype(np.float32)
    images[:, 1] = 0
    weights[0][:, 2] = -1
    first, second = fisher_importance(weights, images)
    assert (first[1] == 0).all() and (first[:, 2] == 0).all() and (second[2] == 0).all()
    assert (first[0] > 0).any() and (second > 0).any()


def test_damping_adds_the_mean_over_all_layers():
    weights, images = target((4, 5, 3)), np.random.default_rng(4).uniform(0, 1, (9, 4)).astype(np.float32)
    plain, damped = (fisher_importance(weights, images, damping=damping) for damping in (0, 0.5))
    mean = np.concatenate([layer.ravel() for layer in plain]).mean()
    for before, after in zip(plain, damped, strict=True):
        np.testing.assert_allclose(after, before + 0.5 * mean, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": []}, "no layers"),
        ({"weights": [np.ones((4, 1), np.float32)]}, "one output"),
        ({"weights": [np.ones((4, 2), np.float32), np.ones((3, 2), np.float32)]}, "3 inputs"),
        ({"weights": [np.full((4, 2), np.nan, np.float32)]}, "finite"),
        ({"images": np.zeros((0, 4), np.float32)}, "N from 1 up"),
        ({"images": np.zeros((2, 3), np.float32)}, r"\[N, 4\]"),
        ({"images": np.full((2, 4), np.nan, np.float32)}, "NaN"),
        ({"images": np.full((2, 4), 1e30, np.float32)}, "overflow"),
        ({"batch_size": 0}, "batch size"),
        ({"damping": -0.1}, "damping"),
        ({"damping": np.nan}, "damping"),
    ],
)
def test_bad_input_is_refused(change, words):
    arguments = {"weights": target((4, 2)), "images": np.ones((2, 4), np.float32), **change}
    with pytest.raises(InputError, match=words):
        fisher_importance(**arguments)
