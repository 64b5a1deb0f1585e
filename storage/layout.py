"""Layout: every name and key of a run, built and parsed here and nowhere else.

run/
  checkpoints/<name>/<file>     data, written once under a fresh name
  checkpoints/<name>/signature-<key>.json   who signed it, if anybody did
  commits/00000007.json         the manifest; it exists ⇔ checkpoint 7 does
  commits/index-00000064.json   light records of the commits up to 64; a hint
  metrics.jsonl                 every logged row; in a bucket, in pieces: metrics/<time>-<writer>-<number>.jsonl
  best -> checkpoints/<name>    a link where there are links, best.json elsewhere; a hint
"""

from __future__ import annotations

import re

CHECKPOINTS = "checkpoints/"
COMMITS = "commits/"
JOURNAL = "metrics.jsonl"
BEST_LINK = "best"
BEST_HINT = "best.json"
STATE_FILE = "state.json"
TENSOR_SUFFIX = ".safetensors"
TEMPORARY_PREFIX = ".tmp-"
"""Names that start so are being written or were left by a crash; nobody reads them."""

_WEIGHTS = "-weights"
_CHECKPOINT = re.compile(r"(?=epoch-|step-)(?:epoch-(\d{3,})_)?(?:step-(\d{6,})_)?[0-9a-f]{6}(?:-[a-z]+)?")
_COMMIT = re.compile(r"commits/([0-9]{8,})\.json")
_TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{32}")
_SIGNATURE = re.compile(r"signature-[0-9a-f]{32}\.json")
_INDEX = re.compile(r"commits/index-([0-9]{8,})\.json")
_IN_RUN = re.compile(rf"(?:(.*)/)?(?:commits/(?:index-)?[0-9]{{8,}}\.json|checkpoints/(?:{_CHECKPOINT.pattern})/.*)")


def checkpoint_name(*, epoch: int | None, step: int, write_id: str) -> str:
    """Return a fresh folder name that people can read: epochs count from 1 there, the end makes it unique."""
    parts = [] if epoch is None else [f"epoch-{epoch + 1:03d}"]
    if step or epoch is None:
        parts.append(f"step-{step:06d}")
    return "_".join([*parts, write_id[:6]])


def checkpoint_place(name: str) -> tuple[int | None, int] | None:
    """Return the epoch, from 0 (None: before the first), and the steps (0: none were counted) in a checkpoint's name.

    None if the name is none that `checkpoint_name` builds.
    """
    match = _CHECKPOINT.fullmatch(name)
    return None if match is None else (int(match[1]) - 1 if match[1] else None, int(match[2] or 0))


def weights_name(name: str) -> str:
    """Return what a checkpoint's weights are called where they are kept by themselves, too."""
    return name + _WEIGHTS


def whole_name(name: str) -> str:
    """Return the name of the checkpoint that one of `weights_name` was saved with; any other name as it is."""
    return name.removesuffix(_WEIGHTS)


def data_prefix(name: str) -> str:
    """Return the prefix of a checkpoint's files."""
    return f"{CHECKPOINTS}{name}/"


def data_key(name: str, file: str) -> str:
    """Return the key of one file of a checkpoint."""
    return f"{CHECKPOINTS}{name}/{file}"


def signature_file(key_id: str) -> str:
    """Return the file of a checkpoint's folder that holds the signature by one key."""
    return f"signature-{key_id}.json"


def is_signature(file: str) -> bool:
    """Say whether a file of a checkpoint's folder is a signature."""
    return _SIGNATURE.fullmatch(file) is not None


def run_of(path: str) -> str | None:
    """Return the run that `path` is a commit or a checkpoint's file of, by its look; None: of none."""
    match = _IN_RUN.fullmatch(path)
    return None if match is None else match[1] or ""


def run_around(folder: str) -> str | None:
    """Return the run that `folder` is a part of, by its look: a checkpoint's, the best's, that of all, or commits."""
    around, _, name = folder.rstrip("/").rpartition("/")
    if name == BEST_LINK:
        return around or None
    files = ("x", "epoch-001_000000/x", "00000001.json")
    return next((found for file in files if (found := run_of(f"{folder}/{file}")) is not None), None)


def checkpoint_of(key: str) -> str | None:
    """Return the checkpoint's name that `key` is a file of, or None.

    Only names as `checkpoint_name` builds them count: other programs, too, write to folders called "checkpoints", and
    what is not ours is not ours to delete.
    """
    parts = key.split("/")
    inside = len(parts) > 2 and parts[0] == "checkpoints"  # noqa: PLR2004 - folder, name, file
    return parts[1] if inside and _CHECKPOINT.fullmatch(parts[1]) else None


def commit_key(sequence: int) -> str:
    """Return the key of the manifest with this sequence number."""
    return f"{COMMITS}{sequence:08d}.json"


def commit_sequence(key: str) -> int | None:
    """Return the sequence number of a manifest's key, or None if `key` is none."""
    match = _COMMIT.fullmatch(key)
    return int(match[1]) if match and commit_key(int(match[1])) == key else None


def index_key(sequence: int) -> str:
    """Return the key of the index that covers commits up to `sequence`."""
    return f"{COMMITS}index-{sequence:08d}.json"


def index_sequence(key: str) -> int | None:
    """Return the sequence number up to which an index's key covers, or None if `key` is none."""
    match = _INDEX.fullmatch(key)
    return int(match[1]) if match else None


def segments_prefix(key: str) -> str:
    """Return the prefix of the segments of an object that grows, where none can be appended to."""
    return key.rpartition(".")[0] + "/"


def segment_key(key: str, writer: str, number: int) -> str:
    """Return the key of one segment; sorted by key they are in the order of their writers' beginnings."""
    return f"{segments_prefix(key)}{writer}-{number:06d}.{key.rpartition('.')[2]}"


def temporary_of(key: str) -> str | None:
    """Return the temporary file or folder that `key` is or lies in (being written, or left by a crash), or None."""
    parts = key.split("/")
    for number, part in enumerate(parts, start=1):
        if _TEMPORARY.fullmatch(part):
            return "/".join(parts[:number])
    return None
