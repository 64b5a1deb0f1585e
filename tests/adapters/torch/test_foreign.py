"""PyTorch's, Lightning's and torch.distributed's checkpoints come into a run and out of it, and none of them is run."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict, deque
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.cli import main

OWN_WARNINGS = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled, unavailable or uninitialized:UserWarning"  # torch's, of a single process
)


@pytest.fixture
def convert(capsys):
    """Call the verb, and return its exit code, what it printed, and what it said was wrong."""

    def call(*words):
        capsys.readouterr()
        code = main(["convert", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


class Model(nn.Module):
    """Has a tie, a parameter of bfloat16, and buffers of integers and of no axes."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(7, 5)
        self.decoder = nn.Linear(5, 7, bias=False)
        self.decoder.weight = self.embedding.weight
        self.short = nn.Linear(5, 3, dtype=torch.bfloat16)
        self.norm = nn.BatchNorm1d(5)
        self.register_buffer("counts", torch.arange(-3, 4, dtype=torch.int8))
        self.norm.num_batches_tracked += seed + 41


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def bits(state):
    return {
        key: (value.dtype, tuple(value.shape), value.reshape(-1).view(torch.uint8).tolist())
        for key, value in state.items()
    }


def trained(seed=0):
    """Return a model and an optimizer that has made a step."""
    model = Model(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model.decoder(model.norm(model.embedding(torch.arange(7)))).sum().backward()
    model.short(torch.ones(2, 5, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_a_state_dict_goes_in_and_out_bit_for_bit(convert, tmp_path):
    """pth → run → pth: every dtype and value is as it was, ties are one tensor again, and the model takes it."""
    model = trained()[0]
    torch.save(model.state_dict(), tmp_path / "in.pth")
    assert convert(tmp_path / "in.pth", tmp_path / "run")[0] == 0
    assert keepbest.open_run(tmp_path / "run").verify().ok
    code, out, _ = convert(tmp_path / "run", tmp_path / "out.pth")
    assert (code, str(tmp_path / "out.pth") in out) == (0, True)
    state = torch.load(tmp_path / "out.pth", weights_only=True)
    assert bits(state) == bits(model.state_dict())
    assert state["decoder.weight"].data_ptr() == state["embedding.weight"].data_ptr()
    assert (tmp_path / "out.pth").stat().st_size < (tmp_path / "in.pth").stat().st_size + 2000
    other = Model(seed=5)
    other.load_state_dict(state)
    assert bits(other.state_dict()) == bits(model.state_dict())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.pth", "out.pth", "run"]


def test_the_older_format_of_torch_is_read(convert, tmp_path):
    """A file from before torch 1.6 holds the same weights."""
    model = Model()
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert convert(tmp_path / "old.pth", tmp_path / "run")[0] == 0
    assert bits(keepbest.open_run(tmp_path / "run").latest.load("model", "torch")) == bits(model.state_dict())


def test_training_continues_from_what_a_loop_saved(convert, tmp_path):
    """The usual dictionary of model, optimizer, epoch and loss becomes a checkpoint that a Checkpointer resumes."""
    model, optimizer = trained()
    saved = {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "epoch": 4,
        "global_step": 500,
        "args": {"lr": 0.01, "layers": (1, 2)},
    }
    torch.save(saved, tmp_path / "last.pt")
    code, out, _ = convert(tmp_path / "last.pt", tmp_path / "run", "--json")
    told = json.loads(out)
    assert (code, told["epoch"], told["step"], told["complete"], told["left_out"]) == (0, 4, 500, True, [])
    assert told["objects"].keys() == {"model", "optimizer", "args"}
    checkpoint = keepbest.open_run(tmp_path / "run").latest
    assert checkpoint.info.reasons == ("converted",)
    assert checkpoint.load("args") == {"lr": 0.01, "layers": (1, 2)}
    other = Model(seed=3)
    again = torch.optim.AdamW(other.parameters(), lr=0.5)
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=other, optimizer=again, args={}) as ckpt:
        assert next(iter(ckpt.epochs(9))) == 5
        assert bits(other.state_dict()) == bits(model.state_dict())
        assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
        for key, state in optimizer.state_dict()["state"].items():
            assert bits(again.state_dict()["state"][key]) == bits(state)
        ckpt.log(loss=1.0)


def test_a_loops_own_generator_does_not_take_the_name_of_ours(convert, tmp_path):
    """It is left out by name, and training continues."""
    model, optimizer = trained()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 4, "rng": torch.get_rng_state()}
    torch.save(saved, tmp_path / "last.pt")
    code, out, _ = convert(tmp_path / "last.pt", tmp_path / "run")
    assert (code, "'rng' was left out: it has a name that is taken" in out) == (0, True)
    assert keepbest.open_run(tmp_path / "run").latest.objects() == ["model", "optimizer"]
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=model, optimizer=optimizer) as ckpt:
        assert ckpt.resume()


