"""Who asks an S3 server, and what each of them may do."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

from . import documented

S3_ACTIONS = (
    "GetObject",
    "PutObject",
    "DeleteObject",
    "ListBucket",
    "AbortMultipartUpload",
    "ListBucketMultipartUploads",
    "ListMultipartUploadParts",
)
"""What may be done with objects, by the names that IAM has for it."""

EVERYWHERE = "arn:aws:s3:::*"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks an S3 server; its `repr` does not show the secret."""

    name: str
    access: str
    secret: str

    def __repr__(self):
        return f"Identity({self.name!r})"

    @property
    def environment(self):
        """The variables that make a client ask as this identity."""
        return {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}


def new_identities():
    """Return name → identity, for all that `S3Server.identity` knows, with keys that were never used before."""
    return {
        name: Identity(name, f"KEY{uuid.uuid4().hex[:16].upper()}", uuid.uuid4().hex)
        for name in ("admin", *_policies())
    }


PUBLIC = "keepbest-public"
"""The name of the bucket that anybody may read, if somebody makes it."""


def s3_config(identities):
    """Return what SeaweedFS reads (JSON): who there is, and the IAM policy of each."""
    policies = _policies()
    people = []
    for name, who in identities.items():
        may = {"policyNames": [name]} if name in policies else {"actions": ["Admin"]}
        people.append({"name": name, "credentials": [{"accessKey": who.access, "secretKey": who.secret}]} | may)
    people.append({"name": "anonymous", "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]})
    documents = [
        {"name": name, "content": json.dumps({"Version": "2012-10-17", "Statement": statements})}
        for name, statements in policies.items()
    ]
    return json.dumps({"identities": people, "policies": documents})


def _policies():
    """Return name → the statements of its policy."""
    listing_below = _statement("Allow", ["ListBucket"]) | {"Condition": {"StringLike": {"s3:prefix": ["runs/*"]}}}
    return {
        "writer": [_statement("Allow", S3_ACTIONS)],
        "reader": [_statement("Allow", ["GetObject", "ListBucket"])],
        "nobody": [_statement("Deny", S3_ACTIONS)],
        "prefix": [_statement("Allow", S3_ACTIONS, f"{EVERYWHERE}/runs/*"), listing_below],
        **{f"no-{action}": _all_but(action) for action in S3_ACTIONS},
        **{f"page-{name}": statements for name, statements in documented.policies().items()},
    }


def _all_but(action):
    allowed = _statement("Allow", [other for other in S3_ACTIONS if other != action])
    # Whoever may put may here do the rest of a multipart upload too, unless that is denied.
    return [allowed, _statement("Deny", [action])] if "Multipart" in action else [allowed]


def _statement(effect, actions, where=EVERYWHERE):
    return {"Effect": effect, "Action": [f"s3:{action}" for action in actions], "Resource": where}
