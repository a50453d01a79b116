"""Tightness of output bounds: the certificate of a ticket compared with the worst input that a search finds.

Command: python benchmarks/bench_output_bound.py --target pensia_fc2.safetensors
Cost: under a minute on two CPU cores.
Goal: on the digits network and on the published 784-500-10 target at most 20 times the largest |f - g| that projected
gradient ascent finds on inputs in [0, 1].
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

from lottery_jax import approximate, environment, import_target, load_task
from lottery_jax.bounds import attack, bound_output
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target


def measure(name: str, target: Target, images: np.ndarray | None) -> list[dict]:
    """A row for each objective."""
    rows = []
    for objective in ("least-error", "smallest"):
        ticket = approximate(target, seed=0, tolerance=0.01, objective=objective)
        start = time.perf_counter()
        bound = bound_output(ticket, target)
        seconds = time.perf_counter() - start
        assert bound.linear is not None  # of a graph
        found = attack(ticket, target, images=images)
        rows.append(
            {
                "target": name,
                "weights": target.weights,
                "objective": objective,
                "tolerance": 0.01,
                "by_intervals": float(bound.interval.max()),
                "by_lines": float(bound.linear.max()),
                "bound": bound.largest,
                "searched": found,
                "bound_over_searched": bound.largest / found,
                "bound_s_with_compilation": seconds,
            }
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Output bounds compared with the worst input found.")
    parser.add_argument("--target", type=Path, default=None, help="the published 784-500-10 target; default: omitted")
    parser.add_argument("--out", type=Path, default=None, help="JSON file; default: in benchmarks/results")
    arguments = parser.parse_args()
    task = load_task("digits")
    rows = measure("digits", task.target, np.asarray(task.dataset.test.images))
    if arguments.target is not None:
        rows += measure("784-500-10", import_target(arguments.target, Spec((28, 28, 1), True), 10), None)
    for row in rows:
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    results = {"device": environment.device(), "versions": environment.versions(), "rows": rows}
    out = arguments.out or Path(__file__).parent / "results" / f"output_bound_{jax.default_backend()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {out}")