def test_options_called_opt_are_no_optimizer(convert, tmp_path):
    """They are kept as they are, and the checkpoint counts as weights only."""
    torch.save({"model": Model().state_dict(), "opt": {"lr": 0.1}}, tmp_path / "last.pt")
    code, out, _ = convert(tmp_path / "last.pt", tmp_path / "run", "--json")
    assert (code, json.loads(out)["complete"], json.loads(out)["left_out"]) == (0, False, [])
    assert keepbest.open_run(tmp_path / "run").latest.load("opt") == {"lr": 0.1}


@pytest.mark.parametrize("name", ["optimizer", "scheduler"])
def test_weights_are_not_called_as_another_part_is(convert, tmp_path, name):
    """One of the two would be lost, so the name is refused."""
    model, optimizer = trained()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": {"last_epoch": 3}}
    torch.save(saved, tmp_path / "last.pt")
    code, _, err = convert(tmp_path / "last.pt", tmp_path / "run", "--name", name)
    assert (code, f"cannot be called '{name}'" in err) == (2, True)
    assert convert(tmp_path / "last.pt", tmp_path / "run", "--name", "net")[0] == 0
    assert bits(keepbest.open_run(tmp_path / "run").latest.load("net", "torch")) == bits(model.state_dict())


def test_what_is_no_plain_data_in_a_loops_dictionary_is_left_out_by_name(convert, tmp_path):
    """Sparse tensors are no tensors that are saved: the rest is, and a sentence says what is not."""
    torch.save({"model": Model().state_dict(), "graph": torch.eye(3).to_sparse()}, tmp_path / "in.pth")
    code, out, _ = convert(tmp_path / "in.pth", tmp_path / "run")
    assert code == 0
    assert "'graph' was left out" in out
    assert keepbest.open_run(tmp_path / "run").latest.objects() == ["model"]


def test_a_weight_that_cannot_be_stored_is_an_error_that_names_it(convert, tmp_path):
    """Weights are never left out."""
    torch.save({"a": torch.ones(2), "b": torch.eye(3).to_sparse()}, tmp_path / "in.pth")
    code, _, err = convert(tmp_path / "in.pth", tmp_path / "run")
    assert (code, "model.b" in err) == (2, True)
    assert not (tmp_path / "run" / "commits").exists()


@pytest.mark.parametrize("named", ["epoch", "step"])
def test_a_count_without_a_value_is_no_count(convert, tmp_path, named):
    """A tensor on the meta device has none; it is left out by name."""
    saved = {"model": {"w": torch.ones(2)}, named: torch.ones((), dtype=torch.int64, device="meta")}
    torch.save(saved, tmp_path / "in.pth")
    code, out, err = convert(tmp_path / "in.pth", tmp_path / "run", "--json")
    assert (code, err, json.loads(out)["epoch"]) == (0, "", None)
    assert any(f"'{named}' was left out" in sentence for sentence in json.loads(out)["left_out"])


@pytest.mark.parametrize("key", [None, True, 3, "a b"], ids=str)
def test_what_has_no_name_is_left_out(convert, tmp_path, key):
    """Objects of a checkpoint are called by text, even where a key would read as a name."""
    torch.save({"model": {"w": torch.ones(2)}, key: torch.ones(3)}, tmp_path / "in.pth")
    code, out, err = convert(tmp_path / "in.pth", tmp_path / "run", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["left_out"] == [f"'{key}' was left out: it has no name that an object can have."]
    assert keepbest.open_run(tmp_path / "run").latest.objects() == ["model"]


# ── strangers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "pytorch_model.bin", "last.ckpt"])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_would_run_a_command_is_refused_unrun(convert, tmp_path, name, new):
    """The error says what was in it and how to convert it oneself; nothing ran, and nothing was written."""
    content = {"state_dict": {"w": torch.ones(2)}, "pytorch-lightning_version": "2.6.0", "x": Trap(tmp_path / "ran")}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=new)
    code, _, err = convert(tmp_path / name, tmp_path / "run")
    assert code == 2
    assert f"there is a {os.system.__module__}.system in it" in err
    assert "weights_only=False" in err
    assert sorted(file.name for file in tmp_path.iterdir()) == [name]


