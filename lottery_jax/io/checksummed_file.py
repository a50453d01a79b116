"""Checksummed files: safetensors whose one metadata entry is a SHA-256 digest and a JSON header.

The safetensors library writes several entries in no fixed order; with one entry, equal content gives equal files.
The digest covers header and tensors and is computed in slices, so a file of any size can be checked.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.tensor_file import DTYPES, FormatError, TensorFile, TensorInfo, file_layout, tensor_infos

_SLICE_BYTES = 1 << 22


def _digest_line(tensor: TensorInfo) -> bytes:
    return f"{tensor.name} {DTYPES[tensor.dtype].name} {tensor.shape}".encode()


def digest(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hexadecimal) of a header and arrays, in the order of their names."""
    sha = hashlib.sha256(text.encode())
    for _, tensor in sorted(tensor_infos(tensors).items()):
        sha.update(_digest_line(tensor))
        sha.update(np.ascontiguousarray(tensors[tensor.name]).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def checksummed_bytes(entry: str, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a checksummed file; ``entry`` names the metadata entry and, in errors, the kind of file.

    >>> content = checksummed_bytes("note", {"format": "note"}, {"x": np.arange(3, dtype=np.uint8)})
    >>> len(content), content[-3:]
    (179, b'\\x00\\x01\\x02')
    """
    text = json.dumps(header, sort_keys=True)
    start, placed = file_layout(tensor_infos(tensors).values(), {entry: f"{digest(text, tensors)} {text}"})
    parts = [start]
    for name in placed:
        parts.append(np.ascontiguousarray(tensors[name]).tobytes())
    return b"".join(parts)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")  # NaN and Infinity, which Python's JSON would accept


class ChecksummedFile(TensorFile):
    """A checksummed file open for reading, with its ``header``; ``check_digest`` compares content and checksum.

    Raises:
        InputError: The file cannot be read.
        FormatError: The file is not a checksummed file of this kind.
    """

    def __init__(self, path: str | os.PathLike[str], entry: str) -> None:
        super().__init__(path)
        try:
            self._digest, _, self._text = self.metadata[entry].partition(" ")
            self.header: dict[str, Any] = json.loads(self._text, parse_constant=_refuse_constant)
            self.header.get("format")
            json.dumps(self.header, ensure_ascii=False).encode()  # a lone surrogate is no text, and raises
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.close()
            raise FormatError(f"{self.where} is not a lottery_jax {entry}, or it is truncated or damaged") from error

    def check_digest(self) -> None:
        """Read the whole file once; raises ``FormatError`` if its content does not match its checksum."""
        sha = hashlib.sha256(self._text.encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            if tensor.dtype not in DTYPES:
                raise FormatError(f"{self.where} was changed after it was written: {name} is {tensor.dtype}")
            sha.update(_digest_line(tensor))
            for start in range(0, tensor.nbytes, _SLICE_BYTES):
                sha.update(self.read_bytes(tensor.start + start, min(_SLICE_BYTES, tensor.nbytes - start)))
        if sha.hexdigest() != self._digest:
            raise FormatError(f"{self.where} was changed after it was written: its checksum does not match its content")


class ChecksummedWriter:
    """Writes a checksummed file tensor by tensor, in the order of their names; an error removes the file.

    ``path`` is a temporary file, which the caller renames.
    """

    def __init__(self, path: Path, entry: str, header: Mapping[str, Any], tensors: Iterable[TensorInfo]) -> None:
        self._path = path
        self._text = json.dumps(header, sort_keys=True)
        self._entry = entry
        # Zeros in place of the digest, which is known only at the end.
        self._start, self._placed = file_layout(tensors, {entry: f"{'0' * 64} {self._text}"})
        self._names: Sequence[str] = sorted(self._placed)
        self._sha = hashlib.sha256(self._text.encode())
        self._current, self._written = -1, 0

    def __enter__(self) -> Self:
        try:
            self._file: BinaryIO = self._path.open("wb", buffering=0)
        except OSError as error:
            raise self._write_error(error) from None
        try:
            self._write_bytes(self._start)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is not None:
            self._path.unlink(missing_ok=True)

    def write(self, name: str, content: bytes | bytearray | memoryview) -> None:
        """Append bytes to tensor ``name``: the current one, or the next in the order of names."""
        if self._current < 0 or name != self._names[self._current]:
            self._next_tensor(name)
        self._written += len(content)
        self._sha.update(content)
        self._write_bytes(content)

    def finish(self) -> None:
        """Write the digest and flush the file to disk."""
        while self._current < len(self._names):
            self._next_tensor(self._names[self._current + 1] if self._current + 1 < len(self._names) else None)
        start, _ = file_layout(self._placed.values(), {self._entry: f"{self._sha.hexdigest()} {self._text}"})
        self._file.seek(0)
        self._write_bytes(start)
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._write_error(error) from None

    def _next_tensor(self, name: str | None) -> None:
        if self._current >= 0 and self._written != self._placed[self._names[self._current]].nbytes:
            raise ValueError(f"{self._names[self._current]} has {self._written} bytes, which is not its size")
        self._current, self._written = self._current + 1, 0
        if name is None:
            return
        if name != self._names[self._current]:
            raise ValueError(f"{name} comes before {self._names[self._current]}")
        self._sha.update(_digest_line(self._placed[name]))
        self._file.seek(self._placed[name].start)

    def _write_bytes(self, content: bytes | bytearray | memoryview) -> None:
        view = memoryview(content)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._write_error(error) from None

    def _write_error(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write {str(self._path)!r} ({error.strerror}); free some space or choose a writable folder"
        )
