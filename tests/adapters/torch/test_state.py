"""What a PyTorch checkpoint holds: every kind of tensor and module, in files that load without keepbest."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import MetricValueError, StateMismatchError, TornStateError, UnsupportedStateError

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]  # fmt: skip


def save(url, **objects):
    with Checkpointer(url, CheckpointPolicy(), mode="sync", **objects) as ckpt:
        ckpt.save()
    return keepbest.open_run(url).latest


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(one, other):
    """Equal in dtype, shape and every bit; NaN equals NaN."""
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))


class Holder(nn.Module):
    """A module with one tensor as a buffer."""

    def __init__(self, tensor):
        super().__init__()
        self.register_buffer("kept", tensor)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.decoder = nn.Linear(5, 7, bias=False)
        self.decoder.weight = self.embedding.weight


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 5), (0, 4)], ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(run_url, dtype, shape):
    """A tensor of any dtype torch can hold densely, 0-d and empty ones too, comes back as it was."""
    count = int(np.prod(shape)) * dtype.itemsize
    raw = torch.tensor(list(np.random.default_rng(0).bytes(count)), dtype=torch.uint8)
    values = (raw % 2 if dtype == torch.bool else raw).view(dtype).reshape(shape)
    checkpoint = save(run_url, model=Holder(values))
    assert same(checkpoint.load("model", framework="torch")["kept"], values)
    target = Holder(torch.zeros(shape, dtype=dtype))
    with Checkpointer(run_url, model=target) as ckpt:
        ckpt.resume()
    assert same(target.kept, values)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda base: base.t(), id="transposed"),
        pytest.param(lambda base: base[::2, 1:], id="strided"),
        pytest.param(lambda base: base[0].expand(4, 6), id="expanded"),
        pytest.param(lambda base: torch.complex(base, base).conj(), id="conjugated"),
    ],
)
def test_tensors_that_are_not_contiguous_keep_their_values(run_url, make):
    """Views are stored as the values they show."""
    values = make(torch.arange(24.0).reshape(4, 6))
    loaded = save(run_url, model=Holder(values)).load("model", framework="torch")["kept"]
    assert torch.equal(loaded, values)


def test_tied_weights_are_stored_once_and_load_with_safetensors_alone(tmp_path):
    """The model's file follows the convention of safetensors.torch.load_model; keepbest restores the tie as well."""
    model = Tied()
    checkpoint = save(str(tmp_path / "run"), model=model)
    file = tmp_path / "run" / "checkpoints" / checkpoint.name / "model.safetensors"
    assert list(safetensors.torch.load_file(file)) == ["embedding.weight"]
    other = Tied()
    assert safetensors.torch.load_model(other, file) == (set(), [])
    assert torch.equal(other.decoder.weight, model.decoder.weight)
    assert sorted(checkpoint.load("model")) == ["decoder.weight", "embedding.weight"]
    assert sorted(checkpoint.load("model", only="decoder.*")) == ["decoder.weight"]
    third = Tied()
    with Checkpointer(str(tmp_path / "run"), model=third) as ckpt:
        ckpt.resume()
    assert torch.equal(third.decoder.weight, model.decoder.weight)
    assert third.decoder.weight is third.embedding.weight


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch.compile itself uses it
def test_the_plain_models_keys_are_stored_whatever_wraps_it(tmp_path):
    """torch.compile, DataParallel and their nesting leave no trace in the keys, so the plain model loads."""
    plain = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for name, wrapped in {
        "compiled": torch.compile(plain),
        "parallel": nn.DataParallel(plain),
        "both": torch.compile(nn.DataParallel(plain)),
    }.items():
        checkpoint = save(str(tmp_path / name), model=wrapped)
        fresh = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        folder = tmp_path / name / "checkpoints" / checkpoint.name
        safetensors.torch.load_model(fresh, folder / "model.safetensors")
        assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in plain.state_dict().items())
        with Checkpointer(str(tmp_path / name), model=torch.compile(fresh)) as ckpt:
            ckpt.resume()