def test_a_whole_module_is_refused_by_its_class(convert, tmp_path):
    """torch.save(model) needs the class, whose code would run."""
    torch.save(nn.Linear(2, 3), tmp_path / "in.pth")
    code, _, err = convert(tmp_path / "in.pth", tmp_path / "run")
    assert (code, "there is a torch.nn.modules.linear.Linear in it" in err) == (2, True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
def test_torchscript_is_refused(convert, tmp_path):
    """A program is no state."""
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "in.pt")
    code, _, err = convert(tmp_path / "in.pt", tmp_path / "run")
    assert (code, "it is a TorchScript program" in err) == (2, True)


@pytest.mark.parametrize(
    "data",
    [b"", b"this is no checkpoint", b"<!DOCTYPE html>", b"\x06" * 99, pickle.dumps({"a": 1}, protocol=4)],
    ids=["empty", "text", "html", "bytes", "pickle"],
)
def test_what_is_no_checkpoint_is_refused_in_our_own_words(convert, tmp_path, data):
    """Nobody is advised to run what is in the file, as torch's own error does."""
    file = tmp_path / "bad.pth"
    file.write_bytes(data)
    code, _, err = convert(file, tmp_path / "run")
    err = " ".join(err.split())
    assert (code, "it is no PyTorch checkpoint" in err, "Nothing was run." in err) == (2, True, True)
    for advice in ("weights_only", "Re-running", "file an issue"):
        assert advice not in err


def test_a_file_that_unpacks_to_more_is_refused(convert, tmp_path):
    """torch.save compresses nothing, so a compressed file is no file of its."""
    torch.save({"w": torch.zeros(1000)}, tmp_path / "in.pth")
    with (
        zipfile.ZipFile(tmp_path / "in.pth") as old,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, old.read(member))
    code, _, err = convert(tmp_path / "bomb.pth", tmp_path / "run")
    assert (code, "it is compressed" in err) == (2, True)


def test_a_tensor_that_shows_one_number_a_thousand_million_times_is_refused(convert, tmp_path):
    """A view may be of any size; what it would take is compared with what is stored before anything is allocated."""
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, tmp_path / "in.pth")
    code, _, err = convert(tmp_path / "in.pth", tmp_path / "run")
    assert (code, "all of it would take 4,398,046,511,104 bytes" in err) == (2, True)


def test_one_list_in_a_million_places_is_refused(convert, tmp_path):
    """A file of a few hundred bytes may hold it; what it would take is counted before it is written out."""
    nested = ["x"]
    for _ in range(21):
        nested = [nested, nested]
    for number, held in enumerate([{"w": torch.ones(2), "x": nested}, {"model": {"w": torch.ones(2)}, "x": nested}]):
        torch.save(held, tmp_path / "in.pth")
        code, _, err = convert(tmp_path / "in.pth", tmp_path / f"run{number}")
        assert (code, "its plain data would take" in err) == (2, True)


