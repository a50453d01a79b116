"""The package's exceptions, and suggestions for misspelt words."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Invalid input; the message says what to do (exit code 2)."""


class TicketError(Exception):
    """A file is not a valid ticket: foreign, truncated or changed (exit code 1)."""


class ClusterError(Exception):
    """A scheduler or its workers were lost (exit code 3).

    >>> print(ClusterError("the scheduler is lost"))
    the scheduler is lost; finished units are kept, and the same command resumes
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; finished units are kept, and the same command resumes")


def suggest(word: str, allowed: Iterable[str]) -> str:
    """A hint that names the nearest allowed word, or lists all of them.

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
