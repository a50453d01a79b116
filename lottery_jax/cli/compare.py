"""`lottery-jax compare`: run what is missing of a comparison and show all of it."""

import sys
from typing import TextIO

from rich.console import Console

from lottery_jax.cli.bars import bars
from lottery_jax.cli.extended import methods_of
from lottery_jax.cli.settings import Compare, command_line, learning_epochs
from lottery_jax.comparison.comparing import Comparison, Protocol
from lottery_jax.comparison.report import tables
from lottery_jax.storage.files import check_writable
from lottery_jax.tasks import load_task


def run_compare(command: Compare, results: TextIO) -> int:
    """Run what is missing, write the report, print the table or the records."""
    methods, known, options = methods_of(command)
    protocol = Protocol(
        methods,
        command.seeds,
        command.keeps,
        command.candidates,
        command.tolerance,
        learning_epochs(command),
        options,
    )
    check_writable(command.out)
    records = []
    with bars("loading the task") as shown:
        task = load_task(
            command.data,
            target=command.target,
            architecture=command.architecture,
            width=command.width,
            data_dir=command.data_dir,
            progress=shown.part,
        )
        comparison = Comparison(task, protocol, command.out, others=known, progress=shown.part)
        with comparison.held():
            for done, (method, seed) in enumerate(comparison.pairs):
                shown.whole(done, len(comparison.pairs), f"{method.label}, seed {seed}")
                found = comparison.run(method, seed)
                records += found
                for record in found if command.json else ():
                    print(record.to_json(), file=results, flush=True)
            path = comparison.report(records, command_line(command))
    console = Console(file=results)
    if not command.json:
        for table in tables(records, width=console.width):
            console.print(table)
            console.print()
    print(f"report: {path}", file=sys.stderr if command.json else results)
    return 0