def test_what_refers_to_itself_is_refused(convert, tmp_path):
    """A pickle may have that; nothing walks round in it."""
    nested = []
    nested.append(nested)
    torch.save({"model": {"w": torch.ones(2)}, "x": nested}, tmp_path / "in.pth")
    code, _, err = convert(tmp_path / "in.pth", tmp_path / "run")
    assert (code, "refers to itself" in err) == (2, True)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../b", "w\x1b[31m", "w\nx", "/root"], ids=ascii)
def test_names_that_lead_out_or_steer_a_terminal_are_refused(convert, tmp_path, name):
    """They are refused, and shown escaped."""
    torch.save({name: torch.ones(2)}, tmp_path / "in.pth")
    code, _, err = convert(tmp_path / "in.pth", tmp_path / "run")
    assert (code, "a tensor in it is called" in err, "\x1b" in err) == (2, True, False)


@pytest.mark.parametrize("cut", [0, 3, 60, -40, -1])
def test_a_file_cut_short_is_an_error_of_one_sentence(convert, tmp_path, cut):
    """Whatever torch raises for a damaged file is told as one of ours."""
    torch.save({"w": torch.ones(100)}, tmp_path / "whole.pth")
    (tmp_path / "in.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:cut])
    code, _, err = convert(tmp_path / "in.pth", tmp_path / "run")
    assert (code, "was not converted" in err) == (2, True)


def test_a_zip_file_with_a_damaged_directory_is_an_error(convert, tmp_path):
    """Python may say so already where it only looks whether it is a zip file."""
    torch.save({"w": torch.ones(100)}, tmp_path / "in.pth")
    data = bytearray((tmp_path / "in.pth").read_bytes())
    locator = data.rindex(b"PK\x05\x06") - 20
    data[locator : locator + 20] = b"PK\x06\x07" + (7).to_bytes(4, "little") + bytes(8) + (9).to_bytes(4, "little")
    (tmp_path / "in.pth").write_bytes(data)
    code, _, err = convert(tmp_path / "in.pth", tmp_path / "run")
    assert (code, "it is no whole zip file" in err) == (2, True)


# ── Lightning ─────────────────────────────────────────────────────────────────────────────────────────────────────


def lightning_checkpoint(folder, **hyper_parameters):
    """Return a module, its optimizer, and the file that Lightning's own Trainer wrote of them after three epochs."""
    import pytorch_lightning as pl

    class Net(pl.LightningModule):
        def __init__(self, **hyper_parameters):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Linear(4, 2)

        def training_step(self, batch, index):
            loss = self.net(batch).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

        def train_dataloader(self):
            return torch.utils.data.DataLoader(torch.randn(6, 4), batch_size=2)

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    module = Net(**hyper_parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice, and what it does to torch's own deprecations
        trainer = pl.Trainer(
            default_root_dir=folder,
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[pl.callbacks.ModelCheckpoint(folder, save_top_k=-1, save_last=True)],
        )
        trainer.fit(module)
    return module, trainer.optimizers[0], folder / "last.ckpt"


def test_a_checkpoint_of_lightning_becomes_a_complete_one(convert, tmp_path):
    """Weights, optimizer, scheduler, hyper-parameters and position are taken; the Trainer's own state is named."""
    module, optimizer, file = lightning_checkpoint(tmp_path / "pl", width=3, name="x")
    code, out, err = convert(file, tmp_path / "run", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["epoch"], told["step"], told["complete"]) == (2, 9, True)
    assert told["format"].startswith("a checkpoint of Lightning 2.")
    assert any("callbacks" in sentence for sentence in told["left_out"])
    checkpoint = keepbest.open_run(tmp_path / "run").latest
    assert bits(checkpoint.load("model", "torch")) == bits(module.state_dict())
    assert checkpoint.load("hyper_parameters") == {"width": 3, "name": "x"}
    assert checkpoint.load("scheduler")["last_epoch"] == 3
    loaded = checkpoint.load("optimizer", "torch")
    assert bits(loaded["state"][0]) == bits(optimizer.state_dict()["state"][0])
    assert loaded["param_groups"] == optimizer.state_dict()["param_groups"]
    assert keepbest.open_run(tmp_path / "run").verify().ok


@pytest.mark.parametrize(
    ("epoch", "progress", "ended"),
    [
        pytest.param(2, (2, 2, True), 2, id="after fit"),
        pytest.param(1, (2, 2, True), 2, id="at the end of an epoch"),
        pytest.param(1, (2, 1, True), 2, id="after its validation"),
        pytest.param(1, (2, 1, False), 1, id="in the middle of one"),
        pytest.param(0, (1, 0, False), None, id="in the middle of the first"),
        pytest.param(1, (None, "x", False), 2, id="no number"),
        pytest.param(1, (-1, -1, True), 2, id="no count"),
    ],
)
def test_the_epochs_that_lightning_has_ended_are_counted(convert, tmp_path, epoch, progress, ended):
    """Its own "epoch" is that under way, or after `fit` the number of all; the loop's progress tells which."""
    ready, processed, last = progress
    loop = {
        "epoch_progress": {"current": {"ready": ready, "processed": processed}},
        "epoch_loop.batch_progress": {"is_last_batch": last},
    }
    saved = {"pytorch-lightning_version": "2.6.0", "state_dict": {"w": torch.ones(2)}, "epoch": epoch}
    torch.save(saved | {"loops": {"fit_loop": loop}}, tmp_path / "in.ckpt")
    code, out, _ = convert(tmp_path / "in.ckpt", tmp_path / "run", "--json")
    assert (code, json.loads(out)["epoch"]) == (0, None if ended is None else ended - 1)


@pytest.mark.parametrize("loops", [None, {}, {"fit_loop": []}, {"fit_loop": {"epoch_progress": 3}}], ids=str)
def test_lightnings_own_epoch_counts_where_it_tells_no_progress(convert, tmp_path, loops):
    """As older versions of it write."""
    saved = {"pytorch-lightning_version": "1.0.0", "state_dict": {"w": torch.ones(2)}, "epoch": 1, "loops": loops}
    torch.save(saved, tmp_path / "in.ckpt")
    code, out, _ = convert(tmp_path / "in.ckpt", tmp_path / "run", "--json")
    assert (code, json.loads(out)["epoch"]) == (0, 1)


# ── torch.distributed ─────────────────────────────────────────────────────────────────────────────────────────────


@OWN_WARNINGS
def test_a_distributed_checkpoint_comes_in_bit_for_bit(convert, tmp_path):
    """What dcp.save wrote is found again: nesting, tensors of all dtypes, plain values, and an optimizer to go on."""
    model, optimizer = trained()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 2,
        "notes": ["a", {"b": (1, 2)}],
    }
    dcp.save(state, checkpoint_id=tmp_path / "dcp")
    code, out, err = convert(tmp_path / "dcp", tmp_path / "run", "--json")
    assert (code, err) == (0, "")
    assert (json.loads(out)["epoch"], json.loads(out)["complete"]) == (2, True)
    checkpoint = keepbest.open_run(tmp_path / "run").latest
    assert bits(checkpoint.load("model", "torch")) == bits(model.state_dict())
    assert checkpoint.load("notes") == ["a", {"b": (1, 2)}]
    other = Model(seed=3)
    again = torch.optim.AdamW(other.parameters(), lr=0.5)
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=other, optimizer=again, notes=[]) as ckpt:
        ckpt.resume()
    assert bits(other.state_dict()) == bits(model.state_dict())
    assert bits(again.state_dict()["state"][0]) == bits(optimizer.state_dict()["state"][0])


@OWN_WARNINGS
def test_an_optimizer_without_state_continues(convert, tmp_path):
    """torch.distributed writes nothing for an empty dict, and the optimizer is given one all the same."""
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    dcp.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint_id=tmp_path / "dcp")
    code, out, _ = convert(tmp_path / "dcp", tmp_path / "run", "--json")
    assert (code, json.loads(out)["complete"]) == (0, True)
    again = torch.optim.SGD(model.parameters(), lr=0.5)
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), model=model, optimizer=again) as ckpt:
        assert ckpt.resume()
    assert again.param_groups[0]["lr"] == 0.25


