"""The proxy that does what a bad day does: tested with a real client before a real server."""

from __future__ import annotations

import http.client
import itertools
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest
from contracts import http_faults, proxy, sigv4

botocore = pytest.importorskip("botocore.exceptions")

BODY = bytes(range(256)) * 1000
numbers = itertools.count()


@pytest.fixture
def between(s3_server):
    """The proxy before the S3 server."""
    with proxy.FaultProxy(s3_server.url) as one:
        yield one


@pytest.fixture
def s3(s3_server, between, s3_bucket):
    """A client that asks the proxy, once."""
    return Client(s3_server.client(url=between.url, connect_timeout=5, read_timeout=5), s3_bucket)


@pytest.fixture
def direct(s3_server, s3_bucket):
    """A client that asks the server itself."""
    return Client(s3_server.client(), s3_bucket)


class Client:
    """boto3, for one bucket and always the same body."""

    def __init__(self, client, bucket):
        self.client, self.bucket = client, bucket

    def __getattr__(self, name):
        return lambda *key, **options: getattr(self.client, name)(
            Bucket=self.bucket, **dict(zip(["Key"], key, strict=False)), **options
        )

    def put(self, key, **options):
        return self.put_object(key, Body=BODY, **options)

    def get(self, key, **options):
        return self.get_object(key, **options)["Body"].read()

    def has(self, key):
        return bool(self.list_objects_v2(Prefix=key).get("Contents"))


@pytest.fixture
def key():
    """The name of an object that does not exist yet."""
    return f"proxy/{next(numbers)} +ö%~/object"


def refused(error):
    """Return status and code of a boto3 error."""
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"], error.value.response["Error"]["Code"]


# ── what no rule is for ──────────────────────────────────────────────────────────────────────────────────────────


def test_all_kinds_of_requests_pass(s3, direct, between, key):
    """Puts, reads, heads, copies, listings and deletes arrive as they were sent, signatures valid, connections kept."""
    s3.put(key)
    assert s3.get(key) == direct.get(key) == BODY
    assert s3.get(key, Range="bytes=10-19") == BODY[10:20]
    assert s3.head_object(key)["ContentLength"] == len(BODY)
    s3.put_object(f"{key}-empty", Body=b"")
    assert s3.get(f"{key}-empty") == b""
    s3.copy_object(f"{key}-copy", CopySource={"Bucket": s3.bucket, "Key": key})
    assert s3.get(f"{key}-copy") == BODY
    assert len(s3.list_objects_v2(Prefix=key)["Contents"]) == 3
    s3.delete_object(key)
    with pytest.raises(botocore.ClientError) as error:
        s3.get(key)
    assert refused(error) == (404, "NoSuchKey")
    assert {record.connection for record in between.records()} == {1}


def test_conditions_and_checksums_pass(s3, key):
    """The server's own verdicts on a condition and on a checksum arrive."""
    s3.put(key, IfNoneMatch="*")
    with pytest.raises(botocore.ClientError) as error:
        s3.put(key, IfNoneMatch="*")
    assert refused(error) == (412, "PreconditionFailed")
    with pytest.raises(botocore.ClientError) as error:
        s3.put(key, ChecksumCRC32="AAAAAA==")
    assert refused(error) == (400, "BadDigest")


