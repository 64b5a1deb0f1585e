"""`keepbest sign`: state, with a key, that the checkpoints of a run are what they are now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import click

from . import machine, screen, words
from .options import run_verb

if TYPE_CHECKING:
    from ..storage.signing import Signed


class SignedJson(TypedDict):
    """A checkpoint that is signed now."""

    checkpoint: str
    """Its name."""
    file: str
    """Where the signature lies, relative to the run."""
    new: bool
    """false: it was signed by this key already."""


class SignJson(TypedDict):
    """What `keepbest sign --json` prints, as keepbest.sign/1."""

    run: str
    key: str
    """The public key: "ed25519:" and 64 hex digits."""
    signed: list[SignedJson]
    """Oldest first."""


@click.command(epilog="Example: keepbest sign runs/7 best --key signing.pem")
@run_verb
@click.argument("checkpoint", required=False)
@click.option("--key", "key", metavar="FILE", required=True, help="The private key: Ed25519, PEM (PKCS8).")
@click.option(
    "--run", "run_name", metavar="NAME", help="What to call the run; the last part of its URL, if it is not said."
)
def sign(  # noqa: PLR0913, PLR0917 - one for each word of the command line
    url: str,
    storage_options: Mapping[str, Any],
    as_json: bool,  # noqa: FBT001
    checkpoint: str | None,
    key: str,
    run_name: str | None,
) -> None:
    """Sign the checkpoints of a run, or one of them.

    CHECKPOINT is best, latest, a name or its unique beginning, or a sequence number; without it all are signed. Each is
    read whole, and a damaged one is not signed. Who has the public key can tell then, with `keepbest verify --key` or
    `trusted=`, that nothing was changed since. Sign where the checkpoints come from: what is signed is what is there.

    A pair of keys: openssl genpkey -algorithm ed25519 -out signing.pem; openssl pkey -in signing.pem -pubout -out
    signing.pub.pem
    """
    from ..storage import keys, signing  # noqa: PLC0415 - help needs none of it
    from ..storage.run import open_run  # noqa: PLC0415

    private = keys.read_private(key)
    run = open_run(url, storage_options=storage_options)
    chosen = run.checkpoints() if checkpoint is None else [run.get(checkpoint)]
    done = [signing.sign(run.backend, found.info, private, run=run_name) for found in chosen]
    if as_json:
        machine.emit("sign/1", SignJson(run=run.url, key=str(private.public), signed=[_to_json(one) for one in done]))
        return
    for one in done:
        screen.line(f"{'signed' if one.new else 'signed already'}  {one.checkpoint}", "green")
    screen.line(f"{run.url}: {words.count(len(done), 'checkpoint')} signed by {private.public}.")


def _to_json(signed: Signed) -> SignedJson:
    return SignedJson(checkpoint=signed.checkpoint, file=signed.file, new=signed.new)
