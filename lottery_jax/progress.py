"""Telling how far long work is: one kind of callback everywhere."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, total) each time some is done; `done` never falls, and ends at `total`."""


def unseen(done: int, total: int) -> None:
    """Nobody looks."""
