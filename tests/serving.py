"""A small hub with real agreements and a few carried messages, and its door on a loopback port."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from rich.console import Console

from adapters.adapter import Native
from gateway.auth import mint
from gateway.door import create_app
from gateway.hub import Hub, open_hub
from gateway.settings import Settings
from schemas.message import identity
from tests.format_examples import NOW, examples


def now() -> datetime:
    """The only time there is in these tests."""
    return NOW.astimezone(UTC)


@contextmanager
def small_hub(folder: Path, **settings: Any) -> Iterator[Hub]:
    """An open hub in *folder*, empty."""
    with open_hub(Settings(data=folder, **settings), clock=now) as hub:
        yield hub


def episode() -> dict[str, Any]:
    """An episode as Police's system writes it."""
    found: dict[str, Any] = examples("police")[0]
    return found


def sent(hub: Hub, party: str, record: Any) -> list[str]:
    """The ids of the messages that *party*'s *record* became, carried and delivered."""
    receipt = hub.exchange.accept(
        party, [Native(json.dumps(record).encode(), "application/json", "in.json")]
    )[0]
    assert receipt.rejected == []
    hub.exchange.finish()
    return receipt.accepted


def own_message(party: str, key: str, **changes: Any) -> dict[str, Any]:
    """A canonical message of *party* about a person that no case knows: the change of somebody's custody."""
    event = {
        "specversion": "1.0",
        "id": identity(party, key),
        "source": f"urn:isr:{party}",
        "type": "nz.isr.corrections.custody-changed.v1",
        "time": "2026-11-22T03:00:00Z",
        "datacontenttype": "application/json",
        "data": {
            "custody": {"person": "p1", "event": "bailed", "at": "2026-11-22T03:00:00Z"},
            "people": [{"ref": "p1", "role": "perpetrator", "name": {"given": "Tāne", "family": "Ngārimu"}}],
        },
    }
    return {**event, **changes}


@contextmanager
def serving(hub: Hub, out: Console | None = None) -> Iterator[httpx.Client]:
    """The door on *hub*, and a client of it that says nothing of who it is."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(hub, out), host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    )
    started = threading.Event()
    startup = server.startup

    async def start(*arguments: Any, **named: Any) -> None:
        await startup(*arguments, **named)
        started.set()

    server.startup = start  # type: ignore[method-assign]  # tells when the port is open, without asking again and again
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(10)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def bearer(hub: Hub, party: str, *scopes: str) -> dict[str, str]:
    """The header that lets *party* in with *scopes* (default: to submit and read)."""
    wanted = scopes or ("messages:submit", "messages:read")
    return {"Authorization": f"Bearer {mint(hub.settings, party, wanted, clock=now)}"}
