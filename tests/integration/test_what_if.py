"""Past decisions under a draft: what is kept of a decision, that it decides the same again, and what a draft
would have changed. And the commands that tell it.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adapters.adapter import Native
from consent import inputs, replay
from consent.agreement import Agreements
from consent.case import Case, PersonInCase
from consent.clause import Clause
from consent.entry import DECISION_KINDS, referred, withheld
from consent.policy import Question, decide_all
from consent.replay import Replay, opening_day
from consent.space import noon
from gateway import queries
from gateway.command import GOOD, MISUSED, WRONG, main
from gateway.hub import Hub
from gateway.sandbox.day import run_day
from gateway.settings import from_environment
from schemas.classes import Facet
from schemas.database import open_database, reading
from tests.serving import episode, now, sent, small_hub

FOLDER = Path(__file__).parents[2] / "consent" / "agreements"
PRESENT = Agreements.load(FOLDER)
DAY = date(2026, 11, 22)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that has carried one episode."""
    with small_hub(tmp_path / "hub") as opened:
        sent(opened, "police", episode())
        yield opened


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """A copy of the agreements, to change."""
    return Path(shutil.copytree(FOLDER, tmp_path / "draft"))


def change(draft: Path, file: str, before: str, after: str) -> Agreements:
    text = (draft / file).read_text("utf-8")
    assert before in text
    (draft / file).write_text(text.replace(before, after, 1), "utf-8")
    return Agreements.load(draft)


def kept(hub: Hub) -> list[inputs.Asked]:
    with reading(hub.engine).connect() as connection:
        return list(inputs.stored(connection))


def replayed(hub: Hub, before: Agreements, after: Agreements) -> Replay:
    past = Replay(before, after, DAY)
    for asked in kept(hub):
        past.take(asked)
    return past


def decisions(agreements: Agreements, asked: inputs.Asked) -> Iterator[tuple[str, Any]]:
    """What each party would get, asked one by one."""
    question = asked.question
    sites = frozenset(case.site for case in question.cases)
    for party in replay._recipients(agreements, asked, sites):
        for recipient, decision in decide_all(agreements, question, [party], asked.numbered):
            yield recipient.id, decision


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_carry_keeps_one_question_a_message_and_drops_duplicates(hub: Hub) -> None:
    sent(hub, "police", episode())

    assert len(kept(hub)) == 1


def test_kept_question_holds_nothing_that_the_sender_wrote(hub: Hub) -> None:
    with reading(hub.engine).connect() as connection:
        (row,) = connection.execute(sa.select(inputs.decision_input.c.asked)).scalars()

    written = {text for text in strings(episode()) if len(text) >= 4}
    # Site and place names of the structure aside, nothing of the record is in it.
    sites = {site for party in PRESENT.parties.values() for site in party.sites}
    assert [t for t in written if t.encode() in row and t.lower() not in sites] == []
    (asked,) = kept(hub)
    assert all(re.fullmatch("[0-9a-f]{32}", pseudonym) for pseudonym in asked.question.pseudonyms.values())
    (case,) = asked.question.cases
    places = {place for person in case.people.values() for place in person.households}
    assert places
    assert all(re.fullmatch("[0-9a-f]{24,}", place) for place in places)


def test_kept_question_is_the_question_that_was_decided(hub: Hub) -> None:
    (asked,) = kept(hub)
    decided = {row.body["party"]: row.body for row in queries.decisions_on(hub.engine, asked.message)}

    again = dict(decisions(PRESENT, asked))

    assert set(again) == set(decided)
    for party, decision in again.items():
        assert decision.outcome.value == decided[party]["outcome"]
        assert set(decision.withheld) == set(withheld(decided[party]))
        assert list(decision.clauses) == decided[party]["clauses"]
        assert dict(decision.conditions) == decided[party]["conditions"]


def without(agreements: Agreements, keep: Callable[[Clause], bool]) -> Agreements:
    """A draft with the clauses that *keep* lets through, all under new names."""
    drafts = [
        replace(a, version=a.version + 1, clauses=tuple(c for c in a.clauses if keep(c))) for a in agreements
    ]
    return Agreements(agreements.parties, drafts, "draft")


def with_party(agreements: Agreements, id: str, **changes: Any) -> Agreements:
    parties = {**agreements.parties, id: replace(agreements.parties[id], **changes)}
    return Agreements(parties, tuple(agreements), "draft")


