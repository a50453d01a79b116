"""Malach et al. 2020 (arXiv 2002.00585): keeping whole random neurons reaches random features, and no more.

The target is one ReLU neuron, relu(w . x) with |w| = 1, on normal inputs x of d numbers. One hidden layer has N random
neurons a relu(u . x), with u and a uniform on [-1, 1]; the best subset is kept and its sum is scaled. Subsets start
empty, or with the neurons that non-negative least squares uses, and are improved by flips of one and of two neurons.
Errors of sums of ReLUs on normal inputs have a closed form (the arc-cosine kernel; Cho and Saul 2009), so nothing is
fitted to a sample. Least squares on all N features is the bound that no subset can beat, whatever its output weights.

The same layers with N hidden units, N (d + 1) weights in all, contain the gadgets of `pensia` for n = N / (2 d)
candidates per weight of w. There single weights are kept, followed by the target's own ReLU. The error is measured on
2**16 inputs with the weights that the masks make.

Command: python experiments/malach_neurons.py [--scale 1] [--out FILE]
Cost: two minutes on two CPU cores; --scale is the fraction of 5 draws, and of the largest layers.
Published: neurons need a width of Omega(d / eps) for one ReLU neuron, weights one of O(d log 1/eps) (arXiv 2603.02234);
no constants.
"""

import dataclasses
import itertools
import math
import statistics

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls

from harness import Results, Scaled, run_script
from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions import Pensia
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.io.files import png_bytes, write_atomically
from lottery_jax.tickets.reconstruct import effective_weights

SIZES = (4, 8, 16)
NEURONS = (16, 32, 64, 128, 256, 512, 1024)
CANDIDATES = (4, 8, 12, 16, 20)
DRAWS = 5
PAIRS = 50  # flips of two neurons at most
INPUTS = 1 << 16
TOLERANCE = 1e-9  # met by no weight: all have the nearest sum, and none is redrawn


@dataclasses.dataclass(frozen=True)
class Settings(Scaled):
    """Subsets of neurons compared with subsets of weights, for one ReLU neuron."""


def run(settings: Settings, rows: Results) -> None:
    """The errors of both kinds of ticket for each number of inputs and of hidden units."""
    draws = max(settings.part(DRAWS), 2)
    layers, numbers = (some[: max(settings.part(len(some)), 3)] for some in (NEURONS, CANDIDATES))

    def neurons(task: tuple[int, int]) -> None:
        size, hidden = task
        found = [_neurons(size, hidden, seed) for seed in range(draws)]
        errors, kept, bounds = (list(values) for values in zip(*found, strict=True))
        rows.keep(kind="neurons", size=size, hidden=hidden, error=errors, bound=bounds, kept=kept, scale=settings.scale)

    def weights(task: tuple[int, int]) -> None:
        size, candidates = task
        found = [_weights(size, candidates, seed) for seed in range(draws)]
        errors, kept = (list(values) for values in zip(*found, strict=True))
        hidden = 2 * size * candidates
        rows.keep(
            kind="weights",
            size=size,
            hidden=hidden,
            candidates=candidates,
            error=errors,
            kept=kept,
            scale=settings.scale,
        )

    rows.each("neurons", list(itertools.product(SIZES, layers)), neurons)
    rows.each("weights", list(itertools.product(SIZES, numbers)), weights)


def _direction(size: int, seed: int) -> np.ndarray:
    """A random w with |w| = 1, float32 values [d]."""
    drawn = np.random.default_rng([size, seed]).normal(size=size)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def _neurons(size: int, hidden: int, seed: int) -> tuple[float, int, float]:
    """Relative error of the best found subset of a random layer, its size, and the error of least squares."""
    random, wanted = np.random.default_rng([size, hidden, seed]), _direction(size, seed).astype(np.float64)
    first, second = random.uniform(-1, 1, (hidden, size)), random.uniform(-1, 1, hidden)
    each = second[:, None] * products(first, first) * second
    with_target = second * products(first, wanted[None])[:, 0]
    size_of_target = float(products(wanted[None], wanted[None])[0, 0])
    kept = best_subset(each, with_target)
    reached = max(float(with_target @ kept), 0.0) ** 2 / max(float(kept @ each @ kept), 1e-300)
    features = float(np.linalg.lstsq(each, with_target, rcond=1e-13)[0] @ with_target)
    left = (max(1 - found / size_of_target, 0.0) for found in (reached, features))
    error, bound = (math.sqrt(part) for part in left)
    return error, int(kept.sum()), bound


