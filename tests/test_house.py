"""The house: arrows go down only, the facade is complete and light, frameworks stay in their adapters."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import keepbest
from keepbest import errors

ROOT = Path(keepbest.__file__).parent
FLOORS = {"errors": 0, "storage": 1, "core": 2, "adapters": 3, "cli": 4}
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "jaxlib", "torchdata"}
SOURCES = sorted(path for folder in FLOORS if folder != "errors" for path in (ROOT / folder).rglob("*.py"))


def imports(path):
    """Yield (line, module) for each import; modules of ours begin with their folder."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.lineno, node.module
                continue
            inside = path.relative_to(ROOT).parts[: -node.level]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node.lineno, ".".join([*inside, name])) for name in names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_down(path):
    """No file imports from a floor above its own, and none reaches past the relative import."""
    here = FLOORS[path.relative_to(ROOT).parts[0]]
    for line, module in imports(path):
        top = module.split(".")[0]
        assert top != "keepbest", f"{path}:{line}: import it relatively"
        if top in FLOORS:
            assert FLOORS[top] <= here, f"{path}:{line}: imports {module}, which is above"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_frameworks_stay_in_their_adapters(path):
    """Only an adapter imports a framework, and adapters do not import one another."""
    parts = path.relative_to(ROOT).parts
    own = Path(parts[1]).stem if parts[0] == "adapters" else None
    for line, module in imports(path):
        top = module.split(".")[0]
        assert own or top not in FRAMEWORKS, f"{path}:{line}: imports {module}"
        if own and own != "__init__" and top == "adapters":
            assert module.split(".")[1] == own, f"{path}:{line}: imports {module}, another adapter"


def test_import_is_light():
    """`import keepbest`, and opening a run with it, imports no framework."""
    script = (
        "import sys, keepbest; first = set(sys.modules); keepbest.open_run; print(sorted(first), sorted(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    loaded = set(ast.literal_eval(printed.split("] [")[0] + "]"))
    later = set(ast.literal_eval("[" + printed.split("] [")[1]))
    assert not FRAMEWORKS & later
    assert not {"numpy", "pydantic", "fsspec"} & loaded


def test_the_facade_offers_what_it_names():
    """Every name of `__all__` can be had, is documented, and is in `dir`."""
    for name in keepbest.__all__:
        assert inspect.getdoc(getattr(keepbest, name)), name
    assert set(keepbest.__all__) <= set(dir(keepbest))
    with pytest.raises(AttributeError, match="no attribute 'Chekpointer'"):
        keepbest.Chekpointer  # noqa: B018 - the access is the test


def error_classes():
    return [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, Exception)]


def test_every_error_is_a_keepbest_error_and_stands_in_the_picture():
    """The tree at the top of errors.py shows every class, with the builtin it also is."""
    for kind in error_classes():
        assert issubclass(kind, errors.KeepbestError)
        assert f" {kind.__name__}" in errors.__doc__, kind.__name__
        builtin = [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins" and base is not Exception]
        for name in builtin:
            assert f"{kind.__name__} ({name})" in errors.__doc__, f"{kind.__name__} ({name})"


def test_every_source_file_says_what_it_is():
    """Each file opens with a sentence, and none is too long to hold in the head."""
    for path in SOURCES:
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), path
        assert text.count("\n") < 500, path


def test_every_test_states_its_promise():
    """Each test has a sentence that says what the user is owed."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path}:{node.lineno}"
