"""The house: arrows go down only and in no circles, the facade is complete and light, frameworks stay in adapters."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import keepbest
from keepbest import errors

ROOT = Path(keepbest.__file__).parent
FLOORS = {"errors": 0, "storage": 1, "core": 2, "adapters": 3, "cli": 4}
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "jaxlib", "torchdata"}
SOURCES = sorted(path for room in FLOORS for path in (ROOT / room).rglob("*.py"))
NO_ROOMS = {"benchmarks", "docs", "examples", "shared", "tests"}
"""Folders beside the rooms that have Python files and are not installed."""

BACK_LATER = {("cli", "cli.app")}
"""Arrows that close a circle, within a function: a facade that opens the door."""


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


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class ForTypesOnly(ast.NodeTransformer):
    """Takes out what only a type checker reads."""

    def visit_If(self, node):
        test = ast.unparse(node.test)
        return node.orelse if test in {"TYPE_CHECKING", "typing.TYPE_CHECKING"} else self.generic_visit(node)


def arrows(path, modules):
    """Return the modules of ours that a file imports when it is read or later, for types alone left out."""
    found = set()
    for node in ast.walk(ForTypesOnly().visit(ast.parse(path.read_text()))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = [*path.relative_to(ROOT).parts[: -node.level], *(node.module.split(".") if node.module else [])]
        for alias in node.names:
            submodule = ".".join([*base, alias.name])
            found.add(submodule if submodule in modules else ".".join(base))
    return found & modules - {module_of(path)}


def circle(graph):
    """Return modules that import one another, each the next and the last the first; empty if there are none."""
    done = set()

    def walk(module, way):
        if module in way:
            return way[way.index(module) :]
        if module not in done:
            for other in sorted(graph.get(module, ())):
                if found := walk(other, [*way, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_go_down(path):
    """No file imports from a floor above its own, and none reaches past the relative import."""
    here = FLOORS[path.relative_to(ROOT).parts[0]]
    for line, module in imports(path):
        top = module.split(".")[0]
        assert top != "keepbest", f"{path}:{line}: import it relatively"
        if top in FLOORS:
            assert FLOORS[top] <= here, f"{path}:{line}: imports {module}, which is above"


@pytest.mark.parametrize("room", FLOORS)
def test_no_room_runs_in_circles(room):
    """Within a room, too, imports go one way: whoever reads a module has an order to read the others in."""
    modules = {module_of(path) for path in SOURCES}
    graph = {module_of(path): arrows(path, modules) for path in SOURCES if path.is_relative_to(ROOT / room)}
    for module, other in BACK_LATER:
        if module in graph:
            graph[module].remove(other)
    assert len(graph) > 1
    assert not circle(graph), " -> ".join(circle(graph))


def test_a_circle_is_found():
    """The check sees circles of any length, also behind a way that leads to one, and none where there is none."""
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_folder_of_the_package_is_installed():
    """pyproject.toml lists the folders by hand, and none with a Python file in it is forgotten."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in SOURCES}
    expected = {".".join(["keepbest", *folder.parts]): folder.as_posix() for folder in [Path(), *folders]}
    assert setuptools["package-dir"] == expected
    assert sorted(setuptools["packages"]) == sorted(expected)
    for folder in {path.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.py")}:
        assert folder in FLOORS or folder in NO_ROOMS or folder.startswith("."), f"{folder}/ is no room of the house"


def test_what_is_no_python_is_installed_too():
    """Each other file within a room, such as a template, is matched by the package data of its folder."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    matched = {ROOT / "py.typed"} if "py.typed" in data.get("keepbest", ()) else set()
    for package, patterns in data.items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        matched.update(path for pattern in patterns for path in folder.glob(pattern))
    others = [path for room in FLOORS for path in (ROOT / room).rglob("*") if path.is_file()]
    others = {path for path in others if path.suffix not in {".py", ".pyc"}}
    assert others | {ROOT / "py.typed"} <= matched, sorted(map(str, others - matched))


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
    """The tree at the top of errors/ shows every class, with the builtin it also is."""
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
