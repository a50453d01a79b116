"""Records grouped by method and kept fraction, and the columns of the table on the terminal and on the page."""

import dataclasses
import operator
import statistics
from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table

from lottery_jax.comparison.records import Record

DASH = "–"  # noqa: RUF001 (a number without a meaning, not a minus sign)


@dataclasses.dataclass(frozen=True)
class Row:
    """The records of one method and kept fraction for all seeds."""

    method: str
    keep: float | None
    records: tuple[Record, ...]

    def values(self, field: str) -> list[float]:
        """The values of a field, one for each seed; empty if a record has none."""
        values = [getattr(record, field) for record in self.records]
        return [] if None in values else values

    def mean(self, field: str) -> float | None:
        """Mean over seeds; None if a record has no value."""
        values = self.values(field)
        return statistics.fmean(values) if values else None

    @property
    def name(self) -> str:
        """The method and its requested kept fraction."""
        return self.method if self.keep is None else f"{self.method}, keep {self.keep:g}"

    def layers(self) -> str:
        """The kept fraction of each random tensor, mean over seeds."""
        found = [record.kept_fractions for record in self.records if record.kept_fractions]
        means: dict[str, float] = {}
        for fractions in found:
            for name, fraction in fractions.items():
                means[name] = means.get(name, 0.0) + fraction / len(found)
        return ", ".join(map("{} {:.3g}".format, means.keys(), means.values()))

    def within(self) -> str:
        """Number of target weights within the tolerance, of the seed with the fewest; a dash without a guarantee."""
        promised = [record for record in self.records if record.outcome != "no guarantee"]
        counts = [record.within_tolerance for record in promised if record.within_tolerance is not None]
        if not counts:
            return DASH
        fewest, weights = min(counts), self.records[0].target_weights
        return "all" if fewest == weights else f"{fewest:,}"

    def interval(self) -> str:
        """The 95 % interval of the accuracy in %, mean over seeds."""
        low, high = self.mean("accuracy_low"), self.mean("accuracy_high")
        return DASH if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"

    def weights(self) -> str:
        """Whether the kept weights are random or trained."""
        return {None: DASH, True: "trained", False: "random"}[self.records[0].trained]


