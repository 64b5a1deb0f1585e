"""Overlap: what becomes of a snapshot that is being copied when tensors change other than by a step, and worse."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import uuid
import warnings
from collections import OrderedDict, defaultdict
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from contracts.witness import Witness, before_each_copy, differences, hold_copier
from torch import nn

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.adapters.torch import fence
from keepbest.core import overlap as overlap_module
from keepbest.core.arriving import Arriving
from keepbest.core.snapshot import Snapshots
from keepbest.core.staging import Staging
from keepbest.errors import SaveFailedError
from keepbest.storage import tensorfile
from keepbest.storage.backend import open_backend
from keepbest.storage.memory import MemoryBackend

ALL = CheckpointPolicy(every_n_epochs=None, at_end=False, keep_all=True)
CHANGED = "changed by other means than"


@pytest.fixture
def url():
    return f"memory://overlap-{uuid.uuid4().hex}"


@pytest.fixture
def training():
    """A model and its optimizer, after a step, and what makes the next."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def step():
        optimizer.zero_grad()
        model(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()

    step()
    return model, optimizer, step


def copy_of(state):
    """Return a second copy of a state dict."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: copy_of(value) for key, value in state.items()}
    return [copy_of(value) for value in state] if isinstance(state, list) else state


def holds(url, *, which=-1, **objects):
    """Say whether a checkpoint of the run holds these states, bit for bit."""
    found = sorted(keepbest.open_run(url).checkpoints(), key=lambda checkpoint: checkpoint.sequence)[which]
    loaded = {name: found.load(name, framework="torch") for name in objects}
    return not [place for name, state in objects.items() for place in differences(dict(state), loaded[name], name)]


def told(caught, text=CHANGED):
    return sum(text in str(warning.message) for warning in caught)


def until(happened):
    """Wait for what another thread does; a minute is as good as for ever."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# ── changes by other means ────────────────────────────────────────────────────────────────────────────────────────


def load_other(model):
    torch.manual_seed(9)
    model.load_state_dict({key: torch.randn_like(value.float()).to(value.dtype) for key, value in
                           model.state_dict().items()})  # fmt: skip


@torch.no_grad()
def add_in_place(model):
    for parameter in model.parameters():
        parameter.add_(1.0)


CHANGES = [pytest.param(load_other, id="load_state_dict"), pytest.param(add_in_place, id="in-place")]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("then", ["result", "wait", "log_step", "save", "close", "step"])
def test_a_snapshot_that_was_overtaken_is_taken_again_once(url, monkeypatch, training, change, then):
    """The file is never torn: it is that of after the change; whatever comes next brings it about, and one warning."""
    model, optimizer, step = training
    free = hold_copier(monkeypatch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
            handle = ckpt.save()
            change(model)
            free.set()
            expected = copy_of(model.state_dict())
            if then == "result":
                handle.result(60)
            elif then == "log_step":
                until(ckpt._saves._overlap._copied.is_set)
                ckpt.log_step()
                until(handle.done)
            elif then == "step":
                model.eval()  # or forward changes the averages, which then are part of what is taken
                step()
            elif then != "close":
                getattr(ckpt, then)()
        assert told(caught) == len(caught) == 1
    assert holds(url, which=0, model=expected)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda model, _: [setattr(p, "data", p.data + 1) for p in model.parameters()], id="data"),
        pytest.param(lambda model, _: model.to(torch.float64), id="to"),
        pytest.param(lambda _, optimizer: optimizer.load_state_dict(copy_of(optimizer.state_dict())), id="optimizer"),
    ],
)
def test_tensors_that_are_replaced_change_no_snapshot(url, monkeypatch, training, change):
    """Other memory under the same parameter leaves the snapshot as it was taken, and nobody is warned."""
    model, optimizer, _ = training
    free = hold_copier(monkeypatch)
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        model_then, optimizer_then = copy_of(model.state_dict()), copy_of(optimizer.state_dict())
        ckpt.save()
        change(model, optimizer)
        free.set()
    assert holds(url, model=model_then, optimizer=optimizer_then)


def test_after_a_replacement_the_next_save_has_the_new_tensors(url, training):
    """What was put under a parameter, or into an optimizer, is what the next checkpoint holds."""
    model, optimizer, step = training
    with Witness(url, model=model, optimizer=optimizer) as witness:
        witness.step()
        for parameter in model.parameters():
            parameter.data = parameter.data + 1
        witness.step()
        optimizer.load_state_dict(copy_of(optimizer.state_dict()))
        step()
        witness.step()
        model[0].weight = nn.Parameter(torch.zeros(8, 6))
        witness.step()
        assert witness.differences() == []


