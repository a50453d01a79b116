"""Files of other formats are named by their content, whatever their name, and the command for each converts it."""

import json
import pickle
import shlex
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from flax import serialization
from safetensors.numpy import load_file, save_file

from lottery_jax.errors import InputError
from lottery_jax.importers.state_dict import import_target, load_model
from lottery_jax.io.weight_files import open_tensors
from lottery_jax.networks.node import Spec
from tests.cli.calling import lottery_jax, refusal

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def zipped(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, "")

    return write


def content(*parts: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(b"".join(parts)) and None


def write_onnx(path: Path) -> None:
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "fc1.weight"], ["y"], transB=1)],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2])],
        [onnx.numpy_helper.from_array(WEIGHT, "fc1.weight")],
    )
    onnx.save(helper.make_model(graph, producer_name="a test" * 1000), path)  # the graph is beyond the first bytes


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **{"fc1.weight": WEIGHT})  # type: ignore[arg-type]


def write_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, WEIGHT)


CONVERTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "npz": (write_npz, "a .npz file of NumPy"),
    "npy": (write_npy, "a .npy file of NumPy"),
    "onnx": (write_onnx, "an ONNX model"),
    "pickle": (content(pickle.dumps({"fc1.weight": WEIGHT})), "a Python pickle"),
    "msgpack": (
        content(serialization.to_bytes({"params": {"fc1": {"kernel": np.ascontiguousarray(WEIGHT.T)}}})),
        "a msgpack file, as Flax writes it",
    ),
}
NAMED: dict[str, tuple[Callable[[Path], None], str]] = {
    "torch zip": (zipped("net/data.pkl", "net/data/0"), r"a checkpoint of PyTorch\. Convert it: .*torch\.load\("),
    "torch pickle": (content(pickle.dumps(0x1950A86A20F9469CFC6C, 2)), r"a checkpoint of PyTorch \(a pickle\)"),
    "torch script": (zipped("net/data.pkl", "net/code/net.py"), r"a TorchScript file .*torch\.jit\.load"),
    "keras": (zipped("config.json", "model.weights.h5"), r"a model of Keras\. .*keras\.models\.load_model"),
    "zip": (zipped("readme.txt"), r"a zip archive\. Unpack it"),
    "broken zip": (content(b"PK\x03\x04", b"0" * 99), "a zip archive"),
    "hdf5": (content(b"\x89HDF\r\n\x1a\n", bytes(99)), r"an HDF5 file.*keras"),
    "gguf": (content(b"GGUF\x03\0\0\0", bytes(64)), r"a GGUF file .*GGUFReader"),
    "gzip": (content(b"\x1f\x8b\x08", bytes(99)), r"a compressed file\. Unpack it\."),
    "lfs": (
        content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        r"a Git LFS .*git lfs pull",
    ),
    "html": (content(b"\n<!DOCTYPE html><html>"), r"an HTML page\. Download the file itself"),
    "json": (content(b'{"architectures": []}'), "a JSON file without a weight_map"),
}


@pytest.mark.parametrize("name", ["net.pt", 'it\'s "my" $net.safetensors'])
@pytest.mark.parametrize("kind", CONVERTED)
def test_the_command_in_the_refusal_converts_the_file(kind: str, name: str, tmp_path: Path) -> None:
    write, words = CONVERTED[kind]
    path = tmp_path / name
    write(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=words) as refused:
        import_target(path, Spec((3,)), 2)
    command = str(refused.value).partition("Convert it: python -c ")[2]
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    code = next(iter(lexer)).removesuffix(".")
    subprocess.run([sys.executable, "-c", code], check=True)
    (made,) = set(tmp_path.iterdir()) - {path}
    assert path.read_bytes() == before and made.suffix == ".safetensors"
    np.testing.assert_array_equal(import_target(made, Spec((3,)), 2).array("fc1.weight"), WEIGHT)


@pytest.mark.parametrize("kind", [*CONVERTED, *NAMED])
def test_every_format_is_named_for_targets_and_models(kind: str, tmp_path: Path) -> None:
    write, words = {**CONVERTED, **NAMED}[kind]
    for name in ("file.safetensors", "file.bin"):
        path = tmp_path / name
        write(path)
        for read in (load_model, lambda path: import_target(path, Spec((3,)), 2)):
            with pytest.raises(InputError, match=rf"must be a safetensors file, got {words}") as refused:
                read(path)
            assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def test_cut_or_changed_files_of_all_formats_are_refused(tmp_path: Path) -> None:
    """No prefix of any of them, nor random bytes, raises anything but a refusal."""
    random, path = np.random.default_rng(0), tmp_path / "x"
    save_file({"fc1.weight": WEIGHT}, tmp_path / "whole.safetensors")
    wholes = [(tmp_path / "whole.safetensors").read_bytes()]
    for write, _ in (*CONVERTED.values(), *NAMED.values()):
        write(path)
        wholes.append(path.read_bytes())
    for whole in wholes:
        for _ in range(20):
            part = bytearray(whole[: random.integers(len(whole))])
            for place in random.integers(max(len(part), 1), size=2 if len(part) else 0):
                part[place] = random.integers(256)
            path.write_bytes(part)
            with pytest.raises(InputError):
                open_tensors(path)
            path.write_bytes(part[:1] + random.bytes(int(random.integers(50))))
            with pytest.raises(InputError):
                open_tensors(path)


