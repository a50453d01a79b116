"""Merged attention: the same function with two matrices for four, by NumPy and by the networks themselves."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.architectures import vit
from lottery_jax.networks.layers.attention import Attention, MergedAttention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import BatchNorm
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.rewrites import match_rewrites, merge_attention
from lottery_jax.networks.target import Target
from tests.networks.catalogue import stored
from tests.networks.oracles import evaluate

WORDS = Spec((5, 8))


def of_attention(node: Node, given: Spec = WORDS) -> Target:
    """A target of one residual block with biased tokens, all weights normal."""
    network = Network(Chain((("block", Residual(Chain((("attn", node),)))),)), given)
    return Target(network, stored(network.root))  # type: ignore[arg-type]


def exact(target: Target, x: np.ndarray) -> np.ndarray:
    """Outputs in float64, by NumPy alone."""
    tensors = {name: target.array(name).astype(np.float64) for name in target.network.tensors}
    return evaluate(target.network.root, tensors, x)


def compiled(target: Target, x: np.ndarray) -> np.ndarray:
    """Outputs of the networks themselves in float64."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        tensors = {name: jnp.asarray(target.array(name), jnp.float64) for name in target.network.tensors}
        return np.asarray(target.network.module(tensors)(jnp.asarray(x, jnp.float64)))  # type: ignore[operator]


@pytest.mark.parametrize(("heads", "first", "last"), [(1, False, False), (2, True, False), (4, False, True)])
def test_it_is_the_function_of_the_four(heads: int, first: bool, last: bool) -> None:
    target = of_attention(Attention(heads, Dense(8, 24, bias=first), Dense(8, 8, bias=last)))
    same = merge_attention(target)
    assert {name: shape for name, shape in same.network.tensors.items() if name.endswith("weight")} == {
        "block.attn.qk.weight": (8 * heads, 8),
        "block.attn.vo.weight": (8, 8 * heads),
    }
    assert ("block.attn.qk.bias" in same.network.tensors) == first
    assert ("block.attn.vo.bias" in same.network.tensors) == (first or last)
    x = np.random.default_rng(1).normal(size=(3, 5, 8)) / 4
    wanted = exact(target, x)
    assert np.abs(wanted - x).max() > 0.5
    np.testing.assert_allclose(exact(same, x), wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())
    assert merge_attention(same) is same


def test_every_bias_and_matrix_counts() -> None:
    """A change of any tensor that the original minds is a change of the merged one, and no other is."""
    target = of_attention(Attention(2, Dense(8, 24, bias=True), Dense(8, 8, bias=True)))
    x = np.random.default_rng(1).normal(size=(2, 5, 8)) / 4
    for name, third in itertools.product(target.network.tensors, range(3)):
        values = target.arrays()
        part = values[name][8 * third : 8 * (third + 1)]
        if not part.size:
            continue  # of the projection
        part += 0.25
        changed = Target(target.network, values)  # type: ignore[arg-type]
        moved, alike = exact(changed, x), name.endswith("qkv.bias") and third == 1
        assert (np.abs(moved - exact(target, x)).max() < 1e-12) == alike, "a key's bias is the same for all tokens"
        np.testing.assert_allclose(
            exact(merge_attention(changed), x), moved, rtol=1e-6, atol=1e-6 * np.abs(moved).max()
        )


@pytest.mark.slow
def test_a_vision_transformer_is_merged_in_all_its_layers() -> None:
    network = vit(Spec((4, 4, 1), True), 3, 1 / 16, patch=2, depth=2)
    target = Target(network, stored(network.root))  # type: ignore[arg-type]
    same = merge_attention(target)
    kinds = [type(node) for _, node in same.network.nodes()]
    assert kinds.count(MergedAttention) == 2 and Attention not in kinds
    x = np.random.default_rng(0).random((4, 4, 4, 1))
    wanted = compiled(target, x)
    np.testing.assert_allclose(compiled(same, x), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(exact(same, x), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_what_has_no_attention_stays_as_it_is() -> None:
    target = mlp_target([np.ones((2, 3), np.float32)])
    assert merge_attention(target) is target
    odd = Attention(2, Chain((("a", Dense(8, 4)), ("b", Dense(4, 24)))), Dense(8, 8))
    other = of_attention(odd)
    assert merge_attention(other) is other, "no one matrix"


def test_a_target_is_in_the_form_of_a_network() -> None:
    nodes = (("attn", Attention(2, Dense(8, 24), Dense(8, 8))), ("fc", Dense(8, 8)), ("bn", BatchNorm(8)))
    network = Network(Chain(nodes), WORDS)
    target = Target(network, stored(network.root))  # type: ignore[arg-type]
    plain = match_rewrites(target, network)
    assert plain.network.tensors.keys() == {"attn.qkv.weight", "attn.proj.weight", "fc.weight", "fc.bias"}
    again = match_rewrites(target, merge_attention(target).network)
    assert again.network.tensors.keys() == {"attn.qk.weight", "attn.vo.weight", "fc.weight", "fc.bias"}
    assert match_rewrites(again, again.network).digest == again.digest == merge_attention(plain).digest


def test_what_is_beyond_float32_is_no_weight() -> None:
    target = of_attention(Attention(1, Dense(8, 24), Dense(8, 8)))
    huge = {name: np.full_like(value, 1e30) for name, value in target.arrays().items()}
    same = merge_attention(dataclasses.replace(target, tensors=huge))  # type: ignore[arg-type]
    assert np.isinf(same.array("block.attn.qk.weight")).all()
