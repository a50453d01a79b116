"""The construction of Pensia et al. 2020: the theorem's own network, sign branches and first edges."""

import jax.numpy as jnp
import numpy as np

from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions import Pensia
from lottery_jax.rng.sampler import Sampler, draw_host
from lottery_jax.tickets.ticket import Ticket
from tests.constructions.catalogue import CHUNK, COUNT, COVERED, TARGETS


def found(of: str) -> Ticket:
    objective = COVERED["pensia"].objective()
    return run_in_memory(plan_job(TARGETS[of](), Pensia(COUNT), objective, seed=2**33 + 5, chunk_weights=CHUNK))


def test_the_full_network_of_theorem_1() -> None:
    """Every first matrix full and random, its mask block-column; ReLU networks of twice the depth, in NumPy alone."""
    target = TARGETS["mlp, inputs of any sign"]()
    tickets = (run_in_memory(plan_job(target, Pensia(COUNT), ToleranceObjective(0.1), seed=seed)) for seed in range(40))
    ticket = next(t for t in tickets if not any(len(t.redraws(name)) for name in t.network.random_tensors))
    x = np.random.default_rng(0).uniform(-1, 1, (4, 9)).astype(np.float32)
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
            ticket = found(f"{of}, {words}")
            source = ticket.source()
            negative = {
                path: bool(
                    (
                        ticket.mask(f"{path}.first")[: leaf.layer.inputs]
                        & (source[f"{path}.first"][: leaf.layer.inputs] < 0)
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
            biases = [path for path, leaf in ticket.network.sources.items() if leaf.layer.bias]
            for path in biases:
                constant = ticket.mask(f"{path}.first")[-1]
                assert constant.any() and (source[f"{path}.first"][-1][constant] > 0).all()


def test_an_edge_is_kept_where_a_weight_behind_it_is() -> None:
    """Of a depthwise convolution each input has one output, of a dense layer all of them; the constant has the bias."""
    ticket = found("convolutions, inputs of any sign")
    depthwise = ticket.mask("conv2.weight")  # [O, 1, H, W, U], output o is of input o
    np.testing.assert_array_equal(ticket.mask("conv2.first"), depthwise.any((1, 2, 3)))
    strided, bias = ticket.mask("conv1.weight"), ticket.mask("conv1.bias")
    np.testing.assert_array_equal(
        ticket.mask("conv1.first"), np.concatenate([strided.any((0, 2, 3)), bias.any(0)[None]])
    )
