"""The errors a caller may meet, and the nearest allowed word for a misspelt one."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A value refused at the door; the message is one sentence that says what to do (exit code 2)."""


class TicketError(Exception):
    """A file that is no valid ticket: foreign, truncated or changed (exit code 1)."""


class ClusterError(Exception):
    """A process that shares the job is lost (exit code 3).

    >>> print(ClusterError("process 1 died"))
    process 1 died; what is finished is kept: start every process again with the same command
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; what is finished is kept: start every process again with the same command")


def suggest(word: str, allowed: Iterable[str]) -> str:
    """Name the nearest allowed word, or list them all.

    >>> suggest("mnits", ("digits", "mnist"))
    "did you mean 'mnist'?"
    >>> suggest("zebra", ("digits", "mnist"))
    "choose one of 'digits', 'mnist'"
    """
    choices = list(allowed)
    nearest = difflib.get_close_matches(str(word).lower(), choices, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return "choose one of " + ", ".join(repr(choice) for choice in choices)
