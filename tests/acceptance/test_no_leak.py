"""Nothing that a whole day leaves holds what its reader may not have; the search would find it if it did."""

import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from consent import guards, minimise
from consent.agreement import BASES, KINDS, PURPOSES, Agreements
from consent.case import Case, PersonInCase
from consent.clause import NEVER_GRANTED
from consent.guards import GUARDS
from consent.policy import Question, decide
from gateway.hub import agreements_folder
from gateway.settings import Settings
from schemas.classes import CLASSES, SUBJECT_ROLES, Facet
from schemas.identifiers import ISSUERS
from tests.acceptance.leaks import (
    Fact,
    Finder,
    Leak,
    Received,
    Search,
    Told,
    entry_grants,
    granted,
    left_in,
)
from tests.acceptance.played import Played, disclosures, replay, submissions, without_answers


def finder_of(played: Played) -> Finder:
    return Finder(played.invented, played.agreements, Told(played.invented, submissions(played.steps)))


def told(leaks: list[Leak]) -> str:
    """For a failure's message: what leaked where, without repeating it."""
    return "\n".join(sorted({str(leak) for leak in leaks})[:20])


# What agencies received


@pytest.fixture(scope="module")
def searched(demo: Played) -> tuple[Finder, list[Leak]]:
    finder = finder_of(demo)
    return finder, finder.leaks(demo.received, disclosures(demo.entries))


def test_no_party_receives_what_it_is_not_granted(searched: tuple[Finder, list[Leak]]) -> None:
    _, leaks = searched
    assert not leaks, told(leaks)


@pytest.mark.parametrize(
    ("party", "kind"),
    [
        ("oranga-tamariki", "address"),
        ("oranga-tamariki", "phone"),
        ("oranga-tamariki", "school"),
        ("police", "code-word"),
        ("corrections", "address"),  # his, where nobody at risk lives
        ("health", "number:health"),
        ("ngo.manaaki#wsw", "address"),
    ],
)
def test_search_sees_what_a_party_is_granted(
    searched: tuple[Finder, list[Leak]], party: str, kind: str
) -> None:
    finder, _ = searched
    assert finder.seen[party, kind] > 0


def test_search_sees_texts_of_every_kind(searched: tuple[Finder, list[Leak]], demo: Played) -> None:
    finder, _ = searched
    # Education is given no numbers, its own included. A refuge stands in words that wait for a person.
    expected = {f.kind for f in demo.invented.facts} - {"name", "number:education", "safe-house"}
    assert expected == {kind for _, kind in finder.seen}


def test_every_class_that_an_entry_gives_is_granted_to_its_party(demo: Played) -> None:
    rights = {p.id: granted(demo.agreements, p) for p in demo.agreements.parties.values()}
    beyond = {
        (entry["party"], cell)
        for entry in demo.entries
        if entry["kind"] == "disclosure"
        for cell, views in entry_grants(entry).items()
        if not views <= rights[entry["party"]].get(cell, frozenset())
    }
    assert not beyond


def test_corrections_is_not_told_his_home_once_another_womans_case_says_it_is_hers(demo: Played) -> None:
    first, second = demo.invented.hard_cases["in-two-families"]
    (shared,) = [
        fact
        for fact in demo.invented.facts
        if fact.kind == "address" and fact.families == {first, second} and len(fact.owners) > 1
    ]
    search, entries = Search([shared]), disclosures(demo.entries)
    known = Told(demo.invented, submissions(demo.steps))
    told_when = [
        known.protects(shared, entries[file.disclosure]["message"])
        for file in demo.received
        if file.party == "corrections" and search.find(file.content)
    ]
    # The first episode came from the other family: nobody had said yet that he lives with a victim.
    assert told_when == [False]


def test_officers_words_that_name_the_refuge_reach_nobody_without_a_person(demo: Played) -> None:
    refuge = [fact for fact in demo.invented.facts if fact.kind == "safe-house"]
    search, entries = Search(refuge), disclosures(demo.entries)
    told_in_words = [
        json.dumps(step, ensure_ascii=False, default=str)
        for step in submissions(demo.steps)
        if search.find(json.dumps(step, ensure_ascii=False, default=str))
    ]
    assert told_in_words  # officers did write where she is
    reached = {entries[file.disclosure]["type"] for file in demo.received if search.find(file.content)}
    assert reached == set()


# What the hub itself says and keeps


@pytest.fixture(scope="module")
def hidden(demo: Played) -> list[Fact]:
    """Every name, number and address of the population, family and given names each alone."""
    # A provider is called Manaaki, as some people are.
    parties = {word for party in demo.agreements.parties for word in re.split(r"\W", party)}
    return [fact for fact in demo.invented.facts if fact.text.casefold() not in parties]


