"""Targets from files: MLPs by their names, every architecture back again, each type of float, and every refusal."""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lottery_jax.approximation.api import approximate
from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import ARCHITECTURES, NORMALIZED, architecture
from lottery_jax.networks.forward import outputs
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.tasks import export_target, import_target, load_task

SHARED = Path(__file__).parents[3] / "shared" / "targets"
IMAGE = Spec((32, 32, 3), True)
NORMALIZE = Normalize((0.5, 0.25, 0.125), (0.25, 0.5, 1.0))


def tensors(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Tensors of a 4-3-2 network in PyTorch layout, some of them changed, added or left out (None)."""
    rng = np.random.default_rng(0)
    named = {
        "fc1.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "fc2.weight": rng.normal(size=(2, 3)).astype(np.float32),
    }
    for name, value in changes.items():
        name = name.replace("_", ".")
        if value is None:
            del named[name]
        else:
            named[name] = value
    return named


def initial(network: Network, seed: int = 0) -> Target:
    """Random tensors for a network, so that none is like another."""
    rng = np.random.default_rng(seed)
    return Target(network, {name: rng.random(shape, np.float32) for name, shape in network.tensors.items()})  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "target.safetensors"


def read(path: Path, **more) -> Target:
    return import_target(path, Spec((4,)), 2, **more)


@pytest.mark.parametrize(
    "names",
    [
        [f"fc{layer}" for layer in range(1, 13)],
        [str(layer) for layer in range(0, 24, 2)],
        [f"net.{layer}" for layer in range(0, 24, 2)],
        [f"layers.{layer}.linear" for layer in range(12)],
        ["fc1", "fc2", "fc3", "fc10", "fc20", "fc30", "head"],
    ],
    ids=lambda names: names[0],
)
def test_layers_come_in_the_natural_order_of_their_names(names: list[str], path: Path) -> None:
    rng = np.random.default_rng(1)
    named = {f"{name}.weight": rng.normal(size=(3, 3)).astype(np.float32) for name in names}
    save_file(named, path)
    target = import_target(path, Spec((3,)), 3)
    assert list(target.network.tensors) == list(named)
    x = rng.normal(size=(5, 3)).astype(np.float32)
    wanted = x.astype(np.float64)
    for place, weight in enumerate(named.values()):
        wanted = (np.maximum(wanted, 0) if place else wanted) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(target.forward()(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("biased", [(True, True), (True, False), (False, True)])
def test_biases_are_read_where_there_are_some(biased: tuple[bool, bool], path: Path) -> None:
    named = {"0.weight": tensors()["fc1.weight"], "2.weight": tensors()["fc2.weight"]}
    for layer, (there, units) in zip((0, 2), zip(biased, (3, 2), strict=True), strict=True):
        if there:
            named[f"{layer}.bias"] = np.arange(units, dtype=np.float32) - 1
    save_file(named, path)
    target = read(path)
    assert set(target.network.tensors) == set(named) and target.weights == sum(v.size for v in named.values())
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    first, second = named.get("0.bias", np.zeros(3)), named.get("2.bias", np.zeros(2))
    hidden = np.maximum(x @ named["0.weight"].T.astype(np.float64) + first, 0)
    np.testing.assert_allclose(target.forward()(x), hidden @ named["2.weight"].T + second, rtol=1e-5, atol=1e-5)


def test_an_image_is_flattened_as_pytorch_does(path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32)
    save_file({"fc1.weight": weight}, path)
    images = np.random.default_rng(1).normal(size=(5, 2, 3, 2)).astype(np.float32)
    channels_first = images.transpose(0, 3, 1, 2).reshape(5, 12).astype(np.float64)
    found = import_target(path, Spec((2, 3, 2)), 2).forward()(images)
    np.testing.assert_allclose(found, channels_first @ weight.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "mlp-7-5"])
@pytest.mark.parametrize("width", [1.0, 0.05], ids=["whole", "narrow"])
def test_every_architecture_comes_back_from_its_file(name: str, width: float, path: Path) -> None:
    if width == 1.0 and name in ("resnet18", "resnet50", "vgg16", "vgg19"):
        width = 0.25  # the whole would be a file of some 100 MB
    target = initial(architecture(name, IMAGE, 10, width=width, normalize=NORMALIZE))
    assert any(isinstance(node, Normalize) for _, node in target.network.nodes()) == (name in NORMALIZED)
    export_target(target, path)
    for more in ({}, {"name": name, "width": width}):
        again = import_target(path, IMAGE, 10, normalize=NORMALIZE, **more)
        assert again.network == target.network and again.digest == target.digest
        assert {n: value.tobytes() for n, value in again.arrays().items()} == {
            n: value.tobytes() for n, value in target.arrays().items()
        }
    copy = path.with_name("again.safetensors")
    export_target(again, copy)
    assert copy.read_bytes() == path.read_bytes()


@settings(max_examples=25, deadline=None)
@hypothesis_given(st.sampled_from(["lenet5", "conv2", "conv8", "resnet20"]), st.floats(0.01, 2))
def test_a_width_is_told_from_the_shapes(name: str, width: float) -> None:
    """Also where rounding leaves a choice of widths; no weights are needed for that, and none of a file's are read."""
    import tempfile

    network = architecture(name, IMAGE, 10, width=width)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sparse.safetensors"
        header, offset = {}, 0
        for tensor, shape in network.tensors.items():
            size = 4 * int(np.prod(shape))
            header[tensor] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
        words = json.dumps(header).encode()
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(words)) + words)
            file.truncate(8 + len(words) + offset)
        assert import_target(path, IMAGE, 10).network == network


