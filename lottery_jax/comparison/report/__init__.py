"""The same records as a table for the terminal, a figure, and one self-contained HTML page."""

from lottery_jax.comparison.report.figure import figure
from lottery_jax.comparison.report.page import page, write_report
from lottery_jax.comparison.report.summary import rows, tables

__all__ = ["figure", "page", "rows", "tables", "write_report"]
