"""Key files: the right kind is read, any other is an error that says which kind it is, and none is ever shown."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
import warnings

import pytest
from contracts.signers import Signer, write_private, write_public
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from keepbest.errors import ConfigError, KeyFileError
from keepbest.storage.keys import read_private, read_public


@pytest.fixture
def signer(tmp_path):
    """A pair of keys."""
    return Signer(tmp_path)


def test_keys_are_read_from_files_and_from_their_content(signer):
    """A key that comes from a vault, say, needs no file."""
    content = signer.private.read_bytes()
    for source in (signer.private, str(signer.private), content, content.decode()):
        assert read_private(source).public == read_public(signer.public)
    assert read_public(signer.public.read_text()) == read_public(signer.public)


def test_keys_are_those_of_openssl(tmp_path):
    """What the documented commands make is what is read; the two halves belong together."""
    private, public = tmp_path / "signing.pem", tmp_path / "signing.pub.pem"
    try:
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    private.chmod(0o600)
    key = read_private(private)
    assert key.public == read_public(public)
    assert key.public.verifies(key.sign(b"words"), b"words")
    assert not key.public.verifies(key.sign(b"words"), b"other words")
    assert len(key.public.id) == 32


def other_keys(folder):
    """Return name → a file that is no Ed25519 key of the kind it looks like."""
    made = {"rsa": rsa.generate_private_key(65537, 1024 * 2), "ec": ec.generate_private_key(ec.SECP256R1())}
    for name, key in made.items():
        write_private(folder / f"{name}.pem", key)
        write_public(folder / f"{name}.pub.pem", key)
    return folder


def test_a_wrong_key_file_is_named(tmp_path, signer):
    """Each mistake has its sentence: another algorithm, the other half, no key, cut short, encrypted, missing."""
    other_keys(tmp_path)
    (tmp_path / "words").write_text("no key at all")
    (tmp_path / "words").chmod(0o600)
    (tmp_path / "large").write_bytes(bytes(100_000))
    (tmp_path / "large").chmod(0o600)
    for half in ("private", "public"):
        content = getattr(signer, half).read_bytes()
        (tmp_path / f"short-{half}").write_bytes(content[: len(content) // 2])
        (tmp_path / f"short-{half}").chmod(0o600)
    write_private(tmp_path / "locked", signer.key, serialization.BestAvailableEncryption(b"passphrase"))
    for read, name, problem in [
        (read_public, "rsa.pub.pem", "no Ed25519 key"),
        (read_public, "ec.pub.pem", "no Ed25519 key"),
        (read_private, "rsa.pem", "no Ed25519 key"),
        (read_private, "ec.pem", "no Ed25519 key"),
        (read_public, "signing.pem", "is a private key"),
        (read_private, "signing.pub.pem", "is a public key"),
        (read_public, "words", "no public key in PEM"),
        (read_private, "words", "no private key in PEM"),
        (read_public, "short-public", "no public key in PEM"),
        (read_private, "short-private", "no private key in PEM"),
        (read_private, "locked", "is encrypted"),
        (read_public, "large", "65536 bytes"),
        (read_private, "missing", "cannot be read"),
        (read_public, ".", "cannot be read"),
        (read_public, "a\0b", "cannot be read"),
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if name.endswith(".pub.pem") else "error", UserWarning)
            with pytest.raises(KeyFileError, match=problem) as caught:
                read(tmp_path / name)
        assert isinstance(caught.value, ConfigError)
        assert caught.value.location == str(tmp_path / name)
        assert "openssl genpkey" in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_private_key_that_others_can_read_is_warned_about(signer, mode):
    """The warning names the file, what to do, and the line that gave the key."""
    signer.private.chmod(mode)
    with pytest.warns(UserWarning, match=rf"{mode:03o}.*chmod 600") as caught:
        read_private(signer.private)
    assert caught[0].filename == __file__
    signer.public.chmod(mode)
    read_public(signer.public)


def test_no_private_key_is_ever_shown(tmp_path, signer):
    """Given where a path or a public key is wanted, cut short or whole, it is in no error and in no traceback."""
    content = signer.private.read_text()
    body = content.splitlines()[1]
    for read, source in [
        (read_public, content),
        (read_public, content.encode()),
        (read_private, content[:60]),
        (read_private, content.replace("PRIVATE", "PUBLIC")),
        (read_public, "\n" + content),
    ]:
        with pytest.raises(KeyFileError) as caught:
            read(source)
        text = "".join(traceback.format_exception(caught.value))
        assert body[:20] not in text
        assert body[-20:] not in text


def test_without_cryptography_the_error_says_what_to_install(signer):
    """Who has not installed the extra is told how to; everything else works without."""
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import keepbest\n"
        "from keepbest.errors import ConfigError\n"
        "try: keepbest.Trusted(sys.argv[1])\n"
        "except ConfigError as error: print(error)"
    )
    command = [sys.executable, "-c", script, os.fspath(signer.public)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'pip install "keepbest[sign]"' in printed
