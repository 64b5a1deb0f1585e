"""The worked examples of CONTRIBUTING.md: they run as they stand there, and keep what backends and adapters promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from contracts import backend_contract, documented

import keepbest

PAGE = documented.ROOT / "CONTRIBUTING.md"
CODE = {snippet.label: snippet.code for snippet in documented.snippets(PAGE) if snippet.label}
LIMIT = 120
"""Seconds for a program."""

AS_IF_IN_STORAGE = f"""
import importlib.util, sys
sys.path.insert(0, {str(documented.ROOT / "tests")!r})
from keepbest.storage import backend
spec = importlib.util.spec_from_file_location("keepbest.storage.dictionary", {{path!r}})
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
backend._BACKENDS.update({{line}})
"""
"""What putting the file into storage/, and its line into the table, would do."""

IN_ANOTHER_PROCESS = """
import keepbest, tinynet
run = keepbest.open_run("runs/tiny")
loaded = run.best.load("model", framework="tinynet")
assert isinstance(loaded["kernel"], tinynet.Tensor), loaded
assert (run.best.load("model")["kernel"] == 3.0).all()
print(run.best.epoch)
"""

GOES_ON = """
import keepbest, numpy, tinynet
model = tinynet.Model(kernel=(3, 2), bias=(2,))
drawn = numpy.random.default_rng(7).random(4)[3]
with keepbest.Checkpointer("runs/tiny", keepbest.CheckpointPolicy(monitor="loss"), model=model) as ckpt:
    for epoch in ckpt.epochs(4):
        print(epoch, (model.parameters["kernel"].data == 3.0).all(), tinynet.generator.random() == drawn)
        ckpt.log(loss=0.1)
"""

MISFITS = """
import keepbest, tinynet
model = tinynet.Model(kernel=(3, 3), other=(2,))
try:
    keepbest.Checkpointer("runs/tiny", keepbest.CheckpointPolicy(monitor="loss"), model=model).restore("best")
except keepbest.errors.StateMismatchError as error:
    print(sorted(error.problems))
assert (model.parameters["kernel"].data == 0).all()
"""


def python(*words, folder):
    """Run Python in a folder, with keepbest and what lies in the folder to import."""
    home = Path(keepbest.__file__).parent.parent
    homes = [str(home)] if (home / "keepbest").is_dir() else []  # where it is not installed
    return subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *homes, *sys.path[1:]])},
        timeout=LIMIT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_the_backend_keeps_the_contract(tmp_path):
    """The backend of the page passes every test that each backend of ours passes."""
    line = re.search(r'`("dict": "dictionary")`', PAGE.read_text())[1]
    for name in ("dictionary.py", "test_dictionary.py"):
        (tmp_path / name).write_text(CODE[name])
    told = AS_IF_IN_STORAGE.format(path=str(tmp_path / "dictionary.py"), line=f"{{{line}}}")
    (tmp_path / "conftest.py").write_text(told)
    done = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_dictionary.py", folder=tmp_path
    )
    assert done.returncode == 0, done.stdout[-4000:]
    tests = [name for name in vars(backend_contract.BackendContract) if name.startswith("test_")]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= len(tests) - 1  # of held bytes it makes no use
    assert len(tests) > 30


@pytest.fixture
def joined(tmp_path):
    """A folder in which the example's framework and its adapter are installed, and a training has ended."""
    for name in ("tinynet.py", "tinynet_keepbest.py", "train_tinynet.py"):
        (tmp_path / name).write_text(CODE[name])
    installed = tmp_path / "tinynet-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: tinynet\nVersion: 1.0\n")
    group, entry = re.search(r'entry-points\."([\w.]+)"\]\n(\w+ = )"\w+"\n', CODE["pyproject.toml"]).groups()
    module = re.search(r'= "(\w+)"', CODE["pyproject.toml"])[1]
    (installed / "entry_points.txt").write_text(f"[{group}]\n{entry}{module}\n")
    done = python("train_tinynet.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    return tmp_path


def test_an_adapter_joins_by_its_entry_point(joined):
    """What the adapter of another package captured comes back, in its own tensors, in any process."""
    done = python("-c", IN_ANOTHER_PROCESS, folder=joined)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stdout[-4000:]


def test_random_numbers_of_an_adapter_that_joined_go_on(joined):
    """A training that resumes draws what the one before would have drawn next, of another package's generator too."""
    done = python("-c", GOES_ON, folder=joined)
    assert (done.returncode, done.stdout) == (0, "3 True True\n"), done.stdout[-4000:]


def test_an_adapter_of_another_package_says_what_does_not_fit(joined):
    """Every difference that it finds is in the error, and nothing was restored."""
    done = python("-c", MISFITS, folder=joined)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "model: kernel: float32(3, 2) in the checkpoint, float32(3, 3) in the model" in done.stdout
    assert "model: other: the checkpoint does not have it" in done.stdout
    assert "model: bias: the model does not have it" in done.stdout
