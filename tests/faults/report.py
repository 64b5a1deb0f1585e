"""Report: the rows of all families as a table in the terminal, as JSON, and as the tables of `docs/faults.md`."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from faults.tally import HARMS, Tally
from rich.console import Console
from rich.table import Table

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- begin: {} -->", "<!-- end: {} -->"


def show(rows: Sequence[Tally], *, seconds: float) -> None:
    """Print the table, and each finding in words."""
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(title=f"{sum(row.tried for row in rows):,} faults in {seconds:.0f} s", title_justify="left")
    for name in ("subject", "family", "scenario"):
        table.add_column(name, overflow="fold")
    for name in ("tried", *HARMS):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row.subject, row.family, row.scenario, *_figures(row), style=None if row.harmless else "bold")
    console.print(table)
    for row in rows:
        for finding in row.findings:
            console.print(f"{row.subject}, {row.family}, {row.scenario}: {finding}", markup=False, highlight=False)
    own = [row for row in rows if row.subject == "keepbest"]
    harm = {name: sum(row.harm[name] for row in own) for name in HARMS}
    told = ", ".join(f"{count:,} {name}" for name, count in harm.items())
    console.print(f"keepbest: {sum(row.tried for row in own):,} faults: {told}", highlight=False)


def write_docs(rows: Sequence[Tally], *, command: str) -> None:
    """Put these rows in place of those of the same families, in `docs/faults.json` and the tables of `docs/faults.md`.

    The file says of each family which run it is from.
    """
    anew = list(dict.fromkeys(row.family for row in rows))
    run = {
        "command": command,
        "families": anew,
        "machine": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "keepbest": metadata.version("keepbest"),
    }
    found = json.loads((DOCS / "faults.json").read_text())
    before = [Tally.from_json(row) for row in found["rows"]]
    families = dict.fromkeys(row.family for row in [*before, *rows])
    rows = [row for family in families for row in (rows if family in anew else before) if row.family == family]
    older = [{**one, "families": [each for each in one["families"] if each not in anew]} for one in found["runs"]]
    runs = [*(one for one in older if one["families"]), run]
    facts = {"runs": runs, "rows": [row.to_json() for row in rows]}
    (DOCS / "faults.json").write_text(json.dumps(facts, indent=1) + "\n")
    page = DOCS / "faults.md"
    text = page.read_text()
    own = [row for row in rows if row.subject == "keepbest" and row.family != "peers"]
    peers = [row for row in rows if row.family == "peers"]
    for name, part in (("keepbest", own), ("peers", peers)):
        if part:
            text = _between(text, name, _markdown(part, subjects=name == "peers"))
    page.write_text(text)


def _between(text: str, name: str, inside: str) -> str:
    before, begin, rest = text.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    if not begin or not end:
        raise ValueError(f"docs/faults.md has no marks for {name!r}")
    return f"{before}{begin}\n{inside}{end}{after}"


def _markdown(rows: Sequence[Tally], *, subjects: bool) -> str:
    names = [*(["library"] if subjects else ["faults"]), "what was done", "tried", *HARMS]
    lines = ["| " + " | ".join(names) + " |", "|---|---|" + "---:|" * (1 + len(HARMS))]
    for row in rows:
        first = row.subject if subjects else row.family
        remark = f" ({row.remark})" if row.remark else ""
        lines.append("| " + " | ".join([first, row.scenario + remark, *_figures(row)]) + " |")
    return "\n".join(lines) + "\n"


def _figures(row: Tally) -> list[str]:
    return [f"{row.tried:,}", *(f"{row.harm[name]:,}" if row.harm[name] else "-" for name in HARMS)]
