"""Sealed files: safetensors with one metadata entry, a JSON header behind a digest over everything.

One entry, because the safetensors library writes several in no fixed order, and equal content shall be equal files.
A reader can tell a file that is foreign, cut off or changed in any bit from one that is as it was written, whatever
its size: digests are taken slice by slice.
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

_SLICE = 1 << 22  # bytes read or hashed at once


def _digest_line(tensor: TensorInfo) -> bytes:
    return f"{tensor.name} {DTYPES[tensor.dtype].name} {tensor.shape}".encode()


def digest(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over a header and arrays, in the order of their names."""
    sha = hashlib.sha256(text.encode())
    for tensor in sorted(tensor_infos(tensors), key=lambda tensor: tensor.name):
        sha.update(_digest_line(tensor))
        sha.update(np.ascontiguousarray(tensors[tensor.name]).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def checksummed_bytes(entry: str, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a sealed file with `header` in its metadata as `entry`.

    >>> content = checksummed_bytes("note", {"format": "note"}, {"x": np.arange(3, dtype=np.uint8)})
    >>> len(content), content[-3:]
    (179, b'\\x00\\x01\\x02')
    """
    text = json.dumps(header, sort_keys=True)
    start, placed = file_layout(tensor_infos(tensors), {entry: f"{digest(text, tensors)} {text}"})
    ordered = sorted(placed.values(), key=lambda tensor: (tensor.start, tensor.nbytes))
    return start + b"".join(np.ascontiguousarray(tensors[tensor.name]).tobytes() for tensor in ordered)


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


class ChecksummedFile(TensorFile):
    """A sealed file open for reading: `header`, and the tensors. `check_digest` says whether it is as written."""

    def __init__(self, path: str | os.PathLike[str], entry: str) -> None:
        super().__init__(path)
        try:
            self._digest, _, self._text = self.metadata[entry].partition(" ")
            self.header: dict[str, Any] = json.loads(self._text, parse_constant=_no_number)
            self.header.get("format")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.close()
            raise FormatError(f"{self.where} is not a lottery_jax {entry}, or it is truncated or damaged") from error

    def check_digest(self) -> None:
        """Read everything once, slice by slice; raises `FormatError`."""
        sha = hashlib.sha256(self._text.encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            if tensor.dtype not in DTYPES:
                raise FormatError(f"{self.where} was changed after it was written: {name} is {tensor.dtype}")
            sha.update(_digest_line(tensor))
            for start in range(0, tensor.nbytes, _SLICE):
                sha.update(self.read_bytes(tensor.start + start, min(_SLICE, tensor.nbytes - start)))
        if sha.hexdigest() != self._digest:
            raise FormatError(f"{self.where} was changed after it was written: its checksum does not match its content")


class ChecksummedWriter:
    """Writes a sealed file tensor by tensor, in the order of their names, into `path`, a temporary name.

    `write` appends bytes to a tensor; `finish` seals the file and waits for the disk. Whatever goes wrong, the file
    is taken away again.
    """

    def __init__(self, path: Path, entry: str, header: Mapping[str, Any], tensors: Iterable[TensorInfo]) -> None:
        self._path = path
        self._text = json.dumps(header, sort_keys=True)
        self._entry = entry
        # Room for the digest, which is known only at the end.
        self._start, self._placed = file_layout(tensors, {entry: f"{'0' * 64} {self._text}"})
        self._names: Sequence[str] = sorted(self._placed)
        self._sha = hashlib.sha256(self._text.encode())
        self._at, self._done = -1, 0

    def __enter__(self) -> Self:
        try:
            self._file: BinaryIO = self._path.open("wb", buffering=0)
        except OSError as error:
            raise self._refusal(error) from None
        try:
            self._put(self._start)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is not None:
            self._path.unlink(missing_ok=True)

    def write(self, name: str, content: bytes | bytearray | memoryview) -> None:
        """Append to tensor `name`, the one begun last or the next in order."""
        if self._at < 0 or name != self._names[self._at]:
            self._begin(name)
        self._done += len(content)
        self._sha.update(content)
        self._put(content)

    def finish(self) -> None:
        """Close the last tensor, write the digest in its place, and wait for the disk."""
        while self._at < len(self._names):
            self._begin(self._names[self._at + 1] if self._at + 1 < len(self._names) else None)
        start, _ = file_layout(self._placed.values(), {self._entry: f"{self._sha.hexdigest()} {self._text}"})
        self._file.seek(0)
        self._put(start)
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refusal(error) from None

    def _begin(self, name: str | None) -> None:
        if self._at >= 0 and self._done != self._placed[self._names[self._at]].nbytes:
            raise ValueError(f"{self._names[self._at]} got {self._done} bytes")
        self._at, self._done = self._at + 1, 0
        if name is None:
            return
        if name != self._names[self._at]:
            raise ValueError(f"{name} comes before {self._names[self._at]}")
        self._sha.update(_digest_line(self._placed[name]))
        self._file.seek(self._placed[name].start)

    def _put(self, content: bytes | bytearray | memoryview) -> None:
        view = memoryview(content)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write {str(self._path)!r} ({error.strerror}); free some space or choose a writable folder"
        )
