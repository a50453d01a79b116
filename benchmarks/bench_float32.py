"""What float32 may add to honest tickets of every construction, as `verify` bounds it, next to what is allowed.

Command: python benchmarks/bench_float32.py [--target pensia_fc2.safetensors] [--quick]
Cost: about five minutes on two CPU cores, most of it the search for subsets. `--quick`: the smallest networks only, in
half a minute, and nothing is written.

Goals: every ticket holds, and float32 adds at most half of what is allowed. docs/float32.md shows the table.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from lottery_jax import environment
from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.approximation.tolerance import make_lossless
from lottery_jax.constructions import CONSTRUCTIONS, Construction, Kumar
from lottery_jax.networks.architectures import architecture, resnet, vit
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import RotationConv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.pooling import GlobalPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.rewrites import quantise
from lottery_jax.networks.target import Target
from lottery_jax.tasks import import_target, load_task
from lottery_jax.tickets.verify import verify

CANDIDATES = {"natale": 21, "malach": 300, "orseau": 60, "burkholz": 15, "binary": 64, "kumar": 16}
"""Of constructions that need other numbers than 21."""

Case = tuple[str, Target, Construction, ToleranceObjective]


def initial_target(network: Network) -> Target:
    """A network with its initial weights."""
    values = {name: np.asarray(value) for name, value in network.initial(jax.random.key(0)).items()}
    return Target(network, values)  # type: ignore[arg-type]


def targets(*, quick: bool) -> dict[str, Target]:
    """Small networks of every kind of layer, by name."""
    images = Spec((8, 8, 1), nonnegative=True)
    rotations = ("conv1", RotationConv(1, 4, 3)), ("relu", Relu()), ("conv2", RotationConv(4, 8, 3, rotations=4))
    found = {
        "digits, dense": load_task("digits", architecture="mlp-16" if quick else None).target,
        "convolutions": initial_target(architecture("lenet5", Spec((28, 28, 1), True), 10, width=0.25)),
        "residual": initial_target(resnet(images, 10, 0.25, channels=(16, 32), blocks=(1, 1), bottleneck=False)),
        "attention": initial_target(vit(images, 10, 1 / 8, patch=2, depth=1)),
        "rotations": initial_target(Network(Chain((*rotations, ("pool", GlobalPool()), ("fc", Dense(8, 10)))), images)),
    }
    return found


def cases(target: Path | None, *, quick: bool) -> Iterator[Case]:
    """Tickets of every construction, on the networks that it is made for."""
    found = targets(quick=quick)
    own = {"dacunha": ("convolutions", "residual"), "ferbach": ("rotations",), "otsuka": ("attention",)}
    for name, make in CONSTRUCTIONS.items():
        construction = make(CANDIDATES.get(name, 21))
        for label in own.get(name, ("digits, dense",) if quick or name in SLOW else ("digits, dense", "residual")):
            network = found[label]
            if isinstance(construction, Kumar):
                yield label, quantise(network, 8), construction, ToleranceObjective(0.0, max_redraws=255)
                continue
            for select in ("least-error", "smallest") if name not in PRESCRIBED else ("least-error",):
                yield label, network, construction, ToleranceObjective(0.01, select, max_redraws=255)
    for name in ("scalar", "scalar-shared"):
        yield (
            "digits, dense",
            found["digits, dense"],
            *make_lossless(found["digits, dense"], CONSTRUCTIONS[name](), ToleranceObjective()),
        )
    if target is not None:
        published = import_target(target, Spec((28, 28, 1), nonnegative=True), 10)
        for select in ("least-error", "smallest"):
            yield "published 784-500-10", published, CONSTRUCTIONS["pensia"](21), ToleranceObjective(0.01, select)


PRESCRIBED = {"natale", "malach", "orseau", "binary"}
"""Constructions whose theorem prescribes the subset."""
SLOW = {"malach", "burkholz", "binary", "scalar-shared"}
"""Constructions whose rows are of the dense network alone."""


def row(label: str, target: Target, construction: Construction, objective: ToleranceObjective) -> dict:
    """One ticket of seed 0, verified against its target."""
    ticket = run_in_memory(plan_job(target, construction, objective, seed=0))
    found = verify(ticket, target=target)
    assert found.float32_addition is not None and found.float32_allowed and found.float32_target_addition
    apart = found.copies_apart / found.copies_apart_allowed if found.copies_apart_allowed else None  # type: ignore[operator]
    return {
        "construction": construction.name,
        "candidates": construction.candidates,
        "objective": "lossless" if objective.relative else objective.select,
        "target": label,
        "weights": found.target_weights,
        "outcome": found.outcome,
        "reasons": list(found.reasons),
        "tolerance": found.tolerance,
        "worst_residual": found.worst_residual,
        "float32_addition": found.float32_addition,
        "float32_allowed": found.float32_allowed,
        "share_of_allowed": found.float32_addition / found.float32_allowed,
        "multiple_of_target": found.float32_addition / found.float32_target_addition,
        "tensor": found.float32_tensor,
        "largest_value": found.largest_value,
        "copies_share_of_allowed": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What float32 may add to honest tickets.")
    parser.add_argument("--target", type=Path, help="pensia_fc2.safetensors; without it its rows are omitted")
    parser.add_argument("--quick", action="store_true", help="the smallest networks only")
    parser.add_argument("--out", type=Path, help="JSON file; default: in benchmarks/results, none with --quick")
    arguments = parser.parse_args()
    rows = []
    for case in cases(arguments.target, quick=arguments.quick):
        rows.append(row(*case))
        print(
            "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()), flush=True
        )
    out = arguments.out
    if out is None and not arguments.quick:
        out = Path(__file__).parent / "results" / f"float32_{jax.default_backend()}.json"
    if out is not None:
        results = {"device": environment.device(), "versions": environment.versions(), "rows": rows}
        out.write_text(json.dumps(results, indent=1) + "\n")
        print(f"written to {out}")


if __name__ == "__main__":
    main()
