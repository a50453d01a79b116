"""What is said on stderr, by a process that may be one of many."""

import sys

_who = ""


def speak_as(who: str) -> None:
    """Put a name before each sentence from here on.

    >>> speak_as("process 1 on n1")
    >>> spoken("stopped")
    'lottery-jax: process 1 on n1: stopped'
    >>> speak_as("")
    >>> spoken("stopped")
    'lottery-jax: stopped'
    """
    global _who
    _who = who


def spoken(sentence: str) -> str:
    """A sentence with the names of program and process before it, unless it has that itself."""
    named = f"{_who}: " if _who and not sentence.startswith("process ") else ""
    return f"lottery-jax: {named}{sentence}"


def say(sentence: str) -> None:
    """Print a sentence on stderr."""
    print(spoken(sentence), file=sys.stderr, flush=True)
