"""Live tensors: a save that training waits for copies nothing, and writes the same bytes as one from staging."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
import torch
from contracts.stateful import Holder
from hypothesis import given, settings
from hypothesis import strategies as st

import keepbest
from keepbest import Checkpointer
from keepbest.core.snapshot import Snapshots
from keepbest.core.staging import Staging
from keepbest.errors import SaveFailedError, UsageError

MIXED = {
    "a": np.arange(1000, dtype=np.float64),
    "b": np.arange(60, dtype=np.int16).reshape(5, 12).T,
    "none": np.zeros((0, 3), np.float32),
    "c": np.array(7.5, np.float32),
    "bf": torch.arange(33, dtype=torch.bfloat16),
    "strided": torch.arange(100.0)[::3],
    "negative": torch.imag(torch.complex(torch.ones(9), torch.arange(9.0)).conj()),
    "flags": torch.tensor([True, False, True]),
    "wide": torch.complex(torch.arange(5.0, dtype=torch.float64), torch.ones(5, dtype=torch.float64)),
}


def drafts(staging):
    snapshots = Snapshots({"model": Holder({**MIXED, "pad": PAD})})
    taken = snapshots.live() if staging is None else snapshots.staged(staging, overlap=False)
    return {draft.file: draft for draft in taken.files}


PAD = np.zeros(70_000, np.uint8)  # more than stays in state.json


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_range_is_that_of_a_snapshot_in_staging(data):
    """Wherever it is cut, the row of bytes is the one that staging would hold."""
    [live], [staged] = drafts(None).values(), drafts(Staging()).values()
    assert live.plan == staged.plan
    assert len(live.data) == len(staged.data)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(live.data)), max_size=6)))
    for low, high in zip([0, *cuts], [*cuts, len(live.data)], strict=True):
        assert bytes(live.data[low:high]) == bytes(staged.data[low:high])


def test_a_save_that_is_waited_for_holds_no_second_state(tmp_path):
    """With mode="sync" a save takes some megabytes beside the state, whatever its size."""
    state = {f"w{number}": np.full(4 << 20, number, np.uint8) for number in range(16)}
    state["odd"] = torch.zeros(1 << 20)[::2]
    with Checkpointer(str(tmp_path / "run"), mode="sync", model=Holder(state)) as ckpt:
        tracemalloc.start()
        ckpt.save()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert ckpt._saves._staging.nbytes == 0
    assert peak < 32 << 20
    loaded = keepbest.open_run(str(tmp_path / "run")).latest.load("model")
    assert all(np.array_equal(loaded[name], value) for name, value in state.items())


def test_an_interrupted_save_leaves_nothing_torn(tmp_path, monkeypatch):
    """After Ctrl-C in a save that was waited for, nobody reads the tensors any more, and what is listed is whole."""
    from keepbest.storage.local import LocalBackend

    tensors = {f"w{number}": torch.full((1 << 21,), 1.0) for number in range(8)}
    begun, put = threading.Event(), LocalBackend.put

    def slowly(self, key, chunks):
        def pieces():
            for number, chunk in enumerate(chunks):
                if number == 2:
                    begun.set()
                    hurry.wait(10)
                yield chunk

        return put(self, key, pieces())

    hurry = threading.Event()
    monkeypatch.setattr(LocalBackend, "put", slowly)
    with Checkpointer(str(tmp_path / "run"), mode="sync", model=Holder(tensors)) as ckpt:
        waits = ckpt._saves._writer.wait

        def interrupted():
            if not begun.wait(10):
                raise AssertionError
            threading.Timer(0.2, hurry.set).start()
            monkeypatch.setattr(ckpt._saves._writer, "wait", waits)
            raise KeyboardInterrupt

        monkeypatch.setattr(
            ckpt._saves._writer,
            "wait",
            lambda: interrupted() if ckpt._saves._writer._last else waits(),
        )
        with pytest.raises(KeyboardInterrupt):
            ckpt.save()
        for tensor in tensors.values():
            tensor.fill_(2.0)
        with pytest.raises(SaveFailedError, match="interrupted") as caught:
            ckpt.wait()
        assert isinstance(caught.value.__cause__, UsageError)
        ckpt.save()
    run = keepbest.open_run(str(tmp_path / "run"))
    assert run.verify().ok
    for checkpoint in run.checkpoints():
        values = {float(value) for tensor in checkpoint.load("model").values() for value in (tensor[0], tensor[-1])}
        assert values == {2.0}
