"""Stress: a save at every step, a copier that dawdles, and every checkpoint is the state at its step, bit for bit."""

from __future__ import annotations

import copy
import inspect
import shutil
import sys
import threading
import uuid
import warnings

import pytest
import torch
from contracts import torch_optimizers
from contracts.torch_optimizers import OPTIMIZERS
from contracts.witness import Witness, delay_copier, hold_copier
from torch import nn
from torch.optim import swa_utils

from keepbest.adapters.torch import fence

SETTINGS = torch_optimizers.SETTINGS | {"LBFGS": {"lr": 0.1, "history_size": 3, "max_iter": 4}}
VARIANTS = {"": {}, "for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
CASES = [
    pytest.param(name, settings, id="-".join(filter(None, [name, variant])))
    for name, kind in sorted(OPTIMIZERS.items())
    for variant, settings in VARIANTS.items()
    if settings.keys() <= inspect.signature(kind).parameters.keys()
]
STEPS = 4


@pytest.fixture
def url():
    return f"memory://overlap-{uuid.uuid4().hex}"


@pytest.fixture
def dawdle(monkeypatch):
    """Have the copier take longer than a step of these small models."""
    delay_copier(monkeypatch)


def network(name=""):
    torch.manual_seed(0)
    if name == "SparseAdam":
        return nn.Embedding(10, 4, sparse=True)
    if name == "Muon":
        return nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


def loss_of(model, number):
    generator = torch.Generator().manual_seed(number)
    if isinstance(model, nn.Embedding):
        return model(torch.randint(0, 10, (5,), generator=generator)).square().sum()
    return model(torch.randn(8, 6, generator=generator)).square().mean()


def train_step(model, optimizer, number):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, number)
        loss.backward()
        return loss

    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


# ── optimizers ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_every_optimizer_waits_for_the_copier(url, dawdle, name, settings):
    """Whatever optimizer trains, fused or not, a checkpoint of each step is what it was at that step."""
    model = network(name)
    optimizer = OPTIMIZERS[name](model.parameters(), **SETTINGS.get(name, {}), **settings)
    with Witness(url, model=model, optimizer=optimizer) as witness:
        for number in range(STEPS):
            train_step(model, optimizer, number)
            witness.step()
        assert witness.differences() == []


@pytest.mark.filterwarnings("ignore:.*changed by other means than")
@pytest.mark.parametrize("fused", [False, True], ids=["foreach", "fused"])
def test_without_the_fence_checkpoints_are_torn(url, monkeypatch, fused):
    """The comparison finds what a step changes under the copier's hands, so that it can fail."""
    stepped = hold_copier(monkeypatch)
    monkeypatch.setattr(fence, "settle_all", lambda: None)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    train_step(model, optimizer, 0)
    with Witness(url, model=model, optimizer=optimizer) as witness:
        witness.step()
        train_step(model, optimizer, 1)
        stepped.set()
        wrong = witness.differences()
    assert "step 1: model.0.weight" in wrong
    assert "step 1: optimizer.state.0.exp_avg" in wrong


def test_a_step_within_backward_waits_too(url, dawdle):
    """Optimizers that step as soon as a gradient is there change nothing that is being copied."""
    model = network()
    optimizers = {parameter: torch.optim.Adam([parameter], foreach=False) for parameter in model.parameters()}

    def at_once(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(at_once)
    named = {f"optimizer{number}": optimizer for number, optimizer in enumerate(optimizers.values())}
    with Witness(url, model=model, **named) as witness:
        for number in range(STEPS):
            loss_of(model, number).backward()
            witness.step()
        assert witness.differences() == []


def test_an_optimizer_that_is_not_saved_waits_too(url, dawdle):
    """The weights alone are saved; their optimizer waits all the same."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with Witness(url, model=model) as witness:
        for number in range(STEPS):
            train_step(model, optimizer, number)
            witness.step()
        assert witness.differences() == []


# ── ways to train ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_gradient_accumulation(url, dawdle):
    """Saves between the batches of one step, and after it, are right."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with Witness(url, model=model, optimizer=optimizer) as witness:
        for number in range(3 * STEPS):
            (loss_of(model, number) / 3).backward()
            if number % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
            witness.step()
        assert witness.differences() == []


@pytest.mark.parametrize("fused", [False, True], ids=["foreach", "fused"])
def test_mixed_precision(url, dawdle, fused):
    """Autocast in bfloat16 with a gradient scaler, which itself is saved, and skips a step now and then."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    with Witness(url, model=model, optimizer=optimizer, scaler=scaler) as witness:
        for number in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(model, number)
            scaler.scale(loss * (torch.inf if number == 3 else 1)).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            witness.step()
        assert witness.differences() == []


def test_averages_of_the_weights(url, dawdle):
    """Averaged models, one that PyTorch keeps and one that is updated through `.data`, are those of the step."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True)
    by_data = copy.deepcopy(model)
    with Witness(url, model=model, optimizer=optimizer, averaged=averaged, by_data=by_data) as witness:
        for number in range(STEPS):
            train_step(model, optimizer, number)
            averaged.update_parameters(model)
            for mine, new in zip(by_data.parameters(), model.parameters(), strict=True):
                mine.data.mul_(0.9).add_(new.data, alpha=0.1)
            witness.step()
        assert witness.differences() == []


def test_buffers_that_forward_changes(url, dawdle):
    """What forward changes while the copy runs (BatchNorm, spectral norm, a user's buffer) is that of the step."""

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1000))
            self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))

        def forward(self, x):
            self.seen.data.add_(x.detach().sum())
            return self.layer(x)

    torch.manual_seed(0)
    model = nn.Sequential(Counting(), network())
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with Witness(url, model=model, optimizer=optimizer) as witness:
        for number in range(STEPS):
            train_step(model, optimizer, number)
            witness.step()
            for extra in range(3):
                loss_of(model, 100 + extra)
        assert witness.differences() == []


