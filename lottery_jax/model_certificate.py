"""The verifier for tickets of any size: slice by slice, in float64 NumPy, from the seed and the bits alone."""

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np

from lottery_jax.certificate import Certificate, verify
from lottery_jax.errors import InputError, TicketError
from lottery_jax.networks import architecture as arch
from lottery_jax.networks.copies import Copies, check_redraws, draw_copies, kept_sums
from lottery_jax.sealed import SealedFile
from lottery_jax.tensor_file import FLOATS
from lottery_jax.ticket import Ticket, model_source_digest, open_ticket

_SLICE = 1 << 18  # random weights drawn at once


def verify_file(path: str | os.PathLike[str], *, progress: Callable[[int], None] | None = None) -> Certificate:
    """Verify a ticket's file; memory stays bounded for a model's ticket, whatever its size.

    progress: called with the number of target weights each time some are checked. Raises `TicketError` for a file
    that is no valid ticket, `InputError` for one that cannot be read.
    """
    with open_ticket(path) as file:
        try:
            architecture = arch.from_json(file.header["architecture"])
        except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise TicketError(f"{str(path)!r} is not a valid ticket: {error}") from error
        if not arch.copies(architecture):
            return verify(Ticket.load(path))
        try:
            file.check_digest()
            _check(file, architecture)
            return _verify(file, architecture, progress)
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise TicketError(f"{str(path)!r} is not a valid ticket: {error}") from error


def approximated_slice(file: SealedFile, place: int, first: int, blocks: int) -> np.ndarray:
    """The approximated weights of some blocks of tensor `place` of an open ticket: float64, flat.

    A block is a weight, or with shared candidates a row; `first` must be a multiple of 8.
    """
    if first % 8:
        raise InputError(f"a slice of a mask begins at a multiple of 8 blocks, not at {first}")
    layer, stream = _tensors(arch.from_json(file.header["architecture"]))[place]
    name = f"redraws.{place}.kernel"
    rows = file.array(name) if name in file.tensors else np.zeros((0, 2), np.int64)
    inside = (rows[:, 0] >= first) & (rows[:, 0] < first + blocks)
    return _sums(file, file.header["seed"], _Slice(place, layer, stream, first, blocks, rows[inside]))[0]


def _tensors(architecture: arch.Architecture) -> list[tuple[Copies, int]]:
    """Each tensor with its first stream."""
    streams = [tensor.stream for tensor in arch.source_tensors(architecture)]
    return list(zip(arch.copies(architecture), streams, strict=True))


