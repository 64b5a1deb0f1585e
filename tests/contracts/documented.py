"""What the documents say, for the tests that hold them to their word: README, what stands beside it, and docs/."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "buckets.md"

_BLOCK = re.compile(r"^```(\w+) ?([\w-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CELL = re.compile(r"(?<!\\)\|")
_FENCE = re.compile(r"(?P<indent> *)(?P<fence>```+|~~~+)(?P<language>[^\s`]*) ?(?P<label>[^`]*)")
_EXCUSE = re.compile(r"<!-- not run: (.+) -->")
_INDENTED = re.compile(r" {4}keepbest ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A piece of a page that stands in a fence, or an indented line that calls `keepbest`."""

    line: int
    """Of the page, from 1: that of its first line of code."""
    language: str
    """"python", "sh", "text", …; "sh" for an indented line."""
    label: str
    """What stands behind the language: the file that the code is saved as, or "tree"."""
    code: str
    excuse: str | None
    """Why it is not run: what `<!-- not run: … -->` in the line before says."""


def pages():
    """Return every document that people read: those beside README.md, and all below docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def name(page):
    """Return a page's path as people write it."""
    return page.relative_to(ROOT).as_posix()


def snippets(page):
    """Return what stands in fences on a page, and its indented calls of `keepbest`, in their order."""
    found, before, last = [], "", 0
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.fullmatch(lines[number])
        if fence is not None:
            begin = number + 1
            number = next(at for at in range(begin, len(lines)) if lines[at].strip() == fence["fence"])
            excuse = _EXCUSE.fullmatch(before.strip())
            found.append(
                Snippet(
                    line=begin + 1,
                    language=fence["language"],
                    label=fence["label"].strip(),
                    code="".join(f"{line.removeprefix(fence['indent'])}\n" for line in lines[begin:number]),
                    excuse=excuse and excuse[1],
                )
            )
        elif _INDENTED.match(lines[number]) and (number == last + 1 or not lines[number - 1].strip()):
            found.append(Snippet(line=number + 1, language="sh", label="", code=f"{lines[number][4:]}\n", excuse=None))
        if lines[number].startswith("    "):
            last = number
        before = lines[number]
        number += 1
    return found


def prose(page):
    """Return the text of a page without what stands in fences."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def blocks(language):
    """Return docs/buckets.md's blocks of code in a language, as (label, code): "```json train" has one."""
    return [(label, code) for found, label, code in _BLOCK.findall(PAGE.read_text()) if found == language]


def policies():
    """Return label → statements of each IAM policy on the page, where its bucket stands for every bucket."""
    return {label: json.loads(code.replace("my-bucket", "*"))["Statement"] for label, code in blocks("json") if label}


def table(column, label=r"\*\*(.+?)\*\*", page=PAGE):
    """Return the rows of the first table that has such a column: the label of the row → column → cell.

    Args:
        column: as it stands in the header.
        label: a regular expression with one group, found in the first cell; else what is bold there.
        page: docs/buckets.md, unless another one is meant.
    """
    lines = page.read_text().splitlines()
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
