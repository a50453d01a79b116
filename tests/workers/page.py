"""The scripts and manifests of docs/clusters.md, as they stand there."""

import re
import sys
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()


def _blocks(first: str) -> list[str]:
    """Indented blocks whose first line begins so."""
    found = re.findall(rf"^    {re.escape(first)}(?:.*\n)(?:    .*\n|\n(?=    ))*", TEXT, re.MULTILINE)
    return ["".join(line.removeprefix("    ") for line in block.splitlines(keepends=True)).strip() for block in found]


def script(name: str) -> str:
    """The batch script with this job name."""
    (found,) = (each for each in _blocks("#!/bin/bash") if f"--job-name={name}\n" in each)
    return found


def commands() -> list[str]:
    """All commands of ours, each on one line."""
    text = re.sub(r" *\\\n\s+", " ", TEXT)
    return [line.split("#")[0].strip() for line in re.findall(r"^    (lottery-jax [a-z].*)$", text, re.MULTILINE)]


def python() -> list[str]:
    """Blocks of Python."""
    return re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def manifests() -> list[str]:
    """Documents of YAML."""
    return [part for block in _blocks("apiVersion:") for part in block.split("\n---\n")]


def here(text: str, folder: Path, **words: str) -> str:
    """A script with its paths, the size of its job and its program replaced by what is here; words: and these."""
    programs = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={Path(__file__).parents[2]}"
    changes = {
        "source /shared/venv/bin/activate": f"{programs}:$PYTHONPATH JAX_PLATFORMS=cpu",
        "lottery-jax ": "python -m lottery_jax ",
        "/shared": str(folder),
        "--nodes=4": "--nodes=2",
        "--ntasks-per-node=8": "--ntasks-per-node=1",
        "#SBATCH --gpus-per-task=1\n": "",
        "#SBATCH --gpus=1\n": "",
        "--cpus-per-task=8": "--cpus-per-task=1",
        "--time=04:00:00": "--time=00:10:00",
        **words,
    }
    for old, new in changes.items():
        text = text.replace(old, new)
    return text + "\n"