@OWN_WARNINGS
@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("kind", ["dcp", "pth"])
def test_an_optimizer_that_goes_by_names_is_not_complete(convert, tmp_path, momentum, flat, kind):
    """Whatever it holds and however it was saved: no optimizer takes it as it is."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=momentum)
    named = get_optimizer_state_dict(model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=flat))
    saved = {"model": model.state_dict(), "optimizer": named}
    if kind == "dcp":
        dcp.save(saved, checkpoint_id=tmp_path / "in.dcp")
    else:
        torch.save(saved, tmp_path / "in.pth")
    code, out, _ = convert(tmp_path / f"in.{kind}", tmp_path / "run", "--json")
    told = json.loads(out)
    assert (code, told["complete"], told["objects"].keys()) == (0, False, {"model", "optimizer"})
    assert any("by the names of parameters" in sentence for sentence in told["left_out"]) is not flat


@OWN_WARNINGS
def test_a_tensor_that_two_ranks_wrote_is_one_again(convert, tmp_path):
    """The pieces of a sharded tensor are put together by their offsets."""
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

    whole = torch.arange(24.0).reshape(6, 4)
    dcp.save({"model": {"top": whole[:4].clone(), "rest": whole[4:].clone()}}, checkpoint_id=tmp_path / "dcp")
    metadata = pickle.loads((tmp_path / "dcp" / ".metadata").read_bytes())
    pieces = {"model.top": ([0, 0], [4, 4]), "model.rest": ([4, 0], [2, 4])}
    described = metadata.state_dict_metadata["model.top"]
    described.size = torch.Size([6, 4])
    described.chunks = [ChunkStorageMetadata(torch.Size(low), torch.Size(many)) for low, many in pieces.values()]
    metadata.state_dict_metadata = {"model.w": described}
    metadata.planner_data = {"model.w": ("model", "w")}
    metadata.storage_data = {
        MetadataIndex("model.w", pieces[index.fqn][0]): info for index, info in metadata.storage_data.items()
    }
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    assert convert(tmp_path / "dcp", tmp_path / "run")[0] == 0
    assert torch.equal(keepbest.open_run(tmp_path / "run").latest.load("model", "torch")["w"], whole)
    metadata.state_dict_metadata["model.w"].chunks.pop()
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    code, _, err = convert(tmp_path / "dcp", tmp_path / "other")
    assert (code, "'model.w' is not whole" in err) == (2, True)


def test_metadata_that_would_run_a_command_is_refused_unrun(convert, tmp_path):
    """torch itself would unpickle it; here nothing of it is looked up, and the error says what was in it."""
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps({"x": Trap(tmp_path / "ran")}))
    code, _, err = convert(tmp_path / "dcp", tmp_path / "run")
    assert (code, f"there is a {os.system.__module__}.system in it" in err) == (2, True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dcp"]


@OWN_WARNINGS
@pytest.mark.parametrize(
    "name", ["builtins.getattr", "builtins.eval", "torch.load", "torch.hub.load", "torch.utils.cmd"]
)
def test_metadata_may_name_nothing_but_what_it_needs(convert, tmp_path, name):
    """Not even a function of torch's own, from which there are ways on."""
    dcp.save({"w": torch.ones(2)}, checkpoint_id=tmp_path / "dcp")
    module, _, function = name.rpartition(".")
    (tmp_path / "dcp" / ".metadata").write_bytes(f"c{module}\n{function}\n.".encode())
    code, _, err = convert(tmp_path / "dcp", tmp_path / "run")
    assert (code, f"there is a {name} in it" in err) == (2, True)


