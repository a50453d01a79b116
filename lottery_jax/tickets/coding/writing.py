"""Writing a ticket's file with its masks and redraws coded, in slices; everything else is as in any ticket."""

import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network, Redraws
from lottery_jax.networks.sources.drawn import attempts_of
from lottery_jax.storage.files import replacing
from lottery_jax.storage.sealed import SealedWriter
from lottery_jax.storage.store import Store
from lottery_jax.storage.tensor_file import Tensor
from lottery_jax.tickets.coding.choice import codes_of
from lottery_jax.tickets.coding.codes import Code
from lottery_jax.tickets.coding.order import Stretch, segments
from lottery_jax.tickets.coding.parameters import packed_codes
from lottery_jax.tickets.coding.places import Places, bits_in, redraws_in
from lottery_jax.tickets.coding.symbols import Writer

PARAMETERS, SEGMENTS, WORDS = "coded.parameters", "coded.segments", "coded.words"
MOST_REDRAWS = 1 << 26
"""Blocks that were drawn again in a coded ticket: their rows are in memory."""
_SLICE = 1 << 20  # values copied at once
_HELD = 1 << 26  # coded bytes that wait in memory until their number is known


def write_coded(path: Path, entry: str, header: Mapping[str, Any], network: Network, seed: int, content: Store) -> None:
    """Write a ticket's file, there whole or not at all. content: with plain masks; header: the ticket's own."""
    codes = codes_of(network, seed, content)
    packed, rows = packed_codes(codes), []
    redraws = {name: redraws_in(content, name) for name in network.drawn}
    if sum(map(len, redraws.values())) > MOST_REDRAWS:
        raise InputError(f"a coded ticket has at most {MOST_REDRAWS:,} blocks that were drawn again; keep it as it is")
    with replacing(path) as temporary, tempfile.SpooledTemporaryFile(_HELD, dir=str(path.parent)) as words:
        places = Places(network, seed, redraws, bits_in(content))
        for parts in segments(network, {name for name, rows in redraws.items() if len(rows)}):
            own, check = _segment(parts, codes, network, content, places, redraws)
            rows.append((len(own), check))
            words.write(own.astype("<u4").tobytes())
        index = np.array(rows, np.int64)
        copied = [tensor for name, tensor in content.tensors.items() if name.split(".")[0] in ("stored", "target")]
        total = 4 * int(index[:, 0].sum())
        coded = [
            Tensor(PARAMETERS, "U8", packed.shape),
            Tensor(SEGMENTS, "I64", index.shape),
            Tensor(WORDS, "U8", (total,)),
        ]
        with SealedWriter(temporary, entry, header, [*copied, *coded]) as writer:
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
    content: Store,
    places: Places,
    redraws: Redraws,
) -> tuple[np.ndarray, int]:
    """The words of a segment, and the checksum of what is in it."""
    writer, checks, bits = Writer(), [], bits_in(content)
    for part in reversed(parts):
        code, drawn = codes[part.name], network.drawn[part.name]
        if part.redraws:
            found = attempts_of(redraws[part.name], part.first, part.first + part.count)
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
