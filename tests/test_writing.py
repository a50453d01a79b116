"""Wording that is checked by machine: in docstrings, messages, help texts, README and docs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [*sorted((ROOT / "lottery_jax").rglob("*.py")), *sorted((ROOT / "experiments").rglob("*.py"))]
SHORT = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "docs/commands.md", "docs/own_networks.md", "docs/clusters.md")
]
"""Pages whose sentences are short; those of the other pages are still to be cut."""
PAGES = [*SHORT, *sorted(set((ROOT / "docs").glob("*.md")) - set(SHORT))]

FORBIDDEN = {
    r", for (it|they|that|the|no)\b": "write 'because'",
    r"\bsome \d": "write 'about', or the number alone",
    r"\bbeside\b": "write 'next to' or 'compared with'",
    r"\bgoes on\b": "write 'resumes' or 'continues'",
    r"\bleft out\b": "write 'omitted'",
    r"\bdrawn again\b": "write 'redrawn'",
    r"\bis there\b": "write 'exists'",
}
"""Pattern -> what to write instead."""
MOST_WORDS = 30
"""In a sentence."""


def texts(source: str) -> list[tuple[int, str]]:
    """Line and text of every string of a module: docstrings, option help, messages, f-strings without their values."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            found.append((node.lineno, node.value))
        elif isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            found.append((node.lineno, "".join(parts)))
    return found


def prose(page: str) -> str:
    """A Markdown page without code, tables, headings, pictures and link targets."""
    page = re.sub(r"^```.*?^```", "\n", page, flags=re.MULTILINE | re.DOTALL)
    page = re.sub(r"^(    .*|\|.*|#.*|!\[.*)$", "\n", page, flags=re.MULTILINE)
    page = re.sub(r"\]\([^)]*\)", "]", page)
    return re.sub(r"`[^`]*`", "Code", page)


def sentences(page: str) -> list[str]:
    """The sentences of a page's prose; a paragraph, a list item and a colon before a list end one."""
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", prose(page))
    return [
        one.strip() for block in blocks for one in re.split(r"(?<=[.!?:;])\s+(?=[A-Z`*\[(])", " ".join(block.split()))
    ]


def faults(text: str) -> list[str]:
    return [
        f"{match.group(0)!r}: {advice}" for pattern, advice in FORBIDDEN.items() for match in re.finditer(pattern, text)
    ]


def test_docstrings_help_and_messages() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in CODE
        for line, text in texts(path.read_text(encoding="utf-8"))
        for fault in faults(" ".join(text.split()))
    ]
    assert found == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert faults(" ".join(prose(page).split())) == []
    assert path not in SHORT or [one for one in sentences(page) if len(one.split()) > MOST_WORDS] == []


def test_a_fault_is_seen() -> None:
    assert faults("It waits, for the lock is there goes on") and not faults("It waits because the lock exists")
    assert texts('f"some {1} is there"')[0][1] == "some {} is there"
    assert len(sentences("One. Two\nlines.\n\n    code\n- item")) == 3
