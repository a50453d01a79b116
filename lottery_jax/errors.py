"""The package's exceptions, safe text for the terminal, and suggestions for misspelt words."""

import contextlib
import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any


def printable(text: object) -> str:
    r"""Text in which nothing controls a terminal: new lines, control characters, bidi marks, surrogates are escaped.

    Every text that may come from a file passes here before a person sees it: in exceptions, on the terminal, in a page.

    >>> print(printable("weight\n\x1b[1mHOLDS\u202e\ud800"))
    weight\n\x1b[1mHOLDS\u202e\ud800
    """
    words = str(text)
    if words.isprintable():
        return words
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in words)


def quoted(text: str) -> str:
    r"""A name from a file: as it is if it is one plain word, else in quotes, so that it cannot pass as other text.

    >>> print(quoted("edge-popup-wide"), quoted("pensia. HOLDS for the target"))
    edge-popup-wide 'pensia. HOLDS for the target'
    """
    plain = text.isascii() and text.isprintable() and text and not set(text) & set(" '\"")
    return text if plain else repr(text)


def shown(value: object) -> str:
    """A value of untrusted JSON in about 40 characters, whatever its size and depth.

    >>> shown([1, "a"]), len(shown("a" * 1000)) < 50
    ("[1, 'a']", True)
    """
    text = reprlib.repr(value)
    return text if len(text) <= 40 else text[:40] + "..."


def listed_values(name: str, values: Any, example: str) -> tuple[Any, ...]:
    """The values of a list that a user gives; raises `InputError` for a single value or a text.

    >>> listed_values("keeps", 0.2, "[0.1, 0.5]")
    Traceback (most recent call last):
    lottery_jax.errors.InputError: keeps must be a list, got 0.2. Pass a list such as [0.1, 0.5].
    """
    if not isinstance(values, str | bytes | Mapping):
        with contextlib.suppress(TypeError):  # also of an array without axes
            return tuple(values)
    raise InputError(f"{name} must be a list, got {shown(values)}. Pass a list such as {example}.")


def listed_numbers(name: str, values: Any, example: str) -> tuple[float, ...]:
    """The numbers of a list that a user gives, as numbers of Python; raises `InputError`.

    >>> listed_numbers("keeps", [0.5, 1], "[0.1, 0.5]")
    (0.5, 1)
    """
    found = tuple(
        value.item() if getattr(value, "ndim", None) == 0 else value for value in listed_values(name, values, example)
    )
    for value in found:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{name} must be numbers, got {shown(value)}. Pass a list such as {example}.")
    return found


class InputError(ValueError):
    """Invalid input; the message, one line of printable text, says what to do (exit code 2)."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


class TicketError(Exception):
    """A file is not a valid ticket: foreign, truncated or changed (exit code 2, because no verdict was reached)."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


class ClusterError(Exception):
    """A scheduler or its workers were lost (exit code 3).

    >>> print(ClusterError("the scheduler is lost"))
    the scheduler is lost; finished units are kept, and the same command resumes
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; finished units are kept, and the same command resumes")


_MOST_CHOICES = 30  # in one sentence; a large network has thousands of tensors


def suggest(word: str, allowed: Iterable[str]) -> str:
    """A hint that names the nearest allowed word, or lists up to 30 of them.

    >>> suggest("mnits", ("digits", "mnist"))
    "did you mean 'mnist'?"
    >>> suggest("zebra", ("digits", "mnist"))
    "choose one of 'digits', 'mnist'"
    >>> suggest("zebra", [f"layer{number}" for number in range(1000)])[-13:]
    'or 970 others'
    """
    choices = list(allowed)
    nearest = difflib.get_close_matches(str(word).lower(), choices, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    listed = ", ".join(repr(choice) for choice in choices[:_MOST_CHOICES])
    others = len(choices) - _MOST_CHOICES
    return f"choose one of {listed}" + (f" or {others:,} others" if others > 0 else "")
