"""The documents: what they show can be run, and what they refer to is there."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from contracts import documented

from keepbest.storage.transfer import TransferSettings

DOCS = [Path(__file__).parents[1] / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md", "docs/buckets.md")]
RUNNABLE = [code for _, code in documented.blocks("python") if "…" not in code]


class Tensors:
    """Some state."""

    def __init__(self):
        self.values = np.zeros(10)

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


@pytest.mark.bucket
def test_what_the_page_shows_of_buckets_runs(s3_server, tmp_path, monkeypatch, capsys):
    """Each piece of Python on the page that is whole runs as it stands, one after the other, in the bucket it names."""
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(OSError):  # another process of the tests has made it
        s3_server.make_bucket("my-bucket")
    for code in RUNNABLE:
        losses = iter(np.linspace(1, 0.5, 40))
        exec(code, {"model": Tensors(), "optimizer": Tensors(), "train_and_validate": lambda it=losses: next(it)})
    assert "only on the disk" in capsys.readouterr().out
    assert len(RUNNABLE) == 5


def test_the_page_names_our_options_as_they_are():
    """The table of options has every one of ours, with its default."""
    table = {
        name: cells["default"].split()[0].strip("`")
        for name, cells in documented.table("default", label=r"`(\w+)`").items()
    }
    defaults = {name: getattr(TransferSettings(), name) for name in TransferSettings.__slots__}
    assert table == {
        name: "none" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)
        for name, value in defaults.items()
    }


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_within_the_documents_lead_somewhere(path):
    """A link to a file of ours names one, and a link to a heading names one of that page."""
    text = path.read_text()
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (path.parent / target.partition("#")[0]).exists(), target