def _check(file: SealedFile, architecture: arch.Architecture) -> None:
    """What the digest does not say: that the file's tensors are those of its architecture."""
    names = set()
    for place, layer in enumerate(arch.copies(architecture)):
        mask, target = file.tensors[f"mask.{place}.kernel"], file.tensors[f"target.{place}"]
        if mask.dtype != "U8" or mask.shape != ((layer.weights * layer.copies + 7) // 8,):
            raise ValueError(f"mask {place}.kernel does not have {layer.weights * layer.copies} bits")
        if target.dtype not in FLOATS or target.shape != layer.shape:
            raise ValueError(f"the target of {layer.name!r} has shape {list(target.shape)}, not {list(layer.shape)}")
        names |= {mask.name, target.name, f"redraws.{place}.kernel"}
    foreign = sorted(set(file.tensors) - names)
    if foreign:
        raise ValueError(f"it holds {foreign[0]!r}, which is no part of it")
    if file.header["source_sha256"] != model_source_digest(architecture, file.header["seed"]):
        raise ValueError("the source drawn from its seed is not the one it was made for")
    tolerance = file.header["tolerance"]
    if not (isinstance(tolerance, float | int) and 0 < tolerance < float("inf")):
        raise ValueError(f"its tolerance is {tolerance}")


@dataclasses.dataclass(frozen=True, eq=False)
class _Slice:
    """Blocks first ... first + blocks - 1 of tensor `place`, whose first stream is `stream`, and their redraws."""

    place: int
    layer: Copies
    stream: int
    first: int
    blocks: int
    redraws: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Checked:
    """What is added up over slices; `place` is that of the worst weight in the slice."""

    slice: _Slice
    kept: int
    within: int
    weights: int
    sum: float
    worst: float
    place: int


def _verify(file: SealedFile, architecture: arch.Architecture, progress: Callable[[int], None] | None) -> Certificate:
    header = file.header
    tolerance, counts, layers = header["tolerance"], {}, arch.copies(architecture)
    within, total, mean, worst, where, redrawn = 0, 0, 0.0, -1.0, (0, 0), 0

    def check(slice_: _Slice) -> _Checked:
        weights = slice_.layer.block_weights
        target = file.read_float64(f"target.{slice_.place}", slice_.first * weights, slice_.blocks * weights)
        sums, kept = _sums(file, header["seed"], slice_)
        residual = np.abs(sums - target)
        place = int(residual.argmax())
        inside = int(np.count_nonzero(residual <= tolerance))
        return _Checked(slice_, kept, inside, residual.size, float(residual.sum()), float(residual[place]), place)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for place, (layer, stream) in enumerate(_tensors(architecture)):
            counts[layer.name] = 0
            for found in _in_order(pool, check, _slices(file, place, layer, stream)):
                counts[layer.name] += found.kept
                redrawn += len(found.slice.redraws)
                within += found.within
                total += found.weights
                mean += found.sum
                if not found.worst <= worst:  # a NaN is worst
                    worst, where = found.worst, (place, found.slice.first * layer.block_weights + found.place)
                if progress is not None:
                    progress(found.weights)
    return Certificate(
        header["method"],
        header["seed"],
        arch.source_weights(architecture),
        sum(counts.values()),
        counts,
        redrawn,
        tolerance,
        target_weights=total,
        within_tolerance=within,
        mean_residual=mean / total,
        worst_residual=worst,
        worst_weight=(where[0], *(int(i) for i in np.unravel_index(where[1], layers[where[0]].shape))),
        worst_tensor=layers[where[0]].name,
    )


def _in_order(
    pool: concurrent.futures.Executor, check: Callable[[_Slice], _Checked], slices: Iterator[_Slice]
) -> Iterator[_Checked]:
    """Results in order, with no more slices under way than keep every core busy: memory stays bounded."""
    waiting = collections.deque[concurrent.futures.Future[_Checked]]()
    for slice_ in slices:
        waiting.append(pool.submit(check, slice_))
        if len(waiting) > (os.cpu_count() or 1):
            yield waiting.popleft().result()
    for future in waiting:
        yield future.result()


def _slices(file: SealedFile, place: int, layer: Copies, stream: int) -> Iterator[_Slice]:
    """The slices of a tensor; each begins at a multiple of 8 blocks, whole bytes of the mask."""
    step = max(_SLICE // (layer.copies * layer.block_weights) // 8, 1) * 8
    name, done, last = f"redraws.{place}.kernel", 0, -1
    rows = file.tensors[name].shape[0] if name in file.tensors else 0
    if rows and (file.tensors[name].dtype != "I64" or file.tensors[name].shape != (rows, 2)):
        raise ValueError(f"{name} does not hold rows (block, attempt)")
    for first in range(0, layer.blocks, step):
        blocks = min(step, layer.blocks - first)
        # Rows are in order and no block has two, so those of this slice are among the next `blocks`.
        ahead = file.read(name, 2 * done, 2 * min(blocks, rows - done)) if rows > done else np.zeros(0, np.int64)
        ahead = ahead.reshape(-1, 2)
        redraws = ahead[ahead[:, 0] < first + blocks]
        check_redraws(layer, redraws)
        if len(redraws) and redraws[0, 0] <= last:
            raise ValueError(f"{name} is out of order")
        done, last = done + len(redraws), first + blocks - 1
        yield _Slice(place, layer, stream, first, blocks, redraws)
    if done < rows:
        raise ValueError(f"{name} names blocks that do not exist")


def _sums(file: SealedFile, seed: int, part: _Slice) -> tuple[np.ndarray, int]:
    """Approximated weights of a slice, float64, and how many copies they keep."""
    layer, start = part.layer, part.first * part.layer.block_weights * part.layer.copies
    bits = part.blocks * layer.block_weights * layer.copies
    packed = file.read(f"mask.{part.place}.kernel", start // 8, (bits + 7) // 8)
    kept = np.unpackbits(packed, count=bits, bitorder="little").reshape(-1, layer.copies)
    drawn = draw_copies(layer, seed, part.stream, part.first, part.blocks, part.redraws)
    return kept_sums(layer, drawn, kept.astype(bool)), int(np.count_nonzero(kept))
