"""What `make demo` shows: both examples, whole, then killed half-way and resumed; the best, loaded without keepbest."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(os.path.relpath(Path(__file__).parent))
RUNS = Path("demo-runs")
EPOCHS = {"pytorch": 20, "keras": 10}
SCRIPTS = {"pytorch": HERE / "pytorch_loop.py", "keras": HERE / "keras_fit.py"}
QUIET = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONUNBUFFERED": "1",
}


def heading(text):
    print(f"\n\033[1m── {text} {'─' * max(0, 100 - len(text))}\033[0m" if sys.stdout.isatty() else f"\n── {text}")


def run(*command, kill_at=None):
    """Run a Python program, show and return its output; with `kill_at`, SIGKILL it when a line contains that."""
    print(f"$ python {' '.join(map(str, command))}", flush=True)
    lines = []
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | QUIET,
    ) as child:
        for line in child.stdout:
            lines.append(line)
            if line.strip():
                print("   " + line, end="", flush=True)
            if kill_at is not None and kill_at in line:
                child.kill()
                break
    if kill_at is not None:
        if child.returncode != -signal.SIGKILL:
            raise SystemExit(f"the training was to be killed at '{kill_at}', and ended with {child.returncode}")
        print("   ⚡ killed with SIGKILL")
    elif child.returncode != 0:
        raise SystemExit(f"ended with {child.returncode}")
    return "".join(lines)


def accuracy(output):
    return re.findall(r"Val Acc: ([\d.]+)", output)[-1]


def journey(name, where):
    """Train whole, then killed half-way and resumed; both must end with the same accuracy, which is returned."""
    script, epochs = SCRIPTS[name], EPOCHS[name]
    heading(f"{name}: train")
    whole = accuracy(run(script, f"{where}/{name}", epochs))
    heading(f"{name}: the same training, killed half-way …")
    half = f"Epoch {epochs // 2}/{epochs}"
    run(script, f"{where}/{name}-killed", epochs, kill_at=half)
    heading(f"{name}: … and started again")
    resumed = accuracy(run(script, f"{where}/{name}-killed", epochs))
    if resumed != whole:
        raise SystemExit(f"the resumed training ended with {resumed}, the whole one with {whole}")
    return whole


def look(where):
    """Show what the runs hold."""
    heading("what the runs hold")
    run("-m", "keepbest", "ls", f"{where}/pytorch-killed")
    run("-m", "keepbest", "ls", f"{where}/keras-killed/run")
    run("-m", "keepbest", "verify", f"{where}/pytorch-killed")


def load(files, expected):
    """Load local files without keepbest: they must be what training said."""
    for name, file in files.items():
        found = accuracy(run(HERE / "load_without_keepbest.py", name, file))
        if found != expected[name]:
            raise SystemExit(f"{file} has a validation accuracy of {found}, training said {expected[name]}")


def main():
    shutil.rmtree(RUNS, ignore_errors=True)
    expected = {name: journey(name, RUNS) for name in SCRIPTS}
    look(RUNS)
    heading("the best models, loaded without keepbest")
    best = {
        "pytorch": RUNS / "pytorch-killed" / "best" / "model.safetensors",
        "keras": max((RUNS / "keras-killed").glob("model_*.keras")),
    }
    load(best, expected)
    print(f"\nBoth are what training said. The runs are in {RUNS}/; look around with:")
    print(f"{Path(sys.prefix, 'bin', 'keepbest')} explain {RUNS}/pytorch")


if __name__ == "__main__":
    main()