def test_distributed_data_parallel_is_unwrapped(tmp_path):
    """A module inside DistributedDataParallel is saved under its own keys and restored through the wrapper."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(nn.Linear(3, 2))
        checkpoint = save(str(tmp_path / "run"), model=model)
        assert list(checkpoint.load("model")) == ["weight", "bias"]
        before = model.module.weight.detach().clone()
        nn.init.zeros_(model.module.weight)
        with Checkpointer(str(tmp_path / "run"), model=model) as ckpt:
            ckpt.resume()
        assert torch.equal(model.module.weight, before)
    finally:
        torch.distributed.destroy_process_group()


def test_averaged_weights_and_extra_state_come_back(run_url):
    """EMA models and modules with get_extra_state are restored with everything they hold."""

    class Extra(nn.Linear):
        seen = 0

        def get_extra_state(self):
            return {"seen": self.seen, "marks": (1, 2.5, None)}

        def set_extra_state(self, state):
            self.seen, self.marks = state["seen"], state["marks"]

    model = Extra(2, 2)
    model.seen = 17
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    nn.init.ones_(model.weight)
    average.update_parameters(model)
    save(run_url, model=model, ema=average)
    other = Extra(2, 2)
    other_average = torch.optim.swa_utils.AveragedModel(other)
    with Checkpointer(run_url, model=other, ema=other_average) as ckpt:
        ckpt.resume()
    assert (other.seen, other.marks) == (17, (1, 2.5, None))
    assert int(other_average.n_averaged) == 1
    assert torch.equal(other_average.module.weight, average.module.weight)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata 0.11 calls it
def test_what_has_a_state_dict_is_saved(run_url):
    """GradScaler, StatefulDataLoader, a generator, a bare tensor, a plain dict and one's own Stateful come back."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    class Counter:
        def __init__(self, count=0):
            self.count = count

        def state_dict(self):
            return {"count": self.count, "table": np.arange(3, dtype=np.int16), 7: "seven"}

        def load_state_dict(self, state):
            self.count, self.table, self.seven = state["count"], state["table"], state[7]

    def make():
        generator = torch.Generator().manual_seed(3)
        return {
            "scaler": torch.amp.GradScaler("cpu", init_scale=64.0),
            "loader": StatefulDataLoader(list(range(20)), batch_size=2, num_workers=0),
            "generator": generator,
            "noise": torch.zeros(4),
            "notes": {"lr": 0.1},
            "counter": Counter(),
        }

    objects = make()
    batches = iter(objects["loader"])
    first = [next(batches).tolist() for _ in range(3)]
    objects["noise"].copy_(torch.rand(4, generator=objects["generator"]))
    objects["notes"]["lr"], objects["counter"].count = 0.5, 9
    save(run_url, **objects)
    others = make()
    with Checkpointer(run_url, **others) as ckpt:
        ckpt.resume()
    assert others["scaler"].get_scale() == 64.0
    assert [batch.tolist() for batch in others["loader"]] == [[6, 7], [8, 9], *([n, n + 1] for n in range(10, 20, 2))]
    assert first[-1] == [4, 5]
    assert torch.equal(others["noise"], objects["noise"])
    expected = torch.rand(3, generator=objects["generator"])
    assert torch.equal(torch.rand(3, generator=others["generator"]), expected)
    assert others["notes"] == {"lr": 0.5}
    assert (others["counter"].count, others["counter"].seven) == (9, "seven")
    assert others["counter"].table.dtype == np.int16


def test_random_numbers_go_on_where_they_were(run_url):
    """Python's, NumPy's and torch's global generators continue after a resume as if nothing had happened."""

    def draw():
        return random.random(), float(np.random.rand()), torch.rand(2).tolist(), torch.randn(3).tolist()

    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    random.gauss(0, 1)
    np.random.randn()
    save(run_url, model=nn.Linear(1, 1))
    expected = draw()
    with Checkpointer(run_url, model=nn.Linear(1, 1)) as ckpt:
        draw()
        ckpt.resume()
        assert draw() == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param(torch.eye(3).to_sparse(), "sparse", id="sparse"),
        pytest.param(torch.empty(2, device="meta"), "meta", id="meta"),
        pytest.param(lambda: None, "function", id="lambda"),
        pytest.param(object(), "object", id="object"),
    ],
)
def test_state_that_cannot_be_saved_is_named(tmp_path, value, words):
    """A tensor or value that no file can hold is an error that names its path, before training starts."""

    class Odd:
        def state_dict(self):
            return {"inner": [1, {"odd": value}]}

        def load_state_dict(self, state):
            raise AssertionError

    with pytest.raises(UnsupportedStateError, match=r"thing\.inner\.1\.odd") as caught:
        Checkpointer(str(tmp_path / "run"), thing=Odd())
    assert words in str(caught.value)


