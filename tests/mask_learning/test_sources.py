"""The sources of Experiment 2: as many weights as the paper has, and widths that fit any architecture."""

import pytest

from lottery_jax.errors import InputError
from lottery_jax.mask_learning.learner_sources import redundant_source, wide_source
from lottery_jax.networks.architectures import ARCHITECTURES, architecture, mlp
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler

NORMAL = Sampler.normal(1)
MNIST = Spec((28, 28, 1), nonnegative=True)


@pytest.mark.parametrize(("name", "weights", "hidden"), [("fc2", 1_991_420, [2508]), ("fc4", 4_496_420, [1314] * 3)])
def test_networks_of_equal_size_are_those_of_the_paper(name: str, weights: int, hidden: list[int]) -> None:
    redundant = redundant_source(architecture(name, MNIST, 10))
    assert redundant.source_weights == weights
    wide = wide_source(redundant)
    assert [leaf.layer.outputs for leaf in wide.sources.values()] == [*hidden, 10]  # type: ignore[attr-defined]
    steps = [dict.fromkeys(("fc2", "fc4"), 784 + 10)[name] + (2 * hidden[0] + 1) * (len(hidden) - 1)]
    assert abs(wide.source_weights - weights) <= steps[0] // 2  # no other width comes nearer


def test_dense_part_of_lenet_5() -> None:
    assert redundant_source(mlp((400, 120, 84, 10), Spec((400,)))).source_weights == 297_620


def test_weights_have_the_published_variances() -> None:
    nodes = ("conv", Conv(4, 6, (3, 3), groups=2)), ("f", Flatten()), ("fc", Dense(54, 5))
    target = Network(Chain(nodes), Spec((5, 5, 4)))
    redundant = redundant_source(target, copies=3, relu=False)
    assert redundant.target == target
    conv, fc = redundant.sources["conv"], redundant.sources["fc"]
    first = Sampler.normal(2**0.5)
    assert conv == Gadget(Conv(4, 6, (3, 3), groups=2), 3, first, Sampler.normal((2 / 18) ** 0.5), relu=False)
    assert fc == Gadget(Dense(54, 5), 3, first, Sampler.normal((2 / 54) ** 0.5), relu=False)
    wide = wide_source(redundant)
    leaf = wide.sources["fc"]
    assert isinstance(leaf, RandomLayer) and leaf.sampler == Sampler.normal((2 / leaf.layer.inputs) ** 0.5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_has_a_wide_source_of_its_own_kind(name: str) -> None:
    """The same tree at other widths, without biases, as many weights to a few percent, all of them random."""
    given = Spec((32, 32, 3), nonnegative=True)
    target = architecture(name, given, 10, width=0.25)
    redundant = redundant_source(target)
    wide = wide_source(redundant)
    assert wide.input_spec == given and wide.output_spec == target.output_spec
    assert [path for path, _ in wide.nodes()] == [path for path, _ in target.nodes()]
    assert [node.kind for _, node in wide.target.nodes()] == [node.kind for _, node in target.nodes()]
    assert not any(label.endswith(".bias") for label in wide.random_tensors)
    assert abs(wide.source_weights / redundant.source_weights - 1) < 0.07


def test_convolutions_keep_their_kind_when_they_are_widened() -> None:
    def chain(*convolutions: Conv) -> Network:
        nodes = [(str(place), convolution) for place, convolution in enumerate(convolutions)]
        dense = Dense(16 * convolutions[-1].outputs, 2)
        return Network(Chain((*nodes, ("flatten", Flatten()), ("fc", dense))), Spec((4, 4, 1)))

    for target in (
        chain(Conv(1, 1, (1, 1)), Conv(1, 6, (1, 1))),  # one input, one group: no depthwise convolution
        chain(Conv(1, 8, (1, 1)), Conv(8, 16, (3, 3), padding=(1, 1), groups=8)),
        chain(Conv(1, 9, (1, 1)), Conv(9, 6, (3, 3), padding=(1, 1), groups=3)),
    ):
        wide = wide_source(redundant_source(target, copies=20))
        first, second = (source.layer for source in list(wide.sources.values())[:2])
        assert isinstance(first, Conv) and isinstance(second, Conv)
        assert first.outputs == second.inputs > target.weight_nodes["1"].inputs  # type: ignore[attr-defined]
        old = target.weight_nodes["1"]
        assert isinstance(old, Conv) and second.depthwise == old.depthwise
        assert second.groups == (second.inputs if old.depthwise else old.groups)


def test_a_source_of_one_layer_or_of_hardly_any_weights() -> None:
    one = wide_source(Network(RandomLayer(Dense(7, 3), NORMAL), Spec((7,))))
    assert one.target.root == Dense(7, 3)
    two = Chain((("a", RandomLayer(Dense(100, 1), NORMAL)), ("b", RandomLayer(Dense(1, 1), NORMAL))))
    assert wide_source(Network(two, Spec((100,)))).source_weights == 101
    shared = CandidatesPerWeight(Dense(100, 2), 3, (NORMAL,), shared=True)
    few = Network(Chain((("a", shared), ("b", RandomLayer(Dense(2, 2), NORMAL)))), Spec((100,)))
    with pytest.raises(InputError, match=r"a wide source must have room in .*, got 10"):
        wide_source(few)
