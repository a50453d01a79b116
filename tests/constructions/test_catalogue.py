"""What must hold for every construction, target, objective and sign of inputs: end to end, from a seed to a file."""

import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.constructions import CONSTRUCTIONS, Pensia, Promise, Scalar, plan_job, run_in_memory, run_to_file
from lottery_jax.constructions.promise import OBJECTIVES
from lottery_jax.errors import InputError
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.batch_norm import BatchNorm
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.layer_norm import LayerNorm
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.networks.zoo.mlp import mlp_target
from lottery_jax.sampler import Sampler, draw_host
from lottery_jax.tickets.certificate import verify
from lottery_jax.tickets.ticket import Ticket, load_ticket
from tests.constructions.catalogue import CHUNK, COUNT, COVERED, NETWORKS, TARGETS, bag, random_target
from tests.constructions.oracles import check_against_all_subsets, sensitivity

SEED = 2**33 + 5
BATCH = 4
"""As many examples as the verifier runs a network on, so that it is compiled once."""

CASES = [
    (name, of)
    for name, of in itertools.product(CONSTRUCTIONS, TARGETS)
    if name not in COVERED or of not in COVERED[name].refusals
]
REFUSED = [(name, of, words) for name, entry in COVERED.items() for of, words in entry.refusals.items()]


def approximated(name: str, of: str, objective: str) -> tuple[Target, Ticket]:
    target = TARGETS[of]()
    entry = COVERED[name]
    return target, run_in_memory(
        plan_job(target, entry.construction, entry.goal(objective), seed=SEED, chunk_weights=CHUNK)
    )


@functools.cache
def slopes(network: str) -> Callable[[np.ndarray], np.ndarray]:
    """The sensitivity of a target, which does not depend on what is said of its inputs."""
    return sensitivity(random_target(NETWORKS[network](False)))


def test_every_construction_is_covered() -> None:
    assert set(COVERED) == set(CONSTRUCTIONS)
    assert all(isinstance(entry.construction, CONSTRUCTIONS[name]) for name, entry in COVERED.items())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("name", "of"), CASES)
def test_the_pruned_random_network_is_the_target(
    name: str, of: str, objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, ticket = approximated(name, of, objective)
    found = verify(ticket, target=target)
    assert (found.outcome, found.reasons, found.own_target) == ("holds", (), False)
    assert found.target_weights == found.within_tolerance
    assert found.target_weights == sum(math.prod(shape) for shape in ticket.network.approximated.values())
    assert found.worst_residual is not None and 0 < found.worst_residual <= COVERED[name].tolerance == found.tolerance
    assert found.method == ticket.header.method == name + ("" if objective == "least-error" else f"-{objective}")
    assert found.kept_weights == sum(found.kept_by_tensor.values()) == ticket.kept_weights > 0
    if target.network.given is not None:
        # The network itself, random weights from the seed and masks alone, beside the target.
        low = 0.0 if target.network.given.nonnegative else -1.0
        x = np.random.default_rng(5).uniform(low, 1, (BATCH, *target.network.given.shape)).astype(np.float32)
        wanted = np.asarray(target.forward()(jnp.asarray(x)))
        allowed = 2 * found.worst_residual * slopes(of.partition(",")[0])(x) + 1e-4
        assert (np.abs(ticket.forward()(jnp.asarray(x)) - wanted) <= allowed).all()
        assert allowed.mean() < np.ptp(wanted) / 2, "a bound that anything would keep"

    # Its file holds the same; however the work is cut, and whoever keeps what is finished, it is the same file.
    out = tmp_path / "ticket"
    ticket.save(out)
    content = out.read_bytes()
    loaded = load_ticket(out)
    assert loaded.header == ticket.header and loaded.to_bytes() == content
    monkeypatch.setattr("lottery_jax.constructions.solve.PIECE", 16)
    job = plan_job(target, COVERED[name].construction, COVERED[name].goal(objective), seed=SEED, chunk_weights=24)
    run_to_file(job, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("name", "of"),
    [
        case
        for case in CASES
        if case[1] in ("mlp with biases, inputs of any sign", "convolutions, inputs of any sign", "bag")
    ],
)
def test_every_weight_is_solved_as_by_trying_all_subsets(name: str, of: str, objective: str) -> None:
    target, ticket = approximated(name, of, objective)
    assert check_against_all_subsets(ticket, target, objective), "no redraw: the test is too easy"


@pytest.mark.parametrize(("name", "of", "words"), REFUSED)
def test_what_a_construction_does_not_cover_is_refused(name: str, of: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_job(TARGETS[of](), COVERED[name].construction, Promise(), seed=0)


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_another_seed_is_another_ticket(name: str) -> None:
    target = TARGETS["mlp, inputs never negative"]()
    tickets = [
        run_in_memory(plan_job(target, COVERED[name].construction, COVERED[name].goal("least-error"), seed=seed))
        for seed in (0, 0, 1)
    ]
    first, second, third = (ticket.to_bytes() for ticket in tickets)
    assert first == second != third


@pytest.mark.parametrize("name", CONSTRUCTIONS)
@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ((("norm", LayerNorm(3)),), "no layer with weights"),
        ((("relu", Relu()), ("bn", BatchNorm(3)), ("fc", Dense(3, 2))), "'bn' stands behind no dense layer"),
    ],
)
def test_a_target_that_no_construction_takes_is_refused(name: str, nodes: tuple, words: str) -> None:
    target = random_target(Network(Chain(nodes), Spec((3,))))
    with pytest.raises(InputError, match=words):
        plan_job(target, COVERED[name].construction, Promise(), seed=0)


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_zeros_and_constant_layers(name: str) -> None:
    target = mlp_target([np.zeros((2, 3), np.float32), np.full((2, 2), 0.125, np.float32)])
    construction = COVERED[name].construction
    ticket = run_in_memory(plan_job(target, construction, COVERED[name].goal("least-error"), seed=0))
    found = verify(ticket, target=target)
    assert found.holds and not ticket.mask("fc1.weight").any() and ticket.mask("fc2.weight").any()


