"""What keepbest stands on: every import is declared, every declaration is imported, and every licence is allowed.

It looks at what is installed here, without a network. Known vulnerabilities are not looked for: see SECURITY.md.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = ("core", "adapters", "storage", "cli")
FOR_DEVELOPERS = {"test", "docs", "bench", "peers", "all"}
"""Extras that nothing of what is shipped imports, or that are made of others."""
EXTRAS = sorted(set(PROJECT["optional-dependencies"]) - FOR_DEVELOPERS)

MODULES = {
    "google.auth": "google-auth",
    "google.oauth2": "google-auth",
    "google_crc32c": "google-crc32c",
    "ml_dtypes": "ml-dtypes",
    "mlflow": "mlflow-skinny",
    "yaml": "pyyaml",
}
"""Module → who distributes it, where the names differ."""

UNDECLARED = {
    "pandas": "only for who asks for a table of it, and an error says what to install",
    "polars": "likewise",
    "ml-dtypes": "only for dtypes that NumPy does not have, and an error says what to install",
}
"""Imported, and not declared, with the reason."""

STAND_INS = {"tensorflow": "tensorflow-cpu"}
"""What the tests install in its place: the same sources, built without CUDA."""

PERMISSIVE = {
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "LLVM-exception",
    "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib",
}  # fmt: skip
"""Licences of which a distributor owes a notice at most. `BSD` stands where the metadata say no more."""

EXCEPTIONS = {
    "certifi": ("MPL-2.0", "certificates, used as they are; what one changes of its files stays under the MPL"),
    "tqdm": ("MPL-2.0 AND MIT", "a progress bar that huggingface_hub shows, used as it is; see certifi"),
    "namex": (None, "its metadata say nothing; the licence file beside them is the Apache License 2.0"),
}
"""Distribution → the licence that it has and is not among the permissive ones, and why it may stay."""

CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "BSD": "BSD",
}
"""What older metadata say in the field "License" → what is meant."""


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra=None):
    """Return the names that pyproject.toml demands: always, or for one extra."""
    demands = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return {normal(Requirement(demand).name) for demand in demands}


def imported():
    """Return distribution → where one of its modules is imported, of all that are not Python's or ours."""
    found = {}
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                if name.partition(".")[0] not in sys.stdlib_module_names:
                    found.setdefault(distribution_of(name), f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def distribution_of(module):
    fitting = [name for name in MODULES if f"{module}.".startswith(f"{name}.")]
    return MODULES[fitting[0]] if fitting else normal(module.partition(".")[0])


def closure(names):
    """Return name → metadata of all that these distributions need at run time, on this machine."""
    found, waiting = {}, [(name, frozenset()) for name in names]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        name = STAND_INS.get(name, name)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            one = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.fail(f"{name} is needed, and not installed here, so nobody knows its licence")
        found[name] = one.metadata
        for text in one.requires or ():
            demand = Requirement(text)
            if demand.marker is None or any(demand.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                waiting.append((normal(demand.name), frozenset(demand.extras)))
    return found


def licences(metadata):
    """Return what the metadata say of the licence, as an SPDX expression where they can be understood; else None."""
    if metadata.get("License-Expression"):
        return metadata["License-Expression"]
    named = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier") or () if text.startswith("License")]
    if named:
        return " OR ".join(CLASSIFIERS.get(name, name) for name in named)
    text = (metadata.get("License") or "").strip()
    return WORDS.get(text, text) or None


def is_permissive(expression):
    """Say whether one may do with it what the permissive licences allow."""
    if "(" in expression:  # every licence that is named must do: no reader of brackets is needed for that
        return all(part in PERMISSIVE for part in re.split(r"[()\s]+|AND|OR|WITH", expression) if part)
    return any(
        all(part in PERMISSIVE for part in re.split(r" AND | WITH ", choice)) for choice in expression.split(" OR ")
    )


@pytest.mark.parametrize("extra", [None, *EXTRAS], ids=lambda extra: extra or "always")
def test_every_licence_is_allowed(extra):
    """Whatever pip installs along with keepbest may be used and passed on; exceptions have a reason."""
    refused = {}
    for name, metadata in closure(declared(extra)).items():
        found = licences(metadata)
        if name in EXCEPTIONS and EXCEPTIONS[name][0] == found:
            continue
        if found is None or not is_permissive(found):
            refused[name] = found
    assert not refused


@pytest.mark.parametrize(
    ("expression", "fine"),
    [
        ("MIT", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND (BSD-3-Clause OR GPL-3.0-only)", False),
        ("LicenseRef-Proprietary", False),
        ("Other/Proprietary License", False),
    ],
)
def test_a_licence_that_is_not_allowed_is_seen(expression, fine):
    """The check can say no."""
    assert is_permissive(expression) is fine


def test_every_exception_is_needed():
    """No exception outlives its reason."""
    everything = closure({name for extra in [None, *EXTRAS] for name in declared(extra)})
    for name, (licence, _) in EXCEPTIONS.items():
        assert licences(everything[name]) == licence
        assert licence is None or not is_permissive(licence)
    files = importlib.metadata.distribution("namex").files
    assert ["Apache License" in file.read_text() for file in files if file.name == "LICENSE"] == [True]


def test_every_import_is_declared():
    """What the sources import is demanded by pyproject.toml, always or by an extra: nothing is there by chance."""
    known = {name for extra in [None, *EXTRAS] for name in declared(extra)}
    missing = {name: where for name, where in imported().items() if name not in known | set(UNDECLARED)}
    assert not missing


def test_every_declaration_is_imported():
    """Nothing is demanded of users that the sources do not import, and no exception is left over."""
    used = set(imported())
    unused = {(extra, name) for extra in [None, *EXTRAS] for name in declared(extra) if name not in used}
    assert not unused
    assert set(UNDECLARED) <= used


def test_all_means_all():
    """`keepbest[all]` has every extra that users may want."""
    (every,) = (Requirement(text) for text in PROJECT["optional-dependencies"]["all"])
    assert set(every.extras) == set(EXTRAS)


def test_a_training_needs_no_extra(tmp_path):
    """What is always demanded is enough to save, list, load and verify, where nothing else is installed."""
    extras = {name for extra in EXTRAS for name in declared(extra)} - declared()
    modules = {name.replace("-", "_") for name in extras} | {name for name in MODULES if MODULES[name] in extras}
    script = f"""
import sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name in {modules}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent)
import keepbest
with keepbest.Checkpointer({str(tmp_path / "run")!r}, state={{"step": 1}}) as ckpt:
    ckpt.log(loss=1.0)
run = keepbest.open_run({str(tmp_path / "run")!r})
print(run.latest.load("state"), run.verify().ok)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "{'step': 1} True\n", done.stderr
