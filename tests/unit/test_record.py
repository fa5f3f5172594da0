"""Entries are put together from parts; what comes out is canonical JSON that says what was decided."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from consent.decision import Decision, Findings, Outcome, Question
from consent.entry import DECISION_KINDS, read_entry, referred, withheld
from consent.people import Keys
from consent.placing import Placed
from consent.policy import decide
from gateway.explain import explain
from gateway.hub import Hub, open_hub
from gateway.record import Recorder, Release, delivered_entry
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from schemas.canonical import canonical, canonical_trusted
from schemas.catalogue import holdings
from schemas.errors import HubError, RefusedByRecipient
from schemas.message import Message

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with open_hub(Settings(data=Path(tmp_path_factory.mktemp("hub"))), clock=lambda: NOW) as hub:
        hub.exchange.accept("police", [five_f(i.family, i.episode) for i in stream(5, 40, days=1)])
        while hub.exchange.carry():
            pass
        yield hub


def entries(hub: Hub) -> list[bytes]:
    size = hub.ledger.sign().size
    return list(hub.ledger.entries(0, size))


def test_entries_are_canonical_json(hub: Hub) -> None:
    found = entries(hub)
    assert len(found) > 400
    assert {orjson.loads(raw)["kind"] for raw in found} >= {"disclosure", "refusal"}
    for raw in found:
        assert raw == canonical_trusted(orjson.loads(raw))


def test_entry_says_what_was_decided(hub: Hub) -> None:
    """Every part of a decision stands in its entry, word for word."""
    bodies = [body for body in map(orjson.loads, entries(hub)) if body["kind"] in DECISION_KINDS]
    message = bodies[0]["message"]
    told = {one["party"]: one for one in explain(hub, message)["recipients"]}
    for body in (b for b in bodies if b["message"] == message):
        one = told[body["party"]]
        assert [w["class"] for w in one["withheld"]] == [name for _, name, _ in withheld(body)]
        assert set(body["reasons"]) >= {reason for _, _, reason in withheld(body)}
        assert body["given"] or "disclosure" not in body


def written(decision: Decision) -> Mapping[str, Any]:
    said = Message("police", 'id\u2028"1', "nz.isr.police.episode-recorded.v1", "2026-11-22T03:00:00Z", {})
    agreements = type("Set", (), {"version_hash": "h"})()
    recorder = Recorder(
        Keys(b"k" * 32).salt, said, Placed((), {}, {}), {}, {}, agreements, "2026-11-22T03:00:00.000Z"
    )
    raw = recorder.entry(decision, Release("d", b"{}", b"") if decision.given else None)
    body: Mapping[str, Any] = orjson.loads(raw.data)
    assert raw.data == canonical_trusted(body)
    assert (raw.kind, raw.source, raw.message, raw.party) == tuple(
        body[name] for name in ("kind", "source", "message", "party")
    )
    return body


def test_entry_of_a_refusal_without_any_word() -> None:
    body = written(Decision(Outcome.REFUSE, {}, "FV-RISK", "msd", Findings()))
    assert (body["withheld"], body["given"], body["conditions"], body["referred"]) == ({}, {}, {}, {})
    assert list(withheld(body)) == list(referred(body)) == []
    assert "content" not in body


def test_entries_of_two_messages_share_no_salt(hub: Hub) -> None:
    salts = [body["salt"] for body in map(orjson.loads, entries(hub)) if "salt" in body]
    assert len(set(salts)) == len(salts)


def test_entry_follows_the_decision_for_each_recipient(hub: Hub) -> None:
    """The entry's parts equal those of a decision made anew."""
    (incident,) = stream(9, 1, days=1)
    message = hub.exchange.read("police", five_f(incident.family, incident.episode)).messages[0]
    kind = hub.catalogue[message.type]
    with hub.engine.begin() as connection:
        refs, placed = hub.exchange.place_one(connection, message, kind)
    _, held = holdings(kind.shape, placed.data)
    question = Question(
        message.type,
        kind.purpose,
        kind.audience,
        message.source,
        placed.roles,
        refs,
        {ref: frozenset(facets) for ref, facets in held.items()},
        placed.cases,
        NOW,
    )
    for party in hub.agreements.parties.values():
        decision = decide(hub.agreements, question, party)
        said = written(decision)
        assert list(decision.clauses) == said["clauses"]
        assert dict(decision.conditions) == said["conditions"]
        assert list(decision.guards) == said["guards"]
        assert list(decision.basis) == said["basis"]
        assert list(decision.obligations) == said["obligations"]
        assert list(decision.reasons) == said["reasons"]
        assert set(decision.withheld) == set(withheld(said))
        assert set(decision.referred) == set(referred(said))


@pytest.mark.parametrize("answer", [None, RefusedByRecipient()])
def test_the_end_of_a_delivery_is_written_in_canonical_bytes(answer: HubError | None) -> None:
    """Headers are nobody's promise: whatever stands in them is escaped as JSON does."""
    headers = {"id": 'odd "id"\n', "type": "nz.isr.hub.recall.v1", "entry": "7"}
    entry = delivered_entry("ngo.aviva#ivs", headers, answer, "2026-11-22T03:00:00.000Z")
    body = orjson.loads(entry.data)
    assert entry.data == canonical(body)
    assert (body["message"], body["disclosure"], body["party"]) == (headers["id"], 7, "ngo.aviva#ivs")
    said = {"outcome": "delivered"} if answer is None else {"outcome": "refused", "reasons": [answer.code]}
    assert said.items() <= body.items()
    assert read_entry(entry.data)[1:] == (entry.kind, entry.source, entry.message, entry.party)