@OWN_WARNINGS
def test_plain_values_of_a_distributed_checkpoint_are_not_unpickled_either(convert, tmp_path):
    """A value that is no tensor is a pickle in a data file, which torch itself loads with weights_only=False."""
    dcp.save({"model": {"w": torch.ones(2)}, "x": Trap(tmp_path / "ran")}, checkpoint_id=tmp_path / "dcp")
    code, _, err = convert(tmp_path / "dcp", tmp_path / "run")
    assert (code, f"there is a {os.system.__module__}.system in it" in err) == (2, True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dcp"]


@OWN_WARNINGS
@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "sub/x", "..", "a\nb"], ids=ascii)
def test_metadata_leads_to_no_file_of_another_folder(convert, tmp_path, file):
    """Its data files lie beside it, or it is refused."""
    dcp.save({"w": torch.ones(2)}, checkpoint_id=tmp_path / "dcp")
    metadata = pickle.loads((tmp_path / "dcp" / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = file
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    code, _, err = convert(tmp_path / "dcp", tmp_path / "run")
    assert (code, "which is no file of the same folder" in err, "\n" in err.strip()) == (2, True, False)


@OWN_WARNINGS
@pytest.mark.parametrize("size", [[1 << 40], [2, -1], [1 << 70], "x", [1.5]], ids=str)
def test_metadata_asks_for_no_more_than_is_stored(convert, tmp_path, size):
    """An impossible or enormous shape is refused before anything is allocated."""
    dcp.save({"w": torch.ones(2)}, checkpoint_id=tmp_path / "dcp")
    metadata = pickle.loads((tmp_path / "dcp" / ".metadata").read_bytes())
    metadata.state_dict_metadata["w"].size = tuple(size)
    metadata.state_dict_metadata["w"].chunks[0].sizes = tuple(size)
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    code, _, err = convert(tmp_path / "dcp", tmp_path / "run")
    assert (code, "was not converted" in err) == (2, True)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"\x96" + (1 << 28).to_bytes(8, "little"), id="a length that is not there"),
        pytest.param(
            b"ctorch\nSize\nB" + (10 << 20).to_bytes(4, "little") + bytes(10 << 20) + b"\x85R.", id="no shape"
        ),
    ],
)
def test_metadata_takes_no_memory_for_what_it_only_says(convert, tmp_path, program):
    """It is refused before any is given."""
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(program)
    tracemalloc.start()
    code, _, err = convert(tmp_path / "dcp", tmp_path / "run")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (code, "it is not what torch writes" in err, peak < 64 << 20) == (2, True, True), peak