def test_a_forward_that_changes_weights_tears_nothing(url, monkeypatch):
    """An embedding with `max_norm` scales its rows in forward: that is noticed, and the file is that of after it."""
    torch.manual_seed(0)
    model = nn.Embedding(8, 4, max_norm=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    free = hold_copier(monkeypatch)
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        ckpt.save()
        model(torch.arange(4))
        free.set()
        with pytest.warns(UserWarning, match=CHANGED):
            ckpt.wait()
    assert holds(url, model=copy_of(model.state_dict()))


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, KeyboardInterrupt], ids=lambda kind: kind.__name__)
def test_a_copy_that_fails_is_a_failed_save(url, monkeypatch, training, kind):
    """Whatever befalls the copier, the save fails by name, training goes on, and the next save works."""
    model, optimizer, step = training
    failing = [kind("of the test")]

    def fail():
        if failing:
            raise failing.pop()

    before_each_copy(monkeypatch, fail)
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        handle = ckpt.save()
        step()
        with pytest.raises(SaveFailedError) as caught:
            handle.result(60)
        assert isinstance(caught.value.__cause__, kind)
        step()
        expected = copy_of(model.state_dict())
        ckpt.save().result(60)
        step()
    assert len(keepbest.open_run(url).checkpoints()) == 1
    assert holds(url, model=expected)


def test_a_snapshot_that_cannot_be_taken_again_is_a_failed_save(url, monkeypatch, training):
    """What is no longer fit to be saved when the snapshot is taken again fails that save, not the step."""
    model, optimizer, step = training
    free, extra = hold_copier(monkeypatch), {"fine": 1}
    with Checkpointer(url, ALL, model=model, optimizer=optimizer, extra=extra) as ckpt:
        handle = ckpt.save()
        add_in_place(model)
        extra["broken"] = object()
        free.set()
        step()
        with pytest.raises(SaveFailedError, match=r"extra\.broken"):
            handle.result(60)
        del extra["broken"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ckpt.save().result(60)
    assert len(keepbest.open_run(url).checkpoints()) == 1


def test_a_copier_that_cannot_start_holds_up_no_step(url, monkeypatch, training):
    """When no thread takes the copy, `save` raises, and the optimizer goes on."""
    model, optimizer, step = training

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        with monkeypatch.context() as patch:
            patch.setattr(ckpt._saves._writer._copier, "submit", refuse)
            with pytest.raises(RuntimeError, match="can't start"):
                ckpt.save()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # rather the end of all tests than a step that waits for ever
        step()
        signal.alarm(0)
        ckpt.save().result(60)
    assert len(keepbest.open_run(url).checkpoints()) == 1


def test_a_cancelled_save_spoils_no_other(url, monkeypatch, training):
    """After `cancel` the next snapshot has the staging for itself, though the copier was still at the cancelled one."""
    model, optimizer, _ = training
    free, writing = hold_copier(monkeypatch), threading.Event()
    before, after = {"scores": torch.zeros(1)}, {"scores": torch.zeros(200_000)}
    with Checkpointer(url, ALL, before=before, model=model, optimizer=optimizer, after=after) as ckpt:
        ckpt._saves._writer._executor.submit(writing.wait, 60)  # or writing begins before it can be called off
        assert ckpt.save().cancel()
        before["scores"], after["scores"] = torch.arange(100_000.0), torch.zeros(1)  # lies where the model was to lie
        expected = copy_of(before)
        threading.Timer(0.2, free.set).start()  # while the next snapshot is taken, or soon after
        ckpt.save()
        writing.set()
    assert holds(url, before=expected, model=copy_of(model.state_dict()))


# ── written while it is copied, and called off ────────────────────────────────────────────────────────────────────


def files_of(url):
    """Return the keys of all files of a run that belong to checkpoints or their commits; a local run's folders too."""
    if "://" in url:
        found = [entry.key for entry in open_backend(url, {}).list("")]
    else:
        found = [str(path.relative_to(url)) for path in Path(url).rglob("*")]
    return sorted(key for key in found if key.startswith(("checkpoints/", "commits/")))


@pytest.fixture
def noted(monkeypatch):
    """Return the events of writing: `begun` is set once a file is being written, `ended` once its data were read."""
    begun, ended, write = threading.Event(), threading.Event(), tensorfile.write

    def noting(*arguments, **settings):
        begun.set()
        artifact = write(*arguments, **settings)
        ended.set()
        return artifact

    monkeypatch.setattr(tensorfile, "write", noting)
    return SimpleNamespace(begun=begun, ended=ended)


def test_writing_begins_while_the_copy_runs(run_url, monkeypatch, training, noted):
    """The file is begun before its last tensor is copied, is not ended before, and has it as it was."""
    model, optimizer, step = training
    free = hold_copier(monkeypatch)
    with Checkpointer(run_url, ALL, model=model, optimizer=optimizer) as ckpt:
        expected = copy_of(model.state_dict())
        handle = ckpt.save()
        assert noted.begun.wait(60)
        assert not noted.ended.wait(0.1)
        assert not handle.done()
        free.set()
        step()
        handle.result(60)
    assert holds(run_url, model=expected)


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt], ids=lambda kind: kind.__name__)
def test_a_copy_that_fails_breaks_writing_off(run_url, monkeypatch, training, noted, kind):
    """The save fails by the copy's error, and of what was written nothing stays; the next save works."""
    model, optimizer, step = training
    failing = [kind("of the test")]

    def fail():
        assert noted.begun.wait(60)
        if failing:
            raise failing.pop()

    before_each_copy(monkeypatch, fail)
    with Checkpointer(run_url, ALL, model=model, optimizer=optimizer) as ckpt:
        with pytest.raises(SaveFailedError) as caught:
            ckpt.save().result(60)
        assert isinstance(caught.value.__cause__, kind)
        assert files_of(run_url) == []
        step()
        expected = copy_of(model.state_dict())
        ckpt.save().result(60)
    assert holds(run_url, which=0, model=expected)


