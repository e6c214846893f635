"""The report as one HTML page: no script, no network, figures inside; every text is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsim_llm.benchmarks.harness.results import METRICS, Results
from recsim_llm.errors import require

if TYPE_CHECKING:
    from recsim_llm.benchmarks.analysis.leaderboard import Leaderboard

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_MAX_FAILURES = 50
_CAPTIONS = {
    "reward_curves": "Return per episode over the interactions that agents learned from, one panel per scenario",
    "scores": "Normalised score of every agent with its interval",
}
_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem; } .lead { font-size: 1.1rem; }
.warning { border-left: .3rem solid #d55e00; background: var(--soft); padding: .4rem .8rem; margin: .4rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; background: #fff; color: #000; border-radius: .3rem; padding: .5rem; }
figure svg { max-width: 100%; height: auto; } figcaption { font-size: .85rem; }
pre { background: var(--soft); padding: .6rem; overflow-x: auto; }
@media print { body { max-width: none; margin: 0; } figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<h1>{{ name }}</h1>
<p class="lead">{{ board.headline }}</p>
{% for warning in board.warnings %}<p class="warning">{{ warning }}</p>
{% endfor %}
{% for table in tables %}<h2>{{ table.title }}</h2>
<div class="wide"><table>
<thead><tr>{% for header in table.headers %}<th scope="col">{{ header }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr>
{%- for text, best in row %}<td>{% if best %}<b>{{ text }}</b>{% else %}{{ text }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
<p>{{ table.footnote }}</p>
{% endfor %}
{% for caption, svg in figures %}<figure role="img" aria-label="{{ caption }}">{{ svg }}<figcaption>{{ caption }}.
</figcaption></figure>
{% endfor %}
{% if failures %}<h2>Failed runs</h2>
{% for row in failures %}
<p>{{ row.cell.label }}: {{ row.state }}, {{ row.result.error_type }}: {{ row.result.error }}</p>
<pre>{{ row.result.last_lines | join("\\n") }}</pre>
{% endfor %}{% endif %}
<h2>How to reproduce</h2>
<div class="wide"><table><tbody>
{% for name, value in facts %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}</tbody></table></div>
<h2>Glossary</h2>
<dl>{% for name, meaning in glossary %}<dt><b>{{ name }}</b></dt><dd>{{ meaning }}</dd>{% endfor %}</dl>
</body>
</html>
"""


@dataclass(frozen=True)
class PageTable:
    """A table: title, column headers, texts (each with whether it is the best of its column), and what stands below."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[tuple[str, bool]]]
    footnote: str


def page(results: Results, board: Leaderboard, tables: Sequence[PageTable], figures: Sequence[Path]) -> str:
    """The report as HTML.

    Args:
        results: The results.
        board: Their leaderboard.
        tables: The tables to show.
        figures: Files of the figures; the SVG ones are put inside.

    Raises:
        MissingExtraError: If Jinja2 is not installed.
    """
    jinja2 = require("jinja2", "benchmarks")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    text: str = environment.from_string(_TEMPLATE).render(
        policy=_POLICY,
        name=results.experiment.name,
        board=board,
        tables=tables,
        figures=[(_CAPTIONS.get(p.stem, p.stem), _inline(p, jinja2)) for p in figures if p.suffix == ".svg"],
        failures=results.failed[:_MAX_FAILURES],
        facts=_facts(results),
        glossary=list(METRICS.items()),
    )
    return text


def _inline(path: Path, jinja2: Any) -> Any:
    """An SVG file of our own making as part of a page: without its prologue, its names made unique to it."""
    svg = path.read_text(encoding="utf-8")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{path.stem}-", svg)
    return jinja2.utils.markupsafe.Markup(svg)


def _facts(results: Results) -> list[tuple[str, object]]:
    experiment, header = results.experiment, results.header
    facts: list[tuple[str, object]] = [
        ("scenarios", ", ".join(experiment.scenarios)),
        ("seeds", ", ".join(map(str, experiment.seeds))),
        ("interactions for learning", f"{experiment.budget:,}"),
        ("evaluation episodes", experiment.episodes),
        ("experiment digest", header.get("digest")),
        ("begun", header.get("created")),
    ]
    for group in ("versions", "machine"):
        content = header.get(group)
        if isinstance(content, dict):
            facts += [(name, value) for name, value in content.items() if value is not None]
    return facts