def rows(records: Sequence[Record]) -> list[Row]:
    """One row per method and kept fraction: methods in the order of their first record, kept fractions ascending.

    >>> rows([])
    []
    """
    groups: dict[str, dict[float | None, list[Record]]] = {}
    for record in records:
        groups.setdefault(record.method, {}).setdefault(record.keep, []).append(record)
    found = []
    for method, keeps in groups.items():
        # A method without kept fractions has None alone.
        found += [Row(method, keep, tuple(keeps[keep])) for keep in sorted(keeps)]  # type: ignore[type-var]
    return found


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table; ``meaning`` is one sentence for the page."""

    name: str
    meaning: str
    field: str = ""
    """The field of ``Record`` that it shows."""
    pattern: str = "g"
    _: dataclasses.KW_ONLY
    factor: float = 1
    statistic: Callable[[Sequence[float]], float] = statistics.fmean
    """From the values of all seeds to the number."""
    optional: bool = False
    """Whether it is omitted if no row has a value."""
    text: Callable[[Row], str] | None = None
    """From a row to its cell, instead of ``field`` and the format."""

    @property
    def heading(self) -> str:
        """The name on at most two lines."""
        return "\n".join(self.name.rsplit(" ", 1))

    def cell(self, row: Row) -> str:
        """The cell of a row."""
        if self.text is not None:
            return self.text(row)
        values = row.values(self.field)
        return format(self.factor * self.statistic(values), self.pattern) if values else DASH


_COLUMNS = (
    Column("method", "Name of the method; dense is the trained target itself.", text=operator.attrgetter("method")),
    Column("keep", "Requested kept fraction, if the method sweeps.", "keep"),
    Column("weights", "random: drawn from a seed and never trained; trained: found by training.", text=Row.weights),
    Column("seeds", "Number of random sources; the columns are means over them.", "seed", "d", statistic=len),
    Column(
        "learning rate",
        "Selected on the validation split, mean over seeds.",
        *("learning_rate", ".3g"),
        optional=True,
    ),
    Column("accuracy %", "On the test images.", "accuracy", ".2f", factor=100, optional=True),
    Column("95 % interval", "From the number of test images, mean over seeds.", text=Row.interval, optional=True),
    Column(
        "agree %",
        "Test images with the same prediction as the target.",
        *("agreement", ".2f"),
        factor=100,
        optional=True,
    ),
    Column("metric", "On the test examples.", "metric_value", ".4f", optional=True),
    Column(
        "rms |f-g|",
        "Root mean square of the difference from the target's outputs on the test examples.",
        *("rms_deviation", ".3g"),
        optional=True,
    ),
    Column(
        "max |f-g|",
        "Largest difference from the target's outputs on the test images, worst seed.",
        *("max_deviation", ".3g"),
        statistic=max,
    ),
    Column(
        "bound |f-g|",
        "Upper bound of that difference on any input in [0, 1], worst seed, if it is computed in seconds.",
        *("output_bound", ".3g"),
        statistic=max,
        optional=True,
    ),
    Column("source weights", "Random weights before pruning.", "source_weights", ",.0f"),
    Column("kept weights", "Weights that the mask keeps.", "kept_weights", ",.0f"),
    Column("kept / target", "Kept weights per weight of the target.", "kept_per_target_weight", ".3f"),
    Column(
        "within tolerance",
        "Target weights within the tolerance, recomputed by the verifier, worst seed; a dash if nothing is guaranteed.",
        text=Row.within,
    ),
    Column(
        "worst residual",
        "Largest |approximated - target weight|, computed by the verifier, worst seed.",
        *("worst_residual", ".2e"),
        statistic=max,
    ),
    Column(
        "bits / target",
        "Coded bits of everything that is free in the ticket, per weight of the target.",
        *("bits_per_target_weight", ".2f"),
        optional=True,
    ),
    Column(
        "rounding bits",
        "Bits per weight of the target after rounding it to a grid with the same largest residual.",
        *("rounding_bits_per_target_weight", ".2f"),
        optional=True,
    ),
    Column("ticket bytes", "Size of the ticket file.", "ticket_bytes", ",.0f"),
    Column(
        "search seconds",
        "To find the ticket, without compilation; those of a sweep are divided equally among its kept fractions.",
        *("search_seconds", ".2f"),
    ),
    Column(
        "compile seconds",
        "To compile the search, once for each shape; later it is read from the cache of compiled programs.",
        *("compilation_seconds", ".2f"),
    ),
)

_NAMES = 2  # columns that name a row


def columns(shown: Sequence[Row]) -> list[Column]:
    """The columns of a table; optional ones only if a row has a value."""
    found = []
    metrics = {record.metric for row in shown for record in row.records if record.metric}
    for column in _COLUMNS:
        if column.field == "metric_value" and metrics:
            column = dataclasses.replace(column, name=", ".join(sorted(metrics)))
        cells = set(map(column.cell, shown)) if column.optional else set()
        if not column.optional or cells - {DASH}:
            found.append(column)
    return found


def tables(records: Sequence[Record], *, width: int) -> list[Table]:
    """The comparison as one rich table, or as several on a terminal of fewer characters, ``width``.

    >>> record = Record("dense", "digits", 0, None, 0.97, 0.95, 0.98, 0.97, 1.0, 0.0, 2368)
    >>> [len(table.columns) for table in tables([record], width=200)]
    [16]
    >>> [len(table.columns) for table in tables([record], width=80)]
    [10, 8]
    """
    shown = rows(records)
    every = columns(shown)
    cells = {column.name: [column.cell(row) for row in shown] for column in every}
    widths = {column.name: 1 + max(map(len, [*column.heading.splitlines(), *cells[column.name]])) for column in every}
    names, parts, room = every[:_NAMES], list[list[Column]](), -1
    for column in every[_NAMES:]:
        room -= widths[column.name]
        if room < 0:
            parts.append(list(names))
            room = width - sum(widths[name.name] for name in names) - widths[column.name]
        parts[-1].append(column)
    found = []
    for part in parts:
        table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
        for number, column in enumerate(part):
            table.add_column(column.heading, justify="left" if number == 0 else "right", no_wrap=True)
        for row in zip(*(cells[column.name] for column in part), strict=True):
            table.add_row(*row)
        found.append(table)
    return found
