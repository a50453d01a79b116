"""Kumar and Natale 2025 (arXiv 2508.11020): how many candidates represent a quantised target exactly?

A small network for the digits is rounded to the finest steps of products of random weights in steps of 2^-k (4^-k of
the largest weights). Measured for numbers n of candidates around the paper's 2 log2(1 / 2^-k) = 2k: the fraction of
weights that are exact without redraws, then the number of redrawn blocks until all weights are exact.

Command: python experiments/kumar_exact.py [--scale 1] [--out FILE]
Cost: about a minute on two CPU cores; --scale is the fraction of the steps, k = 4 to 8.
Published: more than 2 log2(1 / step) samples per link represent every quantised weight, with high probability.
"""

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table

from harness import Results, Scaled, run_script
from lottery_jax.approximation.job import plan_job
from lottery_jax.approximation.run import run_in_memory
from lottery_jax.approximation.tolerance import ToleranceObjective
from lottery_jax.constructions.kumar import Kumar
from lottery_jax.networks.rewrites import quantise
from lottery_jax.networks.target import Target
from lottery_jax.tasks import load_task
from lottery_jax.tickets.verify import verify

BITS = (4, 5, 6, 7, 8)
MORE = (-2, 0, 2, 4, 6, 8)
"""Candidates beyond 2k."""


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Exact weights of quantised targets by the step of the random weights and the number of candidates."""


def row(target: Target, bits: int, candidates: int, seed: int = 0) -> dict[str, Any]:
    """The fraction of weights that one search makes exact, and the redraws until all are exact."""
    rounded = quantise(target, 2 * bits - 1)
    job = plan_job(rounded, Kumar(candidates, bits=bits), ToleranceObjective(0.0, max_redraws=255), seed=seed)
    certificate = verify(run_in_memory(job), target=rounded)
    assert certificate.within_tolerance is not None
    # A block of this source is one weight, redrawn only if its first draw failed; a weight that is never exact keeps
    # its first draw.
    again = certificate.redrawn_blocks - sum(len(rows) for rows in job.edge_redraws.values())
    return {
        "bits": bits,
        "candidates": candidates,
        "weights": target.weights,
        "exact_at_once": (certificate.within_tolerance - again) / target.weights,
        "outcome": certificate.outcome,
        "drawn_again": again,
        "most_draws_again": certificate.largest_attempt,
    }


def run(settings: Settings, rows: Results) -> None:
    """Every k and number of candidates."""
    target = load_task("digits", architecture="mlp-16").target
    bits = BITS[: settings.part(len(BITS))]

    def one(task: tuple[int, int]) -> None:
        k, more = task
        rows.keep(**row(target, k, 2 * k + more), scale=settings.scale)

    rows.each("steps and candidates", [(k, more) for k in bits for more in MORE], one)


def show(rows: Results, console: Console) -> None:
    """The fraction that is exact without redraws, by bits and candidates."""
    table = Table("k", *(f"n = 2k{more:+d}" for more in MORE), title="weights that are exact without redraws, %")
    for bits in dict.fromkeys(each["bits"] for each in rows):
        table.add_row(str(bits), *(f"{100 * each['exact_at_once']:.1f}" for each in rows if each["bits"] == bits))
    console.print(table)


if __name__ == "__main__":
    run_script(Settings, run, show)