DRAFTS = {
    "new-names-only": without(PRESENT, lambda _: True),
    "nothing-for-health": without(PRESENT, lambda c: c.recipient != PRESENT.parties["health"].kind),
    "nothing-from-anybody": without(PRESENT, lambda c: "any" not in c.sources),
    "no-clause-of-a-table": without(PRESENT, lambda c: "ASSIGNED" not in c.conditions),
    "recipient-left": with_party(PRESENT, "corrections", active=False),
    "recipient-elsewhere": with_party(PRESENT, "oranga-tamariki", sites=frozenset({"christchurch"})),
    "recipient-of-another-kind": with_party(PRESENT, "health", kind=PRESENT.parties["msd"].kind),
    "recipient-without-status": with_party(PRESENT, "fss", status={}),
    "sender-left": with_party(PRESENT, "police", active=False),
    "sender-of-another-kind": with_party(PRESENT, "police", kind=PRESENT.parties["msd"].kind),
}


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> list[inputs.Asked]:
    """The questions of a small day."""
    folder = tmp_path_factory.mktemp("past") / "day"
    run_day(folder, episodes=3, releases=1, show_progress=False)
    with reading(open_database(from_environment(data=folder).database)).connect() as connection:
        return list(inputs.stored(connection))


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("turned", [False, True], ids=["to-draft", "from-draft"])
def test_what_is_not_decided_again_could_not_differ(
    past: list[inputs.Asked], name: str, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft's replay skips parties for whom both sets say the same: asking everybody finds nothing more."""
    first, second = (DRAFTS[name], PRESENT) if turned else (PRESENT, DRAFTS[name])
    quick, whole = Replay(first, second, DAY), Replay(first, second, DAY)
    monkeypatch.setattr(whole, "_is_same", lambda *_: False)
    for asked in past:
        quick.take(asked)
        whole.take(asked)

    assert (quick.found.decisions, quick.found.changed) == (whole.found.decisions, whole.found.changed)
    assert quick.found.rows() == whole.found.rows()
    assert (whole.found.changed > 0) is (name != "new-names-only")


def test_every_kept_question_of_a_day_decides_as_the_ledger_says(tmp_path: Path) -> None:
    run_day(tmp_path / "day", episodes=2, releases=1, show_progress=False)
    with reading(open_database(from_environment(data=tmp_path / "day").database)).connect() as connection:
        asked = list(inputs.stored(connection))
        engine = connection.engine
        decided = {
            (row.body["source"], row.body["message"], row.body["party"]): row.body
            for row in queries.between(engine, 0, 100_000)
            if row.body["kind"] in DECISION_KINDS
        }

    again = {
        (one.question.source, one.message, party): decision
        for one in asked
        for party, decision in decisions(PRESENT, one)
    }

    assert set(again) == set(decided)
    assert any(one.numbered for one in asked)
    assert any(one.to for one in asked)
    for key, decision in again.items():
        body = decided[key]
        assert set(decision.withheld) == set(withheld(body))
        assert set(decision.referred) == set(referred(body))
        assert list(decision.clauses) == body["clauses"]
        assert dict(decision.conditions) == body["conditions"]
        assert list(decision.guards) == body["guards"]
    engine.dispose()


def test_kept_question_survives_being_written_and_read() -> None:
    case = Case(
        "one", "christchurch", True, "high", {"s1": PersonInCase(["victim", "perpetrator"], {"a"}, "b", "s2")}
    )
    case.assignments = {("gp", "s1", "task")}
    question = Question(
        type="nz.isr.police.episode-recorded.v1",
        purpose="FV-RISK",
        audience="addressee",
        source="police",
        roles={"p1": "perpetrator"},
        pseudonyms={"p1": "s1"},
        holdings={
            "": frozenset(),
            "p1": frozenset({Facet("CHILD-HH", True, False), Facet("RISK", False, True)}),
        },
        cases=(case,),
        at=now(),
        elsewhere=(Case("two", "", False),),
    )
    asked = inputs.Asked("m", "gp", question, {"p1": frozenset({"health", "msd"})})

    assert inputs._decoded(*inputs.encode(asked)) == asked


def test_replay_finds_nothing_when_nothing_changed(hub: Hub) -> None:
    found = replayed(hub, PRESENT, Agreements.load(FOLDER)).found

    assert (found.messages, found.changed, found.rows()) == (1, 0, [])
    assert found.decisions > 1


def test_replay_tells_what_a_draft_withholds_by_party_class_and_reason(hub: Hub, draft: Path) -> None:
    # Given: Oranga Tamariki would see the episode at high risk only, and no risk was assessed yet
    text = (draft / "isr-table.yaml").read_text("utf-8")
    start = text.index("- id: OT-EPISODE")
    end = text.index("conditions: [", start) + len("conditions: [")
    (draft / "isr-table.yaml").write_text(text[:end] + "RISK_HIGH, " + text[end:], "utf-8")

    # When: the past is asked again
    rows = replayed(hub, PRESENT, Agreements.load(draft)).found.rows()

    # Then: only Oranga Tamariki loses, with the condition as the reason and the message as example
    assert rows
    assert {row["party"] for row in rows} == {"oranga-tamariki"}
    summary = [row for row in rows if (row["role"], row["data_class"]) == ("case", "EPISODE-SUM")]
    assert [(r["before"], r["after"], r["reason"]) for r in summary] == [("full", "", "unmet-RISK_HIGH")]
    assert summary[0]["examples"] == [kept(hub)[0].message]
    assert not any(row["widens"] for row in rows)


def test_replay_tells_what_a_draft_widens(hub: Hub) -> None:
    found = replayed(hub, Agreements(PRESENT.parties, [], ""), PRESENT).found

    assert found.changed
    assert all(row["widens"] for row in found.rows())
    assert {row["before"] for row in found.rows()} == {""}


def test_replay_counts_a_party_that_the_draft_no_longer_has(hub: Hub) -> None:
    without = Agreements({i: p for i, p in PRESENT.parties.items() if i != "fss"}, PRESENT, "")

    rows = replayed(hub, PRESENT, without).found.rows()

    assert {row["party"] for row in rows} == {"fss"}
    assert {row["reason"] for row in rows} == {"not-considered"}


def test_replay_asks_both_sides_on_a_day_when_the_draft_has_begun(draft: Path) -> None:
    after = change(draft, "isr-education.yaml", "effective_from: 2026-07-01", "effective_from: 2027-02-01")

    assert opening_day(after, DAY) == date(2027, 2, 1)
    assert opening_day(PRESENT, DAY) == DAY
    assert noon(DAY).tzinfo is not None


def test_what_if_command_writes_nothing_and_tells_the_changes(
    hub: Hub, draft: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (draft / "isr-table.yaml").read_text("utf-8")
    (draft / "isr-table.yaml").write_text(text.replace("COI_CLEAR]", "COI_CLEAR, RISK_HIGH]"), "utf-8")
    data = hub.settings.data
    head = hub.ledger.head()
    bytes_before = {
        p: p.read_bytes() for p in sorted(data.rglob("*")) if p.is_file() and "-shm" not in p.name
    }

    status = main(["agreements", "what-if", str(draft), "--data", str(data), "--json", "--day", "2026-11-22"])

    told = json.loads(capsys.readouterr().out)
    assert status == GOOD
    assert told["messages"] == 1
    assert told["changed"] > 0
    assert told["changes"][0]["examples"]
    assert hub.ledger.head() == head
    assert {p: p.read_bytes() for p in bytes_before} == bytes_before


def test_what_if_command_makes_no_hub_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["agreements", "what-if", str(FOLDER), "--data", str(tmp_path / "none"), "--json"])

    assert status == WRONG
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-found"
    assert list(tmp_path.iterdir()) == []


def test_unused_command_leaves_out_what_the_ledger_cites(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    cited = {
        c
        for row in queries.between(hub.engine, 0, hub.ledger.head().size)
        for c in row.body.get("clauses", ())
    }
    day = now().date().isoformat()

    status = main(
        ["agreements", "unused", "--days", "30", "--day", day, "--data", str(hub.settings.data), "--json"]
    )

    found = {row["clause"] for row in json.loads(capsys.readouterr().out)}
    everything = {a.name_of(c) for a in PRESENT for c in a.clauses}
    assert status == GOOD
    assert cited
    assert found == everything - cited


@pytest.mark.parametrize(
    "words",
    [
        ["diff", "one"],
        ["what-if"],
        ["who-can-learn", "ADDR-V", "of", "victim"],
        ["unused", "more"],
        ["unused", "--days", "0"],
        ["prove", "more"],
        ["text", "ONE", "TWO"],
        ["odrl", "ONE", "TWO"],
        ["check", "more"],
    ],
    ids=" ".join,
)
def test_agreements_command_answers_2_when_used_wrongly(words: list[str]) -> None:
    assert main(["agreements", *words]) == MISUSED


@pytest.mark.parametrize(
    "words", [["text", "NONE"], ["odrl", "NONE"], ["who-can-learn", "X", "about", "victim"]]
)
def test_agreements_command_answers_1_for_what_does_not_exist(words: list[str]) -> None:
    assert main(["agreements", *words]) == WRONG


@pytest.mark.parametrize(
    "words",
    [
        ["text", "ISR-EDUCATION"],
        ["odrl", "ISR-EDUCATION"],
        ["who-can-learn", "NOTIFIER-ID", "about", "child"],
        ["diff", str(FOLDER), str(FOLDER)],
    ],
    ids=lambda w: w[0],
)
def test_agreements_command_answers_in_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agreements", *words, "--json"]) == GOOD
    json.loads(capsys.readouterr().out)


def test_unreadable_input_leaves_no_question(tmp_path: Path) -> None:
    with small_hub(tmp_path / "hub") as hub:
        hub.exchange.accept("police", [Native(b"{", "application/json", "in.json")])
        hub.exchange.finish()
        assert kept(hub) == []
