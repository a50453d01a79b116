"""Biprop beside its equations in plain NumPy: one step, and the ticket that a training leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.biprop import Biprop
from lottery_jax.mask_learning.score_learner import RunInputs
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.training.learner import TrainingRequest
from tests.mask_learning import sources

KEY, RANDOM = jax.random.key(0), np.random.default_rng(0)
PLAIN = sources.PLAIN


def counted(network: Network, keep: float) -> RunInputs:
    counts = {name: jnp.int32(round(keep * drawn.size)) for name, drawn in network.random_tensors.items()}
    return RunInputs(*[None] * len(RunInputs._fields))._replace(counts=counts)  # type: ignore[arg-type]


def test_a_step_is_the_published_one() -> None:
    """Masks are alpha M, and the gradient of a score is that of the binary weight times the normal one."""
    learner, seed = Biprop(), 3
    network = learner.prepare(PLAIN)
    weights, signs, run = PLAIN.draw(seed), network.draw(seed), counted(network, 0.5)
    scores = jax.tree.map(jnp.asarray, learner.initial(network, seed))
    upstream = {name: RANDOM.normal(size=weight.shape).astype(np.float32) for name, weight in weights.items()}

    def total(scores: dict) -> jax.Array:
        masks = learner.masks(scores, run, KEY)
        return sum((upstream[name] * signs[name] * mask).sum() for name, mask in masks.items())

    masks, found = learner.masks(scores, run, KEY), jax.grad(total)(scores)
    for name, weight in weights.items():
        np.testing.assert_array_equal(np.sign(weight), np.sign(signs[name]))
        size = np.abs(np.asarray(scores[name]))
        kept = size >= np.sort(size, axis=None)[::-1][int(run.counts[name]) - 1]
        alpha = np.abs(weight[kept]).mean()
        np.testing.assert_allclose(masks[name] * signs[name], alpha * np.sign(weight) * kept, rtol=1e-5)
        np.testing.assert_allclose(found[name], upstream[name] * weight * np.sign(scores[name]), rtol=1e-5)


@pytest.mark.parametrize("sweeps", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_ticket_is_alpha_times_the_signs_of_the_normal_weights(sweeps: bool) -> None:
    learner = Biprop(batch_size=8, learning_rate=2.0, scale="drawn")
    given = {"seeds": [5], "keeps": [0.35], "epochs": 2, "stored": sources.stored(PLAIN)}
    if sweeps:
        (ticket,) = learner.sweep(PLAIN, TrainingRequest(sources.small_data(), **given), {"learning_rate": [2.0]})
    else:
        (ticket,) = learner.learn(PLAIN, TrainingRequest(sources.small_data(), **given))
    made = effective_weights(ticket)
    for name, weight in PLAIN.draw(5).items():
        mask = ticket.mask(name)
        expected = np.abs(weight[mask]).mean() * np.sign(weight) * mask
        np.testing.assert_allclose(made[name][0], expected, rtol=1e-6)


def test_what_a_start_keeps_comes_first() -> None:
    learner = Biprop()
    network = learner.prepare(PLAIN)
    start = {name: RANDOM.random(drawn.shape) < 0.4 for name, drawn in network.random_tensors.items()}
    counts = {name: jnp.int32(mask.sum()) for name, mask in start.items()}
    scores = jax.tree.map(jnp.asarray, learner.warm_start_scores(learner.initial(network, 3), start))
    final_masks = learner.final_masks(scores, counted(network, 1)._replace(counts=counts), KEY)
    for name, mask in start.items():
        np.testing.assert_array_equal(final_masks[name], mask)


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (
            RandomLayer(Dense(4, 2), Sampler.uniform(-1, 1)),
            r"'fc' is U\[-1, 1\] with 1 random tensors. .*or with a normal one",
        ),
        (
            RandomLayer(Dense(4, 2, bias=True), Sampler.normal(1)),
            r"without biases, and 'fc' is N\(0, 1\^2\) with 2 random",
        ),
        (sources.GADGET.sources["fc1"], "is gadget with 2 random tensors"),
    ],
)
def test_other_sources_are_refused(leaf: Node, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Biprop().prepare(Network(Chain((("fc", leaf),)), Spec((4,))))