def test_the_full_network_of_theorem_1() -> None:
    """Every first matrix full and random, its mask block-column; ReLU networks of twice the depth, in NumPy alone."""
    target = TARGETS["mlp, inputs of any sign"]()
    tickets = (run_in_memory(plan_job(target, Pensia(COUNT), Promise(0.1), seed=seed)) for seed in range(40))
    ticket = next(t for t in tickets if not any(len(t.redraws(name)) for name in t.network.drawn))
    x = np.random.default_rng(0).uniform(-1, 1, (BATCH, 9)).astype(np.float32)
    hidden, units = x.astype(np.float64), 2 * COUNT
    for place, (outputs, inputs) in enumerate(((6, 9), (4, 6))):
        shapes = (inputs, inputs * units), (inputs * units, outputs)
        first, second = (
            draw_host(Sampler.uniform(-1, 1), seed=ticket.seed, stream=2 * place + step, shape=shape).astype(np.float64)
            for step, shape in enumerate(shapes)
        )
        kept = np.zeros((inputs, inputs, units), bool)
        kept[np.arange(inputs), np.arange(inputs)] = ticket.mask(f"fc{place + 1}.first")
        second_kept = ticket.mask(f"fc{place + 1}.weight").transpose(1, 2, 0).reshape(-1, outputs)
        hidden = np.maximum(hidden, 0) if place else hidden
        gain = ticket.network.sources[f"fc{place + 1}"].gain
        hidden = gain * np.maximum(hidden @ (first * kept.reshape(inputs, -1)), 0) @ (second * second_kept)
    np.testing.assert_allclose(ticket.forward()(jnp.asarray(x)), hidden, atol=2e-5)


def test_only_inputs_that_may_be_negative_have_two_branches() -> None:
    """A unit whose first weight is negative is kept only where its input, or the constant 1, may be negative."""
    for of in ("mlp with biases", "convolutions"):
        for words, nonnegative in (("inputs never negative", True), ("inputs of any sign", False)):
            _, ticket = approximated("pensia", f"{of}, {words}", "least-error")
            source = ticket.source()
            negative = {
                path: bool(
                    (
                        ticket.mask(f"{path}.first")[: leaf.of.inputs] & (source[f"{path}.first"][: leaf.of.inputs] < 0)
                    ).any()
                )
                for path, leaf in ticket.network.sources.items()
            }
            # Behind a ReLU nothing is negative; behind a convolution alone something may be.
            assert negative == (
                {"fc1": not nonnegative, "fc2": False}
                if of == "mlp with biases"
                else {"conv1": not nonnegative, "conv2": False, "fc": True}
            )
            biases = [path for path, leaf in ticket.network.sources.items() if leaf.of.bias]
            for path in biases:
                constant = ticket.mask(f"{path}.first")[-1]
                assert constant.any() and (source[f"{path}.first"][-1][constant] > 0).all()


def test_an_edge_is_kept_where_a_weight_behind_it_is() -> None:
    """Of a depthwise convolution each input has one output, of a dense layer all of them; the constant has the bias."""
    _, ticket = approximated("pensia", "convolutions, inputs of any sign", "least-error")
    depthwise = ticket.mask("conv2.weight")  # [O, 1, H, W, U], output o is of input o
    np.testing.assert_array_equal(ticket.mask("conv2.first"), depthwise.any((1, 2, 3)))
    strided, bias = ticket.mask("conv1.weight"), ticket.mask("conv1.bias")
    np.testing.assert_array_equal(
        ticket.mask("conv1.first"), np.concatenate([strided.any((0, 2, 3)), bias.any(0)[None]])
    )


def test_the_range_of_scalar_candidates() -> None:
    """Of a tensor the largest |weight| both ways; of a model, as published, from the least weight to the largest."""
    target = bag()
    largest = {name: float(np.abs(target.array(name).astype(np.float64)).max()) for name in target.network.tensors}
    for of, bound in largest.items():
        (sampler,) = Scalar(COUNT).source(target).sources[of].samplers
        assert sampler == Sampler.uniform(-(bound or 1.0), bound or 1.0)
    every = np.concatenate([target.array(name).astype(np.float64).reshape(-1) for name in target.network.tensors])
    published = Scalar(COUNT, range="model").source(target)
    assert {leaf.samplers for leaf in published.sources.values()} == {(Sampler.uniform(every.min(), every.max()),)}
    job = plan_job(target, Scalar(COUNT, range="model"), Promise(0.5), seed=0, chunk_weights=CHUNK)
    assert verify(run_in_memory(job), target=target).holds
