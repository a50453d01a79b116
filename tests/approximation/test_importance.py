"""Fisher information against finite differences in float64, and against what it is for: the divergence of outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.approximation.importance import IMPORTANCES, fisher_importance
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.target import Target
from tests.constructions.catalogue import NETWORKS, bag, random_target


def mlp(*sizes: int, bias: bool = True, seed: int = 0) -> Target:
    random = np.random.default_rng(seed)
    pairs = list(zip(sizes[1:], sizes, strict=False))
    biases = [random.normal(0, 0.3, outputs) for outputs, _ in pairs] if bias else None
    return mlp_target([random.normal(0, 0.8, pair) for pair in pairs], biases)


def images(target: Target, count: int, seed: int = 1) -> np.ndarray:
    assert target.network.input_spec is not None
    return np.random.default_rng(seed).uniform(0, 1, (count, *target.network.input_spec.shape)).astype(np.float32)


def outputs_of(tensors: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Of an MLP, in NumPy."""
    x = x.astype(np.float64)
    for layer in range(1, 1 + sum(name.endswith("weight") for name in tensors)):
        x = np.maximum(x, 0) if layer > 1 else x
        x = x @ tensors[f"fc{layer}.weight"].T + tensors.get(f"fc{layer}.bias", 0)
    return x


def log_probabilities(tensors: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    x = outputs_of(tensors, x)
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def exact(target: Target) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float64) for name, value in target.arrays().items()}


def by_differences(target: Target, x: np.ndarray, step: float = 1e-5) -> dict[str, np.ndarray]:
    """F_i = mean over x of sum over y of p(y|x) (d log p(y|x) / d w_i)^2, one weight at a time."""
    tensors = exact(target)
    probabilities, found = np.exp(log_probabilities(tensors, x)), {}
    for name, values in tensors.items():
        found[name] = np.empty_like(values)
        for place in np.ndindex(values.shape):
            kept, sides = values[place], []
            for sign in (1, -1):
                values[place] = kept + sign * step
                sides.append(log_probabilities(tensors, x))
            values[place] = kept
            slope = (sides[0] - sides[1]) / (2 * step)
            found[name][place] = (probabilities * slope**2).sum(1).mean()
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(4, 3), (4, 5, 3, 2)])
def test_against_finite_differences(sizes: tuple[int, ...], bias: bool) -> None:
    target = mlp(*sizes, bias=bias)
    x = images(target, 7)
    found, wanted = fisher_importance(target, x), by_differences(target, x)
    assert set(found) == set(wanted) == set(target.network.approximated)
    for name, values in found.items():
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, wanted[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("residual", "rotations", "transformer") else ())
        for name in NETWORKS
        if not name.startswith("mlp")
    ],
)
def test_against_the_derivatives_of_the_whole_network(name: str) -> None:
    """Where weights are shared between places: one example and one class after the other. Norms are folded first."""
    target = random_target(NETWORKS[name](True))
    x, whole = images(target, 5), fold_batch_norm(target)
    network, tensors = whole.network, {name: jnp.asarray(value) for name, value in whole.arrays().items()}

    @jax.jit
    @jax.vmap
    def one(image: jax.Array) -> dict[str, jax.Array]:
        def logs(weights: dict[str, jax.Array]) -> jax.Array:
            return jax.nn.log_softmax(network.module({**tensors, **weights})(image[None])[0])  # type: ignore[operator]

        weights = {name: tensors[name] for name in network.approximated}
        probabilities = jnp.exp(logs(weights))
        return {name: jnp.tensordot(probabilities, slope**2, 1) for name, slope in jax.jacrev(logs)(weights).items()}

    wanted = one(jnp.asarray(x))
    for batch_size in (None, 2):
        found = fisher_importance(target, x, batch_size=batch_size)
        assert {name: values.shape for name, values in found.items()} == network.approximated
        for name, values in found.items():
            np.testing.assert_allclose(values, wanted[name].mean(0), rtol=1e-3, atol=1e-7)


