"""Every notebook runs from top to bottom, as a reader would run it."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

SHOWN = {
    "one_weight_to_whole_network": (3, "4,736 of 4,736 target weights within 0.01"),
    "learned_versus_provable": (2, "iterative-magnitude, keep 0.05"),
    "theorems_side_by_side": (2, "otsuka: holds"),
    "phase_diagrams": (2, "no fewer than 54 hidden units"),
    "smaller_tickets": (1, "fewest first: loss-aware, from a sparse target < loss-aware < budget"),
}
"""Pictures, and words that are printed."""
SLOW = ("learned_versus_provable", "theorems_side_by_side", "phase_diagrams", "smaller_tickets")
NOTEBOOKS = sorted(Path(__file__).parent.parent.glob("notebooks/*.ipynb"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside the kernel client, not by the notebook
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in SLOW else ()) for path in NOTEBOOKS],
)
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    printed = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ()))
    expected, words = SHOWN[path.stem]
    assert len(pictures) == expected and words in printed
    (seconds,) = re.findall(r"this notebook took (\d+) s", printed)
    said = sum(int(number) for number in re.findall(r"about (\d+)", notebook.cells[0]["source"]))
    assert int(seconds) < 4 * said, "it takes longer than it says"
