"""docs/claims.md says what the results in the repository say, and each of its commands is one of the repository's."""

import json
import re
import runpy
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "claims.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if re.match(r"\| [A-Z]", line)
]


def stated(name: str, row: dict) -> bool:
    """Whether the page has the row; of the grid it has what is trained with few weights, and the best mask alone."""
    if name != "zhou_grid":
        return True
    alone = row["keep"] == 0.2 and row["criterion"] == "large_final_same_sign"
    return row["keep"] == 0.05 if row["trained"] else alone


def means(name: str, *keys: str) -> dict[tuple, str]:
    """Mean accuracies in % over seeds, by what a result is for, as the page writes them."""
    rows = [json.loads(line) for line in (ROOT / "experiments" / "results" / f"{name}.jsonl").read_text().splitlines()]
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        if not stated(name, row):
            continue
        groups.setdefault(tuple(row[key] for key in keys), []).append(100 * row["accuracy"])
    return {group: f"{statistics.fmean(values):.2f}" for group, values in groups.items()}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("zhou_supermasks", ("row",)),
        ("zhou_supermasks_rescaled", ("row",)),
        ("zhou_grid", ("trained", "criterion", "kept_weights", "pruned_weights")),
        ("frankle_carbin_lenet", ("method", "keep")),
        ("frankle_carbin_conv", ("network", "method", "keep")),
        ("frankle_carbin_deep", ("learning_rate", "warmup", "rewind", "method", "keep")),
        ("ramanujan_curves", ("network", "weights", "width", "keep")),
        ("pensia_experiment_2", ("architecture", "network", "keep")),
    ],
)
def test_obtained_numbers_are_those_of_the_results(name: str, keys: tuple[str, ...]) -> None:
    (first, *_) = (ROOT / "experiments" / "results" / f"{name}.jsonl").read_text().splitlines()
    made, script = json.loads(first), name.removesuffix("_rescaled")
    (row,) = (row for row in ROWS if f"experiments/{script}.py" in row[1] and f"--scale {made['scale']:g}" in row[1])
    found = re.findall(r"\d+\.\d\d\b", row[4])
    assert found == list(means(name, *keys).values())
    assert f"{made['epochs']} epochs" in row[5]


def test_every_claim_has_a_command_of_the_repository() -> None:
    assert len(ROWS) >= 3 and all(len(row) == 6 and all(row) for row in ROWS)
    for row in ROWS:
        for path in re.findall(r"(?:experiments|benchmarks)/\w+\.py", row[1]):
            assert (ROOT / path).is_file(), path
    names = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert names <= set(re.findall(r"experiments/(\w+)\.py", PAGE)), "an experiment without a row"


SAID = {(148, "log10_counted")} | {(w, f"log10_{k}") for w in (592, 1184) for k in ("exponential", "normal")}


def test_draws_until_one_is_as_good_are_those_of_the_results() -> None:
    (row,) = (row for row in ROWS if "experiments/tickets_to_buy.py" in row[1])
    lines = (ROOT / "experiments" / "results" / "tickets_to_buy.jsonl").read_text().splitlines()
    made = [json.loads(line) for line in lines]
    powers = [
        f"10^{one[key]:.1f}"
        for one in made
        for key in ("log10_counted", "log10_exponential", "log10_normal")
        if one[key] is not None and (one["weights"], key) in SAID
    ]
    assert re.findall(r"10\^[\d.]+\d", row[4]) == powers
    tickets = [f"{100 * statistics.fmean(one['ticket_accuracy']):.1f} %" for one in made[1:]]
    assert re.findall(r"\d+\.\d %", row[4])[:4] == tickets


def test_smaller_tickets_are_those_of_the_results() -> None:
    (row,) = (row for row in ROWS if "experiments/smaller_tickets.py" in row[1])
    lines = (ROOT / "experiments" / "results" / "smaller_tickets.jsonl").read_text().splitlines()
    means = runpy.run_path(str(ROOT / "experiments" / "smaller_tickets.py"))["means"]
    found: dict[str, list[str]] = {}
    bits = []
    for method, kept, own in means([json.loads(line) for line in lines]):
        mean = 100 * statistics.fmean(one["accuracy"] for one in own)
        found.setdefault(method, []).append(f"{mean:.2f} % at {kept:,}")
        assert len(own) == (1 if method in ("target-pruned", "edge-popup-wide") else 3)
        if method.startswith("sparse"):
            bits.append(f"{statistics.fmean(one['bits'] for one in own) / 1000:.0f}")
    order = ("loss-aware", "budget", "target-pruned", "edge-popup-wide", "sparse target, loss-aware")
    assert re.findall(r"\d+\.\d\d % at [\d,]*\d", row[4]) == [one for method in order for one in found[method]]
    assert f"in {', '.join(bits)} thousand bits" in row[4]
    page = " ".join((ROOT / "docs" / "commands.md").read_text().split())
    assert all(one in page for one in found["sparse target, loss-aware"])


def test_neurons_beside_weights_are_those_of_the_results() -> None:
    (row,) = (row for row in ROWS if "experiments/malach_neurons.py" in row[1])
    lines = (ROOT / "experiments" / "results" / "malach_neurons.jsonl").read_text().splitlines()
    made = [json.loads(line) for line in lines]
    slope = runpy.run_path(str(ROOT / "experiments" / "malach_neurons.py"))["slope"]
    errors = {(one["kind"], one["size"], one["hidden"]): statistics.median(one["error"]) for one in made}
    ends = [f"{errors['neurons', size, hidden]:.3f}" for size in (4, 8, 16) for hidden in (16, 1024)]
    assert re.findall(r"\b\d\.\d{3}\b", row[4]) == ends
    falls = [f"N^-{slope(made, size, 'neurons', key):.2f}" for key in ("error", "bound") for size in (4, 8, 16)]
    assert re.findall(r"N\^-\d\.\d\d", row[4]) == falls
    assert re.findall(r"\de-\d\d|\d\.\de-\d\d", row[4]) == [f"{errors['weights', d, 40 * d]:.1e}" for d in (4, 8, 16)]
    page = " ".join((ROOT / "docs" / "theory.md").read_text().split())
    assert f"falls no faster than {falls[3]} at d = 4, and {falls[5]} at d = 16" in page
    halved = ", ".join(f"{1 / slope(made, size, 'weights'):.1f}" for size in (4, 8, 16))
    assert f"halved by each {halved} candidates" in row[4]
    assert all(bound <= error for one in made for bound, error in zip(one.get("bound", ()), one["error"], strict=False))
    assert f"{len(made[0]['error'])} draws" in row[5]