def test_a_multipart_upload_passes(s3, between, key):
    """Parts that are sent at the same time, on as many connections, become one object."""
    part = BODY * 21
    upload = s3.create_multipart_upload(key)["UploadId"]

    def send(number):
        tag = s3.upload_part(key, UploadId=upload, PartNumber=number, Body=part)["ETag"]
        return {"PartNumber": number, "ETag": tag}

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(send, range(1, 5)))
    s3.complete_multipart_upload(key, UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get(key) == part * 4
    records = between.records(method="PUT", path=r"partNumber=\d")
    assert {record.received for record in records} == {len(part)}
    assert 1 < proxy.most_at_once(records) <= 4


def test_a_body_in_chunks_with_a_trailer_passes(s3_server, between, s3, key):
    """A body of unknown length, whose checksum follows it, arrives; and so does the server's verdict on it."""
    for crc, verdict in ((zlib.crc32(BODY), 200), (zlib.crc32(BODY) ^ 1, 400)):
        chunks = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)
        body = chunks + b"x-amz-checksum-crc32:" + b64encode(crc.to_bytes(4, "big")) + b"\r\n\r\n"
        headers = {
            "content-encoding": "aws-chunked",
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "x-amz-decoded-content-length": str(len(BODY)),
            "x-amz-trailer": "x-amz-checksum-crc32",
        }
        url = f"{between.url}/{s3.bucket}/{urllib.parse.quote(key)}"
        headers = sigv4.signed_headers(s3_server.identity(), "PUT", url, **headers)
        parts = urllib.parse.urlsplit(url)
        for framing in ({"content-length": str(len(body))}, {"transfer-encoding": "chunked"}):
            connection = http.client.HTTPConnection(parts.netloc, timeout=10)
            chunked = "transfer-encoding" in framing
            sent = (body[begin : begin + 10_000] for begin in range(0, len(body), 10_000)) if chunked else body
            connection.request("PUT", parts.path, sent, headers | framing, encode_chunked=chunked)
            assert connection.getresponse().status == verdict
            connection.close()
    assert s3.get(key) == BODY


def test_it_waits_for_the_server_to_want_the_body(s3_server, between, s3_bucket):
    """Where a client asks with `Expect: 100-continue` whether it is to send the body, the server decides."""
    nobody = s3_server.client("nobody", url=between.url)
    with pytest.raises(botocore.ClientError) as error:
        nobody.put_object(Bucket=s3_bucket, Key="no", Body=BODY)
    assert refused(error) == (403, "AccessDenied")
    (record,) = between.records()
    assert (record.method, record.target, record.status) == ("PUT", f"/{s3_bucket}/no", 403)


def test_what_came_is_recorded(s3, between, key):
    """Each request is there with its method, path, status, times, bytes, and the connection it came on."""
    before = time.monotonic()
    s3.put(key)
    s3.get(key, Range="bytes=0-99")
    put, get = between.records()
    assert (put.method, put.status, put.received, put.fault) == ("PUT", 200, len(BODY), "")
    assert (get.method, get.status, get.received, get.sent) == ("GET", 206, 0, 100)
    assert before <= put.start <= put.end <= get.start <= get.end <= time.monotonic()
    assert put.connection == get.connection
    assert between.count(method="GET", path="object$") == 1
    assert [count for _, count in proxy.busy([put, get])] == [1, 0, 1, 0]
    between.clear()
    assert between.count() == 0


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_says_which_and_how_many(s3, between, key):
    """A fault happens to the requests that a rule is for, after so many and so many times, and the rule counts."""
    rule = between.on(http_faults.slow_down(), method="GET", path="object", after=1, times=2)
    s3.put(key)
    found = []
    for _ in range(4):
        try:
            found.append(s3.get(key) == BODY)
        except botocore.ClientError as error:
            found.append(error.response["Error"]["Code"])
    assert found == [True, "SlowDown", "SlowDown", True]
    assert (rule.seen, rule.hits) == (4, 2)
    assert [record.fault for record in between.records(method="GET")] == ["", "answer 503", "answer 503", ""]


def test_the_first_rule_wins(s3, between, key):
    """What one rule takes no later one sees, and a rule without a fault lets pass."""
    between.on(None, method="PUT", times=1)
    between.on(http_faults.internal_error(), when=lambda record: record.method == "PUT")
    s3.put(key)
    with pytest.raises(botocore.ClientError) as error:
        s3.put(key)
    assert refused(error) == (500, "InternalError")
    between.clear()
    s3.put(key)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (http_faults.precondition_failed(), (412, "PreconditionFailed")),
        (http_faults.conflict(), (409, "ConditionalRequestConflict")),
        (http_faults.slow_down(), (503, "SlowDown")),
        (http_faults.internal_error(), (500, "InternalError")),
        (http_faults.access_denied(), (403, "AccessDenied")),
        (http_faults.expired_token(), (400, "ExpiredToken")),
        (http_faults.expired_token(403), (403, "ExpiredToken")),
        (http_faults.moved_region(), (301, "PermanentRedirect")),
        (http_faults.wrong_region(), (400, "AuthorizationHeaderMalformed")),
    ],
    ids=lambda value: value.name if isinstance(value, http_faults.Fault) else "",
)
def test_it_answers_in_the_servers_place(s3, between, key, fault, expected):
    """A client understands the answer, whatever it asked, and the server never heard of it."""
    rule = between.on(fault)
    with pytest.raises(botocore.ClientError) as error:
        s3.put(key)
    assert refused(error) == expected
    assert rule.hits == between.count()
    with pytest.raises(botocore.ClientError) as error:
        s3.head_object(key)
    assert refused(error)[0] == expected[0]


