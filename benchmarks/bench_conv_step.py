"""Time of one training step of Conv-4 at batch 128: dense and edge-popup, with XLA's convolutions and with ours.

Command: python benchmarks/bench_conv_step.py
Cost: two minutes on two CPU cores. Goal there: the edge-popup step in at most 550 to 675 ms (a PyTorch step of the
published code took 660 to 810 ms on the same two cores, its dense step 400 to 480 ms).

The floor, counted by hand: the four convolutions take 24.6 G operations forward (0.5, 9.7, 4.8, 9.7) and the three
matrices 0.6 G; the step takes three times that but for the input gradient of the first layer, 75 G. Divided by the rate
of a large matrix product in the same run this gives `floor`.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax import environment
from lottery_jax.mask_learning.learner_sources import plain_source
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.layers import conv, pooling
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import FixedGate, Gate, Spec
from lottery_jax.networks.top_k import top_k_mask

BATCH, KEEP, OPERATIONS = 128, 0.5, 75e9
SHAPE = Spec((32, 32, 3))


def step_of(
    network: Network, gates: Callable[[dict], Callable[[str], Gate] | None], trained: dict, fixed: dict
) -> Callable:
    """A step of SGD with momentum on `trained`, carried along."""
    random = np.random.default_rng(0)
    images = jnp.asarray(random.normal(size=(BATCH, *SHAPE.shape)), jnp.float32)
    labels = jnp.asarray(random.integers(0, 10, BATCH))
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))

    def loss(own: dict) -> jax.Array:
        module = network.module({**own, **fixed}, gates(own)) if fixed else network.module(own)
        return optax.softmax_cross_entropy_with_integer_labels(module(images), labels).mean()  # type: ignore[operator]

    @jax.jit
    def step(own: dict, state: optax.OptState) -> tuple:
        updates, state = optimizer.update(jax.grad(loss)(own), state, own)
        return optax.apply_updates(own, updates), state

    carried = [trained, optimizer.init(trained)]

    def run() -> None:
        carried[:] = jax.block_until_ready(step(*carried))

    return run


def measure(repeats: int) -> dict:
    """Median milliseconds of each step, taken in turn, and of the floor."""
    target = architecture("conv4", SHAPE, 10)
    source = plain_source(target)
    weights = {name: jnp.asarray(value) for name, value in target.initial(jax.random.key(0)).items()}
    drawn = {name: jnp.asarray(value) for name, value in source.draw(0).items()}
    scores = {
        f"score {name}": jnp.asarray(np.random.default_rng(1).uniform(-1, 1, w.shape) / 30, jnp.float32)
        for name, w in drawn.items()
    }

    def popup(own: dict) -> Callable[[str], Gate]:
        return lambda name: FixedGate(top_k_mask(own[f"score {name}"], KEEP))

    def dense() -> Callable:
        return step_of(target, lambda own: None, weights, {})

    def edge_popup() -> Callable:
        return step_of(source, popup, scores, drawn)

    steps = {"dense": dense(), "edge_popup": edge_popup()}
    row: dict = {"architecture": "conv4", "batch": BATCH, "keep": KEEP}
    for name, run in steps.items():
        row[f"{name}_compile_s"] = timed(run)
    # XLA's own convolution and pooling, compiled while they stand in place of ours.
    with (
        mock.patch.object(conv, "convolve", jax.lax.conv_general_dilated),
        mock.patch.object(pooling.MaxPool, "_side_by_side", lambda self, x: False),
    ):
        steps |= {"dense_xla": (own := dense()), "edge_popup_xla": (other := edge_popup())}
        own()
        other()
    big = jax.jit(jnp.matmul)
    left, right = jnp.ones((4096, 2048)), jnp.ones((2048, 2048))
    jax.block_until_ready(big(left, right))
    times: dict[str, list[float]] = {name: [] for name in (*steps, "product")}
    for _ in range(repeats):
        for name, run in steps.items():
            times[name].append(timed(run))
        times["product"].append(timed(lambda: jax.block_until_ready(big(left, right))))
    row |= {f"{name}_ms": 1e3 * float(np.median(values)) for name, values in times.items() if name != "product"}
    rate = 2 * 4096 * 2048 * 2048 / float(np.median(times["product"]))
    return row | {"gflops": rate / 1e9, "floor_ms": 1e3 * OPERATIONS / rate}


def timed(run: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time of one training step of Conv-4.")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps")
    parser.add_argument("--out", type=Path, default=None, help="JSON file; default: in benchmarks/results")
    arguments = parser.parse_args()
    row = measure(arguments.repeats)
    for name, value in row.items():
        print(f"{name:>24} {value:.1f}" if isinstance(value, float) else f"{name:>24} {value}")
    results = {"device": environment.device(), "versions": environment.versions(), "rows": [row]}
    out = arguments.out or Path(__file__).parent / "results" / f"conv_step_{jax.default_backend()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {out}")