@OWN_WARNINGS
@pytest.mark.parametrize("where", ["place", "name", "file"])
def test_metadata_is_not_written_out_to_say_that_it_is_wrong(convert, tmp_path, where):
    """A list that is in it in a million places makes no error of a million words."""
    dcp.save({"w": torch.ones(2)}, checkpoint_id=tmp_path / "dcp")
    metadata = pickle.loads((tmp_path / "dcp" / ".metadata").read_bytes())
    nested = ()
    for _ in range(18):
        nested = (nested, nested)
    if where == "place":
        metadata.planner_data = {"w": ("w", nested)}
    elif where == "name":
        metadata.state_dict_metadata = {nested: metadata.state_dict_metadata["w"]}
    else:
        for info in metadata.storage_data.values():
            info.relative_path = nested
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    tracemalloc.start()
    code, _, err = convert(tmp_path / "dcp", tmp_path / "run")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (code, "a tuple" in err, peak < 1 << 20) == (2, True, True), peak


@OWN_WARNINGS
def test_a_value_of_a_distributed_checkpoint_may_not_be_in_a_million_places(convert, tmp_path):
    """As in a file of torch's."""
    nested = {}
    for _ in range(21):
        nested = {"a": nested, "b": nested}
    dcp.save({"model": {"w": torch.ones(2)}, "x": "y"}, checkpoint_id=tmp_path / "dcp")
    metadata = pickle.loads((tmp_path / "dcp" / ".metadata").read_bytes())
    info = next(info for index, info in metadata.storage_data.items() if index.fqn == "x")
    file, value = tmp_path / "dcp" / info.relative_path, io.BytesIO()
    torch.save(nested, value)
    info.offset, info.length = file.stat().st_size, len(value.getvalue())
    file.write_bytes(file.read_bytes() + value.getvalue())
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    code, _, err = convert(tmp_path / "dcp", tmp_path / "run")
    assert (code, "its plain data would take" in err) == (2, True)


@OWN_WARNINGS
def test_the_same_bytes_are_not_read_under_a_hundred_names(convert, tmp_path):
    """What all of them would take is compared with what is stored."""
    dcp.save({"model": {"w": torch.ones(1 << 18)}}, checkpoint_id=tmp_path / "dcp")
    metadata = pickle.loads((tmp_path / "dcp" / ".metadata").read_bytes())
    (described,), (index,) = metadata.state_dict_metadata.values(), metadata.storage_data
    names = [f"w{number}" for number in range(100)]
    metadata.state_dict_metadata = dict.fromkeys(names, described)
    metadata.planner_data = {name: ("model", name) for name in names}
    metadata.storage_data = {replace(index, fqn=name): metadata.storage_data[index] for name in names}
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    code, _, err = convert(tmp_path / "dcp", tmp_path / "run")
    assert (code, "all of it would take" in err) == (2, True)


@OWN_WARNINGS
def test_metadata_of_any_bytes_is_an_error_of_ours(convert, tmp_path):
    """Every prefix of the metadata, and every byte of it changed, converts or is refused; nothing else happens."""
    dcp.save({"w": torch.ones(2), "n": 3}, checkpoint_id=tmp_path / "dcp")
    file = tmp_path / "dcp" / ".metadata"
    whole = file.read_bytes()
    for place in range(0, len(whole), 23):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :]):
            file.write_bytes(damaged)
            code, _, err = convert(tmp_path / "dcp", tmp_path / f"run-{place}-{len(damaged)}")
            assert code == 0 or (code, "was not converted" in err) == (2, True), err


