"""`keepbest completion`: scripts of shells, tried in the shell that is everywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keepbest.cli import app

DRIVER = """
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
COMPREPLY=()
_keepbest_completion keepbest
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(keepbest, tmp_path, monkeypatch):
    """Bash with the script in it: takes the words typed so far and returns what Tab offers."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "keepbest").write_text(f'#!/bin/sh\nexec {sys.executable} -m keepbest "$@"\n')
    (commands / "keepbest").chmod(0o755)
    script = tmp_path / "completion.bash"
    script.write_text(keepbest("completion", "bash").out)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def call(*words):
        done = subprocess.run(
            ["bash", "--norc", "-c", DRIVER, "bash", script, "keepbest", *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"},
        )
        assert "not currently executing" in done.stderr or not done.stderr, done.stderr
        return done.stdout.split("\n")[:-1] if done.stdout.strip() else []

    return call


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_says_how_to_install_it(keepbest, shell):
    """What is printed is a script for the shell, and its last line, a comment, is the command to install it."""
    said = keepbest("completion", shell)
    assert (said.code, said.err) == (0, "")
    assert f"_KEEPBEST_COMPLETE={shell}_complete" in said.out
    *_, last = said.out.splitlines()
    assert last.startswith("# To install it")
    assert f"keepbest completion {shell}" in last


def test_an_unknown_shell_is_wrong_usage(keepbest):
    """A shell that has no script is answered with those that have."""
    said = keepbest("completion", "tcsh")
    assert (said.code, said.out) == (2, "")
    assert all(shell in said.err for shell in ("bash", "zsh", "fish"))


def test_verbs_are_completed(complete):
    """Tab offers every verb, or those that begin as typed."""
    assert complete("") == list(app.VERBS)
    assert complete("s") == ["show", "sign"]


def test_options_are_completed(complete):
    """Tab offers the options of the verb that was typed."""
    assert "--steps" in complete("plot", "runs/7", "--")
    assert complete("ls", "runs/7", "--st") == ["--storage-option"]


def test_verbs_are_completed_without_importing_them():
    """Whoever presses Tab waits for no library: verbs are offered from their list."""
    code = (
        "import sys; from keepbest.cli import main; code = main([]); "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    environment = {**os.environ, "_KEEPBEST_COMPLETE": "bash_complete", "COMP_WORDS": "keepbest s", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["plain,show", "plain,sign"]
    assert not {"pydantic", "numpy", "rich", "torch"} & set(done.stderr.split())


def test_runs_on_disk_are_completed(complete, local_run):
    """Tab offers the runs below what was typed, also in folders on the way, and nothing else."""
    for run in ("runs/7", "runs/8", "other/deep/1"):
        Path(f"{run}/commits").mkdir(parents=True)
    Path("runs/empty").mkdir(parents=True)
    Path(".hidden/1/commits").mkdir(parents=True)
    assert complete("ls", "") == ["runs/7", "runs/8", "other/deep/1"]
    assert complete("ls", "r") == ["runs/7", "runs/8"]
    assert complete("show", "runs/") == ["runs/7", "runs/8"]
    assert complete("ls", "./runs/8") == ["./runs/8"]
    assert complete("ls", ".h") == [".hidden/1"]
    assert complete("verify", local_run[:-1]) == [local_run]


def test_where_no_run_is_found_the_shell_is_left_to_offer_folders(complete):
    """A path that leads to no run yet completes as paths do, and a URL is not looked for on disk."""
    Path("projects/a/b/c/d").mkdir(parents=True)
    assert complete("ls", "pro") == []
    assert complete("ls", "s3://bucket/") == []


def test_looking_for_runs_ends(complete):
    """In a folder of very many folders Tab answers from the first of them."""
    for number in range(600):
        Path(f"data/{number:03d}").mkdir(parents=True)
    Path("zz/commits").mkdir(parents=True)
    assert complete("ls", "") == ["zz"]
    assert complete("ls", "data/") == []
