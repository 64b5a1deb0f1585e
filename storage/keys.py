"""Keys: the Ed25519 keys that checkpoints are signed with, read from PEM files.

The arithmetic is that of the package `cryptography`, which is imported when the first key is read.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ..errors import ConfigError, KeyFileError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KeySource = str | os.PathLike[str] | bytes
"""The path of a PEM file, or the content of one."""

PREFIX = "ed25519:"
"""What keys and signatures start with when they are written down."""

_BEGIN = "-----BEGIN"
_MOST = 1 << 16
"""Bytes; a file that is longer is no key."""
_OTHERS = 0o077


class PublicKey(Struct, frozen=True):
    """What a signature is checked with."""

    raw: bytes
    """32 bytes."""

    @property
    def id(self) -> str:
        """32 hex digits that tell it from others, in the names of files."""
        return hashlib.sha256(self.raw).hexdigest()[:32]

    def __str__(self) -> str:
        return PREFIX + self.raw.hex()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Say whether `signature` is this key's, of exactly this message."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see the top
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):  # ValueError: the bytes are no point of the curve
            return False
        return True


class PrivateKey:
    """What a checkpoint is signed with. It is never shown."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<PrivateKey of {self.public}>"

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self._key.sign(message)


def read_public(source: KeySource) -> PublicKey:
    """Return the public key in a PEM file (SubjectPublicKeyInfo).

    Raises:
        KeyFileError: it is missing, or holds no such key.
        ConfigError: the package `cryptography` is not installed.
    """
    serialization, ed25519, unsupported = _cryptography()
    pem, where = _pem(source)
    if b"PRIVATE KEY" in pem:
        raise KeyFileError(where, "is a private key, and a public one is wanted here")
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, unsupported) as error:
        raise KeyFileError(where, "is no public key in PEM (SubjectPublicKeyInfo)") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise KeyFileError(where, f"is no Ed25519 key ({type(key).__name__})")
    return PublicKey(key.public_bytes_raw())


def read_private(source: KeySource | PrivateKey, *, stacklevel: int = 2) -> PrivateKey:
    """Return the private key in a PEM file (PKCS8, not encrypted); warns if others may read the file.

    Raises:
        KeyFileError: it is missing, encrypted, or holds no such key.
        ConfigError: the package `cryptography` is not installed.
    """
    if isinstance(source, PrivateKey):
        return source
    serialization, ed25519, unsupported = _cryptography()
    pem, where = _pem(source, private=True, stacklevel=stacklevel + 1)
    if b"PUBLIC KEY" in pem:
        raise KeyFileError(where, "is a public key, and signing takes the private one")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise KeyFileError(where, "is encrypted, and keepbest asks for no passphrase; decrypt it") from error
    except (ValueError, unsupported) as error:
        raise KeyFileError(where, "is no private key in PEM (PKCS8)") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeyFileError(where, f"is no Ed25519 key ({type(key).__name__})")
    return PrivateKey(key)


def _cryptography() -> tuple[Any, Any, type[Exception]]:
    try:
        from cryptography import exceptions  # noqa: PLC0415 - see the top
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'signatures need {error.name}, which is not installed. Install it with: pip install "keepbest[sign]"'
        ) from error
    return serialization, ed25519, exceptions.UnsupportedAlgorithm


def _pem(source: KeySource, *, private: bool = False, stacklevel: int = 2) -> tuple[bytes, str]:
    """Return the content of a PEM file, and what it is called; content that was given itself is never shown."""
    if isinstance(source, bytes):
        return source, "the key that was given"
    text = os.fspath(source)
    if text.lstrip().startswith(_BEGIN):
        return text.encode(), "the key that was given"
    path = Path(text).expanduser()
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MOST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise KeyFileError(str(path), f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if private and mode & _OTHERS:
        warnings.warn(
            f"others can read the private key {path} (its permissions are {mode & 0o777:03o}), and sign in its "
            f"holder's name. Make it private: chmod 600 {path}",
            stacklevel=stacklevel,
        )
    if len(content) > _MOST:
        raise KeyFileError(str(path), f"has more than {_MOST} bytes, and is no key")
    return content, str(path)
