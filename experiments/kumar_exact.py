"""How many candidates does a quantised target take to be met exactly? Kumar and Natale 2025, in one command.

    python experiments/kumar_exact.py

A small network for the digits is rounded to the finest steps that products of random weights in steps of 2^-k have
(4^-k of the largest weights), and every weight is searched once, without drawing a block again: the fraction that is
met exactly, for numbers n of candidates around the paper's 2 log2(1 / 2^-k) = 2k. Then the whole promise: all weights
exactly, and how many blocks were drawn again for it. About a minute on two cores.
"""

import json
from pathlib import Path
from typing import Any

from lottery_jax.constructions.job import plan_job
from lottery_jax.constructions.kumar import Kumar
from lottery_jax.constructions.promise import Promise
from lottery_jax.constructions.run import run_in_memory
from lottery_jax.networks.quantise import quantised
from lottery_jax.networks.target import Target
from lottery_jax.tasks import load_task
from lottery_jax.tickets.certificate import certify

BITS = (4, 5, 6, 7, 8)
MORE = (-2, 0, 2, 4, 6, 8)
"""Candidates beyond 2k."""
OUT = Path(__file__).parent / "results" / "kumar_exact.jsonl"


def row(target: Target, bits: int, candidates: int, seed: int = 0) -> dict[str, Any]:
    """What one search of each weight meets, and what equality of all weights takes."""
    rounded = quantised(target, 2 * bits - 1)
    found: dict[str, Any] = {"bits": bits, "candidates": candidates, "weights": target.weights}
    for redraws in (0, 255):
        job = plan_job(rounded, Kumar(candidates, bits=bits), Promise(0.0, max_redraws=redraws), seed=seed)
        certificate = certify(run_in_memory(job), target=rounded)
        if redraws == 0:
            assert certificate.within_tolerance is not None
            found["exact_at_once"] = certificate.within_tolerance / target.weights
        else:
            again = sum(len(rows) for rows in job.edge_redraws.values())
            found |= {"outcome": certificate.outcome, "drawn_again": certificate.redrawn_blocks - again}
            found |= {"most_draws_again": certificate.largest_attempt}
    return found


def main() -> None:
    """All rows, written and printed."""
    target = load_task("digits", architecture="mlp-16").target
    rows = [row(target, bits, 2 * bits + more) for bits in BITS for more in MORE]
    OUT.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    print("exactly at once, by bits k and candidates n - 2k")
    print("  k " + "".join(f"{more:>8}" for more in MORE))
    for bits in BITS:
        print(f"{bits:>3} " + "".join(f"{each['exact_at_once']:>8.3f}" for each in rows if each["bits"] == bits))


if __name__ == "__main__":
    main()
