"""A member of etcd that says what a test wants: its gateway over HTTP on loopback."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, object] | None
WELL: Mapping[str, Answer] = {
    "/version": (200, {"etcdserver": "3.5.21"}),
    "/v3/maintenance/status": (200, {"header": {"cluster_id": "7"}}),
    "/v3/cluster/member/list": (200, {"members": [{}, {}, {}]}),
    "/v3/maintenance/alarm": (200, {}),
    "/v3/kv/deleterange": (200, {}),
}
"""What a healthy member says; None means no answer: the connection is closed."""


class Member:
    """What was asked of it, and what it answers; by path."""

    def __init__(self, answers: Mapping[str, Answer | Callable[[Any], Answer]]) -> None:
        self.answers = {**WELL, **answers}
        self.asked: list[tuple[str, Any]] = []
        self.date = ""
        member = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

            def date_time_string(self, timestamp: float | None = None) -> str:
                return member.date or super().date_time_string(timestamp)

            def do_GET(self) -> None:
                self._reply(None)

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                self._reply(json.loads(self.rfile.read(size)))

            def _reply(self, body: Any) -> None:
                member.asked.append((self.path, body))
                given = member.answers.get(self.path, (404, "not found"))
                answer = given(body) if callable(given) else given
                if answer is None:
                    self.close_connection = True
                    return
                status, said = answer
                data = (said if isinstance(said, str) else json.dumps(said)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            request_queue_size = 64

        self.server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def member(
    answers: Mapping[str, Answer | Callable[[Any], Answer]] | None = None,
) -> Iterator[Member]:
    """Yield a member that listens on loopback."""
    made = Member(answers or {})
    thread = threading.Thread(
        target=made.server.serve_forever, kwargs={"poll_interval": 0.01}
    )
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()
