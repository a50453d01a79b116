"""`lottery-jax approximate --model`: a safetensors file of any size to a ticket, told as it goes."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from lottery_jax.cluster import Cluster, join
from lottery_jax.errors import InputError
from lottery_jax.files import check_writable
from lottery_jax.findings import certified, show
from lottery_jax.settings import Approximate

Step = Callable[[int, bool], None]


def approximate_model(command: Approximate, results: TextIO) -> int:
    """Plan, solve what is missing, merge, and say what the verifier finds in the file."""
    from lottery_jax.constructions import model
    from lottery_jax.model_certificate import verify_file

    assert command.model is not None
    _check(command)
    check_writable(command.out.parent)
    cluster = _cluster(command)
    with bar("reading the model") as begin:
        job = model.plan_job(
            command.model,
            seed=command.seed,
            construction=command.construction or "scalar",
            candidates=command.candidates,
            tolerance=command.tolerance,
            objective=command.objective,
            pattern=command.pattern,
        )
        share = sum(map(job.chunk_size, job.chunks[cluster.process :: cluster.processes]))
        start = time.perf_counter()
        finished = model.run_job(job, command.out, progress=begin("solving", share), cluster=cluster)
        seconds = time.perf_counter() - start
        cluster.leave()
        if cluster.process:
            print(f"lottery-jax: process {cluster.process} of {cluster.processes} is done", file=sys.stderr)
            return 0
        step = begin("verifying", job.weights)
        certificate = verify_file(command.out, progress=lambda weights: step(weights, True))
    for damaged in finished.damaged:
        print(f"lottery-jax: {damaged}; this chunk was solved again", file=sys.stderr)
    if not command.json:
        for name, reason in job.skipped.items():
            print(f"skipped {name}: {reason}", file=results)
    found = certified(certificate, command.out.stat().st_size)
    found |= {"model": str(command.model), "ticket": str(command.out), "seconds": seconds}
    found |= {"solved_weights": finished.solved, "found_weights": finished.found, "skipped": dict(job.skipped)}
    return show(found, results, as_json=command.json)


def _cluster(command: Approximate) -> Cluster:
    """The processes that share the work; found before JAX is used, as its runtime wants it."""
    if not command.shared:
        return Cluster()
    return join(command.coordinator, processes=command.processes, process=command.process, patience=command.patience)


def _check(command: Approximate) -> None:
    for option, given in (("--target", command.target), ("--data-dir", command.data_dir)):
        if given is not None:
            raise InputError(f"{option} {str(given)!r} is for a network with a test set; leave it or --model out")
    if command.kept is not None or command.importance != "uniform":
        raise InputError("--kept and --importance are for a network with data; leave them or --model out")
    if command.data != "digits":
        raise InputError(f"--data {command.data!r} does not go with a model's file; leave it or --model out")
    if command.out.is_dir():
        raise InputError(f"--out {str(command.out)!r} is a folder; name the ticket file to write inside it")


@contextlib.contextmanager
def bar(first: str) -> Iterator[Callable[[str, int], Step]]:
    """One progress bar on stderr; what it yields begins a part of the work (name, weights) and gives its step.

    A step says how many weights are done, and whether by work: those found done do not count in the speed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("weights {task.fields[speed]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(first, total=None, speed="")

        def begin(name: str, total: int) -> Step:
            shown.reset(task, total=total, description=name, speed="")
            start, worked, done = time.perf_counter(), 0, 0

            def step(weights: int, work: bool) -> None:
                nonlocal worked, done, start
                done += weights
                if work:
                    worked += weights
                else:
                    start = time.perf_counter()
                spent = time.perf_counter() - start
                shown.update(task, completed=done, speed=speed(worked, total - done, spent))

            return step

        yield begin


def speed(worked: int, left: int, seconds: float) -> str:
    """Weights per second and the time left, in words.

    >>> speed(1_000_000, 3_000_000, 2.0)
    '500,000/s, 0:00:06 left'
    >>> speed(0, 10, 0.0)
    ''
    """
    if worked == 0 or seconds <= 0:
        return ""
    remaining = round(left * seconds / worked)
    hours, minutes = divmod(remaining // 60, 60)
    return f"{worked / seconds:,.0f}/s, {hours}:{minutes:02d}:{remaining % 60:02d} left"
