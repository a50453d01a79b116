"""The parameters of all codes as bits: whole numbers from 0 up in Elias's gamma code, each of the next number."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from lottery_jax.networks.network import Network
from lottery_jax.networks.sources.drawn import MOST_ATTEMPTS
from lottery_jax.storage.tensor_file import FormatError
from lottery_jax.tickets.coding.classes import MOST_FINE
from lottery_jax.tickets.coding.codes import ROWS, Code
from lottery_jax.tickets.coding.order import names_in_order
from lottery_jax.tickets.coding.places import LEVELS, Places


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
        drawn = network.drawn[name]
        rows, level = ROWS[numbers.next(len(ROWS) - 1)], LEVELS[numbers.next(len(LEVELS) - 1)]
        fine = numbers.next(MOST_FINE + 1)
        code = Code(rows, level, fine - 1 if fine else None, np.zeros(0, np.int64), np.zeros(0, np.int64))
        counts = numbers.counts(code.most_classes(drawn), drawn.size)
        redraws = numbers.counts(MOST_ATTEMPTS + 1, drawn.blocks)
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
