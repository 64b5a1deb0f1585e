"""Tour: everything that can be done with a run, done to one that a stranger made, and what must never come of it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from faults.confined import Found
from faults.stranger import FORGED, SECRET

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.cli import main
from keepbest.errors import KeepbestError
from keepbest.storage.arrays import converter
from keepbest.storage.backend import open_backend
from keepbest.storage.run import Run
from keepbest.storage.run_writer import RunWriter

_FORBIDDEN = frozenset(
    ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect", "socket.bind")
)
"""What no reading of a run does, however it was made: Python's own audit events."""
_TOUCHING = frozenset(
    (
        "open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.link", "os.symlink", "os.truncate",
        "os.rmdir",
        "os.mkdir", "os.chmod", "os.utime",
    )
)  # fmt: skip
"""Those that name a path."""


class Grounds:
    """A folder with a run, a place to export to, and the files of somebody else, which nothing may touch."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder
        self.run, self.out, self.victim = folder / "run", folder / "out", folder / "victim"
        for made in (self.run, self.out, self.victim):
            made.mkdir(parents=True)
        (self.victim / "secret").write_text(SECRET)

    @property
    def url(self) -> str:
        return str(self.run)

    def seal(self) -> None:
        """Note what the victim has; it has to be the same afterwards."""
        self._before = _contents(self.victim)
        _watch(self.victim)

    def harm(self) -> list[Found]:
        """Return what was done to the victim since."""
        found = [("broken", f"outside of the run: {event}") for event in _unwatch()]
        if _contents(self.victim) != self._before:
            found.append(("lost", f"the files outside are not as they were: {sorted(_contents(self.victim))}"))
        taken = [
            path
            for path in self.out.rglob("*")
            if path.is_symlink() or (path.is_file() and SECRET.encode() in _beginning(path))
        ]
        return found + [("broken", f"{path.name} was exported from outside of the run") for path in taken]


def read(url: str, out: Path | None = None) -> list[Found]:
    """Do all that reads a run; `out`: a folder to export to."""
    found: list[Found] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _try(found, "open_run", lambda: keepbest.open_run(url))
        run = _try(found, "Run", lambda: Run(open_backend(url)))
        if run is None:
            return found
        _try(found, "history", lambda: (dict(run.history()), run.history().steps_log, repr(run.history())))
        for name in ("best", "latest", 1, "epoch-001"):
            _try(found, f"get({name!r})", lambda name=name: run.get(name))
        report = _try(found, "verify", run.verify)
        checkpoints = _try(found, "checkpoints", run.checkpoints) or []
        for checkpoint in checkpoints:
            _read_one(found, checkpoint, out)
            if report is not None and checkpoint.name in report.whole:
                found += _as_safetensors_reads(run, checkpoint)
    return found


def _read_one(found: list[Found], checkpoint: Any, out: Path | None) -> None:
    _try(found, "repr", lambda: (repr(checkpoint), checkpoint.metrics, checkpoint.nbytes))
    objects = _try(found, "objects", checkpoint.objects) or ["model"]
    for name in objects[:5]:
        _try(found, f"load {name!r}", lambda name=name: checkpoint.load(name))
        _try(found, f"load some of {name!r}", lambda name=name: checkpoint.load(name, only=["*e*", "0*"]))
        _try(found, f"restore {name!r}", lambda name=name: checkpoint.restore_state(name, lambda _: converter("numpy")))
    for file in (_try(found, "manifest", lambda: checkpoint.manifest().artifacts) or {}) if out else ():
        _try(found, f"read {file!r}", lambda file=file: checkpoint.read_file(file))
    if out is not None:
        _try(found, "export one", lambda: checkpoint.export(out / "api.safetensors", overwrite=True))
        _try(found, "export all", lambda: checkpoint.export(out / "api", with_records=True))


def _as_safetensors_reads(run: Run, checkpoint: Any) -> list[Found]:
    """What `verify` calls whole must be to safetensors' own reader what it is to us."""
    found: list[Found] = []
    for file, artifact in checkpoint.manifest().artifacts.items():
        if artifact.tensors is None:
            continue
        data = run.backend.read(f"checkpoints/{checkpoint.name}/{file}")
        try:
            theirs = {name: bytes(tensor["data"]) for name, tensor in safetensors.deserialize(data)}
        except safetensors.SafetensorError as error:
            found.append(("unnoticed", f"verify calls {file} whole, and safetensors says {error}"))
            continue
        start = artifact.data_start
        ours = {
            name: data[start + record.offsets[0] : start + record.offsets[1]]
            for name, record in artifact.tensors.items()
        }
        if ours != theirs:
            found.append(("unnoticed", f"verify calls {file} whole, and safetensors reads other tensors from it"))
    return found


def command(url: str, out: Path | None = None, *, verbs: list[list[str]] | None = None) -> list[Found]:
    """Run every verb of the command, or those that are given; `out`: a folder to export to."""
    verbs = verbs or _verbs(url, out)
    found: list[Found] = []
    for words in verbs:
        verb = " ".join([words[0], *words[2:]]).replace(str(out), "OUT")
        said, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            code = _try(found, verb, lambda words=words: main(words))
        if code not in {0, 1, 2, None}:
            found.append(("broken", f"{verb}: exit code {code}: {complained.getvalue()[-300:]}"))
        found += [("broken", f"{verb}: {what}") for what in _steers(said.getvalue() + complained.getvalue())]
    return found


