"""Write messages.md: every error and every warning, out of the sources themselves. `python docs/messages.py --write`.

It reads the sources and runs nothing of them, so it needs nothing installed. Without `--write` it says whether the page
is up to date.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "messages.md"
ROOMS = ("core", "storage", "adapters", "cli")
WARN = {"warn_caller", "warn"}
PROBLEMS = ("problem", "found")
"""What constructors call an argument that says in words what is wrong."""
HOMES = ("base", "settings", "metrics", "states", "runs", "damage", "foreign", "stores", "saves")
"""The files of errors/, in the order of the page."""

TOP = """\
<!-- Made by docs/messages.py out of the sources: do not edit it here. -->

# Messages

Every error and every warning of keepbest: when it comes, what it means, and what to do. In the texts, `{…}` stands for
what differs from case to case; search for the words around it.

Every error is a `keepbest.KeepbestError`, and each can be imported from `keepbest.errors`. An error also is the builtin
that is named behind it, so `except FileNotFoundError` and the like work. What an error knows it carries as attributes.
"""

WARNINGS = """\
## Warnings

Training goes on after a warning. They are Python's own (`UserWarning`), and name the line of your program that led to
them; `warnings.filterwarnings("error", module=…)` makes errors of them. What `ModelCheckpoint` warns of in what it
monitors is Keras' own, word for word, and not listed here.

