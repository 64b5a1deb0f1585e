"""HTTP/1.1 as it passes through the proxy, where a bucket's server says too little."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.parse

from contracts import http_faults, proxy


def test_a_reply_of_unknown_length_passes():
    """What ends with the connection, and what comes in chunks, arrives as it was sent; so does its middle."""
    replies = [
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\n\r\n",
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            for reply in replies * 2:
                client, _ = server.accept()
                with client:
                    client.recv(10_000)
                    client.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        with proxy.FaultProxy(f"http://127.0.0.1:{server.getsockname()[1]}") as between:
            assert [ask_once(between.url) for _ in range(2)] == [b"until the end", b"wiki"]
            between.on(http_faults.corrupt_reply())
            assert [ask_once(between.url) for _ in range(2)] == [b"until uhe end", b"wiji"]


def ask_once(url):
    """Return the body of a reply."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=10)
    connection.request("GET", "/")
    body = connection.getresponse().read()
    connection.close()
    return body
