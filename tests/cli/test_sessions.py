"""Sessions: what a person sees of each verb, at 80 and at 120 columns, as text in `sessions/`.

After a change that is meant, write the texts anew with KEEPBEST_WRITE_SESSIONS=1 and look at the difference.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from contracts.signers import write_private
from contracts.terminal import run_in_terminal
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save_file

from keepbest.cli import app

TEXTS = Path(__file__).parent / "sessions"

SESSIONS = {
    "ls": ["runs/7"],
    "show": ["runs/7", "best", "--tensors"],
    "explain": ["runs/7"],
    "diff": ["runs/7", "best", "latest"],
    "verify": ["runs/7"],
    "sign": ["runs/7", "best", "--key", "signing.pem"],
    "export": ["runs/7", "best.safetensors"],
    "convert": ["weights.safetensors", "runs/8"],
    "gc": ["runs/7"],
    "plot": ["runs/7"],
    "report": ["runs/7"],
    "watch": ["runs/7"],
    "completion": ["bash"],
}
"""Verb → what is typed behind it."""

TRAINING = """
import random, sys, time
clock = 1_760_000_000.0
time.time = lambda: clock
import numpy as np
from keepbest import Checkpointer, CheckpointPolicy

random.seed(0)
np.random.seed(0)

class Weights:
    def __init__(self):
        self.values = np.zeros((200, 100), np.float32)

    def state_dict(self):
        return {"weight": self.values, "bias": np.ones(3)}

    def load_state_dict(self, state):
        self.values = state["weight"]

model = Weights()
policy = CheckpointPolicy(monitor="val_loss", patience=4, keep_last=2)
with Checkpointer(sys.argv[1], policy, model=model) as ckpt:
    for epoch in ckpt.epochs(20):
        for batch in range(3):
            clock += 20
            model.values += 0.5
            ckpt.log_step(loss=1 / (epoch + 1) + batch / 100)
        ckpt.log(train_loss=1 / (epoch + 1), val_loss=0.5 + 0.01 * (epoch - 5) ** 2, lr=0.1 * 0.9**epoch)
        ckpt.wait()
"""
"""Ten epochs of a minute each on a clock that is set: the sixth is the best, and patience ends it."""

LOOKING = """
import os, sys, time
os.chdir(sys.argv[1])
time.time = lambda: 1_760_010_000.0
from keepbest.cli import main
go()
sys.exit(main(sys.argv[2:]))
"""

CHANGING = [
    (r"(?<=_)[0-9a-f]{6}\b", "abcdef"),
    (r"(?<=:)[0-9a-f]{16,}", lambda found: "0" * len(found[0])),
    (r"\b[0-9a-f]{32}\b", "0" * 32),
    (r"\bin [0-9.]+ (ms|s)\b", "in 25.0 ms"),
    (r"(?<=report\.html \()[0-9.]+ kB", "100 kB"),
    (r"(?m)(^ *versions  ).*$", r"\1keepbest and what it runs on"),
]
"""What differs from one run, machine or day to another, and what stands for it, as wide as it is in a table."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run in it, made by one small training, and a key."""
    folder = tmp_path_factory.mktemp("sessions")
    subprocess.run([sys.executable, "-c", TRAINING, folder / "runs" / "7"], check=True, timeout=120)
    save_file({"weight": np.ones((2, 3), np.float32)}, folder / "weights.safetensors")
    write_private(folder / "signing.pem", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    return folder


@pytest.fixture
def short_path():
    """A folder whose path is always as long: paths are shown, and lines break where they end."""
    with tempfile.TemporaryDirectory(prefix="kb-", dir="/tmp") as folder:
        yield Path(folder).resolve()


def steady(text, folder):
    """Return what a terminal showed without what another machine, or another day, would show otherwise."""
    text = text.replace(f"{folder}/", "").replace(socket.gethostname(), "thishost")
    for pattern, replacement in CHANGING:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("verb", SESSIONS)
def test_a_session_reads_as_it_is_written_down(trained, short_path, verb, columns):
    """What a verb shows in a terminal is what the text in `sessions/` shows, line by line."""
    folder = short_path / "here"
    shutil.copytree(trained, folder, symlinks=True)
    words = [verb, *SESSIONS[verb]]
    ran = run_in_terminal(LOOKING, folder, *words, columns=columns, TZ="UTC")
    shown = steady("\n".join(ran.screen), folder)
    found = f"$ keepbest {' '.join(words)}\n{shown}\n[{ran.code}]\n"
    text = TEXTS / f"{verb}-{columns}.txt"
    if os.environ.get("KEEPBEST_WRITE_SESSIONS"):
        text.write_text(found)
    assert found == text.read_text()


def test_each_verb_has_a_session():
    """No verb is left out, and no text is left over from one that is gone."""
    assert set(SESSIONS) == set(app.VERBS)
    assert {path.name for path in TEXTS.iterdir()} == {f"{verb}-{c}.txt" for verb in SESSIONS for c in (80, 120)}
