"""Top-k masks: equal to a stable sort on the host, exact in count, differentiable through |score|."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.networks.top_k import kept_count, top_k_mask

RANDOM = np.random.default_rng(7)
SIZE = 300  # of most cases: they run the same compiled program
CASES = {
    "random": RANDOM.normal(size=1003),
    "tensor": RANDOM.uniform(-0.02, 0.02, (20, 5, 11)),
    "ties": RANDOM.integers(-3, 4, SIZE),
    "all equal": np.full(SIZE, -0.25),
    "zeros": np.zeros(SIZE),
    "signed zeros": np.resize([0.0, -0.0, 1.0, -0.0, 0.0], SIZE),
    "negatives": -RANDOM.exponential(size=SIZE),
    "size 1": np.array([[3.0]]),
    "size 2": np.array([1.0, 1.0]),
    "huge and tiny": RANDOM.normal(size=SIZE) * 10.0 ** RANDOM.integers(-44, 38, SIZE),
    "denormals": np.arange(-SIZE // 2, SIZE // 2) * 1e-45,
    "infinite": np.resize([np.inf, 1.0, -np.inf, 0.0, np.inf], SIZE),
    "nan": np.resize([np.nan, 0.0, 2.0, np.nan, -1.0, 0.0], SIZE),
    "all nan": np.full(SIZE, np.nan),
    "neighbouring floats": np.nextafter(np.float32(1), np.float32(2)) ** np.arange(SIZE),
}
# Above 2**17 scores a sample says where to look; what it misses, and ties and columns that it knows nothing of, too.
LONG = 140_003
PLACES = np.arange(LONG)
LONG_CASES = {
    "random": RANDOM.uniform(-0.02, 0.02, LONG),
    "tensor": RANDOM.normal(size=(7, 20_000)),
    "ties": RANDOM.integers(-3, 4, LONG),
    "some ties": RANDOM.integers(-20_000, 20_000, LONG),
    "all equal": np.full(LONG, -0.25),
    "sorted": np.sort(RANDOM.normal(size=LONG)),
    "huge and tiny": RANDOM.normal(size=LONG) * 10.0 ** RANDOM.integers(-44, 38, LONG),
    "infinite": np.where(PLACES % 3 == 0, -np.inf, RANDOM.normal(size=LONG)),
    "nan": np.where(PLACES % 3 == 0, np.nan, RANDOM.normal(size=LONG)),
    "all nan": np.full(LONG, np.nan),
    "misleading sample": np.where(PLACES % 544 < 16, 1.0, 1e-3) * RANDOM.uniform(0.5, 1, LONG),
    "crowded columns": np.where(
        PLACES % (LONG // 16) < 40, RANDOM.uniform(0.3, 0.3001, LONG), RANDOM.uniform(size=LONG)
    ),
}
KEEPS = (0.0, 0.004, 0.1, 1 / 3, 0.5, 0.73, 0.999, 1.0)

traced = jax.jit(top_k_mask)
select = jax.jit(jax.vmap(top_k_mask, (None, 0)))


def stable_sort_mask(scores: np.ndarray, count: int) -> np.ndarray:
    """Oracle: a stable sort by falling |score|, NaN last."""
    flat = np.abs(scores.astype(np.float32).reshape(-1))
    order = np.argsort(np.where(np.isnan(flat), -1, flat).astype(np.float64) * -1, kind="stable")
    mask = np.zeros(flat.size, np.float32)
    mask[order[:count]] = 1
    return mask.reshape(scores.shape)


@pytest.mark.parametrize("name", CASES)
def test_equals_a_stable_sort(name: str) -> None:
    scores = CASES[name]
    counts = {round(keep * scores.size) for keep in KEEPS} | {1, scores.size - 1}
    wanted = jnp.array(sorted(counts), jnp.int32)
    for mask, count in zip(select(jnp.asarray(scores, jnp.float32), wanted), wanted.tolist(), strict=True):
        np.testing.assert_array_equal(mask, stable_sort_mask(scores, count))
        assert mask.dtype == jnp.float32


@pytest.mark.parametrize("name", LONG_CASES)
def test_long_scores_equal_a_stable_sort(name: str) -> None:
    scores = LONG_CASES[name].astype(np.float32)
    for count in {round(keep * scores.size) for keep in (0.0, 0.01, 0.3, 0.7, 0.99, 1.0)} | {1, scores.size - 1}:
        np.testing.assert_array_equal(traced(scores, jnp.int32(count)), stable_sort_mask(scores, count))


@pytest.mark.slow
def test_long_scores_under_vmap_and_map_equal_a_loop() -> None:
    scores = jnp.asarray([LONG_CASES["random"], LONG_CASES["ties"], LONG_CASES["nan"]], jnp.float32)
    counts = jnp.array([40_000, 70_000, 139_000], jnp.int32)
    mapped = jax.jit(lambda scores, counts: jax.lax.map(lambda of: top_k_mask(*of), (scores, counts)))
    for runs_per_step in (jax.jit(jax.vmap(top_k_mask)), mapped):
        for mask, row, count in zip(runs_per_step(scores, counts), scores, counts.tolist(), strict=True):
            np.testing.assert_array_equal(mask, stable_sort_mask(np.asarray(row), count))


@pytest.mark.parametrize("keep", KEEPS)
def test_traced_keep_gives_the_mask_of_a_number(keep: float) -> None:
    scores = jnp.asarray(CASES["ties"], jnp.float32)
    np.testing.assert_array_equal(traced(scores, jnp.float32(keep)), top_k_mask(scores, keep))
    assert int(top_k_mask(scores, keep).sum()) == round(keep * scores.size)


def test_vmap_over_scores_and_keeps_equals_a_loop() -> None:
    scores = jnp.asarray(RANDOM.integers(0, 50, (4, 6, 30)), jnp.float32)
    keeps = jnp.array([0.0, 0.2, 0.9, 1.0], jnp.float32)
    runs_per_step = jax.jit(jax.vmap(top_k_mask))(scores, keeps)
    for i in range(4):
        np.testing.assert_array_equal(runs_per_step[i], top_k_mask(scores[i], float(keeps[i])))


def test_narrower_floats_are_compared_as_float32() -> None:
    scores = jnp.array([1.0, -2.0, 0.5, 2.0], jnp.bfloat16)
    np.testing.assert_array_equal(top_k_mask(scores, 0.5), [0, 1, 0, 1])


def test_gradient_passes_straight_through_to_the_magnitude() -> None:
    scores = jnp.array([0.5, -2.0, 0.0, 3.0, -0.1], jnp.float32)
    weight = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0], jnp.float32)
    gradient = jax.grad(lambda s: (top_k_mask(s, jnp.float32(0.4)) * weight).sum())(scores)
    np.testing.assert_array_equal(gradient, weight * jnp.sign(scores))
    _, tangent = jax.jvp(lambda s: top_k_mask(s, 0.4), (scores,), (weight,))
    np.testing.assert_array_equal(tangent, weight * jnp.sign(scores))


def test_following_the_gradient_lowers_a_loss() -> None:
    # A teacher keeps half of 60 weights; the student must find nearly the same half from data.
    weight = jnp.asarray(RANDOM.normal(size=60), jnp.float32)
    inputs = jnp.asarray(RANDOM.normal(size=(300, 60)), jnp.float32)
    outputs = inputs @ (weight * jnp.asarray(RANDOM.permutation(60) < 30, jnp.float32))

    def loss(scores: jax.Array) -> jax.Array:
        return ((inputs @ (weight * top_k_mask(scores, 0.5)) - outputs) ** 2).mean()

    step = jax.jit(lambda s: s - 0.01 * jax.grad(loss)(s))
    first = scores = jnp.asarray(RANDOM.uniform(-0.5, 0.5, 60), jnp.float32)
    for _ in range(200):
        scores = step(scores)
    assert loss(scores) < 0.1 * loss(first)


@pytest.mark.parametrize(("keep", "size", "count"), [(0.5, 5, 2), (0.5, 7, 4), (0.51, 1_959_999, 999_599), (1, 9, 9)])
def test_count_is_pythons_round(keep: float, size: int, count: int) -> None:
    assert kept_count(keep, size) == count == round(keep * size)


def test_traced_counts_stay_in_range() -> None:
    assert int(kept_count(jnp.float32(1.0), 2**24 + 1)) == 2**24 + 1
    assert [int(kept_count(jnp.float32(keep), 10)) for keep in (-0.5, 1.5, np.nan)] == [0, 10, 0]
    assert [int(kept_count(jnp.int32(count), 10)) for count in (-1, 7, 11)] == [0, 7, 10]


@pytest.mark.parametrize("keep", [-0.01, 1.01, 30, np.nan, np.inf, "half", None])
def test_keep_outside_its_range_is_refused(keep: object) -> None:
    with pytest.raises(InputError, match=r"keep must be .*\[0, 1\]"):
        top_k_mask(jnp.ones(3, jnp.float32), keep)  # pyright: ignore


def test_integer_scores_are_refused() -> None:
    with pytest.raises(InputError, match=r"scores must be floats .* got int32"):
        top_k_mask(jnp.arange(4), 0.5)
