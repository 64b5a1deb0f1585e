"""`keepbest diff`."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from contracts.runs import SmallRun, record
from contracts.terminal import COMMAND, run_in_terminal

import keepbest as library
from keepbest.storage.backend import open_backend

ENCODER, HEAD, BIAS = "encoder.weight", "head.weight", "head.bias"


def save(run, loss=1.0, *, optimizer=True, **tensors):
    """Commit a checkpoint of a model with these tensors; dots in their names are written as `__`."""
    named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    objects = {"model": record("model", named)}
    if optimizer:
        objects["optimizer"] = record("optimizer", {"count": np.array(run.writer.next_sequence)}, inline=True)
    return run.save(loss, objects=objects)


def ones(many=4, value=1.0, kind=np.float32):
    return np.full(many, value, kind)


@pytest.fixture
def small(tmp_path):
    """An empty run to write to, on disk."""
    return SmallRun(open_backend(str(tmp_path / "run")))


@pytest.fixture
def url(small):
    """A run of two checkpoints: the encoder is frozen, the head changed by half and its bias in one element of four."""
    save(small, 0.5, encoder__weight=ones(), head__weight=ones(), head__bias=ones())
    save(small, 0.75, encoder__weight=ones(), head__weight=ones(value=1.5), head__bias=np.array([1, 1, 1, 1.25], "f4"))
    return small.backend.url


def lines(said):
    assert said.code == 0, said.err
    return said.out.splitlines()


def test_what_changed_comes_first(keepbest, url):
    """Position and metrics stand on top, then the tensors that changed, the one that changed most first."""
    said = lines(keepbest("diff", url, "1", "2"))
    assert said[0].startswith("before  epoch-001_")
    assert said[1].startswith("after   epoch-002_")
    assert [line.split() for line in said[2:6]] == [
        ["before", "after", "change"],
        ["epoch", "1", "2", "+1"],
        ["step", "10", "20", "+10"],
        ["val_loss", "0.5", "0.75", "+0.25"],
    ]
    assert said[6] == "4 tensors: 3 changed, 1 the same."
    assert said[7].split() == ["object", "tensor", "dtype", "shape", "change", "largest", "elements"]
    assert [line.split() for line in said[8:11]] == [
        ["optimizer", "count", "I64", "[]", "100", "%", "1", "100", "%"],
        ["model", "head.weight", "F32", "[4]", "50", "%", "0.5", "100", "%"],
        ["model", "head.bias", "F32", "[4]", "12.5", "%", "0.25", "25", "%"],
    ]
    assert said[11].startswith("change: the length ")


def test_the_best_and_the_latest_unless_others_are_named(keepbest, url):
    """Without names the best is compared with the latest."""
    found = keepbest("diff", url, "--json").json
    assert (found["before"]["sequence"], found["after"]["sequence"]) == (1, 2)


def test_a_checkpoint_is_the_same_as_itself(keepbest, url):
    """Where nothing differs, that is said, and no table is shown."""
    said = lines(keepbest("diff", url, "latest", "2"))
    assert said[-1] == "4 tensors, all the same."


def test_the_exit_code_says_it_if_asked(keepbest, url):
    """`--exit-code` is 1 for a difference, 0 for none, as the command's help says; without it, showing is success."""
    assert "(verify found damage, diff --exit-code a difference)" in " ".join(keepbest("--help").out.split())
    assert keepbest("diff", url).code == 0
    assert keepbest("diff", url, "--exit-code").code == 1
    assert keepbest("diff", url, "1", "1", "--exit-code").code == 0
    assert keepbest("diff", url, "--only", ENCODER, "--exit-code", "--json").code == 0


