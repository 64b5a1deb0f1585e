"""S3: the backend for `s3://`, at Amazon's and at whatever speaks its protocol; and who sends its requests.

s3fs takes the options and finds credentials, endpoint and region (arguments, environment, profile, instance role) and
renews what expires.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .bucket import BucketBackend, no_secrets_in
from .obstore_client import ObstoreClient, serves
from .s3_client import S3Client
from .s3_filesystem import filesystem
from .transfer import TransferSettings

_SCHEMES = ("s3", "s3a")


def open_backend(url: str, storage_options: Mapping[str, Any]) -> BucketBackend:
    """Return the backend for an `s3://` URL; nothing is contacted yet.

    Args:
        url: `s3://bucket/prefix`.
        storage_options: what `s3fs.S3FileSystem` takes (key, secret, token, profile, endpoint_url, anon, client_kwargs,
            config_kwargs, …), and the fields of `TransferSettings`.
    """
    settings, options = TransferSettings.split(storage_options)
    scheme, _, path = url.partition("://")
    bucket, _, prefix = path.partition("/")
    no_secrets_in(bucket, scheme)
    if not bucket:
        raise ConfigError(f"{url} names no bucket. Give s3://bucket/run.")
    clean = "/".join(part for part in (bucket, prefix.strip("/")) if part)
    scheme = _SCHEMES[0]  # one name for one place
    filesystem(options, settings)  # what is wrong with the options is said at once
    serves(settings.client, options)  # likewise

    def connect(bucket: str) -> S3Client:
        made = filesystem(options, settings)
        if serves(settings.client, options):
            return ObstoreClient(scheme, bucket, made, settings)
        return S3Client(scheme, bucket, made)

    return BucketBackend(f"{scheme}://{clean}", connect, settings, _SCHEMES, delta=True)
