"""Random tensors: the stream position of each random weight, and drawing the weights on the host.

A random tensor has rows of N candidates, one for each target weight. A *block* is the unit that is redrawn when a
problem fails: one row, or several rows that share their weights. Attempt a of a block reads stream s + 65,536 a at the
positions of the tensor's layout, so any part of a tensor can be drawn on its own.
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
"""Attempt a of a block reads the stream of its tensor plus a times this."""

MAX_ATTEMPTS = 255
"""Redraws of a block; the choice of an attempt counts in a ticket's description length."""

MAX_WIDTH = (1 << 16) - 1

_CHECKSUM_BLOCKS = 256


class Layout(abc.ABC):
    """The stream positions of a tensor's blocks."""

    step: int = 1
    """Positions from one weight of a block to the next; 0 if a block repeats one weight."""
    per_stream: int | None = None
    """Blocks on one stream if they lie there contiguously and in order, else None."""

    @abc.abstractmethod
    def start(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stream (relative to the tensor's first) and position of the first weight of blocks int64 [R]."""

    def spans(self, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Intervals of positions that cover all weights: stream, begin and end, int64 [S] each."""
        stream, first = self.start(np.arange(blocks))
        offsets = np.arange(width if self.step > 1 else 1) * self.step
        first = (first[:, None] + offsets).reshape(-1)
        return np.repeat(stream, len(offsets)), first, first + (width if self.step == 1 else 1)

    def draw_all(self, tensor: "RandomTensor", seed: int) -> np.ndarray:
        """The first draw of all blocks of ``tensor``, which has this layout, float32 [blocks, N]."""
        return tensor.draw(seed, np.arange(tensor.blocks), 0)


@dataclasses.dataclass(frozen=True)
class ContiguousLayout(Layout):
    """Blocks of ``width`` weights in order; a tensor of more than 2**32 weights continues on the next stream."""

    width: int

    @property
    def per_stream(self) -> int:
        """A multiple of 8, so that a stream holds whole bytes of the packed mask."""
        return (MAX_SIZE - 1) // self.width // 8 * 8

    def start(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stream, index = np.divmod(blocks, self.per_stream)
        return stream, index * self.width

    def spans(self, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first = np.arange(0, blocks, self.per_stream)
        ends = np.minimum(blocks - first, self.per_stream) * width
        return np.arange(len(first)), np.zeros_like(first), ends

    def draw_all(self, tensor: "RandomTensor", seed: int) -> np.ndarray:
        parts = []
        for stream, first in enumerate(range(0, tensor.blocks, self.per_stream)):
            count = min(self.per_stream, tensor.blocks - first) * self.width
            parts.append(draw_range(tensor.sampler, seed=seed, stream=tensor.stream + stream, first=0, count=count))
        return np.concatenate(parts).reshape(tensor.blocks, self.width)


@dataclasses.dataclass(frozen=True)
class MatrixLayout(Layout):
    """The second matrix of a theorem, [inputs * units, kernel_size, outputs * copies], row-major.

    A block is one target weight (output, input, kernel position, copy); its units are ``step`` positions apart.

    Args:
        outputs: Output channels of the target layer.
        inputs: Its input channels.
        kernel_size: Number of positions of its kernel, 1 for a dense layer.
        units: Random units for each input channel, the candidates of a target weight.
        offset: Position of the first weight.
        copies: Copies of each output, adjacent in the matrix.
    """

    outputs: int
    inputs: int
    kernel_size: int
    units: int
    offset: int = 0
    copies: int = 1

    def __post_init__(self) -> None:
        columns = self.outputs * self.copies
        if self.offset + self.inputs * self.units * self.kernel_size * columns > MAX_SIZE:
            raise InputError(
                f"a random matrix of {self.inputs} inputs, {self.units} units each and {columns} outputs has over"
                " 2**32 weights; use fewer candidates, or a target with smaller layers"
            )

    @property
    def step(self) -> int:
        return self.kernel_size * self.outputs * self.copies

    def start(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weight, copy = np.divmod(blocks, self.copies)
        output, rest = np.divmod(weight, self.inputs * self.kernel_size)
        source, place = np.divmod(rest, self.kernel_size)
        row, column = source * self.units * self.kernel_size + place, output * self.copies + copy
        position = row * self.outputs * self.copies + column + self.offset
        return np.zeros_like(position), position

    def spans(self, blocks: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.zeros(1, np.int64), np.array([self.offset]), np.array([self.offset + blocks * width])

    def draw_all(self, tensor: "RandomTensor", seed: int) -> np.ndarray:
        # Drawing the whole matrix in order costs half of drawing each weight at its position.
        shape = self.inputs, self.units, self.kernel_size, self.outputs, self.copies
        flat = draw_range(tensor.sampler, seed=seed, stream=tensor.stream, first=self.offset, count=math.prod(shape))
        return np.ascontiguousarray(flat.reshape(shape).transpose(3, 0, 2, 4, 1)).reshape(tensor.blocks, tensor.width)


@dataclasses.dataclass(frozen=True)
class DiagonalLayout(Layout):
    """The block-diagonal part of a theorem's first matrix [inputs, inputs * units]: each input's edges to its units."""

    inputs: int
    units: int

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
    """One random tensor of a source.

    Args:
        shape: Shape of its mask; the last axes hold the N candidates of a row.
        width: N, the number of random weights in a row.
        sampler: The distribution of its weights.
        layout: The stream positions of its blocks.
        rows_per_block: Rows that share the weights of a block.
        stream: Its first stream, relative to its leaf's first until ``Network.random_tensors`` makes it absolute.
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
        """Number of mask bits."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        return self.size // self.width

    @property
    def blocks(self) -> int:
        return math.prod(self.shape) // self.width // self.rows_per_block

    @property
    def weights(self) -> int:
        """Number of random weights; shared and repeated ones count once."""
        return self.blocks * (self.width if self.layout.step else 1)

    @property
    def streams(self) -> int:
        return int(self.layout.start(np.array([self.blocks - 1]))[0][0]) + 1

    def positions(self, blocks: np.ndarray, attempts: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        """Stream and position [R] of the first weight of blocks int64 [R] in their attempts."""
        stream, position = self.layout.start(blocks)
        return self.stream + stream + ATTEMPT_STRIDE * attempts, position

    def draw(self, seed: int, blocks: np.ndarray, attempts: np.ndarray | int) -> np.ndarray:
        """The weights of blocks int64 [R], drawn on the host: float32 [R, N]."""
        return self.draw_columns(seed, blocks[:, None], np.arange(self.width), np.reshape(attempts, (-1, 1)))

    def draw_columns(
        self, seed: int, blocks: np.ndarray, columns: np.ndarray, attempts: np.ndarray | int
    ) -> np.ndarray:
        """Weights ``columns`` of ``blocks``, drawn on the host: float32 in the broadcast shape of the three arrays."""
        stream, position = self.positions(blocks, attempts)
        index = position + columns * self.layout.step
        return draw_at(sampler_arrays(self.sampler), seed_words(seed), stream, index)

    def draw_all(self, seed: int, redraws: np.ndarray) -> np.ndarray:
        """All weights, float32 in the shape of the mask, with axes of 1 over rows that share a block.

        ``redraws`` are int64 rows (block, attempt).
        """
        weights = self.layout.draw_all(self, seed)
        weights[redraws[:, 0]] = self.draw(seed, redraws[:, 0], redraws[:, 1])
        if self.rows_per_block == 1:
            return weights.reshape(self.shape)
        return weights.reshape(self.shape[0], *(1 for _ in self.shape[1:-1]), self.width)

    def draw_kept(self, seed: int, redraws: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The kept weights, float32 in the shape of the mask, 0 elsewhere; a sparse mask draws only those."""
        if np.count_nonzero(mask) * 10 > mask.size:  # drawing a whole row costs a tenth for each weight
            return np.where(mask, self.draw_all(seed, redraws), np.float32(0))
        kept = np.flatnonzero(mask)
        row, column = np.divmod(kept, self.width)
        block, attempts = row // self.rows_per_block, block_attempts(redraws, 0, self.blocks)
        found = np.zeros(self.shape, np.float32)
        found.reshape(-1)[kept] = self.draw_columns(seed, block, column, attempts[block])
        return found

    def checksum_sample(self, seed: int) -> np.ndarray:
        """Evenly spaced blocks of the first draw, float32 [S, N], for a ticket's source checksum."""
        count = min(self.blocks, _CHECKSUM_BLOCKS)
        return self.draw(seed, np.arange(count, dtype=np.int64) * self.blocks // count, 0)

    def check_redraws(self, name: str, rows: np.ndarray) -> None:
        """Raise ``InputError`` unless ``rows`` are int64 (block, attempt) with ascending, distinct blocks."""
        if rows.dtype != np.int64 or rows.ndim != 2 or rows.shape[1] != 2:
            raise InputError(f"the redraws of {name!r} must be int64 rows (block, attempt)")
        blocks, attempts = rows[:, 0], rows[:, 1]
        if len(rows) and not (
            blocks[0] >= 0
            and (blocks[1:] > blocks[:-1]).all()  # compared, because a difference of two int64 may wrap around
            and blocks[-1] < self.blocks
            and attempts.min() > 0
            and attempts.max() <= MAX_ATTEMPTS
        ):
            raise InputError(
                f"the redraws of {name!r} are out of order, or not blocks 0 to {self.blocks - 1} with attempts 1 to"
                f" {MAX_ATTEMPTS}"
            )


def count_positions(tensors: Iterable[RandomTensor]) -> int:
    """Number of stream positions that random tensors read; a position that several tensors read counts once.

    >>> row = RandomTensor((2, 5), 5, Sampler.uniform(-1, 1), ContiguousLayout(5))
    >>> count_positions([row, row, dataclasses.replace(row, shape=(3, 5))])
    15
    """
    lows, highs = [], []
    for tensor in tensors:
        stream, low, high = tensor.layout.spans(tensor.blocks, tensor.width)
        begin = (tensor.stream + stream) * 2 * MAX_SIZE  # streams laid end to end
        lows.append(begin + low)
        highs.append(begin + high)
    first, end = np.concatenate(lows), np.concatenate(highs)
    order = np.argsort(first, kind="stable")
    first, end = first[order], np.maximum.accumulate(end[order])
    first[1:] = np.maximum(first[1:], end[:-1])
    return int((end - first).sum())


def block_attempts(redraws: np.ndarray, begin: int, end: int) -> np.ndarray:
    """The attempts of blocks begin ... end - 1, int64, from ascending redraw rows (block, attempt).

    >>> block_attempts(np.array([[2, 7], [5, 1]]), 1, 5)
    array([0, 7, 0, 0])
    """
    attempts = np.zeros(end - begin, np.int64)
    low, high = np.searchsorted(redraws[:, 0], (begin, end))
    attempts[redraws[low:high, 0] - begin] = redraws[low:high, 1]
    return attempts
