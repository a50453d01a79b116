"""Records gathered by method and keep, and the one list of columns that the terminal and the page share."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table

from lottery_jax.comparison.records import Record


@dataclasses.dataclass(frozen=True)
class Row:
    """The records of one method and keep, over all its seeds."""

    method: str
    keep: float | None
    records: tuple[Record, ...]

    def mean(self, field: str) -> float | None:
        """Mean over seeds; None where any record has none."""
        values = [getattr(record, field) for record in self.records]
        return None if None in values else statistics.fmean(values)

    def worst(self, field: str) -> float | None:
        """Largest over seeds; None where any record has none."""
        values = [getattr(record, field) for record in self.records]
        return None if None in values else max(values)

    def spread(self, field: str) -> tuple[float, float]:
        """Least and largest over seeds; 0 where a record has none."""
        values = [getattr(record, field) or 0.0 for record in self.records]
        return min(values), max(values)

    @property
    def name(self) -> str:
        """The method, and what it was asked to keep."""
        return self.method if self.keep is None else f"{self.method}, keep {self.keep:g}"

    def layers(self) -> str:
        """The kept fraction of each random tensor, mean over seeds."""
        found = [record.kept_fractions for record in self.records if record.kept_fractions]
        names = dict.fromkeys(name for fractions in found for name in fractions)
        return ", ".join(f"{name} {statistics.fmean(each.get(name, 0.0) for each in found):.3g}" for name in names)

    def within(self) -> str:
        """How many target weights the verifier found within the tolerance, for the seed with the fewest."""
        counts = [record.within_tolerance for record in self.records if record.within_tolerance is not None]
        if not counts:
            return DASH
        fewest, weights = min(counts), self.records[0].target_weights
        return "all" if fewest == weights else f"{fewest:,}"


DASH = "–"  # noqa: RUF001 (a number without a meaning, not a minus sign)


def rows(records: Sequence[Record]) -> list[Row]:
    """One row per method and keep, methods in the order of their first record, keeps ascending.

    >>> rows([])
    []
    """
    groups: dict[tuple[str, float | None], list[Record]] = {}
    for record in records:
        groups.setdefault((record.method, record.keep), []).append(record)
    order = list(dict.fromkeys(record.method for record in records))
    ranked = sorted(groups, key=lambda group: (order.index(group[0]), group[1] or 0.0))
    return [Row(method, keep, tuple(groups[method, keep])) for method, keep in ranked]


def _shown(pattern: str, value: float | None, factor: float = 1.0) -> str:
    return DASH if value is None else format(value * factor, pattern)


def _interval(row: Row) -> str:
    low, high = row.mean("accuracy_low"), row.mean("accuracy_high")
    return f"{_shown('.1f', low, 100)} to {_shown('.1f', high, 100)}"


# Heading, what it means, how a row shows it: one list for the terminal and the page.
Column = tuple[str, str, Callable[[Row], str]]

_COLUMNS: tuple[Column, ...] = (
    ("method", "What found the mask; dense is the trained target itself.", lambda row: row.method),
    ("keep", "Kept fraction asked for, where the method has one.", lambda row: _shown("g", row.keep)),
    (
        "weights",
        "random: drawn from a seed and never trained; trained: found by training.",
        lambda row: {None: DASH, True: "trained", False: "random"}[row.records[0].trained],
    ),
    (
        "seeds",
        "Number of random sources; the columns are means over them.",
        lambda row: str(len(row.records)),
    ),
    (
        "learning rate",
        "Chosen on the validation split, mean over seeds.",
        lambda row: _shown(".3g", row.mean("learning_rate")),
    ),
    ("accuracy %", "On the test images.", lambda row: _shown(".2f", row.mean("accuracy"), 100)),
    ("95 % interval", "From the number of test images, mean over seeds.", _interval),
    (
        "agree %",
        "Test images with the same prediction as the target.",
        lambda row: _shown(".2f", row.mean("agreement"), 100),
    ),
    (
        "max |f-g|",
        "Largest difference from the target's outputs on the test images, worst seed.",
        lambda row: _shown(".3g", row.worst("max_deviation")),
    ),
    (
        "bound |f-g|",
        "What that difference is at most on any input in [0, 1], worst seed; where it is bounded in seconds.",
        lambda row: _shown(".3g", row.worst("output_bound")),
    ),
    (
        "source weights",
        "Random weights before pruning.",
        lambda row: _shown(",.0f", row.mean("source_weights")),
    ),
    ("kept weights", "Weights that the mask keeps.", lambda row: _shown(",.0f", row.mean("kept_weights"))),
    (
        "kept / target",
        "Kept weights for each weight of the target.",
        lambda row: _shown(".3f", row.mean("kept_per_target_weight")),
    ),
    (
        "within tolerance",
        "Target weights within the tolerance, as recomputed by the verifier, worst seed.",
        Row.within,
    ),
    (
        "worst residual",
        "Largest |approximated - target weight|, by the verifier, worst seed.",
        lambda row: _shown(".2e", row.worst("worst_residual")),
    ),
    (
        "bits / target",
        "Bits of all that was free in the ticket, as they are coded, for each weight of the target.",
        lambda row: _shown(".2f", row.mean("bits_per_target_weight")),
    ),
    (
        "rounding bits",
        "Bits for each weight of the target when it is rounded to a grid with the same largest residual.",
        lambda row: _shown(".2f", row.mean("rounding_bits_per_target_weight")),
    ),
    ("ticket bytes", "Size of the ticket file.", lambda row: _shown(",.0f", row.mean("ticket_bytes"))),
    (
        "search seconds",
        "To find the ticket, compilation apart; a sweep over keeps is shared equally between them.",
        lambda row: _shown(".2f", row.mean("search_seconds")),
    ),
    (
        "compile seconds",
        "To compile what finds it: once for each shape, and later read from the cache of compiled programs.",
        lambda row: _shown(".2f", row.mean("compilation_seconds")),
    ),
)

_NOT_ALWAYS = {
    "learning rate": "learning_rate",
    "bound |f-g|": "output_bound",
    "bits / target": "bits_per_target_weight",
    "rounding bits": "rounding_bits_per_target_weight",
}


def columns(shown: Sequence[Row]) -> list[Column]:
    """The columns of a table; what was chosen, bounded or counted is shown where anything was."""
    empty = {name for name, field in _NOT_ALWAYS.items() if all(row.mean(field) is None for row in shown)}
    return [column for column in _COLUMNS if column[0] not in empty]


def heading(name: str) -> str:
    """A column's name on two short lines."""
    return "\n".join(name.rsplit(" ", 1))


