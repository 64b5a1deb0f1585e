"""The savers of `torch.distributed.checkpoint`, in one process: synchronous, and asynchronous with three stagers."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

from models import Training
from savers import Saver
from torch.distributed import checkpoint
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from typing_extensions import override


class Distributed(Saver):
    """`checkpoint.save`, as it is by default: it flushes its files itself."""

    @override
    def save(self) -> None:
        checkpoint.save(self.training.state(), checkpoint_id=self.next_path())

    @override
    def restore(self) -> None:
        state = self.training.state()
        checkpoint.load(state, checkpoint_id=self.path)
        self.training.load(state)


class DistributedAsync(Distributed):
    """`checkpoint.async_save`, as it is by default."""

    settings: ClassVar[StagingOptions | None] = None

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        self._stager = None if self.settings is None else DefaultStager(self.settings)

    @override
    def save(self) -> None:
        response: Any = checkpoint.async_save(
            self.training.state(), checkpoint_id=self.next_path(), async_stager=self._stager
        )
        if isinstance(response, Future):
            self._staged, self._written = None, response
        else:
            self._staged, self._written = response.staging_completion, response.upload_completion

    @override
    def fence(self) -> None:
        if self._staged is not None:
            self._staged.result()

    @override
    def join(self) -> None:
        self._written.result()

    @override
    def close(self) -> None:
        if self._stager is not None:
            self._stager.close()


class DistributedShared(DistributedAsync):
    """The same with a stager that is kept, and its memory with it, in shared memory."""

    settings = StagingOptions(
        use_pinned_memory=False, use_shared_memory=True, use_async_staging=False, use_non_blocking_copy=False
    )


class DistributedOverlapped(DistributedAsync):
    """The same, and the stager copies in a thread: the script waits for it before the update. Documented for GPUs."""

    settings = StagingOptions(
        use_pinned_memory=False, use_shared_memory=True, use_async_staging=True, use_non_blocking_copy=False
    )