def test_it_answers_with_a_page(s3, between, key):
    """A proxy of a network that answers 200 with HTML is one more thing a client can meet."""
    s3.put(key)
    between.on(http_faults.html())
    reply = s3.get_object(key)
    assert reply["ContentType"] == "text/html"
    assert b"log in" in reply["Body"].read()


def test_a_reset_breaks_before_the_server_heard(s3, between, direct, key):
    """After a reset the client has an error and the server nothing."""
    between.on(http_faults.reset())
    with pytest.raises(botocore.ConnectionClosedError):
        s3.put(key)
    assert between.records()[0].status is None
    assert not direct.has(key)


def test_a_lost_reply_leaves_what_was_done(s3, between, direct, key):
    """After a lost reply the client has an error and the server the object."""
    between.on(http_faults.lose_reply(), method="PUT")
    with pytest.raises(botocore.ConnectionClosedError):
        s3.put(key)
    assert direct.get(key) == BODY


def test_a_reply_is_truncated(s3, between, key):
    """Half of the body arrives, and then the end of the connection."""
    s3.put(key)
    between.on(http_faults.truncate())
    with pytest.raises((botocore.IncompleteReadError, botocore.ResponseStreamingError)):
        s3.get(key)
    assert between.records()[1].sent == len(BODY) // 2


def test_a_bit_of_a_request_is_flipped(s3_server, between, s3, direct, key):
    """A server that verifies checksums refuses the body, one that is given none keeps the flipped bit."""
    between.on(http_faults.corrupt_request(), method="PUT")
    with pytest.raises(botocore.ClientError) as error:
        s3.put(key)
    assert refused(error)[0] == 400
    assert not direct.has(key)
    url = f"{between.url}/{s3.bucket}/{urllib.parse.quote(key)}"
    for headers, verdict in (
        ({"x-amz-checksum-crc32": b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()}, 400),
        ({}, 200),
    ):
        unsigned = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
        signed = sigv4.signed_headers(s3_server.identity(), "PUT", url, **headers, **unsigned)
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=10)
        connection.request("PUT", urllib.parse.urlsplit(url).path, BODY, signed)
        assert connection.getresponse().status == verdict
        connection.close()
    stored = direct.get(key)
    assert [n for n in range(len(BODY)) if stored[n] != BODY[n]] == [len(BODY) // 2]


def test_a_bit_of_a_part_is_flipped(s3, between, key):
    """The server refuses a part of a multipart upload that is not what its checksum says."""
    upload = s3.create_multipart_upload(key, ChecksumAlgorithm="CRC32")["UploadId"]
    between.on(http_faults.corrupt_request(), path="partNumber=1", times=1)
    with pytest.raises(botocore.ClientError) as error:
        s3.upload_part(key, UploadId=upload, PartNumber=1, Body=BODY, ChecksumAlgorithm="CRC32")
    assert refused(error)[0] == 400
    s3.upload_part(key, UploadId=upload, PartNumber=1, Body=BODY, ChecksumAlgorithm="CRC32")
    s3.abort_multipart_upload(key, UploadId=upload)


def test_a_bit_of_a_reply_is_flipped(s3, between, key):
    """The body arrives whole, one bit of it its opposite."""
    s3.put_object(key, Body=BODY, ChecksumAlgorithm="CRC32")
    between.on(http_faults.corrupt_reply())
    found = s3.get_object(key, Range="bytes=0-9999")["Body"].read()
    assert [n for n in range(10_000) if found[n] != BODY[n]] == [5_000]
    with pytest.raises(botocore.FlexibleChecksumError):
        s3.get(key)


def test_a_stall_is_silence(s3_server, between, direct, key):
    """Nothing is heard for the time of a stall, so that a client's time-out ends it."""
    between.on(http_faults.stall(30))
    impatient = Client(s3_server.client(url=between.url, read_timeout=0.3), direct.bucket)
    begin = time.monotonic()
    with pytest.raises(botocore.ReadTimeoutError):
        impatient.get(key)
    assert 0.3 <= time.monotonic() - begin < 20


def test_a_stall_ends_with_a_reset(s3, between, key):
    """Who waits the stall out gets a broken connection, not an answer."""
    between.on(http_faults.stall(0.3))
    begin = time.monotonic()
    with pytest.raises(botocore.ConnectionClosedError):
        s3.get(key)
    assert 0.3 <= time.monotonic() - begin < 20


@pytest.mark.parametrize("fault", [http_faults.delay(0.4), http_faults.late_reply(0.4)], ids=lambda fault: fault.name)
def test_a_delay_is_a_wait(s3, between, key, fault):
    """The request succeeds, so much later."""
    between.on(fault)
    begin = time.monotonic()
    s3.put(key)
    assert 0.4 <= time.monotonic() - begin < 20
    assert between.records()[0].fault == fault.name


def test_a_late_reply_finds_the_work_done(s3_server, between, direct, key):
    """Who gives up before the reply does not know that the server did it."""
    between.on(http_faults.late_reply(30))
    impatient = Client(s3_server.client(url=between.url, read_timeout=0.5), direct.bucket)
    with pytest.raises(botocore.ReadTimeoutError):
        impatient.put(key)
    assert direct.get(key) == BODY


def test_a_throttle_is_shared(s3, between, key):
    """All requests of a rule have the rate together, both ways."""

    def seconds(do):
        begin = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(do, range(2)))
        return time.monotonic() - begin

    assert seconds(lambda number: s3.put(f"{key}{number}")) < 20
    between.on(http_faults.throttle(len(BODY) / 0.8))
    assert 1.6 <= seconds(lambda number: s3.put(f"{key}{number}")) < 20
    assert 1.6 <= seconds(lambda number: s3.get(f"{key}{number}")) < 20


