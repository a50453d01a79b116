"""The report page: one HTML file that needs nothing outside itself, light or dark as its reader's screen."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lottery_jax.comparison.records import Record
from lottery_jax.comparison.report.figure import figure
from lottery_jax.comparison.report.summary import columns, heading, rows
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


def page(
    records: Sequence[Record],
    *,
    title: str,
    configuration: Mapping[str, Any],
    command: str,
    lead: str = "",
    methods: Mapping[str, str] | None = None,
) -> str:
    """The whole report as one HTML page; every text from outside is escaped. methods: what each of them does.

    >>> "<b>" in page([], title="<b>", configuration={}, command="lottery-jax compare")
    False
    """
    shown = rows(records)
    head = "".join(f'<th title="{escape(meaning)}">{escape(heading(name))}</th>' for name, meaning, _ in columns(shown))
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(show(row))}</td>" for _, _, show in columns(shown)) + "</tr>\n" for row in shown
    )
    sources = {record.method: record.source for record in records if record.source}
    devices = sorted({record.device for record in records if record.device})
    versions = {name: version for record in records for name, version in record.versions.items()}
    return f"""<!DOCTYPE html>
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
{_picture(records)}
<h2>Results</h2>
<div class="wide"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}</tbody>
</table></div>
<h2>The methods</h2>
{_definitions(methods or {})}
<p>Papers, promises, costs, and when to use which: <code>docs/methods.md</code> of the repository.</p>
<h2>The columns</h2>
{_definitions({name: meaning for name, meaning, _ in columns(shown)})}
<h2>The kept fraction of each layer</h2>
{_definitions({row.name: layers for row in shown if (layers := row.layers())})}
<h2>The sources</h2>
{_definitions(sources)}
<h2>How to reproduce</h2>
<pre>{escape(command)}</pre>
<p>The same command also goes on where a stopped run was left: what is recorded is never run again.</p>
<h2>Configuration</h2>
{_definitions(configuration)}
<h2>Made with</h2>
{_definitions({**versions, "device": ", ".join(devices)})}
</body>
</html>
"""


def _picture(records: Sequence[Record]) -> str:
    light, dark = (
        "data:image/png;base64," + base64.b64encode(figure(records, dark=dark)).decode() for dark in (False, True)
    )
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img width="800" src="{light}" alt="Test accuracy against kept weights, one line or point for each'
        ' method; the numbers are in the table below."></picture>'
    )


def _definitions(items: Mapping[str, Any]) -> str:
    def shown(value: Any) -> str:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(shown(value))}</dd>" for name, value in items.items())
    return f"<dl>{pairs}</dl>"


def write_report(
    folder: Path,
    records: Sequence[Record],
    *,
    title: str,
    configuration: Mapping[str, Any],
    command: str,
    lead: str = "",
    methods: Mapping[str, str] | None = None,
) -> Path:
    """Write `figure.png` and `report.html` into a run folder; returns the page's path."""
    text = page(records, title=title, configuration=configuration, command=command, lead=lead, methods=methods)
    write_atomically(folder / "figure.png", figure(records))
    write_atomically(folder / "report.html", text.encode())
    return folder / "report.html"