def test_counters_are_ignored(path: Path) -> None:
    target = initial(architecture("resnet20", IMAGE, 10, width=0.05))
    counters = {
        name.replace("running_mean", "num_batches_tracked"): np.array(7)
        for name in target.network.tensors
        if name.endswith("running_mean")
    }
    save_file({**target.arrays(), **counters}, path)
    again = import_target(path, IMAGE, 10)
    assert len(counters) == 21 and again.network == target.network and again.digest == target.digest


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_stay_as_they_are_and_run_as_float32(kind: type, path: Path) -> None:
    named = {name: value.astype(kind) for name, value in tensors().items()}
    save_file(named, path)
    target = read(path)
    for name, value in named.items():
        assert target.array(name).dtype == kind and target.array(name).tobytes() == value.tobytes()
        assert target.arrays()[name].dtype == np.float32
        np.testing.assert_array_equal(target.arrays()[name], value.astype(np.float32))
    x = np.ones((1, 4), np.float32)
    hidden = np.maximum(x @ named["fc1.weight"].astype(np.float64).T, 0)
    wanted = hidden @ named["fc2.weight"].astype(np.float64).T
    np.testing.assert_allclose(target.forward()(x), wanted, rtol=1e-5, atol=1e-5)
    export_target(target, path.with_name("copy.safetensors"))
    assert load_file(path.with_name("copy.safetensors"))["fc1.weight"].dtype == kind
    with pytest.raises(InputError, match="cannot write"):
        export_target(target, path / "below" / "a_file.safetensors")