def test_a_save_is_called_off_while_it_is_copied(run_url, monkeypatch, training, noted):
    """After `cancel` nothing of it stays, `result` says so, no error is told, and the next save works."""
    model, optimizer, step = training
    free = hold_copier(monkeypatch)
    with Checkpointer(run_url, ALL, model=model, optimizer=optimizer) as ckpt:
        handle = ckpt.save()
        assert noted.begun.wait(60)
        assert handle.cancel()
        step()
        free.set()
        with pytest.raises(CancelledError):
            handle.result(60)
        assert not handle.cancel()
        assert files_of(run_url) == []
        ckpt.wait()
        step()
        expected = copy_of(model.state_dict())
        ckpt.save().result(60)
    assert len(keepbest.open_run(run_url).checkpoints()) == 1
    assert holds(run_url, model=expected)


def hold_writer(monkeypatch):
    """Return two events: a tensor file was written to memory, and the writer may go on."""
    written, free, put = threading.Event(), threading.Event(), MemoryBackend.put

    def held(self, key, chunks, **settings):
        size = put(self, key, chunks, **settings)
        written.set()
        assert free.wait(60)
        return size

    monkeypatch.setattr(MemoryBackend, "put", held)
    return written, free


@pytest.mark.parametrize("then", ["result", "wait", "save", "log_step", "close"])
def test_a_save_is_called_off_while_it_is_written(url, monkeypatch, training, then):
    """All is copied and some of it written: still nothing of it stays, whatever comes next, and nobody is warned."""
    model, optimizer, step = training
    written, free = hold_writer(monkeypatch)
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        handle = ckpt.save()
        assert written.wait(60)
        step()
        assert handle.cancel()
        free.set()
        if then == "result":
            with pytest.raises(CancelledError):
                handle.result(60)
        elif then != "close":
            getattr(ckpt, then)()
    assert handle.done()
    if then == "save":
        assert len(keepbest.open_run(url).checkpoints()) == 1
        assert holds(url, model=copy_of(model.state_dict()))
    else:
        assert files_of(url) == []


def test_a_save_that_is_done_cannot_be_called_off(url, training):
    """`cancel` says no, and the checkpoint stays."""
    model, optimizer, _ = training
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        handle = ckpt.save()
        handle.result(60)
        assert not handle.cancel()
        handle.result(60)
    assert len(keepbest.open_run(url).checkpoints()) == 1


