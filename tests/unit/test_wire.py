"""What broker/wire.py relies on in pika, which promises none of it."""

from pika.adapters.base_connection import BaseConnection
from pika.adapters.utils import io_services_utils
from pika.connection import Connection

from broker import wire


def test_pika_still_has_the_hooks() -> None:
    """Without them the hub would work as before, and slower, and nobody would notice."""
    assert callable(BaseConnection._proto_connection_made)
    assert callable(BaseConnection._adapter_emit_data)
    assert callable(BaseConnection._on_connection_workflow_done)
    assert issubclass(wire.Connection, Connection)
    assert 0 < io_services_utils._AsyncTransportBase._MAX_RECV_BYTES < wire._READ_BYTES
