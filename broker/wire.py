"""pika's connection, with fewer system calls."""

from typing import Any

import pika

_READ_BYTES = 32_768  # more would cost more in copying pika's buffer, once a frame, than it saves


class Connection(pika.SelectConnection):
    """Writes what one turn of the loop has to say at once, and reads as much: pika alone makes three system
    calls to send a message and one for every 4 KB that come, each with a wait for Python's lock."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._gathered: list[bytes] = []
        super().__init__(*arguments, **keywords)

    def _proto_connection_made(self, transport: Any) -> None:  # the hooks of pika's own adapters
        transport._MAX_RECV_BYTES = _READ_BYTES
        super()._proto_connection_made(transport)  # type: ignore[misc]  # the stubs leave them out

    def _on_connection_workflow_done(self, outcome: Any) -> None:
        # Of a connection that was closed while it opened, pika hands on the exception's class, which it then
        # takes for a connection: its assertion would end the loop, and leave the other one open.
        super()._on_connection_workflow_done(outcome() if isinstance(outcome, type) else outcome)  # type: ignore[misc]

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._gathered:
            self.ioloop.add_callback_threadsafe(self._flush)
        self._gathered.append(data)

    def cut(self) -> None:
        """Ends the connection without a goodbye, for a peer that answers none; it is reported as closed in
        the loop's next turn."""
        if self._transport is not None:  # type: ignore[attr-defined]  # the stubs leave it out
            self._transport.abort()  # type: ignore[attr-defined]

    def _flush(self) -> None:
        data = b"".join(self._gathered)
        self._gathered.clear()
        if not self.is_closed:
            super()._adapter_emit_data(data)  # type: ignore[misc]