@pytest.mark.parametrize("delta", [False, True], ids=["first", "later"])
def test_what_was_written_of_a_torn_copy_is_written_anew(run_url, monkeypatch, training, noted, delta):
    """Taken again after its file was written, the snapshot is one checkpoint, right and whole; nothing else stays."""
    model, optimizer, step = training
    changes = []

    def change():
        if changes and noted.begun.wait(60):
            changes.pop()
            add_in_place(model)

    before_each_copy(monkeypatch, change)
    with Checkpointer(run_url, ALL, model=model, optimizer=optimizer) as ckpt:
        if delta:
            ckpt.save().result(60)
            step()
        noted.begun.clear()
        noted.ended.clear()
        changes.append(1)
        handle = ckpt.save()
        with pytest.warns(UserWarning, match=CHANGED):
            assert noted.ended.wait(60)  # of the torn copy
            handle.result(60)
            ckpt.wait()
        count = len(files_of(run_url))
    found = keepbest.open_run(run_url).checkpoints()
    assert len(found) == 1 + delta
    assert holds(run_url, model=copy_of(model.state_dict()), optimizer=copy_of(optimizer.state_dict()))
    expected = sum(len(checkpoint.manifest().artifacts) + 1 for checkpoint in found)
    folders = 0 if "://" in run_url else len(found)
    assert count == expected + folders
    assert len(keepbest.open_run(run_url).verify().whole) == len(found)


def test_asking_whether_it_is_done_ends_a_torn_copy(url, monkeypatch, training):
    """A loop that only polls `done` comes to an end: asking takes the snapshot again."""
    model, optimizer, _ = training
    free = hold_copier(monkeypatch)
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        handle = ckpt.save()
        add_in_place(model)
        assert not handle.done()
        free.set()
        until(handle.done)
        with pytest.warns(UserWarning, match=CHANGED):
            ckpt.wait()
    assert holds(url, which=0, model=copy_of(model.state_dict()))


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_waiting_for_a_result_keeps_its_timeout(url, monkeypatch, training, timeout):
    """`result` gives up when it said, though the copy has not ended; asked again, it waits."""
    model, optimizer, _ = training
    free = hold_copier(monkeypatch)
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        handle = ckpt.save()
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            handle.result(timeout)
        assert timeout <= time.monotonic() - begin < 20
        free.set()
        handle.result(60)
    assert len(keepbest.open_run(url).checkpoints()) == 1


# ── forks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:os.fork")  # JAX, where another test has imported it
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_waits_for_no_copier(url, monkeypatch, training):
    """A child that is forked while a snapshot is copied may step; the parent's save is unharmed."""
    model, _, step = training
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)  # OpenMP does not survive a fork
    free = hold_copier(monkeypatch)
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        expected = copy_of(model.state_dict())
        ckpt.save()
        child = os.fork()
        if not child:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            optimizer.step()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        free.set()
        step()
    assert status == 0
    assert holds(url, model=expected)


def test_once_a_step_had_to_wait_what_is_copied_is_hashed_behind(url, monkeypatch, training):
    """Hashing in the same pass costs least, and makes the copy longer: not where training was seen to wait for it."""
    model, optimizer, step = training
    passes, arrived, free = [], Arriving.arrived, hold_copier(monkeypatch)

    def spied(self, begin, end, *, hashed):
        passes.append(hashed)
        arrived(self, begin, end, hashed=hashed)

    monkeypatch.setattr(Arriving, "arrived", spied)
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        ckpt.save()
        free.set()
        ckpt.wait()
        assert set(passes) == {True}
        free.clear()
        ckpt.save()
        training_thread = threading.Thread(target=step)
        training_thread.start()
        until(lambda: next(iter(overlap_module._UNDER_WAY)).waited_for)
        free.set()
        training_thread.join(60)
        ckpt.wait()
        passes.clear()
        ckpt.save()
        ckpt.wait()
        assert set(passes) == {False}
        assert holds(url, model=model.state_dict(), optimizer=optimizer.state_dict())


# ── what is fenced ────────────────────────────────────────────────────────────────────────────────────────────────


def copied_later(**objects):
    """Return how many tensors a snapshot would leave to the copier."""
    return len(Snapshots(objects).staged(Staging(), overlap=True).copies)


def test_what_an_optimizer_owns_is_copied_later(training):
    """Parameters, their averages and step counts are; buffers are not."""
    model, optimizer, _ = training
    count = len(list(model.parameters()))
    assert copied_later(model=model, optimizer=optimizer) == 4 * count
    assert copied_later(model=model) == count


