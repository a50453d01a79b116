"""What the scripts of `experiments/` share: their settings, the units of their work, and the rows that are kept."""

from harness.results import Results
from harness.script import Experiment, Scaled, run_script

__all__ = ["Experiment", "Results", "Scaled", "run_script"]
