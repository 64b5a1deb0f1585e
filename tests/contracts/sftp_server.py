"""A real SFTP server on this machine: asyncssh's, in a thread, with a folder for its root.

with SftpServer(folder) as server:
    Checkpointer(f"{server.url}/run-1", policy, storage_options=server.options, …)
"""

from __future__ import annotations

import asyncio
import os
import threading

import asyncssh

HOST = "127.0.0.1"
USER = "trainer"
PASSWORD = "correct-horse-battery"


class SftpServer:
    """Serves `folder` until the end of the `with` block, as OpenSSH would.

    Args:
        folder: A path.
        serves: How it answers: a class of asyncssh.SFTPServer.
    """

    def __init__(self, folder, serves=asyncssh.SFTPServer):
        self.folder = folder
        self.connections = []
        """All there ever were."""
        self._serves = serves
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._listener = None
        self.port = 0

    def __enter__(self):
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *exception):
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self):
        """Where its root is, without credentials."""
        return f"sftp://{HOST}:{self.port}"

    @property
    def options(self):
        """The credentials."""
        return {"username": USER, "password": PASSWORD}

    @property
    def url_with_password(self):
        """Where its root is, with credentials."""
        return f"sftp://{USER}:{PASSWORD}@{HOST}:{self.port}"

    def start(self):
        """Listen, on the port of the last time if there was one."""
        self._listener = self._run(self._listen())
        self.port = self._listener.get_port()

    def stop(self):
        """Take no connections any more, and drop those there are."""
        self._listener.close()
        self._run(self._listener.wait_closed())
        self.drop()

    def drop(self):
        """Drop all connections without a word, as a router does with those that were idle for long."""
        self._run(self._drop())

    async def _listen(self):
        return await asyncssh.listen(
            HOST,
            self.port,
            server_factory=lambda: _Guard(self.connections),
            server_host_keys=[self._key],
            sftp_factory=lambda channel: self._serves(channel, chroot=os.fspath(self.folder)),
            reuse_address=True,
        )

    async def _drop(self):
        for connection in self.connections:
            connection.abort()
        await asyncio.sleep(0.05)

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)


class _Guard(asyncssh.SSHServer):
    """Lets in who knows the password."""

    def __init__(self, connections):
        self._connections = connections

    def connection_made(self, conn):
        self._connections.append(conn)

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        return (username, password) == (USER, PASSWORD)


class Overwriting(asyncssh.SFTPServer):
    """A server whose RENAME replaces what is there, as some do against the protocol."""

    def rename(self, oldpath, newpath):
        os.replace(self.map_path(oldpath), self.map_path(newpath))  # noqa: PTH105 - paths are bytes


class Plain(asyncssh.SFTPServer):
    """A server without OpenSSH's extensions."""

    def posix_rename(self, oldpath, newpath):
        raise asyncssh.SFTPOpUnsupported("Operation unsupported")
