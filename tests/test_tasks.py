"""Targets: imported with every refusal, exported, trained from a seed and kept; tasks by name."""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from lottery_jax import data
from lottery_jax.errors import InputError
from lottery_jax.comparison.evaluation import accuracy
from lottery_jax.tasks import Target, export_target, import_target, load_task, train, train_target

PUBLISHED = Path(__file__).parents[2] / "shared" / "targets" / "pensia_fc2.safetensors"


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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "target.safetensors"


def test_layers_come_in_the_order_of_their_numbers(path: Path) -> None:
    rng = np.random.default_rng(1)
    named = {f"fc{layer}.weight": rng.normal(size=(3, 3)).astype(np.float32) for layer in range(1, 12)}
    save_file(named, path)
    target = import_target(path)
    assert target.names == tuple(f"fc{layer}.weight" for layer in range(1, 12))
    for name, weight in zip(target.names, target.weights, strict=True):
        np.testing.assert_array_equal(weight, named[name].T)
    assert target.count == 99 and target.sizes == (3,) * 12


def test_the_network_is_the_relu_chain() -> None:
    target = Target(tuple(value.T for value in tensors().values()))
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    first, second = (weight.astype(np.float64) for weight in target.weights)
    np.testing.assert_allclose(target.network()(x), np.maximum(x @ first, 0) @ second, rtol=1e-5, atol=1e-5)


def test_export_then_import_is_exact(path: Path) -> None:
    target = Target(tuple(value.T for value in tensors().values()))
    export_target(target, path)
    again = import_target(path, shapes=[(3, 4), (2, 3)], inputs=4, classes=2)
    for weight, other in zip(target.weights, again.weights, strict=True):
        np.testing.assert_array_equal(weight, other)
    with pytest.raises(InputError, match="cannot write"):
        export_target(target, path / "below" / "a_file.safetensors")


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_become_float32(kind: type, path: Path) -> None:
    save_file({name: value.astype(kind) for name, value in tensors().items()}, path)
    for weight, value in zip(import_target(path).weights, tensors().values(), strict=True):
        assert weight.dtype == np.float32
        np.testing.assert_array_equal(weight, value.astype(kind).astype(np.float32).T)