# ── Hugging Face ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_for_hugging_face_has_shards_and_an_index(convert, tmp_path):
    """The shards and the index hold every tensor once, bit for bit, with ties in the metadata; and come back in."""
    model = trained()[0]
    torch.save(OrderedDict(model.state_dict()), tmp_path / "in.pth")
    assert convert(tmp_path / "in.pth", tmp_path / "run")[0] == 0
    assert convert(tmp_path / "run", f"{tmp_path}/hf/", "--max-shard-size", "0.0001MB")[0] == 0
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    files = {Path(file).name for file in (tmp_path / "hf").glob("model-0000?-of-0000?.safetensors")}
    assert len(files) > 1
    assert set(index["weight_map"].values()) == files
    loaded = {}
    for file in files:
        loaded |= safetensors.torch.load_file(tmp_path / "hf" / file)
    assert loaded.keys() == index["weight_map"].keys() == model.state_dict().keys() - {"decoder.weight"}
    loaded["decoder.weight"] = loaded["embedding.weight"]
    assert bits(loaded) == bits(model.state_dict())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in loaded.values()) - 140
    assert convert(tmp_path / "hf", tmp_path / "back")[0] == 0
    assert bits(keepbest.open_run(tmp_path / "back").latest.load("model", "torch")) == bits(model.state_dict())


def test_what_a_folder_for_hugging_face_has_no_place_for_is_named(convert, tmp_path):
    """Plain values of the object are left out, and each is told."""
    held = {"w": torch.ones(2), "extra": {"lr": 0.1}, "more": {"b": torch.ones(3), "seen": (1, 2)}}
    torch.save(held, tmp_path / "in.pth")
    assert convert(tmp_path / "in.pth", tmp_path / "run")[0] == 0
    code, out, _ = convert(tmp_path / "run", f"{tmp_path}/hf/", "--json")
    told = json.loads(out)["left_out"]
    assert (code, told) == (0, [f"'{where}' holds no tensor and was left out." for where in ("extra", "more.seen")])
    assert told[0] in convert(tmp_path / "run", f"{tmp_path}/hf/", "--force")[1]


def test_what_is_not_plain_for_torch_is_named_with_what_to_do(convert, tmp_path):
    """The object is one's own, so nothing is said of strangers."""
    seen = {"seen": deque([1, 2], maxlen=5)}
    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), mode="sync", seen=seen) as ckpt:
        ckpt.save()
    code, _, err = convert(tmp_path / "run", tmp_path / "out.pth", "--name", "seen")
    assert (code, "it holds a collections.deque" in err, ".load('seen')" in err) == (2, True, True)
    assert "whoever made the file" not in err


def test_what_is_not_plain_for_torch_is_not_written(convert, tmp_path):
    """A .pth is only left where it can be loaded with weights_only=True."""

    class Odd:
        def state_dict(self):
            return {"seen": frozenset((1, 2)), "last": complex(1, 2)}

        def load_state_dict(self, state):
            """Take it."""

    with Checkpointer(str(tmp_path / "run"), CheckpointPolicy(), mode="sync", odd=Odd()) as ckpt:
        ckpt.save()
    code, _, err = convert(tmp_path / "run", tmp_path / "out.pth", "--name", "odd")
    assert (code, "was not converted" in err, (tmp_path / "out.pth").exists()) == (2, True, False)


def test_reading_does_not_leave_the_stand_ins_in_torch(tmp_path):
    """Whatever a pickle does to the classes that it is given, torch's own are as they were."""
    from torch.distributed.checkpoint import metadata

    from keepbest.adapters.torch import foreign_distributed
    from keepbest.errors import ForeignFileError

    before = dict(vars(metadata.Metadata))
    # Sets an attribute of the class itself, by the state that BUILD takes.
    evil = b"ctorch.distributed.checkpoint.metadata\nMetadata\n(N}Vhurt\nI1\nstb."
    (tmp_path / ".metadata").write_bytes(evil)
    with pytest.raises(ForeignFileError), foreign_distributed.read(tmp_path, "model"):
        pass
    assert dict(vars(metadata.Metadata)) == before
    assert io.BytesIO(evil).read(1) == b"c"
