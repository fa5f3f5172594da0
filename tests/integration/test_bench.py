"""The bench measures what it says, on both engines, and leaves nothing behind. No figure is held to anything
here: how fast the hub is, is for people to read.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pika
import psycopg
import pytest

from broker.broker import Outgoing
from broker.rabbitmq import RabbitBroker
from consent import inputs
from consent.entry import DECISION_KINDS
from consent.ledger import Written
from consent.policy import decide_each
from gateway.bench import relays
from gateway.bench.decisions import cedar, narrowed, widened
from gateway.bench.figures import TARGETS, Target
from gateway.bench.load import Addresses, accepted, carried, embedded_hub, episodes
from gateway.bench.parts import step_of
from gateway.bench.run import Size, bench, names
from gateway.bench.year import year
from gateway.command import main
from gateway.exchange import BATCH, Exchange
from gateway.hub import Hub
from schemas.database import reading
from tests import servers
from tests.conftest import missing

TINY = Size(
    repetitions=1, episodes=12, requests=70, entries=1200, appended=300, few=20, queued=40, submissions=3
)


@pytest.fixture(scope="module")
def addresses(rabbitmq_server: servers.RabbitServer, postgresql_url: str) -> Addresses:
    if rabbitmq_server.management is None:
        missing(servers.UnavailableError("needs RabbitMQ's management API"))
    return Addresses(postgresql_url, rabbitmq_server.url, rabbitmq_server.management)


def left(addresses: Addresses) -> list[str]:
    """The databases that the bench made and did not remove."""
    with psycopg.connect(servers.driver_url(addresses.database)) as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'bench%'")
        return [name for (name,) in rows]


ON_SERVERS = ["R1", "R2", "R3", "R5-append", "latency"]
# Three more processes to start for a figure whose code paths the year's test runs as well.
SLOW = {"workers"}


def test_bench_measures_beside_real_servers_and_leaves_nothing(
    addresses: Addresses, rabbitmq_server: servers.RabbitServer
) -> None:
    found = bench(size=TINY, only=ON_SERVERS, addresses=addresses, show_progress=False)

    assert [ratio["id"] for ratio in found["ratios"]] == ["R1", "R2", "R3", "R5-append"]
    for ratio in found["ratios"]:
        assert min(ratio["value"], ratio["ours"]["value"], ratio["beside"]["value"]) > 0, ratio["id"]
    assert {f["topic"] for f in found["figures"]} == {"journey", "ledger", "latency"}
    assert left(addresses) == []
    assert b'"bench-' not in rabbitmq_server.call("GET", "/api/vhosts")


def test_latency_is_that_of_one_submission_at_a_time_however_slow_the_hub(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be that of a queue. Each has a checkpoint of its own."""
    carry = Exchange.carry

    def slow(self: Exchange, limit: int = BATCH, wait_seconds: float = 0.0) -> int:
        threading.Event().wait(0.2)
        return carry(self, limit, wait_seconds)

    monkeypatch.setattr(Exchange, "carry", slow)
    size = replace(TINY, submissions=8)

    found = bench(size=size, only=["latency"], addresses=addresses, show_progress=False)

    counted = {f["name"]: f["repetitions"] for f in found["figures"]}
    assert counted["of it the signed checkpoint, median"] == size.submissions


def test_bench_measures_the_embedded_engine_alone() -> None:
    only = sorted(set(names()) - set(ON_SERVERS) - SLOW)

    found = bench(size=TINY, only=only, real=False, show_progress=False)

    measured = {ratio["id"]: ratio["value"] for ratio in found["ratios"]}
    assert measured.pop("R5-append") is None  # R5 asks for it too, and it needs PostgreSQL
    assert list(measured) == [name for name in TARGETS if name not in ON_SERVERS]
    assert min(measured.values()) > 0
    assert {f["topic"] for f in found["figures"]} >= {"parts", "decide", "what-if", "ledger", "batches"}
    assert [f for f in found["figures"] if f["value"] is None] == []
    assert found["machine"]["fdatasync_ms"] > 0
    assert json.loads(json.dumps(found)) == found


