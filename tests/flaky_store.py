"""An S3 store on this machine: moto's server, which speaks S3's protocol, behind a proxy that is busy or breaks off.

The proxy counts requests: every so many of them are refused as a store refuses when it is asked too much, or their
connections are closed, before the store has seen them or when half of its answer was sent.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEY, SECRET = "AKIAEXAMPLEOFTESTS00", "this/is+a/secret/that/nobody/must/see/00"
TEMPLATE = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message>'
    "<RequestId>0</RequestId></Error>"
)
SLOW_DOWN = TEMPLATE.format(code="SlowDown", message="Please reduce your request rate.").encode()
DENIED = TEMPLATE.format(code="AccessDenied", message="Access Denied").encode()
_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class Faults:
    """What goes wrong: every n-th request; 0 for never. `counted` says how often it did.

    Attributes
    ----------
    slow_down : requests answered with 503 SlowDown
    drop : connections closed in place of an answer
    cut : connections closed in the middle of an answer that has a body
    deny : beginnings of paths (``/bucket/...``) that nobody may touch
    delay_s : what passes before each answer, as the way to a store takes
    """

    slow_down: int = 0
    drop: int = 0
    cut: int = 0
    deny: tuple[str, ...] = ()
    delay_s: float = 0.0
    counted: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, path: str) -> str:
        """Say what becomes of the next request."""
        with self._lock:
            number = self._count("requests")
            if path.startswith(self.deny or "?"):
                return self._named("denied")
            for name in ("slow_down", "drop", "cut"):
                every = getattr(self, name)
                if every and number % every == 0:
                    return self._named(name)
            return "answer"

    def _named(self, name: str) -> str:
        self._count(name)
        return name

    def _count(self, name: str) -> int:
        self.counted[name] = self.counted.get(name, 0) + 1
        return self.counted[name]


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store, self.faults = store, Faults()

    def handle_error(self, *_: object) -> None:
        """Clients that are killed leave broken connections: no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Proxy

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
        elif self.parse_request():
            self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.server.faults.next(self.path)
        time.sleep(self.server.faults.delay_s)
        if kind == "slow_down":
            self._send(503, "Slow Down", {"Content-Type": "application/xml"}, SLOW_DOWN)
        elif kind == "denied":
            self._send(403, "Forbidden", {"Content-Type": "application/xml"}, DENIED)
        elif kind == "drop":
            self.close_connection = True
        else:
            self._forward(body, cut=kind == "cut")

    def _forward(self, body: bytes, *, cut: bool) -> None:
        store = http.client.HTTPConnection(*self.server.store, timeout=60)
        try:
            store.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = store.getresponse()
            content = answer.read()
        finally:
            store.close()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _OF_THE_CONNECTION}
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self._send(answer.status, answer.reason, headers, content, length=length, cut=cut)

    def _send(
        self,
        status: int,
        reason: str,
        headers: Mapping[str, str],
        content: bytes,
        length: str = "",
        *,
        cut: bool = False,
    ) -> None:
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        lines.append(f"Content-Length: {length or len(content)}")
        if self.command == "HEAD":
            content = b""
        if cut:
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)


@dataclass(frozen=True)
class FlakyStore:
    """A running store.

    Attributes
    ----------
    url : where the proxy listens
    proxy : which has the faults
    """

    url: str
    proxy: Any

    def set(self, **faults: Any) -> Faults:
        """Begin to count anew, with these faults."""
        self.proxy.faults = Faults(**faults)
        return self.proxy.faults  # type: ignore[no-any-return]

    @property
    def environment(self) -> dict[str, str]:
        """What a user of S3 has in the environment."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def _forget(port: int) -> None:
    """Make the store an empty one: moto keeps what earlier servers of this process were given."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/moto-api/reset")
    assert connection.getresponse().status == 200
    connection.close()


@contextlib.contextmanager
def flaky_store() -> Iterator[FlakyStore]:
    """Start a store without buckets and without faults."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or it writes down every request
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    _forget(port)
    proxy = _Proxy(("127.0.0.1", port))
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield FlakyStore(f"http://127.0.0.1:{proxy.server_address[1]}", proxy)
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        moto.stop()
