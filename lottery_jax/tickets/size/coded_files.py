"""The parameters of all codes as bits: whole numbers from 0 up in Elias's gamma code, each of the next number.

Writing a ticket's file with its masks and redraws coded, in slices; everything else is as in any ticket.
A ticket's file whose masks and redraws are coded, read as if they were plain: decoded by segment, when needed.

The file is an untrusted input: parameters, lengths, classes and ranks are bounded, and every segment must end where
its words do and have its checksum. `check` decodes all of them once.
"""

import bisect
import collections
import dataclasses
import tempfile
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.io.checksummed_file import ChecksummedFile, ChecksummedWriter
from lottery_jax.io.files import atomic_replacement
from lottery_jax.io.tensor_file import FormatError, TensorInfo, TensorReader, read_array
from lottery_jax.networks.network import NO_REDRAWS, Network, Redraws
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS, block_attempts
from lottery_jax.tickets.size.mask_codes import ROWS, Code, Reader, Writer, codes_of
from lottery_jax.tickets.size.positions import (
    LEVELS,
    SEGMENT,
    Places,
    Stretch,
    bits_in,
    names_in_order,
    redraws_in,
    segments,
)
from lottery_jax.tickets.size.subset_codes import MOST_FINE


def packed_codes(codes: Mapping[str, Code]) -> np.ndarray:
    """All codes in order, uint8 [P].

    >>> packed_codes({"w": Code("words", "all", None, np.array([3, 0, 1]), np.zeros(0, int))})
    array([89,  9, 80], dtype=uint8)
    """
    numbers = [number + 1 for code in codes.values() for number in code.numbers()]
    text = "".join("0" * (number.bit_length() - 1) + f"{number:b}" for number in numbers)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0"))


class _Numbers:
    """Reads whole numbers; raises `FormatError` where there are none."""

    def __init__(self, packed: np.ndarray) -> None:
        self._text, self._at = (np.unpackbits(packed) + ord("0")).tobytes().decode(), 0

    def next(self, most: int) -> int:
        one = self._text.find("1", self._at)
        end = 2 * one - self._at + 1
        if one < 0 or end > len(self._text) or one - self._at > 62:
            raise FormatError("the parameters of the coded masks are cut off")
        number = int(self._text[one:end], 2) - 1
        if number > most:
            raise FormatError(f"the coded masks have a parameter of {number:,} where {most:,} is possible")
        self._at = end
        return number

    def counts(self, classes: int, most: int) -> np.ndarray:
        """Counts of classes, the last of which has some."""
        found = np.array([self.next(most) for _ in range(self.next(classes))], np.int64)
        if len(found) and found[-1] == 0:
            raise FormatError("the coded masks have classes without rows at the end")
        return found

    def finish(self) -> None:
        if "1" in self._text[self._at :] or len(self._text) - self._at > 7:
            raise FormatError("the parameters of the coded masks have something behind them")


