"""Permissions: docs/buckets.md says which ones are needed, and a real server says whether that is so."""

from __future__ import annotations

import urllib.parse
import uuid

import numpy as np
import pytest
from contracts import documented, http_faults
from contracts.permissions import S3_ACTIONS
from contracts.proxy import FaultProxy
from contracts.runs import SmallRun
from contracts.signers import Signer

import keepbest
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.errors import SaveFailedError, StoragePermissionError
from keepbest.storage.backend import open_backend

POLICY = CheckpointPolicy(monitor="val_loss")
ORPHAN = "checkpoints/epoch-009_abcdef"


class Model:
    """Some state, larger than a part."""

    def __init__(self):
        self.weight = np.zeros(9 << 18, np.float32)

    def state_dict(self):
        return {"weight": self.weight}

    def load_state_dict(self, state):
        self.weight = state["weight"]


# ── what one does; each in a fresh folder, with the URL of a run that exists unless it makes one ─────────────────


def read(url, options, folder):
    run = keepbest.open_run(url, storage_options=options)
    run.best.load("model")
    run.history()
    assert run.verify().ok
    run.best.export(str(folder / "model.safetensors"))


def train(url, options, folder):
    for epochs in (1, 2):
        with Checkpointer(url, POLICY, storage_options=options, model=Model()) as ckpt:
            for epoch in ckpt.epochs(epochs):
                ckpt.log(val_loss=1 / (epoch + 1))


def mirror(url, options, folder):
    with Checkpointer(folder / "run", POLICY, mirror=url, mirror_options=options, model=Model()) as ckpt:
        for epoch in ckpt.epochs(2):
            ckpt.log(val_loss=1 / (epoch + 1))
            ckpt.wait()


def publish(url, options, folder):
    run = keepbest.open_run(url, storage_options=options)
    run.publish(run.best, "state.json", f"{url.rpartition('/')[0]}/published/state.json")


def sign(url, options, folder):
    signer = Signer(folder)
    for checkpoint in keepbest.open_run(url, storage_options=options).checkpoints():
        checkpoint.sign(signer.private)


def gc(url, options, folder):
    report = keepbest.open_run(url, storage_options=options).gc(grace=0)
    assert report.removed
    return report


MAKES_A_RUN = {"train", "mirror"}
DOINGS = {"read": read, "train": train, "mirror": mirror, "publish": publish, "sign": sign, "gc": gc}
S3_TABLE = documented.table("`s3:ListBucket`")
GCS_TABLE = documented.table("`storage.objects.list`")


@pytest.fixture
def where(s3_bucket):
    """Where runs may be, by the policies of the page."""
    return f"s3://{s3_bucket}/runs/{uuid.uuid4().hex}"


@pytest.fixture
def run(where, s3_server):
    """The URL of a run of two checkpoints, in which a crash left data and the parts of an upload."""
    make_run(f"{where}/7")
    bucket, _, key = where.removeprefix("s3://").partition("/")
    s3_server.client().create_multipart_upload(Bucket=bucket, Key=f"{key}/7/{ORPHAN}/optimizer.safetensors")
    return f"{where}/7"


@pytest.fixture
def do(where, run, tmp_path):
    """Do one of the things with these storage options, in the run or in a new one; returns what it returns."""

    def doing(name, options):
        return DOINGS[name](f"{where}/new" if name in MAKES_A_RUN else run, options, tmp_path)

    return doing


def make_run(url):
    backend = open_backend(url)
    small = SmallRun(backend)
    small.save(2.0)
    small.save(1.0)
    backend.put(f"{ORPHAN}/state.json", [b"{}"])


def options(server, name):
    who = server.identity(name)
    return {"key": who.access, "secret": who.secret}


# ── S3 ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_has_a_row_for_each_thing_one_does():
    """Nothing that can be done in a bucket is left out of the tables."""
    assert S3_TABLE.keys() == GCS_TABLE.keys() == DOINGS.keys()


@pytest.mark.parametrize("action", S3_ACTIONS)
@pytest.mark.parametrize("doing", DOINGS)
def test_what_is_needed_is_named_when_it_is_missing(doing, action, do, s3_server):
    """Without a permission that the page calls needed, the error names it; without any other, all goes well."""
    lacking = options(s3_server, f"no-{action}")
    if S3_TABLE[doing].get(f"`s3:{action}`") == "yes":
        with pytest.raises(StoragePermissionError, match=f"s3:{action}"):
            do(doing, lacking)
    else:
        do(doing, lacking)


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
@pytest.mark.parametrize("doing", DOINGS)
def test_no_other_permission_is_used(doing, client, do, s3_server, where):
    """The requests that are sent need exactly the permissions that the page calls needed, or better to have."""
    with FaultProxy(s3_server.url) as proxy:
        through = {"endpoint_url": proxy.url, "client": client}
        if doing in MAKES_A_RUN:
            fail_once(proxy, f"{where}/failed", through)
        do(doing, through)
        used = {s3_action(record.method, record.target) for record in proxy.records()}
    assert used == {column.strip("`") for column, needed in S3_TABLE[doing].items() if needed != "no"}


