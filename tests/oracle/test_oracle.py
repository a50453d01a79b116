"""The verifier compared with an independent reader of the file format, for every source, construction and layer."""

import ast
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.networks.forward import forward
from lottery_jax.networks.registry import NODES
from lottery_jax.networks.rewrites import match_rewrites
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.tickets.verify import verify
from tests.fuzz.originals import ORIGINALS, target_of, write_originals
from tests.oracle import effective
from tests.oracle.ticket_file import read_ticket

SLOW = (
    *("scalar, lossless", "scalar, loss-aware", "scalar, budget", "scalar, smallest", "pensia, residual", "malach"),
    *("orseau", "natale", "pensia, rare unit", "redundant", "dacunha, convolutions", "random layer, residual"),
)
"""Tickets that take long to make, and whose sources and layers are in others or in the slow tests."""
HERE = Path(__file__).parent
ALLOWED = {"numpy", "constriction", "tests"} | set(sys.stdlib_module_names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals")


def test_the_oracle_imports_nothing_of_the_package() -> None:
    files = [path for path in HERE.glob("*.py") if not path.name.startswith("test_")]
    assert len(files) >= 5
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in ALLOWED, f"{path.name} imports {name}"
                assert not name.startswith("tests") or name.startswith("tests.oracle"), f"{path.name} imports {name}"


def float64_outputs(ticket: Ticket, x: np.ndarray) -> np.ndarray:
    """The masked random network itself, in float64."""
    tensors = {**ticket.masked_source(), **ticket.masked_stored}
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        network = forward(ticket.network, {name: value.astype(np.float64) for name, value in tensors.items()})
        return np.asarray(network(jnp.asarray(x, jnp.float64)))


@pytest.mark.parametrize(
    "label", [pytest.param(label, marks=pytest.mark.slow if label in SLOW else ()) for label in ORIGINALS]
)
def test_the_oracle_agrees(label: str, folder: Path) -> None:
    labels = list(ORIGINALS)
    path = folder / str(labels.index(label))
    ORIGINALS[label].make(ORIGINALS[label].target()).save(path, coded=ORIGINALS[label].coded)
    ticket, found = load_ticket(path), read_ticket(path)
    for name, tensor in ticket.network.random_tensors.items():
        np.testing.assert_array_equal(found.masks[name].reshape(tensor.shape), ticket.mask(name))
        drawn = tensor.draw_all(ticket.seed, ticket.redraws(name))
        own = np.broadcast_to(drawn, tensor.shape)
        np.testing.assert_array_equal(found.weights(name).reshape(tensor.shape), own)
    weights, own = effective.effective_weights(found), effective_weights(ticket)
    assert set(weights) == set(own)
    exact = label.startswith("kumar")  # multiples of a power of two, whose sums are not rounded
    for name, value in own.items():
        largest = float(np.abs(value).max())
        np.testing.assert_allclose(weights[name], value, rtol=0, atol=0 if exact else 1e-12 * max(largest, 1.0))
    target = match_rewrites(target_of(label, ticket), ticket.network)
    certificate = verify(ticket, target=target)
    if certificate.worst_residual is not None:
        residuals = effective.residuals(found, {name: target.array(name) for name in weights})
        worst = max(float(value.max()) for value in residuals.values())
        assert worst == pytest.approx(certificate.worst_residual, rel=1e-9, abs=1e-13)
        total = sum(float(value.sum()) for value in residuals.values())
        assert total / sum(value.size for value in residuals.values()) == pytest.approx(
            certificate.mean_residual, rel=1e-9, abs=1e-13
        )
    if ticket.network.input_spec is not None:
        low = 0.0 if ticket.network.input_spec.nonnegative else -1.0
        x = np.random.default_rng(3).uniform(low, 1, (7, *ticket.network.input_spec.shape)).astype(np.float32)
        outputs = effective.outputs(found, x)
        size = max(float(np.abs(outputs).max()), 1.0)
        # Flax computes the softmax of attention in float32.
        limit = 1e-6 if any(node.kind == "attention" for _, node in ticket.network.nodes()) else 1e-12
        np.testing.assert_allclose(outputs, float64_outputs(ticket, x), rtol=0, atol=limit * size)
        made = np.asarray(ticket.module()(jnp.asarray(x)))  # type: ignore[operator]
        np.testing.assert_allclose(outputs, made, rtol=0, atol=1e-4 * size)


@pytest.mark.slow
def test_every_kind_of_node_is_in_a_ticket(folder: Path) -> None:
    """The parameters above have every kind, so that each is compared."""
    kinds = set()
    write_originals(folder)
    for number in range(len(ORIGINALS)):
        network = load_ticket(folder / str(number)).network
        for own in (network, network.target):
            kinds |= {node.kind for _, node in own.nodes()}
    assert kinds == set(NODES)
