"""Weights of a ticket back into the model: every framework, folded normalisations, what no parameter holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from lottery_jax import InputError, approximate, target_from
from lottery_jax.importers.target_from import import_model
from lottery_jax.importers.write_back import load_weights, parameters_with

SHAPE = (6, 5, 3)


class Block(nnx.Module):
    """A convolution with normalisation, a residual and a head; all running statistics and scales are nontrivial."""

    def __init__(self, seed: int, *, affine: bool = True) -> None:
        rngs, random = nnx.Rngs(seed), np.random.default_rng(seed)
        options = {"use_running_average": True, "use_scale": affine, "use_bias": affine, "rngs": rngs}
        self.conv, self.norm = nnx.Conv(3, 3, (3, 3), rngs=rngs), nnx.BatchNorm(3, **options)
        self.layer_norm, self.head = nnx.LayerNorm(3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)
        for variable in jax.tree.leaves(nnx.state(self), is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)):
            noise = random.uniform(0.5, 1.5, variable.shape).astype(np.float32)
            variable[...] = variable[...] * noise + (0.1 * noise if variable.ndim == 1 else 0)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.layer_norm(x + nnx.silu(self.norm(self.conv(x)))).mean((1, 2)))


def examples(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def changed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The approximated tensors of a ticket differ a little from the target's, the stored ones do not."""
    random = np.random.default_rng(1)
    return {
        name: value + random.normal(0, 0.1, value.shape).astype(np.float32) * name.endswith((".weight", "bias"))
        for name, value in tensors.items()
        if not name.startswith("layer_norm")
    } | {name: value for name, value in tensors.items() if name.startswith("layer_norm")}


@pytest.mark.parametrize("affine", [True, False])
def test_a_module_with_a_folded_normalisation_takes_weights(affine: bool) -> None:
    model, x = Block(0, affine=affine), examples(4, *SHAPE)
    target = target_from(model, (1, *SHAPE))
    tensors = changed(target.arrays())
    expected = np.asarray(target.network.module({name: jnp.asarray(value) for name, value in tensors.items()})(x))
    assert np.abs(np.asarray(model(x)) - expected).max() > 1e-2
    statistics = np.asarray(model.norm.var[...])
    assert load_weights(model, target.network, tensors) is model
    np.testing.assert_allclose(np.asarray(model(x)), expected, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(model.norm.var[...]), statistics)


def test_a_ticket_goes_into_modules_trees_and_functions() -> None:
    random, x = np.random.default_rng(0), examples(4, 5)
    layer = {"kernel": random.normal(size=(5, 3)).astype(np.float32), "bias": random.normal(size=3).astype(np.float32)}
    module, variables = linen.Dense(3), {"params": layer}
    ticket = approximate(target_from(module, x, variables), construction="scalar", seed=0)
    loaded = ticket.load_into(module, parameters=variables)
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    np.testing.assert_allclose(module.apply(loaded, x), ticket.module()(x), atol=1e-5)

    def function(parameters, x):
        return jnp.tanh(x @ parameters["kernel"] + parameters["bias"])

    ticket = approximate(target_from(function, x, layer), construction="scalar", seed=0)
    loaded = ticket.load_into(function, parameters=layer)
    np.testing.assert_allclose(function(loaded, x), ticket.module()(x), atol=1e-5)


def test_an_equinox_module_is_made_anew() -> None:
    equinox = pytest.importorskip("equinox")
    model, x = equinox.nn.MLP(4, 2, 8, 1, key=jax.random.key(0)), examples(3, 4)
    ticket = approximate(target_from(model, x), construction="scalar", seed=0)
    loaded = ticket.load_into(model)
    assert loaded is not model
    np.testing.assert_allclose(jax.vmap(loaded)(x), ticket.module()(x), atol=1e-5)
    np.testing.assert_array_equal(loaded.layers[0].weight, ticket.weights("layers.0.weight"))


def test_what_does_not_fit_is_refused_and_the_module_stays() -> None:
    model = Block(0)
    target = target_from(model, (1, *SHAPE))
    before = np.asarray(model.head.kernel[...])
    with pytest.raises(InputError, match=r"no 'conv.weight' instead of 'conv.weight' \[3, 3, 3, 3\]"):
        load_weights(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), target.network, target.arrays(), example=(1, *SHAPE))
    ticket = approximate(target, seed=0)  # pensia has two effective weights for inputs of both signs
    with pytest.raises(InputError, match="mean must be True"):
        ticket.load_into(model)
    np.testing.assert_array_equal(np.asarray(model.head.kernel[...]), before)


def test_shared_and_computed_parameters_are_refused_by_name() -> None:
    x, weight = examples(2, 4), examples(4, 4)
    tied = import_model(lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"].T, x, {"w": weight})
    names = list(tied.target.network.approximated)
    tensors = tied.target.arrays()
    tensors[names[0]] = tensors[names[0]] + 1
    assert len(names) == 2
    with pytest.raises(InputError, match="'w'"):
        parameters_with(tied, {**tensors, names[1]: tensors[names[1]] + 2})
    both = parameters_with(tied, {**tensors, names[1]: tensors[names[1]] + 1})["w"]
    np.testing.assert_allclose(both, weight + 1, atol=1e-6)
    low_rank = import_model(lambda p, x: x @ (p["w"] + p["a"] @ p["b"]), x, {"w": weight, "a": weight, "b": weight})
    (name,) = low_rank.target.network.approximated
    with pytest.raises(InputError, match="computes the tensor from"):
        parameters_with(low_rank, {name: low_rank.target.array(name) + 1})
