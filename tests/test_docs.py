"""The documents: what they show can be run, what they refer to is there, and the site of them builds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter

import numpy as np
import pytest
import torch
from contracts import documented, page, preludes

import keepbest
from keepbest.cli import main
from keepbest.cli.app import VERBS
from keepbest.core import retention, when
from keepbest.storage.transfer import TransferSettings

PAGES = documented.pages()
LIMIT = 600
"""Seconds for a page; a machine that does much else takes minutes for what takes seconds."""
FRAMEWORKS_THAT_WARN = re.compile(r"^\s*(import|from) (keras|tensorflow|jax|keepbest\.adapters\.keras)\b", re.MULTILINE)
BUCKETS = {"s3://my-bucket": "s3_server", "gs://my-bucket": "gcs_server"}
"""What a page names → the server that has to be there."""

NOT_RUN = {
    "docs/buckets.md": 2,  # what stands for an argument, and for a key
    "docs/howto/from-lightning.md": 1,  # Lightning
    "docs/howto/resume.md": 1,  # Slurm
}
"""Page → how many of its snippets carry `<!-- not run: reason -->`. Add one only if nothing else will do."""

OTHERS_OWN = {"CONTRIBUTING.md", "docs/buckets.md", "docs/benchmarks.md", "docs/faults.md"}
"""Pages whose code other tests run, or which show what was printed."""


def is_code(snippet):
    return snippet.language in ("python", "sh") or snippet.label == "tree"


def to_run(path):
    return [snippet for snippet in documented.snippets(path) if is_code(snippet) and not snippet.excuse]


def parameters():
    for path in PAGES:
        name = documented.name(path)
        if name in OTHERS_OWN or not any(snippet.language == "python" for snippet in to_run(path)):
            continue
        code = "".join(snippet.code for snippet in to_run(path))
        named = [url for url in BUCKETS if url in code]
        yield pytest.param(path, named, marks=[pytest.mark.bucket] * bool(named) + [pytest.mark.slow], id=name)


def plan(path):
    """Return what page.py takes: the page's snippets, and what it takes for granted right before them."""
    hidden = dict(preludes.PRELUDES.get(documented.name(path), {}))
    snippets = []
    for snippet in to_run(path):
        due = [text for text in hidden if text in snippet.code]
        snippets += [{"line": 1, "language": "python", "label": "", "code": hidden.pop(text)} for text in due]
        code = snippet.code
        if snippet.language == "sh":
            code = "".join(line for line in code.splitlines(keepends=True) if not INSTALLS.match(line))
        snippets.append({"line": snippet.line, "language": snippet.language, "label": snippet.label, "code": code})
    assert not hidden, f"no snippet has {list(hidden)}"
    strict = not FRAMEWORKS_THAT_WARN.search("".join(snippet["code"] for snippet in snippets))
    return {"page": documented.name(path), "strict": strict, "snippets": snippets}


INSTALLS = re.compile(r"(pip install|make) ")
"""Lines of shell that are held to pyproject.toml and the Makefile, and not run."""


@pytest.mark.parametrize(("path", "named"), list(parameters()))
def test_what_a_page_shows_runs_from_top_to_bottom(path, named, request, tmp_path):
    """Whoever follows a page in an empty folder, Python and shell, gets to its end and finds the files it shows."""
    work = tmp_path / "work"
    work.mkdir()
    asked = tmp_path / "plan.json"
    text = json.dumps(plan(path))
    for url in named:  # a bucket to itself: other pages have runs of the same names
        text = text.replace(url, url.replace("my-bucket", request.getfixturevalue(BUCKETS[url]).make_bucket()))
    asked.write_text(text)
    backend = "tensorflow" if "import tensorflow" in text else "torch"
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, page.__file__, str(asked)],
        cwd=work, env=environment, timeout=LIMIT, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]


def test_a_page_that_does_not_run_is_found_out(tmp_path):
    """The runner of pages fails at an exception, at a failed command, at a warning, and at a file that is not there."""
    faulty = [
        {"language": "python", "label": "", "code": "raise SystemExit(3)"},
        {"language": "python", "label": "", "code": "import warnings; warnings.warn('!')"},
        {"language": "sh", "label": "", "code": "false | true"},
        {"language": "text", "label": "tree", "code": ".\nthere-is-no-such-file"},
    ]
    for number, snippet in enumerate(faulty):
        asked = tmp_path / f"{number}.json"
        asked.write_text(json.dumps({"page": "x", "strict": True, "snippets": [snippet | {"line": 1}]}))
        done = subprocess.run([sys.executable, page.__file__, asked], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode != 0, snippet


def test_no_snippet_is_left_out_silently():
    """What is not run is counted here, says why, and nothing hides behind another language's name."""
    excused = Counter(
        documented.name(path) for path in PAGES for snippet in documented.snippets(path) if snippet.excuse
    )
    assert excused == NOT_RUN
    for path in PAGES:
        found = documented.snippets(path)
        strange = {snippet.language for snippet in found} & {"py", "python3", "pycon", "bash", "shell", "console"}
        assert not strange, documented.name(path)
        assert len(re.findall(r"<!-- not run", path.read_text())) == sum(bool(snippet.excuse) for snippet in found)


def test_what_pages_tell_to_install_or_make_is_there():
    """Each extra in a `pip install` is one of ours, and each target of a `make` one of the Makefile's."""
    project = tomllib.loads((documented.ROOT / "pyproject.toml").read_text())["project"]
    targets = set(re.findall(r"^([a-z][\w-]*):", (documented.ROOT / "Makefile").read_text(), re.MULTILINE))
    seen = Counter()
    for path in PAGES:
        for extras in re.findall(r'pip install .*?"[\w.]*\[([\w,]+)\]"', path.read_text()):
            seen["extras"] += 1
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), (path, extras)
        for target in re.findall(r"^(?: {4})?make ([a-z][\w-]*)", path.read_text(), re.MULTILINE):
            seen["targets"] += 1
            assert target in targets, (path, target)
    assert seen["extras"] > 5
    assert seen["targets"] > 2


