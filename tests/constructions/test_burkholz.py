"""Depth L + 1: the theorem's shape, any activation, copies that agree, and what it does not cover."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.approximation import Budget, ToleranceObjective, plan_job, run_in_memory
from lottery_jax.bounds import bound_output
from lottery_jax.constructions.burkholz import Burkholz
from lottery_jax.errors import InputError
from lottery_jax.io.tensor_file import TensorFile, read_array
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.layers.activations import LeakyRelu, Relu, Sigmoid, Tanh
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import LayerNorm
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec, StatelessLayer
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.theory.theorems import Burkholz2022
from lottery_jax.tickets.export import export_weights
from lottery_jax.tickets.reconstruct import collapse, effective_weights
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import CHUNK, COUNT, TARGETS, random_target

MLP = "mlp with biases, inputs of any sign"


def ticket_of(target: Target, tolerance: float = 0.05, copies: int = COUNT) -> Ticket:
    return run_in_memory(
        plan_job(target, Burkholz(copies), ToleranceObjective(tolerance, max_redraws=60), seed=0, chunk_weights=CHUNK)
    )


def chain(*nodes: tuple[str, Node], given: Spec) -> Target:
    return random_target(Network(Chain(nodes), given))


@pytest.mark.parametrize("bias", [False, True])
def test_widths_and_weights_are_the_theorems(bias: bool) -> None:
    """rho copies of every hidden neuron and of the constant; the first layer is two, and depth is L + 1."""
    network, copies = mlp((5, 4, 3, 2), Spec((5,)), bias=bias), 6
    source = Burkholz(copies).source(random_target(network))
    theorem = Burkholz2022()
    sums = sum(layer.size for layer in random_target(network).arrays().values())
    # The factor that asks for so many copies.
    theorem = dataclasses.replace(theorem, factor=copies / np.log(max(sums / 0.01, 10)))
    asked = theorem.require(network, tolerance=0.1, delta=0.01)
    leaves = list(source.sources.values())
    assert isinstance(leaves[0], Gadget) and not any(isinstance(leaf, Gadget) for leaf in leaves[1:])
    assert asked.depth == len(leaves) + 1 == 4
    # Units of the first layer; then rho of each neuron, and of the constant where there are biases.
    given = [2 * copies * (5 + bias), *((size + bias) * copies for size in (4, 3))]
    assert asked.hidden == tuple(given)
    for path, leaf in source.sources.items():
        spec = source.input_spec_of(path)
        assert spec is not None and spec.shape[-1] == leaf.layer.inputs * spec.copies
        assert spec.copies == (1 if path == "fc1" else copies)
    assert source.output_spec is not None and source.output_spec.shape == (2,)
    # The theorem's matrices are whole: the first one with edges that the gadget's block pattern leaves out, and with
    # rows that make the constant units, which are given here.
    drawn = {name: tensor.weights for name, tensor in source.random_tensors.items()}
    first = given[0] * (5 + bias)
    assert asked.source_weights is not None
    constants = given[0] * copies + (given[1] * copies)  # of the layers but the last
    matrices = sum(drawn.values()) - drawn["fc1.first"] + first
    assert asked.source_weights == matrices + constants
    # Its proof keeps all first edges and second ones, and of each later subset sum half of the candidates.
    sums_of = [
        sum(source.random_tensors[f"{path}.{own}"].rows for own in leaf.layer.tensors())
        for path, leaf in source.sources.items()
    ]
    later = [count * copies // 2 for count in sums_of[1:]]
    assert asked.kept_weights == given[0] + sums_of[0] * copies + sum(later)


@pytest.mark.parametrize(
    "activation",
    [Tanh(), *(pytest.param(one, marks=pytest.mark.slow) for one in (Relu(), LeakyRelu(0.2), Sigmoid()))],
    ids=lambda one: one.kind,
)
def test_any_activation(activation: StatelessLayer) -> None:
    """Where others split signs, a sum over copies does not care: outputs follow the target on inputs of any sign."""
    dense = (("fc1", Dense(5, 4, bias=True)), ("a", activation), ("fc2", Dense(4, 4, bias=True)), ("b", activation))
    target = chain(*dense, ("fc3", Dense(4, 3)), given=Spec((5,)))
    ticket = ticket_of(target, 0.004, 12)
    found = verify(ticket, target=target)
    assert found.holds and found.within_tolerance == found.target_weights == target.weights
    x = np.random.default_rng(1).uniform(-1, 1, (16, 5)).astype(np.float32)
    wanted, made = (np.asarray(one.forward()(jnp.asarray(x))) for one in (target, ticket))
    assert np.abs(made - wanted).max() < 0.2 * np.ptp(wanted, 0).max()


@pytest.mark.slow
def test_convolutions_pooling_and_flattening() -> None:
    """Flatten is channels first: copies of a number of its output are not neighbours."""
    target = chain(
        ("conv1", Conv(2, 3, (3, 3), padding=(1, 1), bias=True)),
        ("a", Relu()),
        ("max", MaxPool((2, 2))),
        ("block", Residual(Chain((("conv", Conv(3, 3, (3, 3), padding=(1, 1))), ("b", Relu()))))),
        ("mean", AveragePool((1, 3), stride=(1, 1))),
        ("flatten", Flatten()),
        ("fc1", Dense(12, 4, bias=True)),
        ("c", Relu()),
        ("fc2", Dense(4, 3)),
        given=Spec((4, 8, 2)),
    )
    ticket = ticket_of(target, 0.03, 9)
    assert verify(ticket, target=target).holds
    assert ticket.network.sources["fc1"].copy_stride == 4  # type: ignore[attr-defined]
    x = np.random.default_rng(1).uniform(-1, 1, (16, 4, 8, 2)).astype(np.float32)
    wanted, made = (np.asarray(one.forward()(jnp.asarray(x))) for one in (target, ticket))
    assert np.abs(made - wanted).max() < 0.2 * np.ptp(wanted, 0).max()


def test_the_collapsed_form_and_what_is_exported(tmp_path) -> None:
    target = TARGETS[MLP]()
    ticket = ticket_of(target)
    made = effective_weights(ticket)
    assert made["fc1.weight"].shape[0] == 2 * COUNT and made["fc2.weight"].shape[0] == 1
    plain, tensors = collapse(ticket, made)
    assert plain.tensors["fc2.weight"] == (4, 6 * COUNT)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 2, 2, 2)).astype(np.float32)
    run = plain.module({name: jnp.asarray(value, jnp.float32) for name, value in tensors.items()})
    np.testing.assert_allclose(run(x), ticket.forward()(jnp.asarray(x)), rtol=1e-4, atol=1e-5)  # type: ignore[operator]
    export_weights(ticket, tmp_path / "weights")
    exported = read_array(TensorFile(tmp_path / "weights"), "fc1.weight")
    np.testing.assert_allclose(exported, made["fc1.weight"].mean(0), rtol=1e-6)
    with pytest.raises(InputError, match="a network with replicated neurons, as in the layer"):
        bound_output(ticket, target)


def test_a_copy_that_fails_is_drawn_again_alone() -> None:
    ticket = ticket_of(TARGETS[MLP](), 0.03)
    rows = ticket.redraws("fc1.weight")
    assert len(rows) and rows[:, 0].max() >= 6 * 8, "blocks are counted by copy"
    assert len(np.unique(rows[:, 0] // COUNT)) > 1 and any(np.diff(rows[:, 0]) > 1)


@pytest.mark.slow
def test_a_budget_is_kept() -> None:
    target = TARGETS[MLP]()
    importance = {name: np.full(value.shape, 2.0) for name, value in target.arrays().items()}
    plain, weighted = (
        run_in_memory(plan_job(target, Burkholz(COUNT), Budget(900, k_max=3, importance=given), seed=0))
        for given in (None, importance)
    )
    assert plain.kept_weights <= 900 and plain.masks.keys() == weighted.masks.keys()
    for name in plain.masks:
        np.testing.assert_array_equal(plain.mask(name), weighted.mask(name))
    squares = sum(
        ((value - target.array(name)) ** 2).sum()
        for name, value in effective_weights(plain).items()
        if name in ("fc2.weight", "fc2.bias")
    )
    assert 0 < squares < plain.header.settings["error"]


@pytest.mark.parametrize(
    ("nodes", "given", "words"),
    [
        (
            (("embed", Dense(4, 8)), ("norm", LayerNorm(8)), ("fc", Dense(8, 2))),
            Spec((3, 4)),
            r"'norm' \(layer_norm\) does not allow; use pensia",
        ),
        (
            (("attn", Attention(2, Dense(4, 12), Dense(4, 4))), ("pool", GlobalPool()), ("fc", Dense(4, 2))),
            Spec((3, 4)),
            r"'attn' \(attention\) does not allow; use pensia",
        ),
        (
            (("block", Residual(Dense(4, 4))), ("fc", Dense(4, 2))),
            Spec((4,)),
            r"block 'block' adds single values to copies.*put a layer in front",
        ),
        (
            (("fc", Dense(4, 4)), ("block", Residual(Dense(4, 4)))),
            Spec((4,)),
            r"block 'block' adds single values to copies.*behind it",
        ),
    ],
    ids=["layer norm", "attention", "first block", "last block"],
)
def test_what_the_theorem_does_not_cover_is_refused(nodes: tuple, given: Spec, words: str) -> None:
    target = chain(*nodes, given=given)
    with pytest.raises(InputError, match=words):
        plan_job(target, Burkholz(COUNT), ToleranceObjective(), seed=0)


def test_tokens_pass() -> None:
    nodes = (("conv", Conv(1, 2, (1, 1))), ("tokens", Tokens()), ("fc", Dense(2, 2)), ("pool", GlobalPool()))
    source = Burkholz(3).source(chain(*nodes, given=Spec((2, 2, 1))))
    assert source.output_spec == Spec((2,)) and source.input_spec_of("fc") == Spec((4, 6), copies=3)


def test_a_single_layer_is_a_gadget_whose_outputs_exist_once() -> None:
    target = chain(("fc", Dense(4, 3, bias=True)), given=Spec((4,)))
    ticket = ticket_of(target)
    assert verify(ticket, target=target).holds and ticket.mask("fc.weight").shape == (3, 4, 1, 2 * COUNT)
