"""The masked network: layers against NumPy, the gadget against the full 2L network, variables and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks import architecture as arch
from lottery_jax.networks.gates import TopKGate
from lottery_jax.networks.network import MaskedNetwork, fixed_network
from lottery_jax.networks.variables import Frozen, Mask, Score
from lottery_jax.sampler import Sampler

U = Sampler.uniform(-1, 1)
GADGETS = (arch.Gadget(6, 4, 5, U, U, gain=0.5), arch.Gadget(5, 3, 2, U, U, gain=2.0))


def random_masks(architecture, seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.random(t.shape) < 0.5 for t in arch.source_tensors(architecture)}


def test_gadgets_are_the_full_network_of_depth_2l():
    source, masks = arch.draw_source(GADGETS, seed=3), random_masks(GADGETS)
    unrolled = arch.unroll(GADGETS)
    assert [(layer.inputs, layer.outputs) for layer in unrolled] == [(6, 24), (24, 5), (5, 15), (15, 2)]
    full = fixed_network(unrolled, arch.draw_source(unrolled, seed=3), arch.unroll_masks(GADGETS, masks))
    x = np.random.default_rng(1).uniform(-1, 1, (7, 6)).astype(np.float32)
    small = fixed_network(GADGETS, source, masks)
    np.testing.assert_allclose(small(jnp.asarray(x)), full(jnp.asarray(x)), rtol=1e-5, atol=1e-6)


def test_layers_against_numpy():
    architecture = (arch.Linear(4, 3, U, gain=0.5), arch.Parallel(3, 5, 2, U), arch.Parallel(2, 5, 2, U, shared=True))
    source, masks = arch.draw_source(architecture, seed=0), random_masks(architecture)
    assert source["2.kernel"].shape == (1, 5, 2)
    x = np.random.default_rng(2).uniform(-1, 1, (9, 4)).astype(np.float32)
    first = np.maximum(0.5 * x @ (source["0.kernel"] * masks["0.kernel"]), 0)
    second = np.maximum(first @ (source["1.kernel"] * masks["1.kernel"]).sum(1), 0)
    expected = second @ (source["2.kernel"] * masks["2.kernel"]).sum(1)
    np.testing.assert_allclose(fixed_network(architecture, source, masks)(jnp.asarray(x)), expected, atol=1e-5)


def test_frozen_weights_are_no_parameters():
    source = arch.draw_source(GADGETS, seed=0)
    network = MaskedNetwork(GADGETS, source, lambda name: TopKGate(jnp.asarray(np.ones(source[name].shape)), 0.5))
    _, scores, frozen, rest = nnx.split(network, Score, Frozen, ...)
    assert len(jax.tree.leaves(scores)) == len(jax.tree.leaves(frozen)) == 4
    assert not jax.tree.leaves(nnx.state(network, nnx.Param))
    assert len(jax.tree.leaves(rest)) == len(jax.tree.leaves(nnx.state(network, Mask))) == 4


def test_counts_of_experiment_2():
    normal = Sampler.normal(1.0)
    redundant = (arch.Gadget(784, 5, 500, normal, normal), arch.Gadget(500, 5, 10, normal, normal))
    assert arch.source_weights(redundant) == 1_991_420
    assert arch.source_weights((arch.Parallel(784, 21, 500, U, shared=True),)) == 21 * 500


def test_redraws_change_their_block_alone():
    layer = arch.Gadget(4, 3, 5, U, U)
    plain = arch.draw_source((layer,), 0)
    rows = {"0.second": np.array([[1, 4, 2], [3, 0, 1]], np.int32), "0.first": np.array([[2, 0, 1]], np.int32)}
    redrawn = arch.draw_source((layer,), 0, rows)
    changed = plain["0.second"] != redrawn["0.second"]
    assert changed[1, :, 4].all() and changed[3, :, 0].all() and changed.sum() == 6
    assert (plain["0.first"] != redrawn["0.first"]).sum(1).tolist() == [0, 0, 3, 0]


def test_json_round_trip():
    architecture = (arch.Linear(4, 3, U), GADGETS[0].__class__(3, 2, 6, U, Sampler.normal(2), signed=True))
    assert arch.from_json(arch.to_json(architecture)) == architecture


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "at least one layer"),
        ([{"kind": "liner"}], "did you mean 'linear'"),
        (arch.to_json((arch.Linear(4, 3, U), arch.Linear(2, 3, U))), "3 outputs .* 2 inputs"),
        (arch.to_json((arch.Linear(4, 0, U),)), "empty"),
    ],
)
def test_bad_architectures_are_refused(rows, words):
    with pytest.raises(InputError, match=words):
        arch.from_json(rows)


def test_too_large_a_gadget_is_refused():
    with pytest.raises(InputError, match=r"2\*\*32"):
        arch.draw_source((arch.Gadget(10_000, 50, 1, U, U),), 0)
