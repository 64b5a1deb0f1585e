"""The names of a run: built and parsed by one file, so that both agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepbest.storage import layout

NUMBERS = st.integers(1, 10**12)


@given(NUMBERS)
def test_commit_keys_are_read_back(number):
    """The number of a manifest is that of its key, and no index is taken for a manifest or the other way round."""
    assert layout.commit_sequence(layout.commit_key(number)) == number
    assert layout.index_sequence(layout.index_key(number)) == number
    assert layout.commit_sequence(layout.index_key(number)) is None
    assert layout.index_sequence(layout.commit_key(number)) is None


@given(st.integers(1, 10**8 - 1), st.integers(1, 10**8 - 1))
def test_commit_keys_sort_as_their_numbers(one, other):
    """A listing in the order of keys is one in the order of commits."""
    assert (layout.commit_key(one) < layout.commit_key(other)) == (one < other)


@pytest.mark.parametrize(
    "key",
    [
        "commits/7.json",
        "commits/000000007.json",
        "commits/00000007.json.bak",
        "commits/a/00000007.json",
        "other/00000007.json",
        "commits/.tmp-0123456789abcdef0123456789abcdef",
        "commits/\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0667.json",  # Arabic digits, which int() takes
        "commits/-0000007.json",
        "metrics.jsonl",
    ],
)
def test_other_keys_are_no_commits(key):
    """A file that somebody put beside the manifests is not taken for one."""
    assert layout.commit_sequence(key) is None


@given(
    st.none() | st.integers(0, 5000),
    st.integers(0, 10**9),
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.sampled_from(["", "-weights"]),
)
def test_names_of_checkpoints_are_read_back(epoch, step, write_id, part):
    """Every name that is given to a checkpoint is known again as one of ours, and as nothing else."""
    name = layout.checkpoint_name(epoch=epoch, step=step, write_id=write_id) + part
    key = layout.data_key(name, "model.safetensors")
    assert key.startswith(layout.data_prefix(name))
    assert layout.checkpoint_of(key) == name
    assert layout.checkpoint_place(name) == (epoch, step)
    assert layout.commit_sequence(key) is None
    assert layout.temporary_of(key) is None


def test_names_are_for_people():
    """Epochs are counted from 1 in names, and what is not known is left out."""
    write_id = "9f3ac2" + "0" * 26
    assert layout.checkpoint_name(epoch=2, step=1200, write_id=write_id) == "epoch-003_step-001200_9f3ac2"
    assert layout.checkpoint_name(epoch=0, step=0, write_id=write_id) == "epoch-001_9f3ac2"
    assert layout.checkpoint_name(epoch=None, step=0, write_id=write_id) == "step-000000_9f3ac2"


@pytest.mark.parametrize(
    "key", ["checkpoints/epoch=1/model.ckpt", "checkpoints/last.ckpt", "checkpoints/step-100/w.bin"]
)
def test_what_others_keep_in_a_folder_called_checkpoints_is_not_ours(key):
    """Checkpoints of Lightning or transformers are never taken for ours, and so never deleted as garbage."""
    assert layout.checkpoint_of(key) is None


def test_temporary_names_are_known_wherever_they_lie():
    """A temporary file, or one in a temporary folder, is known by its whole name, and a similar one is not."""
    name = ".tmp-0123456789abcdef0123456789abcdef"
    assert layout.temporary_of(name) == name
    assert layout.temporary_of(f"commits/{name}") == f"commits/{name}"
    assert layout.temporary_of(f"{name}/deep/model.keras") == name
    assert layout.temporary_of(".tmp-of-mine/file") is None
    assert layout.temporary_of("metrics.jsonl") is None
