"""Stores: the place to store refused."""

from __future__ import annotations

from .base import KeepbestError


class StorageError(KeepbestError, OSError):
    """The place to store refused, in a way that no more special error names.

    When: at any call that reads or writes, and, for what is written in the background, at the call after it.

    Do: See what the store says, which the text repeats; `location` says where.
    """

    def __init__(self, location: str, problem: str) -> None:
        self.location, self.problem = location, problem
        super().__init__(f"{location}: {problem}")


class ObjectNotFoundError(StorageError, FileNotFoundError):
    """No object of that key.

    When: when an object is read that was deleted, or never written.

    Do: Look at the location; a run that somebody tidied up by hand may lack files.
    """

    def __init__(self, location: str) -> None:
        super().__init__(location, "does not exist.")


class ObjectExistsError(StorageError, FileExistsError):
    """An object of that key exists, and the call was to create it only if absent.

    When: when an export, a signature or a file would take the place of another.

    Do: Give another name, or remove what is there.
    """

    def __init__(self, location: str) -> None:
        super().__init__(location, "exists already and was not overwritten. Give another name, or remove it first.")


class StorageFullError(StorageError):
    """No space or quota left.

    When: at a save. Older checkpoints are unharmed, and what was half-written is removed.

    Do: Free some space, or keep fewer checkpoints; the next save is tried as if nothing had been.
    """

    def __init__(self, location: str, *, needed: int | None = None, free: int | None = None) -> None:
        self.needed, self.free = needed, free
        figures = "" if needed is None or free is None else f" ({needed:,} bytes are needed, {free:,} are free)"
        super().__init__(
            location, f"no space is left{figures}. Older checkpoints are unharmed. Free some space, or keep fewer."
        )


class StoragePermissionError(StorageError, PermissionError):
    """Reading, writing or deleting is not allowed there.

    When: at the first call that needs it; `needs` names the permission, where the store says so.

    Do: Grant it (docs/buckets.md has the whole list), or give another URL.
    """

    def __init__(self, location: str, action: str, *, needs: str | None = None) -> None:
        self.action, self.needs = action, needs
        remedy = f"The credentials lack {needs}; grant it" if needs else "Check who owns it"
        super().__init__(location, f"cannot {action}: permission denied. {remedy}, or give another URL.")


class CredentialsError(StorageError, PermissionError):
    """There are no credentials, or the store does not accept them. They are never shown.

    When: at the first request to a store.

    Do: Give valid ones in storage_options, the environment or a profile.
    """

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(
            location, f"{problem} Give valid ones in storage_options, the environment or a profile, and try again."
        )


class BucketNotFoundError(StorageError):
    """The bucket does not exist. Not an `ObjectNotFoundError`: nothing can be said of the objects in it.

    When: at the first request to a store.

    Do: Create the bucket, or check its name and the endpoint's.
    """

    def __init__(self, location: str, bucket: str) -> None:
        self.bucket = bucket
        super().__init__(
            location, f"the bucket '{bucket}' does not exist. Create it, or check its name and the endpoint's."
        )


class WrongRegionError(StorageError):
    """The request went to another region than the bucket's.

    When: at the first request to a store.

    Do: Set AWS_DEFAULT_REGION, or region_name in storage_options, to the region that the text names.
    """

    def __init__(self, location: str, region: str | None) -> None:
        self.region = region
        named = f"in the region '{region}'" if region else "in another region than the one that was asked"
        say = region or "…"
        super().__init__(
            location,
            f"the bucket is {named}. Set AWS_DEFAULT_REGION={say}, or give "
            f"storage_options={{'client_kwargs': {{'region_name': '{say}'}}}}.",
        )


class UnreachableError(StorageError, ConnectionError):
    """The store gave no usable answer within the deadline, in spite of retries.

    When: at any request. What was stored before is unharmed.

    Do: Check the network and the endpoint, and try again.
    """

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(
            location,
            f"{problem}. What was stored before is unharmed. Check the network and the endpoint, and try again.",
        )


class UnexpectedAnswerError(StorageError):
    """The answer is not one that such a store gives.

    When: at any request: a proxy or a login page stands in between.

    Do: Check the endpoint and the proxy settings.
    """

    def __init__(self, location: str, found: str) -> None:
        self.found = found
        super().__init__(
            location,
            f"the answer is {found}, which this kind of store never sends: a proxy or a login page may stand in "
            "between, or the endpoint is not the store's. Check the endpoint and the proxy settings.",
        )


class ConditionalWriteError(StorageError):
    """The store does not create a key only if it is absent, which is what tells two writers apart.

    When: at the first save of a run.

    Do: If only one training ever writes there, give the option that the text names; else use another store.
    """

    def __init__(self, location: str, option: str) -> None:
        self.option = option
        super().__init__(
            location,
            "this store does not create objects only if they are absent, so two trainings that write to one run would "
            "overwrite each other's checkpoints unnoticed. If only one ever writes, give "
            f"storage_options={{{option}}}; else use another store.",
        )
