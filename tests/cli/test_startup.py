"""The command as a process: what it imports, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from contracts.stateful import Weights
from contracts.terminal import COMMAND, run_in_terminal

from keepbest import Checkpointer, CheckpointPolicy
from keepbest.cli import app

HEAVY = ("torch", "tensorflow", "keras", "jax", "numpy", "fsspec", "pandas", "polars")
UNREAD = ("pydantic", "email")
"""What reading a run does without: the second comes with importlib.metadata, which takes as long as click."""
NEEDLESS = ("pydantic", "rich", "plotille", "minijinja", "safetensors", "tenacity", "xxhash")
"""What help does without."""


def process(*words, code=None, cwd=None):
    environment = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "NO_COLOR"}}
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "keepbest"]
    return subprocess.run(
        [*command, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
        cwd=cwd,
    )


def imported_by(words):
    code = (
        "import sys; from keepbest.cli import main; code = main(sys.argv[1:]); "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    done = process(*words, code=code)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_python_dash_m_is_the_command():
    """Where no script is on the path, `python -m keepbest` is the command."""
    done = process("--version")
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "keepbest", "")


@pytest.mark.parametrize("verb", ["ls", "show", "explain", "verify", "gc", "plot", "watch"])
def test_a_verb_ends_well_in_a_process_of_its_own(local_run, verb):
    """What the command does for its own process, before a verb and after it, is no harm to any."""
    done = process(verb, local_run)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_a_verb_imports_no_framework(local_run, tmp_path):
    """Looking at a run is quick and needs no framework: none is imported, nor are NumPy, fsspec and pydantic."""
    for words in (
        ["ls", local_run],
        ["show", local_run, "--tensors"],
        ["verify", local_run],
        ["export", local_run, tmp_path / "out"],
        ["gc", local_run],
        ["plot", local_run],
        ["explain", local_run],
        ["watch", local_run],
        ["report", local_run, "-o", tmp_path / "report.html"],
        ["diff", local_run, "1", "1"],
    ):
        assert not imported_by(words) & {*HEAVY, *UNREAD}


def test_plain_lines_and_tables_are_printed_without_rich(local_run):
    """It takes longer to import than click; what moves in a terminal needs it, and letters beyond ASCII."""
    for words in (["ls", local_run], ["show", local_run], ["explain", local_run], ["gc", local_run]):
        assert "rich" not in imported_by(words)


@pytest.mark.parametrize("verb", [None, *app.VERBS])
def test_help_imports_nothing_of_ours_but_itself(verb):
    """Help answers at once, for the command and for each verb: nothing is imported that help does not need."""
    assert not imported_by([verb, "--help"] if verb else ["--help"]) & {*HEAVY, *NEEDLESS}


def without(package):
    """The program of the command line where a package is not installed."""
    return f"import sys; sys.modules[{package!r}] = None; from keepbest.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def trained(tmp_path):
    """The path of a run that a training wrote; its metric has a letter beyond ASCII."""
    with Checkpointer(tmp_path / "trained", CheckpointPolicy(monitor="pérdida", mode="min"), model=Weights()) as ckpt:
        ckpt.log(pérdida=1.0)
    return tmp_path / "trained"


@pytest.mark.parametrize(("verb", "package", "extra"), [("plot", "plotille", "cli"), ("report", "minijinja", "report")])
def test_what_a_verb_cannot_do_without_is_named(trained, verb, package, extra):
    """Where a package is missing, the verb that needs it says how to install it, and does nothing."""
    done = process(verb, "trained", code=without(package), cwd=trained.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert f'pip install "keepbest[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in trained.parent.iterdir()] == ["trained"]


def test_what_moves_in_a_terminal_needs_rich(trained):
    """The message names what to install; where nothing moves, rich need not be there, whatever letters a name has."""
    ran = run_in_terminal("go(); " + without("rich"), "watch", trained, columns=200)
    assert ran.code == 2
    assert 'pip install "keepbest[cli]"' in ran.written
    for verb in ("watch", "ls", "plot"):
        assert process(verb, trained, code=without("rich")).returncode == 0


def test_json_does_without_what_draws(trained):
    """`--json` works where nothing is installed that only people need."""
    assert process("plot", trained, "--json", code=without("plotille")).returncode == 0


def test_a_missing_package_of_another_kind_is_no_hint_to_install(trained):
    """Only what keepbest's extras bring is asked for; any other missing module is a bug, with its traceback."""
    done = process("ls", trained, code=without("keepbest.cli.marks"))
    assert done.returncode == 70
    assert "Traceback" in done.stderr


def test_without_click_the_command_says_how_to_get_it():
    """Where the command's own packages are missing, the message names what to install."""
    done = process("ls", "x", code=without("click"))
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "keepbest[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["--json", "--all"])
def test_a_reader_that_goes_away_is_no_error(local_build, form):
    """`keepbest ls … | head -1` ends quietly."""
    for epoch in range(600):
        local_build.save(epoch, data=False, val_loss=1.0)
    command = [sys.executable, "-m", "keepbest", "ls", local_build.url, form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.read(10)
        running.stdout.close()
        complaints = running.stderr.read()
    assert (running.returncode, complaints) == (0, "")


def test_a_terminal_without_the_letters_still_shows_every_name(local_build):
    """Where the output cannot hold a character, its number stands for it and the command goes on."""
    local_build.save(0, name="modèle-1", val_loss=1.0)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "keepbest", "ls", local_build.url],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "mod\\xe8le-1" in done.stdout


@pytest.mark.parametrize(
    "words",
    ["ls RUN", "ls RUN --json", "report RUN -o -", "completion bash", "--help", "ls --help", "--version"],
)
def test_an_output_that_cannot_be_written_is_an_error_with_its_reason(local_run, words):
    """On a full disk the command says so, and calls it no bug of its own."""
    command = [sys.executable, "-m", "keepbest", *words.replace("RUN", str(local_run)).split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "Error: the output cannot be written: No space left on device.\n")


def test_without_an_output_a_verb_does_its_work(local_run, tmp_path):
    """`keepbest … >&-` is what some schedulers do."""
    command = f"{sys.executable} -m keepbest export {local_run} {tmp_path / 'out.safetensors'} >&-"
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("environment", [{"FORCE_COLOR": ""}, {"TERM": "dumb"}, {"TTY_COMPATIBLE": "0"}])
def test_a_terminal_that_nothing_can_be_drawn_in_gets_lines(trained, environment):
    """What follows a training never keeps silent until its end."""
    ran = run_in_terminal(COMMAND, "watch", trained, columns=100, **environment)
    assert ran.code == 0
    assert any("epoch" in line for line in ran.screen[1:])
