"""The hub's processes on real servers: killed, cut off and sent everything twice, they lose nothing and do
nothing twice; and agencies that send by AMQP.
"""

import contextlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pika
import pika.exceptions
import psycopg
import pytest
import sqlalchemy as sa

from adapters.adapter import Native
from broker.broker import SUBMISSIONS, deliveries_to
from broker.outbox import inbox
from broker.topology import DOOR, DOOR_EXCHANGE
from consent.entry import DECISION_KINDS
from consent.ledger import ledger_entry, ledger_head
from consent.placing import case_table
from consent.verify import verify
from gateway.command import main
from gateway.hub import Hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from schemas.database import in_sequence
from tests import servers
from tests.processes import (
    accepted_at_last,
    ended,
    entries,
    moved_until_idle,
    running,
    until,
)

EPISODES = 240


def size(engine: sa.Engine) -> int:
    """Entries in the ledger, read on a connection that survives nothing: the test cuts them too."""
    while True:
        try:
            with engine.connect() as connection:
                return int(connection.execute(sa.select(ledger_head.c.size)).scalar_one())
        except sa.exc.OperationalError:
            continue


def waiting(hub: Hub) -> int:
    """Messages that wait for the hub's own processes."""
    return sum(
        hub.broker.depth(q) for q in (SUBMISSIONS, *(deliveries_to(p) for p in hub.agreements.parties))
    )


def cut_database(url: str) -> int:
    """Ends every connection to the database of *url*; returns how many there were."""
    with psycopg.connect(servers.driver_url(url), autocommit=True) as connection:
        return len(
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()
        )


def assert_everything_once(hub: Hub, accepted: set[str]) -> None:
    """Sent = taken = decided, once for each candidate; released = received, exactly; and the ledger proves
    it to an outsider.
    """
    with hub.engine.connect() as connection:
        taken = set(connection.execute(sa.select(inbox.c.message)).scalars())
        kinds = Counter(connection.execute(sa.select(ledger_entry.c.kind)).scalars())
    log = entries(hub)
    # What the hub says itself, such as a recall, nobody sent.
    decisions = [e for e in log if e["kind"] in DECISION_KINDS and e["source"] != "hub"]
    assert taken == accepted
    assert {e["message"] for e in decisions if e["source"] != "hub"} == accepted  # it warns and recalls, too
    decided = Counter((e["message"], e["party"]) for e in decisions)
    assert max(decided.values()) == 1
    # Decided again before they were sent, since a role was learnt: these never leave.
    stopped = {e["message"] for e in log if e["kind"] == "stopped"}
    released = {
        (e["party"], e["disclosure"])
        for e in log
        if e["kind"] == "disclosure" and e["disclosure"] not in stopped
    }
    delivered = Counter(
        (e["party"], e["message"]) for e in log if e["kind"] == "delivery" and e["outcome"] == "delivered"
    )
    received = Counter(
        (file.parts[-3], file.name.partition(".")[0])
        for file in (hub.settings.data / "agencies").glob("*/received/*")
        if file.name.count(".") == 1
    )
    assert len(released) > EPISODES
    assert set(received) == set(delivered) == released
    assert max(received.values()) == 1
    assert kinds["delivery"] == len(released)
    assert hub.broker.dead_letters() == []
    hub.ledger.export(hub.settings.data / "export")
    report = verify(hub.settings.data / "export", str(hub.settings.data / "ledger.vkey"))
    assert report.ok, report.findings
    assert hub.ledger.checkpoint() == hub.ledger.sign()