def _verbs(url: str, out: Path | None) -> list[list[str]]:
    verbs: list[list[str]] = [
        ["ls", url, "--all"], ["ls", url, "--json"],
        ["show", url, "latest", "--tensors"], ["show", url, "latest", "--json"], ["show", url, "no such name"],
        ["verify", url], ["verify", url, "--json"], ["gc", url, "--dry-run"],
        ["plot", url], ["explain", url], ["explain", url, "--epoch", "1"], ["explain", url, "--json"],
        ["diff", url, "best", "latest"], ["diff", url, "1", "latest", "--json"],
    ]  # fmt: skip
    if out is not None:
        verbs += [
            ["export", url, "latest", f"{out}/one.safetensors"], ["export", url, "latest", f"{out}/all", "--all"],
            ["export", url, "latest", f"{out}/force/", "--object", "model", "--force", "--json"],
            ["report", url, "-o", f"{out}/report.html"], ["convert", url, f"{out}/others/"],
            ["gc", url, "--grace", "0s"], ["gc", url, "--grace", "0s", "--json"],
        ]  # fmt: skip
    return verbs


def _steers(text: str) -> list[str]:
    """Return what in a text would steer a terminal, or pass for a line that the command wrote."""
    raw = sorted({repr(char) for char in text if char != "\n" and not char.isprintable()})
    found = [f"raw {', '.join(raw)} in the output"] if raw else []
    found += ["a name broke the line" for line in text.split("\n") if line.lstrip().startswith(FORGED)]
    return found + (["the secret is in the output"] if SECRET in text else [])


def train_on(url: str) -> list[Found]:
    """Continue training in the run, then write to it, retire its checkpoints, and collect its garbage."""
    found: list[Found] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _try(found, "resume and log", lambda: _train(url))
        writer = _try(found, "RunWriter", lambda: RunWriter(open_backend(url)))
        if writer is not None:
            _try(found, "publish", lambda: _publish(url))
            _try(found, "hints", writer.refresh_hints)
            _try(found, "retire", lambda: writer.retire([held.sequence for held in writer.checkpoints]))
            _try(found, "gc", lambda: Run(open_backend(url)).gc(grace=0))
    return found


def _train(url: str) -> None:
    model = {"embed.weight": np.zeros((2, 3), np.float32)}
    policy = CheckpointPolicy(monitor="val_loss", mode="min")
    ckpt = Checkpointer(url, policy, mode="sync", model=model)
    try:
        ckpt.resume()
        ckpt.log_step(loss=1.0)
        ckpt.log(val_loss=0.5)
    finally:
        with contextlib.suppress(KeepbestError):
            ckpt.close()


def _publish(url: str) -> None:
    run = Run(open_backend(url))
    for checkpoint in run.checkpoints():
        for file in ("model.safetensors", "state.json"):
            run.publish(checkpoint, file, str(Path(url).parent / "out" / f"published-{file}"))


def _try(found: list[Found], what: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except KeepbestError as error:
        if not str(error).strip():
            found.append(("unnoticed", f"{what}: {type(error).__name__} says nothing"))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        found.append(("broken", f"{what}: {type(error).__name__}: {str(error)[:300]}"))
    return None


# ── who touches what ──────────────────────────────────────────────────────────────────────────────────────────────

_watched: list[str] = []
_events: list[str] = []
_installed: list[bool] = []


def _watch(folder: Path) -> None:
    if not _installed:
        sys.addaudithook(_hear)
        _installed.append(True)
    _events.clear()
    _watched[:] = [os.path.realpath(folder), "/etc/passwd", "/etc/shadow", "/dev/zero", "/dev/random"]


def _unwatch() -> list[str]:
    _watched.clear()
    return list(dict.fromkeys(_events))


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _watched:
        return
    if event in _FORBIDDEN:
        _events.append(f"{event}{args[:2]!r:.200}")
    elif event in _TOUCHING:
        named = args[:2] if event in {"os.rename", "os.link"} else args[:1]
        paths = [os.fsdecode(path) for path in named if isinstance(path, str | bytes)]
        _events.extend(f"{event} {path}" for path in paths if _leads_out(event, path, args))


def _leads_out(event: str, path: str, args: tuple[Any, ...]) -> bool:
    unfollowed = event == "open" and isinstance(args[2], int) and args[2] & os.O_NOFOLLOW
    if event in {"open", "os.listdir", "os.scandir", "os.truncate", "os.chmod", "os.utime"} and not unfollowed:
        real = os.path.realpath(path)
    else:  # what is done to a name is done to a link, and not to what it leads to
        folder, _, name = path.rpartition("/")
        real = f"{os.path.realpath(folder or '.')}/{name}"
    return any(real == place or real.startswith(f"{place}/") for place in _watched)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 20)


def _contents(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else None) for path in folder.rglob("*")
    }
