"""What random sources are put through: absent and locked weights, and layers folded into one random tensor."""

import copy
import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import NO_REDRAWS, Network, network_from_json
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.sources.binary_ladder import BinaryLadder
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import MultiLevelLayer, RandomLayer
from lottery_jax.networks.sources.trained_layer import TrainedLayer
from lottery_jax.networks.transforms import Lock, PrePrune, ShareLayers, transformed
from lottery_jax.rng.forced_entries import forced_blocks, forced_mask
from lottery_jax.rng.sampler import Sampler

U, NORMAL = Sampler.uniform(-1, 1), Sampler.normal(0.5)
DENSITY = 0.3


def chain(*nodes: Node, given: tuple[int, ...] = (6,)) -> Network:
    return Network(Chain(tuple((f"n{place}", node) for place, node in enumerate(nodes))), Spec(given))


NETWORKS = {
    "gadgets": chain(
        Gadget(Conv(1, 3, (2, 2)), 8, U, U),
        Flatten(),
        Gadget(Dense(27, 6, bias=True), 8, U, U),
        Gadget(Dense(6, 6, bias=True), 8, U, U),
        given=(4, 4, 1),
    ),
    "copies": chain(
        CandidatesPerWeight(Dense(6, 6, bias=True), 5, (U, U)),
        CandidatesPerWeight(Dense(6, 6, bias=True), 5, (NORMAL, U), shared=True),
    ),
    "single and tied": chain(
        RandomLayer(Dense(6, 6), NORMAL), RandomLayer(Dense(6, 6), U), MultiLevelLayer(Dense(6, 7), U, (1.0, -1.0))
    ),
}
LADDERS = chain(BinaryLadder(Dense(6, 6, bias=True), 4, 2), BinaryLadder(Dense(6, 2), 4, 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_absent_weights_are_the_same_whoever_draws_them(name: str) -> None:
    whole, thinned = NETWORKS[name], PrePrune(DENSITY)(NETWORKS[name])
    before, there, weights = whole.draw(9), 0, 0
    for tensor, drawn in thinned.random_tensors.items():
        redraws = np.array([[0, 3], [1, 1]])[: drawn.blocks]
        found = drawn.draw_all(9, NO_REDRAWS)
        np.testing.assert_array_equal(found, np.where(found != 0, before[tensor], 0))
        there, weights = there + np.count_nonzero(found), weights + found.size
        again = drawn.draw_all(9, redraws).reshape(drawn.blocks, -1)
        expected = drawn.draw(9, redraws[:, 0], redraws[:, 1])
        np.testing.assert_array_equal(again[: len(redraws)], expected[:, : again.shape[1]])
        mask = np.arange(drawn.size).reshape(drawn.shape) % 11 == 0  # few, so that they are drawn one by one
        np.testing.assert_array_equal(
            drawn.draw_kept(9, redraws, mask), np.where(mask, drawn.draw_all(9, redraws), np.float32(0))
        )
    assert abs(there / weights - DENSITY) < 4 * math.sqrt(DENSITY * (1 - DENSITY) / whole.source_weights)


def test_coins_are_fair_in_every_layer_and_apart_from_the_weights() -> None:
    drawn = PrePrune(DENSITY)(chain(RandomLayer(Dense(500, 400), U), given=(500,))).random_tensors["n0.weight"]
    found = drawn.draw_all(0, NO_REDRAWS)
    there = found != 0
    assert abs(there.mean() - DENSITY) < 0.004
    assert abs(np.corrcoef(there[:, 1:].reshape(-1), there[:, :-1].reshape(-1))[0, 1]) < 0.01
    assert abs(found[there].mean()) < 0.01 and abs(found[there].std() - 3**-0.5) < 0.005
    assert abs(found.std() - drawn.sampler.standard_deviation) < 0.005


def test_transforms_add_up_and_are_in_the_json_alone_where_they_say_something() -> None:
    network = NETWORKS["gadgets"]
    plain = json.dumps(network.to_json())
    assert "density" not in plain and "share_layers" not in plain
    assert PrePrune(1.0)(network) == network
    found = transformed(network, [PrePrune(0.5), ShareLayers(), PrePrune(0.5)])
    assert found.share_layers and {drawn.sampler.density for drawn in found.random_tensors.values()} == {0.25}
    assert network_from_json(json.loads(json.dumps(found.to_json()))) == found
    assert found.target == network.target and found.target.to_json() == network.target.to_json()
    assert "0.75 of them absent" in found.random_tensors["n0.first"].sampler.in_words()


@pytest.mark.parametrize("density", [0, -1, 2, math.nan, math.inf, True, "0.5", None])
def test_a_forged_density_is_refused(density: Any) -> None:
    row = copy.deepcopy(PrePrune(0.5)(NETWORKS["gadgets"]).to_json())
    row["root"]["nodes"][0][1]["first"]["density"] = density
    with pytest.raises(InputError):
        network_from_json(row)
    with pytest.raises(InputError):
        PrePrune(density)


@pytest.mark.parametrize("name", ["gadgets", "copies"])
def test_what_is_locked_is_there_and_the_same_whoever_asks(name: str) -> None:
    network, counts, size = transformed(NETWORKS[name], [PrePrune(0.7), Lock(DENSITY)]), np.zeros(3), 0
    for drawn in network.random_tensors.values():
        redraws = np.array([[0, 3], [1, 1]])[: drawn.blocks]
        found, weights = forced_mask(drawn, 9, redraws), drawn.draw_all(9, redraws)
        np.testing.assert_array_equal(found < 0, np.broadcast_to(weights == 0, drawn.shape))
        rows = found.reshape(drawn.blocks, drawn.rows_per_block, drawn.width)
        np.testing.assert_array_equal(rows, np.broadcast_to(rows[:, :1], rows.shape))
        np.testing.assert_array_equal(rows[: len(redraws), 0], forced_blocks(drawn, 9, redraws[:, 0], redraws[:, 1]))
        counts += [np.count_nonzero(rows[:, 0] == value) for value in (-1, 0, 1)]
        size += rows[:, 0].size
    wanted = np.array([0.3, 0.4, 0.3])
    assert (np.abs(counts / size - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / size)).all()


def test_locks_add_up_with_pruning_and_change_no_weight() -> None:
    network = NETWORKS["gadgets"]
    locked = Lock(0.25)(network)
    assert Lock(0)(network) == network and "locked" not in json.dumps(network.to_json())
    assert network_from_json(json.loads(json.dumps(locked.to_json()))) == locked
    for name, weights in network.draw(2).items():
        np.testing.assert_array_equal(weights, locked.draw(2)[name])
    samplers = {drawn.sampler for drawn in transformed(network, [Lock(0.5), PrePrune(0.5)]).random_tensors.values()}
    assert samplers == {dataclasses.replace(U, density=0.5, locked=0.25)}
    assert "0.25 of them always kept" in locked.random_tensors["n0.first"].sampler.in_words()
    with pytest.raises(InputError, match=r"from 0 to the density 0\.5, got 0\.6"):
        transformed(network, [PrePrune(0.5), Lock(0.6)])


@pytest.mark.parametrize("locked", [-0.1, 1.5, math.nan, math.inf, True, "0.5", None])
def test_a_forged_lock_is_refused(locked: Any) -> None:
    row = copy.deepcopy(Lock(0.5)(NETWORKS["gadgets"]).to_json())
    row["root"]["nodes"][0][1]["first"]["locked"] = locked
    with pytest.raises(InputError):
        network_from_json(row)
    with pytest.raises(InputError):
        Lock(locked)


def test_what_cannot_be_locked_is_refused() -> None:
    with pytest.raises(InputError, match=r"locked must be 0 for .* a binary_ladder without a sampler"):
        Lock(0.5)(LADDERS)
    with pytest.raises(InputError, match="locked must be 0 for masks with several bits"):
        Lock(0.5)(NETWORKS["single and tied"])
    with pytest.raises(InputError, match="locked must be 0 for trained weights"):
        TrainedLayer(Dense(3, 2), dataclasses.replace(U, locked=0.5))


@pytest.mark.parametrize("folded", [False, 1, 0, None, "true", [True]])
def test_a_forged_fold_is_refused(folded: Any) -> None:
    with pytest.raises(InputError, match="share_layers must be true"):
        network_from_json({**NETWORKS["copies"].to_json(), "share_layers": folded})


def test_what_cannot_be_absent_is_refused() -> None:
    with pytest.raises(InputError, match=r"density must be 1 for .* a binary_ladder without a sampler"):
        PrePrune(0.5)(LADDERS)
    with pytest.raises(InputError, match="density of trained weights must be 1"):
        TrainedLayer(Dense(3, 2), dataclasses.replace(U, density=0.5))


def positions(network: Network) -> Iterator[tuple[int, int]]:
    """Stream and position of every weight of a network's random tensors."""
    for drawn in network.random_tensors.values():
        streams, first = drawn.positions(np.arange(drawn.blocks), 0)
        index = first[:, None] + np.arange(drawn.width) * drawn.layout.step
        of = np.broadcast_to(streams[:, None], index.shape)
        yield from zip(of.ravel().tolist(), index.ravel().tolist(), strict=True)


@pytest.mark.parametrize("network", [*NETWORKS.values(), LADDERS], ids=[*NETWORKS, "ladders"])
def test_folded_layers_count_each_random_weight_once(network: Network) -> None:
    assert len(set(positions(network))) == network.source_weights
    folded = ShareLayers()(network)
    assert folded.source_weights == len(set(positions(folded))) < network.source_weights


def test_folded_layers_of_equal_shape_have_equal_weights() -> None:
    network = NETWORKS["gadgets"]
    before, after = network.draw(4), ShareLayers()(network).draw(4)
    assert after["n2.first"].shape != after["n3.first"].shape
    two = ShareLayers()(chain(*(Gadget(Dense(6, 6, bias=True), 8, U, U) for _ in range(2)))).draw(4)
    for name in ("first", "weight", "bias"):
        np.testing.assert_array_equal(two[f"n0.{name}"], two[f"n1.{name}"])
        np.testing.assert_array_equal(after[f"n3.{name}"], two[f"n0.{name}"])
        assert not np.array_equal(before[f"n3.{name}"], after[f"n3.{name}"])
