"""The command line: parse, run, and turn every refusal into one sentence and an exit code.

Exit codes: 0 done; 1 a ticket is invalid, or a weight is not within its tolerance; 2 an input was refused;
3 another process of a shared job is lost; 130 stopped by the user; 141 nobody reads the output any more.
"""

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, TextIO

import tyro

from lottery_jax.cluster import supervisor
from lottery_jax.errors import ClusterError, InputError, TicketError, suggest
from lottery_jax.storage.files import check_writable
from lottery_jax.findings import certified, show
from lottery_jax.settings import Approximate, Compare, Verify, command_line

Command = (
    Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Approximate, tyro.conf.subcommand("approximate")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; `arguments` default to the process's own."""
    command = tyro.cli(
        Command,  # type: ignore[arg-type]
        prog="lottery-jax",
        description="Strong lottery tickets: prune random networks into trained ones, and verify it.",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalRequiredArgs),
    )
    if not (isinstance(command, Approximate) and command.model and command.shared):
        sys.exit(run(command))
    if not supervisor.follow():
        sys.exit(supervisor.supervise(sys.argv[1:] if arguments is None else arguments))
    code = run(command)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # after a refusal, JAX would wait for the others in vain


def run(command: Compare | Approximate | Verify) -> int:
    """The exit code of a command; refusals go to stderr in one sentence, results to stdout."""
    results = sys.stdout
    try:
        # Libraries may print; stdout is for results alone.
        with contextlib.redirect_stdout(sys.stderr):
            match command:
                case Compare():
                    return compare(command, results)
                case Approximate():
                    return approximate(command, results)
                case Verify():
                    return verify(command, results)
    except InputError as error:
        return refuse(str(error), 2)
    except TicketError as error:
        return refuse(str(error), 1)
    except ClusterError as error:
        return refuse(str(error), 3)
    except BrokenPipeError:  # `| head` has seen enough; Python would complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), results.fileno())
        return 141
    except OSError as error:
        where = error.filename or "an output file"
        return refuse(f"{where}: {error.strerror or error}; free some space or choose another place", 2)
    except KeyboardInterrupt:
        return refuse("stopped; what is finished is kept, and the same command goes on from there", 130)


def refuse(sentence: str, code: int) -> int:
    """Say why a command ends, on stderr, and give its exit code."""
    print(f"lottery-jax: {sentence}", file=sys.stderr)
    return code


def compare(command: Compare, results: TextIO) -> int:
    """Run what is missing of a comparison and show all of it."""
    # Heavy imports wait until the arguments are known to parse.
    from rich.console import Console

    from lottery_jax.comparison import Comparison
    from lottery_jax.report import tables, write_report

    records = []
    with bars("loading the task") as (outer, inner):
        comparison = Comparison(command, progress=inner)
        pairs = comparison.pairs
        for done, (method, seed) in enumerate(pairs):
            outer(done, len(pairs), f"{method}, seed {seed}")
            found = comparison.run(method, seed)
            records += found
            if command.json:
                for record in found:
                    print(record.to_json(), file=results, flush=True)
    path = write_report(
        comparison.folder,
        records,
        title=f"Strong lottery tickets on {comparison.task.name}",
        configuration=comparison.configuration,
        command=command_line(command),
        lead=comparison.lead,
    )
    console = Console(file=results)
    if not command.json:
        for table in tables(records, width=console.width):
            console.print(table)
            console.print()
    print(f"report: {path}", file=sys.stderr if command.json else results)
    return 0


@contextlib.contextmanager
def bars(
    first: str = "solving",
) -> Iterator[tuple[Callable[[int, int, str], None], Callable[[int, int], None]]]:
    """Two progress bars on stderr: the whole work (done, total, what now), and the part at hand (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        whole = shown.add_task(first, total=None)
        part = shown.add_task("", visible=False)

        def outer(done: int, total: int, now: str) -> None:
            shown.update(whole, completed=done, total=total, description=now)
            shown.update(part, visible=False)

        def inner(done: int, total: int) -> None:
            shown.update(part, completed=done, total=total, visible=True)

        yield outer, inner


def approximate(command: Approximate, results: TextIO) -> int:
    """Build a ticket, write it, and say what the verifier and the test set find in the file."""
    if command.model is not None:
        from lottery_jax.model_command import approximate_model

        return approximate_model(command, results)
    from lottery_jax import constructions
    from lottery_jax.comparison import check_problem, measure
    from lottery_jax.constructions.approximate import choose_solver
    from lottery_jax.methods import check_budget, find_ticket
    from lottery_jax.sampler import seed_words
    from lottery_jax.tasks import load_task

    check_problem(command)
    construction = command.construction or "pensia"
    if construction not in constructions.CONSTRUCTIONS:
        nearest = suggest(construction, constructions.CONSTRUCTIONS)
        raise InputError(f"construction {construction!r} is unknown; {nearest}")
    if command.shared:
        raise InputError("only a --model is shared among processes; leave --distributed, --coordinator, --process out")
    if command.pattern is not None:
        raise InputError(f"--pattern {command.pattern!r} chooses tensors of a --model; name the model's file too")
    choose_solver(command.candidates, command.objective)
    check_budget(command)
    seed_words(command.seed)
    check_writable(command.out.parent)
    if command.out.is_dir():
        raise InputError(f"--out {str(command.out)!r} is a folder; name the ticket file to write inside it")
    task = load_task(command.data, target=command.target, data_dir=command.data_dir)
    start = time.perf_counter()
    with bars() as (_, inner):
        ticket = find_ticket(command, task, lambda done: inner(done, task.target.count))
    seconds = time.perf_counter() - start
    command.out.parent.mkdir(parents=True, exist_ok=True)
    ticket.save(command.out)
    measured = measure(command.out, task)
    found = certified(measured.certificate, measured.ticket_bytes)
    found |= {"task": task.name, "ticket": str(command.out), "seconds": seconds}
    found |= dataclasses.asdict(measured.metrics)
    return show(found, results, as_json=command.json)


def verify(command: Verify, results: TextIO) -> int:
    """Check a ticket file with nothing but its seed and its bits."""
    from lottery_jax.model_certificate import verify_file

    certificate = verify_file(command.ticket)
    found = certified(certificate, command.ticket.stat().st_size) | {"ticket": str(command.ticket)}
    return show(found, results, as_json=command.json)
