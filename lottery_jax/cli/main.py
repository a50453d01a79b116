"""The command line: parse, run, and turn every refusal into one sentence and an exit code.

Exit codes: 0 done; 1 a ticket is broken, which is always a verdict; 2 an input was refused; 3 a scheduler or its
workers are lost; 4 a ticket has no guarantee; 70 an error of this program (sysexits' EX_SOFTWARE); 130 stopped by
Ctrl-C, 143 by SIGTERM; 141 the reader closed the output.
"""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from lottery_jax.cli.messages import (
    EXIT_CODE,
    handle_interrupts,
    interrupt_message,
    print_message,
    wait_if_interrupted,
)
from lottery_jax.errors import ClusterError, InputError, TicketError, printable

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

PROGRAM_ERROR = 70
"""Exit code of an error of this program: EX_SOFTWARE of sysexits.h."""

_TRACEBACK = "LOTTERY_JAX_TRACEBACK"
_SHOWN_CHARACTERS = 300  # of an exception, whose text may hold a whole program

_DESCRIPTION = """Strong lottery tickets: prune random networks into trained ones, and verify it.

Compiled programs, data and trained targets are cached in ~/.cache/lottery_jax, or in the folder LOTTERY_JAX_CACHE.
Guarantees, uses and costs of the methods: docs/methods.md. Versions: lottery-jax --version."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; `arguments` default to the process's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        _open_closed_streams()
        handle_interrupts()
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _versions() if words == ["--version"] else run(parse(words))
        sys.stdout.flush()
    except Exception as error:
        code = _exit_code(error)
    if arguments is not None:
        sys.exit(code)
    wait_if_interrupted()
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
    except Exception as error:
        return _exit_code(error)
    except KeyboardInterrupt as stopped:  # only if another program called `main`
        return refuse(stopped.args[0] if stopped.args else interrupt_message(), EXIT_CODE)


def _exit_code(error: Exception) -> int:
    """Report in one sentence why a command ends; returns its exit code, which is never that of a broken ticket."""
    match error:
        case InputError() | TicketError():
            return refuse(str(error), 2)
        case ClusterError():
            return refuse(str(error), 3)
        case BrokenPipeError():
            return _output_closed()
        case OSError():
            where = error.filename or "an output file"
            return refuse(f"{where}: {error.strerror or error}; free some space or choose another folder", 2)
        case MemoryError():
            return refuse("the memory of this machine is too small for it; use another machine, or a smaller input", 2)
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms and not _has_device():
        return refuse(
            f"JAX_PLATFORMS must name platforms with a device, got {platforms!r}. Unset it, or install JAX for them.", 2
        )
    return _program_error(error)


def _has_device() -> bool:
    import jax

    try:
        return bool(jax.devices())
    except Exception:  # AssertionError or RuntimeError, depending on the platform
        return False


def _action(command: "Command") -> Callable[[Any, TextIO], int]:
    """The function of a command; heavy imports wait until the arguments have been parsed."""
    import jax

    from lottery_jax.io.cache import enable_compile_cache

    enable_compile_cache()
    jax.config.update("jax_numpy_rank_promotion", "allow")  # the environment may refuse it in all programs
    module, function = _FUNCTIONS[type(command).__name__]
    return getattr(importlib.import_module(f"lottery_jax.cli.{module}"), function)


def _versions() -> int:
    from lottery_jax import environment

    print(", ".join(f"{name} {version}" for name, version in environment.versions().items()))
    return 0


def _program_error(error: Exception) -> int:
    """Report an exception that no refusal foresaw, in one sentence; its traceback if the environment asks for it."""
    if os.environ.get(_TRACEBACK):
        for line in "".join(traceback.format_exception(error)).splitlines():
            print(printable(line), file=sys.stderr)
    what = f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]
    return refuse(
        f"an error of this program, not a verdict ({what}); set {_TRACEBACK}=1 for its traceback, and please report it",
        PROGRAM_ERROR,
    )


def _open_closed_streams() -> None:
    """Open the null device for closed standard streams, because a file that takes their number would get their text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            # Python has None for a stream that was closed when it started.
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _output_closed() -> int:
    """The reader closed the output, as `| head` does; without this, Python would fail when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def refuse(sentence: str, code: int) -> int:
    """Print why a command ends on stderr; returns its exit code."""
    wait_if_interrupted()
    print_message(sentence)
    return code
