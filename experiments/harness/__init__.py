"""Shared by the scripts of `experiments/`: settings, units of work, and rows."""

from harness.results import Results
from harness.script import Experiment, Scaled, run_script

__all__ = ["Experiment", "Results", "Scaled", "run_script"]