def test_of_several_labels_it_is_that_of_each_label_as_two_classes() -> None:
    """The logits of a label are its output and 0: one target of two classes for each output."""
    target = mlp(4, 5, 3)
    x, tensors = images(target, 9), target.arrays()
    wanted = {name: np.zeros(value.shape) for name, value in tensors.items()}
    for label in range(3):
        weight, bias = (
            np.stack([tensors[name][label], 0 * tensors[name][label]]) for name in ("fc2.weight", "fc2.bias")
        )
        pair = mlp_target([tensors["fc1.weight"], weight], [tensors["fc1.bias"], bias])
        for name, values in fisher_importance(pair, x).items():
            place, part = (label, values[0]) if name.startswith("fc2") else (..., values)
            wanted[name][place] += part
    for name, values in fisher_importance(target, x, label_kind="multilabel").items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("outputs", [1, 3])
def test_of_a_regression_it_predicts_the_squared_error_of_a_changed_weight(outputs: int) -> None:
    target = mlp(4, 6, outputs)
    x, tensors = images(target, 50), exact(target)
    fisher, before = fisher_importance(target, x, label_kind="regression"), outputs_of(tensors, x)
    for name, place in (("fc1.weight", (1, 2)), ("fc2.weight", (0, 2)), ("fc2.bias", (0,))):
        kept = tensors[name][place]
        tensors[name][place] += 1e-6
        error = ((outputs_of(tensors, x) - before) ** 2).sum(1).mean()
        tensors[name][place] = kept
        assert error == pytest.approx(fisher[name][place] * 1e-12, rel=1e-3)


def test_it_predicts_the_divergence_of_a_changed_weight() -> None:
    target = mlp(4, 6, 3)
    x, tensors = images(target, 50), exact(target)
    fisher, before = fisher_importance(target, x), log_probabilities(tensors, x)
    tensors["fc2.weight"][1, 2] += 1e-3
    divergence = (np.exp(before) * (before - log_probabilities(tensors, x))).sum(1).mean()
    assert divergence == pytest.approx(fisher["fc2.weight"][1, 2] * 1e-3**2 / 2, rel=2e-3)


def test_batches_only_round() -> None:
    target = mlp(4, 5, 3)
    x = images(target, 23)
    whole = fisher_importance(target, x)
    for batch_size in (1, 8, 23, 100):
        for name, values in fisher_importance(target, x, batch_size=batch_size).items():
            np.testing.assert_allclose(values, whole[name], rtol=1e-5)
    again = fisher_importance(target, x)
    assert all((again[name] == values).all() for name, values in whole.items())


def test_a_dead_input_and_a_dead_unit_have_no_importance() -> None:
    target = mlp(4, 5, 3, bias=False)
    x, arrays = images(target, 9), target.arrays()
    x[:, 1], arrays["fc1.weight"][2] = 0, -1
    found = fisher_importance(Target(target.network, arrays), x)  # type: ignore[arg-type]
    first, second = found["fc1.weight"], found["fc2.weight"]
    assert (first[:, 1] == 0).all() and (first[2] == 0).all() and (second[:, 2] == 0).all()
    assert (first[:, 0] > 0).any() and (second > 0).any()


def test_damping_adds_the_mean_over_all_weights() -> None:
    target = mlp(4, 5, 3)
    x = images(target, 9)
    plain, damped = (fisher_importance(target, x, damping=damping) for damping in (0, 0.5))
    mean = np.concatenate([values.ravel() for values in plain.values()]).mean()
    for name, values in plain.items():
        np.testing.assert_allclose(damped[name], values + 0.5 * mean, rtol=1e-12)
    assert IMPORTANCES == {"uniform": None, "fisher": 0, "fisher-damped": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": mlp(4, 1)}, "one output"),
        ({"target": bag()}, "name the architecture of the model"),
        ({"images": np.zeros((0, 4), np.float32)}, "N from 1 up"),
        ({"images": np.zeros((2, 3), np.float32)}, r"\['N', 4\]"),
        ({"images": np.zeros(4, np.float32)}, r"got \[4\]"),
        ({"images": np.full((2, 4), np.nan, np.float32)}, "NaN"),
        ({"images": np.full((2, 4), 1e30, np.float32)}, "overflow"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"damping": -0.1}, "damping"),
        ({"damping": np.nan}, "damping"),
    ],
)
def test_bad_input_is_refused(change: dict, words: str) -> None:
    arguments = {"target": mlp(4, 2), "images": np.ones((2, 4), np.float32), **change}
    with pytest.raises(InputError, match=words):
        fisher_importance(**arguments)
