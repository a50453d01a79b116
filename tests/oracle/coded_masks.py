"""Entropy-coded masks and redraws (docs/ticket-format.md, "Coded masks").

The words are read with constriction, the entropy coder that the page names. All else is plain Python.
"""

import bisect
import itertools
import math
import zlib
from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np

from tests.oracle.effective import OracleTicket, coefficients, signs_of
from tests.oracle.layers import child_path

Array = np.ndarray
_library: Any = constriction  # its submodules have no type stubs
_stream = _library.stream
LIMIT = 1 << 62


def numbers_of(packed: Array) -> Iterator[int]:
    """Whole numbers in Elias's gamma code of number + 1, leading bit first."""
    text, at = "".join(map(str, np.unpackbits(packed))), 0
    while (one := text.find("1", at)) >= 0:
        end = 2 * one - at + 1
        yield int(text[one:end], 2) - 1
        at = end


def coding_order(ticket: OracleTicket) -> list[str]:
    """Hidden tensors first, frozen ones last, otherwise in the order of the network."""

    hidden, frozen = set(), set()
    for path, node in ticket.sources.items():
        edges = ["first", *(f"rung{number}" for number in range(1, node.get("rungs", 0) + 1))]
        hidden |= {child_path(path, name) for name in edges if "units" in node}
        frozen |= {child_path(path, "frozen")} if node["kind"] == "partly_trained_layer" else set()
    return sorted(ticket.random, key=lambda name: (name not in hidden, name in frozen))


def class_starts(mantissa_bits: int) -> list[int]:
    """The first number of each class; one more entry is the limit."""
    starts = list(range(1 << mantissa_bits))
    for shift in range(62 - mantissa_bits):
        starts += [leading << shift for leading in range(1 << mantissa_bits, 2 << mantissa_bits)]
    return [*starts, LIMIT]