def sharded(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A model in two files with an index, and its tensors."""
    random = np.random.default_rng(0)
    tensors = {f"fc{n}.weight": random.normal(size=(4, 4)).astype(np.float32) for n in (1, 2, 3)}
    names = list(tensors)
    save_file({name: tensors[name] for name in names[:2]}, folder / "model-00001-of-00002.safetensors")
    save_file({names[2]: tensors[names[2]], "unused": WEIGHT}, folder / "model-00002-of-00002.safetensors")
    places = dict.fromkeys(names, "model-00001-of-00002.safetensors") | {names[2]: "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 192}, "weight_map": places}))
    return index, tensors


def test_shards_are_one_model(tmp_path: Path) -> None:
    index, tensors = sharded(tmp_path)
    for path in (index, tmp_path):
        target = import_target(path, Spec((4,)), 4)
        model, _ = load_model(path)
        for name, value in tensors.items():
            np.testing.assert_array_equal(target.array(name), value)
            np.testing.assert_array_equal(model.array(name), value)
        assert set(model.network.tensors) == set(tensors) and target.path == index
    again = pickle.loads(pickle.dumps(target))
    assert again.digest == target.digest


def test_a_ticket_of_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    index, tensors = sharded(tmp_path / "model")
    asked = ("--model", tmp_path / "model", "--candidates", 14, "--tolerance", 0.2, "--out", tmp_path / "t")
    assert lottery_jax("approximate", *asked, "--quiet") == 0
    assert lottery_jax("verify", tmp_path / "t", "--target", index) == 0
    capsys.readouterr()
    asked = ("export", tmp_path / "t", "--out", tmp_path / "made.safetensors")
    said = refusal(capsys, 2, *asked, "--into", index)
    assert f"--into must be one file, got the index '{index}'. Export the weights alone, without --into." in said
    assert lottery_jax(*asked) == 0
    made = load_file(tmp_path / "made.safetensors")
    assert max(np.abs(made[name] - tensors[name]).max() for name in tensors) <= 0.2


def test_a_folder_of_one_file_is_that_file(tmp_path: Path) -> None:
    save_file({"fc1.weight": WEIGHT}, tmp_path / "weights.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert import_target(tmp_path, Spec((3,)), 2).path == tmp_path / "weights.safetensors"
    save_file({"fc1.weight": 2 * WEIGHT}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load_model(tmp_path)[0].array("fc1.weight"), 2 * WEIGHT)
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"one safetensors file, got 2: other.safetensors, weights.safetensors\. Name"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"w": "../model.safetensors"}, r"in its own folder, got '\.\./model\.safetensors'"),
        ({"w": "/etc/model.safetensors"}, "in its own folder"),
        ({"w": "a\\model.safetensors"}, "in its own folder"),
        ({"w": "model.bin"}, "in its own folder, got 'model.bin'"),
        ({"w": 3}, "in its own folder, got 3"),
        ({"w": ["model.safetensors"]}, "in its own folder"),
        ({"w": "a\n.safetensors"}, "in its own folder"),
        ({"w": ".."}, "in its own folder"),
        ({"w": "none.safetensors"}, "names the shard 'none.safetensors', which does not exist. Download"),
        ({"x": "model.safetensors"}, "names the tensor 'x' in the shard 'model.safetensors', which lacks it"),
        ({"w": "page.safetensors"}, "got an HTML page"),
        ({"w": "folder.safetensors"}, "is a folder"),
        ({}, "must map tensors to files, got {}"),
        (["model.safetensors"], "must map tensors to files"),
        ({str(n): f"{n}.safetensors" for n in range(600)}, "at most 512 files, got 600|does not exist"),
    ],
)
def test_a_wrong_index_is_refused(places: object, words: str, tmp_path: Path) -> None:
    save_file({"w": WEIGHT}, tmp_path / "model.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "page.safetensors").write_text("<html>")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    for path in (index, tmp_path):
        with pytest.raises(InputError, match=words) as refused:
            open_tensors(path)
        assert "\n" not in str(refused.value)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no safetensors file\. Name the file"):
        open_tensors(tmp_path)
    zipped("archive/data.pkl")(tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"no safetensors file, but 'pytorch_model.bin', a checkpoint of PyTorch\."):
        open_tensors(tmp_path)
    (tmp_path / "x").write_bytes(struct.pack("<Q", 1 << 40))
    with pytest.raises(InputError, match="not a readable safetensors file"):
        open_tensors(tmp_path / "x")
