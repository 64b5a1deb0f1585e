"""The command: how long its help and each verb take, on a run of five checkpoints.

A program of its own: `python benchmarks/command.py FOLDER`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from measure import human, interleaved, main, report, verdict

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.cli.app import VERBS

REPETITIONS = 7
LIMIT = 0.3
"""Seconds, of the whole process."""
PYTHON = "python -c pass"


def write(folder: Path) -> tuple[str, str]:
    """Train a little; return the run and a key to sign it with."""
    run, key = folder / "run", folder / "key.pem"
    with Checkpointer(
        run, CheckpointPolicy(monitor="val_loss", keep_all=True), model=torch.nn.Linear(100, 100)
    ) as ckpt:
        for epoch in ckpt.epochs(5):
            ckpt.log(train_loss=1 / (epoch + 1), val_loss=2 / (epoch + 1))
    key.touch(0o600)
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(run), str(key)


def run(folder: Path) -> bool:
    """Ask each verb for its help, then have it done."""
    url, key = write(folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")  # what pip installs is compiled, a clone may not be

    def calling(*words: str) -> Callable[[], object]:
        command = [sys.executable, *words]
        return lambda: subprocess.run(command, check=True, capture_output=True, env=environment)

    words = {
        "show": [url, "latest", "--tensors"],
        "sign": [url, "--key", key],
        "export": [url, "best", f"{folder}/out.safetensors", "--force"],
        "convert": [url, f"{folder}/others/", "--force"],
        "report": [url, "-o", str(folder / "report.html")],
        "completion": ["bash"],
    }
    asked = [["--help"], *([verb, "--help"] for verb in VERBS)]
    python = {PYTHON: calling("-c", "pass")}
    keepbest = ("-m", "keepbest")
    helps = {" ".join(["keepbest", *line]): calling(*keepbest, *line) for line in asked}
    verbs = {f"keepbest {verb}": calling(*keepbest, verb, *words.get(verb, [url])) for verb in VERBS}
    held = []
    for what, cases in (("help", helps), ("verb", verbs)):
        medians = report(f"Each {what}", interleaved(python | cases, repetitions=REPETITIONS), baseline=PYTHON)
        name = max(medians, key=lambda name: medians[name])
        promise = f"every {what} answers in under {LIMIT} s"
        held.append(verdict(promise, held=medians[name] < LIMIT, figure=f"{human(medians[name])}, {name}"))
    return all(held)


if __name__ == "__main__":
    main(run, __doc__)
