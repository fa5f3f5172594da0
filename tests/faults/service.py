"""Agencies' HTTPS services that can be away, slow, wrong, or forget to answer; and that ask the ledger at the
very moment when something arrives."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_BAD_ANSWERS = ((500, b"oops"), (429, b""), (302, b""), (503, b"later"), (401, b""))


@dataclass(eq=False)
class Agency:
    """One party's service. *behaviour* is what it does next: takes, is slow, answers wrongly, or takes and
    dies before it answers. What it has taken it keeps by key, and drops what comes again."""

    party: str
    is_logged: Callable[[str, str], bool]
    behaviour: str = "takes"
    taken: dict[str, bytes] = field(default_factory=dict)
    arrivals: Counter[str] = field(default_factory=Counter)
    changed: set[str] = field(default_factory=set)  # keys under which something else came later
    unlogged: set[str] = field(default_factory=set)  # came while the ledger did not hold them
    misbehaved: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, key: str, body: bytes) -> None:
        """Has *body* durably."""
        logged = self.is_logged(self.party, key)
        with self.lock:
            self.arrivals[key] += 1
            if not logged:
                self.unlogged.add(key)
            if self.taken.setdefault(key, body) != body:
                self.changed.add(key)


class Services:
    """A server on loopback with a service for each of *parties*, and a token endpoint for all."""

    def __init__(self, parties: tuple[str, ...], is_logged: Callable[[str, str], bool]) -> None:
        self.agencies = {party: Agency(party, is_logged) for party in parties}
        handler = type("Handler", (_Handler,), {"agencies": self.agencies})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A hub that was killed leaves its request unfinished."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    agencies: dict[str, Agency]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the hub died while it sent this: nothing arrived
            self._hang_up()
            return
        if self.path == "/token":
            token = {"access_token": "t", "token_type": "Bearer", "expires_in": 300}
            self._answer(200, json.dumps(token).encode())
            return
        agency = self.agencies[self.path.removeprefix("/")]
        behaviour, key = agency.behaviour, self.headers["Idempotency-Key"]
        if behaviour != "takes":
            agency.misbehaved += 1
        if behaviour == "is away":
            self._hang_up()
            return
        if behaviour == "answers wrongly":
            nth = agency.misbehaved % (len(_BAD_ANSWERS) + 1)
            if nth == len(_BAD_ANSWERS):
                self.wfile.write(b"nothing like HTTP\r\n\r\n")
                self._hang_up()
            else:
                self._answer(*_BAD_ANSWERS[nth])
            return
        if behaviour == "is slow":
            time.sleep(0.3)
        agency.take(key, body)
        if behaviour == "dies after taking":
            self._hang_up()
            return
        self._answer(202, b"")

    def _hang_up(self) -> None:
        self.close_connection = True

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""