def fail_once(proxy, url, through):
    """Let the upload of a part be refused, so that the upload is aborted."""
    proxy.on(http_faults.access_denied(), method="PUT", path="partNumber=2", times=1)
    with Checkpointer(url, POLICY, storage_options=through, model=Model()) as ckpt:
        with pytest.raises(SaveFailedError):
            ckpt.save().result()


def s3_action(method, target):
    """Return the permission that a request needs: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html."""
    path, _, query = target.partition("?")
    asked = urllib.parse.parse_qs(query, keep_blank_values=True)
    if path.strip("/").count("/") == 0:
        if method == "POST":
            return "s3:DeleteObject" if "delete" in asked else f"? {method} {target}"
        return "s3:ListBucketMultipartUploads" if "uploads" in asked else "s3:ListBucket"
    if "uploadId" in asked and method in {"GET", "DELETE"}:
        return "s3:ListMultipartUploadParts" if method == "GET" else "s3:AbortMultipartUpload"
    names = {"GET": "GetObject", "HEAD": "GetObject", "DELETE": "DeleteObject", "PUT": "PutObject", "POST": "PutObject"}
    return f"s3:{names[method]}"


@pytest.mark.parametrize(
    ("doing", "policy"),
    [
        ("read", "read"),
        ("train", "train"),
        ("mirror", "train"),
        ("publish", "train"),
        ("sign", "train"),
        ("gc", "gc"),
        ("gc", "train"),
    ],
)
def test_the_policies_of_the_page_suffice(doing, policy, do, s3_server):
    """Who has no more than a policy of the page can do what it is for, below its prefix."""
    do(doing, options(s3_server, f"page-{policy}"))


@pytest.mark.parametrize("policy", ["read", "train", "gc"])
def test_the_policies_of_the_page_reach_no_other_prefix(policy, s3_server, s3_bucket, tmp_path):
    """Beside the prefix of a policy nothing can be read, written or listed."""
    for doing in (read, train):
        with pytest.raises(StoragePermissionError):
            doing(f"s3://{s3_bucket}/elsewhere", options(s3_server, f"page-{policy}"), tmp_path)


def test_gc_says_what_it_could_not_look_for(do, s3_server):
    """Without the permission to list uploads, `gc` deletes the rest and says what it did not see."""
    report = do("gc", options(s3_server, "no-ListBucketMultipartUploads"))
    assert [orphan.name for orphan in report.removed] == [ORPHAN.removeprefix("checkpoints/")]
    assert "s3:ListBucketMultipartUploads" in report.hidden


@pytest.mark.parametrize("doing", ["read", "train", "gc"])
def test_the_policies_of_the_page_grant_what_the_table_says(doing):
    """A policy of the page grants what its row asks for and nothing else."""
    granted = set()
    for statement in documented.policies()[doing]:
        actions = statement["Action"]
        granted |= {actions} if isinstance(actions, str) else set(actions)
    assert granted == {column.strip("`") for column, needed in S3_TABLE[doing].items() if needed != "no"}


# ── GCS, whose emulator knows no permissions: the requests say which they need ────────────────────────────────────


@pytest.mark.parametrize("doing", DOINGS)
def test_the_permissions_on_gcs_are_those_of_the_requests(doing, gcs_server, gcs_bucket, tmp_path):
    """The requests that are sent need exactly the permissions of the page's table."""
    where = f"gs://{gcs_bucket}/runs/{uuid.uuid4().hex}"
    make_run(f"{where}/7")
    with FaultProxy(gcs_server.url) as proxy:
        through = {"endpoint_url": proxy.url, "token": "anon"}
        DOINGS[doing](f"{where}/{'new' if doing in MAKES_A_RUN else 7}", through, tmp_path)
        used = {need for record in proxy.records() for need in gcs_permissions(record.method, record.target)}
    listed = {column.strip("`") for column, needed in GCS_TABLE[doing].items() if needed == "yes"}
    assert used == listed


def gcs_permissions(method, target):
    """Return the permissions that a request needs: https://cloud.google.com/storage/docs/access-control/iam-json."""
    path = urllib.parse.urlsplit(target).path
    if method == "DELETE":
        return {"storage.objects.delete"}
    if method == "GET":
        return {"storage.objects.list" if path.endswith("/o") else "storage.objects.get"}
    if path.startswith("/upload/"):
        return {"storage.objects.create"}  # and delete, where it replaces
    return {"storage.objects.create", "storage.objects.get"}  # compose and rewrite, likewise
