"""S3 errors: what botocore and aiohttp raise, told in our words; and whether to try again.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import (
    BucketNotFoundError,
    ConditionalWriteError,
    ConfigError,
    CredentialsError,
    KeepbestError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageFullError,
    StoragePermissionError,
    UnexpectedAnswerError,
    UnreachableError,
    WrongRegionError,
)
from .client import TransientError
from .remote_errors import text_of, unresolved
from .sockets import causes

_NEEDS = {
    "put_object": ("write", "s3:PutObject"),
    "create_multipart_upload": ("write", "s3:PutObject"),
    "upload_part": ("write", "s3:PutObject"),
    "complete_multipart_upload": ("write", "s3:PutObject"),
    "abort_multipart_upload": ("delete an unfinished upload", "s3:AbortMultipartUpload"),
    "list_multipart_uploads": ("list unfinished uploads", "s3:ListBucketMultipartUploads"),
    "get_object": ("read", "s3:GetObject"),
    "head_object": ("read", "s3:GetObject (and s3:ListBucket, to tell what is absent)"),
    "list_objects_v2": ("list", "s3:ListBucket"),
    "delete_object": ("delete", "s3:DeleteObject"),
    "delete_objects": ("delete", "s3:DeleteObject"),
    "copy_object": ("copy", "s3:GetObject of the source, or s3:PutObject of the target"),
    "upload_part_copy": ("copy", "s3:GetObject of the source, or s3:PutObject of the target"),
}
_ABSENT = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_REFUSED = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "InvalidSecurity",
    "UnrecognizedClientException", "MissingSecurityHeader", "AuthFailure",
}  # fmt: skip
_REGION = {"PermanentRedirect", "301", "IllegalLocationConstraintException", "AuthorizationHeaderMalformed"}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "507"}
_PASSING = {
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestTimeTooSkewed", "Throttling",
    "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "OperationAborted", "ConditionalRequestConflict",
    "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody", "InvalidDigest",
}  # fmt: skip
"""Passing states, and what says that bytes were altered or lost on the way."""
_PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}


def translate(
    error: BaseException | Mapping[str, Any], method: str, location: str, bucket: str, hide: Callable[[str], str]
) -> KeepbestError | TransientError:
    """Return our error for one of botocore's (or a dict with "Code" and "Message").

    Args:
        error: what was raised, or what the answer reports of one object.
        method: of the boto3 client.
        location: URL of the object.
        bucket: its bucket.
        hide: takes what is secret out of a text.
    """
    if isinstance(error, (KeepbestError, TransientError)):
        return error
    if isinstance(error, Mapping):
        return _answered(error, error.get("ResponseMetadata", {}), method, location, bucket, hide)
    answer = getattr(error, "response", None)
    if isinstance(answer, Mapping) and "Error" in answer:
        return _answered(answer["Error"], answer.get("ResponseMetadata", {}), method, location, bucket, hide)
    return _unanswered(error, location, hide)


def _answered(  # noqa: PLR0911, PLR0913, PLR0917, C901, PLR0912 - a table, written as one
    found: Mapping[str, Any],
    facts: Mapping[str, Any],
    method: str,
    location: str,
    bucket: str,
    hide: Callable[[str], str],
) -> KeepbestError | TransientError:
    code = str(found.get("Code", ""))
    status = facts.get("HTTPStatusCode", 0)
    headers = facts.get("HTTPHeaders", {})
    said = hide(str(found.get("Message", ""))).strip().rstrip(".") or code
    if "html" in headers.get("content-type", ""):
        unexpected = UnexpectedAnswerError(location, f"a web page (status {status})")
        return TransientError(unexpected) if status in _PASSING_STATUS else unexpected
    if code == "NoSuchBucket":
        return BucketNotFoundError(location, bucket)
    if code in _ABSENT:
        return ObjectNotFoundError(location)
    if code in {"PreconditionFailed", "412"}:
        return ObjectExistsError(location)
    if code in _EXPIRED:
        return CredentialsError(location, f"the credentials have expired ({said}).")
    if code in _REGION or status == 301:  # noqa: PLR2004 - moved
        region = found.get("Region") or headers.get("x-amz-bucket-region")
        if region or code != "AuthorizationHeaderMalformed":
            return WrongRegionError(location, region)
    if code in _REFUSED or code == "AuthorizationHeaderMalformed" or status == 401:  # noqa: PLR2004
        return CredentialsError(location, f"the store does not accept the credentials ({said}).")
    if code in {"AccessDenied", "AllAccessDisabled", "403", "Forbidden"}:
        action, needs = _NEEDS.get(method, (method, None))
        return StoragePermissionError(location, action, needs=needs)
    if code in {"NotImplemented", "501"} and method == "put_object":
        return ConditionalWriteError(location, "'conditional_writes': False")
    if code in _FULL:
        return StorageFullError(location)
    if code in {"InvalidBucketName", "InvalidArgument", "KeyTooLongError", "InvalidURI"}:
        return ConfigError(f"{location}: the store refuses this name or setting: {said}.")
    if code in _PASSING or status in _PASSING_STATUS:
        return TransientError(UnreachableError(location, f"the store keeps answering {code or status} ({said})"))
    return StorageError(location, f"the store answered {code or status}: {said}.")


def _unanswered(  # noqa: PLR0911, C901 - as above
    error: BaseException, location: str, hide: Callable[[str], str]
) -> KeepbestError | TransientError:
    import botocore.exceptions as b  # noqa: PLC0415 - comes with s3fs
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    said = text_of(error, hide)
    if any(isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME for cause in causes(error)):
        return UnreachableError(location, unresolved(error))
    if isinstance(error, (b.NoCredentialsError, b.PartialCredentialsError)):
        return CredentialsError(location, "no credentials were found.")
    if isinstance(error, (b.CredentialRetrievalError, b.RefreshWithMFAUnsupportedError, b.SSOError)):
        return CredentialsError(location, f"the credentials could not be renewed ({type(error).__name__}).")
    if isinstance(error, b.ProfileNotFound):
        return ConfigError(
            f"{location}: {said}. Check AWS_PROFILE or storage_options['profile']; `aws configure list-profiles` says "
            "which there are."
        )
    if isinstance(error, TypeError) and "keyword argument" in said:
        return ConfigError(
            f"storage_options do not fit s3fs: {said}. Correct that one, or leave it out; "
            "docs/buckets.md says what there is."
        )
    if isinstance(error, ResponseParserError):
        return TransientError(UnexpectedAnswerError(location, "not XML"))
    if isinstance(error, ValueError) and said.startswith("Invalid endpoint"):
        return ConfigError(f"{location}: {said}. An endpoint begins with http:// or https://.")
    if isinstance(error, (b.ParamValidationError, b.InvalidRegionError, b.NoRegionError, ValueError)):
        return ConfigError(f"{location}: {said}.")
    if isinstance(error, b.SSLError):
        return UnreachableError(location, f"no safe connection can be made ({said})")
    passing = (b.HTTPClientError, b.ConnectionError, b.IncompleteReadError, OSError, asyncio.TimeoutError, EOFError)
    if isinstance(error, passing) or type(error).__module__.partition(".")[0] == "aiohttp":
        return TransientError(UnreachableError(location, f"the store cannot be reached ({said})"))
    return StorageError(location, f"{type(error).__name__}: {said}.")