@pytest.mark.parametrize("fused", [False, True], ids=["foreach", "fused"])
def test_two_optimizers_on_two_threads(url, dawdle, fused):
    """A GAN whose halves train on threads of their own, and meet for each save: neither overtakes the copier."""
    halves = [network(), network()]
    optimizers = [torch.optim.AdamW(half.parameters(), fused=fused) for half in halves]
    begin, end, failed = threading.Barrier(3, timeout=60), threading.Barrier(3, timeout=60), []

    def train(half, optimizer):
        try:
            for number in range(2 * STEPS):
                begin.wait()
                train_step(half, optimizer, number)
                end.wait()
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=train, args=pair) for pair in zip(halves, optimizers, strict=True)]
    for thread in threads:
        thread.start()
    with Witness(url, one=halves[0], two=halves[1], opt_one=optimizers[0], opt_two=optimizers[1]) as witness:
        for _ in range(2 * STEPS):
            begin.wait()
            end.wait()
            witness.step()
        for thread in threads:
            thread.join()
        assert failed == []
        assert witness.differences() == []


def test_a_frozen_average_that_changes_uncounted_is_that_of_the_step(url, dawdle):
    """Weights without gradients, all changed where PyTorch does not count, are saved as they were; nobody is warned."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    average = copy.deepcopy(model).requires_grad_(False)
    with Witness(url, model=model, optimizer=optimizer, average=average) as witness:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number in range(2 * STEPS):
                train_step(model, optimizer, number)
                for mine, new in zip(average.parameters(), model.parameters(), strict=True):
                    mine.data.mul_(0.9).add_(new.data, alpha=0.1)
                witness.step()
            wrong = witness.differences()
        assert caught == []
        assert wrong == []


@pytest.mark.parametrize("fused", [False, True], ids=["foreach", "fused"])
def test_halves_that_are_frozen_in_turn(url, dawdle, fused):
    """A GAN that freezes the half that does not train: its weights are those of the step, as long as it is saved."""
    halves = [network(), network()]
    optimizers = [torch.optim.AdamW(half.parameters(), fused=fused) for half in halves]
    with Witness(url, one=halves[0], two=halves[1], opt_one=optimizers[0], opt_two=optimizers[1]) as witness:
        for number in range(2 * STEPS):
            for half in halves:
                half.requires_grad_(half is halves[number % 2])
            train_step(halves[number % 2], optimizers[number % 2], number)
            halves[0].requires_grad_(False)
            witness.step()
        assert witness.differences() == []


# ── kinds of parameters ───────────────────────────────────────────────────────────────────────────────────────────


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 6)
        self.inner = network()
        self.back = nn.Linear(4, 6)
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.back(self.inner(self.embedding(tokens))))


def test_tied_and_frozen_weights(url, dawdle):
    """Weights that are shared, and weights that do not train, are those of the step, also once they thaw."""
    torch.manual_seed(0)
    model = Tied()
    model.inner.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    tokens = torch.arange(12)
    with Witness(url, model=model, optimizer=optimizer) as witness:
        for number in range(STEPS):
            if number == STEPS // 2:
                model.inner.requires_grad_(True)
                optimizer.add_param_group({"params": list(model.inner.parameters()), "lr": 0.01})
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(tokens), tokens).backward()
            optimizer.step()
            witness.step()
        assert witness.differences() == []


@pytest.mark.parametrize(
    "dtype", [torch.complex64, torch.complex128, torch.bfloat16, torch.float16, torch.float64], ids=str
)
def test_parameters_of_every_dtype(url, dawdle, dtype):
    """Complex and half-precision parameters, contiguous or not, are those of the step."""
    torch.manual_seed(0)
    model = nn.ParameterDict(
        {
            "plain": nn.Parameter(torch.randn(9, 5).to(dtype)),
            "turned": nn.Parameter(torch.randn(9, 5).to(dtype).t()),
            "scalar": nn.Parameter(torch.randn(()).to(dtype)),
            "empty": nn.Parameter(torch.zeros((0, 3), dtype=dtype)),
        }
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with Witness(url, model=model, optimizer=optimizer) as witness:
        for _ in range(STEPS):
            optimizer.zero_grad()
            sum((parameter * parameter.conj()).abs().sum() for parameter in model.values()).backward()
            optimizer.step()
            witness.step()
        assert witness.differences() == []


# ── compiled ──────────────────────────────────────────────────────────────────────────────────────────────────────

COMPILES = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "win32" and not any(map(shutil.which, ("c++", "g++", "clang++"))),
        reason="torch.compile needs a C++ compiler, such as Debian's package g++",
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own compiler
]


@pytest.mark.parametrize("what", [pytest.param(kind, marks=COMPILES) for kind in ("model", "step", "method")])
def test_compiled_training(url, dawdle, what):
    """A compiled model, and an optimizer whose step is compiled, wait for the copier as others do."""
    torch._dynamo.reset()
    plain = network()
    optimizer = torch.optim.Adam(plain.parameters(), lr=torch.tensor(0.01))
    model = torch.compile(plain) if what == "model" else plain
    if what == "method":
        optimizer.step = torch.compile(optimizer.step)
    whole = torch.compile(lambda: optimizer.step()) if what == "step" else optimizer.step  # noqa: PLW0108 - all of it
    with Witness(url, model=plain, optimizer=optimizer) as witness:
        for number in range(2 * STEPS):
            optimizer.zero_grad()
            loss_of(model, number).backward()
            whole()
            witness.step()
        assert witness.differences() == []
    torch._dynamo.reset()
