"""The training loop against a hand-written one, and under jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lottery_jax.data import Split
from lottery_jax.errors import InputError
from lottery_jax.training import loop as training


@pytest.fixture
def split() -> Split:
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(50, 6)).astype(np.float32)
    return Split(images, (images[:, 0] > images[:, 1]).astype(np.int32))


def loss(parameters: dict, images: jax.Array, labels: jax.Array, key: jax.Array) -> tuple[jax.Array, dict]:
    logits = jnp.tanh(images @ parameters["first"]) @ parameters["second"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), {}


def initial(key: jax.Array) -> dict:
    one, two = jax.random.split(key)
    return {"first": jax.random.normal(one, (6, 5)), "second": jax.random.normal(two, (5, 2))}


def fit(loss, parameters, split: Split, *, key: jax.Array, optimizer, **more) -> tuple[dict, dict]:
    """A whole training in one call."""
    state = training.begin(parameters, key=key, optimizer=optimizer)
    state, history = training.advance(loss, state, split, optimizer=optimizer, **more)
    return state.parameters, history


def fitted(split: Split, key: jax.Array, rate=0.5, epochs: int = 3, **more) -> tuple[dict, dict]:
    return fit(loss, initial(key), split, key=key, optimizer=optax.sgd(rate), epochs=epochs, batch_size=8, **more)


def assert_close(one, other) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def test_equals_a_hand_written_loop(split: Split) -> None:
    key = jax.random.key(3)
    parameters, losses, descend = initial(key), [], jax.jit(jax.value_and_grad(loss, has_aux=True))
    for epoch in range(2):
        order_key, _ = jax.random.split(jax.random.fold_in(key, epoch))
        order = np.asarray(jax.random.permutation(order_key, 50))
        values = []
        for start in range(0, 48, 8):
            rows = order[start : start + 8]
            (value, _), slope = descend(parameters, split.images[rows], split.labels[rows], key)
            parameters = jax.tree.map(lambda p, s: p - 0.5 * s, parameters, slope)
            values.append(value)
        losses.append(np.mean(values))
    trained, history = fitted(split, key, epochs=2)
    assert_close(trained, parameters)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-4)


def test_every_step_has_its_own_key_and_every_example_its_turn() -> None:
    split = Split(np.arange(12, dtype=np.float32)[:, None], np.zeros(12, np.int32))

    def remember(parameters, images, labels, key):  # the "gradient" adds what was seen to what is known
        return parameters["seen"] * images[:, 0].sum() + parameters["noise"] * jax.random.uniform(key), {}

    start = {"seen": jnp.float32(0.0), "noise": jnp.float32(0.0)}
    trained, _ = fit(remember, start, split, key=jax.random.key(0), optimizer=optax.sgd(1.0), epochs=2, batch_size=4)
    assert float(trained["seen"]) == -2 * sum(range(12))
    keys = [jax.random.split(jax.random.split(jax.random.fold_in(jax.random.key(0), e))[1], 3) for e in (0, 1)]
    noise = [float(jax.random.uniform(key)) for epoch in keys for key in epoch]
    assert len(set(noise)) == 6
    np.testing.assert_allclose(-float(trained["noise"]), sum(noise), rtol=1e-5)


def test_vmap_over_keys_and_a_traced_hyper_parameter(split: Split) -> None:
    keys = jax.random.split(jax.random.key(1), 3)
    decays = jnp.array([0.0, 0.1, 1.0])

    def run(key, decay):
        def decayed(parameters, images, labels, key):
            value, moved = loss(parameters, images, labels, key)
            return value + decay * jnp.sum(parameters["first"] ** 2), moved

        return fit(decayed, initial(key), split, key=key, optimizer=optax.adam(0.1), epochs=2, batch_size=8)

    runs_per_step, history = jax.jit(jax.vmap(run))(keys, decays)
    run_one = jax.jit(run)
    assert history["loss"].shape == (3, 2)
    for at in range(3):
        alone, _ = run_one(keys[at], decays[at])
        assert_close(jax.tree.map(lambda leaf, at=at: leaf[at], runs_per_step), alone)


def test_frozen_weights_may_be_closed_over_and_stay(split: Split) -> None:
    frozen = jax.random.normal(jax.random.key(5), (6, 2))

    def scored(scores, images, labels, key):
        logits = images @ (frozen * jax.nn.sigmoid(scores))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), {}

    scores, history = fit(
        scored,
        jnp.zeros((6, 2)),
        split,
        key=jax.random.key(0),
        optimizer=optax.adam(0.1),
        epochs=20,
        batch_size=25,
    )
    assert scores.shape == (6, 2) and history["loss"][-1] < history["loss"][0]


def test_compiles_once_per_shape(split: Split) -> None:
    traces = []

    @jax.jit
    def run(key, split):
        traces.append(1)
        return fitted(split, key)[0]

    for seed in range(3):
        run(jax.random.key(seed), split)
    assert len(traces) == 1


def test_parts_with_progress_equal_the_whole(split: Split) -> None:
    key, optimizer, seen = jax.random.key(2), optax.sgd(0.5), []
    traces = []

    def advance(state, part):
        traces.append(part)
        return training.advance(loss, state, split, optimizer=optimizer, epochs=part, batch_size=8)

    compiled = jax.jit(advance, static_argnums=1)
    state = training.begin(initial(key), key=key, optimizer=optimizer)
    state, history = training.drive(
        compiled, state, epochs=40, progress=lambda done, epochs: seen.append((done, epochs))
    )
    whole, whole_history = fitted(split, key, epochs=40)
    assert_close(state.parameters, whole)
    assert_close(history, whole_history)
    assert seen == [(done, 40) for done in range(2, 41, 2)] and traces == [2]
    assert int(state.epoch) == 40


@pytest.mark.parametrize(("epochs", "part"), [(1, 1), (7, 1), (19, 1), (23, 1), (40, 2), (60, 3), (100, 5), (101, 1)])
def test_parts_are_equal(epochs: int, part: int) -> None:
    parts, seen = [], []

    def advance(done: int, part: int) -> tuple[int, dict]:
        parts.append(part)
        return done + part, {"loss": jnp.zeros(part)}

    state, history = training.drive(advance, 0, epochs=epochs, progress=lambda done, _: seen.append(done))  # type: ignore[arg-type]
    assert state == epochs == len(history["loss"]) and set(parts) == {part}
    assert seen == list(range(part, epochs + 1, part))


def test_parameters_that_move_by_themselves_are_set_after_the_step(split: Split) -> None:
    """A running mean: it is seen as it was before the step, has no gradient, and no optimiser touches it."""

    def averaged(parameters, images, labels, key):
        mean = jax.lax.stop_gradient(0.5 * parameters["mean"] + 0.5 * images.mean())
        return jnp.sum((parameters["slope"] - parameters["mean"]) ** 2), {"mean": mean}

    start = {"slope": jnp.float32(1.0), "mean": jnp.float32(0.0)}
    trained, _ = fit(averaged, start, split, key=jax.random.key(0), optimizer=optax.sgd(0.5), epochs=2, batch_size=25)
    slope, mean = 1.0, 0.0
    for epoch in range(2):
        order_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), epoch))
        order = np.asarray(jax.random.permutation(order_key, 50))
        for rows in (order[:25], order[25:]):
            slope, mean = mean, 0.5 * mean + 0.5 * float(split.images[rows].mean())
    np.testing.assert_allclose([trained["slope"], trained["mean"]], [slope, mean], rtol=1e-5)


def test_a_measure_is_taken_after_each_epoch(split: Split) -> None:
    _, history = fitted(split, jax.random.key(0), measure=lambda own: {"corner": own["first"][0, 0]})
    trained, _ = fitted(split, jax.random.key(0), epochs=1)
    assert history["corner"].shape == (3,)
    np.testing.assert_allclose(history["corner"][0], trained["first"][0, 0], rtol=1e-5)


def test_bad_settings_are_refused(split: Split) -> None:
    with pytest.raises(InputError, match="epochs is 0"):
        fitted(split, jax.random.key(0), epochs=0)
    with pytest.raises(InputError, match="batch size of 8 does not fit 4 examples"):
        fitted(Split(split.images[:4], split.labels[:4]), jax.random.key(0))


def test_a_diverged_training_is_refused(split: Split) -> None:
    trained, _ = fitted(split, jax.random.key(0), rate=float("inf"))
    with pytest.raises(InputError, match=r"scores diverged: \d+ of 40 parameters are not finite; lower the"):
        training.check_finite(trained, "the scores")
    training.check_finite(fitted(split, jax.random.key(0))[0], "the scores")