@pytest.fixture(scope="module")
def everything(hidden: list[Fact]) -> Search:
    return Search(hidden)


def test_ledger_holds_nobody(demo: Played, everything: Search) -> None:
    found = {
        fact.kind
        for start in range(0, len(demo.entries), 500)
        for fact in everything.find(json.dumps(demo.entries[start : start + 500], ensure_ascii=False))
    }
    assert len(demo.entries) == demo.report["ledger"]["size"]
    assert not found


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(lambda demo: "\n".join(demo.log), id="log"),
        pytest.param(lambda demo: demo.metrics, id="metrics"),
        pytest.param(lambda demo: json.dumps(demo.headers, ensure_ascii=False), id="headers"),
        pytest.param(lambda demo: json.dumps(demo.report, ensure_ascii=False), id="report"),
        pytest.param(
            lambda demo: "\n".join(str(f.relative_to(demo.folder)) for f in demo.folder.rglob("*")),
            id="files",
        ),
    ],
)
def test_what_operators_see_holds_nobody(
    demo: Played, everything: Search, said: Callable[[Played], str]
) -> None:
    text = said(demo)
    assert len(text) > 100
    assert not {fact.kind for fact in everything.find(text)}


def test_database_holds_nobody_after_the_day(demo: Played, hidden: list[Fact]) -> None:
    # Read as a thief of the disk would: whole files, free pages and the write-ahead log included.
    left = {
        (file.name, fact.kind)
        for file in demo.folder.glob("hub.db*")
        for fact in left_in(file.read_bytes(), hidden)
    }
    assert not left


def test_search_of_the_database_finds_a_body_that_was_left(demo: Played, hidden: list[Fact]) -> None:
    body = next(file for file in demo.received if file.party == "oranga-tamariki").content
    assert left_in(b"\x00\x17\xffSQLite\x01" + body + b"\x00" * 50, hidden)


def test_database_keeps_no_payload_after_the_day(demo: Played) -> None:
    assert not list(demo.folder.glob("hub.db-wal"))
    connection = sqlite3.connect(demo.folder / "hub.db")
    try:
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("queue_message", "outbox", "dead_letter")
        }
        assert connection.execute("PRAGMA freelist_count").fetchone()[0] > 0  # there was something to wipe
    finally:
        connection.close()
    assert counts == {"queue_message": 0, "outbox": 0, "dead_letter": 0}


# A guard taken out is found


@cache
def _reckless() -> str:
    """An agreement, as JSON (which is YAML), that grants everything of everybody to everyone."""
    words = sorted(CLASSES.keys() - NEVER_GRANTED)
    by_section = [{"code": code, "section": "s 1"} for code in BASES]
    clause = {
        "from": ["any"],
        "grants": dict.fromkeys(SUBJECT_ROLES, words),
        "purposes": sorted(PURPOSES),
        "basis": by_section,
        "belief": {
            "kind": "standing",
            "statement": "None whatever; this agreement exists to show what holds in spite of it",
            "decided_by": "nobody",
            "decided_on": "2026-06-20",
            "until": "2028-06-30",
        },
        "conditions": [],
        "obligations": [],
    }
    return json.dumps(
        {
            "agreement": {
                "id": "RECKLESS",
                "version": 1,
                "title": "Everything to everyone",
                "status": "active",
                "instrument": "MOU",
                "lead": "police",
                "purpose": "None",
                "effective_from": "2026-07-01",
                "review_by": "2028-06-30",
            },
            "clauses": [{"id": f"{kind}-ALL", **clause, "to": kind} for kind in KINDS],
        }
    )


