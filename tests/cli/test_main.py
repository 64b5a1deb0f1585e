"""The command as a whole: help, versions, errors, exit codes."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import keepbest as library
from keepbest.cli import app, options
from keepbest.storage.backend import open_backend
from keepbest.storage.printable import without_password


def test_version_names_the_library(keepbest):
    """`--version` says which keepbest this is."""
    said = keepbest("--version")
    assert (said.code, said.out) == (0, f"keepbest {library.__version__}\n")


def test_help_lists_every_verb(keepbest):
    """Whoever asks for help sees every verb with what it is for."""
    said = keepbest("--help")
    assert said.code == 0
    for verb, sentence in app.VERBS.items():
        assert f"  {verb} " in said.out
        assert sentence in " ".join(said.out.split())


@pytest.mark.parametrize("verb", app.VERBS)
def test_help_of_a_verb_opens_with_its_sentence_and_ends_with_an_example(keepbest, verb):
    """Each verb's own help says what the list of verbs says, and shows how to write it."""
    said = keepbest(verb, "--help")
    assert said.code == 0
    assert app.VERBS[verb] in " ".join(said.out.split())
    assert f"Example: keepbest {verb} " in said.out


def test_unknown_verb_is_wrong_usage_with_a_suggestion(keepbest):
    """A mistyped verb, or what other tools call it, is answered with the one that was meant."""
    for word, meant in {"verifi": "verify", "restore": "export", "list": "ls"}.items():
        said = keepbest(word, "somewhere")
        assert (said.code, said.out) == (2, "")
        assert f"Did you mean '{meant}'?" in said.err
    assert set(app.ELSEWHERE.values()) <= set(app.VERBS)


@pytest.mark.parametrize("verb", ["ls", "show", "explain", "verify", "gc", "plot", "watch"])
def test_a_place_without_a_run_is_an_error_in_one_sentence(keepbest, place, verb):
    """A URL that holds no run is refused with exit code 2, a message and no traceback."""
    said = keepbest(verb, place.url)
    assert (said.code, said.out) == (2, "")
    assert said.err == f"Error: {place.url} holds no run. Give the folder or prefix that a Checkpointer writes to.\n"


def test_a_place_without_a_run_cannot_be_exported_from(keepbest, tmp_path):
    """Export, too, refuses what is no run, and writes nothing."""
    said = keepbest("export", tmp_path, tmp_path / "out.safetensors")
    assert (said.code, "holds no run" in said.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_traceback_is_shown_when_asked_for(keepbest, tmp_path, monkeypatch):
    """`--traceback`, or the environment, shows where an error came from."""
    assert "Traceback" not in keepbest("ls", tmp_path).err
    assert "Traceback" in keepbest("ls", tmp_path, "--traceback").err
    monkeypatch.setenv("KEEPBEST_TRACEBACK", "1")
    assert "Traceback" in keepbest("ls", tmp_path).err


def test_a_bug_is_not_mistaken_for_the_answer_no(keepbest, local_run, monkeypatch):
    """If keepbest itself breaks, the exit code is neither "no" nor "wrong usage", and the traceback is there."""
    from keepbest.storage import listing

    def broken(data, location):
        raise ZeroDivisionError

    monkeypatch.setattr(listing, "decode", broken)
    said = keepbest("ls", local_run)
    assert said.code == 70
    assert "ZeroDivisionError" in said.err


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["lines", "json"])
@pytest.mark.parametrize(("verb", "words"), [("verify", []), ("diff", ["--exit-code"])])
def test_a_reader_that_goes_away_changes_no_answer(local_run, verb, words, json):
    """`keepbest verify … | head -1` with pipefail says "no" of a damaged run, however little of it is read."""
    next(Path(local_run).glob("checkpoints/epoch-001*/model.safetensors")).write_bytes(b"junk")
    command = [sys.executable, "-m", "keepbest", verb, local_run, *words, *json]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.close()
        complaints = running.stderr.read()
    assert (running.returncode, complaints) == (1, "")


