"""Signatures: what a trusted key signed loads, and nothing else does, whoever can write to the run."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from contracts.faults import CountingBackend
from contracts.runs import SmallRun, record, same
from contracts.signers import Intruder, Signer, flipped, statement_of
from msgspec.structs import replace

import keepbest
from keepbest import Checkpointer, CheckpointPolicy, Trusted
from keepbest.errors import CheckpointNotFoundError, ConfigError, DamagedError, DamagedFileError, UntrustedError
from keepbest.storage.backend import open_backend
from keepbest.storage.keys import read_private, read_public
from keepbest.storage.layout import commit_key, data_prefix, is_signature
from keepbest.storage.listing import read_listing, write_index
from keepbest.storage.mirror import Copier
from keepbest.storage.run import Run
from keepbest.storage.run_writer import RunWriter


@pytest.fixture
def signer(tmp_path):
    """The holder of the key that is trusted here."""
    return Signer(tmp_path)


@pytest.fixture
def other(tmp_path):
    """The holder of another key."""
    return Signer(tmp_path, "other")


def two_objects(number):
    return {
        "model": record("model", {"w": np.full(64, number, np.float32)}),
        "ema": record("ema", {"w": np.full(64, number + 100, np.float32)}),
    }


def signed_run(url, signer, losses=(0.5, 0.4, 0.9)):
    """Write a run of several checkpoints, all signed; returns it."""
    run = SmallRun(open_backend(url))
    for number, loss in enumerate(losses, start=1):
        run.save(loss, objects=two_objects(number))
    for checkpoint in keepbest.open_run(url).checkpoints():
        checkpoint.sign(signer.private)
    return run


@pytest.fixture
def signed(memory_url, signer):
    """The URL of a run in memory, all of it signed."""
    signed_run(memory_url, signer)
    return memory_url


@pytest.fixture
def intruder(signed):
    """One who can write to it."""
    return Intruder(open_backend(signed))


def use(checkpoint):
    """Read all of a checkpoint."""
    checkpoint.manifest()
    return {name: checkpoint.load(name) for name in checkpoint.objects()}


def refused(url, signer, which=3):
    """Check that nobody who trusts the signer reads a checkpoint, while others do not notice; returns the error."""
    use(keepbest.open_run(url).get(which))
    report = keepbest.open_run(url, trusted=signer.public).verify()
    assert [problem.untrusted for problem in report.problems] == [True] * len(report.problems)
    assert not report.ok
    with pytest.raises(UntrustedError) as caught:
        use(keepbest.open_run(url, trusted=signer.public).get(which))
    return caught.value


# ── what is signed loads ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_signed_loads(run_url, signer, tmp_path):
    """On every backend a signed checkpoint is read whole, in part, verified and exported by who trusts the key."""
    signed_run(run_url, signer)
    run = keepbest.open_run(run_url, trusted=signer.public)
    assert [found.sequence for found in run.checkpoints()] == [1, 2, 3]
    assert (run.best.sequence, run.latest.sequence, run.get(1).sequence) == (2, 3, 1)
    expected = {"w": np.full(64, 2, np.float32)}
    assert same(run.best.load("model"), expected)
    assert same(run.best.load("model", only="w"), expected)
    assert run.verify().ok
    files = run.best.export(tmp_path / "out", with_records=True)
    assert sum(is_signature(file.path.rpartition("/")[2]) for file in files) == 1


def test_what_is_not_signed_is_refused(run_url, signer, other):
    """On every backend: without a signature, or with another key's, there is one error, and it names the key."""
    run = SmallRun(open_backend(run_url))
    run.save(0.5)
    keepbest.open_run(run_url).latest.sign(other.private)
    trusted = keepbest.open_run(run_url, trusted=signer.public)
    for look in (lambda: trusted.latest, lambda: trusted.best, lambda: trusted.get(1), lambda: trusted.get("best")):
        with pytest.raises(UntrustedError, match="not signed by this key") as caught:
            look()
        assert caught.value.key == str(read_public(signer.public))
    with pytest.warns(UserWarning, match="not signed by this key"):
        assert trusted.checkpoints() == []
    assert [problem.untrusted for problem in trusted.verify().problems] == [True]
    assert keepbest.open_run(run_url, trusted=other.public).verify().ok


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "state.json"])
@pytest.mark.parametrize("at", [9, -10], ids=["head", "tail"])
def test_a_byte_that_differs_is_refused_on_every_backend(run_url, signer, file, at):
    """Whichever file was altered, what was read of it is refused, and the file is named."""
    signed_run(run_url, signer, losses=(0.5,))
    intruder = Intruder(open_backend(run_url))
    intruder.set_bytes(1, file, flipped(intruder.read(1, file), at))
    with pytest.raises(UntrustedError, match=file):
        use(keepbest.open_run(run_url, trusted=signer.public).latest)
    report = keepbest.open_run(run_url, trusted=signer.public).verify()
    assert [problem.file for problem in report.problems] == [file]


