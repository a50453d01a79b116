"""Time of one edge-popup training step at batch 64: scores to masks, forward, backward, SGD with momentum.

Command: python benchmarks/bench_edge_popup.py
Cost: under a minute on two CPU cores. Goal there: at most 45 ms for each network (the published PyTorch code
takes 238 and 192 ms on the same two cores), and at most 1.3 times `without_selection`, the same step with |score|
as its mask.

The floor, counted by hand, with W the weights of the large matrix (784*5*500 = 1,960,000 and
784*2508 = 1,966,272):
- Arithmetic: a product with the masked matrix is 2*64*W operations, 0.25 G. The redundant network needs three
  (forward, gradient of the mask, gradient of the hidden units, whose edges are learned too): 0.75 G. The wide
  network needs two, since no gradient goes to the pixels: 0.50 G.
- Memory, in float32 tensors of W entries (7.8 MB): selection 1 read; masked matrix 2 reads, 1 write; products
  2 reads (1 for the wide network) and 1 write of the gradient; update 4 reads (gradient, weight, score,
  momentum) and 2 writes. That is 13 (12) tensors, 102 (94) MB.
Divided by the best rates seen in the same run (a product of that size; an update in place of two tensors)
this gives `floor`. What selection reads beyond its 1 is said in `lottery_jax/networks/top_k.py`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax import environment
from lottery_jax.mask_learning.learner_sources import redundant_source, wide_source
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import FixedGate, Spec
from lottery_jax.networks.top_k import top_k_mask

BATCH, KEEP, GOAL_MS = 64, 0.3, 45.0
REDUNDANT = redundant_source(architecture("fc2", Spec((784,), nonnegative=True), 10))
NETWORKS: dict[str, Network] = {"redundant": REDUNDANT, "wide": wide_source(REDUNDANT)}
LARGE = {"redundant": (784 * 5, 500, 3, 13), "wide": (784, 2508, 2, 12)}  # rows, columns, products, tensors


class AllGate:
    """No selection: |score| as the mask."""

    def __init__(self, score: jax.Array, keep: jax.Array) -> None:
        self.score = score

    def __call__(self) -> jax.Array:
        return jnp.abs(self.score)


class SortGate:
    """The peer: the threshold read from a full sort of |score|."""

    def __init__(self, score: jax.Array, keep: jax.Array) -> None:
        self.score, self.keep = score, keep

    def __call__(self) -> jax.Array:
        magnitude = jnp.abs(self.score)
        pruned = jnp.round((1 - self.keep) * magnitude.size).astype(jnp.int32)
        threshold = jnp.sort(magnitude.reshape(-1))[pruned]
        mask = (magnitude >= threshold).astype(jnp.float32)
        return magnitude + jax.lax.stop_gradient(mask - magnitude)


def top_k_gate(score: jax.Array, keep: jax.Array) -> FixedGate:
    """What edge-popup does: an exact top-k without sorting."""
    return FixedGate(top_k_mask(score, keep))


GATES: dict[str, Callable] = {"without_selection": AllGate, "top_k": top_k_gate, "full_sort": SortGate}


def times_ms(run: Callable, repeats: int) -> list[float]:
    """Milliseconds of each call; the first one compiles."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def time_step(network: Network, gate: Callable, repeats: int) -> tuple[float, float]:
    """Seconds to compile and run once, and the median milliseconds of the steps after."""
    source = {name: jnp.asarray(w) for name, w in network.draw(seed=0).items()}
    random = np.random.default_rng(0)
    scores = {name: jnp.asarray(random.uniform(-0.02, 0.02, w.shape), jnp.float32) for name, w in source.items()}
    images = jnp.asarray(random.uniform(size=(BATCH, 784)), jnp.float32)
    labels = jnp.asarray(random.integers(0, 10, BATCH))
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))

    def loss(scores, keep):
        masked: Callable = network.module(source, lambda name: gate(scores[name], keep))  # type: ignore[assignment]
        return optax.softmax_cross_entropy_with_integer_labels(masked(images), labels).mean()

    @jax.jit
    def step(scores, state, keep):
        gradient = jax.grad(loss)(scores, keep)
        updates, state = optimizer.update(gradient, state, scores)
        return optax.apply_updates(scores, updates), state

    carried = [scores, optimizer.init(scores)]

    def run():
        carried[:] = jax.block_until_ready(step(*carried, jnp.float32(KEEP)))

    first, *rest = times_ms(run, repeats)
    return first / 1e3, statistics.median(rest)


def floor_ms(rows: int, columns: int, products: int, tensors: int) -> dict[str, float]:
    """Hand-counted work over measured rates."""
    left, matrix = jnp.ones((BATCH, rows), jnp.float32), jnp.ones((rows, columns), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    touch = jax.jit(lambda a, b: (a + b, a - b), donate_argnums=(0, 1))
    carried = [matrix * 0, matrix * 0]

    def update():
        carried[:] = jax.block_until_ready(touch(*carried))

    product = min(times_ms(lambda: jax.block_until_ready(multiply(left, matrix)), 50)[1:])
    tensor = min(times_ms(update, 50)[1:]) / 4  # two reads and two writes
    gflops = 2 * BATCH * rows * columns / product / 1e6
    gigabytes = rows * columns * 4 / tensor / 1e6
    return {"floor_ms": products * product + tensors * tensor, "gflops": gflops, "gigabytes_per_s": gigabytes}


def measure(repeats: int) -> list[dict]:
    rows = []
    for label, network in NETWORKS.items():
        row = {
            "network": label,
            "source_weights": network.source_weights,
            "batch": BATCH,
            "keep": KEEP,
        }
        row |= floor_ms(*LARGE[label])
        for name, gate in GATES.items():
            row[f"{name}_compile_s"], row[f"{name}_ms"] = time_step(
                network, gate, repeats if name != "full_sort" else 5
            )
        row["goal_ms"] = GOAL_MS
        rows.append(row)
    return rows


def show(rows: list[dict]) -> None:
    columns = ["floor_ms", *(f"{name}_ms" for name in GATES), "top_k_compile_s", "goal_ms"]
    print(f"{'network':12}{'weights':>12}" + "".join(f"{column:>22}" for column in columns))
    for row in rows:
        values = "".join(f"{row[column]:22.1f}" for column in columns)
        print(f"{row['network']:12}{row['source_weights']:12,}" + values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time of one edge-popup training step.")
    parser.add_argument("--repeats", type=int, default=50, help="timed steps")
    parser.add_argument("--out", type=Path, default=None, help="JSON file; default: in benchmarks/results")
    arguments = parser.parse_args()
    results = {
        "device": environment.device(),
        "versions": environment.versions(),
        "rows": measure(arguments.repeats),
    }
    show(results["rows"])
    out = arguments.out or Path(__file__).parent / "results" / f"edge_popup_{jax.default_backend()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {out}")
