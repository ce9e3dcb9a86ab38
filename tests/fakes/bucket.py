"""Buckets on loopback: moto's server, and one of our own that can be bent."""

import contextlib
import logging
import ssl
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import obstore
import obstore.store

KEY, SECRET = "AKIDTEST", "s3cr3t-s3cr3t-s3cr3t"
BUCKET = "checkpoints"
LONG_AGO = "Thu, 01 Jan 2026 00:00:00 GMT"


def credentials_file(folder: Path, key: str = KEY, secret: str = SECRET) -> str:
    """Write a file of credentials for the owner alone and return its path."""
    path = folder / f"{key}.ini"
    path.write_text(
        f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    )
    path.chmod(0o600)
    return str(path)


def make_bucket(url: str, bucket: str = BUCKET) -> None:
    """Make a bucket by a signed PUT of the empty key: obstore has no call for it."""
    store = obstore.store.S3Store(
        bucket,
        config={
            "endpoint": url,
            "region": "us-east-1",
            "access_key_id": KEY,
            "secret_access_key": SECRET,
        },
        client_options={"allow_http": True},
    )
    signed = obstore.sign(store, "PUT", "", timedelta(minutes=1))
    request = urllib.request.Request(signed, method="PUT")  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass


@contextlib.contextmanager
def moto_bucket() -> Iterator[str]:
    """Run moto's server in this process with one bucket; yield its URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        make_bucket(url)
        yield url
    finally:
        server.stop()


class BentBucket:
    """One bucket over HTTP that does what a test tells it to.

    Attributes
    ----------
    objects : dict of str to (bytes, dict)
        Key to bytes and user metadata.
    faults : deque of str
        What the next requests meet, one each; "" is none. See `_Handler`.
    requests : list of str
        Verbs so far.

    Parameters
    ----------
    tls : SSLContext, optional
        What it answers with; else it speaks http.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.faults: deque[str] = deque()
        self.requests: list[str] = []
        self.honours_conditions = True
        self.turn = threading.Lock()
        self.hold = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server.bucket = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients that hang up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    """The faults: each is named where it happens.

    "500", "403", "409", "503": that answer; nothing is done. "lost": nothing is done,
    the connection ends. "lost after": it is done, then the connection ends. "slow":
    no answer until the test is over. "short": half of the body. "no length": a body
    of any length. "other first": another writer's object is there, then 412.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    @property
    def bucket(self) -> BentBucket:
        bucket: BentBucket = self.server.bucket  # type: ignore[attr-defined]
        return bucket

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")

    def _fault(self, verb: str) -> str:
        self.bucket.requests.append(verb)
        fault = self.bucket.faults.popleft() if self.bucket.faults else ""
        if fault == "slow":
            self.bucket.hold.wait(30)
        if fault in {"lost", "slow"}:
            self.close_connection = True
        elif fault.isdigit():
            self._answer(int(fault), b"<Error><Code>Bent</Code></Error>")
        else:
            return fault
        return "done"

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self._fault("PUT")
        if fault == "done":
            return
        bucket = self.bucket
        mine = {
            name.lower(): value
            for name, value in self.headers.items()
            if name.lower().startswith("x-amz-meta-")
        }
        with bucket.turn:
            if fault == "other first":
                bucket.objects[self.key] = (b"theirs", {})
            exists = self.key in bucket.objects and bucket.honours_conditions
            if exists and self.headers["If-None-Match"] == "*":
                code = b"<Error><Code>PreconditionFailed</Code></Error>"
                self._answer(412, code)
                return
            bucket.objects[self.key] = (body, mine)
        if fault == "lost after":
            self.close_connection = True
        else:
            self._answer(200, ETag='"1"')

    def do_GET(self) -> None:
        fault = self._fault(self.command)
        if fault == "done":
            return
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query.get("prefix", [""])[0])
            return
        if self.key not in self.bucket.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        data, metadata = self.bucket.objects[self.key]
        about: dict[str, Any] = {"ETag": '"1"', "Last-Modified": LONG_AGO, **metadata}
        if fault == "short":
            self.send_response(200)
            for name, value in about.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif fault == "no length":
            self.send_response(200)
            for name, value in about.items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data * 1000)
            self.close_connection = True
        else:
            self._answer(200, data, **about)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        if self._fault("DELETE") != "done":
            self.bucket.objects.pop(self.key, None)
            self._answer(204)

    def _list(self, prefix: str) -> None:
        rows = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(data)}</Size><ETag>1</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, (data, _) in sorted(self.bucket.objects.items())
            if key.startswith(prefix)
        )
        self._answer(200, f"<ListBucketResult>{rows}</ListBucketResult>".encode())