def codes_from(packed: np.ndarray, network: Network, places: Places) -> dict[str, Code]:
    """Inverse of `packed_codes`, typed and bounded; raises `FormatError`. places: what levels there are."""
    numbers, found = _Numbers(packed), {}
    for name in names_in_order(network):
        drawn = network.random_tensors[name]
        rows, level = ROWS[numbers.next(len(ROWS) - 1)], LEVELS[numbers.next(len(LEVELS) - 1)]
        fine = numbers.next(MOST_FINE + 1)
        code = Code(rows, level, fine - 1 if fine else None, np.zeros(0, np.int64), np.zeros(0, np.int64))
        counts = numbers.counts(code.most_classes(drawn), drawn.size)
        redraws = numbers.counts(MAX_ATTEMPTS + 1, drawn.blocks)
        if len(redraws) == 1 or (len(redraws) and redraws.sum() != drawn.blocks):
            raise FormatError(f"the coded redraws of {name!r} are not of its blocks")
        if level not in places.levels(name):
            raise FormatError(f"the coded mask of {name!r} leaves out places that are free")
        untold = not len(counts) and not fine  # sizes that are equally likely
        if (rows == "own" or level == "all") and not untold and counts.sum() != -(-drawn.size // code.width(drawn)):
            raise FormatError(f"the coded mask of {name!r} has not its rows")
        found[name] = dataclasses.replace(code, counts=counts, redraws=redraws)
    numbers.finish()
    return found


PARAMETERS, SEGMENTS, WORDS = "coded.parameters", "coded.segments", "coded.words"

MOST_REDRAWS = 1 << 26
"""Blocks that were drawn again in a coded ticket: their rows are in memory."""

_SLICE = 1 << 20  # values copied at once

_HELD = 1 << 26  # coded bytes that wait in memory until their number is known


def write_coded(
    path: Path, entry: str, header: Mapping[str, Any], network: Network, seed: int, content: TensorReader
) -> None:
    """Write a ticket's file, there whole or not at all. content: with plain masks; header: the ticket's own."""
    codes = codes_of(network, seed, content)
    packed, rows = packed_codes(codes), []
    redraws = {name: redraws_in(content, name) for name in network.random_tensors}
    if sum(map(len, redraws.values())) > MOST_REDRAWS:
        raise InputError(f"a coded ticket has at most {MOST_REDRAWS:,} blocks that were drawn again; keep it as it is")
    with atomic_replacement(path) as temporary, tempfile.SpooledTemporaryFile(_HELD, dir=str(path.parent)) as words:
        places = Places(network, seed, redraws, bits_in(content))
        for parts in segments(network, {name for name, rows in redraws.items() if len(rows)}):
            own, check = _segment(parts, codes, network, content, places, redraws)
            rows.append((len(own), check))
            words.write(own.astype("<u4").tobytes())
        index = np.array(rows, np.int64)
        copied = [tensor for name, tensor in content.tensors.items() if name.split(".")[0] in ("stored", "target")]
        total = 4 * int(index[:, 0].sum())
        coded = [
            TensorInfo(PARAMETERS, "U8", packed.shape),
            TensorInfo(SEGMENTS, "I64", index.shape),
            TensorInfo(WORDS, "U8", (total,)),
        ]
        with ChecksummedWriter(temporary, entry, header, [*copied, *coded]) as writer:
            writer.write(PARAMETERS, packed.tobytes())
            writer.write(SEGMENTS, index.tobytes())
            words.seek(0)
            while some := words.read(_SLICE):
                writer.write(WORDS, some)
            for tensor in sorted(copied, key=lambda tensor: tensor.name):
                for first in range(0, tensor.size, _SLICE):
                    some = content.read(tensor.name, first, min(_SLICE, tensor.size - first))
                    writer.write(tensor.name, np.ascontiguousarray(some).tobytes())
            writer.finish()


def _segment(
    parts: list[Stretch],
    codes: Mapping[str, Code],
    network: Network,
    content: TensorReader,
    places: Places,
    redraws: Redraws,
) -> tuple[np.ndarray, int]:
    """The words of a segment, and the checksum of what is in it."""
    writer, checks, bits = Writer(), [], bits_in(content)
    for part in reversed(parts):
        code, drawn = codes[part.name], network.random_tensors[part.name]
        if part.redraws:
            found = block_attempts(redraws[part.name], part.first, part.first + part.count)
            code.write_redraws(writer, found)
        else:
            found = bits(part)
            code.write(writer, drawn, found, places.known(part, code.level))
        checks.append(part_checksum(found))
    return writer.words, joint_checksum(checks[::-1])


def part_checksum(found: np.ndarray) -> int:
    """Of the bits or the attempts of a part, one byte each: another version of the coder must not go unseen."""
    return zlib.crc32(found.astype(np.uint8).tobytes())


def joint_checksum(parts: list[int]) -> int:
    """Of a segment, from those of its parts."""
    return zlib.crc32(np.array(parts, "<u4").tobytes())


_KEPT_BYTES = 1 << 26  # packed masks that stay decoded


def is_coded(file: ChecksummedFile) -> bool:
    """Whether the masks of a ticket's file are coded."""
    return any(name.startswith("coded.") for name in file.tensors)


class CodedStore:
    """The tensors of a ticket, `mask.NAME` and `redraws.NAME` among them; raises `FormatError` for what is no code."""

    def __init__(self, file: ChecksummedFile, network: Network, seed: int) -> None:
        own = {name: file.tensors[name] for name in (PARAMETERS, SEGMENTS, WORDS) if name in file.tensors}
        others = {name: tensor for name, tensor in file.tensors.items() if name not in own}
        if wrong := [name for name in others if name.split(".")[0] in ("coded", "mask", "redraws")]:
            raise FormatError(f"beside coded masks there is {min(wrong)!r}")
        kinds = {name: (tensor.dtype, len(tensor.shape)) for name, tensor in own.items()}
        if kinds != {PARAMETERS: ("U8", 1), SEGMENTS: ("I64", 2), WORDS: ("U8", 1)}:
            raise FormatError(f"coded masks are {PARAMETERS!r}, {SEGMENTS!r} and {WORDS!r}, of their types")
        self._file, self._network = file, network
        self._redraws: dict[str, np.ndarray] = dict.fromkeys(network.random_tensors, NO_REDRAWS)
        self._known = Places(network, seed, self._redraws, self._bits)
        self._codes = codes_from(read_array(file, PARAMETERS), network, self._known)
        redrawn = {name for name, code in self._codes.items() if len(code.redraws)}
        self._again = {name: int(self._codes[name].redraws[1:].sum()) for name in redrawn}
        if sum(self._again.values()) > MOST_REDRAWS:
            raise FormatError(f"the coded masks have more than {MOST_REDRAWS:,} blocks that were drawn again")
        index = file.tensors[SEGMENTS].shape
        if sum(drawn.size for drawn in network.random_tensors.values()) > index[0] * SEGMENT:  # before they are listed
            raise FormatError(f"the coded masks are more than the {index[0]} segments of the file can hold")
        self._segments = segments(network, redrawn)
        if index != (len(self._segments), 2):
            raise FormatError(f"the coded masks are {len(self._segments)} segments, and the file has {index[0]}")
        self._index = read_array(file, SEGMENTS)
        most = file.tensors[WORDS].size // 4
        if self._index.min() < 0 or self._index[:, 0].max() > most or 4 * self._index[:, 0].sum() != own[WORDS].size:
            raise FormatError("the coded masks are not as long as their segments")
        self._starts = np.concatenate([[0], np.cumsum(self._index[:, 0])])
        self._places: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
        for number, parts in enumerate(self._segments):
            for part in parts:
                if not part.redraws:
                    self._places[part.name].append((part.first, number))
        self._decoded: collections.OrderedDict[int, dict[Stretch, np.ndarray]] = collections.OrderedDict()
        self._lock = threading.RLock()
        for number in range(len(self._segments)):
            self._segment(number)  # all once, in order; redraws stay
        found = [
            TensorInfo(f"mask.{name}", "U8", ((drawn.size + 7) // 8,)) for name, drawn in network.random_tensors.items()
        ]
        found += [TensorInfo(f"redraws.{name}", "I64", self._redraws[name].shape) for name in redrawn]
        self.tensors: Mapping[str, TensorInfo] = {**others, **{tensor.name: tensor for tensor in found}}

    @property
    def path(self) -> Path:
        return self._file.path

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        """Values first ... first + count - 1 of a tensor in row-major order, one-dimensional, as they are stored."""
        kind, _, own = name.partition(".")
        if kind == "redraws":
            return self._redraws[own].reshape(-1)[first : first + count]
        if kind != "mask":
            return self._file.read(name, first, count)
        if not 0 <= first <= first + count <= self.tensors[name].size:
            raise IndexError(f"{name} has no bytes {first} to {first + count}")
        return self._bytes(own, first, count)

    def _bytes(self, name: str, first: int, count: int) -> np.ndarray:
        """Bytes of a packed mask."""
        found, done = np.empty(count, np.uint8), 0
        while done < count:
            part, packed = self._part(name, 8 * (first + done))
            some = packed[first + done - part.first // 8 :][: count - done]
            found[done : done + len(some)] = some
            done += len(some)
        return found

    def _part(self, name: str, bit: int) -> tuple[Stretch, np.ndarray]:
        """The part of a mask that has a bit, and its packed bits."""
        places = self._places[name]
        first, number = places[bisect.bisect_right(places, (bit, len(self._segments))) - 1]
        with self._lock:
            parts = self._segment(number)
        return next((part, packed) for part, packed in parts.items() if (part.name, part.first) == (name, first))

    def _segment(self, number: int) -> dict[Stretch, np.ndarray]:
        """The packed bits of each part of a segment that is of a mask."""
        if number in self._decoded:
            self._decoded.move_to_end(number)
            return self._decoded[number]
        length, wanted = map(int, self._index[number])
        start = 4 * int(self._starts[number])
        reader = Reader(self._file.read(WORDS, start, 4 * length).view("<u4").astype(np.uint32))
        found: dict[Stretch, np.ndarray] = {}
        self._decoded[number] = found  # a mask of it may be what another of it is conditioned on
        checks = []
        try:
            for part in self._segments[number]:
                values = self._values(reader, part)
                checks.append(part_checksum(values))
                if not part.redraws:
                    found[part] = np.packbits(values, bitorder="little")
            reader.finish()
            if joint_checksum(checks) != wanted:
                raise FormatError("the coded masks are not what was coded: their checksum differs")
        except BaseException:
            self._decoded.pop(number, None)
            raise
        while len(self._decoded) > 1 and self._held > _KEPT_BYTES:
            self._decoded.popitem(last=False)
        return found

    @property
    def _held(self) -> int:
        """Bytes of all packed masks that are decoded."""
        return sum(len(packed) for parts in self._decoded.values() for packed in parts.values())

    def _values(self, reader: Reader, part: Stretch) -> np.ndarray:
        """The next part: bits, or the attempt that each block is of."""
        code, drawn = self._codes[part.name], self._network.random_tensors[part.name]
        if part.redraws:
            attempts = code.read_redraws(reader, part)
            before = self._redraws[part.name]
            if not len(before) or before[-1, 0] < part.first:  # not seen yet; these come before the tensor's mask
                blocks = np.flatnonzero(attempts)
                rows = np.stack([part.first + blocks, attempts[blocks]], 1)
                if len(before) + len(rows) > self._again[part.name]:
                    raise FormatError(f"the coded redraws of {part.name!r} are more than it says")
                self._redraws[part.name] = np.concatenate([before, rows])
            return attempts
        return code.read(reader, drawn, part, self._known.known(part, code.level))

    def _bits(self, part: Stretch) -> np.ndarray:
        packed = self._bytes(part.name, part.first // 8, (part.count + 7) // 8)
        return np.unpackbits(packed, count=part.count, bitorder="little")


def content_of(file: ChecksummedFile, network: Network, seed: int) -> TensorReader:
    """The tensors of a ticket's file, whichever way its masks are stored."""
    return CodedStore(file, network, seed) if is_coded(file) else file