def test_a_killed_server_refuses_until_it_is_back(s3_server, s3, between, key):
    """A kill breaks all connections and refuses new ones, at once, until it is revived on the same port."""
    other = Client(s3_server.client(url=between.url), s3.bucket)
    other.put(key)  # and its connection stays open
    between.on(http_faults.stall(30), path="stalled")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(s3.get, "stalled")
        while not between.count(path="stalled"):
            time.sleep(0.01)
        begin = time.monotonic()
        between.kill()
        assert isinstance(waiting.exception(timeout=10), botocore.HTTPClientError)
    for client in (other, s3):
        with pytest.raises(botocore.BotoCoreError):
            client.get(key)
        with pytest.raises(botocore.EndpointConnectionError):
            client.get(key)
    assert time.monotonic() - begin < 20
    between.revive()
    assert s3.get(key) == BODY


def test_a_kill_can_be_a_rule(s3, between, direct, key):
    """The server is gone when the second part comes, and what it had is there when it is back."""
    upload = s3.create_multipart_upload(key)["UploadId"]
    between.on(http_faults.kill(), path="partNumber", after=1)
    s3.upload_part(key, UploadId=upload, PartNumber=1, Body=BODY)
    with pytest.raises(botocore.HTTPClientError):
        s3.upload_part(key, UploadId=upload, PartNumber=2, Body=BODY)
    with pytest.raises(botocore.EndpointConnectionError):
        s3.abort_multipart_upload(key, UploadId=upload)
    assert len(direct.list_parts(key, UploadId=upload)["Parts"]) == 1
    between.clear()
    between.revive()
    s3.abort_multipart_upload(key, UploadId=upload)