| text | from |
|---|---|
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of errors, as its source has it."""

    name: str
    home: str
    bases: tuple[str, ...]
    meaning: str
    when: str
    do: str
    attributes: dict[str, str]
    """Name → type, as far as the constructor says it."""
    text: str | None
    """None: whoever raises it gives the text."""
    told: int | None
    """Which argument, from 0, says in words what is wrong; None: the constructor knows it all."""
    raised: list[tuple[str, str]] = field(default_factory=list)
    """What is given there: (text, file)."""


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/messages.md")
    made = page()
    if parser.parse_args(arguments).write:
        PAGE.write_text(made)
        return 0
    if PAGE.read_text() == made:
        return 0
    sys.stderr.write("docs/messages.md is not up to date. Write it anew: python docs/messages.py --write\n")
    return 1


def page() -> str:
    """Return the page as the sources would have it."""
    kinds = {kind.name: kind for home in HOMES for kind in _kinds(home)}
    warnings = []
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text())
        constants = _constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and _warns(node.func):
                said = node.args[0]
                warnings.append((constants.get(_called(said)) or _text(said), file))
            elif isinstance(node, ast.Call):
                kind = kinds.get(_called(node.func))
                if kind is not None and kind.told is not None and kind.told < len(node.args):
                    kind.raised.append((_text(node.args[kind.told]), file))
    parts = [TOP, *(_section(kind, kinds) for kind in kinds.values())]
    return "\n".join([*parts, WARNINGS + "".join(f"{row}\n" for row in _rows(warnings))])


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _kinds(home: str) -> Iterator[Kind]:
    for node in ast.parse((ROOT / "errors" / f"{home}.py").read_text()).body:
        if isinstance(node, ast.ClassDef):
            meaning, *lines = (ast.get_docstring(node) or "").split("\n\n")
            said = dict(line.replace("\n", " ").split(": ", 1) for line in lines if ": " in line)
            attributes, text, told = _constructor(node)
            yield Kind(
                name=node.name,
                home=home,
                bases=tuple(base.id for base in node.bases if isinstance(base, ast.Name)),
                meaning=meaning.replace("\n", " "),
                when=said.get("When", ""),
                do=said.get("Do", ""),
                attributes=attributes,
                text=text,
                told=told,
            )


def _constructor(node: ast.ClassDef) -> tuple[dict[str, str], str | None, int | None]:
    init = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    if init is None:
        return {}, None, 0
    names = [argument.arg for argument in init.args.args[1:]]
    types = {
        argument.arg: ast.unparse(argument.annotation)
        for argument in [*init.args.args, *init.args.kwonlyargs]
        if argument.annotation is not None
    }
    attributes, text = {}, None
    for item in ast.walk(init):
        if isinstance(item, ast.Assign):
            targets = item.targets[0].elts if isinstance(item.targets[0], ast.Tuple) else item.targets
            values = item.value.elts if isinstance(item.value, ast.Tuple) else [item.value]
            for target, value in zip(targets, values, strict=False):
                if isinstance(target, ast.Attribute) and target.attr not in ("args", "__cause__"):
                    attributes[target.attr] = _type(value, types)
                elif isinstance(target, ast.Name) and target.id == "text":
                    text = _text(value)
        elif isinstance(item, ast.Call) and _called(item.func) == "__init__" and item.args and text is None:
            text = ": ".join(_text(argument) for argument in item.args)
    return attributes, text, next((at for at, name in enumerate(names) if name in PROBLEMS), None)


def _type(value: ast.expr, types: dict[str, str]) -> str:
    if isinstance(value, ast.Name):
        return types.get(value.id, "str")
    return "tuple" if isinstance(value, ast.Call) and _called(value.func) == "tuple" else "str"


def _warns(function: ast.expr) -> bool:
    """Say whether a call warns: at once, or by a notice that training is given when it comes by."""
    later = isinstance(function, ast.Attribute) and function.attr == "append" and _called(function.value) == "notices"
    return later or _called(function) in WARN


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the texts that have a name of their own in a file."""
    return {
        target.id: _text(item.value)
        for item in tree.body
        if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant | ast.JoinedStr | ast.BinOp)
        for target in item.targets
        if isinstance(target, ast.Name)
    }


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _text(node: ast.expr) -> str:
    """Return a text as the source has it: names in braces, and `{…}` for what is longer than a name."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        value = node.value.left if isinstance(node.value, ast.BinOp) else node.value  # an epoch is shown from 1
        return f"{{{_called(value) or '…'}}}"
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return f"{{{_called(node) or '…'}}}"


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _section(kind: Kind, kinds: dict[str, Kind]) -> str:
    depth = len(list(_line(kind, kinds)))
    builtin = [base for base in kind.bases if base not in kinds and base != "Exception"]
    title = f"{'#' * min(depth + 1, 4)} {kind.name}" + (f" ({', '.join(builtin)})" if builtin else "")
    lines = [title, "", _escaped(kind.meaning), ""]
    lines += [f"- **When**: {_escaped(kind.when)}"] if kind.when else []
    lines += [f"- **What to do**: {_escaped(kind.do)}"] if kind.do else []
    parent = next((base for base in kind.bases if base in kinds), None)
    lines += [f"- **Is a**: `{parent}`"] if parent not in (None, "KeepbestError") else []
    attributes = {
        name: type_ for above in reversed(list(_line(kind, kinds))) for name, type_ in above.attributes.items()
    }
    if attributes:
        lines.append("- **Attributes**: " + ", ".join(f"`{name}: {type_}`" for name, type_ in attributes.items()))
    if kind.text is not None:
        lines.append(f"- **Text**: {_escaped(_one_line(kind.text))}")
    rows = _rows(kind.raised)
    if rows:
        lines += ["", f"| {'text' if kind.text is None else 'what is wrong'} | from |", "|---|---|", *rows]
    return "\n".join(lines).rstrip() + "\n"


def _rows(said: list[tuple[str, str]]) -> list[str]:
    """Return a row for each text, with the files that it comes from; what has no two words in it is no text."""
    files: dict[str, set[str]] = {}
    for text, file in said:
        if re.search(r"\w \w", text):
            files.setdefault(_cell(text), set()).add(f"`{file}`")
    return [f"| {text} | {', '.join(sorted(files[text]))} |" for text in sorted(files)]


def _line(kind: Kind, kinds: dict[str, Kind]) -> Iterator[Kind]:
    """Yield the kind and what it descends from."""
    above: Kind | None = kind
    while above is not None:
        yield above
        above = next((kinds[base] for base in above.bases if base in kinds), None)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _escaped(_one_line(text)).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Return the text with what Markdown would take for its own, outside of `code`, made plain."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else re.sub(r"([*_<>\[\]])", r"\\\1", piece) for piece in pieces)


if __name__ == "__main__":
    sys.exit(main())
