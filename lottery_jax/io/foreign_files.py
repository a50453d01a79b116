"""Files of weights that are not safetensors: recognised by their content, with the command that converts each."""

import json
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

from lottery_jax.io.files import read_regular

_HEAD_BYTES = 4096
_TORCH_PICKLE = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # its magic number as PyTorch 1.5 and older pickle it
_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}  # of ONNX's ModelProto
_VERSION_FIELD, _GRAPH_FIELD = 1, 7
_LARGEST = 1 << 31  # bytes of a protobuf message
_VARINT, _BYTES = 0, 2  # wire types of protobuf
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf")  # gzip, zstd, bzip2, xz, 7z
_SAVE = "from safetensors.numpy import save_file; "
_SAVE_TORCH = "import torch; from safetensors.torch import save_file; "
_TORCH = _SAVE_TORCH + 'save_file(torch.load({}, "cpu", weights_only=True), {})'
_SCRIPT = _SAVE_TORCH + 'save_file(torch.jit.load({}, "cpu").state_dict(), {})'
_KERAS = "import keras; " + _SAVE + "save_file({{w.path: w.numpy() for w in keras.models.load_model({}).weights}}, {})"
_PICKLE = "import pickle; " + _SAVE + 'save_file(pickle.load(open({}, "rb")), {})'
_NPZ = "import numpy; " + _SAVE + "save_file(dict(numpy.load({})), {})"
_NPY = "import numpy; " + _SAVE + 'save_file({{"fc1.weight": numpy.load({})}}, {})'
_GGUF = (
    "from gguf import GGUFReader, dequantize; " + _SAVE + "save_file({{t.name: dequantize(t.data, t.tensor_type)"
    " for t in GGUFReader({}).tensors}}, {})"
)
_ONNX = (
    "import onnx; " + _SAVE + "save_file({{t.name: onnx.numpy_helper.to_array(t)"
    " for t in onnx.load({}).graph.initializer}}, {})"
)
_MSGPACK = (
    "from flax.serialization import msgpack_restore; from flax.traverse_util import flatten_dict; "
    + _SAVE
    + 'save_file(flatten_dict(msgpack_restore(open({}, "rb").read()), sep="/"), {})'
)


def foreign_file(path: Path) -> str | None:
    """The format of a file that is not safetensors, and how to convert it, as the end of a sentence; else None.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pointer = Path(folder) / "model.safetensors"
    ...     _ = pointer.write_text("version https://git-lfs.github.com/spec/v1")
    ...     foreign_file(pointer)
    'a Git LFS pointer, not the file itself. Run git lfs pull.'
    """
    head = read_regular(path, _HEAD_BYTES)
    for begins, kind, advice in _KINDS:
        if begins(head, path):
            return f"{kind}. {_converted(advice, path) if 'save_file' in advice else advice}"
    return None


def _converted(code: str, path: Path) -> str:
    """The command that converts a file to safetensors."""
    out = path.with_suffix(".safetensors")
    if out == path:
        out = path.with_name(f"{path.stem}-converted.safetensors")
    hint = ""
    if code == _TORCH:
        hint = ' (put ["state_dict"] after the load if the checkpoint holds more)'
    if code == _PICKLE:
        hint = " (a pickle can run any code, so only if you trust its origin)"
    names = (json.dumps(str(name), ensure_ascii=False) for name in (path, out))
    return f"Convert it: python -c {shlex.quote(code.format(*names))}{hint}."


def _starts(*starts: bytes) -> Callable[[bytes, Path], bool]:
    return lambda head, path: head.startswith(starts)


def _zipped(part: str) -> Callable[[bytes, Path], bool]:
    """A zip file with a member whose name contains `part`."""

    def found(head: bytes, path: Path) -> bool:
        if not head.startswith(b"PK\x03\x04"):
            return False
        try:
            with zipfile.ZipFile(path) as file:
                return any(part in f"/{name}" for name in file.namelist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return False

    return found


def _is_html(head: bytes, path: Path) -> bool:
    return head.lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _is_json(head: bytes, path: Path) -> bool:
    return head.lstrip().startswith((b"{", b"["))


def _is_pickle(head: bytes, path: Path) -> bool:
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _is_msgpack(head: bytes, path: Path) -> bool:
    """A map whose first key is a text."""
    skipped = {0xDE: 3, 0xDF: 5}.get(head[0], 1) if head else 0
    is_map = bool(head) and (0x81 <= head[0] <= 0x8F or skipped > 1)
    return is_map and len(head) > skipped and (0xA0 <= head[skipped] <= 0xBF or head[skipped] == 0xD9)


def _is_onnx(head: bytes, path: Path) -> bool:
    """A protobuf message with the fields of ONNX's ModelProto, among them its version and a graph."""
    fields, position = set[int](), 0
    with path.open("rb") as file:
        while not {_VERSION_FIELD, _GRAPH_FIELD} <= fields and len(fields) < len(_MODEL_FIELDS):
            file.seek(position)
            part = file.read(_HEAD_BYTES)
            tag, length = _varint(part, 0)
            size, end = _varint(part, length)
            if tag >> 3 not in _MODEL_FIELDS or tag & 7 not in (_VARINT, _BYTES) or end == length:
                return False
            fields.add(tag >> 3)
            position += end + (size if tag & 7 == _BYTES else 0)
            if position >= _LARGEST:
                return False
    return {_VERSION_FIELD, _GRAPH_FIELD} <= fields


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A protobuf integer, and the position behind it, which is its own if the content ends."""
    value = 0
    for shift, byte in enumerate(content[position : position + 9]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, position + shift + 1
    return value, position


_KINDS: tuple[tuple[Callable[[bytes, Path], bool], str, str], ...] = (
    (_starts(b"version https://git-lfs"), "a Git LFS pointer, not the file itself", "Run git lfs pull."),
    (_is_html, "an HTML page", "Download the file itself, not the page that shows it."),
    (_zipped("/code/"), "a TorchScript file of PyTorch", _SCRIPT),
    (_zipped("/data.pkl"), "a checkpoint of PyTorch", _TORCH),
    (_zipped("/model.weights.h5"), "a model of Keras", _KERAS),
    (_zipped(".npy"), "a .npz file of NumPy", _NPZ),
    (_starts(b"PK\x03\x04"), "a zip archive", "Unpack it, and name the .safetensors file."),
    (_starts(b"\x89HDF\r\n\x1a\n"), "an HDF5 file, as Keras writes it", _KERAS),
    (_starts(_TORCH_PICKLE), "a checkpoint of PyTorch (a pickle)", _TORCH),
    (_is_pickle, "a Python pickle", _PICKLE),
    (_starts(b"\x93NUMPY"), "a .npy file of NumPy", _NPY),
    (_starts(b"GGUF"), "a GGUF file of llama.cpp", _GGUF),
    (
        _starts(b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf"),
        "a compressed file",
        "Unpack it.",
    ),
    (_is_json, "a JSON file without a weight_map", "Name the .safetensors file, or the folder that holds it."),
    (_is_onnx, "an ONNX model", _ONNX),
    (_is_msgpack, "a msgpack file, as Flax writes it", _MSGPACK),
)
"""Test of a file's first bytes, its format in words, and the code that converts it or other advice; the first fits."""