def test_a_process_is_killed(s3, between, direct, key):
    """A process can be killed at a request, which the server then never hears of."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
        between.on(http_faults.kill_process(victim.pid), method="PUT", after=1)
        s3.put(key)
        assert victim.poll() is None
        with pytest.raises(botocore.ConnectionClosedError):
            s3.put(f"{key}-2")
        assert victim.wait(10) == -signal.SIGKILL
    assert (direct.has(key), direct.has(f"{key}-2")) == (True, False)


def test_it_leaves_no_thread(s3_server, s3_bucket):
    """After its end nothing of it runs."""
    before = set(threading.enumerate())
    with proxy.FaultProxy(s3_server.url) as between:
        client = s3_server.client(url=between.url)
        client.put_object(Bucket=s3_bucket, Key="thread", Body=BODY)
        running = set(threading.enumerate()) - before
        assert len(running) == 2
    for thread in running:
        thread.join(timeout=5)
        assert not thread.is_alive()


# ── a server without conditional writes ──────────────────────────────────────────────────────────────────────────


def test_s3_without_conditions(s3_server, s3_bucket, key):
    """The server ignores the condition, and the signature of what is left is valid."""
    with proxy.FaultProxy(s3_server.url, edit=proxy.without_s3_conditions(s3_server.secrets)) as between:
        s3 = Client(s3_server.client("writer", url=between.url), s3_bucket)
        for body in (b"first", b"second"):
            s3.put_object(key, Body=body, IfNoneMatch="*", Metadata={"a": "b  c"})
            assert s3.get(key) == body
        upload = s3.create_multipart_upload(key)["UploadId"]
        which = {"UploadId": upload, "PartNumber": 1, "CopySource": {"Bucket": s3_bucket, "Key": key}}
        tag = s3.upload_part_copy(key, **which, CopySourceIfMatch="another")["CopyPartResult"]["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
        s3.complete_multipart_upload(key, UploadId=upload, MultipartUpload=parts, IfNoneMatch="*")
        assert s3.get(key) == b"second"


def test_s3_without_conditions_for_obstore(s3_server, s3_bucket, key):
    """The same, for a client that signs in its own way."""
    obstore = pytest.importorskip("obstore")
    with proxy.FaultProxy(s3_server.url, edit=proxy.without_s3_conditions(s3_server.secrets)) as between:
        who = s3_server.identity()
        store = obstore.store.S3Store(
            s3_bucket,
            endpoint=between.url,
            access_key_id=who.access,
            secret_access_key=who.secret,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        for body in (b"first", b"second"):
            obstore.put(store, "obstore/a b+c", body, mode="create")
            assert bytes(obstore.get(store, "obstore/a b+c").bytes()) == body


def upload_to_gcs(url, bucket, name):
    """Create an object if it is not there; return the status."""
    related = b'--B\r\nContent-Type: application/json\r\n\r\n{"name": "%b"}\r\n--B\r\n\r\nbody\r\n--B--' % name.encode()
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=10)
    path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart&ifGenerationMatch=0&alt=json"
    connection.request("POST", path, related, {"Content-Type": "multipart/related; boundary=B"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_gcs_passes_and_can_lose_its_conditions(gcs_server, gcs_bucket):
    """A GCS server can be had with and without preconditions too."""
    with proxy.FaultProxy(gcs_server.url) as between:
        assert [upload_to_gcs(between.url, gcs_bucket, "one") for _ in range(2)] == [200, 412]
    with proxy.FaultProxy(gcs_server.url, edit=proxy.without_gcs_conditions) as between:
        assert [upload_to_gcs(between.url, gcs_bucket, "two") for _ in range(2)] == [200, 200]
        assert "ifGenerationMatch=0" in between.records()[0].target


def test_gcs_through_gcsfs(gcs_server, gcs_bucket, monkeypatch):
    """gcsfs stays with the proxy, also for uploads in pieces, whose address the server gives it."""
    gcsfs = pytest.importorskip("gcsfs")
    with proxy.FaultProxy(gcs_server.url) as between:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", between.url)
        filesystem = gcsfs.GCSFileSystem(token="anon", skip_instance_cache=True)
        with filesystem.open(f"{gcs_bucket}/gcsfs", "wb", block_size=2**18) as stream:
            stream.write(BODY * 3)
        assert filesystem.cat_file(f"{gcs_bucket}/gcsfs") == BODY * 3
        assert between.count(path="upload_id=") > 1
