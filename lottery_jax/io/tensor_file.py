"""Named tensors that are read in slices, from a safetensors file of any size or from memory.

A safetensors file is eight bytes with the length of a JSON header, the header, and the tensors' bytes without gaps.
It is read with plain reads at an offset, because the pages of a memory map would count as memory of the process.
"""

import dataclasses
import json
import math
import operator
import os
import struct
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import ml_dtypes
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.files import file_digest, open_regular

STORAGE_DTYPES = {
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "BF16": np.dtype("<u2"),  # the bits of a bfloat16, which NumPy does not have
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}
"""NumPy dtypes of the stored bytes by safetensors name, in the order in which the safetensors library writes them."""

_ITEM_BYTES = {
    **{dtype: stored.itemsize for dtype, stored in STORAGE_DTYPES.items()},
    **{"U64": 8, "C64": 8, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "BOOL": 1},
}

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")

_MAX_HEADER_BYTES = 100_000_000  # the limit of the format
_MAX_AXES = 32  # of a NumPy array


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Name, dtype, shape and place of one tensor.

    ``dtype`` is a safetensors name, such as "F32"; ``start`` is the offset of the first byte in the file;
    ``opaque_bytes`` is the size if the dtype is unknown here (such a tensor is skipped).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    opaque_bytes: int | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * _ITEM_BYTES[self.dtype] if self.opaque_bytes is None else self.opaque_bytes


def to_float64(values: np.ndarray, dtype: str) -> np.ndarray:
    """The exact values of a slice of stored floats (a bfloat16 is the upper half of a float32).

    >>> to_float64(np.array([0x3FC0], np.uint16), "BF16")
    array([1.5])
    """
    if dtype == "BF16":
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(invalid="ignore"):  # a signalling NaN, which the caller refuses
        return values.astype(np.float64)


class FormatError(InputError):
    """A file does not follow its format: it is foreign, truncated or damaged."""


class TensorFile:
    """A safetensors file open for reading.

    Raises:
        InputError: The file cannot be read.
        FormatError: The file is not a safetensors file.

    >>> import tempfile
    >>> from safetensors.numpy import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, f"{folder}/w.safetensors")
    ...     with TensorFile(Path(folder) / "w.safetensors") as file:
    ...         file.tensors["w"].shape, file.read("w", 4, 2)
    ((2, 3), array([4., 5.], dtype=float32))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.where = f"the file {str(path)!r}"
        self._handle = open_regular(self.path, self.where)
        # Closed with the object: a ticket or a target that is read in slices lives as long as its user needs it.
        self.close = weakref.finalize(self, os.close, self._handle)
        try:
            self.bytes, self.header_bytes = os.fstat(self._handle).st_size, 0
            self.tensors, self.metadata = self._header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the same file; its tensors are not sent."""
        return _opened_again, (self.path.absolute(), self.sha256())

    def sha256(self) -> str:
        """The SHA-256 of the file."""
        return file_digest(self.path)

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        """Values first ... first + count - 1 of a tensor in row-major order, one-dimensional, in their stored dtype."""
        tensor = self.tensors[name]
        if not 0 <= first <= first + count <= tensor.size:
            raise IndexError(f"{name} has {tensor.size} values, not {first} to {first + count}")
        stored = STORAGE_DTYPES[tensor.dtype]
        return np.frombuffer(self.read_bytes(tensor.start + first * stored.itemsize, count * stored.itemsize), stored)

    def read_bytes(self, offset: int, count: int) -> bytearray:
        content = bytearray(count)
        view, filled = memoryview(content), 0
        while filled < count:
            try:
                got = os.preadv(self._handle, [view[filled:]], offset + filled)
            except OSError as error:
                raise InputError(f"{self.where} cannot be read ({error.strerror}); check the disk") from None
            if got == 0:
                raise FormatError(f"{self.where} became shorter while it was read; copy it again")
            filled += got
        return content

    def _header(self) -> tuple[dict[str, TensorInfo], dict[str, str]]:
        try:
            if self.bytes < 8:
                raise ValueError("it is shorter than a header")
            (length,) = struct.unpack("<Q", self.read_bytes(0, 8))
            if length > min(_MAX_HEADER_BYTES, self.bytes - 8):
                raise ValueError("its header is truncated")
            self.header_bytes = length
            rows = json.loads(self.read_bytes(8, length).decode())
            metadata = dict(rows.pop("__metadata__", {}))
            infos = []
            for name, row in rows.items():
                infos.append(_tensor(name, row, 8 + length))
            infos.sort(key=operator.attrgetter("start", "nbytes"))
            tensors, end = {}, 8 + length
            for tensor in infos:
                if tensor.start != end:
                    raise ValueError(f"{tensor.name} does not begin where the tensor before it ends")
                end += tensor.nbytes
                if end > self.bytes:
                    raise ValueError(f"it is truncated in {tensor.name}")
                tensors[tensor.name] = tensor
            if end != self.bytes:
                raise ValueError(f"it has {self.bytes - end} bytes too many")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise FormatError(f"{self.where} is not a readable safetensors file ({error}); export it again") from None
        return tensors, metadata


