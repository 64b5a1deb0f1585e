"""What `--write-docs` writes: the samples as JSON, the picture, and what was printed, between two marks in the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from local import LARGE, Found
from measure import console

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN = "<!-- begin: python benchmarks/run.py --write-docs -->\n"
END = "<!-- end -->\n"
PICTURE = "![How long each way to save holds training, and how long until it is durable](benchmarks.svg)"


def halves() -> tuple[str, str]:
    """Return the page before and after what is replaced.

    Raises:
        SystemExit: it has no such marks.
    """
    page = DOCS / "benchmarks.md"
    before, mark, rest = page.read_text().partition(BEGIN)
    _, closing, after = rest.partition(END)
    if not mark or not closing:
        raise SystemExit(f"{page} has no line {BEGIN.strip()} with {END.strip()} after it: put them in.")
    return before, after


def write(parts: Mapping[str, Found], machine: Mapping[str, str], command: str) -> None:
    """Replace the three."""
    from picture import draw

    before, after = halves()
    printed = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    shown = f"{PICTURE}\n\n[All samples](benchmarks.json)\n\n```\n$ {command}\n{printed}\n```"
    (DOCS / "benchmarks.md").write_text(f"{before}{BEGIN}\n{shown}\n\n{END}{after}")
    draw(parts[LARGE], DOCS / "benchmarks.svg")
    found = {title: {"samples": part.results, "failed": part.failed} for title, part in parts.items()}
    record = {"command": command, "machine": dict(machine), "units": "seconds and bytes", "parts": found}
    (DOCS / "benchmarks.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