REFUSED = {
    "unknown names": (
        {"fc1_weight": np.zeros((3, 4, 1), np.float32)},
        r"known architecture for this data set, got fc1\.weight \[3, 4, 1\], fc2\.weight \[2, 3\]\. .*--model",
    ),
    "foreign name": ({"conv_scale": np.ones((2, 3), np.float32)}, r"known architecture.*conv\.scale \[2, 3\]"),
    "no chain": (
        {"fc2_weight": np.ones((2, 5), np.float32)},
        r"known architecture.*fc1\.weight \[3, 4\], fc2\.weight \[2, 5\]",
    ),
    "bias of other length": ({"fc1_bias": np.zeros(4, np.float32)}, r"fc1\.bias \[4\]"),
    "lone bias": ({"fc9_bias": np.zeros(3, np.float32)}, r"fc9\.bias \[3\]"),
    "other inputs": (
        {"fc1_weight": np.ones((3, 5), np.float32)},
        r"maps 5 inputs to 2 classes \(fc1\.weight \[3, 5\], fc2.*\), but the data set has 4 inputs and 2 classes",
    ),
    "other classes": ({"fc2_weight": np.ones((7, 3), np.float32)}, r"4 inputs to 7 classes.*--data"),
    "empty": ({"fc1_weight": np.zeros((0, 4), np.float32)}, r"fc1\.weight \[0, 4\]"),
    "vector": ({"fc1_weight": np.zeros(4, np.float32)}, r"fc1\.weight \[4\]"),
    "integers": (
        {"fc1_weight": np.zeros((3, 4), np.int64)},
        r"must hold floats, got fc1\.weight is I64\. Save it as float32",
    ),
    "booleans": ({"fc1_weight": np.zeros((3, 4), bool)}, r"fc1\.weight is BOOL"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_target_is_refused_by_name(changes: dict, message: str, path: Path) -> None:
    save_file(tensors(**changes), path)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


NUMBERS = {
    "NaN": ({"fc1_weight": np.full((3, 4), np.nan, np.float32)}, r"'fc1\.weight'.* 12 of 12 weights that are NaN"),
    "infinite": ({"fc2_weight": np.full((2, 3), -np.inf, np.float32)}, r"'fc2\.weight'.* 6 of 6"),
    "beyond float32": ({"fc1_weight": np.full((3, 4), 1e300)}, r"'fc1\.weight'.*beyond float32"),
    "one": ({"fc1_weight": np.eye(3, 4) * np.array([1, np.nan, 1, 1])}, r"'fc1\.weight'.* 3 of 12"),
}


@pytest.mark.parametrize(("changes", "message"), NUMBERS.values(), ids=NUMBERS.keys())
def test_weights_that_are_no_numbers_are_refused_by_name_when_they_are_read(
    changes: dict, message: str, path: Path
) -> None:
    save_file(tensors(**changes), path)
    target = read(path)
    with pytest.raises(InputError, match=message):
        approximate(target, seed=0, candidates=8)


def test_what_does_not_fit_a_named_architecture_is_said_beside_what_is_expected(path: Path) -> None:
    save_file(tensors(), path)
    with pytest.raises(
        InputError, match=r"must hold a mlp-5: fc1\.weight must be \[5, 4\], got \[3, 4\] \(1 more\)\. Check --arch"
    ):
        read(path, name="mlp-5")
    with pytest.raises(
        InputError, match=r"must hold a mlp-3-2: fc3\.weight must be \[2, 2\], got no such tensor\. Check"
    ):
        read(path, name="mlp-3-2")
    save_file(tensors(fc3_weight=np.ones((2, 2), np.float32)), path)
    with pytest.raises(InputError, match=r"a mlp-3: fc3\.weight \[2, 2\] must not exist"):
        read(path, name="mlp-3")
    with pytest.raises(InputError, match=r"architecture 'mpl-3' is unknown"):
        read(path, name="mpl-3")
    with pytest.raises(InputError, match=r"4 inputs to 2 classes.*64 inputs and 10 classes"):
        load_task("digits", target=path)
    target = initial(architecture("conv2", IMAGE, 10, width=0.05))
    arrays = target.arrays()
    arrays["conv2.weight"] = arrays["conv2.weight"][:, :, :2]
    save_file(arrays, path)
    with pytest.raises(
        InputError, match=r"hold a conv2: conv2\.weight must be \[3, 3, 3, 3\], got \[3, 3, 2, 3\]\. Name it"
    ):
        import_target(path, IMAGE, 10)


def test_files_that_are_no_safetensors_are_refused(path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read(path)
    path.mkdir()
    with pytest.raises(InputError, match="has no safetensors file"):
        read(path)
    path.rmdir()
    save_file(tensors(), path)
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[:20], b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            read(path)
    header = json.dumps({"fc1.weight": {"dtype": "F8_E4M3", "shape": [1, 1], "data_offsets": [0, 1]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(InputError, match="F8_E4M3"):
        read(path)
    save_file({}, path)
    with pytest.raises(InputError, match="got nothing"):
        read(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no published target in ../shared/targets")
def test_the_published_target_is_read() -> None:
    target = import_target(SHARED / "pensia_fc2.safetensors", Spec((28, 28, 1), True), 10)
    assert target.network == architecture("fc2", Spec((28, 28, 1), True), 10) and target.weights == 397_000


def test_all_outputs_are_those_of_the_weights_whatever_the_batch(path: Path) -> None:
    save_file(tensors(), path)
    x = np.random.default_rng(2).normal(size=(7, 4)).astype(np.float32)
    first, second = (value.astype(np.float64) for value in tensors().values())
    wanted = np.maximum(x @ first.T, 0) @ second.T
    for size in (1, 3, 7, 100):
        np.testing.assert_allclose(outputs(read(path).forward(), x, batch_size=size), wanted, rtol=1e-5, atol=1e-5)
