"""What the tests of the command line share: a way to call it, and runs to call it on."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

import pytest
from contracts import places

from keepbest.cli import main
from keepbest.storage import statefile, tensorfile
from keepbest.storage.backend import open_backend
from keepbest.storage.commit import BytesDraft, TensorDraft
from keepbest.storage.layout import checkpoint_name
from keepbest.storage.manifest import Manifest, Score
from keepbest.storage.run_writer import RunWriter
from keepbest.storage.statefile import ObjectRecord
from keepbest.storage.tensorfile import TensorSpec

ROLES = {"model": "weights", "optimizer": "optimizer"}


@dataclass(frozen=True)
class Said:
    """What a call of the command line left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def keepbest(capsys, monkeypatch):
    """The command, in this process; prints go to no terminal, however the tests are run."""
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "KEEPBEST_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


class Builder:
    """Writes checkpoints of two small objects to a run, as training would."""

    def __init__(self, url):
        self.url = url
        self.writer = RunWriter(open_backend(url))

    def save(  # noqa: PLR0913 - a checkpoint has these facts
        self,
        epoch,
        *,
        complete=True,
        data=True,
        name=None,
        monitors=("val_loss",),
        versions=None,
        objects=ROLES,
        **metrics,
    ):
        """Commit the checkpoint of one epoch (from 0); without `data` only its manifest."""
        write_id = uuid.uuid4().hex
        step = (epoch + 1) * 10
        name = name or checkpoint_name(epoch=epoch, step=step, write_id=write_id)
        files = [self._tensors(file, epoch) for file in objects]
        records = {
            file: ObjectRecord(role=role, file=f"{file}.safetensors", state={"weight": {"$numpy": "weight"}})
            for file, role in objects.items()
        }
        drafts = [*files, BytesDraft(file="state.json", data=statefile.dump(records, {}))] if data else []
        scores = [
            Score(monitor=monitor, mode="max" if "acc" in monitor else "min", value=_rankable(metrics.get(monitor)))
            for monitor in monitors
        ]
        return self.writer.commit(
            Manifest(
                sequence=self.writer.next_sequence,
                write_id=write_id,
                name=name,
                step=step,
                epoch=epoch,
                parent=epoch or None,
                time=1_760_000_000.0 + 60 * epoch,
                reasons=("epoch",),
                complete=complete,
                metrics=metrics,
                scores=tuple(scores),
                artifacts=dict(self.writer.write(name, drafts)),
                host="testhost",
                versions=versions or {"keepbest": "0.1.0", "torch": "2.13.0"},
            )
        )

    @staticmethod
    def _tensors(file, epoch):
        plan = tensorfile.plan([TensorSpec(name="weight", dtype="F32", shape=(2, 3))], {"format": "pt"})
        return TensorDraft(file=f"{file}.safetensors", plan=plan, data=memoryview(bytes([epoch % 256] * 24)))


def _rankable(value):
    return value if value is not None and value - value == 0 else None


@pytest.fixture(params=places.LASTING)
def place(request):
    """An empty folder or prefix of a bucket, in which the run lies, seen without keepbest."""
    return places.new_place(request)


@pytest.fixture
def build(place):
    """An empty run to write to."""
    return Builder(place.url)


@pytest.fixture
def run(build):
    """The URL of a run of three epochs; the second is the best, the third the latest."""
    return three_epochs(build)


@pytest.fixture
def local_build(tmp_path):
    """An empty run to write to, on disk."""
    return Builder(str(tmp_path / "run"))


@pytest.fixture
def local_run(local_build):
    """The path of a run of three epochs, on disk."""
    return three_epochs(local_build)


def three_epochs(build):
    for epoch, loss in enumerate([0.9, 0.4, 0.5]):
        build.save(epoch, train_loss=1.0 / (epoch + 1), val_loss=loss)
    return build.url
