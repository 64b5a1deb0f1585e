"""The example and the page: what they show runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from keepbest import open_run

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "tensorflow.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def run(*command, cwd):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_trains_resumes_and_gives_the_best(tmp_path):
    """Three epochs and then five are the same as five at once, bit for bit; the images are learnt."""
    script = ROOT / "examples" / "tensorflow_loop.py"
    run(script, tmp_path / "halves", 3, cwd=tmp_path)
    again = run(script, tmp_path / "halves", 5, cwd=tmp_path)
    assert "Epoch 4/5" in again
    assert "Epoch 3/5" not in again
    assert again.splitlines()[:2] == run(script, tmp_path / "once", 5, cwd=tmp_path).splitlines()[3:5]
    one, other = (open_run(str(tmp_path / name)).latest for name in ("halves", "once"))
    assert one.metrics == other.metrics
    assert other.metrics["val_acc"] > 0.9


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_piece_of_the_page_runs(tmp_path, number):
    """Each piece of Python on the page runs as it stands, with a few lines before it that the page describes."""
    script = tmp_path / "piece.py"
    script.write_text(BLOCKS[number])
    run(script, cwd=tmp_path)


def test_the_page_has_pieces_to_run():
    """The page shows code, and its links lead somewhere."""
    assert len(BLOCKS) >= 3
    for target in re.findall(r"\]\(([^)#\s]+)", PAGE.read_text()):
        assert "://" in target or (PAGE.parent / target).exists(), target
