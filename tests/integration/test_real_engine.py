"""The same day on RabbitMQ and PostgreSQL as on the embedded engine, what people look at afterwards, and the
private servers it can be played on.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
import psycopg
import pytest
import sqlalchemy as sa

from gateway.auth import AUDIT, OPERATE, mint_session
from gateway.command import main
from gateway.console import COOKIE
from gateway.explain import explain
from gateway.hub import Hub, migrate, open_hub
from gateway.sandbox import servers as private
from gateway.sandbox.day import run_day
from gateway.settings import Settings
from schemas.errors import BadSettings
from tests import servers
from tests.conftest import new_database
from tests.serving import bearer, now, serving

LOOKING = {"officer": "0" * 32, "party": "police", "purpose": "ADM-AUDIT", "reference": ""}
EPISODES, RELEASES = 20, 2
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Played:
    """A day that was played: where, and the report."""

    settings: Settings
    report: dict[str, Any]


@pytest.fixture(scope="module")
def real(
    rabbitmq_server: servers.RabbitServer, postgresql_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("real")
    with new_database(postgresql_url) as database_url, rabbitmq_server.virtual_host() as broker_url:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ISR_HUB_DATABASE_URL", database_url)
            patch.setenv("ISR_HUB_BROKER_URL", broker_url)
            report = run_day(folder, episodes=EPISODES, releases=RELEASES, engine="real", show_progress=False)
        yield Played(Settings(data=folder, database_url=database_url, broker_url=broker_url), report)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("embedded")
    report = run_day(folder, episodes=EPISODES, releases=RELEASES, show_progress=False)
    return Played(Settings(data=folder), report)


@pytest.fixture
def hub(real: Played) -> Iterator[Hub]:
    with open_hub(real.settings, clock=now) as hub:
        yield hub


def test_day_is_the_same_on_both_engines(real: Played, embedded: Played) -> None:
    own = {"folder", "seconds", "day_seconds", "ledger"}

    assert {k: v for k, v in real.report.items() if k not in own} == {
        k: v for k, v in embedded.report.items() if k not in own
    }
    assert real.report["decisions"]["permit"] > 0


def test_day_on_servers_is_received_exactly_as_released_and_proved(real: Played) -> None:
    report = real.report

    assert report["ledger"]["verified"]
    assert report["deliveries"] == report["received"] > 0
    assert [report[k] for k in ("unlogged", "undelivered", "dead_letters", "quarantined")] == [0] * 4


def test_day_is_not_played_beside_somebody_elses_ledger(
    real: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISR_HUB_DATABASE_URL", real.settings.database_url)
    monkeypatch.setenv("ISR_HUB_BROKER_URL", real.settings.broker_url)

    with pytest.raises(BadSettings, match="holds a ledger already"):
        run_day(tmp_path / "again", episodes=1, releases=0, engine="real", show_progress=False)


def test_ledger_in_postgresql_is_exported_and_verified_by_command(
    real: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ISR_HUB_DATABASE_URL", real.settings.database_url)
    monkeypatch.setenv("ISR_HUB_BROKER_URL", real.settings.broker_url)
    key = str(real.settings.data / "ledger.vkey")

    assert main(["export", str(tmp_path / "out"), "--data", str(real.settings.data), "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert main(["verify", str(tmp_path / "out"), "--key", key]) == 0

    assert exported["root"] == real.report["ledger"]["root"]


def test_explain_says_the_same_on_both_engines(hub: Hub, embedded: Played) -> None:
    message = embedded.report["example"]
    with open_hub(embedded.settings, clock=now) as other:
        expected = explain(other, message)

    found = explain(hub, message)

    assert [(r["party"], r["outcome"]) for r in found["recipients"]] == [
        (r["party"], r["outcome"]) for r in expected["recipients"]
    ]
    assert found.keys() == expected.keys()


@pytest.mark.parametrize("page", ["", "/disclosures", "/message", "/agreements", "/set-aside", "/ledger"])
def test_console_shows_its_pages_from_postgresql(hub: Hub, page: str) -> None:
    with serving(hub) as client:
        session = mint_session(hub.settings, [AUDIT, OPERATE], 60, now, LOOKING)
        shown = client.get(f"/console{page}", headers={"Cookie": f"{COOKIE}={session}"})

    assert (shown.status_code, "</html>" in shown.text) == (200, True)


def test_door_serves_ledger_health_and_metrics_on_servers(hub: Hub, real: Played) -> None:
    operator = bearer(hub, "fss", OPERATE, AUDIT)
    with serving(hub) as client:
        health = client.get("/v1/health", headers=operator)
        metrics = client.get("/metrics", headers=operator)
        checkpoint = client.get("/ledger/checkpoint", headers=operator)

    assert health.json()["parts"] == {"database": "pass", "broker": "pass", "ledger": "pass"}
    assert 'isr_queue_messages{queue="submissions"} 0.0' in metrics.text
    assert checkpoint.text.splitlines()[1] == str(real.report["ledger"]["size"])


def test_private_servers_are_those_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISR_HUB_DATABASE_URL", "postgresql+psycopg://named/hub")
    monkeypatch.setenv("ISR_HUB_BROKER_URL", "amqp://named/")

    with private.private_servers(tmp_path) as named:
        assert named == ("postgresql+psycopg://named/hub", "amqp://named/")

    assert list(tmp_path.iterdir()) == []


def test_private_servers_want_their_passwords_and_end_with_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rabbitmq_server: servers.RabbitServer
) -> None:
    """The fixture says that they can be started here at all."""
    monkeypatch.delenv("ISR_HUB_DATABASE_URL", raising=False)
    monkeypatch.delenv("ISR_HUB_BROKER_URL", raising=False)
    with private.private_servers(tmp_path) as (database_url, broker_url):
        psycopg.connect(private.driver_url(database_url)).close()
        pika.BlockingConnection(pika.URLParameters(broker_url)).close()
        stranger = sa.make_url(private.driver_url(database_url)).set(password="guess")
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(stranger.render_as_string(False))
        guest = re.sub("//.*@", "//guest:guest@", broker_url)
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            pika.BlockingConnection(pika.URLParameters(guest))
        ports = [port for url in (database_url, broker_url) if (port := sa.make_url(url).port)]

    assert [listens(port) for port in ports] == [False, False]


def test_demo_ends_its_servers_when_it_is_asked_to_end(
    tmp_path: Path, rabbitmq_server: servers.RabbitServer
) -> None:
    folder = tmp_path / "day"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ISR_HUB_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "gateway.command", "demo", "--engine", "real", "--json"]
    demo = subprocess.Popen(
        [*command, "--data", str(folder)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: any((folder / "agencies").glob("*/received/*")))
        configuration = (folder / "servers" / "rabbitmq" / "rabbit.conf").read_text()
        ports = [int(p) for p in re.findall(r"(?:127\.0\.0\.1:|port = )(\d+)", configuration)]
        assert [listens(port) for port in ports] == [True, True]

        demo.send_signal(signal.SIGTERM)
        assert demo.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    finally:
        if demo.poll() is None:
            demo.send_signal(signal.SIGINT)
            demo.wait()

    assert [listens(port) for port in ports] == [False, False]


def test_private_servers_say_how_to_get_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "RABBITMQ_PROGRAMS", tmp_path / "nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(BadSettings, match=r"apt-get install rabbitmq-server.*ISR_HUB_BROKER_URL"):
        private.rabbitmq(tmp_path).__enter__()


def test_server_that_does_not_start_is_said_with_its_own_words(tmp_path: Path) -> None:
    rejected = ["no.such.setting = 1"]

    with pytest.raises(BadSettings, match="did not start"), private.rabbitmq(tmp_path, rejected):
        pass


def test_hub_opens_once_more_on_servers_that_another_hub_uses(real: Played) -> None:
    """Nothing like the embedded engine's lock: any number of processes may be at work."""
    assert migrate(real.settings)
    with open_hub(real.settings, clock=now) as one, open_hub(real.settings, clock=now) as other:
        assert one.ledger.head() == other.ledger.head()


def listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def until(holds: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        pause.wait(0.05)
