"""Time and memory of loss-aware and of lossless tickets: the published 784-500-10 target, ResNet-20, the digits.

Command: python benchmarks/bench_smaller_tickets.py --mnist pensia_fc2.safetensors --resnet resnet20_cifar10.safetensors
    --data-dir TFDS
Cost: 10 minutes on two CPU cores. Each case runs alone in a process of its own, so that its peak memory is its own,
data and target included. Without a target its rows are omitted; `--quick` measures the digits alone.

Goals on two CPU cores:
- loss-aware, 784-500-10, 26,000 kept weights: error feedback takes at most 20 s beyond the search, under 2 GiB;
- loss-aware, ResNet-20 on CIFAR-10: at most 5 minutes;
- lossless, 784-500-10: at most 30 s of search.

The first run compiles; the median is over `--repeats` other runs. `search_s` are the seconds to solve all chunks,
`feedback_s` those of error feedback beyond it, both without compilation. `first_s` and `first_compilation_s` are of the
first run, and `first_cpu_s` are its CPU seconds on both cores. `load_average` is the load of the machine (1 per busy
core; the benchmark has 2 itself): seconds are meaningful if it is near 2.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lottery_jax import environment
from lottery_jax.approximation import LossAware, plan_job, run_in_memory
from lottery_jax.approximation.chunk_store import MemoryChunkStore
from lottery_jax.approximation.job import Job
from lottery_jax.approximation.moments import default_examples
from lottery_jax.approximation.run import solve_job
from lottery_jax.approximation.tolerance import ToleranceObjective, make_lossless
from lottery_jax.comparison.evaluate import measure
from lottery_jax.constructions import Scalar
from lottery_jax.constructions.registry import construction_named
from lottery_jax.progress import Stopwatch
from lottery_jax.tasks import Task, load_task
from lottery_jax.tickets.ticket import Ticket

CASES = {
    "loss-aware 784-500-10": ("mnist", 26_000),
    "loss-aware resnet20 0.5": ("resnet", 0.5),
    "loss-aware resnet20 1": ("resnet", 1.0),
    "loss-aware digits": ("digits", 0.5),
    "lossless digits scalar": ("digits", None),
    "lossless digits scalar-shared": ("digits", None),
    "lossless 784-500-10 scalar": ("mnist", None),
    "lossless 784-500-10 scalar-shared": ("mnist", None),
}
"""Targets, and how many weights are kept: below 10 for each target weight, None in lossless tickets."""


def task_of(name: str, arguments: argparse.Namespace) -> Task:
    """The data and the target."""
    if name == "digits":
        return load_task("digits")
    if name == "mnist":
        return load_task("mnist", target=arguments.mnist, data_dir=arguments.data_dir)
    return load_task("cifar10", target=arguments.resnet, architecture="resnet20", data_dir=arguments.data_dir)


def job_of(case: str, task: Task) -> Job:
    """The job of a case."""
    kept, name = CASES[case][1], case.rsplit(maxsplit=1)[1]
    if kept is None:
        construction, objective = make_lossless(task.target, construction_named(name)(), ToleranceObjective())
        return plan_job(task.target, construction, objective, seed=0)
    target = Scalar().prepare(task.target)
    budget = round(kept * target.weights) if kept < 10 else int(kept)
    images = np.asarray(task.dataset.train.images)[: default_examples(target.network)]
    return plan_job(task.target, Scalar(), LossAware(budget, images), seed=0)


def made(job: Job) -> tuple[Ticket, Stopwatch, Stopwatch]:
    """A ticket, and how long its search and what comes after it take."""
    solved = MemoryChunkStore()
    with Stopwatch() as search:
        solve_job(job, solved)
    with Stopwatch() as after:
        ticket = run_in_memory(job, store=solved)
    return ticket, search, after


def run_case(case: str, task: Task, repeats: int) -> dict:
    """A row: seconds and memory of a ticket, and what the verifier and the test set say of it."""
    job = job_of(case, task)
    begun = time.process_time()
    ticket, search, after = made(job)
    first_cpu = time.process_time() - begun
    both = search, after
    row: dict = {"case": case, "weights": job.weights, "candidates": job.construction.candidates}
    row |= {"first_s": sum(watch.seconds for watch in both)}
    row |= {"first_compilation_s": sum(watch.compilation for watch in both)}
    row |= {"first_cpu_s": first_cpu, "repeats": repeats}
    again = [made(job)[1:] for _ in range(repeats)] or [both]
    row |= {"search_s": statistics.median(search.work for search, _ in again)}
    if isinstance(job.objective, LossAware):
        row |= {"feedback_s": statistics.median(after.work for _, after in again)}
        row |= {"first_feedback_s": after.seconds, "examples": len(job.objective.images), "budget": job.objective.kept}
    row |= {"peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.safetensors"
        ticket.save(path)
        found = measure(path, task)
    row |= {"outcome": found.certificate.outcome, "kept_weights": found.certificate.kept_weights}
    row |= {"worst_residual": found.certificate.worst_residual, "bits": found.certificate.bits_per_target_weight}
    row |= {"accuracy": found.metrics.accuracy, "target_accuracy": found.metrics.target_accuracy}
    row |= {"max_deviation": found.metrics.max_deviation, "evaluated": found.evaluated}
    return row | {"load_average": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of loss-aware and of lossless tickets.")
    parser.add_argument("--mnist", type=Path, help="pensia_fc2.safetensors")
    parser.add_argument("--resnet", type=Path, help="resnet20_cifar10.safetensors")
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST and CIFAR-10 prepared by TensorFlow Datasets")
    parser.add_argument("--quick", action="store_true", help="the digits alone, once more after the first time")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs after the first")
    parser.add_argument("--cases", choices=CASES, nargs="+", help="these alone, added to those of the file")
    parser.add_argument("--in-process", action="store_true", help="one case, in this process, as JSON")
    parser.add_argument("--out", type=Path, help="JSON file; default: benchmarks/results/smaller_tickets_DEVICE.json")
    arguments = parser.parse_args()
    given = {"digits": True, "mnist": arguments.mnist, "resnet": arguments.resnet}
    cases = [case for case, (name, _) in CASES.items() if given[name] and not (arguments.quick and name != "digits")]
    cases = [case for case in cases if arguments.cases is None or case in arguments.cases]
    if arguments.in_process:
        repeats = 1 if arguments.quick else arguments.repeats
        row = run_case(cases[0], task_of(CASES[cases[0]][0], arguments), repeats)
        print(json.dumps({**row, "device": environment.device(), "versions": environment.versions()}))
        return
    kind = "cpu" if environment.device().startswith("cpu") else "gpu"
    out = arguments.out or Path(__file__).parent / "results" / f"smaller_tickets_{kind}.json"
    rows = {row["case"]: row for row in json.loads(out.read_text())["rows"]} if arguments.cases and out.exists() else {}
    for case in cases:
        words = [word for word in sys.argv[1:] if word not in ("--cases", *CASES)]
        command = [sys.executable, __file__, *words, "--cases", case, "--in-process"]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        for name in ("device", "versions"):
            del row[name]
        rows[case] = row
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        about = {"device": environment.device(), "versions": environment.versions()}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**about, "rows": [rows[case] for case in CASES if case in rows]}, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
