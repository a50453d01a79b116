"""Messages on stderr, with the name of the process if it is one of several."""

import sys

_process_name = ""


def set_process_name(name: str) -> None:
    """Put a name before each message from now on.

    >>> set_process_name("process 1 on n1")
    >>> named_message("stopped")
    'lottery-jax: process 1 on n1: stopped'
    >>> set_process_name("")
    >>> named_message("stopped")
    'lottery-jax: stopped'
    """
    global _process_name
    _process_name = name


def named_message(sentence: str) -> str:
    """A sentence after the names of program and process, unless it begins with a process itself."""
    named = f"{_process_name}: " if _process_name and not sentence.startswith("process ") else ""
    return f"lottery-jax: {named}{sentence}"


def print_message(sentence: str) -> None:
    """Print a sentence on stderr."""
    print(named_message(sentence), file=sys.stderr, flush=True)