@pytest.fixture(scope="session")
def reckless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of agreements that grants everything, with the real parties."""
    folder = tmp_path_factory.mktemp("reckless")
    parties = (agreements_folder(Settings()) / "parties.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(parties)["parties"]
    (folder / "parties.yaml").write_text(parties, encoding="utf-8")
    (folder / "reckless.yaml").write_text(_reckless(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def hard_finder(hard_day: Played) -> Finder:
    return finder_of(hard_day)


# What no agreement can buy. The other rules say what the agreements in force grant, and this one grants more.
GUARDED_RULES = {
    "perpetrator-side",
    "number-of-another-agency",
    "refuge",
    "conflict-of-interest",
    "alert-outside-health",
    "school-told-of-others",
    "school-told-at-low-risk",
    "two-families-in-one-file",
    "without-an-entry",
    "not-given-by-the-entry",
}


def take_out(patch: pytest.MonkeyPatch, guard: str) -> None:
    title, _ = GUARDS[guard]
    patch.setitem(guards.GUARDS, guard, (title, lambda who, subject, facet, view: None))


def leaked(hard_finder: Finder, received: list[Received], entries: list[dict[str, Any]]) -> list[Leak]:
    found = hard_finder.leaks(received, disclosures(entries))
    # Code words are kept from the perpetrator's side by the agreements, which grant the reduced view.
    return [leak for leak in found if leak.rule in GUARDED_RULES and leak.kind != "code-word"]


def test_replayed_day_gives_the_same_files(hard_day: Played, hard_finder: Finder, tmp_path: Path) -> None:
    received, entries = replay(hard_day.steps, tmp_path)
    assert {(f.party, f.disclosure, f.content) for f in received} == {
        (f.party, f.disclosure, f.content) for f in hard_day.received
    }
    assert not hard_finder.leaks(received, disclosures(entries))


def test_guards_hold_whatever_an_agreement_grants(
    hard_day: Played, hard_finder: Finder, reckless: Path, tmp_path: Path
) -> None:
    received, entries = replay(hard_day.steps, tmp_path, reckless)
    assert len(received) > 1.2 * len(hard_day.received)  # it does grant more
    leaks = leaked(hard_finder, received, entries)
    assert not leaks, told(leaks)


@pytest.mark.parametrize(
    ("guard", "rule"),
    [
        ("V1", "refuge"),
        ("V2", "perpetrator-side"),
        ("V3", "perpetrator-side"),
        ("V4", "alert-outside-health"),
        ("V7", "conflict-of-interest"),
        ("V12", "school-told-of-others"),
        ("V12", "school-told-at-low-risk"),
    ],
)
def test_leak_is_found_when_a_guard_is_taken_out(
    without: Callable[[str], list[Leak]], guard: str, rule: str
) -> None:
    assert rule in {leak.rule for leak in without(guard)}


@pytest.fixture(scope="module")
def without(
    hard_day: Played, hard_finder: Finder, reckless: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Leak]]:
    """The leaks of the day under the reckless agreement and without one guard."""

    @cache
    def leaks(guard: str) -> list[Leak]:
        with pytest.MonkeyPatch.context() as patch:
            take_out(patch, guard)
            steps = without_answers(hard_day.steps)
            return leaked(hard_finder, *replay(steps, tmp_path_factory.mktemp("without"), reckless))

    return leaks


def test_leak_is_found_under_the_real_agreements_without_the_guard_of_places(
    hard_day: Played, hard_finder: Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_out(monkeypatch, "V2")
    leaks = leaked(hard_finder, *replay(without_answers(hard_day.steps), tmp_path))
    assert "perpetrator-side" in {leak.rule for leak in leaks}


def test_leak_is_found_when_identifiers_are_not_filtered(
    hard_day: Played, hard_finder: Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minimise, "own_systems", lambda agency: frozenset(ISSUERS))
    leaks = leaked(hard_finder, *replay(without_answers(hard_day.steps), tmp_path))
    assert "number-of-another-agency" in {leak.rule for leak in leaks}


# What the day cannot show. A report of concern goes to Oranga Tamariki alone, so the guard of the notifier is
# never asked; a number that guard IPP13 would let through is dropped by the filter after it.


@pytest.mark.parametrize(
    ("guard", "name", "role"), [("V13", "NOTIFIER-ID", "child"), ("IPP13", "ID-XREF", "victim")]
)
def test_guard_alone_keeps_a_class_from_a_provider_whatever_is_granted(
    reckless: Path, monkeypatch: pytest.MonkeyPatch, guard: str, name: str, role: str
) -> None:
    works = {("ngo.aviva#ivs", "somebody", "ivs")}  # else guard V11 keeps a child's facts as well
    asked = Question(
        type="nz.isr.oranga-tamariki.report-of-concern-submitted.v1",
        purpose="FV-RISK",
        audience="table",
        source="oranga-tamariki",
        roles={"p1": role},
        pseudonyms={"p1": "somebody"},
        holdings={"": frozenset(), "p1": frozenset({Facet(name)})},
        cases=(Case("one", "christchurch", people={"somebody": PersonInCase([role])}, assignments=works),),
        at=datetime.fromisoformat("2026-10-25T10:00:00+13:00"),
    )

    def given() -> Mapping[str, Any]:
        agreements = Agreements.load(reckless)  # afresh: what was decided is remembered
        return decide(agreements, asked, agreements.parties["ngo.aviva#ivs"]).given

    assert not given()
    take_out(monkeypatch, guard)
    assert given() == {"p1": {Facet(name): "full"}}
