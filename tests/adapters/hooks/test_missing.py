"""Hooks whose library is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules[sys.argv[2]] = None
import keepbest
from keepbest.adapters import hooks
try:
    getattr(hooks, sys.argv[1])("x")
except keepbest.errors.ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("hook", "package"), [("TensorBoard", "tensorboard"), ("WandB", "wandb"), ("MLflow", "mlflow")]
)
def test_a_missing_library_is_named_with_what_to_install(hook, package, tmp_path):
    """The error comes when the hook is made, not in the middle of training."""
    script = SCRIPT.replace('("x")', "()") if hook == "WandB" else SCRIPT
    done = subprocess.run(
        [sys.executable, "-c", script, hook, package], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    said = f'{hook} needs {package}, which is not installed: pip install "keepbest[{package}]".\n'
    assert done.stdout == said, done.stderr
