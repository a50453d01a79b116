"""A sweep of kept fractions and seeds as one program, compared with the same trainings one after the other.

Command: python benchmarks/bench_sweep.py                      (14 kept fractions, 5 seeds, the wide 2-layer network)
         python benchmarks/bench_sweep.py --quick              (3 kept fractions, 2 seeds, few examples)
Cost: about three minutes on two CPU cores; on a GPU `--examples 55000 --epochs 1` is a whole epoch.
Goal: on a CPU never slower than one by one; on an H200 at least 10 times faster.

The data are random, because the time does not depend on them. Both are compiled before; drawing, training,
selecting the masks and writing the tickets count in both.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

from lottery_jax import environment
from lottery_jax.data import Dataset, Split
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.learner_sources import redundant_source, wide_source
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from lottery_jax.training.learner import TrainingRequest

KEEPS = (1, 0.99, 0.98, 0.975, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.025, 0.02, 0.01)
SEEDS = 5


def dataset(examples: int) -> Dataset:
    """Random images of MNIST's shape; no validation split, whose measure would be timed too."""
    random = np.random.default_rng(0)
    images = random.uniform(size=(examples, 28, 28, 1)).astype(np.float32)
    train = Split(images, random.integers(0, 10, examples).astype(np.int32))
    none = Split(images[:0], train.labels[:0])
    return Dataset("random", train, none, train, classes=10, nonnegative=True)


def measure(keeps: tuple[float, ...], seeds: int, examples: int, epochs: int, rounds: int) -> dict:
    """Median seconds of both ways, taken in turn."""
    data = dataset(examples)
    source = wide_source(redundant_source(architecture("fc2", Spec(data.shape, data.nonnegative), data.classes)))
    learner, kept = EdgePopup(), list(range(seeds))

    def one_program() -> list:
        return learner.learn(source, TrainingRequest(data, seeds=kept, keeps=keeps, epochs=epochs))

    def one_by_one() -> list:
        return [
            learner.learn(source, TrainingRequest(data, seeds=[seed], keeps=[keep], epochs=epochs))[0]
            for seed in kept
            for keep in keeps
        ]

    ways = {"one_program": one_program, "one_by_one": one_by_one}
    times: dict[str, list[float]] = {name: [] for name in ways}
    learner.learn(source, TrainingRequest(data, seeds=kept, keeps=keeps, epochs=epochs))  # compiles
    learner.learn(source, TrainingRequest(data, seeds=kept[:1], keeps=keeps[:1], epochs=epochs))
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    seconds = {name: float(np.median(values)) for name, values in times.items()}
    return {
        "source_weights": source.source_weights,
        "runs": len(keeps) * seeds,
        "steps": epochs * (examples // learner.batch_size),
        **{f"{name}_s": value for name, value in seconds.items()},
        "times_faster": seconds["one_by_one"] / seconds["one_program"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A sweep as one program against its runs one by one.")
    parser.add_argument("--quick", action="store_true", help="few runs, few examples")
    parser.add_argument("--examples", type=int, default=2560, help="training examples")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--out", type=Path, default=None, help="JSON file; default: in benchmarks/results")
    arguments = parser.parse_args()
    quick = arguments.quick
    row = measure(
        (0.5, 0.1, 0.01) if quick else KEEPS,
        2 if quick else SEEDS,
        640 if quick else arguments.examples,
        arguments.epochs,
        1 if quick else arguments.rounds,
    )
    print(
        "  ".join(
            f"{name} {value:,.2f}" if isinstance(value, float) else f"{name} {value:,}" for name, value in row.items()
        )
    )
    results = {"device": environment.device(), "versions": environment.versions(), "rows": [row]}
    out = arguments.out or Path(__file__).parent / "results" / f"sweep_{jax.default_backend()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {out}")
