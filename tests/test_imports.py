"""The arrows between rooms go one way, as CONTRIBUTING.md's table says; one name is one thing; importing is instant."""

import ast
import collections
import importlib
import os
import re
import statistics
import subprocess
import sys
import types
from pathlib import Path

import pytest

import lottery_jax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lottery_jax"
SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
ALWAYS = {"numpy", "ml_dtypes", *sys.stdlib_module_names}  # ml_dtypes: NumPy's bfloat16


def table() -> tuple[dict[str, int], list[tuple[set[str], set[str] | None]]]:
    """The row of each module, and of each row the modules and the outside packages it may import (None: any)."""
    rows = re.findall(r"^\| (.+?) \| .+? \| (.+?) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    row_of: dict[str, int] = {}
    allowed: list[tuple[set[str], set[str] | None]] = []
    for names, imports in rows[1:]:
        own = set(re.findall(r"`(\w+)", names))
        words = set(re.findall(r"\w+", imports))
        known = set(row_of) if words & {"above", "package"} else words & set(row_of)
        limited = "jax" in words
        row_of |= dict.fromkeys(own, len(allowed))
        allowed.append((own | known, words if limited else None))
    return row_of, allowed


ROW_OF, ALLOWED = table()
ROW_OF["__main__"] = ROW_OF["__init__"]
LEAVES = ALLOWED[0][0]


def imported_modules(tree: ast.Module, parts: tuple[str, ...]) -> list[tuple[int, str]]:
    """Line and absolute dotted name of everything that the module of this path imports, inside functions too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            named = [f"{stem}.{alias.name}" for alias in node.names]  # `from lottery_jax import data` names the room
            found += [(node.lineno, name) for name in (named if stem == "lottery_jax" else [stem])]
    return found


def broken_arrows(tree: ast.Module, path: Path) -> list[str]:
    """One sentence per import that the table does not allow; `path` is relative to the folder of the package."""
    parts = path.with_suffix("").parts
    if parts[1] not in ROW_OF:
        return [f"{path}: no row of CONTRIBUTING.md's table has it"]
    modules, outside = ALLOWED[ROW_OF[parts[1]]]
    broken = []
    for line, name in imported_modules(tree, parts):
        top, *rest = name.split(".")
        if top == "lottery_jax":
            wrong = bool(rest) and rest[0] not in modules | LEAVES
        else:
            wrong = outside is not None and top not in outside | ALWAYS
            wrong |= top == "numba" and "kernels" not in parts
        if wrong:
            broken.append(f"{path}:{line}: {parts[1]} may not import {name}")
    return broken


def test_the_table_is_read() -> None:
    assert {"errors", "rng", "io"} <= LEAVES and "networks" not in LEAVES
    assert "tasks" not in ALLOWED[ROW_OF["pruning"]][0] and "training" in ALLOWED[ROW_OF["pruning"]][0]
    assert "mask_learning" not in ALLOWED[ROW_OF["pruning"]][0]
    assert ALLOWED[ROW_OF["subset_sum"]][0] == {"subset_sum"} and ALLOWED[ROW_OF["cli"]][0] >= {"comparison", "data"}


def test_arrows_go_one_way() -> None:
    assert [one for path, tree in SOURCES.items() for one in broken_arrows(tree, path.relative_to(ROOT))] == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("subset_sum/bad.py", "import flax"),
        ("subset_sum/solvers/bad.py", "import numba"),
        ("subset_sum/bad.py", "from lottery_jax.tickets.ticket import Ticket"),
        ("networks/bad.py", "from lottery_jax import data"),
        ("mask_learning/bad.py", "def f():\n    from ..constructions import pensia"),
        ("tickets/bad.py", "from ..cli import main"),
        ("io/bad.py", "import optax"),
        ("training/bad.py", "from lottery_jax.workers.units import Unit"),
        ("attic.py", ""),
    ],
)
def test_a_wrong_arrow_is_seen(file: str, source: str) -> None:
    assert len(broken_arrows(ast.parse(source), Path("lottery_jax") / file)) == 1


def test_nothing_uses_what_jax_keeps_private_and_one_file_imports_dask() -> None:
    assert not [path for path in SOURCES if "jax._src" in path.read_text()]
    names = {
        path.name: {name.split(".")[0] for _, name in imported_modules(tree, path.parts)}
        for path, tree in SOURCES.items()
    }
    assert [name for name, tops in names.items() if tops & {"dask", "distributed"}] == ["dask_cluster.py"]


def imported_files(path: Path, tree: ast.Module) -> set[Path]:
    """The files of the package that a file imports, those under TYPE_CHECKING and inside functions included."""
    files = set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lottery_jax"):
            continue
        base = ROOT.joinpath(*str(node.module).split("."))
        for alias in node.names:
            names = (
                base / f"{alias.name}.py",
                base / alias.name / "__init__.py",
                base.with_suffix(".py"),
                base / "__init__.py",
            )
            files.add(next(name for name in names if name in SOURCES))
    return files - {path}


def circles(graph: dict[Path, set[Path]]) -> set[Path]:
    """The files on some circle of imports: those that remain when files without open imports are taken away."""
    graph = {path: set(imports) for path, imports in graph.items()}
    while True:
        ends = {path for path, imports in graph.items() if not imports & graph.keys()}
        if not ends:
            used = set().union(*(imports & graph.keys() for imports in graph.values()))
            if used == graph.keys():
                return used
            ends = graph.keys() - used
        graph = {path: imports for path, imports in graph.items() if path not in ends}


def test_no_two_files_import_each_other() -> None:
    graph = {path: imported_files(path, tree) for path, tree in SOURCES.items()}
    graph[PACKAGE / "__init__.py"] = set()  # loads everything when it is first used
    assert sorted(circles(graph)) == []
    one, two, three = (Path(name) for name in ("one", "two", "three"))
    assert circles({one: {two}, two: {one}, three: {one}}) == {one, two}


SHARED_STEMS = {"__init__", "__main__", "registry", "base", "api"}


def test_no_two_files_share_a_name() -> None:
    """A command in `cli/` is named after what it calls."""
    files = [path for path in SOURCES if path.parent.name != "cli" and path.stem not in SHARED_STEMS]
    repeated = [stem for stem, count in collections.Counter(path.stem for path in files).items() if count > 1]
    assert repeated == []


def defined(tree: ast.Module) -> list[str]:
    """Public names of a module: its classes, functions and constants."""
    names = []
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def test_one_name_is_one_thing() -> None:
    homes = collections.defaultdict(list)
    for path, tree in SOURCES.items():
        for name in dict.fromkeys(defined(tree)):
            homes[name].append(str(path.relative_to(PACKAGE)))
    twice = {name: paths for name, paths in homes.items() if len(paths) > 1}
    assert twice == {}


def test_every_name_of_the_front_door_is_there() -> None:
    for name in lottery_jax.__all__:
        found = getattr(lottery_jax, name)
        assert found.__name__.rpartition(".")[2] == name
        for inner in getattr(found, "__all__", ()):
            assert hasattr(found, inner), f"{name}.{inner}"
    assert set(lottery_jax.__all__) <= set(dir(lottery_jax))
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        importlib.import_module("lottery_jax").prune  # noqa: B018


def test_every_room_says_what_is_public() -> None:
    for room in lottery_jax._PACKAGES:
        names = getattr(getattr(lottery_jax, room), "__all__", ())
        assert names, f"{room} exports nothing"
        found = {name: getattr(getattr(lottery_jax, room), name) for name in names}
        assert [name for name, value in found.items() if isinstance(value, types.ModuleType)] == [], room
    assert lottery_jax.mask_learning.EdgePopup.name == "edge-popup"


@pytest.mark.clock
def test_importing_the_package_is_instant() -> None:
    program = "import sys, time; start = time.perf_counter(); import lottery_jax; end = time.perf_counter()\n"
    program += "print(end - start, 'jax' in sys.modules, 'numpy' in sys.modules)"
    # PYTHONPATH, so that the copy beside these tests is the one measured, installed or not.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    runs = [subprocess.check_output(command, env=environment, text=True).split() for _ in range(3)]
    assert statistics.median(float(seconds) for seconds, *_ in runs) < 0.1
    assert {tuple(loaded) for _, *loaded in runs} == {("False", "False")}
