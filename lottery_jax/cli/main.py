"""The command line: parse, run, and turn every refusal into one sentence and an exit code.

Exit codes: 0 done; 1 a ticket is invalid or broken; 2 an input was refused; 3 a scheduler or its workers are
lost; 4 a ticket has no guarantee; 130 stopped by Ctrl-C, 143 by SIGTERM; 141 the reader closed the output.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from lottery_jax.cli.messages import (
    EXIT_CODE,
    handle_interrupts,
    interrupt_message,
    print_message,
    wait_if_interrupted,
)
from lottery_jax.errors import ClusterError, InputError, TicketError

if TYPE_CHECKING:
    from lottery_jax.cli.settings import Approximate, Compare, Export, JobStatus, Theory, Verify

    Command = Compare | Approximate | Verify | Export | JobStatus | Theory

_FUNCTIONS = {
    "Compare": ("compare", "run_compare"),
    "Approximate": ("approximate", "run_approximate"),
    "Verify": ("verify", "run_verify"),
    "Export": ("verify", "run_export"),
    "JobStatus": ("status", "run_status"),
    "Theory": ("theory", "run_theory"),
}
"""The module and function of each command's settings."""

_DESCRIPTION = """Strong lottery tickets: prune random networks into trained ones, and verify it.

Compiled programs, data and trained targets are cached in ~/.cache/lottery_jax, or in the folder LOTTERY_JAX_CACHE.
Guarantees, uses and costs of the methods: docs/methods.md. Versions: lottery-jax --version."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; `arguments` default to the process's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        handle_interrupts()
    try:
        code = _versions() if words == ["--version"] else run(parse(words))
    except InputError as error:
        code = refuse(str(error), 2)
    except BrokenPipeError:
        code = _output_closed()
    if arguments is not None:
        sys.exit(code)
    wait_if_interrupted()
    sys.stdout.flush()
    sys.stderr.flush()
    # JAX would take long to shut down.
    os._exit(code)


def parse(words: list[str]) -> "Command":
    """The command of these words; options of methods are imported only for the commands that have them."""
    import tyro

    from lottery_jax.cli.settings import Approximate, Compare, Export, JobStatus, Theory, Verify

    kinds: dict[str, Any] = {
        "compare": Compare,
        "approximate": Approximate,
        "verify": Verify,
        "export": Export,
        "status": JobStatus,
        "theory": Theory,
    }
    if words and words[0] in ("compare", "approximate"):
        from lottery_jax.cli.options import extended, refuse_renamed
        from lottery_jax.cli.worker_options import refuse_old_options

        refuse_old_options(words)
        refuse_renamed(words)
        kinds[words[0]] = extended(kinds[words[0]], words)
    union: Any = None
    for name, kind in kinds.items():
        part = Annotated[kind, tyro.conf.subcommand(name)]
        union = part if union is None else union | part
    try:
        return tyro.cli(
            union,
            prog="lottery-jax",
            description=_DESCRIPTION,
            args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    finally:
        sys.stdout.flush()  # the help, while a closed output can still be handled


def run(command: "Command") -> int:
    """The exit code of a command; refusals go to stderr in one sentence, results to stdout."""
    results = sys.stdout
    try:
        # Libraries may print; stdout is for results alone.
        with contextlib.redirect_stdout(sys.stderr):
            code = _action(command)(command, results)
        results.flush()
        return code
    except InputError as error:
        return refuse(str(error), 2)
    except TicketError as error:
        return refuse(str(error), 1)
    except ClusterError as error:
        return refuse(str(error), 3)
    except BrokenPipeError:
        return _output_closed()
    except OSError as error:
        where = error.filename or "an output file"
        return refuse(f"{where}: {error.strerror or error}; free some space or choose another folder", 2)
    except KeyboardInterrupt as stopped:  # only if another program called `main`
        return refuse(stopped.args[0] if stopped.args else interrupt_message(), EXIT_CODE)


def _action(command: "Command") -> Callable[[Any, TextIO], int]:
    """The function of a command; heavy imports wait until the arguments have been parsed."""
    from lottery_jax.io.cache import enable_compile_cache

    enable_compile_cache()
    module, function = _FUNCTIONS[type(command).__name__]
    return getattr(importlib.import_module(f"lottery_jax.cli.{module}"), function)


def _versions() -> int:
    from lottery_jax import environment

    print(", ".join(f"{name} {version}" for name, version in environment.versions().items()))
    return 0


def _output_closed() -> int:
    """The reader closed the output, as `| head` does; without this, Python would fail when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def refuse(sentence: str, code: int) -> int:
    """Print why a command ends on stderr; returns its exit code."""
    wait_if_interrupted()
    print_message(sentence)
    return code
