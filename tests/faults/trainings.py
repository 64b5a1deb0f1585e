"""Trainings that are killed: what they save, what they say is saved, and what each checkpoint must read as."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from faults.children import Voice

from keepbest import Checkpointer, CheckpointPolicy

KIB, MIB = 1 << 10, 1 << 20
MONITOR = "val_loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training of some epochs, the last of which may be cut short by a kill. It counts epochs from 0."""

    name: str
    """For people: what is being done when the kill comes."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """Beside `monitor`."""
    nbytes: int = 96 * KIB
    """Of the weights, which change with every epoch; from 1 MiB on a file is written over a spare one."""
    frozen: int = 0
    """Bytes of an object that does not change: its file is linked, not written."""
    torch: bool = False
    """The objects are a module and its optimizer, and not arrays."""
    mode: Literal["async", "sync"] = "async"
    earlier: int = 2
    """Epochs that a process before this one trained."""
    warm: int = 0
    """Epochs that this process trains before anybody kills it."""
    window: int = 1
    """Epochs in which it may be killed."""
    resumed: bool = False
    """It may be killed only once it has resumed."""
    publish: bool = False
    """Each epoch's weights are published, to `published/weights.safetensors` beside the run."""
    mirror: bool = False
    """There is a second tier, beside the run."""
    loses_disk: bool = False
    """The run is gone after the kill, and the second tier alone is left."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """`storage_options`."""

    def open(self, url: str) -> tuple[Checkpointer, dict[str, Any]]:
        """Return a Checkpointer and its objects, as at the beginning of a training."""
        objects = self._torch_objects() if self.torch else self._arrays()
        mirror = {"mirror": mirror_of(url)} if self.mirror else {}
        policy = CheckpointPolicy(monitor=MONITOR, mode="min", **self.policy)
        options = dict(self.options) or None
        return Checkpointer(url, policy, mode=self.mode, storage_options=options, **mirror, **objects), objects

    def _arrays(self) -> dict[str, Any]:
        return {"model": Arrays(self.nbytes)} | ({"frozen": Arrays(self.frozen)} if self.frozen else {})

    def _torch_objects(self) -> dict[str, Any]:
        import torch

        torch.set_num_threads(1)
        model = torch.nn.Linear(self.nbytes // 4 // 64, 64, bias=False)
        return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)}

    def become(self, objects: Mapping[str, Any], epoch: int) -> None:
        """Set the objects to what training has made of them by the end of an epoch."""
        model = objects["model"]
        if self.torch:
            import torch

            model.weight.data.copy_(torch.from_numpy(content(epoch, self.nbytes)).view_as(model.weight))
        else:
            model.values = content(epoch, self.nbytes)

    def expected(self, epoch: int) -> np.ndarray:
        """Return what the model's tensor must be in the checkpoint of an epoch."""
        return content(epoch, self.nbytes)

    def found(self, state: Any) -> np.ndarray:
        """Return the model's tensor in a state that was loaded."""
        return np.asarray(state["weight"]).reshape(-1) if self.torch else state["values"]


class Arrays:
    """One array, and how many epochs it has seen."""

    def __init__(self, nbytes: int) -> None:
        self.values = content(-1, nbytes)

    def state_dict(self) -> dict[str, Any]:
        """Return the array."""
        return {"values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it."""
        self.values = state["values"]


def content(epoch: int, nbytes: int) -> np.ndarray:
    """Return values that are different in every place and every epoch, and no NaN."""
    return _places(nbytes) + np.float32(epoch * 8192)


@functools.cache
def _places(nbytes: int) -> np.ndarray:
    return np.arange(nbytes // 4, dtype=np.float32) % 8191


def loss(epoch: int) -> float:
    """Return an epoch's metric: every fifth is a new best; each other one is retired by the next."""
    return 1 / (epoch + 1) if epoch % 5 == 1 else 10.0 + epoch


def mirror_of(url: str) -> str:
    """Return where the second tier of a run lies."""
    return f"{url}-mirror"


def published_of(url: str) -> Path:
    """Return where weights are published."""
    return Path(url).parent / "published" / "weights.safetensors"


@functools.cache
def warm_up(*, torch: bool = False) -> None:
    """Import here, once, what is imported at a first save and a first look: each fork would do so by itself."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(name="warm-up", torch=torch)
        for _ in range(2):
            ckpt, _objects = plan.open(f"{folder}/run")
            with ckpt:
                ckpt.resume()
                ckpt.log({MONITOR: 0.0})
        ckpt.run.verify()
        ckpt.run.best.load("model")


def train(plan: Plan, url: str, voice: Voice, *, warm: int, window: int) -> None:
    """Go on in a run, as a training does; say what has come to be, as soon as it is promised.

    It says "row 3": the row of epoch 3 was logged; "saved 3": its checkpoint is committed and durable, if the policy
    saves it; "published 3": likewise; "closed": the mirror has everything.
    """
    if not warm and not plan.resumed:
        voice.ready()
    ckpt, objects = plan.open(url)
    with ckpt:
        ckpt.resume()
        if not warm and plan.resumed:
            voice.ready()
        begin = ckpt.position.next_epoch
        for epoch in range(begin, begin + warm + window):
            if warm and epoch == begin + warm:
                voice.ready()
            plan.become(objects, epoch)
            made = ckpt.log({MONITOR: loss(epoch)})
            voice.say(f"row {epoch}")
            ckpt.wait()
            if made.saved:
                voice.say(f"saved {epoch}")
            if plan.publish:
                published_of(url).parent.mkdir(exist_ok=True)
                ckpt.run.publish(ckpt.run.latest, "model.safetensors", str(published_of(url)))
                voice.say(f"published {epoch}")
    voice.say("closed")