def test_workers_lose_nothing_and_do_nothing_twice_when_killed_and_cut_off(
    settings: Settings, hub: Hub, rabbitmq_server: servers.RabbitServer, rabbitmq_url: str
) -> None:
    """Two exchanges and the adapters at work while everything is sent one to three times; one exchange is
    killed in the middle of a batch, then every connection to the database cut, and every one to RabbitMQ."""
    rng = random.Random(11)
    natives = [five_f(i.family, i.episode) for i in stream(11, EPISODES, days=300)]
    sent = [native for native in natives for _ in range(rng.randint(1, 3))]
    parts = [sent[start : start + 10] for start in range(0, len(sent), 10)]
    accepted: set[str] = set()

    def send(count: int) -> None:
        for part in parts[:count]:
            accepted.update(accepted_at_last(hub, "police", part))
        del parts[:count]

    third = len(parts) // 3
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running(settings, "exchange"))
        send(2)
        until(lambda: size(hub.engine) > 0, first)  # so it is the one at work
        second = stack.enter_context(running(settings, "exchange"))
        adapters = stack.enter_context(running(settings, "adapters"))
        with hub.engine.begin() as connection:
            in_sequence(connection)  # so it waits, with a batch in hand
            send(third)
            until(lambda: somebody_waits_for_a_lock(settings.database_url), first, second, adapters)
            first.kill()
            first.wait()
            assert taken_in(hub) < len(accepted)
        first = stack.enter_context(running(settings, "exchange"))
        send(third)
        assert cut_database(settings.database_url) > 0
        send(third)
        rabbitmq_server.close_connections(rabbitmq_url)
        send(len(parts))

        until(lambda: hub_is_idle(hub, accepted), first, second, adapters)
        assert [ended(process) for process in (first, second, adapters)] == [0, 0, 0]

    assert_everything_once(hub, accepted)


def taken_in(hub: Hub) -> int:
    """Submissions that were carried."""
    with hub.engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(inbox)).scalar_one())


def hub_is_idle(hub: Hub, accepted: set[str]) -> bool:
    with hub.engine.connect() as connection:
        kinds = Counter(connection.execute(sa.select(ledger_entry.c.kind)).scalars())
    return (
        taken_in(hub) >= len(accepted)
        and kinds["delivery"] + kinds["stopped"] >= kinds["disclosure"] > 0
        and waiting(hub) == 0
    )


def test_run_until_idle_moves_everything_and_ends(settings: Settings, hub: Hub) -> None:
    natives = [five_f(i.family, i.episode) for i in stream(12, 30, days=30)]
    accepted = accepted_at_last(hub, "police", natives)

    assert [moved_until_idle(settings, part) > 0 for part in ("exchange", "adapters", "all")] == [
        True,
        True,
        False,
    ]

    log = entries(hub)
    assert {e["message"] for e in log if e["kind"] in DECISION_KINDS} == set(accepted)
    kinds = Counter(e["kind"] for e in log)
    assert kinds["delivery"] == kinds["disclosure"] > 0


def test_whole_hub_in_one_process_ends_politely_and_shows_its_metrics(settings: Settings, hub: Hub) -> None:
    door, metrics = servers.free_ports(2)
    ports = {"ISR_HUB_LISTEN": f"127.0.0.1:{door}", "ISR_HUB_METRICS": f"127.0.0.1:{metrics}"}
    with running(settings, "all", **ports) as process:
        until(lambda: answers(f"http://127.0.0.1:{door}/v1/health/live"), process)
        accepted = accepted_at_last(
            hub, "police", [five_f(i.family, i.episode) for i in stream(13, 5, days=30)]
        )
        until(lambda: hub_is_idle(hub, set(accepted)), process)
        shown = httpx.get(f"http://127.0.0.1:{metrics}/metrics").text

        assert ended(process) == 0

    assert "isr_decisions_total{" in shown


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 500
    except httpx.TransportError:
        return False


