"""Architectures: their published numbers of parameters, the names that others use, and that each of them runs."""

import itertools
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.architectures import ARCHITECTURES, NORMALIZED, architecture, mlp
from lottery_jax.networks.forward import forward
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.network import Network, network_from_json
from lottery_jax.networks.node import Spec
from tests.networks.catalogue import stored
from tests.networks.oracles import evaluate

SHARED = Path(__file__).parents[3] / "shared" / "targets"
MNIST, CIFAR, IMAGENET = Spec((28, 28, 1), True), Spec((32, 32, 3), True), Spec((224, 224, 3), True)


def trained(network: Network) -> int:
    """Parameters that are trained: running statistics move by themselves."""
    return sum(math.prod(shape) for name, shape in network.tensors.items() if "running" not in name)


def conv_weights(channels: list[int], fed: int, hidden: int = 256, classes: int = 10) -> int:
    """Conv-2 to 8 by hand: pairs of 3 x 3 convolutions, then fed -> 256 -> 256 -> 10, no biases."""
    chain = [3, *(size for size in channels for _ in range(2))]
    return 9 * sum(a * b for a, b in itertools.pairwise(chain)) + hidden * (fed + hidden + classes)


@pytest.mark.parametrize(
    ("name", "given", "classes", "parameters"),
    [
        ("fc2", MNIST, 10, 397_000),
        ("fc4", MNIST, 10, 897_000),
        ("lenet-300-100", MNIST, 10, 266_610),
        ("lenet5", MNIST, 10, 61_706),
        ("conv2", CIFAR, 10, 4_300_992),
        ("conv4", CIFAR, 10, 2_425_024),
        ("conv6", CIFAR, 10, 2_261_184),
        ("conv8", CIFAR, 10, conv_weights([64, 128, 256, 512], fed=2 * 2 * 512)),
        ("resnet20", CIFAR, 10, 272_474),
        ("resnet18", CIFAR, 10, 11_173_962),
        ("resnet18", IMAGENET, 1000, 11_689_512),
        ("resnet50", IMAGENET, 1000, 25_557_032),
        ("vgg16", IMAGENET, 1000, 138_365_992),
        ("vgg19", IMAGENET, 1000, 143_678_248),
        ("vgg19", CIFAR, 10, 20_040_522),
        ("mlp-100-50", MNIST, 10, 784 * 100 + 100 * 50 + 50 * 10),
        ("mlp", MNIST, 10, 7840),
    ],
)
def test_parameters_are_as_many_as_published(name: str, given: Spec, classes: int, parameters: int) -> None:
    network = architecture(name, given, classes)
    assert trained(network) == parameters
    assert network.output_spec == Spec((classes,))


def test_conv_2_to_6_by_the_same_formula_as_conv_8() -> None:
    for blocks, parameters in ((1, 4_300_992), (2, 2_425_024), (3, 2_261_184)):
        channels = [64, 128, 256][:blocks]
        assert conv_weights(channels, fed=(32 >> blocks) ** 2 * channels[-1]) == parameters


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_parameters_of_the_transformer(width: float) -> None:
    size, tokens = round(128 * width), 64
    layer = 2 * 2 * size + (3 * size * size + 3 * size) + (size * size + size) + (4 * size * size + 3 * size)
    expected = (4 * 4 * 3 * size + size) + tokens * size + 4 * layer + 2 * size + (size * 10 + 10)
    assert trained(architecture("vit", CIFAR, 10, width=width)) == expected


def test_the_width_multiplies_hidden_units_alone() -> None:
    assert architecture("fc2", MNIST, 10, width=0.1).tensors == {"fc1.weight": (50, 784), "fc2.weight": (10, 50)}
    half = architecture("conv2", CIFAR, 10, width=0.5).tensors
    assert [shape[:2] for shape in half.values()] == [(32, 3), (32, 32), (128, 8192), (128, 128), (10, 128)]
    narrow = architecture("resnet50", CIFAR, 10, width=1 / 64).tensors
    assert narrow["layer4.2.conv3.weight"] == (4 * 8, 8, 1, 1) and narrow["fc.weight"] == (10, 32)
    assert architecture("lenet-300-100", MNIST, 10, width=1e-6).tensors["fc2.weight"] == (1, 1)
    assert architecture("mlp-64", MNIST, 10, width=0.25).tensors["fc1.weight"] == (16, 784)


