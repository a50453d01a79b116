"""Every model of the catalogue becomes a target that computes the same, and tickets that do nearly so."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax import load_ticket, target_from, verify
from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions import CONSTRUCTIONS
from lottery_jax.importers.frameworks import model_function
from lottery_jax.importers.jax_trace import trace
from lottery_jax.importers.target_from import ImportedModel, import_model
from lottery_jax.networks.architectures import ARCHITECTURES
from lottery_jax.networks.network import network_from_json
from lottery_jax.networks.rewrites import fold_batch_norm
from tests.importers import image_models, other_models, sequence_models  # noqa: F401
from tests.importers.models import MODELS, zoo_target

BATCH = 16
"""As many examples as the import compares, so that both sides are compiled once."""
QUICK = {name for name, entry in MODELS.items() if not entry.slow}
QUICKLY_APPROXIMATED = {
    *("mlp with tanh", "highway network", "depthwise and pointwise", "attention by hand", "equinox, mlp"),
    *("batch norm around a dense layer", "function of tokens, one-hot"),
}
TOLERANCES = {"scalar": 0.003, "pensia": 0.06}


def cases(names: list[str], quick: set[str]) -> list:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@functools.cache
def imported(name: str) -> ImportedModel:
    return import_model(*MODELS[name].build(0))


def examples(name: str, seed: int) -> np.ndarray:
    """Inputs that the import has not seen: normal numbers, or tokens of the example's."""
    spec, example = imported(name).target.network.input_spec, MODELS[name].build(0)[1]
    random = np.random.default_rng(seed)
    if not isinstance(example, tuple) and example.dtype == np.int64:
        return random.integers(0, example.max() + 1, (BATCH, *spec.shape)).astype(np.int32)
    return random.normal(size=(BATCH, *spec.shape)).astype(np.float32)


def test_the_catalogue_is_large() -> None:
    assert len(MODELS) >= 100 and len(QUICK) >= 40 and QUICKLY_APPROXIMATED < QUICK


@pytest.mark.parametrize("name", cases([*MODELS], QUICK))
def test_a_target_computes_what_its_model_does(name: str) -> None:
    target, model, placements = imported(name).target, imported(name).model, imported(name).placements
    x = examples(name, seed=7)
    expected, found = np.asarray(model.original(jnp.asarray(x))), np.asarray(target.forward()(jnp.asarray(x)))
    assert found.shape == expected.shape and found.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert network_from_json(json.loads(json.dumps(target.network.to_json()))) == target.network
    assert not model.parameters or {one.parameter for one in placements.values()} <= set(model.parameters)


def pure_function(arguments: tuple) -> tuple[Any, dict[str, np.ndarray], jax.ShapeDtypeStruct]:
    """The arguments of `trace` from those of `target_from`."""
    model, example, *rest = arguments
    shape = example if isinstance(example, tuple) else example.shape
    dtype = np.float32 if isinstance(example, tuple) or example.dtype.kind == "f" else np.int32
    own = model_function(model, np.zeros((1, *shape[1:]), dtype), *rest)
    return own.function, own.parameters, jax.ShapeDtypeStruct(shape[1:], dtype)


@pytest.mark.parametrize("name", cases([*MODELS], QUICK))
def test_all_weights_give_one_graph(name: str) -> None:
    """Also constant weights, zeros and equal ones."""
    graph = imported(name).target.network.root
    other = trace(*pure_function(MODELS[name].build(1)))
    assert other.graph == graph
    assert {name: array.shape for name, array in other.tensors.items()} == imported(name).target.network.tensors


@pytest.mark.parametrize("name", cases([*ARCHITECTURES], {"fc2", "lenet-300-100", "vit"}))
def test_a_module_of_every_architecture_is_imported_as_itself(name: str) -> None:
    """The linear layers have the tensors of the architecture, batch normalisation folded."""
    own = zoo_target(name)
    target = target_from(own.module(), (1, *own.network.input_spec.shape))
    x = np.random.default_rng(7).normal(size=(BATCH, *own.network.input_spec.shape)).astype(np.float32)
    expected = np.asarray(own.forward()(jnp.asarray(x)))
    found = np.asarray(target.forward()(jnp.asarray(x)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    folded = fold_batch_norm(own)
    if name == "rotations":  # one convolution for all rotations of a kernel
        assert len(target.network.weight_nodes) == len(folded.network.weight_nodes)
        return
    assert len(target.network.approximated) == len(folded.network.approximated)
    for first, second in zip(target.network.approximated, folded.network.approximated, strict=True):
        array, other = target.array(first), folded.array(second)
        if array.ndim < other.ndim:  # on a CPU a convolution of few inputs is a product of windows
            other = np.moveaxis(other, 1, -1).reshape(len(other), -1)
        np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-6)


APPROXIMATED = [
    pytest.param(name, construction, marks=() if name in QUICKLY_APPROXIMATED else pytest.mark.slow)
    for name in MODELS
    for construction in TOLERANCES
]


@pytest.mark.parametrize(("name", "construction"), APPROXIMATED)
def test_a_ticket_of_an_imported_model(name: str, construction: str, tmp_path: Path) -> None:
    target, tolerance = imported(name).target, TOLERANCES[construction]
    objective = ToleranceObjective(tolerance, "smallest" if construction == "scalar" else "least-error")
    job = plan_job(target, CONSTRUCTIONS[construction](12), objective, seed=1, chunk_weights=64)
    run_in_memory(job).save(tmp_path / "ticket")
    ticket = load_ticket(tmp_path / "ticket")
    found = verify(ticket, target=target)
    assert (found.outcome, found.own_target) == ("holds", False) and found.worst_residual <= tolerance
    assert found.target_weights == sum(map(np.prod, target.network.approximated.values()))
    x = examples(name, seed=8)
    expected, outputs = np.asarray(target.forward()(jnp.asarray(x))), np.asarray(ticket.forward()(jnp.asarray(x)))
    error, scale = np.abs(outputs - expected), expected.std()
    # Rounding and normalisation of nearly equal numbers magnify errors: a bound for the mean.
    assert error.mean() <= 40 * tolerance * scale and error.mean() < 0.3 * scale
    assert np.corrcoef(outputs.ravel(), expected.ravel())[0, 1] > 0.98