def test_a_part_is_checked_without_the_rest(signed, signer, intruder):
    """`only=` checks the tensors it reads, by their own digests: reading few stays cheap."""
    backend = CountingBackend(open_backend(signed))
    manifest = Run(backend, Trusted(signer.public)).latest.manifest()
    tensor = manifest.artifacts["model.safetensors"].tensors["w"]
    assert tensor.digest == f"sha256:{hashlib.sha256(np.full(64, 3, np.float32).tobytes()).hexdigest()}"
    intruder.set_bytes(3, "ema.safetensors", flipped(intruder.read(3, "ema.safetensors")))
    latest = keepbest.open_run(signed, trusted=signer.public).latest
    assert latest.load("model", only="w")["w"][0] == 3
    with pytest.raises(UntrustedError, match="the tensor 'w'"):
        latest.load("ema", only="w")


def test_what_was_checked_stays_as_it_was(tmp_path, signer):
    """Files on a disk are not mapped for who trusts a key: a later change of the file reaches no array."""
    signed_run(str(tmp_path / "run"), signer, losses=(0.5,))
    found = keepbest.open_run(tmp_path / "run", trusted=signer.public).latest
    weights = found.load("model")["w"]
    (path,) = (tmp_path / "run").glob("checkpoints/*/model.safetensors")
    path.write_bytes(bytes(path.stat().st_size))
    assert (weights == 1).all()


# ── one who can write to the run ──────────────────────────────────────────────────────────────────────────────────


def test_a_replaced_file_is_refused(signed, signer, intruder):
    """A file and a manifest that agree with one another are worth nothing without the signature."""
    intruder.set_file(3, "model.safetensors", flipped(intruder.read(3, "model.safetensors")))
    assert "manifest that was signed" in str(refused(signed, signer))


def test_a_changed_state_is_refused(signed, signer, intruder):
    """What is no tensor is signed as well."""
    state = json.loads(intruder.read(3, "state.json")) | {"training": {"number": 4711}}
    intruder.set_file(3, "state.json", json.dumps(state).encode())
    refused(signed, signer)


def test_swapped_files_are_refused(signed, signer, intruder):
    """Two files of one checkpoint, each signed, cannot change places."""
    model, ema = (intruder.read(3, f"{name}.safetensors") for name in ("model", "ema"))
    intruder.set_file(3, "model.safetensors", ema)
    intruder.set_file(3, "ema.safetensors", model)
    assert keepbest.open_run(signed).latest.load("model")["w"][0] == 103
    refused(signed, signer)


