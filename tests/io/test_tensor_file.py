"""Safetensors in slices: what the library writes is read, what is damaged is refused by name."""

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import checksummed_bytes
from lottery_jax.io.tensor_file import FormatError, TensorFile, read_float64

TYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.uint8]


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    named = {f"t{place}": (100 * rng.normal(size=(5, 7))).astype(kind) for place, kind in enumerate(TYPES)}
    return named | {"empty": np.zeros((0, 3), np.float32), "vector": np.arange(3, dtype=np.float32)}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_slices_are_what_the_library_wrote(tmp_path: Path) -> None:
    with TensorFile(written(tmp_path / "x", save(tensors()))) as file:
        assert {name: tensor.shape for name, tensor in file.tensors.items()} == {
            name: value.shape for name, value in tensors().items()
        }
        for name, value in tensors().items():
            for first, count in ((0, value.size), (3, value.size - 3), (value.size, 0)):
                if first <= value.size and count >= 0:
                    part = file.read(name, first, count)
                    assert part.tobytes() == value.reshape(-1)[first : first + count].tobytes()
            if file.tensors[name].dtype in ("F64", "F32", "F16", "BF16"):
                exact = read_float64(file, name, 0, value.size)
                np.testing.assert_array_equal(exact, value.reshape(-1).astype(np.float64))
        with pytest.raises(IndexError):
            file.read("vector", 2, 2)


def test_a_checksummed_file_is_as_the_library_writes_it(tmp_path: Path) -> None:
    content = checksummed_bytes("note", {"format": "note"}, tensors())
    with TensorFile(written(tmp_path / "x", content)) as file:
        assert content == save(tensors(), metadata=file.metadata)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_header_is_refused_or_read(tmp_path_factory, data) -> None:
    """No other error, and no read beyond the file; without a digest a change of a name or of data cannot show."""
    content = bytearray(save(tensors()))
    (length,) = struct.unpack("<Q", content[:8])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 7 + length))] = data.draw(st.integers(0, 255))
    try:
        with TensorFile(written(tmp_path_factory.mktemp("x") / "x", bytes(content))) as file:
            for name, tensor in file.tensors.items():
                assert len(file.read_bytes(tensor.start, tensor.nbytes)) == tensor.nbytes, name
    except FormatError as error:
        assert "\n" not in str(error)


def header(rows: object) -> bytes:
    text = json.dumps(rows).encode()
    return struct.pack("<Q", len(text)) + text


ROW = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
REFUSED = {
    "empty": b"",
    "short": b"\1\0\0",
    "header beyond the end": struct.pack("<Q", 50) + b"{}",
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": struct.pack("<Q", 2) + b"{]",
    "not a dictionary": header([1]),
    "deep": struct.pack("<Q", 20_000) + b"[" * 20_000,
    "no type": header({"a": {"shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
    "type that is no word": header({"a": {**ROW, "dtype": ["F32"]}}) + bytes(4),
    "ends before it begins": header({"a": {"dtype": "F7", "shape": [1], "data_offsets": [4, 0]}}) + bytes(4),
    "negative size": header({"a": {**ROW, "shape": [-1]}}) + bytes(4),
    "size that is no number": header({"a": {**ROW, "shape": ["1"]}}) + bytes(4),
    "true as a size": header({"a": {**ROW, "shape": [True]}}) + bytes(4),
    "shape beyond its bytes": header({"a": {**ROW, "shape": [2]}}) + bytes(4),
    "cut off": header({"a": ROW}) + bytes(3),
    "too long": header({"a": ROW}) + bytes(5),
    "overlap": header({"a": ROW, "b": ROW}) + bytes(4),
    "gap": header({"a": ROW, "b": {**ROW, "data_offsets": [8, 12]}}) + bytes(12),
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a readable safetensors file") as caught:
        TensorFile(written(tmp_path / "x", content))
    assert str(tmp_path / "x") in str(caught.value)


def test_a_type_of_the_future_is_passed_by(tmp_path: Path) -> None:
    rows = {"a": {**ROW, "dtype": "F8_E9M9", "shape": [4, 1]}, "b": {**ROW, "shape": [1, 1], "data_offsets": [4, 8]}}
    with TensorFile(written(tmp_path / "x", header(rows) + bytes(4) + np.float32(0.5).tobytes())) as file:
        assert (file.tensors["a"].dtype, file.tensors["a"].nbytes) == ("F8_E9M9", 4)
        assert file.read("b", 0, 1).tolist() == [0.5]


def test_where_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        TensorFile(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a folder"):
        TensorFile(tmp_path)


def test_a_file_that_becomes_shorter_is_told(tmp_path: Path) -> None:
    content = save(tensors())
    with TensorFile(written(tmp_path / "x", content)) as file:
        written(tmp_path / "x", content[:-200])
        with pytest.raises(FormatError, match="became shorter while it was read"):
            for name, tensor in file.tensors.items():
                file.read(name, 0, tensor.size)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux to count open files")
def test_files_are_closed(tmp_path: Path) -> None:
    """Also where the content is refused, and where the object is only forgotten."""

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    with pytest.raises(FormatError):
        TensorFile(written(tmp_path / "x", b"foreign"))
    written(tmp_path / "x", save(tensors()))
    file = TensorFile(tmp_path / "x")
    assert opened() == before + 1
    del file
    with TensorFile(tmp_path / "x"):
        pass
    assert opened() == before
