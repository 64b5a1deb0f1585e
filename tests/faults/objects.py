"""Objects: what people restore into, and states that fit none of them."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contracts.runs import spec
from faults.confined import Found
from faults.specimen import plainly
from faults.stranger import VALUES, Forgery, nodes, replaced

import keepbest
from keepbest.core import restoring, rng, state
from keepbest.core.generators import as_stateful
from keepbest.errors import KeepbestError, StateMismatchError
from keepbest.storage import statefile, typedjson

Case = tuple[str, str, Forgery]


class Sampler:
    """An object of a user's own, which believes what it is given."""

    def __init__(self) -> None:
        self.position, self.seen = 3, [1, 2]

    def state_dict(self) -> Any:
        return {"position": self.position, "seen": self.seen}

    def load_state_dict(self, stored: Any) -> None:
        self.position = stored["position"] + 0
        self.seen = [stored["seen"][0] + 0, stored["seen"][1] + 0]


def fresh() -> dict[str, Any]:
    """Return one object of each kind."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # and not by backward(), whose threads no fork has
    optimizer.step()
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3),
        "sampler": Sampler(),
        "python": random.Random(7),
        "numpy": np.random.default_rng(7),
        "legacy": np.random.RandomState(7),
        "torch": torch.Generator().manual_seed(7),
        "tensor": torch.arange(3.0),
        "plain": {"a": 1, "b": [1, 2]},
        "list": [1, {"a": np.arange(3)}],
    }


def cases(base: Forgery) -> list[Case]:
    """Return each object's state with each place replaced by a hostile value."""
    torch.set_num_threads(1)  # its others would be missed in a forked child
    return [*_cases(base)]


def _cases(base: Forgery) -> Iterator[Case]:
    states = {name: _typed(name, state.value_of(as_stateful(obj))[0]) for name, obj in fresh().items()}
    states[rng.NAME] = _typed(rng.NAME, rng.read()[0])
    for name, tree in states.items():
        paths = [path for path in nodes(tree) if len(path) < 7 or path[-1] in {"shape", "dtype", "data"}]
        for number, path in enumerate(paths):
            for place, value in enumerate((*VALUES, *_ODD)):
                if not path or (number + place) % (1 + len(paths) // 6) == 0 or (value in _ODD and path[-1] == "pos"):
                    made = _with(base, states | {name: replaced(tree, path, value)})
                    yield f"{name} {'.'.join(map(str, path))}, value {place}", name, made


_ODD = (624, 625, 10**6, 2**31 - 1, -5, {"$numpy": {"dtype": "U32", "shape": [0], "data": ""}})


def attempt(folder: Path, case: Case) -> list[Found]:
    """Restore one object, and if it takes the state, use it."""
    _, name, forgery = case
    run = folder / "objects"
    shutil.rmtree(run, ignore_errors=True)
    forgery.write(run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {key: as_stateful(obj) for key, obj in fresh().items() if key in {name, "sampler", "model"}}
        before = {key: _bits(obj) for key, obj in given.items()}
        try:
            restoring.restore(keepbest.open_run(run).get(1), given, with_rng=name == rng.NAME)
        except StateMismatchError as error:
            changed = [key for key, obj in given.items() if _bits(obj) != before[key]]
            return [("torn", f"{', '.join(changed)} changed, although: {error}")] if changed else []
        except KeepbestError:
            return []
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            return [("broken", f"{type(error).__name__}: {str(error)[:300]}")]
        return _used(name, given)


def _used(name: str, given: dict[str, Any]) -> list[Found]:
    """Draw from the generators: what they were given must not lead them out of their memory."""
    if name == rng.NAME:
        random.random()
        np.random.random(1000)
        torch.rand(1000)
    for obj in given.values():
        inner = getattr(obj, "_generator", obj)
        if hasattr(inner, "random"):
            [inner.random() for _ in range(1000)]
        elif isinstance(inner, torch.Generator):
            torch.rand(1000, generator=inner)
    return []


def _bits(obj: Any) -> Any:
    value = state.value_of(obj)[0]
    return repr(_typed("it", value)) if not isinstance(value, dict | list) else repr(plainly(_as_numpy(value)))


def _as_numpy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().copy()
    if isinstance(value, dict):
        return {key: _as_numpy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_as_numpy(item) for item in value)
    return value


def _typed(name: str, value: Any) -> Any:
    def tensor(_path: str, found: Any) -> tuple[str, Any] | None:
        tag = "torch" if isinstance(found, torch.Tensor) else "numpy"
        array = found.detach().numpy() if tag == "torch" else found
        if not isinstance(array, np.ndarray | np.generic):
            return None
        array = np.asarray(array)
        return tag, statefile.inline(spec("", array), array.tobytes(), None)

    return typedjson.encode(value, name, tensor)


def _with(base: Forgery, states: dict[str, Any]) -> Forgery:
    objects = {name: {"role": "state", "file": None, "state": found} for name, found in states.items()}
    return base.but(state=base.state | {"objects": objects})
