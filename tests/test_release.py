"""What is released: wheel and sdist have all of the package and nothing else, and work where they are installed."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

import keepbest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PYPROJECT["project"]["version"]
ROOMS = ("errors", "storage", "core", "adapters", "cli")
NO_SOURCES = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "shared", "demo-runs", "site", "benchmarks"
)
"""What a build takes nothing of. Of the hidden, .gitignore and .ci would do no harm."""
LIMIT = 300
"""Seconds for a build."""

USED = """
import sys, keepbest, numpy as np
assert keepbest.__file__.startswith(sys.prefix), keepbest.__file__
assert "torch" not in sys.modules
weights = {"w": np.arange(6.0)}
with keepbest.Checkpointer("run", keepbest.CheckpointPolicy(monitor="loss"), model=weights) as ckpt:
    for epoch in ckpt.epochs(2):
        ckpt.log(loss=1.0 - epoch / 2)
run = keepbest.open_run("run")
assert run.verify().ok
print(run.best.epoch, run.best.load("model")["w"].sum())
"""

pytestmark = pytest.mark.slow


def environment():
    """Return ours, without what leads Python to the sources."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}


def python(*words, folder, interpreter=sys.executable):
    done = subprocess.run(
        [interpreter, *words], cwd=folder, env=environment(),
        timeout=LIMIT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-4000:]}"
    return done.stdout


def sources():
    """Return the path of each file that users need, from the root."""
    found = {"__init__.py", "__main__.py", "py.typed"}
    for room in ROOMS:
        found |= {path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*") if path.is_file()}
    return {name for name in found if "__pycache__" not in name}


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The sdist, a wheel made of it, and, in a folder beside, a wheel made of the tree itself."""
    source = tmp_path_factory.mktemp("release") / "source"
    shutil.copytree(ROOT, source, ignore=NO_SOURCES, symlinks=True)
    for folder, words in (("dist", ()), ("direct", ("--wheel",))):
        python(
            "-m", "build", "--no-isolation", *words, "--outdir", source.parent / folder, source, folder=source.parent
        )
    return source.parent / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(request, dist, tmp_path_factory):
    """The interpreter of an environment that has keepbest and nothing more, with ours at hand for what it needs."""
    home = tmp_path_factory.mktemp(request.param)
    python("-m", "venv", "--without-pip", home / "venv", folder=home)
    interpreter = home / "venv" / "bin" / "python"
    what = next(dist.glob("*.whl" if request.param == "wheel" else "*.tar.gz"))
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    packages = Path(python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=home,
                           interpreter=interpreter).strip())  # fmt: skip
    (packages / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))  # behind what is installed
    python(
        "-m", "pip", "--python", interpreter, "install", "--disable-pip-version-check", "--no-index", "--no-deps",
        "--no-build-isolation", "--ignore-installed", "--force-reinstall", what, folder=home,
    )  # fmt: skip
    return interpreter


def test_the_version_is_the_same_everywhere():
    """pyproject.toml, `keepbest.__version__` and the newest entry of the changelog name one version."""
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert keepbest.__version__ == VERSION == newest


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    """Each file of each room is in it, the marker for type checkers and what the report is made of too, and no test."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"keepbest", f"keepbest-{VERSION}.dist-info"}
    held = {name.removeprefix("keepbest/") for name in names if name.startswith("keepbest/")}
    assert held == sources()
    assert "py.typed" in held
    assert len(held) > 150


def test_the_wheel_says_what_it_is(wheel):
    """Its metadata have the version, the licence with its text, the Pythons it runs on, the command, and the README."""
    info = f"keepbest-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        licence = archive.read(f"{info}/licenses/LICENSE")
        commands = archive.read(f"{info}/entry_points.txt").decode()
        kind = archive.read(f"{info}/WHEEL").decode()
    assert metadata["Version"] == VERSION
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PYPROJECT["project"]["requires-python"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert "keepbest = keepbest.cli:main" in commands
    assert "Tag: py3-none-any" in kind


def test_the_sdist_makes_the_same_wheel(dist, wheel):
    """Whoever builds from the sdist installs byte for byte what the tree itself would give."""

    def contents(path):
        with zipfile.ZipFile(path) as archive:
            return {item.filename: item.CRC for item in archive.infolist() if not item.filename.endswith("RECORD")}

    direct = contents(next((dist.parent / "direct").glob("*.whl")))
    assert contents(wheel) == direct
    assert len(direct) > 150


def test_the_sdist_has_what_building_takes_and_no_tests(dist):
    """In the sdist are the sources and what stands beside them, in one folder, and nothing of whoever made it."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        members = archive.getmembers()
    assert {member.name.split("/")[0] for member in members} == {f"keepbest-{VERSION}"}
    held = {member.name.partition("/")[2] for member in members if member.isfile()}
    beside = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "MANIFEST.in"}
    made = {"PKG-INFO", "setup.cfg"} | {name for name in held if name.startswith("keepbest.egg-info/")}
    assert held - made == sources() | beside
    assert not any(member.issym() or member.islnk() for member in members)


def test_what_was_installed_works(installed, tmp_path):
    """In an environment of its own the library saves and loads, and the command knows its version and lists the run."""
    assert python("-W", "error", "-c", USED, folder=tmp_path, interpreter=installed) == f"1 {np.arange(6.0).sum()}\n"
    command = installed.parent / "keepbest"
    said = subprocess.run(
        [command, "--version"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert said.stdout == f"keepbest {VERSION}\n"
    assert "epoch" in python("-m", "keepbest", "ls", "run", folder=tmp_path, interpreter=installed)


def test_the_report_has_its_assets_where_it_was_installed(installed, tmp_path):
    """`keepbest report` finds its template and its scripts in what was installed."""
    python("-c", USED, folder=tmp_path, interpreter=installed)
    python("-m", "keepbest", "report", "run", "-o", "page.html", folder=tmp_path, interpreter=installed)
    written = (tmp_path / "page.html").read_text()
    for asset in (ROOT / "cli" / "page" / "vendor").glob("*.js"):
        assert asset.read_text()[:200] in written, asset.name
    assert "</html>" in written
