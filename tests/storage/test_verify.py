"""Verify: reads everything, says what is wrong where, and raises nothing for it."""

from __future__ import annotations

import pytest
from contracts.faults import WrappedBackend
from contracts.runs import SmallRun

from keepbest.errors import StorageError
from keepbest.storage.layout import commit_key, data_key, data_prefix
from keepbest.storage.run import Run


@pytest.fixture
def small(backend):
    run = SmallRun(backend)
    for _ in range(3):
        run.save()
    return run


def named(backend, sequence, file):
    return data_key(Run(backend).get(sequence).name, file)


def alter(backend, key, place):
    data = bytearray(backend.read(key))
    data[place] ^= 1
    backend.replace(key, bytes(data))


def test_a_whole_run_is_ok(backend, small):
    """Nothing is wrong: the report says how much was looked at."""
    report = Run(backend).verify()
    assert report.ok
    assert (report.checked, report.problems) == (3, ())
    assert report.nbytes == sum(found.nbytes for found in small.writer.checkpoints)
    assert str(report) == f"3 checkpoint(s) are whole ({report.nbytes:,} bytes read)."


def test_each_problem_says_where_it_is(backend, small):
    """Checkpoint, file and tensor are named for everything that is wrong, and the rest is still looked at."""
    names = [found.name for found in small.writer.checkpoints]
    alter(backend, named(backend, 1, "model.safetensors"), -1)
    alter(backend, named(backend, 1, "model.safetensors"), -30)
    backend.delete([named(backend, 2, "state.json")])
    key = named(backend, 3, "state.json")
    backend.replace(key, backend.read(key)[:-1])
    report = Run(backend).verify()
    assert not report.ok
    found = [(problem.checkpoint, problem.file, problem.tensor) for problem in report.problems]
    assert {
        (names[0], "model.safetensors", "layer.weight"),
        (names[1], "state.json", None),
        (names[2], "state.json", None),
    } == set(found)
    messages = str(report)
    assert "3 checkpoint(s)" in messages
    for text in ("the tensor 'layer.weight' in", "does not exist", "bytes, not", names[0], names[1], names[2]):
        assert text in messages


def test_only_what_was_read_is_counted(backend, small):
    """Bytes that do not exist are not among those that were read."""
    held = small.writer.checkpoints
    key = named(backend, 2, "state.json")
    backend.delete([key for key in (entry.key for entry in backend.list("checkpoints/")) if held[0].name in key])
    cut = backend.read(key)[:-1]
    backend.replace(key, cut)
    missing = held[0].nbytes + 1
    assert Run(backend).verify().nbytes == sum(found.nbytes for found in held) - missing


def test_a_checkpoint_whose_files_were_all_deleted_is_one_problem(backend, small):
    """It says what to delete, too; once that is done, the run is whole, whatever an index had of it."""
    small.writer._write_index()
    for sequence in (1, 3):
        name = Run(backend).get(sequence).name
        backend.delete([entry.key for entry in backend.list(data_prefix(name))])
        (problem,) = Run(backend).verify().problems
        assert (problem.checkpoint, problem.file) == (name, None)
        assert f"else delete {backend.url}/{commit_key(sequence)}, too" in problem.message
        backend.delete([commit_key(sequence)])
        assert Run(backend).verify().ok
    assert [found.sequence for found in Run(backend).checkpoints()] == [2]


def test_an_altered_header_is_told_apart_from_an_altered_tensor(backend, small):
    """Damage to the header is not put down to a tensor."""
    alter(backend, named(backend, 1, "model.safetensors"), 20)
    (problem,) = Run(backend).verify().problems
    assert (problem.file, problem.tensor) == ("model.safetensors", None)
    assert "header" in problem.message


def test_a_state_file_that_still_reads_well_is_compared_too(backend, small):
    """An altered digit makes no state file unreadable, and is found all the same."""
    key = named(backend, 2, "state.json")
    backend.replace(key, backend.read(key).replace(b'"number":2', b'"number":3'))
    (problem,) = Run(backend).verify().problems
    assert (problem.file, problem.tensor) == ("state.json", None)


def test_a_damaged_manifest_is_a_problem(backend, small):
    """A manifest that cannot be read is counted and named; the others are looked at."""
    alter(backend, commit_key(2), -10)
    report = Run(backend).verify()
    assert report.checked == 3
    (problem,) = report.problems
    assert (problem.checkpoint, problem.file) == (commit_key(2), None)
    assert "damaged" in problem.message


def test_what_cannot_be_read_is_a_problem(backend, small):
    """A file that the store refuses to give is a problem of that file, and verify goes on."""
    refused = named(backend, 1, "state.json")

    class Refusing(WrappedBackend):
        def _call(self, name, *args):
            if name == "read_ranges" and args[0] == refused:
                raise StorageError(refused, "Input/output error (a test).")
            return super()._call(name, *args)

    (problem,) = Run(Refusing(backend)).verify().problems
    assert (problem.file, "Input/output error" in problem.message) == ("state.json", True)


def test_a_checkpoint_that_is_retired_meanwhile_is_no_problem(backend, small):
    """Verifying a run while its training goes on does not raise a false alarm."""

    class Retiring(WrappedBackend):
        def _call(self, name, *args):
            if name == "head" and args[0].startswith("checkpoints/"):
                small.writer.retire([1, 2])
            return super()._call(name, *args)

    report = Run(Retiring(backend)).verify()
    assert report.ok, str(report)
    assert report.checked == 1


def test_an_empty_run_is_ok(backend):
    """Where there is no checkpoint, none is damaged."""
    report = Run(backend).verify()
    assert report.ok
    assert report.checked == report.nbytes == 0