BIG = np.full((3, 4), 1e300)
REFUSED = {
    "bias": (
        {"fc1_bias": np.zeros(3, np.float32)},
        r"fc1\.weight \[out, in\].*holds fc1\.bias \[3\], .*without biases",
    ),
    "gap": (
        {"fc2_weight": None, "fc3_weight": np.ones((2, 3), np.float32)},
        r"fc2\.weight.*but holds.*fc3\.weight",
    ),
    "foreign name": (
        {"conv_weight": np.ones((2, 3), np.float32)},
        r"nothing else, but holds conv\.weight \[2, 3\]",
    ),
    "no chain": (
        {"fc2_weight": np.ones((2, 5), np.float32)},
        r"takes 5 inputs.*3 outputs \(fc1\.weight \[3, 4\]",
    ),
    "NaN": ({"fc1_weight": np.full((3, 4), np.nan, np.float32)}, r"fc1\.weight.*12 weights that are NaN"),
    "infinite": ({"fc2_weight": np.full((2, 3), np.inf, np.float32)}, r"fc2\.weight.*6 weights"),
    "overflow": ({"fc1_weight": BIG}, r"fc1\.weight.*12 weights.*beyond float32"),
    "empty": ({"fc1_weight": np.zeros((0, 4), np.float32)}, r"fc1\.weight.*shape \[0, 4\]"),
    "vector": ({"fc1_weight": np.zeros(4, np.float32)}, r"fc1\.weight.*shape \[4\]"),
    "integers": ({"fc1_weight": np.zeros((3, 4), np.int64)}, r"no floats \(fc1\.weight is I64\)"),
    "booleans": ({"fc1_weight": np.zeros((3, 4), bool)}, r"fc1\.weight is BOOL"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_target_is_refused_by_name(changes: dict, message: str, path: Path) -> None:
    save_file(tensors(**changes), path)
    with pytest.raises(InputError, match=message) as caught:
        import_target(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_files_that_are_no_safetensors_are_refused(path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        import_target(path)
    with pytest.raises(InputError, match=r"does not end in \.safetensors"):
        import_target(path.with_suffix(".pt"))
    path.mkdir()
    with pytest.raises(InputError, match="not a file"):
        import_target(path)
    path.rmdir()
    save_file(tensors(), path)
    whole = path.read_bytes()
    header = json.dumps({"fc1.weight": {"dtype": "F8_E4M3", "shape": [1, 1], "data_offsets": [0, 1]}}).encode()
    for content in (b"", b"PK\x03\x04" * 9, whole[:-1], whole[:20], b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no readable safetensors file"):
            import_target(path)
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(InputError, match="F8_E4M3"):
        import_target(path)
    save_file({}, path)
    with pytest.raises(InputError, match=r"must hold fc1\.weight \[out, in\] .* but holds nothing"):
        import_target(path)


def test_shapes_that_were_asked_for_are_listed_beside_the_found_ones(path: Path) -> None:
    save_file(tensors(), path)
    with pytest.raises(InputError, match=r"hold fc1\.weight \[5, 4\], .*but holds fc1\.weight \[3, 4\]"):
        import_target(path, shapes=[(5, 4), (2, 5)])
    with pytest.raises(InputError, match=r"fc3\.weight \[2, 2\] and nothing else"):
        import_target(path, shapes=[(3, 4), (2, 3), (2, 2)])
    with pytest.raises(InputError, match=r"4 inputs to 2 classes.*64 inputs and 10 classes"):
        load_task("digits", target=path)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="no published target in ../shared/targets")
def test_the_published_target_is_read() -> None:
    target = import_target(PUBLISHED, shapes=[(500, 784), (10, 500)])
    assert target.sizes == (784, 500, 10) and target.count == 397_000


def test_digits_target_is_good_kept_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    digits = data.load("digits")
    first = train_target(
        digits, seed=0, cache_dir=tmp_path, progress=lambda done, epochs, history: seen.append((done, epochs))
    )
    assert first.sizes == (64, 64, 10) and seen[-1] == (60, 60) and len(seen) == 20
    assert accuracy(first.network(), digits.test) >= 0.95
    in_one_part = train_target(digits, seed=0, cache_dir=tmp_path / "other")
    other_seed = train_target(digits, seed=1, cache_dir=tmp_path)
    assert not np.array_equal(first.weights[0], other_seed.weights[0])
    monkeypatch.setattr(train, "_train", None)  # what follows must come from the cache
    again = load_task("digits", cache_dir=tmp_path).target
    for weight, one, other in zip(first.weights, again.weights, in_one_part.weights, strict=True):
        np.testing.assert_array_equal(weight, one)
        np.testing.assert_allclose(weight, other, rtol=0, atol=1e-3)


def test_a_damaged_kept_target_is_trained_again(tmp_path: Path) -> None:
    digits = data.load("digits")
    settings = {"hidden": (), "seed": 3, "epochs": 2, "cache_dir": tmp_path}
    first = train_target(digits, **settings)
    (file,) = tmp_path.rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 64
    file.write_bytes(content)
    np.testing.assert_allclose(train_target(digits, **settings).weights[0], first.weights[0], atol=1e-6)
    train_target(digits, **{**settings, "epochs": 1})
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2, "other settings are another file"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": (0,)}, r"sizes \(0,\)"),
        ({"hidden": (2.5,)}, r"sizes \(2.5,\)"),
        ({"seed": -1}, "seed is -1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch size of 0"),
        ({"batch_size": 2000}, "2000 does not fit 1257"),
        ({"learning_rate": float("nan")}, "learning rate is nan"),
        ({"learning_rate": 1e38, "epochs": 2}, "diverged.*lower the learning rate"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train_target(data.load("digits"), **{"seed": 0, "cache_dir": tmp_path, **settings})
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_target_needs_layers_that_fit() -> None:
    with pytest.raises(InputError, match="no layers"):
        Target(())
    with pytest.raises(InputError, match="float64 numbers"):
        Target((np.ones((2, 2)),))
