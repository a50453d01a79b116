"""A ticket's file with its masks and redraws entropy coded; everything else is as in any ticket.

The file has the parameters of all codes, an index of segments (words, checksum) and the words of the coder. A segment
is decoded when it is needed. The file is an untrusted input: everything is bounded, every segment must end where its
words do and have its checksum, and all segments are decoded once when the file is opened.
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
from lottery_jax.tickets.size.conditioning import (
    LEVELS,
    SEGMENT_SIZE,
    Conditioning,
    Span,
    coding_order,
    mask_reader,
    read_redraws,
    segments,
)
from lottery_jax.tickets.size.entropy_coder import MAX_MANTISSA_BITS, AnsDecoder, AnsEncoder
from lottery_jax.tickets.size.mask_codes import ROWS, MaskCode, choose_codes
from lottery_jax.tickets.work_limit import REDRAW_BYTES, UNLIMITED, Work, WorkLimit

PARAMETERS, SEGMENTS, WORDS = "coded.parameters", "coded.segments", "coded.words"

MAX_REDRAWS = 1 << 26
"""Redrawn blocks in a coded ticket: their rows are in memory."""

_SLICE = 1 << 20  # values copied at once
_SPOOLED_BYTES = 1 << 26  # coded bytes that wait in memory until their number is known
_CACHED_BYTES = 1 << 26  # of decoded masks


def pack_codes(codes: Mapping[str, MaskCode]) -> np.ndarray:
    """The parameters of all codes, in Elias's gamma code of number + 1, uint8 [P].

    >>> pack_codes({"w": MaskCode("words", "all", None, np.array([3, 0, 1]), np.zeros(0, int))})
    array([89,  9, 80], dtype=uint8)
    """
    numbers = [number + 1 for code in codes.values() for number in code.parameters()]
    text = "".join("0" * (number.bit_length() - 1) + f"{number:b}" for number in numbers)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0"))


class _GammaReader:
    """Reads whole numbers in Elias's gamma code of number + 1; raises `FormatError`."""

    def __init__(self, packed: np.ndarray) -> None:
        self._text, self._at = (np.unpackbits(packed) + ord("0")).tobytes().decode(), 0

    def next(self, most: int) -> int:
        """The next number, at most `most`."""
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
        """Counts of at most `classes` classes; the last one is not 0."""
        found = np.array([self.next(most) for _ in range(self.next(classes))], np.int64)
        if len(found) and found[-1] == 0:
            raise FormatError("the coded masks have classes without rows at the end")
        return found

    def finish(self) -> None:
        """Refuse what remains, except padding."""
        if "1" in self._text[self._at :] or len(self._text) - self._at > 7:
            raise FormatError("the parameters of the coded masks have something behind them")