def _opened_again(path: Path, digest: str) -> TensorFile:
    """The file of another process; raises `InputError` if this host has no such file or another one."""
    file = TensorFile(path)
    if file.sha256() != digest:
        raise InputError(f"{file.where} is another one here; name a file that all hosts see")
    return file


def _tensor(name: str, row: Mapping[str, Any], data: int) -> TensorInfo:
    name.encode()  # a lone surrogate is no text, and raises
    dtype, shape, (start, stop) = row["dtype"], row["shape"], row["data_offsets"]
    if len(shape) > _MAX_AXES:
        raise ValueError(f"{name} has {len(shape)} axes")
    if not isinstance(dtype, str):
        raise ValueError(f"{name} has the dtype {dtype!r}")
    if not all(type(size) is int and size >= 0 for size in (*shape, start, stop)):
        raise ValueError(f"{name} has sizes that are not whole numbers")
    opaque_bytes = None if dtype in _ITEM_BYTES else max(stop - start, 0)
    tensor = TensorInfo(name, dtype, tuple(shape), data + start, opaque_bytes)
    if tensor.nbytes != stop - start:
        raise ValueError(f"{name} of shape {shape} does not fill its bytes")
    return tensor


def file_layout(tensors: Iterable[TensorInfo], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, TensorInfo]]:
    """The first bytes of a file of ``tensors``, and each tensor with its offset, in the order of the file.

    Tensors of larger items come first, then in the order of names, as in the safetensors library.

    >>> start, placed = file_layout([TensorInfo("a", "U8", (3,)), TensorInfo("b", "F32", (1, 2))], {})
    >>> len(start) % 8, placed["a"].start - placed["b"].start
    (0, 8)
    """
    dtypes = list(STORAGE_DTYPES)
    ordered = sorted(tensors, key=lambda t: (dtypes.index(t.dtype), t.name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for tensor in ordered:
        stop = offset + tensor.nbytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start = struct.pack("<Q", len(text)) + text
    placed = {}
    for tensor in ordered:
        first, _ = header[tensor.name]["data_offsets"]
        placed[tensor.name] = dataclasses.replace(tensor, start=len(start) + first)
    return start, placed


DTYPES = {**STORAGE_DTYPES, "BF16": np.dtype(ml_dtypes.bfloat16)}
"""NumPy dtypes of the values by safetensors name."""


_DTYPE_NAMES = {dtype.name: name for name, dtype in DTYPES.items()}


def tensor_infos(arrays: Mapping[str, np.ndarray]) -> dict[str, TensorInfo]:
    """Names, dtypes and shapes of arrays."""
    infos = {}
    for name, value in arrays.items():
        infos[name] = TensorInfo(name, _DTYPE_NAMES[value.dtype.name], value.shape)
    return infos


class TensorReader(Protocol):
    """Named tensors that are read in slices."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Dtypes and shapes by name."""
        ...

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        """As ``TensorFile.read``."""
        ...


class InMemoryTensors:
    """Arrays of NumPy or JAX behind the interface of ``TensorReader``.

    Args:
        path: The file that they are made from, if any.

    Raises:
        InputError: A value is not an array, or its dtype is not stored.

    >>> reader = InMemoryTensors({"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
    >>> reader.tensors["w"].shape, reader.read("w", 4, 2)
    ((2, 3), array([4., 5.], dtype=float32))
    """

    def __init__(self, arrays: Mapping[str, Any], path: Path | None = None) -> None:
        self.path = path
        self._arrays: dict[str, np.ndarray] = {}
        for name, value in arrays.items():
            self._arrays[name] = _array(name, value)
        self.tensors: Mapping[str, TensorInfo] = tensor_infos(self._arrays)

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        stored = STORAGE_DTYPES[self.tensors[name].dtype]
        return self._arrays[name].reshape(-1)[first : first + count].view(stored)


def _array(name: Any, value: Any) -> np.ndarray:
    try:
        found = np.ascontiguousarray(value)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths, a JAX array that was donated
        raise InputError(
            f"the tensor {name!r} ({type(value).__name__}) is not an array; convert it to float32"
        ) from None
    found = found.astype(found.dtype.newbyteorder("="), copy=False)  # the format is little-endian
    if found.dtype not in DTYPES.values():
        raise InputError(f"the tensor {name!r} holds {found.dtype.name}, which is not stored; convert it to float32")
    if not isinstance(name, str):
        raise InputError(f"the tensor {name!r} has a name of type {type(name).__name__}; use a str")
    return found


@dataclasses.dataclass(frozen=True)
class TensorView:
    """A stored tensor in another layout.

    Args:
        name: In the file.
        axes: The stored axes in their new order; () if they stay.
        image: (H, W, C) if the last axis is a flattened image, which becomes [C, H, W]; () if that stays.

    >>> view = TensorView("kernel", (1, 0), (1, 2, 2))
    >>> view.apply(np.arange(4).reshape(4, 1)).tolist(), view.restore(np.array([[0, 2, 1, 3]])).ravel().tolist()
    ([[0, 2, 1, 3]], [0, 1, 2, 3])
    """

    name: str
    axes: tuple[int, ...] = ()
    image: tuple[int, ...] = ()

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(stored[axis] for axis in self.axes) or stored

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """The stored tensor in the new layout."""
        found = stored.transpose(self.axes) if self.axes else stored
        if self.image:
            found = np.moveaxis(found.reshape(*found.shape[:-1], *self.image), -1, -3).reshape(found.shape)
        return np.ascontiguousarray(found)

    def restore(self, value: np.ndarray) -> np.ndarray:
        """Inverse of ``apply``."""
        if self.image:
            height, width, channels = self.image
            parts = value.reshape(*value.shape[:-1], channels, height, width)
            value = np.moveaxis(parts, -3, -1).reshape(value.shape)
        return np.ascontiguousarray(value.transpose(np.argsort(self.axes)) if self.axes else value)


class RenamedTensors:
    """Some tensors of a reader under other names, in the same or another layout.

    Args:
        names: New name -> name in ``reader``, or a view of one of its tensors.
    """

    def __init__(self, reader: TensorReader, names: Mapping[str, str | TensorView]) -> None:
        self.reader = reader
        self.views = {new: TensorView(old) if isinstance(old, str) else old for new, old in names.items()}
        self.tensors: Mapping[str, TensorInfo] = {}
        for new, view in self.views.items():
            tensor = reader.tensors[view.name]
            self.tensors[new] = dataclasses.replace(tensor, shape=view.shape(tensor.shape))
        self._last: tuple[str, np.ndarray] = "", np.zeros(0)  # it is read in slices, and applied as a whole

    @property
    def path(self) -> Path | None:
        """The file behind the reader, or None."""
        return getattr(self.reader, "path", None)

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        view = self.views[name]
        if not (view.axes or view.image):
            return self.reader.read(view.name, first, count)
        if self._last[0] != name:
            tensor = self.reader.tensors[view.name]
            stored = self.reader.read(view.name, 0, tensor.size).reshape(tensor.shape)
            self._last = name, view.apply(stored).reshape(-1)
        return self._last[1][first : first + count]


def read_float64(reader: TensorReader, name: str, first: int, count: int) -> np.ndarray:
    """A slice of floats as exact float64 values, one-dimensional."""
    return to_float64(reader.read(name, first, count), reader.tensors[name].dtype)


def read_array(reader: TensorReader, name: str) -> np.ndarray:
    """A whole tensor in its own dtype and shape."""
    tensor = reader.tensors[name]
    return reader.read(name, 0, tensor.size).view(DTYPES[tensor.dtype]).reshape(tensor.shape)