def decode_masks(ticket: OracleTicket) -> None:
    """Fill the masks and attempts of a ticket whose file is coded."""
    numbers, codes = numbers_of(ticket.tensors["coded.parameters"]), {}
    for name in coding_order(ticket):
        rows, level, classes = (next(numbers) for _ in range(3))
        counts, attempt_counts = ([next(numbers) for _ in range(next(numbers))] for _ in range(2))
        codes[name] = rows, level, classes - 1, counts, attempt_counts
        ticket.masks[name] = np.zeros((ticket.random[name].rows, ticket.random[name].width), bool)
    words = ticket.tensors["coded.words"].view("<u4").astype(np.uint32)
    start, checksums, coder, room, remaining = 0, [], None, 0, iter(ticket.tensors["coded.segments"].tolist())
    expected = 0
    for name in codes:
        tensor, code = ticket.random[name], codes[name]
        spans = [(True, *span) for span in pieces(tensor.blocks, 1 << 20)] if code[4] else []
        unit = 32 * tensor.width
        spans += [(False, *span) for span in pieces(math.prod(tensor.shape), max((1 << 20) // unit, 1) * unit)]
        for redraws, first, count in spans:
            if count > room:  # the next segment
                assert coder is None or (coder.is_empty() and crc(checksums) == expected)
                length, expected = next(remaining)
                coder, start = _stream.stack.AnsCoder(words[start : start + length]), start + length
                room, checksums = max(1 << 22, count), []
            room -= count
            if redraws:
                values = decode_classes(coder, count, code[4])
                ticket.attempts[name][first : first + count] = values
            else:
                values = decode_span(ticket, coder, name, code, first, count)
                ticket.masks[name].reshape(-1)[first : first + count] = values
            checksums.append(zlib.crc32(np.asarray(values).astype(np.uint8).tobytes()))
    assert coder is not None and coder.is_empty() and crc(checksums) == expected
    assert next(remaining, None) is None and next(numbers, None) is None and start == len(words)


def crc(checksums: list[int]) -> int:
    return zlib.crc32(np.array(checksums, "<u4").tobytes())


def pieces(total: int, step: int) -> list[tuple[int, int]]:
    return [(first, min(step, total - first)) for first in range(0, total, step)]


def decode_classes(coder: Any, count: int, counts: list[int]) -> list[int]:
    if sum(number > 0 for number in counts) < 2:
        return [len(counts) - 1] * count
    frequencies = np.array(counts, np.float64)
    model = _stream.model.Categorical(frequencies / frequencies.sum(), perfect=False)
    return coder.decode(model, count).tolist()


def decode_offsets(coder: Any, sizes: list[int]) -> list[int]:
    """Offsets below sizes: all leading pieces first, then 15 bits of each that has more."""
    offsets, shifts = [0] * len(sizes), [max((size - 1).bit_length() - 15, 0) for size in sizes]
    radices = [((size - 1) >> shift) + 1 for size, shift in zip(sizes, shifts, strict=True)]
    active = [index for index, size in enumerate(sizes) if size > 1]
    while active:
        radix = np.array([radices[index] for index in active], np.int32)
        for index, piece in zip(active, coder.decode(_stream.model.Uniform(), radix).tolist(), strict=True):
            offsets[index] |= piece << shifts[index]
        active = [index for index in active if shifts[index] > 0]
        for index in active:
            before, shifts[index] = shifts[index], max(shifts[index] - 15, 0)
            radices[index] = 1 << (before - shifts[index])
    return offsets


def decode_span(ticket: OracleTicket, coder: Any, name: str, code: tuple, first: int, count: int) -> Array:
    """The bits first ... first + count - 1 of a mask."""
    rows, level, mantissa_bits, counts, _ = code
    tensor = ticket.random[name]
    known = known_entries(ticket, name, level)[first : first + count]
    free, found = known == 0, (known > 0).astype(np.uint8)
    width = 32 if rows == 1 else tensor.width
    if rows == 1:
        total = int(free.sum())
        free_counts = [min(32, total - at) for at in range(0, total, 32)]
    else:
        free_counts = free.reshape(-1, width).sum(1).tolist()
    classes = decode_classes(coder, len(free_counts), counts or [1] * (width + 1))
    if mantissa_bits < 0:
        pairs = list(zip(free_counts, classes, strict=True))
        subsets = zip(pairs, decode_offsets(coder, [math.comb(n, k) for n, k in pairs]), strict=True)
        bits = [subset(n, k, index) for (n, k), index in subsets]
    else:
        starts = class_starts(mantissa_bits)
        offsets = decode_offsets(coder, [starts[own + 1] - starts[own] for own in classes])
        ranks = [starts[own] + offset for own, offset in zip(classes, offsets, strict=True)]
        bits = [ranked_subset(n, rank) for n, rank in zip(free_counts, ranks, strict=True)]
    found[free] = list(itertools.chain.from_iterable(bits))
    return found


def ranked_subset(size: int, rank: int) -> list[int]:
    """The subset of a rank in the order (size, lexicographic)."""
    smaller = list(itertools.accumulate((math.comb(size, k) for k in range(size + 1)), initial=0))
    kept = bisect.bisect_right(smaller, rank) - 1
    return subset(size, kept, rank - smaller[kept])


def subset(size: int, kept: int, index: int) -> list[int]:
    """The subset of a lexicographic index among those of `kept` entries: bits."""
    bits = []
    for later in range(size - 1, -1, -1):
        with_it = math.comb(later, kept - 1) if kept else 0
        bits.append(int(index < with_it))
        if index < with_it:
            kept -= 1
        else:
            index -= with_it
    return bits


def known_entries(ticket: OracleTicket, name: str, level: int) -> Array:
    """Entries that are not coded: 1 known to be kept, -1 known to be pruned; 0 is coded."""
    tensor = ticket.random[name]
    if level == 0:
        return np.zeros(tensor.rows * tensor.width, np.int8)
    known, (path, _, last) = ticket.forced(name), name.rpartition(".")
    if last == "frozen" and ticket.sources.get(path, {}).get("kind") == "partly_trained_layer":
        known = np.where(ticket.masks[child_path(path, "weight")], np.int8(-1), known)
    if level == 2:
        signs = (1,) if last == "bias" else signs_of(ticket)[path]
        effect = np.any([coefficients(ticket, path, last, sign) != 0 for sign in signs], 0)
        known = np.where((known == 0) & ~effect, np.int8(-1), known)
    return known.reshape(-1)
