"""Edge-popup learns from real data, keeps exact counts, and does not depend on how runs are grouped."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.data import Dataset, load
from lottery_jax.errors import InputError
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.learner_sources import redundant_source, wide_source
from lottery_jax.mask_learning.scores import initial_scores
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.forward import Forward, forward, outputs
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.training.learner import TrainingRequest
from lottery_jax.training.losses import TaskLoss
from tests.mask_learning import sources
from tests.mask_learning.sources import GADGET, U

SMALL = sources.small_data()
LEARNER = EdgePopup(batch_size=8, learning_rate=2.0)
SEEDS, KEEPS = (5, 2**63), (0.35, 1.0)  # as in `test_learners`, so that compiled programs are shared
SHARED = sources.SOURCES["shared copies"]
ONE = sources.small(("flatten", Flatten()), ("fc", RandomLayer(Dense(4, 2), U, gain=0.5)))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def learn(source: Network = GADGET, learner: EdgePopup = LEARNER, **changes: object) -> list[Ticket]:
    return learner.learn(source, TrainingRequest(SMALL, **{"seeds": SEEDS, "keeps": KEEPS, "epochs": 2, **changes}))  # type: ignore[arg-type]


def keeps_exactly(ticket: Ticket, keep: float) -> bool:
    drawn = ticket.network.random_tensors
    return all(np.count_nonzero(mask) == round(keep * drawn[name].size) for name, mask in ticket.masks.items())


def under(ticket: Ticket, masks: dict[str, np.ndarray]) -> Forward:
    """The ticket's random network under other masks."""
    return forward(ticket.network, {name: np.where(masks[name], value, 0) for name, value in ticket.source().items()})


def shuffled(ticket: Ticket) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.permutation(mask.ravel()).reshape(mask.shape) for name, mask in ticket.masks.items()}


def test_learns_the_digits(digits: Dataset) -> None:
    wide = wide_source(redundant_source(architecture("mlp-40", Spec(digits.shape, nonnegative=True), 10)))
    learned, scarce = EdgePopup().learn(wide, TrainingRequest(digits, seeds=(1,), keeps=(0.3, 0.06), epochs=12))
    assert keeps_exactly(learned, 0.3) and keeps_exactly(scarce, 0.06)
    assert accuracy(learned.forward(), digits.validation) > 0.9
    assert accuracy(scarce.forward(), digits.validation) > 0.5
    chance = under(learned, shuffled(learned))
    assert accuracy(chance, digits.validation) < 0.5
    assert learned.header.settings["loss"] < 0.5


@pytest.mark.slow
def test_learns_with_convolutions(digits: Dataset) -> None:
    """Conv-2 at a twentieth of its width (three channels), five copies of each weight."""
    target = architecture("conv2", Spec(digits.shape, nonnegative=True), 10, width=0.05)
    source = target.map_layers(
        lambda path, node: CandidatesPerWeight(node, 5, (U,)) if path in target.weight_nodes else node
    )  # type: ignore[arg-type]
    (ticket,) = EdgePopup().learn(source, TrainingRequest(digits, seeds=(1,), keeps=(0.5,), epochs=12))
    assert keeps_exactly(ticket, 0.5)
    assert accuracy(ticket.forward(), digits.validation) > 0.4
    assert accuracy(under(ticket, shuffled(ticket)), digits.validation) < 0.25


@pytest.mark.slow
def test_learns_on_the_source_of_a_construction(digits: Dataset) -> None:
    target = architecture("mlp-30", Spec(digits.shape, nonnegative=True), 10)
    source = target.map_layers(lambda path, node: Gadget(node, 42, U, U) if path in target.weight_nodes else node)  # type: ignore[arg-type]
    (ticket,) = EdgePopup().learn(source, TrainingRequest(digits, seeds=(2,), keeps=(0.5,), epochs=15))
    assert accuracy(ticket.forward(), digits.validation) > 0.9


@pytest.mark.slow
def test_grouping_does_not_matter() -> None:
    alone = learn(SHARED)
    for one, other in zip(alone, learn(SHARED, dataclasses.replace(LEARNER, runs_per_step=2)), strict=True):
        assert keeps_exactly(one, one.header.settings["keep"])
        for name, mask in one.masks.items():
            np.testing.assert_array_equal(mask, other.mask(name))


def test_a_run_does_not_depend_on_the_others() -> None:
    runs = {(ticket.seed, ticket.header.settings["keep"]): ticket for ticket in learn(SHARED)}
    others = learn(SHARED, seeds=(8, 5), keeps=(0.0, 0.35))
    assert others[3].to_bytes() == runs[5, 0.35].to_bytes()
    for nothing in others[::2]:
        assert nothing.kept_weights == 0
        np.testing.assert_array_equal(outputs(nothing.forward(), SMALL.test.images), 0)