def test_only_some_tensors(keepbest, url):
    """`--only` takes patterns of names, with or without the object before them."""
    shown = [found["tensor"] for found in keepbest("diff", url, "--only", "head.*", "--json").json["tensors"]]
    assert shown == [HEAD, BIAS]
    found = keepbest("diff", url, "--only", "optimizer.*", "--only", BIAS, "--json").json
    assert [held["tensor"] for held in found["tensors"]] == ["count", BIAS]
    assert found["same"] == 0
    said = keepbest("diff", url, "--only", "haed.*")
    assert (said.code, said.out) == (2, "")
    assert "is called haed.*" in said.err


def test_equal_tensors_are_not_read(keepbest, url, tmp_path):
    """What has equal digests costs no read: the bytes of the frozen encoder may be gone; those of the head may not."""
    files = sorted((tmp_path / "run" / "checkpoints").glob("*/model.safetensors"))
    for file in files:
        data = bytearray(file.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        begin, end = header[ENCODER]["data_offsets"]
        data[start + begin : start + end] = bytes(end - begin)
        file.chmod(0o644)
        file.write_bytes(data)
    assert keepbest("diff", url).code == 0
    begin, _ = header[HEAD]["data_offsets"]
    data[start + begin] ^= 1
    files[-1].write_bytes(data)
    said = keepbest("diff", url)
    assert said.code == 2
    assert HEAD in said.err
    assert "not those that were written" in said.err


def test_progress_is_told_as_of_a_diff(keepbest, url):
    """What is read is counted under the verb's own name and both checkpoints' names, until all is read."""
    heard = []
    with library.on_progress(heard.append):
        found = keepbest("diff", url, "1", "2", "--json").json
    last = heard[-1]
    assert {one.action for one in heard} == {"diff"}
    assert last.subject == f"{found['before']['name']} and {found['after']['name']}"
    assert (last.done, last.total, last.finished) == (64, 64, True)


def test_json_is_one_documented_object(keepbest, url):
    """Programs get every tensor that differs, and how many are the same."""
    said = keepbest("diff", url, "1", "2", "--json")
    assert (said.err, said.out.count("\n")) == ("", 1)
    found = said.json
    assert {key: found[key] for key in ("schema", "run", "other", "equal", "same")} == {
        "schema": "keepbest.diff/1",
        "run": url,
        "other": None,
        "equal": False,
        "same": 1,
    }
    assert (found["objects_removed"], found["objects_added"]) == ([], [])
    head = found["tensors"][1]
    assert head.pop("before")["dtype"] == "F32"
    assert head.pop("after")["shape"] == [4]
    assert head == {
        "object": "model",
        "tensor": HEAD,
        "tied": [],
        "kind": "values",
        "relative": 0.5,
        "largest": 0.5,
        "changed": 1.0,
        "nonfinite": 0,
    }


def test_what_has_another_form(keepbest, small):
    """Added, removed, reshaped and recast tensors are named as that, before those that changed."""
    save(small, a=ones(), b=ones(), c=ones(), gone=ones(), z=ones())
    save(small, a=ones(8), b=ones(kind=np.float16), c=ones(value=2), new=ones(), z=ones())
    said = lines(keepbest("diff", small.backend.url, "1", "2", "--only", "model.*"))
    assert "6 tensors: 1 changed, 1 of another shape, 1 of another dtype, 1 added, 1 removed, 1 the same." in said
    begin = next(at for at, line in enumerate(said) if line.startswith("object")) + 1
    assert [" ".join(line.split()) for line in said[begin : begin + 5]] == [
        "model a F32 [4] to [8] of another shape",
        "model b F32 to F16 [4] of another dtype",
        "model gone F32 [4] removed",
        "model new F32 [4] added",
        "model c F32 [4] 100 % 1 100 %",
    ]


def test_objects_that_only_one_has_are_named_as_a_whole(keepbest, small):
    """Beside a checkpoint of weights only, the optimizer is one line and not a thousand."""
    save(small, a=ones())
    save(small, a=ones(), optimizer=False)
    said = lines(keepbest("diff", small.backend.url, "1", "2"))
    assert "Only before holds: optimizer." in said
    assert said[-1] == "1 tensor, all the same."
    found = keepbest("diff", small.backend.url, "1", "2", "--json").json
    assert (found["objects_removed"], found["equal"], found["tensors"]) == (["optimizer"], False, [])
    assert keepbest("diff", small.backend.url, "2", "1", "--exit-code").code == 1


def test_tied_tensors_are_one_line(keepbest, small):
    """A tied tensor is compared once, and says with which it is tied; ties that were made or broken are told."""
    tied = ones()
    save(small, a=tied, b=tied)
    changed = ones(value=3)
    save(small, a=changed, b=changed)
    save(small, a=ones(value=3), b=ones(value=3))
    (found,) = keepbest("diff", small.backend.url, "1", "2", "--only", "model.*", "--json").json["tensors"]
    assert (found["tensor"], found["tied"], found["relative"]) == ("a", ["b"], 2.0)
    assert "tied: b" in keepbest("diff", small.backend.url, "1", "2").out
    found = keepbest("diff", small.backend.url, "2", "3", "--only", "model.*", "--json").json["tensors"]
    assert [(held["tensor"], held["kind"]) for held in found] == [("a", "ties"), ("b", "ties")]
    assert "shared with another tensor in one of the two only" in keepbest("diff", small.backend.url, "2", "3").out


def test_a_checkpoint_of_another_run(keepbest, url, tmp_path):
    """`--other` compares with a checkpoint of another run, whose URL is shown."""
    other = SmallRun(open_backend(str(tmp_path / "other")))
    save(other, encoder__weight=ones(), head__weight=ones(), head__bias=ones())
    said = lines(keepbest("diff", url, "1", "latest", "--other", other.backend.url))
    assert said[1].endswith(f" of {other.backend.url}")
    assert said[-1] == "4 tensors, all the same."
    assert keepbest("diff", url, "1", "1", "--other", other.backend.url, "--json").json["other"] == other.backend.url
    assert keepbest("diff", url, "1", "1", "--other", tmp_path / "none").code == 2


def test_many_tensors_show_those_that_changed_most(keepbest, small):
    """A long list shows the fifty that changed most and says how to see all."""
    many = {f"t{number:03d}": ones() for number in range(60)}
    save(small, **many)
    save(small, **{name: tensor * (1 + number) for number, (name, tensor) in enumerate(many.items())})
    said = lines(keepbest("diff", small.backend.url, "1", "2", "--only", "model.*"))
    begin = next(at for at, line in enumerate(said) if line.startswith("object")) + 1
    assert said[begin].split()[1] == "t059"
    assert said[begin + 50] == "Shown are the 50 that changed most; 9 more lines with --tensors."
    everything = keepbest("diff", small.backend.url, "1", "2", "--tensors").out
    assert all(name in everything for name in list(many)[1:])
    assert len(keepbest("diff", small.backend.url, "1", "2", "--json").json["tensors"]) == 60


def test_what_is_not_finite_is_told(keepbest, small):
    """NaN in a tensor is counted beside the figures of the rest, to people and to programs."""
    save(small, a=ones(), b=np.zeros(2))
    save(small, a=np.array([math.nan, 1, 1, 1], np.float32), b=ones(2, kind=np.float64))
    said = keepbest("diff", small.backend.url, "1", "2", "--only", "model.*")
    assert "1 element not finite" in said.out
    first, second = keepbest("diff", small.backend.url, "1", "2", "--only", "model.*", "--json").json["tensors"]
    assert (first["tensor"], first["nonfinite"], first["largest"]) == ("a", 1, 0.0)
    assert (second["tensor"], second["relative"]) == ("b", "inf")
    assert "inf %" in said.out


def test_a_change_that_no_float_holds_comes_first(keepbest, small):
    """Where the lengths of two tensors are too large for a float, the change is infinite and ranks as that."""
    huge = np.full(4, 1.7e308)
    save(small, optimizer=False, head__weight=ones(), head__bias=huge)
    save(small, optimizer=False, head__weight=ones(value=1.5), head__bias=-huge)
    first, second = keepbest("diff", small.backend.url, "1", "2", "--json").json["tensors"]
    assert (first["tensor"], first["relative"], second["tensor"]) == (BIAS, "inf", HEAD)
    assert "nan" not in keepbest("diff", small.backend.url, "1", "2").out


def test_many_steps_apart_are_told_to_the_last(keepbest, local_build):
    """The change of a whole number is whole, however large."""
    local_build.save(0, val_loss=0.5)
    local_build.save(123_456, val_loss=0.25)
    said = lines(keepbest("diff", local_build.url, "1", "2"))
    assert [line.split() for line in said[3:6]] == [
        ["epoch", "1", "123457", "+123,456"],
        ["step", "10", "1234570", "+1,234,560"],
        ["val_loss", "0.5", "0.25", "-0.25"],
    ]


def test_a_change_of_almost_all_is_not_all(keepbest, small):
    """What is rounded does not read as if every element had changed."""
    tensor = np.ones(100_000, np.float32)
    save(small, a=tensor)
    changed = tensor * 2
    changed[0] = 1
    save(small, a=changed)
    assert "99.9 %" in keepbest("diff", small.backend.url, "1", "2", "--only", "a").out


def test_without_ml_dtypes_the_rest_is_compared(small):
    """Where bfloat16 cannot be read, it is told what to install, and other tensors are still measured."""
    import ml_dtypes

    save(small, a=ones(kind=ml_dtypes.bfloat16), b=ones())
    save(small, a=ones(value=2, kind=ml_dtypes.bfloat16), b=ones(value=3))
    code = "import sys; sys.modules['ml_dtypes'] = None; from keepbest.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["diff", small.backend.url, "1", "2", "--only", "model.*"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Not measured: BF16 needs the package ml_dtypes: pip install ml_dtypes" in done.stdout
    assert "200 %" in done.stdout


def test_a_name_that_nothing_has_is_an_error(keepbest, url):
    """A checkpoint that does not exist is named, with those that do."""
    said = keepbest("diff", url, "1", "epoch-009")
    assert said.code == 2
    assert "no checkpoint 'epoch-009'" in said.err


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_every_name(url, columns):
    """A narrow terminal loses columns, and names them; no tensor's name is cut."""
    ran = run_in_terminal(COMMAND, "diff", url, columns=columns)
    assert ran.code == 0
    text = "\n".join(ran.screen)
    for word in (HEAD, BIAS, "epoch-001_step-000010_", "val_loss", "50 %"):
        assert word in text
    assert all(len(line) <= columns for line in ran.screen if not line.startswith(("change", "Not")))


def test_names_cannot_steer_the_terminal(keepbest, small):
    """Control characters in a stranger's tensor names are written out."""
    save(small, **{"a\x1b]0;owned\x07": ones()})
    save(small, **{"a\x1b]0;owned\x07": ones(value=2)})
    said = keepbest("diff", small.backend.url, "1", "2")
    assert "a\\x1b]0;owned\\x07" in said.out
    assert "\x1b" not in said.out
    assert keepbest("diff", small.backend.url, "1", "2", "--only", "\x1b").err.count("\x1b") == 0


def test_nothing_is_imported_for_what_is_equal(url):
    """NumPy is imported only when there is something to measure, a framework never."""
    code = (
        "import sys; from keepbest.cli import main; main(sys.argv[1:]); "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    for words in (["diff", url, "1", "1"], ["diff", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert not set(done.stderr.split()) & {"torch", "tensorflow", "keras", "jax", "numpy", "fsspec"}


def test_checkpoints_in_buckets_are_compared(keepbest, run_url):
    """Checkpoints are compared alike wherever they lie."""
    run = SmallRun(open_backend(run_url))
    save(run, a=ones())
    save(run, a=ones(value=2))
    assert keepbest("diff", run_url, "1", "2", "--only", "a", "--json").json["tensors"][0]["relative"] == 1.0