def products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Means of relu(u . x) relu(v . x) over normal x, rows u [N, d] and v [M, d]: [N, M] (Cho and Saul 2009)."""
    sizes = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    cosine = np.clip(left @ right.T / sizes, -1, 1)
    angle = np.arccos(cosine)
    return sizes * (np.sin(angle) + (math.pi - angle) * cosine) / (2 * math.pi)


def best_subset(each: np.ndarray, with_target: np.ndarray) -> np.ndarray:
    """The subset whose sum is nearest in direction to the target: it maximises c z / sqrt(z G z).

    Args:
        each: Means of products of neurons, G [N, N].
        with_target: Means of products with the target, c [N].

    Returns:
        z, float 0 or 1 [N].
    """
    values, vectors = np.linalg.eigh(each)
    root = np.sqrt(np.maximum(values, 0))
    seen = root > 1e-7 * root.max()
    relaxed, _ = nnls((vectors * root)[:, seen].T, (with_target @ vectors)[seen] / root[seen], maxiter=50 * len(each))
    largest = np.argsort(-relaxed, kind="stable")[: max(int(np.count_nonzero(relaxed)), 1)]
    sums = np.cumsum(with_target[largest])
    sizes = np.cumsum(2 * np.tril(each[np.ix_(largest, largest)]).sum(1) - np.diag(each)[largest])
    rounded = np.zeros(len(each))
    rounded[largest[: 1 + int(np.argmax(sums / np.sqrt(sizes)))]] = 1
    found = [_climbed(each, with_target, start) for start in (np.zeros(len(each)), rounded)]
    return max(found, key=lambda kept: _nearness(with_target @ kept, kept @ each @ kept))


def _nearness(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.where((sums > 0) & (sizes > 0), sums / np.sqrt(np.maximum(sizes, 1e-300)), 0.0)


def _climbed(each: np.ndarray, with_target: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Flip one neuron at a time, or two if no single flip helps, while the subset comes nearer."""
    kept, own, pairs = kept.copy(), np.diag(each), 0
    while True:
        turn = 1 - 2 * kept
        inside, sums = each @ kept, with_target @ kept
        size = kept @ inside
        now = float(_nearness(sums, size)) * (1 + 1e-12)
        more, larger = turn * with_target, 2 * turn * inside + own
        one = _nearness(sums + more, size + larger)
        if one.max() > now:
            kept[one.argmax()] += turn[one.argmax()]
            continue
        if pairs == PAIRS:
            return kept
        pairs += 1
        both = 2 * turn[:, None] * each * turn + larger[:, None] + larger
        two = _nearness(sums + more[:, None] + more, size + both)
        np.fill_diagonal(two, 0.0)
        place = np.unravel_index(two.argmax(), two.shape)
        if two[place] <= now:
            return kept
        kept[list(place)] += turn[list(place)]


def _weights(size: int, candidates: int, seed: int) -> tuple[float, int]:
    """Relative error of the neuron whose weights are subset sums, and its number of kept random weights."""
    wanted = _direction(size, seed)
    objective = ToleranceObjective(TOLERANCE, max_redraws=0)
    ticket = run_in_memory(plan_job(mlp_target([wanted[None]]), Pensia(candidates), objective, seed=seed))
    plus, minus = effective_weights(ticket)["fc1.weight"][:, 0]
    x = np.random.default_rng(seed).normal(size=(INPUTS, size))
    exact = np.maximum(x @ wanted.astype(np.float64), 0)
    found = np.maximum(np.maximum(x, 0) @ plus + np.minimum(x, 0) @ minus, 0)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact)), ticket.kept_weights


def slope(rows: list[dict], size: int, kind: str, key: str = "error") -> float:
    """Decrease of log2 of the median error per doubling of neurons, or per candidate."""
    own = [row for row in rows if (row["kind"], row["size"]) == (kind, size)]
    along = [math.log2(row["hidden"]) if kind == "neurons" else row["candidates"] for row in own]
    return -float(np.polyfit(along, [math.log2(statistics.median(row[key])) for row in own], 1)[0])


def show(rows: Results, console: Console) -> None:
    """The table, the decrease of the errors, and the figure."""
    title = f"relative errors, medians of {len(rows[0]['error'])} draws"
    table = Table("kept", "d", "hidden units", "random weights", "error", "bound of subsets", "kept", title=title)
    for row in rows:
        table.add_row(
            row["kind"],
            str(row["size"]),
            f"{row['hidden']:,}",
            f"{row['hidden'] * (row['size'] + 1):,}",
            f"{statistics.median(row['error']):.2e}",
            f"{statistics.median(row['bound']):.2e}" if "bound" in row else "-",
            f"{statistics.median(row['kept']):g}",
        )
    console.print(table)
    for size in dict.fromkeys(row["size"] for row in rows):
        fall, least, each = (
            slope(rows, size, "neurons"),
            slope(rows, size, "neurons", "bound"),
            slope(rows, size, "weights"),
        )
        console.print(
            f"d = {size}: neurons N^-{fall:.2f} (least squares N^-{least:.2f}), weights 2^-({each:.2f} n)",
            soft_wrap=True,
        )
    write_atomically(rows.path.with_suffix(".png"), _figure(rows))


def _figure(rows: Results) -> bytes:
    """The same errors against hidden units, on a logarithmic axis, where powers are lines, and per input."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9, 3.6), dpi=90, layout="constrained")
    left, right = drawing.subplots(1, 2, sharey=True)
    for size, colour in zip(
        dict.fromkeys(row["size"] for row in rows), ("#0072B2", "#D55E00", "#009E73"), strict=False
    ):
        for kind, key, style in (("neurons", "error", "o-"), ("neurons", "bound", ":"), ("weights", "error", "s--")):
            own = [row for row in rows if (row["kind"], row["size"]) == (kind, size)]
            values = [statistics.median(row[key]) for row in own]
            label = f"{kind}, d = {size}" if key == "error" else None
            left.loglog([row["hidden"] for row in own], values, style, color=colour, markersize=3, label=label)
            right.semilogy([row["hidden"] / size for row in own], values, style, color=colour, markersize=3)
    left.set(xlabel="hidden units", ylabel="relative error", title="powers are lines (dotted: least squares)")
    right.set(xlabel="hidden units / d", xlim=(0, 2 * CANDIDATES[-1] + 4), title="exponentials are lines")
    left.legend(frameon=False, fontsize="small")
    return png_bytes(drawing)


if __name__ == "__main__":
    run_script(Settings, run, show)
