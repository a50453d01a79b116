"""Functions and files of the package that one call enters, and calls from one folder to another.

Command: python benchmarks/count_functions.py [--json OUT]
Cost: a minute on two CPU cores. Each case runs in a process of its own and nothing is warmed up, so caches within the
process are empty. The data and the trained target are loaded before the count begins.

Counted are distinct code objects of the package that are entered in any thread, as `sys.setprofile` reports them:
functions, methods, lambdas, generators, and comprehensions where the Python version makes them functions (before
3.12). The code of modules and of class bodies is not counted, and neither are methods that `dataclasses` generates. A
folder is the first part of a file's path inside the package; a file at the top stands for itself. The caller of a
function is the nearest one on the stack that belongs to the package.
"""

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import flax
import jax
import numpy as np

import lottery_jax

PACKAGE = Path(lottery_jax.__file__).parent
_BEGINNING = f"{PACKAGE}/"


class Counter:
    """The profile function of all threads, and what it has seen."""

    def __init__(self) -> None:
        # By identity: equal functions of two files may be equal code objects.
        self.functions: dict[int, CodeType] = {}
        self.crossings: dict[tuple[int, int], tuple[str, str]] = {}
        self.transitions = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not _counts(code):
            return
        self.functions[id(code)] = code
        caller = frame.f_back
        while caller is not None and not _counts(caller.f_code):
            caller = caller.f_back
        if caller is not None and folder(caller.f_code) != folder(code):
            self.transitions += 1
            self.crossings[id(caller.f_code), id(code)] = folder(caller.f_code), folder(code)

    def row(self) -> dict[str, int]:
        """The counts by name."""
        return {
            "functions": len(self.functions),
            "files": len({code.co_filename for code in self.functions.values()}),
            "folders": len(set(map(folder, self.functions.values()))),
            "folder_pairs": len(set(self.crossings.values())),
            "crossings": len(self.crossings),
            "transitions": self.transitions,
        }


MEANINGS = {
    "functions": "functions entered",
    "files": "files entered",
    "folders": "folders entered",
    "folder_pairs": "pairs of folders, one calling the other",
    "crossings": "pairs of functions that call across folders",
    "transitions": "calls across folders",
}


def _counts(code: CodeType) -> bool:
    """Whether it is a function of the package: modules and class bodies are not optimised code."""
    return code.co_filename.startswith(_BEGINNING) and bool(code.co_flags & inspect.CO_OPTIMIZED)


def folder(code: CodeType) -> str:
    """The first part of a code's path inside the package."""
    return code.co_filename.removeprefix(_BEGINNING).split("/")[0]


def approximate(out: str) -> Callable[[], Any]:
    """The default ticket for the default target of the digits."""
    call, target = lottery_jax.approximate, lottery_jax.load_task("digits").target
    return lambda: call(target, seed=0)


def compare(out: str) -> Callable[[], Any]:
    """Edge-popup on the digits: one seed, one kept fraction, one epoch."""
    call, task = lottery_jax.compare, lottery_jax.load_task("digits")
    return lambda: call(task, ["edge-popup-wide"], seeds=(0,), keeps=(0.1,), epochs=1, out=out)


CASES = {"approximate(target, seed=0)": approximate, "compare, edge-popup": compare}


def counted(case: str) -> dict[str, int]:
    """The counts of a case, in this process."""
    with tempfile.TemporaryDirectory() as out:
        call, counter = CASES[case](out), Counter()
        threading.setprofile(counter)
        sys.setprofile(counter)
        try:
            call()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
    return counter.row()


def commit() -> str:
    """The commit of the code that was counted."""
    words = ["git", "-C", str(PACKAGE), "rev-parse", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def versions() -> dict[str, str]:
    return {
        "python": sys.version.split()[0],
        "jax": jax.__version__,
        "flax": flax.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the functions and files of the package that a call enters.")
    parser.add_argument("--json", type=Path, metavar="OUT", help="a file for the counts")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(counted(arguments.case)))
        return
    rows = {}
    for case in CASES:
        command = [sys.executable, __file__, "--case", case]
        rows[case] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    print(" " * 46 + "".join(f"{case:>30}" for case in rows))
    for name, meaning in MEANINGS.items():
        print(f"{meaning:46}" + "".join(f"{row[name]:>30,}" for row in rows.values()))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"commit": commit(), "versions": versions(), "counts": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