def unpack_codes(packed: np.ndarray, network: Network, conditioning: Conditioning) -> dict[str, MaskCode]:
    """Inverse of `pack_codes`, typed and bounded; raises `FormatError`."""
    numbers, found = _GammaReader(packed), {}
    for name in coding_order(network):
        tensor = network.random_tensors[name]
        rows, level = ROWS[numbers.next(len(ROWS) - 1)], LEVELS[numbers.next(len(LEVELS) - 1)]
        classes, none = numbers.next(MAX_MANTISSA_BITS + 1), np.zeros(0, np.int64)
        code = MaskCode(rows, level, classes - 1 if classes else None, none, none)
        counts = numbers.counts(code.max_classes(tensor), tensor.size)
        attempt_counts = numbers.counts(MAX_ATTEMPTS + 1, tensor.blocks)
        if len(attempt_counts) == 1 or (len(attempt_counts) and attempt_counts.sum() != tensor.blocks):
            raise FormatError(f"the coded redraws of {name!r} are not of its blocks")
        if level not in conditioning.levels(name):
            raise FormatError(f"the coded mask of {name!r} omits entries that are free")
        counted = rows == "own" or level == "all"
        if counted and (len(counts) or classes) and counts.sum() != -(-tensor.size // code.width(tensor)):
            raise FormatError(f"the coded mask of {name!r} has not its rows")
        found[name] = dataclasses.replace(code, counts=counts, attempt_counts=attempt_counts)
    numbers.finish()
    return found


def write_coded(
    path: Path, entry: str, header: Mapping[str, Any], network: Network, seed: int, content: TensorReader
) -> None:
    """Write a ticket's file atomically, from content with uncoded masks."""
    codes = choose_codes(network, seed, content)
    packed, rows = pack_codes(codes), []
    redraws = {name: read_redraws(content, name) for name in network.random_tensors}
    if sum(map(len, redraws.values())) > MAX_REDRAWS:
        raise InputError(f"a coded ticket has at most {MAX_REDRAWS:,} redrawn blocks; store it uncoded")
    with (
        atomic_replacement(path) as temporary,
        tempfile.SpooledTemporaryFile(_SPOOLED_BYTES, dir=str(path.parent)) as words,
    ):
        conditioning = Conditioning(network, seed, redraws, mask_reader(content))
        for spans in segments(network, {name for name, rows in redraws.items() if len(rows)}):
            coded, checksum = _encode_segment(spans, codes, network, conditioning, redraws)
            rows.append((len(coded), checksum))
            words.write(coded.astype("<u4").tobytes())
        index = np.array(rows, np.int64)
        copied = [tensor for name, tensor in content.tensors.items() if name.split(".")[0] in ("stored", "target")]
        added = [
            TensorInfo(PARAMETERS, "U8", packed.shape),
            TensorInfo(SEGMENTS, "I64", index.shape),
            TensorInfo(WORDS, "U8", (4 * int(index[:, 0].sum()),)),
        ]
        with ChecksummedWriter(temporary, entry, header, [*copied, *added]) as writer:
            writer.write(PARAMETERS, packed.tobytes())
            writer.write(SEGMENTS, index.tobytes())
            words.seek(0)
            writer.write(WORDS, b"")  # masks that are known may code to no words
            while chunk := words.read(_SLICE):
                writer.write(WORDS, chunk)
            for tensor in sorted(copied, key=lambda tensor: tensor.name):
                for first in range(0, tensor.size, _SLICE):
                    chunk = content.read(tensor.name, first, min(_SLICE, tensor.size - first))
                    writer.write(tensor.name, np.ascontiguousarray(chunk).tobytes())
            writer.finish()


def _encode_segment(
    spans: list[Span], codes: Mapping[str, MaskCode], network: Network, conditioning: Conditioning, redraws: Redraws
) -> tuple[np.ndarray, int]:
    """The words of a segment, and the checksum of its content."""
    encoder, checksums = AnsEncoder(), []
    for span in reversed(spans):
        code, tensor = codes[span.name], network.random_tensors[span.name]
        if span.redraws:
            values = block_attempts(redraws[span.name], span.first, span.first + span.count)
            encoder.encode(values, code.attempt_counts, np.zeros_like(values), np.ones_like(values))
        else:
            values = conditioning.read_bits(span)
            code.encode(encoder, tensor, values, conditioning.known(span, code.level))
        checksums.append(_span_checksum(values))
    return encoder.words, _segment_checksum(checksums[::-1])


def _span_checksum(values: np.ndarray) -> int:
    """Checksum of decoded bits or attempts, one byte each: it detects another version of the coder."""
    return zlib.crc32(values.astype(np.uint8).tobytes())


def _segment_checksum(checksums: list[int]) -> int:
    return zlib.crc32(np.array(checksums, "<u4").tobytes())


def is_coded(file: ChecksummedFile) -> bool:
    """True if the masks of a ticket's file are coded."""
    return not {PARAMETERS, SEGMENTS, WORDS}.isdisjoint(file.tensors)


class CodedStore:
    """The tensors of a ticket's coded file as if they were uncoded; raises `FormatError` for an invalid code."""

    def __init__(self, file: ChecksummedFile, network: Network, seed: int, limit: WorkLimit = UNLIMITED) -> None:
        own = {name: file.tensors[name] for name in (PARAMETERS, SEGMENTS, WORDS) if name in file.tensors}
        others = {name: tensor for name, tensor in file.tensors.items() if name not in own}
        if wrong := [name for name in others if name.split(".")[0] in ("coded", "mask", "redraws")]:
            raise FormatError(f"a file with coded masks must not have {min(wrong)!r}")
        kinds = {name: (tensor.dtype, len(tensor.shape)) for name, tensor in own.items()}
        if kinds != {PARAMETERS: ("U8", 1), SEGMENTS: ("I64", 2), WORDS: ("U8", 1)}:
            raise FormatError(f"coded masks must be {PARAMETERS!r}, {SEGMENTS!r} and {WORDS!r}, of their types")
        self._file, self._network = file, network
        self._redraws: dict[str, np.ndarray] = dict.fromkeys(network.random_tensors, NO_REDRAWS)
        self._conditioning = Conditioning(network, seed, self._redraws, self._bits)
        self._codes = unpack_codes(read_array(file, PARAMETERS), network, self._conditioning)
        redrawn = {name for name, code in self._codes.items() if len(code.attempt_counts)}
        self._redraw_counts = {name: int(self._codes[name].attempt_counts[1:].sum()) for name in redrawn}
        if sum(self._redraw_counts.values()) > MAX_REDRAWS:
            raise FormatError(f"the coded masks have more than {MAX_REDRAWS:,} redrawn blocks")
        limit.check(Work(0, REDRAW_BYTES * sum(self._redraw_counts.values())))
        self._redraw_rows = {name: np.empty((count, 2), np.int64) for name, count in self._redraw_counts.items()}
        index, size = file.tensors[SEGMENTS].shape, sum(tensor.size for tensor in network.random_tensors.values())
        if size > index[0] * SEGMENT_SIZE:  # refused before segments are listed
            raise FormatError(f"the coded masks are more than the {index[0]} segments of the file can hold")
        self._segments = segments(network, redrawn)
        if index != (len(self._segments), 2):
            raise FormatError(f"the coded masks are {len(self._segments)} segments, and the file has {index[0]}")
        self._index = read_array(file, SEGMENTS)
        most = file.tensors[WORDS].size // 4
        if self._index.min() < 0 or self._index[:, 0].max() > most or 4 * self._index[:, 0].sum() != own[WORDS].size:
            raise FormatError("the coded masks are not as long as their segments")
        self._starts = np.concatenate([[0], np.cumsum(self._index[:, 0])])
        self._mask_spans: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
        for number, spans in enumerate(self._segments):
            for span in spans:
                if not span.redraws:
                    self._mask_spans[span.name].append((span.first, number))
        self._decoded: collections.OrderedDict[int, dict[Span, np.ndarray]] = collections.OrderedDict()
        self._lock = threading.RLock()
        for number in range(len(self._segments)):
            self._decode(number)  # all once, in order; redraws stay in memory
        found = [
            TensorInfo(f"mask.{name}", "U8", ((tensor.size + 7) // 8,))
            for name, tensor in network.random_tensors.items()
        ]
        found += [TensorInfo(f"redraws.{name}", "I64", self._redraws[name].shape) for name in redrawn]
        self.tensors: Mapping[str, TensorInfo] = {**others, **{tensor.name: tensor for tensor in found}}

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self._file.bytes

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
            span, packed = self._span_at(name, 8 * (first + done))
            chunk = packed[first + done - span.first // 8 :][: count - done]
            found[done : done + len(chunk)] = chunk
            done += len(chunk)
        return found

    def _span_at(self, name: str, bit: int) -> tuple[Span, np.ndarray]:
        """The span with a bit of a mask, and its packed bits."""
        starts = self._mask_spans[name]
        first, number = starts[bisect.bisect_right(starts, (bit, len(self._segments))) - 1]
        with self._lock:
            spans = self._decode(number)
        return next((span, packed) for span, packed in spans.items() if (span.name, span.first) == (name, first))

    def _decode(self, number: int) -> dict[Span, np.ndarray]:
        """The packed bits of the masks in a segment, by span."""
        if number in self._decoded:
            self._decoded.move_to_end(number)
            return self._decoded[number]
        length, checksum = map(int, self._index[number])
        start = 4 * int(self._starts[number])
        decoder = AnsDecoder(self._file.read(WORDS, start, 4 * length).view("<u4").astype(np.uint32))
        found: dict[Span, np.ndarray] = {}
        self._decoded[number] = found  # other masks of the segment may be conditioned on them
        checksums = []
        try:
            for span in self._segments[number]:
                values = self._decode_span(decoder, span)
                checksums.append(_span_checksum(values))
                if not span.redraws:
                    found[span] = np.packbits(values, bitorder="little")
            decoder.finish()
            if _segment_checksum(checksums) != checksum:
                raise FormatError("the coded masks are not what was coded: their checksum differs")
        except BaseException:
            self._decoded.pop(number, None)
            raise
        cached = sum(len(packed) for spans in self._decoded.values() for packed in spans.values())
        while len(self._decoded) > 1 and cached > _CACHED_BYTES:
            cached -= sum(map(len, self._decoded.popitem(last=False)[1].values()))
        return found

    def _decode_span(self, decoder: AnsDecoder, span: Span) -> np.ndarray:
        """The next bits of a mask, or attempts of blocks."""
        code, tensor = self._codes[span.name], self._network.random_tensors[span.name]
        if span.redraws:
            attempts = decoder.decode_classes(span.count, code.attempt_counts)
            before = self._redraws[span.name]
            if not len(before) or before[-1, 0] < span.first:  # decoded for the first time; they come before the mask
                blocks, rows = np.flatnonzero(attempts), self._redraw_rows[span.name]
                end = len(before) + len(blocks)
                if end > len(rows):
                    raise FormatError(f"the coded redraws of {span.name!r} are more than it says")
                rows[len(before) : end, 0], rows[len(before) : end, 1] = span.first + blocks, attempts[blocks]
                self._redraws[span.name] = rows[:end]
            return attempts
        return code.decode(decoder, tensor, span, self._conditioning.known(span, code.level))

    def _bits(self, span: Span) -> np.ndarray:
        packed = self._bytes(span.name, span.first // 8, (span.count + 7) // 8)
        return np.unpackbits(packed, count=span.count, bitorder="little")


def open_content(file: ChecksummedFile, network: Network, seed: int, limit: WorkLimit) -> TensorReader:
    """The tensors of a ticket's file, with coded or uncoded masks."""
    return CodedStore(file, network, seed, limit) if is_coded(file) else file
