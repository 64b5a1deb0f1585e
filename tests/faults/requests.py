"""Requests: trainings in a bucket, killed before a request is heard and after it was answered.

    python -m faults.requests CLIENT SERVER BUCKET SEED [MOST]

Prints a row. A process of its own: what is forked off one that has used obstore or s3fs does not use obstore.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from contracts.http_faults import kill_process
from contracts.places import GcsPlace, S3Place
from contracts.proxy import FaultProxy
from faults import hosts
from faults.aftermath import Promises, findings, look
from faults.children import Child, Mute, import_for
from faults.tally import Tally
from faults.trainings import MIB, Plan, content, train

PLAN = "save in two parts, retire"
NBYTES = 11 * MIB // 2


def main(client: str, server: str, bucket: str, seed: str, most: str = "") -> None:
    """Kill at each request, or at `most` of them."""
    place = Place(client, server, bucket)
    import_for(lambda: _use(place), but=("obstore", "keepbest.storage.obstore"))
    content(0, NBYTES)  # is remembered
    with FaultProxy(server) as proxy:
        row = at_every_request(place, proxy, seed=int(seed), most=int(most) if most else None)
    hosts.say(row)


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and who asks for it."""

    client: str
    """"s3fs", "obstore" or "gcs"."""
    server: str
    """Its URL."""
    bucket: str

    @property
    def url(self) -> str:
        """The run's."""
        return f"{'gs' if self.client == 'gcs' else 's3'}://{self.bucket}/run"

    def plan(self, server: str) -> Plan:
        """Return the training, asking at a URL: the server's or that of a proxy before it."""
        if self.client == "gcs":
            who = {"token": "anon"}
        else:
            names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
            who = {key: os.environ[name] for key, name in names.items()} | {"client": self.client}
        options = {"endpoint_url": server, "part_size": 5 * MIB, **who}
        return Plan(name=PLAN, policy={"keep_last": 1}, nbytes=NBYTES, options=options, resumed=True)

    def seen(self) -> tuple[list[str], list[str]]:
        """Return the keys of the run and of its unfinished uploads, as others see them."""
        if self.client == "gcs":
            return GcsPlace(self.url, SimpleNamespace(url=self.server)).files(), []  # components are objects
        client = _client(self.server)
        uploads = client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return S3Place(self.url, SimpleNamespace(client=lambda: client)).files(), [upload["Key"] for upload in uploads]


def at_every_request(place: Place, proxy: FaultProxy, *, seed: int, most: int | None) -> Tally:
    """Kill one training after the other in the same run; what comes between goes past the proxy."""
    tally = Tally(family="kill", scenario=f"at a request: {PLAN} ({place.client})")
    train_plan, look_plan = place.plan(proxy.url), place.plan(place.server)
    earlier: list[str] = []

    def trial(number: int, *, answered: bool) -> int:
        with Child(lambda voice: train(train_plan, place.url, voice, warm=0, window=1)) as child:
            if not child.wait_until_ready():
                raise RuntimeError("\n".join(child.said))
            proxy.clear()
            if number:
                proxy.on(kill_process(child.pid, answered=answered), after=number - 1, times=1)
            child.go()
            killed = os.WIFSIGNALED(child.wait()) and not child.hung
        where = f"{'after' if answered else 'before'} request {number}"
        if child.hung or not (killed or child.status == 0):
            tally.found("hung" if child.hung else "broken", f"{where}: {child.said}")
        requests = _settled(proxy)
        promises = Promises(child.said, earlier=earlier)
        earlier.extend(child.said)
        look(lambda: findings(look_plan, place.url, promises, bucket=place.seen), tally, where)
        tally.tried += killed
        return requests

    trial(0, answered=False)
    requests = trial(0, answered=False)
    every = [(number, answered) for number in range(1, requests + 1) for answered in (False, True)]
    chosen = every if most is None or most >= len(every) else sorted(random.Random(seed).sample(every, most))
    for number, answered in chosen:
        trial(number, answered=answered)
    tally.remark = f"{requests} requests"
    return tally


def _use(place: Place) -> None:
    """Do once all that children do."""
    plan = place.plan(place.server)
    train(plan, place.url, Mute(), warm=0, window=1)
    findings(plan, place.url, Promises([]), bucket=place.seen)


@functools.cache
def _client(server: str) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=server)


def _settled(proxy: FaultProxy) -> int:
    """Wait until the server has heard all that the dead had sent; return how many requests that were."""
    while any(record.end is None for record in proxy.records()):
        time.sleep(0.01)
    return proxy.count()


if __name__ == "__main__":
    main(*sys.argv[1:])