def test_every_layer_begins_as_a_unit() -> None:
    """Gains for the first masks: all edges to units kept, and of the weights those of the largest scores."""
    ticket = learn()[0]
    gains = {path: source.gain for path, source in ticket.network.sources.items()}
    assert all(float(np.float32(gain)) == gain for gain in gains.values()) and set(gains.values()) != {1.0}
    scores, masks = initial_scores(GADGET, 5), {}
    for name, drawn in GADGET.random_tensors.items():
        least = np.sort(np.abs(scores[name]).ravel())[-round(0.35 * drawn.size)] if name != "fc1.first" else 0.0
        masks[name] = np.abs(scores[name]) >= least
    x = jnp.asarray(SMALL.train.images)
    logits = outputs(under(ticket, masks), np.asarray(x))
    np.testing.assert_allclose(np.mean(logits**2), 1, rtol=1e-4)


def test_progress_counts_epochs_and_published_gains_stay_where_wanted() -> None:
    seen: list[tuple[int, int]] = []
    published = dataclasses.replace(LEARNER, scale="drawn")
    tickets = learn(ONE, published, epochs=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [ticket.network for ticket in tickets] == [ONE] * 4
    settings = tickets[0].header.settings
    assert (settings["epochs"], settings["scale"], settings["data"]) == (3, "drawn", "small")


@pytest.mark.parametrize(
    ("leaf", "fans"),
    [
        (RandomLayer(Dense(400, 300), U), {"weight": 400}),
        (Gadget(Dense(40, 30, bias=True), 50, U, U), {"first": 41, "weight": 2000, "bias": 50}),
        (CandidatesPerWeight(Dense(40, 300, bias=True), 20, (U, U), shared=True), {"weight": 800, "bias": 20}),
    ],
    ids=["single", "gadget", "copies"],
)
def test_scores_are_kaiming_uniform_and_not_the_source(leaf, fans: dict[str, int]) -> None:
    source = Network(leaf, Spec((leaf.layer.inputs,)))
    scores, weights = initial_scores(source, 0), source.draw(0)
    for name, fan in fans.items():
        bound, score = fan**-0.5, scores[name]
        assert score.shape == source.random_tensors[name].shape and 0.99 * bound < np.abs(score).max() <= bound
        assert abs(score.std() * 3**0.5 / bound - 1) < 0.05
        weight = np.broadcast_to(weights[name], score.shape)
        assert abs(np.corrcoef(score.ravel(), weight.ravel())[0, 1]) < 0.06
        assert (score != initial_scores(source, 1)[name]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "`learning_rate` must be positive and finite, got 0.0"),
        ({"learning_rate": float("inf")}, "`learning_rate` must be positive and finite, got inf"),
        ({"scale": "small"}, "`scale` must be one of unit, keep, drawn, got 'small'"),
        ({"batch_size": 0}, "batch size of 0 does not fit 40 examples"),
        ({"runs_per_step": 0}, "`runs_per_step` must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learn(learner=EdgePopup(**options))


def test_a_training_whose_loss_is_not_finite_is_refused() -> None:
    broken = TaskLoss(lambda outputs, labels: np.nan * outputs)
    with pytest.raises(InputError, match="training of edge-popup diverged"):
        LEARNER.learn(SHARED, TrainingRequest(SMALL, seeds=SEEDS, keeps=KEEPS, epochs=2, loss=broken))


@dataclasses.dataclass(frozen=True)
class DivergesForSix(EdgePopup):
    """Its scores are no numbers for the seed 6."""

    def initial(self, network: Network, seed: int) -> dict[str, np.ndarray]:
        return {name: score * (np.nan if seed == 6 else 1) for name, score in super().initial(network, seed).items()}


def test_a_training_that_diverges_is_refused() -> None:
    learner = DivergesForSix(batch_size=LEARNER.batch_size)
    with pytest.raises(InputError, match="training of edge-popup diverged"):
        learner.learn(SHARED, TrainingRequest(SMALL, seeds=(6,), keeps=KEEPS, epochs=1))


def test_a_run_that_diverges_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    learner = DivergesForSix(batch_size=LEARNER.batch_size)
    (ticket,) = learner.learn(SHARED, TrainingRequest(SMALL, seeds=(5, 6), keeps=(0.5,), epochs=1))
    assert ticket.seed == 5
    assert caplog.messages == ["edge-popup, seed 6, keep 0.5 diverged: no ticket; lower the learning rate"]
