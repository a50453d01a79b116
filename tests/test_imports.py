"""The arrows between rooms go one way, as in the table of CONTRIBUTING.md; importing the package is cheap."""

import ast
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lottery_jax"

# A row of the table: the modules of one room, the rooms it may import, the outside packages where limited.
LEAVES = {"cluster", "errors", "files", "sampler", "sealed", "tensor_file"}
ROOMS: dict[str, tuple[set[str], set[str], set[str] | None]] = {
    "leaves": (LEAVES, set(), {"jax", "numpy", "ml_dtypes"}),
    "subset_sum": ({"subset_sum"}, set(), {"jax", "numpy", "numba"}),
    "networks": ({"networks"}, set(), {"jax", "flax", "numpy"}),
    "ticket": ({"ticket", "certificate", "model_certificate"}, {"networks"}, None),
    "machinery": ({"training", "data", "evaluation", "tasks"}, {"networks"}, None),
    "constructions": ({"constructions"}, {"subset_sum", "networks", "ticket"}, None),
    "learned": ({"learned"}, {"networks", "ticket", "machinery"}, None),
    "trained": ({"trained"}, {"networks", "ticket", "machinery"}, None),
    "meeting": (
        {
            "comparison",
            "methods",
            "settings",
            "environment",
            "records",
            "report",
            "cli",
            "supervisor",
            "findings",
            "model_command",
            "__main__",
            "__init__",
        },
        {"subset_sum", "networks", "ticket", "machinery", "constructions", "learned", "trained"},
        None,
    ),
}
ROOM_OF = {module: room for room, (modules, _, _) in ROOMS.items() for module in modules}


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """Line and absolute dotted name of everything that a file imports, inside functions too."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            if stem == "lottery_jax":  # `from lottery_jax import data` names the room in the alias
                found += [(node.lineno, f"{stem}.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, stem))
    return found


def broken_arrows(path: Path) -> list[str]:
    """One sentence per import that the table does not allow."""
    relative = path.relative_to(PACKAGE)
    module = relative.parts[0].removesuffix(".py")
    if module not in ROOM_OF:
        return [f"{relative}: no room of the table holds it; add it to ROOMS and to CONTRIBUTING.md"]
    room = ROOM_OF[module]
    _, may_import, outside = ROOMS[room]
    broken = []
    for line, name in imported_modules(path):
        top, *rest = name.split(".")
        if top == "lottery_jax":
            other = ROOM_OF.get(rest[0]) if rest else "leaves"  # the bare package: its version
            if other not in {room, "leaves", *may_import} and not (rest and rest[0].startswith("__")):
                broken.append(f"{relative}:{line}: {room} may not import {name}")
        elif outside is not None and top not in outside and top not in sys.stdlib_module_names:
            broken.append(f"{relative}:{line}: {room} may not import {name}")
    return broken


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE).with_suffix(""))
)
def test_arrows_go_one_way(path: Path) -> None:
    assert broken_arrows(path) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("subset_sum/bad.py", "import flax"),
        ("subset_sum/bad.py", "from lottery_jax.ticket import Ticket"),
        ("networks/bad.py", "from lottery_jax import data"),
        ("learned/bad.py", "def f():\n    from ..constructions import pensia"),
        ("ticket.py", "from .cli import main"),
        ("attic.py", ""),
    ],
)
def test_a_wrong_arrow_is_seen(file: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lottery_jax"
    path = package / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    assert len(broken_arrows(path)) == 1


def test_importing_the_package_is_cheap() -> None:
    # Timed inside one process, after jax and flax: the difference of two processes is noisier than the bound.
    program = (
        "import jax, flax.nnx, time; start = time.perf_counter(); import lottery_jax;print(time.perf_counter() - start)"
    )
    # PYTHONPATH, so that the copy beside these tests is the one measured, installed or not.
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "JAX_PLATFORMS": "cpu"}
    runs = [
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
        for _ in range(3)
    ]
    assert statistics.median(float(run.stdout) for run in runs) <= 0.5
