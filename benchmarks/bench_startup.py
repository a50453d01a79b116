"""Waiting time of a user: from the shell, with compilation, each command in its own processes.

Command: python benchmarks/bench_startup.py [--target pensia_fc2.safetensors --data-dir TFDS] [--resnet FILE]
Cost: about ten minutes on two CPU cores with everything, most of it ResNet-20 on the test set. `first` is with empty
caches of compiled programs, `second` with the caches of the first run; both have data and trained targets.

Goals on two CPU cores: `import lottery_jax` at most 0.1 s; the demo at most 70 s with empty caches; `pensia --objective
smallest` on the published 784-500-10 target at most 12 s the first time, and the second time 5 s and 3.0 times what
importing the libraries takes; LeNet-5 on MNIST, the whole ticket with its test set, at most 30 s; ResNet-20 on
CIFAR-10: at most 60 s of search, memory under 4 GiB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lottery_jax import environment

ROOMS = "subset_sum networks.network tickets.verify constructions training tasks mask_learning comparison.api cli"
LIBRARIES = "jax, flax.nnx, optax, matplotlib"
KEPT = ("outcome", "target_weights", "within_tolerance", "worst_residual", "kept_per_target_weight", "description_bits")
KEPT += ("accuracy", "target_accuracy", "agreement", "evaluated", "float32_addition", "ticket_bytes")


def import_seconds(code: str) -> float:
    """Median of five processes, beyond jax and flax."""
    program = f"import time, jax, flax.nnx; s = time.perf_counter(); {code}; print(time.perf_counter() - s)"
    return statistics.median(float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(5))


def run(words: list[str], cache: Path) -> tuple[float, float, str]:
    """Seconds, peak memory in GiB, and what a command of lottery-jax prints."""
    environment = {**os.environ, "LOTTERY_JAX_CACHE": str(cache)}
    with tempfile.TemporaryFile("w+") as printed:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "lottery_jax", *words], env=environment, stdout=printed)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)  # or it would seem to run on
        if status:
            raise SystemExit(f"lottery-jax {' '.join(words)} failed with exit code {process.returncode}")
        printed.seek(0)
        return seconds, used.ru_maxrss / 2**20, printed.read()


def approximate(words: list[str], cache: Path, *, runs: int = 2) -> dict:
    """The command with an empty cache of compiled programs, and again."""
    row: dict = {"command": " ".join(["lottery-jax approximate", *(Path(word).name for word in words)])}
    with tempfile.TemporaryDirectory() as folder:
        for place in range(runs):
            out = Path(folder) / f"{place}.safetensors"
            seconds, memory, printed = run(["approximate", *words, "--json", "--out", str(out)], cache)
            found = json.loads(printed)
            name = ("first", "second")[place]
            row |= {f"{name}_s": seconds, f"{name}_search_s": found["seconds"], "peak_memory_gib": memory}
            row |= {key: found[key] for key in KEPT}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Waiting time of a user, from the shell.")
    parser.add_argument("--target", type=Path, help="pensia_fc2.safetensors; without it its rows are omitted")
    parser.add_argument("--resnet", type=Path, help="a trained ResNet-20 for CIFAR-10; without it its row is omitted")
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST and CIFAR-10 prepared by TensorFlow Datasets")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "startup_cpu.json")
    arguments = parser.parse_args()
    data = ["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []
    rows: dict = {
        "import_lottery_jax_s": import_seconds("import lottery_jax"),
        "import_every_room_s": import_seconds("; ".join(f"import lottery_jax.{room}" for room in ROOMS.split())),
    }
    program = [sys.executable, "-c", f"import {LIBRARIES}"]
    starts = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(program, check=True)
        starts.append(time.perf_counter() - start)
    rows["import_libraries_s"] = statistics.median(starts)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        for name in ("demo_first_s", "demo_second_s"):
            rows[name], _, _ = run(["compare", "--data", "digits", "--out", f"{folder}/{name}"], cache)
            print(f"{name:24} {rows[name]:8.1f}", flush=True)
    cases = {}
    if arguments.target:
        cases["pensia-smallest"] = ["--target", str(arguments.target), "--data", "mnist", "--objective", "smallest"]
        cases["pensia"] = ["--target", str(arguments.target), "--data", "mnist"]
    if arguments.data_dir:
        cases["lenet5"] = ["--data", "mnist", "--architecture", "lenet5"]
    if arguments.resnet:
        cases["resnet20"] = ["--data", "cifar10", "--target", str(arguments.resnet)]
    with tempfile.TemporaryDirectory() as prepared:
        for name, words in cases.items():
            # Data decoded and targets trained beforehand, by a run whose compiled programs are not kept.
            off = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "lottery_jax",
                        "compare",
                        "--methods",
                        "dense",
                        "--seeds",
                        "0",
                        "--out",
                        folder,
                    ]
                    + [word for word in (*words, *data) if word not in ("--objective", "smallest")],
                    env={**os.environ, **off, "LOTTERY_JAX_CACHE": prepared},
                    check=True,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            compiled = Path(prepared) / "compiled"
            if compiled.exists():
                compiled.rename(Path(prepared) / f"compiled-before-{name}")
            rows[name] = approximate([*words, *data], Path(prepared), runs=1 if name == "resnet20" else 2)
            print(f"{name:24} " + json.dumps({k: v for k, v in rows[name].items() if k != "command"}), flush=True)
    arguments.out.parent.mkdir(exist_ok=True)
    result = {"device": environment.device(), "versions": environment.versions(), **rows}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