class Elsewhere:
    """A backend that says it lies elsewhere."""

    def __init__(self, backend, url):
        self._backend = backend
        self.url = url

    def __getattr__(self, name):
        return getattr(self._backend, name)


@pytest.mark.parametrize("verb", ["plot", "explain"])
def test_a_password_in_a_url_is_not_printed(keepbest, local_run, monkeypatch, verb):
    """What is printed of a run's URL is without the password that was typed in it."""
    typed = "sftp://me:hunter2@host/run"
    (Path(local_run) / "commits" / "00000001.json").write_bytes(b"junk")

    def opened(url, storage_options=None):
        return Elsewhere(open_backend(local_run), without_password(url))

    monkeypatch.setattr("keepbest.storage.backend.open_backend", opened)
    monkeypatch.setattr("keepbest.cli.explanation.open_backend", opened)
    said = keepbest(verb, typed)
    assert said.code == 0
    assert "sftp://me@host/run" in said.out
    assert "hunter2" not in said.out + said.err


def test_values_of_storage_options_are_never_printed(keepbest, local_run):
    """A secret given as a storage option appears in no message, whether it is well formed or not."""
    for words in (["key=hunter2"], ["hunter2"], ["=hunter2"], ['key={"deep": "hunter2"}']):
        said = keepbest("ls", local_run, "--storage-option", *words, "--traceback")
        assert said.code == 2
        assert "hunter2" not in said.out + said.err


def test_storage_options_reach_the_backend_with_their_types(keepbest, local_run, monkeypatch):
    """Values that are JSON arrive as what they are, all others as text; so does a key that is all digits."""
    from keepbest.storage import backend

    seen = {}

    def spy(url, storage_options):
        seen.update(storage_options)
        return open_backend(url)

    monkeypatch.setattr(backend, "open_backend", spy)
    options = ["anon=true", "key=123", 'client_kwargs={"endpoint_url": "http://x"}', "empty=", "padded=a=b", "token={}"]
    assert keepbest("ls", local_run, *(word for option in options for word in ("--storage-option", option))).code == 0
    assert seen == {
        "anon": True,
        "key": "123",
        "client_kwargs": {"endpoint_url": "http://x"},
        "empty": "",
        "padded": "a=b",
        "token": {},
    }


def test_warnings_are_sentences_on_standard_error(keepbest, run, place):
    """What the library warns of reaches the user as a sentence, and standard output stays clean."""
    place.write("commits/00000001.json", b"junk")
    said = keepbest("show", run, "best", "--json")
    assert said.code == 0
    assert said.json["sequence"] == 2
    assert said.err.startswith("Warning: 1 manifest(s) of ")
    assert "UserWarning" not in said.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["nothing-like-it"], "no checkpoint 'nothing-like-it'"), (["epoch-00"], "is the beginning of 3 checkpoints")],
    ids=["unknown", "ambiguous"],
)
def test_a_checkpoint_that_is_not_one_is_an_error_that_helps(keepbest, run, words, expected):
    """A name that fits no checkpoint, or several, is answered with those there are."""
    said = keepbest("show", run, *words)
    assert (said.code, said.out) == (2, "")
    assert expected in said.err
    assert "epoch-001_step-000010_" in said.err


def test_no_span_is_longer_than_can_be_waited_for():
    """Whoever asks for a span that no clock can wait for gets a long one, and no error while waiting."""
    assert options.duration(None, None, "7d") == 7 * 86400
    assert options.duration(None, None, "99999999999d") <= threading.TIMEOUT_MAX
    assert options.duration(None, None, "9" * 400) <= threading.TIMEOUT_MAX


def test_error_messages_cannot_steer_the_terminal(keepbest, local_build):
    """Control characters in a stranger's checkpoint names are written out in errors too."""
    local_build.save(0, name="evil\x1b[2J\u202e")
    said = keepbest("show", local_build.url, "nothing")
    assert "\x1b" not in said.err
    assert "evil\\x1b[2J\\u202e" in said.err
