"""Time to start: importing the package, and `make demo` once everything is installed.

Command: python benchmarks/bench_startup.py
Cost: about two minutes on two CPU cores. Goals there: `import lottery_jax` at most 0.5 s beyond importing jax and
flax, the demo at most 120 s with an empty cache and no earlier results.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lottery_jax import environment

ROOMS = "subset_sum networks.network ticket certificate constructions training evaluation tasks learned.edge_popup cli"


def seconds(code: str) -> float:
    command = [
        sys.executable,
        "-c",
        f"import time, jax, flax.nnx; s = time.perf_counter(); {code}; print(time.perf_counter() - s)",
    ]
    return statistics.median(float(subprocess.check_output(command)) for _ in range(5))


def main() -> None:
    rows = {
        "import_lottery_jax_s": seconds("import lottery_jax"),
        "import_every_room_s": seconds("; ".join(f"import lottery_jax.{room}" for room in ROOMS.split())),
    }
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "lottery_jax", "compare", "--data", "digits", "--out", folder],
            check=True,
            env={**os.environ, "LOTTERY_JAX_CACHE": str(Path(folder) / "cache")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        rows["demo_s"] = time.perf_counter() - start
    for name, value in rows.items():
        print(f"{name:24} {value:8.3f}")
    out = Path(__file__).parent / "results" / "startup_cpu.json"
    out.write_text(
        json.dumps({"device": environment.device(), "versions": environment.versions(), **rows}, indent=1) + "\n"
    )
    print(f"written: {out}")


if __name__ == "__main__":
    main()