def test_steps_in_a_cuda_graph_are_not_relied_upon(training):
    """With `capturable=True` the hook may not be called, so all is copied at once."""
    model, optimizer, _ = training
    optimizer.param_groups[0]["capturable"] = True
    assert copied_later(model=model, optimizer=optimizer) == 0


class Homemade(torch.optim.SGD):
    """An optimizer that calls no constructor of PyTorch's, and so no hook before its step."""

    def __init__(self, parameters):
        self.defaults, self.state = {}, defaultdict(dict)
        self.param_groups = [{"params": list(parameters), "lr": 0.1}]
        self._optimizer_state_dict_pre_hooks = OrderedDict()
        self._optimizer_state_dict_post_hooks = OrderedDict()

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(parameter.grad, alpha=-0.1)


def test_an_optimizer_without_hooks_is_not_relied_upon(url, monkeypatch):
    """Its tensors are copied at once, so that its step, which nothing holds up, changes no snapshot."""
    hold_copier(monkeypatch)
    model = nn.Linear(3, 3)
    optimizer = Homemade(model.parameters())
    assert copied_later(model=model, optimizer=optimizer) == 0
    with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
        expected = copy_of(model.state_dict())
        ckpt.save()
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    assert holds(url, model=expected)


def test_with_copy_nothing_is_copied_later(url, monkeypatch, training):
    """`snapshot="copy"` needs no fence: the tensors may change by any means as soon as `save` returns."""
    model, optimizer, _ = training
    hold_copier(monkeypatch)
    with Checkpointer(url, ALL, snapshot="copy", model=model, optimizer=optimizer) as ckpt:
        expected = copy_of(model.state_dict())
        ckpt.save()
        add_in_place(model)
    assert holds(url, model=expected)


def test_the_tensors_of_an_optimizer_that_is_gone_are_not_fenced(training):
    """Nobody's step changes them, so whatever else does is not held up: they are copied at once."""
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert copied_later(model=model, optimizer=optimizer) == 2
    del optimizer
    gc.collect()
    assert copied_later(model=model) == 0


def test_a_tensor_in_the_place_of_a_fenced_one_is_not_taken_for_it():
    """Python gives addresses out again: a buffer that lies where an optimizer's tensor lay is copied at once."""
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    fence.watch(optimizer)
    optimizer.state.clear()
    gc.collect()
    others = [torch.zeros(3) for _ in range(10_000)]
    assert [other for other in others if fence.version(other) is not None] == []


def test_where_no_fence_holds_nothing_rests(url):
    """Weights that are trained by hand: a frozen one that changes just after a save brings no later state into it."""
    model = nn.Module()
    model.backbone = nn.Parameter(torch.randn(2000, 2000), requires_grad=False)
    model.target = nn.Parameter(torch.zeros(4), requires_grad=False)
    model.online = nn.Parameter(torch.zeros(4))
    with Witness(url, model=model) as witness:
        for number in range(4):
            for _ in range(5):
                with torch.no_grad():
                    model.online += 1
            witness.step()
            if number == 1:
                with torch.no_grad():
                    model.target.copy_(model.online)
        assert witness.differences() == []


def change_uncounted(monkeypatch, model):
    """Change all weights through `.data` when one is copied already; returns what grows with each that is copied."""
    copied = []

    def change():
        copied.append(None)
        if len(copied) == 2:
            for parameter in model.parameters():
                parameter.data.mul_(0.9)

    before_each_copy(monkeypatch, change)
    return copied


def test_changes_that_are_not_counted_are_seen(url, monkeypatch, training):
    """All weights changed through `.data` when one is copied already: the snapshot is taken again, never a mixture."""
    model, optimizer, _ = training
    copied = change_uncounted(monkeypatch, model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
            ckpt.save().result(60)
    assert len(copied) > 2
    assert told(caught) == len(caught) == 1
    assert holds(url, model=model.state_dict())


def test_what_goes_on_changing_without_a_step_is_copied_at_once(url, monkeypatch, training):
    """The second snapshot that is torn is the last: from then on all is copied before training goes on."""
    model, optimizer, _ = training
    beside = change_uncounted(monkeypatch, model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Checkpointer(url, ALL, model=model, optimizer=optimizer) as ckpt:
            for _ in range(3):
                beside.clear()
                ckpt.save().result(60)
                ckpt.wait()
    assert told(caught) == len(caught) == 2
    assert "From now on" in str(caught[-1].message)
    assert beside == []
    assert holds(url, model=model.state_dict())