# ── docs/buckets.md ───────────────────────────────────────────────────────────────────────────────────────────────────

RUNNABLE = to_run(documented.PAGE)


@pytest.mark.bucket
def test_what_the_page_shows_of_buckets_runs(s3_server, tmp_path, monkeypatch, capsys):
    """All of the page that is whole, Python and shell, runs one after the other, in the bucket that it names."""
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(OSError):  # another process of the tests has made it
        s3_server.make_bucket("my-bucket")
    ran, model = Counter(), torch.nn.Linear(10, 10)
    optimizer = torch.optim.Adam(model.parameters())
    for snippet in RUNNABLE:
        ran[snippet.language] += 1
        if snippet.language == "sh":
            words = snippet.code.replace("http://127.0.0.1:8333", s3_server.url).split()
            assert main(words[1:]) == 0, (words, capsys.readouterr().err)
        else:
            losses = iter(np.linspace(1, 0.5, 40))
            told = {"model": model, "optimizer": optimizer, "train_and_validate": lambda it=losses: next(it)}
            exec(snippet.code, told)
    assert "only on the disk" in capsys.readouterr().out
    assert ran == {"python": 5, "sh": 4}
    assert (tmp_path / "model.safetensors").stat().st_size > 80


def test_readme_has_the_figures_of_the_page_of_faults():
    """What README says of faults is what `make faults` wrote last: tried and lost, or loaded with other values."""
    rows = json.loads((documented.ROOT / "docs" / "faults.json").read_text())["rows"]
    kinds = {
        "killed at random": ("at a random moment", "lost"),
        "killed at a system call": ("at a system call", "lost"),
        "a bit flipped or a file cut": ("a bit flipped", "unnoticed"),
    }
    table = documented.table("killed at random: lost", label=r"^(.+)$", page=documented.ROOT / "README.md")
    for label, cells in table.items():
        for column, cell in cells.items():
            scenario, harm = kinds[column.partition(":")[0]]
            found = [
                f"{row['harm'][harm]} of {row['tried']}"
                for row in rows
                if row["family"] == "peers"
                and row["subject"].rpartition(" ")[0] == label.replace("`", "")
                and scenario in row["scenario"]
            ]
            assert found == [cell], (label, column)
    assert len(table) == 10


def test_the_page_names_our_options_as_they_are():
    """The table of options has every one of ours, with its default."""
    table = {
        name: cells["default"].split()[0].strip("`")
        for name, cells in documented.table("default", label=r"`(\w+)`").items()
    }
    defaults = {name: getattr(TransferSettings(), name) for name in TransferSettings.__slots__}
    assert table == {
        name: "none" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)
        for name, value in defaults.items()
    }


# ── the reference ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_reference_has_every_public_name():
    """Each name of `keepbest.__all__`, and each rule that a policy can be made of, stands in the reference."""
    told = "".join(path.read_text() for path in sorted((documented.ROOT / "docs" / "reference").glob("*.md")))
    directives = set(re.findall(r"auto(?:class|function|exception):: ([\w.]+)", told))
    listed = {name for names in re.findall(r":members: ([\w, ]+)", told) for name in names.split(", ")}
    missing = {f"keepbest.{name}" for name in keepbest.__all__} - directives - {"keepbest.KeepbestError"}
    assert not missing
    assert "automodule:: keepbest.errors" in told
    rules = {name for module in (when, retention) for name, kind in vars(module).items()
             if isinstance(kind, type) and issubclass(kind, when.Rule) and not name.startswith("_")}  # fmt: skip
    assert rules - {"Rule"} <= listed
    assert len(rules) > 10


def test_the_page_of_the_command_line_has_every_verb():
    """The table of verbs is the one of the program, sentence for sentence."""
    table = documented.table("what it does", label=r"`(\w+)`", page=documented.ROOT / "docs" / "reference" / "cli.md")
    assert {verb: cells["what it does"] for verb, cells in table.items()} == VERBS


# ── the site ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", PAGES, ids=documented.name)
def test_links_within_the_documents_lead_somewhere(path):
    """A link to a file of ours names one, and a link to a heading names one of the page that it leads to."""
    for target in re.findall(r"\]\(([^)\s]+)\)", documented.prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def anchors(path):
    """Return the names that GitHub, and the site, give to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", documented.prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """`make docs` makes every page and the whole reference; a warning, as of a link that leads nowhere, ends it."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path / "site")],
        cwd=documented.ROOT, timeout=LIMIT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    for path in PAGES:
        if "docs" in path.parts[len(documented.ROOT.parts) :]:
            made = tmp_path / "site" / path.relative_to(documented.ROOT / "docs").with_suffix(".html")
            assert made.exists(), made
    reference = (tmp_path / "site" / "reference" / "policy.html").read_text()
    assert 'id="keepbest.CheckpointPolicy.keep_best"' in reference
    assert 'id="keepbest.CheckpointPolicy.every_n_epochs"' in reference
    assert not re.search(r'(src|href)="https?://[^"]+\.(css|js|woff2?)"', reference), "the site fetches something"