def test_every_difference_is_listed_and_nothing_is_changed(run_url):
    """Missing and surplus keys, shapes and dtypes are all named in one error, and no object is touched."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    save(run_url, model=model, optimizer=optimizer)
    other = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2).double(), nn.Linear(2, 2))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    other_optimizer = torch.optim.SGD(other.parameters(), momentum=0.9)
    with Checkpointer(run_url, model=other, optimizer=other_optimizer, extra={}) as ckpt:
        with pytest.raises(StateMismatchError) as caught:
            ckpt.resume()
        text = "\n".join(caught.value.problems)
        for words in (
            "'0.weight' has shape (3, 4) in the checkpoint, (5, 4) here",
            "'1.bias' is torch.float32 in the checkpoint, torch.float64 here",
            "'2.weight' is not in the checkpoint",
            "group 0 has 4 parameters in the checkpoint, 6 here",
            "extra: the checkpoint holds no such object",
        ):
            assert words in text
        assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
        assert not other_optimizer.state


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda p: torch.optim.SGD(p, momentum=0.9), "another kind of optimizer", id="kind"),
        pytest.param(lambda p: torch.optim.Adam([{"params": [q]} for q in p]), "parameter groups", id="groups"),
    ],
)
def test_another_optimizer_is_refused(run_url, make, words):
    """A checkpoint of Adam is not loaded into something else."""
    model = nn.Linear(2, 2)
    save(run_url, optimizer=torch.optim.Adam(model.parameters()))
    with Checkpointer(run_url, optimizer=make(list(model.parameters()))) as ckpt:
        with pytest.raises(StateMismatchError, match=words):
            ckpt.resume()


def test_an_object_that_fails_to_load_undoes_those_before_it(run_url):
    """If an object's own load_state_dict raises, the objects before it get their old state back."""

    class Box:
        def __init__(self, value, *, fails=0):
            self.value, self.fails = value, fails

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]
            if self.fails:
                self.fails -= 1
                raise KeyError("no")

    save(run_url, model=nn.Linear(1, 1), a=Box(1), b=Box(2))
    a, b, model = Box(-1), Box(-2, fails=1), nn.Linear(1, 1)
    weight = model.weight.detach().clone()
    with Checkpointer(run_url, model=model, a=a, b=b) as ckpt:
        with pytest.raises(StateMismatchError, match="b: KeyError"):
            ckpt.resume()
        assert (a.value, b.value, torch.equal(model.weight, weight)) == (-1, -2, True)
        b.fails = 2  # also when it is given its old state back
        with pytest.raises(TornStateError, match="b: KeyError(.|\n)*b: does not take its own"):
            ckpt.resume()
        assert (a.value, torch.equal(model.weight, weight)) == (-1, True)


def test_an_object_without_a_copy_to_go_back_to_is_set_after_those_that_have_one(run_url):
    """Its old state cannot be copied: it is restored all the same, and if another fails, it was not touched yet."""

    class Whole:
        def __init__(self, value, *, copies=True, fails=0):
            self.value, self.copies, self.fails = value, copies, fails

        def state_dict(self):
            scale = torch.ones(1, requires_grad=True)
            return {"value": self.value, "scale": scale if self.copies else scale * 2}  # torch copies no result

        def load_state_dict(self, state):
            if self.fails:
                self.fails -= 1
                raise KeyError("no")
            self.value = state["value"]

    save(run_url, a=Whole(1), b=Whole(2))
    a, b = Whole(-1, copies=False), Whole(-2, fails=1)
    with Checkpointer(run_url, a=a, b=b) as ckpt:
        with pytest.raises(StateMismatchError, match="b: KeyError"):
            ckpt.resume()
        assert (a.value, b.value) == (-1, -2)
        ckpt.resume()
        assert (a.value, b.value) == (1, 2)


def test_a_module_that_fails_to_load_is_not_called_unchanged(run_url):
    """If a module does not take its state after others took theirs, the error says which are changed by now."""

    class Versioned(nn.Module):
        fails = False

        def get_extra_state(self):
            return {"version": 1}

        def set_extra_state(self, state):
            if self.fails:
                raise ValueError("an old version")

    first, second = nn.Linear(1, 1), Versioned()
    save(run_url, first=first, second=second)
    second.fails = True
    with Checkpointer(run_url, first=first, second=second) as ckpt:
        with pytest.raises(
            TornStateError, match="second: ValueError: an old version(.|\n)*first: holds the checkpoint's"
        ):
            ckpt.resume()
        with pytest.raises(TornStateError):
            ckpt.log()
        second.fails = False
        ckpt.resume()
        ckpt.log()


