"""Foreign: what is written of another program's checkpoint, where it is committed or not."""

import numpy as np
import pytest

from keepbest.core import foreign
from keepbest.core.position import Position


def found(tmp_path, **position):
    """Return what a reader would have found: weights of one tensor."""
    part = foreign.Part(role="weights", value={"w": np.ones(3)})
    return foreign.Found(
        location=str(tmp_path / "in"),
        format="a file",
        parts={"model": part},
        position=Position(**position),
        stored=1000,
    )


def test_what_cannot_be_committed_leaves_nothing(tmp_path):
    """A checkpoint that no manifest can describe is deleted again."""
    writer = foreign.open_target(str(tmp_path / "run"), None, append=False)
    with pytest.raises(ValueError, match=r"\$\.epoch"):
        foreign.write(writer, found(tmp_path, next_epoch=10**30))
    assert [file for file in (tmp_path / "run").rglob("*") if file.is_file()] == []
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    done = foreign.write(foreign.open_target(str(tmp_path / "run"), None, append=False), found(tmp_path))
    assert done.objects == {"model": 1}
