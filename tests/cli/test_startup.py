"""The command as a process: what it imports, and how it ends."""

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "tensorflow", "keras", "jax", "numpy", "fsspec")


def process(*words, code=None):
    environment = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "NO_COLOR"}}
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "keepbest"]
    return subprocess.run(
        [*command, *map(str, words)], capture_output=True, text=True, check=False, timeout=60, env=environment
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


def test_a_verb_imports_no_framework(local_run, tmp_path):
    """Looking at a run is quick and needs no framework installed: none is imported, nor are NumPy and fsspec."""
    for words in (
        ["ls", local_run],
        ["show", local_run, "--tensors"],
        ["verify", local_run],
        ["export", local_run, tmp_path / "out"],
        ["gc", local_run],
    ):
        assert not imported_by(words) & set(HEAVY)


def test_help_imports_nothing_of_ours_but_itself():
    """Help answers at once: neither pydantic nor rich is imported for it."""
    assert not imported_by(["--help"]) & {*HEAVY, "pydantic", "rich"}


def test_json_does_without_rich(local_run):
    """`--json` works where rich is not installed; a table then says how to install it."""
    code = "import sys; sys.modules['rich'] = None; from keepbest.cli import main; sys.exit(main(sys.argv[1:]))"
    assert process("ls", local_run, "--json", code=code).returncode == 0
    done = process("ls", local_run, code=code)
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "keepbest[cli]"' in done.stderr


def test_without_click_the_command_says_how_to_get_it():
    """Where the command's own packages are missing, the message names what to install."""
    code = "import sys; sys.modules['click'] = None; from keepbest.cli import main; sys.exit(main(['ls', 'x']))"
    done = process(code=code)
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
