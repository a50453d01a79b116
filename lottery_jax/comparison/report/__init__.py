"""Records as a table on the terminal, as a figure, and as one self-contained HTML page."""

from lottery_jax.comparison.report.figure import figure
from lottery_jax.comparison.report.page import write_report
from lottery_jax.comparison.report.summary import rows, tables

__all__ = ["figure", "rows", "tables", "write_report"]