def test_bench_says_what_it_cannot_measure_and_how_it_could(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cedarpy", None)

    found = bench(size=TINY, only=["R1", "R4"], real=False, show_progress=False)

    missing = {ratio["id"]: ratio["why"] for ratio in found["ratios"] if ratio["value"] is None}
    assert set(missing) == {"R1", "R4"}
    assert "RabbitMQ" in missing["R1"]
    assert "pip install cedarpy" in missing["R4"]


def test_bench_by_command_measures_only_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick", "--only", "R5-append", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert [ratio["id"] for ratio in found["ratios"]] == ["R5-append"]
    assert {figure["topic"] for figure in found["figures"]} == {"ledger"}


def test_bench_does_not_guess_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--only", "R9"]) == 2

    said = capsys.readouterr().err.replace("\n", " ")
    assert [name for name in names() if name not in said] == []


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [
        pytest.param(0.8, True, "goal", id="goal"),
        pytest.param(0.5, True, "hold", id="hold"),
        pytest.param(0.4, True, "short", id="short"),
        pytest.param(0.4, False, "goal", id="less-goal"),
        pytest.param(0.7, False, "hold", id="less-hold"),
        pytest.param(0.9, False, "short", id="less-short"),
    ],
)
def test_verdict_says_whether_a_ratio_is_met(value: float, at_least: bool, verdict: str) -> None:
    hold, goal = (0.5, 0.8) if at_least else (0.8, 0.5)

    assert Target("", hold, goal, at_least).verdict(value) == verdict


@pytest.mark.parametrize("engine", ["embedded", "real"])
def test_year_arrives_whole_and_verifies(addresses: Addresses, engine: str) -> None:
    found = year(30, engine=engine, addresses=addresses, show_progress=False)

    assert found["complete"]
    assert found["submissions"] == 30
    assert found["disclosures"] > 30
    assert found["ledger"]["verified"]
    kinds = found["ledger"]["kinds"]
    assert kinds["delivery"] == found["delivered"]
    # The hub's own messages (a recall, when a role changes late) are in the ledger besides.
    assert sum(kinds.get(kind, 0) for kind in DECISION_KINDS) >= sum(found["decisions"].values()) > 30
    assert min(found["disk_mb"]["database"], *found["peak_mb"].values()) > 0
    assert left(addresses) == []


def counts(url: str) -> dict[str, int]:
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel = connection.channel()
        return {
            name: channel.queue_declare(name, passive=True).method.message_count
            for name in (relays.SOURCE, *relays.TARGETS)
        }


@pytest.mark.parametrize("library", ["pika", "FastStream"])
def test_relay_takes_each_message_and_sends_six(rabbitmq_url: str, library: str) -> None:
    """What the hub is compared with does what is said of it."""
    broker = RabbitBroker(rabbitmq_url)
    messages = [Outgoing(relays.SOURCE, b"in", {})] * 40
    with relays.queues(rabbitmq_url):
        if library == "pika":
            seconds = relays.pika_relay(rabbitmq_url, b"out", 40, lambda: broker.publish(messages))
        else:
            broker.publish(messages)
            seconds = relays.faststream_relay(rabbitmq_url, b"out", 40)
        found = counts(rabbitmq_url)
    broker.close()

    assert seconds > 0
    assert found == {relays.SOURCE: 0, **dict.fromkeys(relays.TARGETS, 40)}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with embedded_hub(tmp_path_factory.mktemp("bench")) as hub:
        accepted(hub, episodes(12))
        carried(hub)
        yield hub


def test_clauses_of_other_parties_change_no_decision(hub: Hub) -> None:
    more = widened(hub.agreements, 500)
    with reading(hub.engine).connect() as connection:
        for asked in inputs.stored(connection):
            present, wider = (
                list(decide_each(a, asked.question, a.candidates(asked.question.cases[0].site, "police")))
                for a in (hub.agreements, more)
            )
            assert present == wider

    assert sum(len(agreement.clauses) for agreement in more) == 500


def test_cedar_is_asked_under_the_same_clauses(hub: Hub) -> None:
    """Somebody is allowed, somebody is not, and asking by class is a question for each class."""
    with reading(hub.engine).connect() as connection:
        question = next(inputs.stored(connection)).question
    asking = cedar(hub.agreements, [question])
    assert asking is not None
    by_party, by_class, requests = asking

    assert {answer.allowed for answer in by_party(question)} == {True, False}
    assert len(by_class(question)) == requests(question) > len(by_party(question))


@pytest.mark.parametrize(("kinds", "all_of_them"), [({"MSD", "HNZ"}, False), (None, True)])
def test_drafts_of_the_bench_touch_whom_they_say(hub: Hub, kinds: set[str] | None, all_of_them: bool) -> None:
    draft = narrowed(hub.agreements, kinds)
    changed = {
        clause.recipient
        for before, after in zip(hub.agreements, draft, strict=True)
        for clause, other in zip(before.clauses, after.clauses, strict=True)
        if clause != other
    }

    recipients = {c.recipient for agreement in hub.agreements for c in agreement.clauses if c.grants}
    assert changed == (recipients if all_of_them else kinds)


def test_look_belongs_to_the_step_it_finds(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def encode(entry: Written) -> bytes:
        seen.append(step_of(sys._getframe()))
        return whole(entry)

    whole = Written.encode
    monkeypatch.setattr(Written, "encode", encode)
    accepted(hub, episodes(13)[12:])
    carried(hub)

    assert set(seen) == {"ledger"}
    assert step_of(sys._getframe()) == "the rest"