def smallest(name: str) -> Network:
    """The architecture at a small width on the smallest images that it takes."""
    normalize = Normalize((0.5,) * 3, (0.25,) * 3)
    for size in (8, 16, 32):
        try:
            return architecture(name, Spec((size, size, 3), True), 5, width=0.05, normalize=normalize)
        except InputError as error:
            assert f"does not fit examples of shape [{size}, {size}, 3]" in str(error)
    raise AssertionError(f"{name} takes no images up to 32 x 32")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_a_tree(name: str) -> None:
    network = smallest(name)
    assert network_from_json(json.loads(json.dumps(network.to_json()))) == network
    assert network.output_spec == Spec((5,))
    assert ("normalize" in network.root.children()) == (name in NORMALIZED)


LONG = {"resnet50", "vgg19", "conv4", "conv6"}  # to compile; their layers are those of resnet18, vgg16, conv2 and conv8


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in ARCHITECTURES]
)
def test_every_architecture_computes_what_numpy_does(name: str) -> None:
    network = smallest(name)
    assert network.input_spec is not None
    tensors = {label: 0.5 * value if "var" not in label else value for label, value in stored(network.root).items()}
    x = np.random.default_rng(0).uniform(size=(2, *network.input_spec.shape)).astype(np.float32)
    expected = evaluate(network.root, tensors, x)
    found = np.asarray(forward(network, tensors)(jnp.asarray(x)))
    assert found.shape == (2, 5) and np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


NORM = ("weight", "bias", "running_mean", "running_var")


def resnet_names(blocks: tuple[int, ...], convolutions: int) -> Iterator[str]:
    """The names of torchvision's resnets, written down."""
    yield from ("conv1.weight", *(f"bn1.{part}" for part in NORM))
    for group, count in enumerate(blocks, start=1):
        for block in range(count):
            path = f"layer{group}.{block}"
            for number in range(1, convolutions + 1):
                yield from (f"{path}.conv{number}.weight", *(f"{path}.bn{number}.{part}" for part in NORM))
            if block == 0 and (group > 1 or convolutions == 3):
                yield from (f"{path}.downsample.0.weight", *(f"{path}.downsample.1.{part}" for part in NORM))
    yield from ("fc.weight", "fc.bias")