def test_metrics_are_taken_as_tensors(run_url):
    """log and log_step take 0-d tensors, and a later in-place change does not reach what was logged."""
    loss = torch.tensor(2.0, requires_grad=True)
    running = torch.tensor(1.0)
    with Checkpointer(run_url, CheckpointPolicy(monitor="val_loss"), model=nn.Linear(1, 1)) as ckpt:
        for _ in ckpt.epochs(1):
            ckpt.log_step(loss=running)
            running += 1
            ckpt.log_step(loss=running)
            ckpt.log(val_loss=loss, train_loss=torch.tensor([0.5]))
    history = keepbest.open_run(run_url).history()
    assert dict(history) == {"val_loss": [2.0], "train_loss": [0.5]}
    assert [row.metrics["loss"] for row in history.steps_log] == [1.0, 2.0]


def test_a_lazy_conjugate_is_not_taken_for_its_original(run_url):
    """Views of one memory with other values, such as a conjugate, come back with their own values."""
    value = torch.tensor([1 + 2j, 3 - 1j])
    views = {"value": value, "conj": value.conj(), "imag": value.imag, "negative": value.conj().imag}
    save(run_url, views=views)
    held = keepbest.open_run(run_url).latest.load("views", framework="torch")
    assert all(torch.equal(held[name], view) for name, view in views.items())