@pytest.mark.parametrize(
    "changes",
    [{"metrics": {"val_loss": 0.0}}, {"complete": False}, {"step": 7}, {"write_id": "0" * 32}, {"host": "x"}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_changed_manifest_is_refused(signed, signer, intruder, changes):
    """No field of a manifest can be changed."""
    intruder.set_manifest(3, **changes)
    refused(signed, signer)


def test_a_signature_of_another_checkpoint_is_refused(signed, signer, intruder):
    """A signature speaks of the checkpoint that it was made for, wherever it is copied to."""
    key_id = read_public(signer.public).id
    document = intruder.backend.read(intruder.signature_key(1, key_id))
    intruder.backend.replace(intruder.signature_key(3, key_id), document)
    assert "that of checkpoint epoch-001" in str(refused(signed, signer))


def test_an_older_checkpoint_under_a_new_number_is_refused(signed, signer, intruder):
    """A signed checkpoint cannot be presented as a later one: its number is signed."""
    intruder.set_manifest(1, sequence=4)
    refused(signed, signer, 4)


def test_a_newer_one_can_be_taken_away(signed, signer, intruder):
    """Who deletes the newest shows an older one, as it was signed: SECURITY.md says that no signature prevents it."""
    intruder.backend.delete([commit_key(3)])
    assert keepbest.open_run(signed, trusted=signer.public).latest.sequence == 2


def test_a_checkpoint_of_another_run_is_refused(signer, tmp_path):
    """A whole checkpoint that the same key signed in another run is not one of this run, unless one says so."""
    signed_run(str(tmp_path / "seven"), signer)
    shutil.copytree(tmp_path / "seven", tmp_path / "eight")
    error = refused(str(tmp_path / "eight"), signer)
    assert "run='seven'" in str(error)
    copy = keepbest.open_run(tmp_path / "eight", trusted=Trusted(signer.public, run="seven"))
    assert copy.verify().ok
    shutil.copytree(tmp_path / "seven", tmp_path / "backup" / "seven")
    assert keepbest.open_run(tmp_path / "backup" / "seven", trusted=signer.public).verify().ok


def test_hints_cannot_choose_the_best(signed, signer, intruder):
    """An index is not signed, and who trusts a key does not go by it: what is best is read from the manifests."""
    listing = read_listing(intruder.backend)
    forged = []
    for found in listing.checkpoints:
        score = replace(found.scores[0], value=1 / found.sequence)
        forged.append(replace(found, scores=(score,)))
    write_index(intruder.backend, replace(listing, checkpoints=tuple(forged)))
    assert keepbest.open_run(signed).best.sequence == 3
    assert keepbest.open_run(signed, trusted=signer.public).best.sequence == 2


def test_the_journal_is_not_signed(signed, signer, intruder):
    """The history may be anybody's: SECURITY.md says so, and no checkpoint is refused for it."""
    row = b'{"branch":"b","row":0,"kind":"epoch","epoch":0,"step":0,"time":0,"metrics":{"loss":0.0}}\n'
    intruder.backend.append("metrics.jsonl").write(row)
    assert keepbest.open_run(signed, trusted=signer.public).verify().ok


def test_every_byte_of_a_signature_counts(signed, signer, intruder):
    """A signature with any one bit flipped is none."""
    place = intruder.signature_key(1, read_public(signer.public).id)
    document, trusted = intruder.backend.read(place), Trusted(signer.public)
    manifest = commit_key(1)
    for at in range(len(document)):
        intruder.backend.replace(place, flipped(document, at))
        with pytest.raises(UntrustedError):
            Run(intruder.backend, trusted).get(1)
    for end in range(len(document)):
        intruder.backend.replace(place, document[:end])
        with pytest.raises(UntrustedError):
            Run(intruder.backend, trusted).get(1)
    intruder.backend.replace(place, document)
    assert Run(intruder.backend, trusted).get(1).sequence == 1
    assert intruder.backend.read(manifest)


def test_a_statement_by_another_key_is_refused(signed, signer, other, intruder):
    """Whatever a statement says of whose it is, and whatever its file is called, the signature decides."""
    place = intruder.signature_key(3, read_public(signer.public).id)
    statement = intruder.backend.read(place)[164:-2]
    assert json.loads(statement)["key"] == str(read_public(signer.public))
    intruder.backend.replace(place, signer.sign(statement))
    assert keepbest.open_run(signed, trusted=signer.public).verify().ok
    intruder.backend.replace(place, other.sign(statement))
    assert "not this key's signature" in str(refused(signed, signer))


@pytest.mark.parametrize(
    "change",
    [
        lambda statement: {"note": 1} | statement,
        lambda statement: statement | {"format": "keepbest-signature/2"},
        lambda statement: {**statement, "files": {}},
        lambda statement: {**statement, "files": statement["files"] | {"state.json": {"digest": "xxh3-128:0"}}},
        lambda statement: {name: statement[name] for name in statement if name != "run"},
        lambda statement: {
            **statement,
            "files": statement["files"] | {"model.safetensors": statement["files"]["state.json"]},
        },
    ],
    ids=["other beginning", "other format", "no files", "no cryptography", "no run", "no tensors"],
)
def test_what_the_key_signed_for_something_else_is_refused(signed, signer, intruder, change):
    """Only a statement of our format, of these files, by a digest that nobody forges, stands for a checkpoint."""
    place = intruder.signature_key(3, read_public(signer.public).id)
    statement = change(statement_of(intruder.backend.read(place)))
    intruder.backend.replace(place, signer.sign(json.dumps(statement, separators=(",", ":")).encode()))
    refused(signed, signer)


# ── signing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_keys_may_sign(signed, signer, other):
    """A second signature changes nothing of the first, and signing twice changes nothing at all."""
    latest = keepbest.open_run(signed).latest
    first, second, again = (latest.sign(key) for key in (signer.private, other.private, other.private))
    assert (first.new, second.new, again.new) == (False, True, False)
    assert second.file == again.file != first.file
    for one in (signer, other):
        assert keepbest.open_run(signed, trusted=one.public).latest.sequence == 3


def test_a_damaged_checkpoint_is_not_signed(run_url, signer):
    """Signing reads everything and compares it first."""
    run = SmallRun(open_backend(run_url))
    run.save(objects=two_objects(1))
    intruder = Intruder(run.backend)
    intruder.set_bytes(1, "ema.safetensors", flipped(intruder.read(1, "ema.safetensors")))
    with pytest.raises(DamagedFileError, match="ema"):
        keepbest.open_run(run_url).latest.sign(signer.private)
    intruder.set_bytes(1, "ema.safetensors", b"short")
    with pytest.raises(DamagedFileError, match="5 bytes"):
        keepbest.open_run(run_url).latest.sign(signer.private)
    assert not [entry for entry in run.backend.list("") if "signature-" in entry.key]


def test_what_changed_since_is_not_signed_over(signed, signer, intruder):
    """A key that signed other bytes does not sign the new ones by the way: somebody must look, and delete."""
    intruder.set_file(3, "model.safetensors", flipped(intruder.read(3, "model.safetensors")))
    with pytest.raises(UntrustedError):
        keepbest.open_run(signed).latest.sign(signer.private)
    intruder.backend.delete([intruder.signature_key(3, read_public(signer.public).id)])
    assert keepbest.open_run(signed).latest.sign(signer.private).new


def test_a_run_may_be_signed_under_a_name(memory_url, signer):
    """The signer may call the run what the readers know it by."""
    SmallRun(open_backend(memory_url)).save()
    keepbest.open_run(memory_url).latest.sign(signer.private, run="digits")
    assert keepbest.open_run(memory_url, trusted=Trusted(signer.public, run="digits")).verify().ok
    with pytest.raises(UntrustedError, match="the run 'digits'"):
        keepbest.open_run(memory_url, trusted=signer.public).latest  # noqa: B018 - the access is the test


def test_a_checkpoint_retired_while_it_was_signed_leaves_nothing(memory_url, signer):
    """Signing what is being retired is an error, and no orphan."""
    run = SmallRun(open_backend(memory_url))
    facts = run.save()

    class Retiring(CountingBackend):
        def _call(self, name, *args, **kwargs):
            if name == "put_if_absent":
                run.writer.retire([1])
            return super()._call(name, *args, **kwargs)

    backend = Retiring(open_backend(memory_url))
    with pytest.raises(CheckpointNotFoundError):
        keepbest.Checkpoint(backend, facts).sign(signer.private)
    assert backend.list("checkpoints/") == []
    with pytest.raises(CheckpointNotFoundError):
        keepbest.Checkpoint(backend, facts).sign(signer.private)


# ── signatures go where their checkpoints go ──────────────────────────────────────────────────────────────────────


def test_a_signature_goes_with_its_checkpoint(run_url, signer):
    """Retiring deletes it, garbage collection does not touch it, on every backend."""
    run = signed_run(run_url, signer)
    assert Run(run.backend).gc(grace=0).removed == ()
    assert keepbest.open_run(run_url, trusted=signer.public).verify().checked == 3
    first, second, _ = (checkpoint.name for checkpoint in run.writer.checkpoints)
    RunWriter(run.backend).retire([1])
    assert run.backend.list(data_prefix(first)) == []
    run.writer.retire([2])  # it knows what it wrote, and in a bucket does not look what was signed since
    assert run.backend.list(data_prefix(second)) == [] or not run.backend.capabilities.links
    Run(run.backend).gc(grace=0)
    assert run.backend.list(data_prefix(second)) == []
    assert keepbest.open_run(run_url, trusted=signer.public).verify().checked == 1


def test_what_is_retired_meanwhile_is_gone_and_not_untrusted(memory_url, signer):
    """A look at a run that is still training raises no false alarm."""
    run = signed_run(memory_url, signer)

    class Retiring(CountingBackend):
        def _call(self, name, *args, **kwargs):
            if name == "read" and "signature-" in args[0]:
                RunWriter(run.backend).retire([1])
            return super()._call(name, *args, **kwargs)

    trusted = Run(Retiring(open_backend(memory_url)), Trusted(signer.public))
    listing = trusted.listing()
    assert [found.sequence for found in listing.checkpoints] == [2, 3]
    assert listing.damaged == ()


def test_garbage_collection_takes_an_orphans_signature(signed, intruder):
    """Data that no commit names goes with what was signed of it."""
    intruder.backend.delete([commit_key(2)])
    (orphan,) = Run(intruder.backend).gc(grace=0).removed
    assert any("signature-" in file for file in orphan.files)
    assert intruder.backend.list(data_prefix(orphan.name)) == []


def test_a_mirror_has_the_signatures(signed, signer, tmp_path):
    """A copied checkpoint is as signed as the one that it is a copy of."""
    name = signed.rpartition("/")[2]
    target = RunWriter(open_backend(tmp_path / name))
    copier = Copier(open_backend(signed), target)
    for checkpoint in keepbest.open_run(signed).checkpoints():
        copier.copy(checkpoint.info)
    copier.close()
    assert keepbest.open_run(tmp_path / name, trusted=signer.public).verify().ok


def test_listing_knows_nothing_of_signatures(signed):
    """A run that is signed costs no more to list than one that is not."""
    backend = CountingBackend(open_backend(signed))
    Run(backend).checkpoints()
    assert dict(backend.calls) == {"list": 1, "read": 3}
    assert all(key.startswith("commits/") for key in backend.keys)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_signature_is_verified_without_keepbest(signed, signer, tmp_path):
    """What is exported with its records is checked by openssl and sha256 alone, as docs/format.md says."""
    folder = tmp_path / "out"
    files = keepbest.open_run(signed).latest.export(folder, with_records=True)
    (path,) = (file.path for file in files if is_signature(file.path.rpartition("/")[2]))
    document = Path(path).read_bytes()
    (tmp_path / "statement").write_bytes(document[164:-2])
    (tmp_path / "signature").write_bytes(bytes.fromhex(document[22:150].decode()))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", signer.public, "-rawin"]
    command += ["-in", tmp_path / "statement", "-sigfile", tmp_path / "signature"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    statement = json.loads(document[164:-2])
    for file, stated in statement["files"].items():
        assert stated["digest"] == f"sha256:{hashlib.sha256((folder / file).read_bytes()).hexdigest()}"
    assert statement["manifest"] == f"sha256:{hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()}"


def test_no_altered_file_is_exported_or_published(tmp_path, signer):
    """Who trusts a key gets no file out of the run that the key did not sign."""
    signed_run(str(tmp_path / "run"), signer, losses=(0.5,))
    intruder = Intruder(open_backend(tmp_path / "run"))
    run = keepbest.open_run(tmp_path / "run", trusted=signer.public)
    latest = run.latest
    intruder.set_bytes(1, "model.safetensors", flipped(intruder.read(1, "model.safetensors")))
    with pytest.raises(UntrustedError):
        latest.export(tmp_path / "out.safetensors", objects="model")
    with pytest.raises(UntrustedError):
        run.publish(latest, "model.safetensors", str(tmp_path / "published.safetensors"))
    assert not list(tmp_path.glob("*.safetensors"))


# ── restoring into a training ─────────────────────────────────────────────────────────────────────────────────────


class Weights:
    """Some state, of a few tensors."""

    def __init__(self, value=0.0):
        self.values = {"w": np.full(1 << 15, value, np.float32)}

    def state_dict(self):
        return self.values

    def load_state_dict(self, state):
        self.values = state


@pytest.fixture
def trained(run_url, signer):
    """The URL of a run that a training left, its best one signed."""
    objects = {"model": Weights(), "ema": Weights()}
    with Checkpointer(run_url, CheckpointPolicy(monitor="val_loss", keep_best=2), **objects) as ckpt:
        for epoch in ckpt.epochs(3):
            for number, one in enumerate(objects.values()):
                one.values["w"][:] = 10 * epoch + number
            ckpt.log(val_loss=[0.5, 0.3, 0.9][epoch])
    keepbest.open_run(run_url).best.sign(signer.private)
    return run_url


def restore(url, signer, which):
    """Restore into fresh objects and return them; whatever is raised, they must be as they were."""
    objects = {"model": Weights(-1), "ema": Weights(-1)}
    ckpt = Checkpointer(url, CheckpointPolicy(monitor="val_loss"), **objects)
    try:
        ckpt.restore(which, trusted=signer.public)
    except DamagedError:
        assert all((one.values["w"] == -1).all() for one in objects.values())
        raise
    finally:
        ckpt.close(save=False)
    return [one.values["w"][0] for one in objects.values()]


def test_training_restores_what_is_signed(trained, signer):
    """A training takes its state from a signed checkpoint, and from no other: nothing is changed then."""
    with pytest.warns(UserWarning, match="not signed by the trusted key"):
        assert restore(trained, signer, "best") == [10, 11]
    with pytest.raises(UntrustedError, match="not signed"):
        restore(trained, signer, "latest")


@pytest.mark.parametrize("file", ["ema.safetensors", "state.json"])
def test_nothing_is_half_restored(trained, signer, file):
    """If the last thing that is read was altered, the first was not set either."""
    intruder = Intruder(open_backend(trained))
    best = keepbest.open_run(trained).best.sequence
    intruder.set_file(best, file, flipped(intruder.read(best, file), -20))
    with pytest.raises(UntrustedError):
        restore(trained, signer, "best")
    intruder.set_bytes(best, file, intruder.read(best, file)[:-1])
    with pytest.raises(DamagedError):
        restore(trained, signer, "best")


def test_what_comes_back_from_a_mirror_is_as_signed(tmp_path, signer):
    """When the disk is lost, a signed checkpoint of the mirror is restored with its signature, and only that."""
    first, mirror = tmp_path / "first" / "7", tmp_path / "mirror" / "7"
    policy, model = CheckpointPolicy(monitor="val_loss"), Weights()
    with Checkpointer(first, policy, mirror=mirror, model=model) as ckpt:
        for epoch in ckpt.epochs(2):
            model.values["w"][:] = epoch
            ckpt.log(val_loss=epoch + 1.0)
    keepbest.open_run(mirror).best.sign(signer.private)
    shutil.rmtree(first)
    model = Weights(-1)
    with Checkpointer(first, policy, mirror=mirror, model=model) as ckpt:
        ckpt.restore("best", trusted=signer.public)
        assert model.values["w"][0] == 0
        with pytest.raises(UntrustedError):
            ckpt.restore("latest", trusted=signer.public)
        assert model.values["w"][0] == 0
        ckpt.close(save=False)
    assert keepbest.open_run(first, trusted=signer.public).get(1).sequence == 1


def test_signing_is_logged_without_the_key(signed, other, caplog):
    """The log says what was signed by which public key."""
    with caplog.at_level(logging.INFO, logger="keepbest"):
        keepbest.open_run(signed).latest.sign(other.private)
    assert str(read_public(other.public)) in caplog.text
    secret = other.key.private_bytes_raw().hex()
    assert secret not in caplog.text + repr(read_private(other.private)) + repr(vars(read_private(other.private)))


def test_a_url_without_a_name_needs_one(signer):
    """A run at the root of a store is called by no last part of its URL."""
    with pytest.raises(ConfigError, match="run="):
        SmallRun(open_backend("memory://"))
        keepbest.storage.trust.run_name("memory://")
