"""A hub on real servers, and agencies that have users of their own in RabbitMQ."""

import contextlib
import json
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pika
import pytest

from gateway.command import main
from gateway.hub import Hub, migrate, open_hub
from gateway.settings import Settings
from tests import servers
from tests.processes import NOW


@pytest.fixture
def settings(rabbitmq_url: str, postgresql_empty_database: str, tmp_path: Path) -> Settings:
    settings = Settings(
        data=tmp_path / "hub", database_url=postgresql_empty_database, broker_url=rabbitmq_url
    )
    migrate(settings)
    return settings


@pytest.fixture
def hub(settings: Settings) -> Iterator[Hub]:
    with open_hub(settings, clock=lambda: NOW) as hub:
        yield hub


@pytest.fixture
def agencies(
    settings: Settings,
    rabbitmq_server: servers.RabbitServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[str], pika.BlockingConnection]]:
    """Connects as a party, after an operator has given RabbitMQ what `isr-hub topology export` wrote."""
    monkeypatch.setenv("ISR_HUB_BROKER_URL", settings.broker_url)
    monkeypatch.setenv("ISR_HUB_DATABASE_URL", settings.database_url)
    passwords = tmp_path / "passwords.json"
    assert main(["topology", "export", "--passwords", str(passwords), "--data", str(settings.data)]) == 0
    definitions = json.loads(capsys.readouterr().out)
    made = [user["name"] for user in definitions["users"]]
    if known := set(made) & rabbitmq_server.users():
        pytest.skip(f"this RabbitMQ has users of these names already: {', '.join(sorted(known))}")
    try:
        rabbitmq_server.call("POST", "/api/definitions", json.dumps(definitions).encode())
        assert passwords.stat().st_mode & 0o777 == 0o600
        written = json.loads(passwords.read_text("utf-8"))
        assert main(["topology", "export", "--passwords", str(passwords), "--data", str(settings.data)]) == 0
        capsys.readouterr()
        assert json.loads(passwords.read_text("utf-8")) == written
        place = urlsplit(settings.broker_url)

        def connect(party: str) -> pika.BlockingConnection:
            url = f"amqp://{quote(party, safe='')}:{written[party]}@{place.hostname}:{place.port}{place.path}"
            return pika.BlockingConnection(pika.URLParameters(url))

        yield connect
    finally:
        for user in made:
            with contextlib.suppress(urllib.error.HTTPError):  # it was not made
                rabbitmq_server.call("DELETE", f"/api/users/{quote(user, safe='')}")
