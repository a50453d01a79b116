"""A ticket's file whose masks and redraws are coded, read as if they were plain: decoded by segment, when needed.

The file is an untrusted input: parameters, lengths, classes and ranks are bounded, and every segment must end where
its words do and have its checksum. `check` decodes all of them once.
"""

import bisect
import collections
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lottery_jax.networks.network import NO_REDRAWS, Network
from lottery_jax.storage.sealed import SealedFile
from lottery_jax.storage.store import Store, read_array
from lottery_jax.storage.tensor_file import FormatError, Tensor
from lottery_jax.tickets.coding.order import SEGMENT, Stretch, segments
from lottery_jax.tickets.coding.parameters import codes_from
from lottery_jax.tickets.coding.places import Places
from lottery_jax.tickets.coding.symbols import Reader
from lottery_jax.tickets.coding.writing import MOST_REDRAWS, PARAMETERS, SEGMENTS, WORDS, joint_checksum, part_checksum

_KEPT_BYTES = 1 << 26  # packed masks that stay decoded


def is_coded(file: SealedFile) -> bool:
    """Whether the masks of a ticket's file are coded."""
    return any(name.startswith("coded.") for name in file.tensors)


class CodedStore:
    """The tensors of a ticket, `mask.NAME` and `redraws.NAME` among them; raises `FormatError` for what is no code."""

    def __init__(self, file: SealedFile, network: Network, seed: int) -> None:
        own = {name: file.tensors[name] for name in (PARAMETERS, SEGMENTS, WORDS) if name in file.tensors}
        others = {name: tensor for name, tensor in file.tensors.items() if name not in own}
        if wrong := [name for name in others if name.split(".")[0] in ("coded", "mask", "redraws")]:
            raise FormatError(f"beside coded masks there is {min(wrong)!r}")
        kinds = {name: (tensor.dtype, len(tensor.shape)) for name, tensor in own.items()}
        if kinds != {PARAMETERS: ("U8", 1), SEGMENTS: ("I64", 2), WORDS: ("U8", 1)}:
            raise FormatError(f"coded masks are {PARAMETERS!r}, {SEGMENTS!r} and {WORDS!r}, of their types")
        self._file, self._network = file, network
        self._redraws: dict[str, np.ndarray] = dict.fromkeys(network.drawn, NO_REDRAWS)
        self._known = Places(network, seed, self._redraws, self._bits)
        self._codes = codes_from(read_array(file, PARAMETERS), network, self._known)
        redrawn = {name for name, code in self._codes.items() if len(code.redraws)}
        self._again = {name: int(self._codes[name].redraws[1:].sum()) for name in redrawn}
        if sum(self._again.values()) > MOST_REDRAWS:
            raise FormatError(f"the coded masks have more than {MOST_REDRAWS:,} blocks that were drawn again")
        index = file.tensors[SEGMENTS].shape
        if sum(drawn.size for drawn in network.drawn.values()) > index[0] * SEGMENT:  # before they are listed
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
        found = [Tensor(f"mask.{name}", "U8", ((drawn.size + 7) // 8,)) for name, drawn in network.drawn.items()]
        found += [Tensor(f"redraws.{name}", "I64", self._redraws[name].shape) for name in redrawn]
        self.tensors: Mapping[str, Tensor] = {**others, **{tensor.name: tensor for tensor in found}}

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
        code, drawn = self._codes[part.name], self._network.drawn[part.name]
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


def content_of(file: SealedFile, network: Network, seed: int) -> Store:
    """The tensors of a ticket's file, whichever way its masks are stored."""
    return CodedStore(file, network, seed) if is_coded(file) else file
