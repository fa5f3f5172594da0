"""The files under deploy/ fit the hub: its settings, its metrics, its tables, its commands."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import yaml
from prometheus_client import CollectorRegistry
from psycopg import sql

from consent.retention import load
from gateway import disposal, migrations
from gateway.access import Viewer
from gateway.command import _parser
from gateway.disposal import Disposal
from gateway.hub import migrate, open_hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings, from_environment
from gateway.telemetry import Telemetry
from schemas.database import metadata
from tests import servers
from tests.serving import now

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
# What rabbitmq_prometheus of RabbitMQ 3.10 shows.
RABBITMQ = {
    "rabbitmq_detailed_queue_consumers",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_detailed_queue_messages_unacked",
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_alarms_free_disk_space_watermark",
}

WHO = Viewer("0" * 32, "hub", "OPERATE", "DIS-2026-1")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_name_metrics_that_exist() -> None:
    registry = CollectorRegistry()
    Telemetry(registry)
    ours = {
        name
        for metric in registry.collect()
        for name in (metric.name, f"{metric.name}_total", f"{metric.name}_bucket")
    }
    named = {
        word for rule in rules() for word in re.findall(r"\b(?:isr|rabbitmq)_[a-z_]+\b(?!\")", rule["expr"])
    }

    assert named - ours - RABBITMQ == set()


def test_alerts_lead_to_a_section_of_the_page_for_operators() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    anchors = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }
    for rule in rules():
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (file, anchor in anchors) == ("docs/operations.md", True), rule["alert"]


def test_every_alert_is_tested() -> None:
    tested = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text("utf-8"))["tests"]
    fires = {
        case["alertname"] for test in tested for case in test["alert_rule_test"] if case.get("exp_alerts")
    }

    assert fires == {rule["alert"] for rule in rules()}


def test_promtool_agrees_where_it_is_installed() -> None:
    if (promtool := shutil.which("promtool")) is None:
        return  # the package prometheus; the tests above need it not
    folder = DEPLOY / "prometheus"
    for command in (
        ["check", "config", "--syntax-only", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_example_of_settings_is_read_by_the_hub() -> None:
    lines = (DEPLOY / "hub.env").read_text("utf-8").splitlines()
    environment = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    settings = from_environment(environment)

    assert settings.production
    assert not settings.embedded_broker


def test_units_start_processes_that_there_are() -> None:
    wanted = (DEPLOY / "systemd" / "isr-hub.target").read_text("utf-8")
    parts = re.findall(r"isr-hub@(\w+)\.service", wanted)
    unit = (DEPLOY / "systemd" / "isr-hub@.service").read_text("utf-8")

    assert parts == ["gateway", "exchange", "adapters"]
    assert "\nExecStart=/opt/isr-hub/bin/isr-hub run %i\n" in unit


@pytest.mark.parametrize("name", ["isr-witness.service", "isr-monitor.service"])
def test_units_of_those_outside_run_commands_that_there_are(name: str) -> None:
    unit = (DEPLOY / "systemd" / name).read_text("utf-8")
    (line,) = re.findall(r"^ExecStart=/opt/isr-hub/bin/isr-hub (.*)$", unit, re.M)
    assert _parser().parse_args(line.split()).run


@pytest.fixture
def restricted(postgresql_empty_database: str) -> Iterator[str]:
    """The URL of a migrated database, as the role that runs the hub."""
    admin = servers.driver_url(postgresql_empty_database)
    place = sa.make_url(postgresql_empty_database)
    # Roles belong to the whole server, so the test's have names of their own.
    owner, role, records = (f"{place.database}_{name}" for name in ("owner", "hub", "records"))

    def renamed(name: str) -> bytes:
        text = (DEPLOY / "postgresql" / name).read_text("utf-8")
        text = re.sub(r"\bisr_hub_owner\b", owner, text)
        text = re.sub(r"\bisr_hub_records\b", records, text)
        return re.sub(r"\bisr_hub\b", role, text).encode()

    def url(user: str) -> str:
        return place.set(username=user, password="a-password").render_as_string(False)

    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(renamed("roles.sql"))
        for name in (owner, role, records):
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal("a-password"))
            )
        migrate(Settings(database_url=url(owner), broker_url="amqp://unused/"))
        with psycopg.connect(servers.driver_url(url(owner)), autocommit=True) as own:
            own.execute(renamed("grants.sql"))
        yield url(role)
        for name in (records, role, owner):
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_hub_runs_as_a_role_that_cannot_change_the_ledger(
    restricted: str, rabbitmq_url: str, tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path, database_url=restricted, broker_url=rabbitmq_url)
    with open_hub(settings, clock=now) as hub:
        natives = [five_f(i.family, i.episode) for i in stream(15, 40, days=20)]
        for start in (0, 20):
            hub.exchange.accept("police", natives[start : start + 20])
            hub.exchange.finish()
        size = hub.ledger.sign().size
        hub.ledger.export(tmp_path / "export")
        refused = []
        for statement in (
            "UPDATE ledger_entry SET entry = ''",
            "DELETE FROM ledger_entry",
            "TRUNCATE ledger_entry",
            "UPDATE ledger_checkpoint SET size = 0",
            "DELETE FROM ledger_checkpoint",
            "DELETE FROM ledger_head",
            "DELETE FROM inbox",
            "DROP TABLE ledger_entry",
            "CREATE TABLE more (id INTEGER)",
        ):
            with hub.engine.connect() as connection, pytest.raises(sa.exc.ProgrammingError) as error:
                connection.execute(sa.text(statement))
            refused.append(type(error.value.orig))

    assert size > len(natives)
    assert set(refused) == {psycopg.errors.InsufficientPrivilege}


def test_only_the_role_for_records_disposes(restricted: str, rabbitmq_url: str, tmp_path: Path) -> None:
    place = sa.make_url(restricted)
    records = place.set(username=f"{str(place.username).removesuffix('hub')}records").render_as_string(False)
    common = {"data": tmp_path, "broker_url": rabbitmq_url}
    with open_hub(Settings(database_url=restricted, **common), clock=now) as hub:  # type: ignore[arg-type]
        hub.exchange.accept("police", [five_f(i.family, i.episode) for i in stream(15, 2, days=1)])
        hub.exchange.finish()
        disposal.hold(hub, WHO, "complaint", "message", "x", "C-1")
    later = now() + timedelta(days=800)
    for url, may in ((restricted, False), (records, True)):
        with open_hub(Settings(database_url=url, **common), clock=lambda: later) as hub:  # type: ignore[arg-type]
            work = Disposal(hub, load(), WHO)
            if may:
                assert {d.rule.id: d.disposed for d in work.run()}["inbox"] == 2
                assert hub.ledger.sign().size > 2
            else:
                with pytest.raises(sa.exc.ProgrammingError):
                    work.run()


def test_grants_name_every_table_of_postgresql() -> None:
    """A new table is thought about: what the hub may do with it is written down."""
    granted = (DEPLOY / "postgresql" / "grants.sql").read_text("utf-8")

    assert {t for t in metadata.tables if t not in granted} == migrations.EMBEDDED_ONLY
