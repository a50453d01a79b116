"""The results of bench_subset_sum.py as tables: lines on the terminal, Markdown, and the blocks of docs/performance.md.

A block of that page begins with a line `<!-- KIND TABLE -->`, for example `<!-- cpu goals -->`, and ends with
`<!-- end -->`; what is between is written here, so that the page quotes nothing but results.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

Found = dict
RESULTS = Path(__file__).parent / "results"
_BLOCK = re.compile(r"(<!-- (cpu|gpu) ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def number(value: float | int | None) -> str:
    """Three significant digits, thousands separated; whole numbers as they are.

    >>> number(2.9753), number(397000), number(1.54e-6), number(123456.7), number(0.0)
    ('2.98', '397,000', '1.54e-06', '123,000', '0')
    >>> number(4.97e10)
    '4.97e+10'
    """
    if value is None:
        return "-"
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    if abs(value) >= 1e9:
        return f"{value:.2e}"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-3 else f"{value:.2e}"


def summary(row: dict) -> str:
    """One row in one line."""
    parts = [f"{row['case']:16} {row['solver']:22.22} n {row['candidates']:<5} {row['weights']:>11,} weights"]
    parts.append(f"{row['seconds']:9.4f} s {row['us_per_weight']:12.3f} us/weight")
    if "first_seconds" in row:
        parts.append(f"first {row['first_seconds']:6.2f} s")
    parts.append(f"mean residual {row['mean_residual']:.2e}  within {row['within']}  kept {row['kept_per_weight']:.3f}")
    if "beyond_jax_gib" in row:
        parts.append(f"beyond JAX {row['beyond_jax_gib']:.3f} GiB")
    if row.get("compilations_again"):
        parts.append(f"COMPILED AGAIN {row['compilations_again']}")
    return "  ".join(parts)


def rows_of(found: Found, prefix: str) -> list[dict]:
    return [row for row in found["rows"] if row["case"].startswith(prefix)]


def compare_with_engine(found: Found) -> None:
    """Tell each peer's row how many times the engine's time per weight it took, if both were in this run."""
    engine = rows_of(found, "least-residual")
    for row in rows_of(found, "peer-") if engine else []:
        if row["case"] != "peer-none":
            row["times_slower"] = row["us_per_weight"] / engine[0]["us_per_weight"]


def _table(header: tuple[str, ...], lines: list[list[str]]) -> str:
    if not lines:
        return "Not in this run.\n"
    rows = [header, ("---",) * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _columns(found: Found, prefix: str, *columns: tuple[str, str]) -> str:
    """A table of the rows of some cases; a column is its heading and the name of its value."""
    lines = [
        [value if isinstance(value := row.get(name), str) else number(value) for _, name in columns]
        for row in rows_of(found, prefix)
    ]
    return _table(tuple(heading for heading, _ in columns), lines)


_TIME = (("us per weight", "us_per_weight"), ("seconds", "seconds"), ("first run, s", "first_seconds"))
_ANSWER = (("mean residual", "mean_residual"), ("worst", "worst_residual"), ("kept per weight", "kept_per_weight"))


def search(found: Found) -> str:
    kinds = ("least-residual", "xla", "smallest", "plain-jax")
    columns = (("search", "solver"), ("n", "candidates"), ("weights", "weights"), *_TIME, *_ANSWER)
    parts = [_columns(found, kind, *columns) for kind in kinds if rows_of(found, kind)]
    return parts[0] + "".join(part.split("\n", 2)[2] for part in parts[1:]) if parts else _table((), [])


def peers(found: Found) -> str:
    columns = (("program", "solver"), ("run as", "way"), ("weights", "weights"), ("us per weight", "us_per_weight"))
    more = (("times the engine's", "times_slower"), ("finished", "finished"))
    return _columns(found, "peer-", *columns, *more, *_ANSWER)


def catalogue(found: Found) -> str:
    columns = (("solver", "solver"), ("n", "candidates"), ("weights", "weights"))
    return _columns(found, "catalogue", *columns, *_TIME, *_ANSWER)


def shared(found: Found) -> str:
    columns = (("candidates", "drawn"), ("weights", "weights"))
    return _columns(found, "shared", *columns, *_TIME, *_ANSWER, ("times faster", "times_faster"))


def _beyond(found: Found, prefix: str) -> str:
    columns = (("n", "candidates"), ("solver", "solver"), ("problems", "weights"), ("us per problem", "us_per_weight"))
    medians = (("log2 of median residual", "log2_median"), ("theory", "theory_log2_median"))
    return _columns(found, prefix, *columns, ("median residual", "median_residual"), *medians)


def exact(found: Found) -> str:
    return _beyond(found, "exact")


def randomized(found: Found) -> str:
    return _beyond(found, "randomized")


def growth(found: Found) -> str:
    memory = (("beyond JAX's own, GiB", "beyond_jax_gib"), ("peak, GiB", "peak_memory_gib"))
    return _columns(found, "growth", ("weights", "weights"), *_TIME, *memory, ("mean residual", "mean_residual"))


def lanes(found: Found) -> str:
    columns = (("operations per weight", "lane_operations"), ("per second", "lane_operations_per_s"))
    peak = (("measured peak", "measured_peak_per_s"), ("share", "share_of_measured_peak"))
    nominal = (("nominal int32 peak", "int32_peak_per_s"), ("share of it", "share_of_int32_peak"))
    of_all = [("search", "case"), ("us per weight", "us_per_weight"), *columns, *peak, *nominal]
    return _columns({"rows": [row for row in found["rows"] if "lane_operations" in row]}, "", *of_all)


def accelerator(found: Found) -> str:
    columns = (("case", "case"), ("solver", "solver"), ("data", "data"), ("weights", "weights"), *_TIME)
    where = (("to the device, s", "to_device_seconds"), ("back, s", "back_seconds"), ("digest, s", "digest_seconds"))
    write = (("write, s", "write_seconds"),)
    return _columns(found, "gpu-", *columns, *where, *write, ("device peak, GiB", "device_peak_gib"), *_ANSWER[:2])


def goals(found: Found) -> str:
    """What was to be reached and what was: only what this run measured."""
    by_case: dict[str, dict] = {}
    for row in found["rows"]:
        by_case.setdefault(row["case"], row)
    lines: list[list[str]] = []

    def goal(what: str, value: float | None, limit: float, unit: str, least: bool = False) -> None:
        if value is not None:
            met = value >= limit if least else value <= limit
            aim = f"at {'least' if least else 'most'} {number(limit)}"
            lines.append([what, aim, f"{number(value)}{unit}", "yes" if met else "no"])

    def of(case: str, name: str) -> float | None:
        return by_case.get(case, {}).get(name)

    if found["backend"] != "cpu":
        for row in rows_of(found, "gpu-experiment"):
            goal(f"Experiment 1, {row['solver']}, data on the {row['data']}", row["seconds"], 0.015, " s")
        goal("GPT-2 small's weights, on disk", of("gpu-transformer", "seconds"), 15, " s")
    else:
        goal("least residual, us per weight", of("least-residual", "us_per_weight"), 3.0, "")
        goal("smallest, us per weight", of("smallest", "us_per_weight"), 1.5, "")
        goal("smallest within 0.001, us per weight", of("smallest-finer", "us_per_weight"), 5.0, "")
    gurobi = rows_of(found, "peer-gurobi")
    if gurobi and "times_slower" in gurobi[0]:
        goal("faster than Gurobi as published, times", gurobi[0]["times_slower"], 1e5, "", least=True)
        fastest = min(row["times_slower"] for row in gurobi)
        goal("faster than Gurobi at its fastest, times", fastest, 1e5, "", least=True)
    if gurobi and of("peer-none", "mean_residual") is not None:
        best = min(row["mean_residual"] for row in gurobi)
        goal("mean residual on Gurobi's instances", of("peer-none", "mean_residual"), best, "")
    for few, many in ((1, 4), (4, 16)):
        times = [of(f"growth-x{size}", "seconds") for size in (few, many)]
        if times[0] and times[1]:
            goal(f"time of x{many} over that of x{few} weights", times[1] / times[0], 4.3, "")
    goal("memory of x16 weights beyond JAX's own, GiB", of("growth-x16", "beyond_jax_gib"), 1.0, "")
    again = [row["compilations_again"] for row in found["rows"] if "compilations_again" in row]
    goal("compilations when repeated", sum(again) if again else None, 0, "")
    return _table(("goal", "aim", "measured", "reached"), lines)


def machine(found: Found) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    parts = [f"{found['device']}; {versions}. Targets: {found['target']}."]
    parts += [f"Left out: {case} ({reason})." for case, reason in found["skipped"].items()]
    parts += [f"Failed: {case} ({reason})." for case, reason in found["failed"].items()]
    return "\n\n".join(parts) + "\n"


TABLES: dict[str, Callable[[Found], str]] = {
    table.__name__: table
    for table in (
        machine,
        goals,
        search,
        peers,
        catalogue,
        shared,
        exact,
        randomized,
        growth,
        lanes,
        accelerator,
    )
}


def tables(found: Found) -> str:
    """All tables of one result, as Markdown."""
    return "\n".join(f"### {name}\n\n{table(found)}" for name, table in TABLES.items())


def fill_blocks(page: str, results: Path = RESULTS) -> str:
    """The page with every block written again from the results."""

    def block(match: re.Match[str]) -> str:
        begin, kind, name, end = match.groups()
        file = results / f"subset_sum_{kind}.json"
        if not file.exists():
            return f"{begin}Not measured yet.\n{end}"
        return f"{begin}{TABLES[name](json.loads(file.read_text()))}{end}"

    return _BLOCK.sub(block, page)
