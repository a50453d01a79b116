"""Where each weight of a random tensor lies in its stream, and how it is drawn on the host.

A random tensor is a mask's worth of weights: rows of N. What is drawn again when a problem fails is a *block*, a row or
what several rows share. Block b of attempt a is read from stream s + 65,536 a; the layout says from which positions, so
that the same weights are found by whoever draws a part of them only.
"""

import abc
import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.rng.sampler import MAX_SIZE, Sampler, draw_at, draw_range, sampler_arrays
from lottery_jax.rng.threefry import seed_words

ATTEMPT_STRIDE = 1 << 16
"""Attempt a of a block is drawn from the stream of its tensor plus a times this."""

MAX_ATTEMPTS = 255
"""Draws of a block after the first: each is a choice that a ticket makes, and is counted in its description."""

MAX_WIDTH = (1 << 16) - 1

SAMPLED_BLOCKS = 256


class Layout(abc.ABC):
    """Which positions of which stream the blocks of a tensor take."""

    @abc.abstractmethod
    def start(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stream, counted from the tensor's first, and position of the first weight of blocks int64 [R]."""

    @property
    @abc.abstractmethod
    def step(self) -> int:
        """Positions from one weight of a block to the next; 0 where it is one weight, taken several times."""

    @property
    def per_stream(self) -> int | None:
        """Blocks on one stream where they are neighbours there, in order; None where they are not."""
        return None

    def spans(self, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The positions of all weights: stream, first one and the one after the last, int64 [S]; spans may touch."""
        stream, first = self.start(np.arange(blocks))
        places = np.arange(width if self.step > 1 else 1) * self.step
        first = (first[:, None] + places).reshape(-1)
        return np.repeat(stream, len(places)), first, first + (width if self.step == 1 else 1)

    def draw_all(self, drawn: "RandomTensor", seed: int) -> np.ndarray:
        """The first draw of all blocks of a tensor that is laid out like this, float32 [blocks, N]."""
        return drawn.draw(seed, np.arange(drawn.blocks), 0)


@dataclasses.dataclass(frozen=True)
class ContiguousLayout(Layout):
    """Blocks of `width` weights one after the other; those beyond the 2**32 positions of a stream lie on the next."""

    width: int

    @property
    def step(self) -> int:
        return 1

    @property
    def per_stream(self) -> int:
        """A multiple of 8: whole bytes of a mask."""
        return (MAX_SIZE - 1) // self.width // 8 * 8

    def start(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stream, place = np.divmod(blocks, self.per_stream)
        return stream, place * self.width

    def spans(self, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first = np.arange(0, blocks, self.per_stream)
        ends = np.minimum(blocks - first, self.per_stream) * width
        return np.arange(len(first)), np.zeros_like(first), ends

    def draw_all(self, drawn: "RandomTensor", seed: int) -> np.ndarray:
        parts = []
        for stream, first in enumerate(range(0, drawn.blocks, self.per_stream)):
            count = min(self.per_stream, drawn.blocks - first) * self.width
            parts.append(draw_range(drawn.sampler, seed=seed, stream=drawn.stream + stream, first=0, count=count))
        return np.concatenate(parts).reshape(drawn.blocks, self.width)


@dataclasses.dataclass(frozen=True)
class MatrixLayout(Layout):
    """The theorem's matrix, which multiplies from the left: [inputs * units, places, outputs], row-major.

    A block is one weight (output, input, place, copy of the output) of the operation, row-major; its units are `step`
    apart. The copies of an output are neighbours in the matrix. `offset`: where the matrix begins.
    """

    outputs: int
    inputs: int
    places: int
    units: int
    offset: int = 0
    copies: int = 1

    def __post_init__(self) -> None:
        columns = self.outputs * self.copies
        if self.offset + self.inputs * self.units * self.places * columns > MAX_SIZE:
            raise InputError(
                f"a random matrix of {self.inputs} inputs, {self.units} units each and {columns} outputs has over"
                " 2**32 weights; use fewer candidates, or a target with smaller layers"
            )

    @property
    def step(self) -> int:
        return self.places * self.outputs * self.copies

    def start(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weight, copy = np.divmod(blocks, self.copies)
        output, rest = np.divmod(weight, self.inputs * self.places)
        source, place = np.divmod(rest, self.places)
        row, column = source * self.units * self.places + place, output * self.copies + copy
        position = row * self.outputs * self.copies + column + self.offset
        return np.zeros_like(position), position

    def spans(self, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.zeros(1, np.int64), np.array([self.offset]), np.array([self.offset + blocks * width])

    def draw_all(self, drawn: "RandomTensor", seed: int) -> np.ndarray:
        # The whole matrix in its own order takes half the work of drawing each weight for itself.
        shape = self.inputs, self.units, self.places, self.outputs, self.copies
        flat = draw_range(drawn.sampler, seed=seed, stream=drawn.stream, first=self.offset, count=math.prod(shape))
        return np.ascontiguousarray(flat.reshape(shape).transpose(3, 0, 2, 4, 1)).reshape(drawn.blocks, drawn.width)


@dataclasses.dataclass(frozen=True)
class DiagonalLayout(Layout):
    """The block-column part of the full first matrix [inputs, inputs * units]: each input's edges to its own units."""

    inputs: int
    units: int

    @property
    def step(self) -> int:
        return 1

    def __post_init__(self) -> None:
        if self.inputs**2 * self.units > MAX_SIZE:
            raise InputError(
                f"a gadget of {self.inputs} inputs with {self.units} units each has a first matrix of over 2**32"
                " weights; use fewer candidates or a target with fewer inputs"
            )

    def start(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(blocks), blocks * (self.inputs * self.units + self.units)


@dataclasses.dataclass(frozen=True)
class RandomTensor:
    """One random tensor of a source: `shape` of its mask, its sampler, and where it is drawn.

    width: N, random weights in a row, the mask's last numbers. shared: rows in a block. stream: the first one, counted
    from the leaf's first until `Network.random_tensors` says which that is.
    """

    shape: tuple[int, ...]
    width: int
    sampler: Sampler
    layout: Layout
    rows_per_block: int = 1
    stream: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.width <= MAX_WIDTH:
            raise InputError(f"{self.width} random weights for each target weight; 1 to {MAX_WIDTH} are possible")

    @property
    def size(self) -> int:
        """Bits of the mask."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        return self.size // self.width

    @property
    def blocks(self) -> int:
        return self.rows // self.rows_per_block

    @property
    def weights(self) -> int:
        """Random weights: those that rows share, or that a row takes several times, are counted once."""
        return self.blocks * (self.width if self.layout.step else 1)

    @property
    def streams(self) -> int:
        return int(self.layout.start(np.array([self.blocks - 1]))[0][0]) + 1

    def positions(self, blocks: np.ndarray, attempts: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        """Stream and position [R] of the first weights of blocks int64 [R] in these attempts."""
        stream, position = self.layout.start(blocks)
        return self.stream + stream + ATTEMPT_STRIDE * attempts, position

    def draw(self, seed: int, blocks: np.ndarray, attempts: np.ndarray | int) -> np.ndarray:
        """Blocks int64 [R], on the host: float32 [R, N]."""
        return self.draw_columns(seed, blocks[:, None], np.arange(self.width), np.reshape(attempts, (-1, 1)))

    def draw_columns(
        self, seed: int, blocks: np.ndarray, columns: np.ndarray, attempts: np.ndarray | int
    ) -> np.ndarray:
        """Some random weights of some blocks, on the host: float32 in the shape that the three have together."""
        stream, position = self.positions(blocks, attempts)
        index = position + columns * self.layout.step
        streams = np.broadcast_to(stream, index.shape)
        return draw_at(
            sampler_arrays(self.sampler), seed_words(seed), streams.astype(np.uint32), index.astype(np.uint32)
        )

    def draw_all(self, seed: int, redraws: np.ndarray) -> np.ndarray:
        """All weights, float32, in the shape of the mask; what rows share stands once, with an axis of 1.

        redraws: int64 rows (block, attempt).
        """
        drawn = self.layout.draw_all(self, seed)
        drawn[redraws[:, 0]] = self.draw(seed, redraws[:, 0], redraws[:, 1])
        if self.rows_per_block == 1:
            return drawn.reshape(self.shape)
        return drawn.reshape(self.shape[0], *(1 for _ in self.shape[1:-1]), self.width)

    def draw_kept(self, seed: int, redraws: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """All weights in the shape of the mask, zero where it is False; where it keeps few, no others are drawn."""
        if np.count_nonzero(mask) * 10 > mask.size:  # neighbours in a row are a tenth of the work
            return np.where(mask, self.draw_all(seed, redraws), np.float32(0))
        kept = np.flatnonzero(mask)
        row, column = np.divmod(kept, self.width)
        block, attempts = row // self.rows_per_block, block_attempts(redraws, 0, self.blocks)
        found = np.zeros(self.shape, np.float32)
        found.reshape(-1)[kept] = self.draw_columns(seed, block, column, attempts[block])
        return found

    def checksum_sample(self, seed: int) -> np.ndarray:
        """Evenly spaced blocks of the first draw, float32 [S, N]: what a ticket's source checksum is taken over."""
        count = min(self.blocks, SAMPLED_BLOCKS)
        return self.draw(seed, np.arange(count, dtype=np.int64) * self.blocks // count, 0)

    def check_redraws(self, name: str, rows: np.ndarray) -> None:
        """Refuse redraw rows that are not int64 (block, attempt), one for each of some blocks in ascending order."""
        if rows.dtype != np.int64 or rows.ndim != 2 or rows.shape[1] != 2:
            raise InputError(f"the redraws of {name!r} must be int64 rows (block, attempt)")
        blocks, attempts = rows[:, 0], rows[:, 1]
        if len(rows) and not (
            blocks[0] >= 0
            and (np.diff(blocks) > 0).all()
            and blocks[-1] < self.blocks
            and attempts.min() > 0
            and attempts.max() <= MAX_ATTEMPTS
        ):
            raise InputError(
                f"the redraws of {name!r} are out of order, or not blocks 0 to {self.blocks - 1} with attempts 1 to"
                f" {MAX_ATTEMPTS}"
            )


def count_positions(tensors: Iterable[RandomTensor]) -> int:
    """How many positions of streams some random tensors have among them, those that several have counted once.

    >>> row = RandomTensor((2, 5), 5, Sampler.uniform(-1, 1), ContiguousLayout(5))
    >>> count_positions([row, row, dataclasses.replace(row, shape=(3, 5))])
    15
    """
    lows, highs = [], []
    for tensor in tensors:
        stream, low, high = tensor.layout.spans(tensor.blocks, tensor.width)
        before = (tensor.stream + stream) * 2 * MAX_SIZE  # streams one after the other
        lows.append(before + low)
        highs.append(before + high)
    first, end = np.concatenate(lows), np.concatenate(highs)
    order = np.argsort(first, kind="stable")
    first, end = first[order], np.maximum.accumulate(end[order])
    first[1:] = np.maximum(first[1:], end[:-1])
    return int((end - first).sum())


def block_attempts(redraws: np.ndarray, begin: int, end: int) -> np.ndarray:
    """The attempt int64 that each of the blocks begin ... end - 1 is of. redraws: ascending rows (block, attempt).

    >>> block_attempts(np.array([[2, 7], [5, 1]]), 1, 5)
    array([0, 7, 0, 0])
    """
    attempts = np.zeros(end - begin, np.int64)
    low, high = np.searchsorted(redraws[:, 0], (begin, end))
    attempts[redraws[low:high, 0] - begin] = redraws[low:high, 1]
    return attempts
