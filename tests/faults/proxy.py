"""A network that the tests can cut: everything between the hub and one server goes through a `Proxy` on
loopback."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

_LOOPBACK = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)  # close without goodbye: the other side sees a reset


class Proxy:
    """Passes connections on to *port*. Can *refuse* new ones, *cut* those that are there, hold every piece
    back for *delay* seconds, or *swallow*: take everything and pass nothing on."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((_LOOPBACK, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.refuses = False
        self.delay = 0.0
        self.swallows = False
        self.passed = 0  # connections so far
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        """How many are there now."""
        with self._lock:
            return len(self._open) // 2

    def cut(self) -> int:
        """Ends every connection at once; returns how many there were."""
        with self._lock:
            ended, self._open = self._open, set()
        for each in ended:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        return len(ended) // 2

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Cut, and nobody gets through meanwhile."""
        self.refuses = True
        self.cut()
        try:
            yield
        finally:
            self.refuses = False

    @contextlib.contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Every piece arrives *seconds* late meanwhile."""
        self.delay = seconds
        try:
            yield
        finally:
            self.delay = 0.0

    @contextlib.contextmanager
    def mute(self) -> Iterator[None]:
        """Connections stay open and nothing arrives meanwhile; then they end, for what was lost is lost."""
        self.swallows = True
        try:
            yield
        finally:
            self.cut()
            self.swallows = False

    def close(self) -> None:
        """Ends everything."""
        self.refuses = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            try:
                server = socket.create_connection((_LOOPBACK, self._target), timeout=10)
            except OSError:  # the server itself is away
                client.close()
                continue
            server.settimeout(None)
            with contextlib.suppress(OSError):  # the client is gone already
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.passed += 1
            with self._lock:
                self._open |= {client, server}
            # From here on `cut` may close both at any moment, which ends what passes between them.
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                if self.delay:
                    time.sleep(self.delay)
                if not self.swallows:
                    sink.sendall(piece)
        except OSError:
            pass
        with self._lock:
            self._open -= {source, sink}
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
