"""Remote schemes: which filesystem of fsspec serves a URL, and what the URL says to it."""

from __future__ import annotations

import re
from typing import Any

from ..errors import ConfigError, did_you_mean
from .remote_errors import without_password

_WRAPPERS = {
    "async_wrapper", "asyncwrapper", "blockcache", "cached", "data", "dir", "filecache", "generic", "libarchive",
    "reference", "simplecache", "tar", "zip",
}  # fmt: skip
"""What fsspec offers on top of a place, and is none."""
_CHAIN = re.compile(r"[\w+.-]+(://[^:]*)?::")


def filesystem_class(url: str) -> Any:
    """Return the class of the filesystem that serves a URL.

    Raises:
        ConfigError: fsspec does not know the scheme, its package is not installed, or it is no place by itself.
    """
    import fsspec  # noqa: PLC0415 - only where it is needed: other backends start faster without

    scheme, shown = scheme_of(url), without_password(url)
    if _CHAIN.match(scheme) or (scheme in _WRAPPERS and "::" in url):
        raise ConfigError(f"{shown} is a chain of filesystems. Give the URL of the last one alone.")
    if scheme in _WRAPPERS:
        raise ConfigError(f"{shown}: {scheme}:// is no place to store by itself. Give a folder, or a bucket's URL.")
    known = sorted({*fsspec.available_protocols(), *fsspec.registry} - _WRAPPERS)
    if scheme not in known:
        raise ConfigError(
            f"no backend serves {scheme}:// ({shown}).{did_you_mean(scheme.lower(), known)} A run is in a local "
            f"folder, or behind one of these: {', '.join(known)}."
        )
    try:
        return fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        needs = str(error) if error.args and error.args[0] else str(error.__cause__)
        raise ConfigError(f"{scheme}:// needs a package that is not installed: {needs.rstrip('.')}.") from error


def scheme_of(url: str) -> str:
    """Return what stands before "://"."""
    return url.partition("://")[0]


def schemes(kind: Any, url: str) -> set[str]:
    """Return the schemes that mean the same as that of `url`."""
    protocols = kind.protocol
    return {scheme_of(url), *([protocols] if isinstance(protocols, str) else protocols)}


def take_apart(kind: Any, url: str) -> tuple[dict[str, Any], str]:
    """Return the options that a URL names, and the path without a slash at its end.

    Raises:
        ConfigError: there is a "?" in it that the filesystem takes for the end of the path, or a port that is none.
    """
    try:
        named = dict(kind._get_kwargs_from_urls(url))  # noqa: SLF001 - fsspec's own way to take a URL apart
    except ValueError:  # its words may hold a part of the password
        raise ConfigError(
            f"the URL behind {scheme_of(url)}:// has a port that is no number. If that is a password, write its '/' as "
            "%2F, or give it in storage_options."
        ) from None
    named.pop("url_fragment", None)  # the path holds it
    path: str = kind._strip_protocol(url)  # noqa: SLF001
    if "url_query" in named or ("://" in path and "?" in path):
        raise ConfigError(
            f"{without_password(url).partition('?')[0]} has a '?' behind it. Give what stands there in "
            "storage_options, and a URL without."
        )
    return named, path.rstrip("/")


def tidy(url: str) -> str:
    """Return a URL as it may be shown, without a slash at its end."""
    scheme, found, rest = without_password(url).partition("://")
    return f"{scheme}{found}{rest.rstrip('/')}"