@pytest.mark.parametrize("kind", [torch.optim.NAdam, torch.optim.ASGD, torch.optim.Adam])
def test_optimizer_state_keeps_its_own_dtype(run_url, kind):
    """What an optimizer keeps in float32 beside bfloat16 parameters is not rounded by going on."""
    model = nn.Linear(2, 2).bfloat16()
    optimizer = kind(model.parameters())
    for _ in range(3):
        model(torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
        optimizer.step()
    save(run_url, optimizer=optimizer)
    other = kind(model.parameters())
    with Checkpointer(run_url, optimizer=other) as ckpt:
        ckpt.resume()
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            held = other.state_dict()["state"][index][name]
            assert (held.dtype, torch.equal(held, value)) == (value.dtype, True), name


def test_a_lazy_module_is_told_about(tmp_path):
    """A module whose parameters have no values yet is refused with what to do, before anything is trained."""
    with pytest.raises(UnsupportedStateError, match=r"lazy\.weight.*call the lazy module with one batch"):
        Checkpointer(str(tmp_path / "run"), lazy=nn.LazyLinear(2))


def test_that_training_ended_is_noted_whatever_a_device_says(tmp_path):
    """A scalar that can no longer be read, as after an error of a GPU, does not hide what ended training."""
    policy = CheckpointPolicy()
    with pytest.raises(RuntimeError, match="device-side") as raised:
        with Checkpointer(tmp_path, policy, model=nn.Linear(1, 1)) as ckpt:
            ckpt.log(loss=1.0)
            ckpt.log_step(loss=torch.ones((), device="meta"))
            raise RuntimeError("device-side assert")
    assert "'loss'" in raised.value.__notes__[0]
    last = keepbest.open_run(tmp_path).journal()[-1]
    assert (last.kind, last.cause, last.error) == ("ended", "exception", "RuntimeError")


def test_a_metric_of_a_step_that_is_no_number_is_refused_at_its_step(run_url):
    """A vector handed to log_step is an error there and then, and costs no other row."""
    with Checkpointer(run_url, model=nn.Linear(1, 1)) as ckpt:
        ckpt.log_step(loss=torch.tensor(1.0))
        with pytest.raises(MetricValueError, match="shape"):
            ckpt.log_step(loss=torch.ones(2))
        ckpt.log_step(loss=torch.tensor(3.0))
        ckpt.log()
    rows = keepbest.open_run(run_url).history().steps_log
    assert [(row.step, row.metrics["loss"]) for row in rows] == [(1, 1.0), (2, 3.0)]


def test_a_model_that_can_be_iterated_over_is_no_data_loader(run_url):
    """A run left within an epoch warns of repeated batches also where the model is an nn.Sequential."""
    policy = CheckpointPolicy(every_n_steps=1)
    with Checkpointer(run_url, policy, model=nn.Sequential(nn.Linear(1, 1))) as ckpt:
        ckpt.log_step()
    with Checkpointer(run_url, policy, model=nn.Sequential(nn.Linear(1, 1))) as ckpt:
        with pytest.warns(UserWarning, match="begins the epoch anew"):
            next(iter(ckpt.epochs(1)))


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata calls it
@pytest.mark.parametrize("stop", [3, 4], ids=["within-an-epoch", "end-of-an-epoch"])
def test_a_stateful_loader_continues_bit_for_bit(tmp_path, stop):
    """Left within an epoch, a training with dropout and a StatefulDataLoader goes on as if never interrupted."""
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    data = torch.arange(16.0).view(16, 1)

    def train(url, seed, upto=None):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        loader = loaders.StatefulDataLoader(data, batch_size=4, shuffle=True)
        policy = CheckpointPolicy(every_n_steps=1)
        with Checkpointer(url, policy, model=model, optimizer=optimizer, loader=loader) as ckpt:
            for _ in ckpt.epochs(2):
                for x in loader:
                    optimizer.zero_grad()
                    model(x).square().mean().backward()
                    optimizer.step()
                    ckpt.log_step()
                    if ckpt.position.step == upto:
                        return None
                ckpt.log()
        return [value.tolist() for value in model.state_dict().values()]

    assert train(str(tmp_path / "b"), 0, upto=stop) is None
    assert train(str(tmp_path / "b"), 99) == train(str(tmp_path / "a"), 0)


def test_complex_numbers_behind_others_come_back(run_url):
    """complex128 that lies on a multiple of 8 bytes in the file loads as tensors that torch can work with."""

    def made():
        return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2, dtype=torch.complex128))

    model = made()
    with Checkpointer(run_url, model=model) as ckpt:
        ckpt.log(loss=1.0)
    loaded = keepbest.open_run(run_url).latest.load("model", framework="torch")
    assert all(value.data_ptr() % 16 == 0 for value in loaded.values() if value.is_complex())
    again = made()
    with Checkpointer(run_url, model=again) as ckpt:
        ckpt.resume()
    assert all(same(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    "made", [lambda w: [w], lambda w: (w,), lambda w: {"w": w, "n": 1}], ids=["list", "tuple", "dict"]
)
def test_parameters_in_a_container_are_set(run_url, made):
    """Whoever trains parameters that stand in a list or dict holds on to them, as their optimizer does."""

    def train(epochs):
        w = nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([w], lr=0.1)
        with Checkpointer(run_url, params=made(w), optimizer=optimizer) as ckpt:
            for _ in ckpt.epochs(epochs):
                optimizer.zero_grad()
                w.square().sum().backward()
                optimizer.step()
                ckpt.log(loss=1.0)
        return w

    train(2)
    assert torch.allclose(train(4), torch.full((3,), 0.8**4))


class Counting(torch.optim.Optimizer):
    """Keeps a state of all parameters under a name, as MADGRAD does."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self):
        self.state.setdefault("k", torch.tensor([0])).add_(1)


def test_an_optimizer_with_a_state_of_all_parameters(run_url):
    """What an optimizer keeps under a name of its own is saved, and comes back."""
    model = nn.Linear(2, 1)
    optimizer = Counting(model.parameters())
    with Checkpointer(run_url, model=model, optimizer=optimizer) as ckpt:
        for _ in range(2):
            optimizer.step()
            ckpt.log(loss=1.0)
    again = Counting(model.parameters())
    with Checkpointer(run_url, model=model, optimizer=again) as ckpt:
        ckpt.resume()
    assert again.state["k"].tolist() == [2]


def test_frozen_parameters_of_inference_mode_are_saved(run_url):
    """They count no changes, and are copied at once."""
    model = nn.Linear(2, 1)
    with torch.inference_mode():
        average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Checkpointer(run_url, model=model, average=average, optimizer=optimizer) as ckpt:
        ckpt.log(loss=1.0)
    loaded = keepbest.open_run(run_url).latest.load("average", framework="torch")
    assert same(loaded["weight"], average.weight)


class Renaming(nn.Module):
    """A module that gives its state as it likes, by methods without torch's arguments."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 1)

    def state_dict(self):
        return {f"own.{key}": value for key, value in self.inner.state_dict().items()}

    def load_state_dict(self, state):
        self.inner.load_state_dict({key.removeprefix("own."): value for key, value in state.items()})


@pytest.mark.parametrize("snapshot", ["overlap", "copy"])
def test_a_module_whose_state_dict_takes_no_arguments(run_url, snapshot):
    """A module that overrides state_dict() and load_state_dict(state) without torch's arguments is saved, restored."""
    model = Renaming()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = []
    with Checkpointer(run_url, {"keep_last": 3}, snapshot=snapshot, model=model, optimizer=optimizer) as ckpt:
        for _ in range(3):
            model.inner(torch.ones(3, 2)).sum().backward()
            optimizer.step()
            before.append(model.inner.weight.detach().clone())
            ckpt.log(loss=1.0)
    held = [found.load("model", framework="torch")["own.weight"] for found in keepbest.open_run(run_url).checkpoints()]
    assert all(map(same, held, before))
    again = Renaming()
    with Checkpointer(run_url, model=again, optimizer=optimizer) as ckpt:
        ckpt.resume()
    assert same(again.inner.weight, model.inner.weight)
