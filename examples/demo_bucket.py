"""What `make demo-bucket` shows: what `make demo` does, in a bucket. The examples are the same; the URL is another one.

The bucket is that of an S3 server on this machine, which the demo starts and ends. With one of your own, the examples
need nothing of this file:

    export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_ENDPOINT_URL=…     # no endpoint for Amazon's
    python examples/pytorch_loop.py s3://my-bucket/pytorch
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import boto3
import demo

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from contracts.servers import STRAY_VARIABLES, S3Server

BUCKET = "my-bucket"
WHERE = f"s3://{BUCKET}"


def files_below(s3, prefix, delimiter=""):
    """Print what a plain S3 client sees there, and return the keys. With "/" as the delimiter, folders stay closed."""
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix, Delimiter=delimiter)
    for folder in found.get("CommonPrefixes", ()):
        print(f"   {'':>9}  {folder['Prefix']}")
    for item in found["Contents"]:
        print(f"   {item['Size']:>9,}  {item['Key']}")
    return [item["Key"] for item in found["Contents"]]


def download(s3, key, folder):
    """Download as anybody would."""
    print(f"boto3: download {key}")
    path = Path(folder) / key.rpartition("/")[2]
    s3.download_file(BUCKET, key, str(path))
    return path


def main():
    demo.heading("a local S3 server, which ends with this demo")
    for name in STRAY_VARIABLES:
        os.environ.pop(name, None)
    with S3Server() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= server.environment
        server.make_bucket(BUCKET)
        print(f"   AWS_ENDPOINT_URL={server.url}, and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: all that is set for it")
        s3 = boto3.client("s3")
        expected = {name: demo.journey(name, WHERE) for name in demo.SCRIPTS}
        demo.look(WHERE)

        demo.heading("where the files lie, as boto3 lists them")
        files_below(s3, "pytorch-killed/")
        print()
        models = files_below(s3, "keras-killed/", delimiter="/")

        demo.heading("the best models, downloaded with boto3 and loaded without keepbest")
        hint = json.loads(s3.get_object(Bucket=BUCKET, Key="pytorch-killed/best.json")["Body"].read())
        weights = f"pytorch-killed/checkpoints/{hint['body']['name']}/model.safetensors"
        best = {"pytorch": download(s3, weights, folder), "keras": download(s3, max(models), folder)}
        demo.load(best, expected)
        s3.close()
    print("\nBoth are what training said. The server has ended, and the bucket went with it.")


if __name__ == "__main__":
    main()
