"""Signed and multi-bit supermasks beside plain NumPy: their bits, their gradients, and what they start from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.multi_level import MultiBitSupermask, MultiLevelLearner, SignedSupermask
from lottery_jax.mask_learning.score_learner import RunInputs
from lottery_jax.networks.sources.random_layer import MultiLevelLayer
from tests.mask_learning.sources import GADGET, PLAIN

KEY, RANDOM = jax.random.key(0), np.random.default_rng(0)
SCORES = {"a": RANDOM.normal(size=(40, 50)).astype(np.float32)}
OTHERS = SignedSupermask(), MultiBitSupermask(bits=3, signed=True), MultiBitSupermask(bits=1)
every_learner = pytest.mark.parametrize(
    "learner",
    [MultiBitSupermask(signed=True), *(pytest.param(other, marks=pytest.mark.slow) for other in OTHERS)],
    ids=lambda one: f"{one.name}-{len(one.factors)}",
)


def run(learner: MultiLevelLearner, keep: float) -> RunInputs:
    """Counts are of all bits of a mask."""
    bits = len(learner.factors)
    counts = {name: jnp.int32(round(keep * score.size * bits)) for name, score in SCORES.items()}
    return RunInputs(*[None] * len(RunInputs._fields))._replace(counts=counts)  # type: ignore[arg-type]


@every_learner
@pytest.mark.parametrize("keep", [0.0, 0.0004, 0.3333, 1.0])
def test_the_top_scores_count_most(learner: MultiLevelLearner, keep: float) -> None:
    bits, signed = learner.levels()
    final_masks = learner.final_masks(jax.tree.map(jnp.asarray, SCORES), run(learner, keep), KEY)
    for name, score in SCORES.items():
        values = np.asarray(final_masks[name]) @ np.array(learner.factors)
        count, levels = round(keep * score.size * len(learner.factors)) // len(learner.factors), 2**bits - 1
        assert round(keep * score.size) - 1 <= count == np.count_nonzero(values) <= round(keep * score.size)
        place = np.argsort(np.argsort(-np.abs(score), axis=None, kind="stable")).reshape(score.shape)
        level = sum(place < count - count // levels * step for step in range(levels))
        sign = np.sign(score) if signed else 1
        np.testing.assert_array_equal(values, level * 2.0 ** (1 - bits) * sign)


@every_learner
def test_the_gradient_of_a_weight_reaches_its_score(learner: MultiLevelLearner) -> None:
    upstream = {name: RANDOM.normal(size=score.shape).astype(np.float32) for name, score in SCORES.items()}
    factors = np.asarray(learner.factors, np.float32)

    def total(scores: dict) -> jax.Array:
        masks = learner.masks(scores, run(learner, 0.4), KEY)
        return sum((upstream[name] * (mask * factors).sum(-1)).sum() for name, mask in masks.items())

    found = jax.grad(total)(jax.tree.map(jnp.asarray, SCORES))
    for name, score in SCORES.items():
        expected = upstream[name] * (1 if learner.levels()[1] else np.sign(score))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)


@pytest.mark.slow
@every_learner
def test_what_a_start_keeps_comes_first_with_its_sign(learner: MultiLevelLearner) -> None:
    network = learner.prepare(PLAIN)
    assert learner.prepare(network) == network and network.source_weights == PLAIN.source_weights
    values = {name: RANDOM.choice([0.0, *learner.factors], drawn.shape) for name, drawn in PLAIN.random_tensors.items()}
    start = {name: value[..., None] == np.array(learner.factors) for name, value in values.items()}
    begun = learner.warm_start_scores(learner.initial(network, 3), start)
    counts = {name: jnp.int32(np.count_nonzero(value) * len(learner.factors)) for name, value in values.items()}
    final_masks = learner.final_masks(jax.tree.map(jnp.asarray, begun), run(learner, 1)._replace(counts=counts), KEY)
    for name, value in values.items():
        found = np.asarray(final_masks[name]) @ np.array(learner.factors)
        np.testing.assert_array_equal(np.sign(found), np.sign(value))


def test_sources_and_options_are_refused() -> None:
    assert all(isinstance(leaf, MultiLevelLayer) for leaf in SignedSupermask().prepare(PLAIN).sources.values())
    with pytest.raises(
        InputError, match=r"signed-supermask must have a source of plain random layers, and 'fc1' is a gadget"
    ):
        SignedSupermask().prepare(GADGET)
    with pytest.raises(InputError, match="'fc1' is a multi_level_layer"):
        MultiBitSupermask().prepare(SignedSupermask().prepare(PLAIN))
    for bits in (0, 5, 2.0, True):
        with pytest.raises(InputError, match="`bits` must be a whole number from 1 to 4"):
            MultiBitSupermask(bits=bits)  # type: ignore[arg-type]
