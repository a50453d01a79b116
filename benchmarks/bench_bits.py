"""Bits per target weight: tickets as the entropy coder writes them, compared with plain rounding with the same error.

Command: python benchmarks/bench_bits.py --target pensia_fc2.safetensors
Cost: half a minute on two CPU cores.

The first layer of the target within 0.01. First the smallest subset of each weight, the nearest of these; then the
first subset within the tolerance in the order (size, lexicographic), for random weights of several spreads. Then whole
tickets; goal for `scalar-matched-first`: at most 2.75 bits and 0.42 kept per weight.
`iid`: one probability for all bits. `coded`: bits of the coder with its parameters. `rounding`: the target's
own weights on a grid with the same largest error, by the same coder.
"""

import argparse
import json
import math
import time
from pathlib import Path

import jax
import numpy as np

from lottery_jax import approximate, environment, import_target, load_ticket, verify
from lottery_jax.constructions import Construction, Pensia, Scalar
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.io.tensor_file import InMemoryTensors
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.rng.sampler import Sampler
from lottery_jax.subset_sum import FirstFeasible, Problem, solve
from lottery_jax.tickets.size.description_length import rounding_bits
from lottery_jax.tickets.size.mask_codes import coded_bits

CANDIDATES, TOLERANCE = 21, 0.01


def mask_row(case: str, masks: np.ndarray, bits: float, rounding: float, **more: object) -> dict:
    """Bits of masks [W, N] per weight."""
    kept = int(masks.sum())
    share = kept / masks.size
    entropy = -(share * math.log2(share) + (1 - share) * math.log2(1 - share))
    return {
        "case": case,
        "weights": len(masks),
        "kept_per_weight": kept / len(masks),
        "iid": CANDIDATES * entropy,
        "coded": bits / len(masks),
        "rounding": rounding,
        **more,
    }


def measure(weights: np.ndarray) -> list[dict]:
    """One row per source and selection; weights float32 [O, I]."""
    target, rows = mlp_target([weights], nonnegative=True), []
    wanted = weights.astype(np.float64).reshape(-1)

    def rounded(error: float) -> float:
        found = rounding_bits(target, error)
        assert found is not None
        return found["weights"] / weights.size

    ticket = approximate(target, seed=0, construction="scalar", objective="smallest", tolerance=TOLERANCE)
    found = verify(ticket, target=target)
    assert found.worst_residual is not None
    mask = ticket.mask("fc1.weight").reshape(-1, CANDIDATES)
    bits = found.description_bits["masks"] + found.description_bits["redraws"]
    rows.append(mask_row("smallest, nearest", mask, bits, rounded(found.worst_residual), source=found.samplers[0]))
    own = ticket.network.random_tensors["fc1.weight"].sampler
    for sampler in (Sampler.uniform(-1, 1), own, Sampler.normal(0.1), Sampler.normal(0.05)):
        node = CandidatesPerWeight(Dense(weights.shape[1], weights.shape[0]), CANDIDATES, (sampler,))
        network = Network(Chain((("fc1", node),)), Spec((weights.shape[1],), True))
        candidates = network.draw(0)["fc1.weight"].reshape(-1, CANDIDATES).astype(np.float64)
        masks = solve(Problem(candidates, wanted, TOLERANCE), FirstFeasible()).subsets
        residual = np.abs((candidates * masks).sum(1) - wanted)
        content = InMemoryTensors({"mask.fc1.weight": np.packbits(masks, bitorder="little")})
        bits = sum(coded_bits(network, 0, content))
        missed = int((residual > TOLERANCE).sum())
        rows.append(mask_row("first", masks, bits, rounded(TOLERANCE), source=sampler.in_words(), missed=missed))
    return rows


def measure_ticket(path: Path, weights: list[np.ndarray], construction: Construction, objective: str) -> dict:
    """A whole ticket: its bits by part, its two files, and the CPU seconds that reading and verifying them take."""
    target = mlp_target(weights, nonnegative=True)
    ticket = approximate(target, seed=0, construction=construction, objective=objective, tolerance=TOLERANCE)
    matched = "-matched" if isinstance(construction, Scalar) and construction.range == "matched" else ""
    row: dict = {"case": f"{construction.name}{matched}-{objective}", "weights": target.weights}
    row["kept_per_weight"] = ticket.kept_weights / target.weights
    for form, coded in (("plain", False), ("coded", True)):
        row[f"{form}_bytes"] = ticket.save(path, coded=coded)
        seconds = []
        for _ in range(3):
            start = time.process_time()
            found = verify(load_ticket(path), target=target)
            seconds.append(time.process_time() - start)
        row[f"verify_{form}_s"] = min(seconds)
        row |= {"outcome": found.outcome, "bits_by_part": found.description_bits}
        row |= {"bits": found.bits_per_target_weight, "rounding": found.rounding_bits_per_target_weight}
    start = time.process_time()
    coded_bits(ticket.network, ticket.seed, ticket.content)
    return row | {"counting_s": time.process_time() - start}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Bits of tickets compared with plain rounding.")
    parser.add_argument("--target", type=Path, default=None, help="the published 784-500-10 target; default: random")
    parser.add_argument("--quick", action="store_true", help="some outputs of the first layer only")
    parser.add_argument("--out", type=Path, default=None, help="JSON file; default: in benchmarks/results")
    arguments = parser.parse_args()
    if arguments.target is None:
        random = np.random.default_rng(0)
        layers = [random.normal(0, 0.05, shape).astype(np.float32) for shape in ((500, 784), (10, 500))]
    else:
        published = import_target(arguments.target, Spec((28, 28, 1), True), 10)
        layers = [np.asarray(published.array(f"fc{place}.weight")) for place in (1, 2)]
    if arguments.quick:
        layers = [layers[0][:20], layers[1][:, :20]]
    rows = measure(layers[0])
    out = arguments.out or Path(__file__).parent / "results" / f"bits_{jax.default_backend()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    ticket_file = out.with_suffix(".ticket")
    tickets = [
        measure_ticket(ticket_file, layers, construction, objective)
        for construction, objective in (
            *((each, objective) for each in (Scalar(), Pensia()) for objective in ("smallest", "least-error")),
            (Scalar(range="matched"), "first"),
        )
    ]
    ticket_file.unlink()
    for row in (*rows, *tickets):
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    results = {"device": environment.device(), "versions": environment.versions(), "rows": rows, "tickets": tickets}
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {out}")
