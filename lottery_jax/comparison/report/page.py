"""The report page: one self-contained HTML file with a light and a dark theme."""

import base64
from collections.abc import Mapping, Sequence
from html import escape as escape_html
from pathlib import Path
from typing import Any

from lottery_jax.comparison.methods import Method
from lottery_jax.comparison.records import Record
from lottery_jax.comparison.report.figure import figure
from lottery_jax.comparison.report.summary import columns, rows
from lottery_jax.errors import printable
from lottery_jax.io.files import write_atomically

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ddd; --soft: #666; --box: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --paper: #16181d; --line: #3a3d45; --soft: #9a9da5; --box: #20232a; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 88rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line);
         text-align: right; white-space: nowrap; }
th { white-space: pre-line; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--box); padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; }
"""


def write_report(
    folder: Path,
    records: Sequence[Record],
    *,
    title: str,
    lead: str = "",
    configuration: Mapping[str, Any],
    command: str,
    methods: Mapping[str, Method],
    tickets: str = "",
) -> Path:
    """Write ``figure.png`` and ``report.html`` into a run folder; returns the path of the page.

    Args:
        folder: The run folder.
        records: The records to show.
        title: Title of the page. Like every text from outside, it is escaped.
        lead: First paragraph.
        configuration: Settings of the comparison.
        command: The command that repeats the comparison.
        methods: Methods by label, at least those of the records.
        tickets: What is wrong with the tickets of the records.
    """
    shown, light = rows(records), figure(records)
    head, cells, meanings = "", [""] * len(shown), dict[str, str]()
    for column in columns(shown):
        head += f'<th title="{escape(column.meaning)}">{escape(column.heading)}</th>'
        for number, row in enumerate(shown):
            cells[number] += f"<td>{escape(column.cell(row))}</td>"
        meanings[column.name] = column.meaning
    about, sources, made_with, devices = dict[str, str](), dict[str, str](), dict[str, str](), set[str]()
    for record in records:
        about[record.method] = methods[record.method].about
        sources |= {record.method: record.source} if record.source else {}
        devices |= {record.device} if record.device else set()
        made_with |= record.versions
    made_with["device"] = ", ".join(sorted(devices))
    tickets = tickets or "Each ticket is the file that was measured: the record has its SHA-256"
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{escape(lead)}</p>
<picture><source media="(prefers-color-scheme: dark)" srcset="{_data_url(figure(records, dark=True))}"><img width="800"
src="{_data_url(light)}" alt="Test accuracy or metric against kept weights, one line or point per method; the numbers
are in the table below."></picture>
<h2>Results</h2>
<div class="wide"><table>
<thead><tr>{head}</tr></thead>
<tbody>
<tr>{"</tr><tr>".join(cells)}</tr>
</tbody>
</table></div>
<p>{escape(tickets[0].upper() + tickets[1:])}.</p>
<h2>The methods</h2>
{_definitions(about)}
<p>Papers, guarantees, costs and a guide to choosing: <code>docs/methods.md</code> of the repository.</p>
<h2>The columns</h2>
{_definitions(meanings)}
<h2>The kept fraction of each layer</h2>
{_definitions({row.name: layers for row in shown if (layers := row.layers())})}
<h2>The sources</h2>
{_definitions(sources)}
<h2>How to reproduce</h2>
<pre>{escape(command)}</pre>
<p>The same command also resumes a stopped run; finished records are not recomputed.</p>
<h2>Configuration</h2>
{_definitions(configuration)}
<h2>Made with</h2>
{_definitions(made_with)}
</body>
</html>
"""
    write_atomically(folder / "figure.png", light)
    write_atomically(folder / "report.html", text.encode())
    return folder / "report.html"


def escape(text: str) -> str:
    """Text for the page, whose own line ends are kept."""
    return "\n".join(escape_html(printable(line)) for line in text.split("\n"))


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _definitions(items: Mapping[str, Any]) -> str:
    """A definition list; lists are joined by commas."""
    pairs = ""
    for name, value in items.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        pairs += f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
    return f"<dl>{pairs}</dl>"
