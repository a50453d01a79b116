"""The source of one tensor of a model, of any shape: every weight has random copies, and stands by itself.

Such tensors do not chain into a network of their own; the kept copies of a weight sum to the weight, so what they
approximate is put in the model's place of it. Weight p (row-major) has its C copies at positions p * C ... p * C +
C - 1 of the tensor's stream; with `shared` the weights of a row (first axis) have them in common, at row * C.
"""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.sampler import MAX_SIZE, Sampler, draw_at, draw_range, seed_words

ATTEMPT_STRIDE = 1 << 16
"""Attempt a of a block of copies is drawn from the stream of its tensor plus a times this."""
SAMPLED_BLOCKS = 256


@dataclasses.dataclass(frozen=True)
class Copies:
    """A tensor `name` of `shape` with `copies` C of every weight; the mask `kernel` is [P weights, C].

    A block is the copies of one weight, or with `shared` those of one row. Blocks beyond the 2**32 positions of a
    stream are on the next one.

    >>> layer = Copies("conv.weight", (64, 3, 7, 7), 21, Sampler.uniform(-1, 1), shared=True)
    >>> layer.weights, layer.blocks, layer.streams
    (9408, 64, 1)
    """

    name: str
    shape: tuple[int, ...]
    copies: int
    sampler: Sampler
    shared: bool = False
    gain: ClassVar[float] = 1.0
    kind: ClassVar[str] = "copies"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if not self.shape or min(self.shape) < 1:
            raise InputError(f"tensor {self.name!r} is empty: its shape is {list(self.shape)}")
        if not 1 <= self.copies < ATTEMPT_STRIDE:
            raise InputError(f"{self.name!r} has {self.copies} copies of each weight; 1 to 65535 are possible")

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def block_weights(self) -> int:
        """Target weights that are approximated with one block: 1, or a row."""
        return math.prod(self.shape[1:]) if self.shared else 1

    @property
    def blocks(self) -> int:
        return self.weights // self.block_weights

    @property
    def stream_blocks(self) -> int:
        """Blocks on one stream, a multiple of 8."""
        return (MAX_SIZE - 1) // self.copies // 8 * 8

    @property
    def streams(self) -> int:
        return -(-self.blocks // self.stream_blocks)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"kernel": (self.weights, self.copies)}

    def samplers(self) -> dict[str, Sampler]:
        return {"kernel": self.sampler}


def draw_blocks(layer: Copies, seed: int, stream: int, blocks: np.ndarray, attempts: np.ndarray) -> np.ndarray:
    """Blocks int64 [R] of the given attempts [R], on the host: float32 [R, C]."""
    place, part = blocks % layer.stream_blocks, blocks // layer.stream_blocks
    index = place[:, None] * layer.copies + np.arange(layer.copies)
    streams = np.broadcast_to((stream + part + ATTEMPT_STRIDE * attempts)[:, None], index.shape)
    return draw_at(layer.sampler, seed_words(seed), streams.astype(np.uint32), index.astype(np.uint32))


def draw_copies(
    layer: Copies, seed: int, stream: int, first: int, count: int, redraws: np.ndarray | None = None
) -> np.ndarray:
    """Blocks first ... first + count - 1, on the host: float32 [count, C].

    redraws: int64 rows (block, attempt) of blocks in this range that were drawn again.

    >>> layer = Copies("w", (4, 3), 2, Sampler.uniform(-1, 1))
    >>> draw_copies(layer, 0, 0, first=0, count=1)
    array([[-0.16308576,  0.20099819]], dtype=float32)
    """
    parts, at = [], first
    while at < first + count:
        part, place = divmod(at, layer.stream_blocks)
        blocks = min(first + count - at, layer.stream_blocks - place)
        where = {"stream": stream + part, "first": place * layer.copies, "count": blocks * layer.copies}
        parts.append(draw_range(layer.sampler, seed=seed, **where))
        at += blocks
    drawn = np.concatenate(parts).reshape(count, layer.copies)
    if redraws is not None and len(redraws):
        drawn[redraws[:, 0] - first] = draw_blocks(layer, seed, stream, redraws[:, 0], redraws[:, 1])
    return drawn


def kept_sums(layer: Copies, drawn: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """What the kept copies of each weight sum to, float64 [W]: drawn [B, C] blocks, kept bool [W, C] of their weights.

    Copies are multiples of one power of two, so these sums are exact.
    """
    exact = drawn.astype(np.float64)[:, None, :]
    return np.where(kept.reshape(len(drawn), layer.block_weights, -1), exact, 0.0).sum(-1).reshape(-1)


def sampled_blocks(layer: Copies, seed: int, stream: int) -> np.ndarray:
    """Evenly spaced blocks of the first draw, float32 [S, C]: what a ticket's source checksum is taken over."""
    count = min(layer.blocks, SAMPLED_BLOCKS)
    blocks = np.arange(count, dtype=np.int64) * layer.blocks // count
    return draw_blocks(layer, seed, stream, blocks, np.zeros_like(blocks))


def check_redraws(layer: Copies, rows: np.ndarray) -> None:
    """Refuse redraw rows that are not one attempt for each of some blocks in ascending order."""
    if rows.dtype != np.int64 or rows.ndim != 2 or rows.shape[1] != 2:
        raise InputError(f"the redraws of {layer.name!r} must be int64 rows (block, attempt)")
    blocks, attempts = rows[:, 0], rows[:, 1]
    if len(rows) and not (
        blocks[0] >= 0
        and (np.diff(blocks) > 0).all()
        and blocks[-1] < layer.blocks
        and attempts.min() > 0
        and attempts.max() < ATTEMPT_STRIDE
    ):
        raise InputError(f"the redraws of {layer.name!r} are out of order or out of range")