def vgg_names(convolutions: tuple[int, ...]) -> Iterator[str]:
    """Those of torchvision's VGG networks with batch normalisation."""
    place = 0
    for count in convolutions:
        for _ in range(count):
            yield from (f"features.{place}.weight", f"features.{place}.bias")
            yield from (f"features.{place + 1}.{part}" for part in NORM)
            place += 3
        place += 1
    yield from (f"classifier.{number}.{part}" for number in (0, 3, 6) for part in ("weight", "bias"))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("resnet18", resnet_names((2, 2, 2, 2), 2)),
        ("resnet50", resnet_names((3, 4, 6, 3), 3)),
        ("vgg16", vgg_names((2, 2, 3, 3, 3))),
        ("vgg19", vgg_names((2, 2, 4, 4, 4))),
    ],
    ids=["resnet18", "resnet50", "vgg16", "vgg19"],
)
def test_names_are_those_of_torchvision(name: str, names: Iterator[str]) -> None:
    expected = list(names)
    assert expected[-1] in ("fc.bias", "classifier.6.bias")
    found = architecture(name, IMAGENET, 1000).tensors
    assert sorted(found) == sorted(expected)
    if name == "resnet50":
        assert found["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
        assert found["layer4.0.conv2.weight"] == (512, 512, 3, 3)


def test_names_of_the_transformer_are_those_of_timm() -> None:
    names = architecture("vit", CIFAR, 10).tensors
    layer = {name.removeprefix("blocks.3.") for name in names if name.startswith("blocks.3.")}
    leaves = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    assert layer == {f"{leaf}.{part}" for leaf in leaves for part in ("weight", "bias")}
    outer = {name for name in names if not name.startswith("blocks.")}
    parts = {f"{leaf}.{part}" for leaf in ("patch_embed.proj", "norm", "head") for part in ("weight", "bias")}
    assert outer == {*parts, "pos_embed"} and names["pos_embed"] == (1, 64, 128)


def test_the_resnet_that_was_trained_elsewhere_has_these_names() -> None:
    path = SHARED / "resnet20_cifar10.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not there: it comes with the project's shared folder, not with the repository")
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    shapes = {name: tuple(row["shape"]) for name, row in json.loads(content[8 : 8 + length]).items()}
    found = {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    assert found == architecture("resnet20", CIFAR, 10).tensors


def test_large_images_get_the_stem_of_imagenet() -> None:
    small, large = (architecture("resnet18", Spec((size, size, 3)), 10).tensors for size in (63, 64))
    assert small["conv1.weight"] == (64, 3, 3, 3) and large["conv1.weight"] == (64, 3, 7, 7)


def test_inputs_are_normalised_where_that_is_usual() -> None:
    normalize = Normalize((0.5,), (0.25,))
    assert "normalize" in architecture("resnet20", MNIST, 10, normalize=normalize).root.children()
    plain = architecture("fc2", MNIST, 10, normalize=normalize)
    assert plain == architecture("fc2", MNIST, 10) and plain.input_spec_of("fc1") == Spec((784,), True)


def test_mlps_by_their_sizes_and_by_their_weights() -> None:
    network = mlp((4, 3, 2), Spec((2, 2, 1), True), bias=(True, False), names=("0", "2"))
    assert network.tensors == {"0.weight": (3, 4), "0.bias": (3,), "2.weight": (2, 3)}
    random = np.random.default_rng(0)
    weights, biases = [random.normal(size=size) for size in ((3, 4), (2, 3))], [random.normal(size=n) for n in (3, 2)]
    target, x = mlp_target(weights, biases), random.normal(size=(5, 4)).astype(np.float32)
    hidden = np.maximum(x @ weights[0].T + biases[0], 0)
    np.testing.assert_allclose(
        target.forward()(jnp.asarray(x)), hidden @ weights[1].T + biases[1], rtol=1e-5, atol=1e-5
    )
    assert target.network.input_spec == Spec((4,)) and mlp_target(weights, nonnegative=True).network.input_spec == Spec(
        (4,), True
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: architecture("resnet19", CIFAR, 10), "'resnet19' is unknown; did you mean 'resnet18'.* or mlp-A-B"),
        (lambda: architecture("mlp-0", CIFAR, 10), "'mlp-0' is unknown"),
        (lambda: architecture("fc2", CIFAR, 10, width=0.0), "width must be a positive number, got 0.0"),
        (lambda: architecture("fc2", CIFAR, 10, width=math.nan), "width must be a positive number, got nan"),
        (lambda: architecture("fc2", CIFAR, 10, width=math.inf), "width must be a positive number, got inf"),
        (lambda: architecture("conv6", Spec((4, 4, 1)), 10), r"conv6 does not fit examples of shape \[4, 4, 1\]"),
        (lambda: architecture("resnet20", Spec((784,)), 10), r"resnet20 does not fit examples of shape \[784\]"),
        (lambda: architecture("fc2", CIFAR, 0), "fc2 does not fit"),
        (lambda: mlp((4,), Spec((4,))), r"at least inputs and outputs, got \(4,\)"),
        (lambda: mlp((4, 2), Spec((5,))), r"4 features, got \[5\]"),
    ],
)
def test_bad_architectures_are_refused(make, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()
