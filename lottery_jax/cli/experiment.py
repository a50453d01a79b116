"""What the scripts of `experiments/` share: settings from the command line, a part of the whole, rows that are kept."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console

from lottery_jax import environment
from lottery_jax.errors import InputError
from lottery_jax.storage.files import check_writable, write_atomically


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Settings of an experiment that may be run in part.

    >>> Scaled(scale=0.1).part(55), Scaled(scale=0.01).part(5)
    (6, 1)
    """

    scale: float = 1.0
    """Part of the published epochs, seeds and rounds, at least one of each."""
    data_dir: Path | None = None
    """Folder with prepared TensorFlow Datasets."""
    out: Path | None = None
    """JSON lines, one for each result; replaced. The script's own name in this folder if left out."""

    def check(self) -> None:
        """Refuse a scale that is no part; raises `InputError`."""
        if not 0 < self.scale <= 1:
            raise InputError(f"scale is {self.scale}; give a part of the published run, in (0, 1]")

    def part(self, whole: int) -> int:
        """So many epochs, seeds or rounds of the whole."""
        return max(1, round(whole * self.scale))


class Results(list[dict[str, Any]]):
    """Results, written whole to a file each time one more is there, with the device and versions that made it."""

    def __init__(self, path: Path) -> None:
        check_writable(path.parent)
        self.path = path

    def keep(self, **row: Any) -> None:
        """One more result."""
        self.append({**row, "device": environment.device(), "versions": environment.versions()})
        write_atomically(self.path, "".join(json.dumps(one) + "\n" for one in self).encode())


Settings = TypeVar("Settings", bound=Scaled)


def run_script(
    kind: type[Settings], run: Callable[[Settings, Results, Console], None], show: Callable[[Results, Console], None]
) -> None:
    """A script: its settings from the command line, what it finds, and a table of it."""
    script = Path(sys.argv[0])
    try:
        settings = tyro.cli(kind, description=run.__globals__["__doc__"])
        settings.check()
        rows = Results(settings.out or Path(f"{script.stem}.jsonl"))
        run(settings, rows, Console(stderr=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    show(rows, Console())
    print(f"written to {rows.path}")
