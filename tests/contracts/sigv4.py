"""Signatures of S3 requests (AWS Signature Version 4): made for a request, and made anew for one that was changed."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import urllib.parse

_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/([^,]+), ?SignedHeaders=([^,]+), ?Signature=\w+")


def signature(secret, scope, method, target, headers):
    """Return the hexadecimal signature.

    Args:
        secret: The secret key.
        scope: "date/region/s3/aws4_request".
        method: "GET", "PUT", …
        target: Path and query, percent-encoded as sent.
        headers: name in lower case → value, of exactly the headers that are signed; "x-amz-date" and
            "x-amz-content-sha256" are among them.
    """
    path, _, query = target.partition("?")
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&") if pair)
    canonical = "\n".join(
        [
            method,
            path,
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)),
            "",
            ";".join(sorted(headers)),
            headers["x-amz-content-sha256"],
        ]
    )
    hashed = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{hashed}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _authorization(access, scope, headers, made):
    return f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={';'.join(sorted(headers))}, Signature={made}"


def signed_headers(identity, method, url, *, body=b"", region="us-east-1", **headers):
    """Return the headers, given ones included, that make a request one of that identity."""
    target = url.split("/", 3)[3]
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {name.replace("_", "-"): value for name, value in headers.items()} | {
        "host": urllib.parse.urlsplit(url).netloc,
        "x-amz-date": date,
    }
    headers.setdefault("x-amz-content-sha256", hashlib.sha256(body).hexdigest())
    scope = f"{date[:8]}/{region}/s3/aws4_request"
    made = signature(identity.secret, scope, method, f"/{target}", headers)
    return headers | {"authorization": _authorization(identity.access, scope, headers, made)}


def signed_again(head, secrets):
    """Return a request's head with a signature that fits what is left of the headers it had signed.

    Args:
        head: A `Head` that was signed before something in it was changed; one without a signature comes back as it is.
        secrets: access key → secret key.
    """
    found = _AUTHORIZATION.match(head.get("authorization"))
    if not found:
        return head
    access, scope, names = found.groups()
    there = dict(head.headers)
    signed = {name: there[name] for name in names.split(";") if name in there}
    method, target, _ = head.first
    made = signature(secrets[access], scope, method, target, signed)
    return head.having("authorization", _authorization(access, scope, signed, made))
