"""`keepbest sign`, and `keepbest verify --key`."""

from __future__ import annotations

import fnmatch

import pytest
from contracts.signers import Signer, flipped


@pytest.fixture
def signer(tmp_path):
    """A pair of keys."""
    return Signer(tmp_path)


def test_sign_and_verify(keepbest, run, signer):
    """What is signed by one half of the keys is verified by the other, in every kind of place."""
    said = keepbest("sign", run, "--key", signer.private)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["signed"] * 3
    assert lines[-1].startswith(f"{run}: 3 checkpoints signed by ed25519:")
    said = keepbest("verify", run, "--key", signer.public)
    assert (said.code, said.err) == (0, "")
    assert "3 checkpoints whole and signed by ed25519:" in said.out.splitlines()[-1]


def test_signing_again_changes_nothing(keepbest, local_run, signer):
    """A second time is no error, and says that there was nothing to do."""
    keepbest("sign", local_run, "best", "--key", signer.private)
    said = keepbest("sign", local_run, "best", "--key", signer.private)
    assert (said.code, said.out.splitlines()[0][:14]) == (0, "signed already")


def test_what_is_not_signed_is_the_answer_no(keepbest, local_run, signer):
    """Exit code 1 tells that the key's holder did not sign all of it, and which."""
    keepbest("sign", local_run, "best", "--key", signer.private)
    said = keepbest("verify", local_run, "--key", signer.public)
    assert said.code == 1
    names = [line.split()[:2] for line in said.out.splitlines()]
    assert ["UNSIGNED", "DAMAGED"].count(names[1][0]) == 1
    assert "2 checkpoints not as signed, 1 checkpoint whole and signed by" in said.out
    assert keepbest("verify", local_run).code == 0
    assert keepbest("verify", local_run, "best", "--key", signer.public).code == 0
    assert keepbest("verify", local_run, "latest", "--key", signer.public).code == 1


def test_a_flipped_bit_is_the_answer_no(keepbest, run, place, signer):
    """What was altered after signing is named, down to the tensor."""
    keepbest("sign", run, "--key", signer.private)
    (name,) = fnmatch.filter(place.files(), "checkpoints/epoch-002*/model.safetensors")
    place.write(name, flipped(place.read(name)))
    said = keepbest("verify", run, "--key", signer.public)
    assert said.code == 1
    assert "the tensor 'weight' in " in said.out
    assert "not those that were signed" in said.out


def test_json_for_programs(keepbest, local_run, signer):
    """Programs get names, keys, and what of it is a matter of signatures."""
    said = keepbest("sign", local_run, "best", "--key", signer.private, "--json").json
    assert said["schema"] == "keepbest.sign/1"
    (signed,) = said["signed"]
    assert signed["new"] is True
    assert signed["file"].startswith(f"checkpoints/{signed['checkpoint']}/signature-")
    report = keepbest("verify", local_run, "--key", signer.public, "--json").json
    assert (report["ok"], report["key"]) == (False, said["key"])
    assert report["whole"] == [signed["checkpoint"]]
    assert [problem["untrusted"] for problem in report["problems"]] == [True, True]
    assert keepbest("verify", local_run, "--json").json["key"] is None


def test_a_copy_is_verified_under_the_name_it_was_signed_under(keepbest, local_build, local_run, signer):
    """--run says what the signer called the run."""
    keepbest("sign", local_run, "--key", signer.private, "--run", "digits")
    said = keepbest("verify", local_run, "--key", signer.public)
    assert said.code == 1
    assert "--run" in said.out
    assert keepbest("verify", local_run, "--key", signer.public, "--run", "digits").code == 0
    said = keepbest("verify", local_run, "--run", "digits")
    assert (said.code, "--key" in said.err) == (2, True)


def test_wrong_keys_are_errors(keepbest, local_run, signer):
    """The halves taken for one another, or an open private key, are said in a sentence."""
    said = keepbest("sign", local_run, "--key", signer.public)
    assert (said.code, "is a public key" in said.err) == (2, True)
    said = keepbest("verify", local_run, "--key", signer.private)
    assert (said.code, "is a private key" in said.err) == (2, True)
    signer.private.chmod(0o644)
    said = keepbest("sign", local_run, "--key", signer.private)
    assert (said.code, "chmod 600" in said.err) == (0, True)


def test_a_damaged_checkpoint_is_not_signed(keepbest, run, place, signer):
    """Signing what is damaged is an error that names it."""
    (name,) = fnmatch.filter(place.files(), "checkpoints/epoch-003*/state.json")
    place.write(name, b"{}")
    said = keepbest("sign", run, "latest", "--key", signer.private)
    assert (said.code, "state.json" in said.err) == (2, True)
    assert not fnmatch.filter(place.files(), "*signature-*")
