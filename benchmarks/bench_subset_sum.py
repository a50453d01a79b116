"""Time, residual and memory of the subset-sum engine, with other programs on the same instances in the same run.

Command: python benchmarks/bench_subset_sum.py --target pensia_fc2.safetensors
         (without --target: synthetic weights of the same number, range and deviation; the JSON says which)
         pip install '.[bench,numba]' brings the other programs, Gurobi, OR-Tools and HiGHS, and the compiler of the
         CPU's kernel. `--quick` tries every case on small sizes; `--cases A B --add` measures some anew;
         `--fill docs/performance.md` writes that page's tables, `--tables FILE` prints those of one result.
Cost: about 12 minutes on two CPU cores; no GPU has run it yet. Each case runs alone, in a process of its own.

Every residual is recomputed in float64 from the bits of the answer. `seconds` is the median of the runs after the
first, which compiles. On two CPU cores the goals are: least residual in 3 us per weight, 100,000 times faster than
Gurobi, and not worse; smallest in 1.5 us; 4 times the weights in at most 4.3 times the time; 10 million weights
under 1 GiB beyond JAX's own; nothing compiled twice. On one H200: the 397,000 weights in 15 ms, and 124 million
weights of GPT-2 small's shapes on disk in 15 s.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
from peers import PACKAGES
from subset_sum_cases import accelerator, peers, search, streaming
from subset_sum_cases.instances import FULL, QUICK, Run
from subset_sum_tables import compare_with_engine, fill_blocks, summary, tables

from lottery_jax import environment

MACHINE = "machine"
CASES: dict[str, Callable[[Run], list[dict]]] = {
    "least-residual": search.least_residual,
    "xla": search.xla,
    "smallest": search.smallest,
    "smallest-finer": search.smallest_finer,
    "shared": search.shared,
    "catalogue": search.catalogue,
    "exact": search.exact,
    "randomized": search.randomized,
    **{f"growth-x{times}": functools.partial(streaming.growth, times=times) for times in (1, 4, 16)},
    "plain-jax": search.plain,
    "peer-none": peers.engine,
    **{f"peer-{name}": functools.partial(peers.peer, name=name, package=PACKAGES[name]) for name in PACKAGES},
    "gpu-experiment": accelerator.experiment,
    "gpu-transformer": streaming.transformer,
}


def machine() -> dict:
    """What this process measures on."""
    versions = environment.versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it compiles the search on CPU
        versions["numba"] = importlib.metadata.version("numba")
    return {"backend": jax.default_backend(), "device": environment.device(), "versions": versions}


def run_case(case: str, run: Run) -> dict:
    """One case in this process, as it goes into the JSON."""
    if case == MACHINE:
        return machine()
    try:
        rows = [{"case": case, **row} for row in CASES[case](run)]
    except peers.Missing as reason:
        return {"skipped": {case: str(reason)}}
    return {"rows": rows}


def reason_to_skip(case: str, run: Run, backend: str) -> str | None:
    if case.startswith("gpu-") and run.sizes is FULL and backend == "cpu":
        return "needs a GPU; --quick tries it on a CPU"
    if case == "xla" and backend != "cpu":
        return "least-residual is by XLA already"
    if case.startswith("growth-x16") and run.sizes is QUICK:
        return "omitted with --quick"
    return None


def in_own_process(case: str, options: list[str]) -> dict:
    """The answer of `run_case` in a new process; one that fails is reported and does not take the others with it."""
    command = [sys.executable, __file__, "--case", case, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"failed": {case: f"ended with status {done.returncode}"}}
    return json.loads(done.stdout.splitlines()[-1])


def measured(cases: list[str], run: Run, options: list[str]) -> dict:
    """Every case in a process of its own; prints each row as it comes."""
    # Asked of another process: this one must leave the accelerator's memory to the cases.
    found: dict = in_own_process(MACHINE, options)
    found |= {"target": run.target_name, "quick": run.sizes is QUICK, "rows": [], "skipped": {}, "failed": {}}
    for case in cases:
        reason, start = reason_to_skip(case, run, found["backend"]), time.perf_counter()
        answer: dict = {"skipped": {case: reason}} if reason else in_own_process(case, options)
        rows: list[dict] = answer.get("rows", [])
        found["rows"] += rows
        for row in rows:
            print(summary(row), flush=True)
        for name in ("skipped", "failed"):
            found[name] |= answer.get(name, {})
            if case in found[name]:
                print(f"{case:16} {name}: {found[name][case]}", flush=True)
        print(f"  ({case}: {time.perf_counter() - start:.0f} s in all)", flush=True)
    compare_with_engine(found)
    return found


def added(before: dict, found: dict, cases: list[str]) -> dict:
    """The results of some cases measured anew among those of an earlier run."""
    for name in ("backend", "device", "versions", "target", "quick"):
        if before[name] != found[name]:
            sys.exit(f"--add: the JSON has {name} {before[name]!r}, this run {found[name]!r}; write to another file")
    rows = [row for row in before["rows"] if row["case"] not in cases] + found["rows"]
    order = list(CASES)
    merged = found | {"rows": sorted(rows, key=lambda row: order.index(row["case"]))}
    for name in ("skipped", "failed"):
        merged[name] = {case: why for case, why in before[name].items() if case not in cases} | found[name]
    compare_with_engine(merged)
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description="Time, residual and memory of the subset-sum engine.")
    parser.add_argument("--target", type=Path, help="pensia_fc2.safetensors; default: synthetic weights")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="cases to run; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try every case")
    parser.add_argument("--out", type=Path, help="JSON file; default: benchmarks/results/subset_sum_{cpu,gpu}.json")
    parser.add_argument("--add", action="store_true", help="keep the JSON's other cases, measured on the same machine")
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print the tables of a result as Markdown")
    parser.add_argument(
        "--fill", type=Path, metavar="PAGE", help="write the tables of the results into docs/performance.md"
    )
    parser.add_argument("--case", choices=[MACHINE, *CASES], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    run = Run(QUICK if arguments.quick else FULL, arguments.target)
    if arguments.tables:
        print(tables(json.loads(arguments.tables.read_text())))
        return
    if arguments.fill:
        arguments.fill.write_text(fill_blocks(arguments.fill.read_text()))
        return
    if arguments.case:
        print(json.dumps(run_case(arguments.case, run)))
        return
    options = ["--quick"] * arguments.quick + (["--target", str(arguments.target)] if arguments.target else [])
    found = measured(arguments.cases, run, options)
    kind = "cpu" if found["backend"] == "cpu" else "gpu"
    name = f"subset_sum_{kind}{'_quick' * arguments.quick}.json"
    out = arguments.out or Path(__file__).parent / "results" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.add and out.exists():
        found = added(json.loads(out.read_text()), found, arguments.cases)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{tables(found)}\nwritten: {out}")
    sys.exit(bool(found["failed"]))


if __name__ == "__main__":
    main()