def tables(records: Sequence[Record], *, width: int) -> list[Table]:
    """The comparison as one rich table, or as several where the terminal is narrow (`width` in characters).

    Each of them begins with the columns that name a row.

    >>> record = Record("dense", "digits", 0, None, 0.97, 0.95, 0.98, 0.97, 1.0, 0.0, 2368)
    >>> [len(table.columns) for table in tables([record], width=200)]
    [16]
    >>> [len(table.columns) for table in tables([record], width=80)]
    [10, 8]
    """
    shown = rows(records)
    every, parts, room = columns(shown), [], -1
    names = every[:_NAMES]
    for column in every[_NAMES:]:
        room -= _width(column, shown)
        if room < 0:
            parts.append(list(names))
            room = width - sum(_width(name, shown) for name in names) - _width(column, shown)
        parts[-1].append(column)
    return [_table(shown, columns) for columns in parts]


_NAMES = 2  # columns that name a row


def _width(column: Column, shown: Sequence[Row]) -> int:
    """Characters of a column, with the space after it."""
    name, _, show = column
    return max(map(len, [*heading(name).splitlines(), *map(show, shown)])) + 1


def _table(shown: Sequence[Row], columns: Sequence[Column]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for place, (name, _, _) in enumerate(columns):
        grid.add_column(heading(name), justify="left" if place == 0 else "right", no_wrap=True)
    for row in shown:
        grid.add_row(*(show(row) for _, _, show in columns))
    return grid
