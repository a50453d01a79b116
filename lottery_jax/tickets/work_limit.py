"""The work that a file asks for, computed from its header before anything is allocated, and the limit of it.

A few hundred bytes can describe a network that no machine could run. The limit grows with the tensors of a file,
because a large file may cost more. An operation takes about a nanosecond of one core.
"""

import dataclasses
import fractions
import math

from lottery_jax.environment import cores
from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.sources.base import Source
from lottery_jax.tickets.size.conditioning import mask_spans

_OPERATIONS, _OPERATIONS_PER_BYTE = 10_000_000_000, 5_000  # for any file, and for each byte of its tensors
_BYTES, _BYTES_PER_BYTE = 1_500_000_000, 150

_NODE = 3_000_000  # operations of a node or a random tensor: it is built, traced and compiled
_ENTRY, _ROW = 40, 200  # of an entry of a mask, and of a row of entries, in all passes of the verifier
_HIDDEN, _DECODED_HIDDEN = 8, 60  # of an entry of a hidden layer, for a slice of the verifier and for a coded span
_MAX_FACTOR = 10**9  # that a message suggests
_SLICE = 1 << 18  # entries in a slice of the verifier
_SAMPLED_BLOCKS = 256  # of a tensor: the checksum of the source draws them
_DRAWN_BYTES = 100  # of an entry while it is drawn and added up
_HIDDEN_BYTES = 32  # of an entry of a hidden layer: its weight, and float64 values in each thread
_SOURCE_BYTES = 9  # of a random weight of a network that is run: mask, weight and their product
_NUMBER_BYTES = 8 * 6  # of a float64 array and those that it is made from
_INNER_BYTES = 4 * 5  # of a float32 array inside a layer, and those that it is made from

HEADER_OPERATIONS = 3_000
"""Of a byte of a file's header: the nodes that it describes are built several times."""

REDRAW_BYTES = 48
"""Of a redrawn block of a coded file: its row of two integers, and copies of it."""


class WorkLimitError(InputError):
    """A file asks for more work than its limit allows."""


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations, and bytes of memory at the same time; whole numbers that never overflow.

    >>> print(Work(1_234, 5 * 10**400))
    1,234 operations and 5.0e400 bytes
    """

    operations: int
    bytes: int

    def __str__(self) -> str:
        return f"{_rounded(self.operations)} operations and {_rounded(self.bytes)} bytes"


def _rounded(number: int) -> str:
    digits = str(number)
    return f"{number:,}" if len(digits) < 5 else f"{digits[0]}.{digits[1]}e{len(digits) - 1}"


@dataclasses.dataclass(frozen=True)
class WorkLimit:
    """The work that is allowed for a file.

    Args:
        where: The file in words.
        file_bytes: The size of its tensors.
        factor: Multiple of the default limit; infinity for no limit.

    Raises:
        InputError: The factor is not a positive number.
    """

    where: str
    file_bytes: int
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.factor, int | float) or not self.factor > 0:
            raise InputError(
                f"limit must be a positive multiple of the default work, got {self.factor!r}; give 1 or more"
            )

    @property
    def allowed(self) -> Work:
        """The default limit of the file."""
        operations, memory = _OPERATIONS_PER_BYTE * self.file_bytes, _BYTES_PER_BYTE * self.file_bytes
        return Work(_OPERATIONS + operations, _BYTES + memory)

    def check(self, work: Work) -> None:
        """Raise `WorkLimitError` if work is above the limit."""
        allowed = self.allowed
        ratios = (work.operations, allowed.operations), (work.bytes, allowed.bytes)
        needed = max(fractions.Fraction(*ratio) for ratio in ratios)
        if needed > self.factor:
            whole = math.ceil(needed)
            factor = str(whole) if whole <= _MAX_FACTOR else "inf"
            raise WorkLimitError(
                f"{self.where} asks for about {work}, and the limit for {self.file_bytes:,} bytes of tensors is"
                f" {allowed}; if you trust the file, give --limit {factor} (in Python limit={factor})"
            )


UNLIMITED = WorkLimit("a file", 0, math.inf)
"""For files that this program wrote itself."""


def verification_work(network: Network, *, coded: bool, promised: bool) -> Work:
    """The work to open and verify a ticket, and to run its network on one example.

    Args:
        network: The source network.
        coded: Whether the masks are coded, so that they take few bytes of the file.
        promised: Whether the ticket has a target, whose weights are all compared.
    """
    runs = network.input_spec is not None
    operations = network.cost.operations + _NODE * (len(network.random_tensors) + sum(1 for _ in network.nodes()))
    inner = max(network.largest_activation, network.cost.numbers)  # run in float32, bounded in float64
    largest = max(_NUMBER_BYTES * network.target.largest_activation, _INNER_BYTES * inner)
    together = 0
    for tensor in network.random_tensors.values():
        operations += _ENTRY * tensor.size + _ROW * tensor.rows
        largest = max(largest, _DRAWN_BYTES * min(tensor.blocks, _SAMPLED_BLOCKS) * tensor.width)
        together += _SOURCE_BYTES * tensor.size * runs
    for path, source in network.sources.items():
        hidden, slices, spans, entries, effective = _layer_numbers(source)
        operations += hidden * (_HIDDEN * slices + _DECODED_HIDDEN * spans * coded)
        largest = max(largest, _HIDDEN_BYTES * hidden + _DRAWN_BYTES * (cores() + 1) * entries)
        signs = len(source.input_signs("weight", network.input_spec_of(path)))
        together += _NUMBER_BYTES * effective * signs * (runs and promised)
    return Work(operations, largest + together)


def _layer_numbers(source: Source) -> tuple[int, int, int, int, int]:
    """Entries of hidden tensors, slices, coded spans, entries of the largest slice, effective weights of a layer."""
    hidden, slices, spans, entries, effective = 0, 0, 0, 0, 0
    for name, tensor in source.random_tensors().items():
        if name in source.hidden_tensors:
            hidden += tensor.size
            continue
        per_weight, weights = tensor.width * source.rows_per_weight, tensor.rows // source.rows_per_weight
        step = max(_SLICE // per_weight // 8, 1) * 8
        slices += -(-weights // step)
        spans += -(-tensor.size // next(mask_spans(name, tensor)).count)
        entries = max(entries, min(step, weights) * per_weight)
        effective += tensor.rows
    return hidden, slices, spans, entries, effective