def test_agency_that_publishes_by_amqp_enters_the_same_journey(
    agencies: Callable[[str], pika.BlockingConnection], settings: Settings, hub: Hub
) -> None:
    """What it sends is carried; what cannot be read waits among the dead letters under its name."""
    native = five_f(*next((i.family, i.episode) for i in stream(14, 1, days=1)))
    with contextlib.closing(agencies("police")) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for body, media_type in ((native.content, native.media_type), (b"{", "application/json"), (b"", "")):
            properties = pika.BasicProperties(content_type=media_type, delivery_mode=2)
            channel.basic_publish(DOOR_EXCHANGE, "police", body, properties, mandatory=True)

    assert moved_until_idle(settings, "gateway") == 3
    moved_until_idle(settings, "exchange")

    decisions = [e for e in entries(hub) if e["kind"] in DECISION_KINDS]
    assert {e["source"] for e in decisions} == {"police"}
    assert len({e["message"] for e in decisions}) == 1
    letters = hub.broker.dead_letters()
    assert [(d.queue, d.headers["party"]) for d in letters] == [("accept", "police")] * 2
    assert hub.broker.depth(DOOR) == 0


def test_carry_sees_what_another_worker_committed_to_the_same_case(hub: Hub) -> None:
    """A worker that comes while another is at work on a case waits, and then starts from what that one left;
    it must not have read the case before."""
    one, other = two_episodes_of_one_case()
    accepted_at_last(hub, "police", [one])
    assert hub.exchange.carry() == 1
    accepted_at_last(hub, "police", [other])
    failures: list[BaseException] = []

    def carry() -> None:
        try:
            while hub.exchange.carry(wait_seconds=1.0) == 0:
                continue
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=carry)
    with hub.engine.begin() as connection:
        in_sequence(connection)
        case = connection.execute(sa.select(case_table)).one()
        facts = json.loads(case.facts)
        changed = json.dumps({**facts, "conflicts": ["ngo.aviva#ivs"]})
        connection.execute(sa.update(case_table).values(facts=changed))
        thread.start()
        until(lambda: somebody_waits_for_a_lock(hub.settings.database_url))
    thread.join()

    with hub.engine.connect() as connection:
        after = json.loads(connection.execute(sa.select(case_table)).one().facts)
    assert failures == []
    assert after["conflicts"] == ["ngo.aviva#ivs"]
    assert after["people"] != facts["people"]


def two_episodes_of_one_case() -> tuple[Native, Native]:
    """Two records of the same family; the second brings somebody new into the case that the first opens."""
    earlier: dict[str, Any] = {}
    for incident in stream(11, 400, days=60):
        former = earlier.setdefault(incident.family.key, incident)
        before, now = former.episode.roles, incident.episode.roles
        if before.items() < now.items():
            return five_f(former.family, former.episode), five_f(incident.family, incident.episode)
    raise AssertionError("this stream has no such family")


def somebody_waits_for_a_lock(url: str) -> bool:
    with psycopg.connect(servers.driver_url(url)) as connection:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return bool(connection.execute(waiting).fetchone()[0])  # type: ignore[index]  # count has one row


def test_topology_declare_may_be_repeated_and_says_what_contradicts_it(
    rabbitmq_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ISR_HUB_BROKER_URL", rabbitmq_url)
    assert [main(["topology", "declare", "--json"]) for _ in range(2)] == [0, 0]
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(rabbitmq_url))) as connection:
        channel = connection.channel()
        channel.queue_delete(SUBMISSIONS)
        channel.queue_declare(SUBMISSIONS, durable=True)
    capsys.readouterr()

    assert main(["topology", "declare", "--json"]) == 1

    assert "PRECONDITION_FAILED" in json.loads(capsys.readouterr().out)["error"]["detail"]


def test_topology_declare_needs_a_rabbitmq(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ISR_HUB_BROKER_URL", raising=False)
    assert main(["topology", "declare", "--json"]) == 1

    monkeypatch.setenv("ISR_HUB_BROKER_URL", f"amqp://127.0.0.1:{servers.free_ports(1)[0]}/")
    assert main(["topology", "declare", "--json"]) == 1
    assert "cannot be reached" in capsys.readouterr().out
