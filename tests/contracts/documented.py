"""What docs/buckets.md says, for the tests that hold it to its word."""

from __future__ import annotations

import json
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "buckets.md"

_BLOCK = re.compile(r"^```(\w+) ?([\w-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"(?<!\\)\|")


def blocks(language):
    """Return the page's blocks of code in a language, as (label, code): a block that begins "```json train" has one."""
    return [(label, code) for found, label, code in _BLOCK.findall(PAGE.read_text()) if found == language]


def policies():
    """Return label → statements of each IAM policy on the page, where its bucket stands for every bucket."""
    return {label: json.loads(code.replace("my-bucket", "*"))["Statement"] for label, code in blocks("json") if label}


def table(column, label=r"\*\*(.+?)\*\*"):
    """Return the rows of the first table that has such a column: the label of the row → column → cell.

    Args:
        column: as it stands in the header.
        label: a regular expression with one group, found in the first cell; else what is bold there.
    """
    lines = PAGE.read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("|") and f"| {column} |" in line)
    header = _cells(lines[begin])
    rows = {}
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        cells = _cells(line)
        rows[re.search(label, cells[0])[1]] = dict(zip(header[1:], cells[1:], strict=True))
    return rows


def _cells(line):
    return [cell.strip() for cell in _CELL.split(line)[1:-1]]
