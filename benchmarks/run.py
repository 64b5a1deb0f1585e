"""Run the benchmarks: `python benchmarks/run.py [FOLDER]`; FOLDER says which disk is measured (default: here).

Those of buckets are a program of their own, `buckets.py`: they start servers and take longer.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import scale
import small_save
import torch
from measure import console

import keepbest


def main() -> int:
    where = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    console.print(
        f"keepbest {keepbest.__version__}, torch {torch.__version__}, keras {keras.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, {where}",
        highlight=False,
    )
    with tempfile.TemporaryDirectory(prefix="keepbest-bench-", dir=where) as folder:
        held = [small_save.run(Path(folder))]
        alone = [sys.executable, str(Path(__file__).with_name("small_log.py")), folder]
        held.append(subprocess.run(alone, check=False).returncode == 0)
        held.append(scale.run(Path(folder)))
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main())
