"""Telling how far long work is: one kind of callback everywhere, and one place for notes."""

import logging
from collections.abc import Callable

log = logging.getLogger("lottery_jax")
"""What a user should know while work goes on; the command line prints it on stderr."""

Progress = Callable[[int, int], None]
"""Called with (done, total) each time some is done; `done` never falls, and ends at `total`."""

Stages = Callable[[str], Progress]
"""Called with the name of a part of the work that begins now; gives what is told how far that part is."""


def unseen(done: int, total: int) -> None:
    """Nobody looks."""


def unnamed(name: str) -> Progress:
    """Nobody looks at any part."""
    return unseen
