"""The command on buckets: by options alone, when something is wrong there, and as a process."""

import json
import subprocess
import sys

import pytest
from contracts import documented, places
from contracts.proxy import FaultProxy
from contracts.servers import free_ports

EVERY_VERB = [
    ["ls"], ["show", "--tensors"], ["verify"], ["gc", "--dry-run"], ["plot"], ["explain"], ["diff", "latest", "latest"],
]  # fmt: skip


@pytest.fixture(params=places.BUCKETS)
def place(request):
    """An empty prefix of a bucket."""
    return places.new_place(request)


@pytest.fixture
def options(place, run, monkeypatch):
    """The words that lead to the run; nothing else does any more."""
    for name in place.server.environment:
        monkeypatch.delenv(name)
    if place.url.startswith("gs://"):
        given = {"token": "anon", "endpoint_url": place.server.url}
    else:
        who = place.server.identity("writer")
        given = {"key": who.access, "secret": who.secret, "client_kwargs": {"endpoint_url": place.server.url}}
    given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    return [word for name, value in given.items() for word in ("--storage-option", f"{name}={value}")]


def test_every_verb_goes_by_its_options(keepbest, run, options, tmp_path):
    """Where no variable is set, `--storage-option` is enough for every verb, and no value of one is printed."""
    for verb, *words in [*EVERY_VERB, ["export", "best", tmp_path / "out"], ["report", "-o", tmp_path / "page.html"]]:
        said = keepbest(verb, run, *words, *options)
        assert (said.code, said.err) == (0, ""), verb
        values = [word.partition("=")[2] for word in options[1::2] if word.startswith(("key", "secret"))]
        assert not any(value in said.out for value in values)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["model.safetensors", "optimizer.safetensors"]


def test_ls_costs_the_requests_that_the_page_says(keepbest, run, place, options):
    """`keepbest ls` lists once, and reads each manifest once."""
    kind = "GCS" if run.startswith("gs") else "S3"
    manifests = [name for name in place.files() if "commits/" in name and name.endswith(".json")]
    with FaultProxy(place.server.url) as proxy:
        through = [word.replace(place.server.url, proxy.url) for word in options]
        assert keepbest("ls", run, *through).code == 0
        assert proxy.count() == int(documented.table("requests to S3")["list"][f"requests to {kind}"]) - 1 + len(
            manifests
        )
        assert proxy.count(path=r"list-type=2|/o\?") == 1


@pytest.mark.parametrize("verb", ["ls", "show", "verify", "gc"])
def test_a_bucket_that_does_not_exist(keepbest, run, verb):
    """It is said in one sentence, with the bucket's name."""
    said = keepbest(verb, f"{run.partition('://')[0]}://keepbest-nowhere/run")
    assert (said.code, said.out) == (2, "")
    assert "the bucket 'keepbest-nowhere' does not exist" in said.err
    assert said.err.count("\n") == 1


def test_a_server_that_is_not_there(keepbest, run, options):
    """An endpoint at which nobody answers is an error soon, and shows no key even in the traceback."""
    (port,) = free_ports(1)
    secret = [word for word in options if word.startswith(("key", "secret"))]
    words = [*secret, f"endpoint_url=http://127.0.0.1:{port}", "token=anon" if run.startswith("gs") else "anon=false"]
    given = [*(word for one in [*words, "deadline=1"] for word in ("--storage-option", one)), "--traceback"]
    said = keepbest("ls", run, *given)
    assert (said.code, said.out) == (2, "")
    assert "cannot be reached" in said.err.splitlines()[-1]
    assert not any(word.partition("=")[2] in said.err for word in secret)


def test_wrong_keys(keepbest, run, options):
    """A secret that is wrong is an error that says so and does not show it."""
    if not run.startswith("s3://"):
        options = [*options, "--storage-option", "token=no-such-file.json"]
    else:
        options = [*options, "--storage-option", "secret=hunter2"]
    said = keepbest("ls", run, *options, "--traceback")
    assert (said.code, said.out) == (2, "")
    assert "hunter2" not in said.err
    assert said.err.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("verb", ["ls", "verify"])
def test_the_process_ends_quietly(run, verb):
    """Connections, threads and event loops of the client leave no word behind, and no framework is imported."""
    code = (
        "import sys; from keepbest.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(sorted({'torch', 'tensorflow', 'keras', 'jax', 'pandas'} & sys.modules.keys()) or code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, verb, run], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert run in done.stdout
