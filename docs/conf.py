"""The site: the pages beside this file, and the reference out of the docstrings. Building it needs no network."""

from __future__ import annotations

import os
import re
from pathlib import Path

os.environ.setdefault(
    "KERAS_BACKEND", "torch"
)  # the callbacks are documented from the real module, which imports Keras

import keepbest
from keepbest.core.setting import Setting

project = "keepbest"
author = "the authors of keepbest"
project_copyright = "the authors of keepbest, Apache-2.0"
version = release = keepbest.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["requirements.txt"]
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = f"keepbest {release}"
html_show_sourcelink = False

myst_heading_anchors = 4  # links to headings, by the names that GitHub gives them

suppress_warnings = ["misc.highlighting_failure"]  # what is run is Python; the rest may leave out something as …

default_role = "code"  # docstrings write `name`, as Markdown does
autoclass_content = "class"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False


OUTSIDE = {
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "README.md": "index",
}
"""What stands beside the folder of the pages, where people and platforms look for it → its page on the site."""

_ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(([^)\s]+)")


def _read(app, page, source):
    """Show a document from outside in the place of the page that stands for it; links to it lead to that page."""
    shown = next((name for name, stands_for in OUTSIDE.items() if stands_for == page != "index"), None)
    if shown is not None:
        app.env.note_dependency(_ROOT / shown)
        source[0] = _LINK.sub(lambda link: f"]({_from_the_pages(link[1])}", (_ROOT / shown).read_text())
    up = "../" * page.count("/")
    for name, stands_for in OUTSIDE.items():
        source[0] = source[0].replace(f"](../{up}{name}", f"]({up}{stands_for}.md")


def _from_the_pages(target):
    """Return where a link leads that is written for the folder above."""
    if ":" in target or target.startswith("#"):
        return target
    return target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"


def _docstring(app, what, name, obj, options, lines):  # noqa: PLR0913, PLR0917 - Sphinx' signature
    """The tree of errors is drawn with characters, so it is shown as it stands."""
    if name == "keepbest.errors":
        drawn = next(number for number, line in enumerate(lines) if line.startswith("    "))
        lines[drawn:drawn] = ["::", ""]
    _first[name] = lines[0] if lines else ""


def _as_written(app, what, name, obj, options, lines):  # noqa: PLR0913, PLR0917 - Sphinx' signature
    """Napoleon takes "None: no limit." for a type and what it is; our fields have their types as annotations."""
    types = [line for line in lines if line.startswith(":type: ")]
    if what in ("attribute", "property") and types:
        lines.remove(types[0])
        lines[0] = _first[name]


_first: dict[str, str] = {}
"""Name → the first line of its docstring, before Napoleon has it."""


def _signature(app, what, name, obj, options, signature, returns):  # noqa: PLR0913, PLR0917 - Sphinx' own
    """Show a setting's fields and their defaults; their types stand below, one by one."""
    if not (isinstance(obj, type) and issubclass(obj, Setting)):
        return None
    written = [name if facts.is_required() else f"{name}={facts.default!r}" for name, facts in obj.model_fields.items()]
    return f"({', '.join(['*', *written])})", None


def _skip(app, what, name, obj, skip, options):  # noqa: PLR0913, PLR0917 - Sphinx' signature
    """Leave out what pydantic gives every model; the fields are what people set."""
    return True if name.startswith("model_") or name in vars(Setting) else None


def setup(app):
    """Connect them."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before Napoleon
    app.connect("autodoc-process-docstring", _as_written, priority=600)  # after it
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
