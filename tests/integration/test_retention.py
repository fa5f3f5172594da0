"""Disposal takes what is due and nothing that is held; each part and its entry are one thing."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adapters.adapter import Native
from broker.outbox import inbox
from consent import inputs
from consent.ledger import Ledger
from consent.people import People, person_identifier, person_key
from consent.placing import case_person, case_table
from consent.retention import CASES, CLASSES, DEAD_LETTERS, DECISION_INPUTS, INBOX, PEOPLE, Authority, load
from consent.subjects import subject_key
from consent.verify import verify
from consent.waiting import referral
from gateway import command, disposal
from gateway.access import Viewer
from gateway.disposal import Disposal, Disposed
from gateway.hub import Hub, open_hub
from gateway.queries import between
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from tests.serving import now

WHO = Viewer("0" * 32, "police", "OPERATE", "DIS-2026-1")
ALLOWED = {
    id: replace(rule, authority=Authority("TEST", "for the test", True), keeps_care_records=False)
    for id, rule in load().items()
}
FAMILIES = [five_f(i.family, i.episode) for i in stream(15, 2, days=1)]
LATER = timedelta(days=3651)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = now()

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a hub that carried the episodes of two families, and set one input aside."""
    folder = tmp_path_factory.mktemp("carried")
    with open_hub(Settings(data=folder), clock=now) as hub:
        hub.exchange.accept("police", FAMILIES)
        hub.exchange.accept("police", [Native(b"{", "application/json", "x.json")])
        hub.exchange.finish()
    return folder


@pytest.fixture
def hub(carried: Path, tmp_path: Path, clock: Clock) -> Iterator[Hub]:
    """That hub, this test's own."""
    shutil.copytree(carried, tmp_path / "hub")
    with open_hub(Settings(data=tmp_path / "hub"), clock=clock) as hub:
        yield hub


def close(hub: Hub, *ids: str) -> None:
    """Closes cases, as a closed plan does, when nothing waits for a person any more."""
    with hub.engine.begin() as connection:
        connection.execute(sa.delete(referral))
        for id, facts in connection.execute(sa.select(case_table.c.id, case_table.c.facts)).all():
            if not ids or id in ids:
                said = {**json.loads(facts), "open": False}
                connection.execute(
                    sa.update(case_table).where(case_table.c.id == id).values(facts=json.dumps(said))
                )


def count(hub: Hub, table: sa.Table) -> int:
    with hub.engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def acts(hub: Hub) -> list[dict[str, Any]]:
    rows = between(hub.engine, 0, hub.ledger.head().size)
    return [dict(row.body) for row in rows if row.body["kind"] == "retention"]


def dispose(hub: Hub, only: str | None = None, *, dry: bool = False) -> dict[str, Disposed]:
    return {d.rule.id: d for d in Disposal(hub, ALLOWED, WHO).run(only, dry=dry)}


def asked(hub: Hub) -> list[inputs.Asked]:
    with hub.engine.connect() as connection:
        return list(inputs.stored(connection))


# what goes, and what says so


def test_nothing_goes_before_its_time(hub: Hub) -> None:
    before = [count(hub, t) for t in (inputs.decision_input, inbox, case_table)]
    assert {d.due for d in dispose(hub).values()} == {0}
    assert acts(hub) == []
    assert [count(hub, t) for t in (inputs.decision_input, inbox, case_table)] == before
    assert min(before) > 0
    assert len(hub.broker.dead_letters()) == 1


def test_all_that_is_due_goes_and_the_ledger_says_so_and_still_verifies(hub: Hub, clock: Clock) -> None:
    kept = hub.ledger.sign().note
    close(hub)
    cases, people, identifiers = (count(hub, t) for t in (case_table, case_person, person_identifier))
    assert min(cases, people, identifiers) > 0
    dispose(hub)  # from here they are seen closed
    clock.at += LATER
    first = dispose(hub)
    assert {id: (d.due, d.disposed) for id, d in first.items() if id != PEOPLE} == {
        DECISION_INPUTS: (2, 2),
        DEAD_LETTERS: (1, 1),
        INBOX: (2, 2),
        CASES: (cases, cases),
    }
    clock.at += LATER  # people are in no case since the last run
    last = dispose(hub)[PEOPLE]
    assert last.disposed == last.due > 0
    for table in (inputs.decision_input, inbox, case_table, case_person, person_identifier, subject_key):
        assert count(hub, table) == 0
    assert hub.broker.dead_letters() == []
    said = acts(hub)
    assert [(a["act"], a["class"]) for a in said] == [("disposed", id) for id in CLASSES]
    assert all(a["authority"] == "TEST" and a["count"] > 0 and a["until"] < a["at"] for a in said)
    hub.ledger.sign()
    assert verify(hub.settings.data, str(hub.settings.data / "ledger.vkey"), kept).ok
    assert {d.due for d in dispose(hub).values()} == {0}  # safe to repeat
    assert len(acts(hub)) == len(said)


def test_listing_changes_nothing(hub: Hub, clock: Clock) -> None:
    clock.at += LATER
    size, inputs_before = hub.ledger.head().size, count(hub, inputs.decision_input)
    assert dispose(hub, dry=True)[DECISION_INPUTS].due == inputs_before
    assert (hub.ledger.head().size, count(hub, inputs.decision_input)) == (size, inputs_before)
    assert len(hub.broker.dead_letters()) == 1


def test_without_authority_nothing_goes(hub: Hub, clock: Clock) -> None:
    clock.at += LATER
    rules = {id: replace(r, authority=replace(r.authority, in_force=False)) for id, r in ALLOWED.items()}
    found = Disposal(hub, rules, WHO).run()
    assert {d.disposed for d in found} == {0}
    assert max(d.due for d in found) > 0
    assert acts(hub) == []


def test_parts_of_a_class_go_one_after_the_other(
    hub: Hub, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disposal, "PART", 1)
    clock.at += LATER
    assert dispose(hub, INBOX)[INBOX].disposed == 2
    assert [a["count"] for a in acts(hub)] == [1, 1]


# holds


def person_of(asked: inputs.Asked) -> str:
    return sorted(asked.question.pseudonyms.values())[0]


@pytest.mark.parametrize("scope", ["person", "case", "message"])
def test_what_is_held_stays_and_its_neighbour_goes(hub: Hub, clock: Clock, scope: str) -> None:
    close(hub)
    dispose(hub)
    first, second = asked(hub)
    assert not set(first.question.pseudonyms.values()) & set(second.question.pseudonyms.values())
    mine = {case.id for case in first.question.cases}
    ref = {"person": person_of(first), "case": sorted(mine)[0], "message": first.message}[scope]
    id, _ = disposal.hold(hub, WHO, "complaint", scope, ref, "C-2026-4")
    clock.at += LATER
    found = dispose(hub)
    assert {k: (d.held, d.disposed) for k, d in found.items() if k not in (PEOPLE, DEAD_LETTERS)} == {
        DECISION_INPUTS: (1, 1),
        INBOX: (1, 1),
        CASES: (len(mine), len({case.id for case in second.question.cases})),
    }
    assert [one.message for one in asked(hub)] == [first.message]
    assert (found[DEAD_LETTERS].held, found[DEAD_LETTERS].disposed) == (1, 0)  # it may be about anybody
    clock.at += LATER
    again = dispose(hub)[PEOPLE]
    assert (again.held > 0) == (scope == "message")
    with hub.engine.connect() as connection:
        assert set(connection.execute(sa.select(case_person.c.case_id)).scalars()) == mine
    disposal.release(hub, WHO, id)
    found = dispose(hub)
    assert [found[k].disposed for k in (DECISION_INPUTS, DEAD_LETTERS, INBOX, CASES)] == [1, 1, 1, len(mine)]
    assert [a["act"] for a in acts(hub) if a["act"] != "disposed"] == ["held", "released"]


def test_hold_on_everything_stops_everything(hub: Hub, clock: Clock) -> None:
    close(hub)
    dispose(hub)
    disposal.hold(hub, WHO, "breach", "all", "", "B-2026-1")
    clock.at += LATER
    found = dispose(hub)
    assert {d.disposed for d in found.values()} == {0}
    assert found[DECISION_INPUTS].held == 2


def test_hold_names_nobody_in_the_ledger(hub: Hub) -> None:
    pseudonym = person_of(asked(hub)[0])
    id, due = disposal.hold(hub, WHO, "access-request", "person", pseudonym, "AR-2026-31")
    (said,) = acts(hub)
    assert (said["act"], said["hold"], said["reason"]) == ("held", id, "access-request")
    assert pseudonym not in json.dumps(said)
    assert due is not None
    # Twenty working days from Sunday 22 November, by the Privacy Act's calendar.
    assert due.date() == date(2026, 12, 18)
    (listed,) = disposal.holds(hub)
    assert pseudonym not in json.dumps(listed)


def test_held_person_who_is_in_no_case_any_more_stays(hub: Hub, clock: Clock) -> None:
    held, free = (person_of(one) for one in asked(hub))
    with hub.engine.begin() as connection:
        connection.execute(sa.delete(case_person))
    dispose(hub)
    disposal.hold(hub, WHO, "proceeding", "person", held, "P-2026-1")
    clock.at += LATER
    found = dispose(hub)[PEOPLE]
    assert (found.held, found.disposed) == (1, found.due - 1)
    with hub.engine.connect() as connection:
        left = set(connection.execute(sa.select(person_key.c.pseudonym)).scalars())
    assert left == {held}
    assert free not in left


def test_hold_of_a_newer_hub_holds_everything(hub: Hub, clock: Clock) -> None:
    disposal.hold(hub, WHO, "breach", "case", "x", "B-2026-1")
    with hub.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE legal_hold SET scope = 'continent'")
    clock.at += LATER
    assert {d.disposed for d in dispose(hub).values()} == {0}


# what is kept besides


def test_care_records_stay_where_the_class_says_so(hub: Hub, clock: Clock) -> None:
    close(hub)
    dispose(hub)
    clock.at += LATER
    rules = {id: replace(rule, keeps_care_records=True) for id, rule in ALLOWED.items()}
    with hub.engine.connect() as connection:
        cases = [json.loads(f) for f in connection.execute(sa.select(case_table.c.facts)).scalars()]
    care = sum(any("child" in p["roles"] for p in case["people"].values()) for case in cases)
    found = {d.rule.id: d for d in Disposal(hub, rules, WHO).run()}[CASES]
    assert care > 0
    assert (found.care, found.disposed) == (care, len(cases) - care)


def test_case_with_an_open_referral_or_reopened_stays(hub: Hub, clock: Clock) -> None:
    close(hub)
    dispose(hub)
    first, second = (sorted(case.id for case in one.question.cases)[0] for one in asked(hub))
    with hub.engine.begin() as connection:
        values: dict[str, Any] = dict.fromkeys(referral.c.keys(), "")
        values |= {"id": "r", "state": "waiting", "cases": json.dumps([first]), "mandatory": False}
        connection.execute(sa.delete(referral))
        connection.execute(sa.insert(referral), [values])
        facts = connection.execute(
            sa.select(case_table.c.facts).where(case_table.c.id == second)
        ).scalar_one()
        reopened = json.dumps({**json.loads(facts), "open": True})
        connection.execute(sa.update(case_table).where(case_table.c.id == second).values(facts=reopened))
    clock.at += LATER
    found = dispose(hub)[CASES]
    assert (found.busy, found.disposed) == (1, 0)
    with hub.engine.connect() as connection:
        assert set(connection.execute(sa.select(case_table.c.id)).scalars()) >= {first, second}


# crashes


@pytest.mark.parametrize("only", [DECISION_INPUTS, INBOX, CASES, PEOPLE, DEAD_LETTERS])
def test_without_its_entry_nothing_is_gone(
    hub: Hub, clock: Clock, only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close(hub)
    if only == PEOPLE:
        with hub.engine.begin() as connection:
            connection.execute(sa.delete(case_person))
    dispose(hub)
    clock.at += LATER

    def fails(*_: object) -> range:
        raise OSError("the power went")

    tables = (inputs.decision_input, inbox, case_table, person_identifier)
    before = [count(hub, t) for t in tables], len(hub.broker.dead_letters())
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", fails)
        with pytest.raises(OSError, match="power"):
            dispose(hub, only)
    assert ([count(hub, t) for t in tables], len(hub.broker.dead_letters())) == before
    found = dispose(hub, only)[only]
    assert found.disposed == found.due > 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_dead_letter_is_taken_out_once_its_disposal_is_in_the_ledger(
    hub: Hub, clock: Clock, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    clock.at += LATER
    take: Callable[[str], Any] = hub.broker.take_dead_letter

    def fails(number: str) -> None:
        if when == "after":
            take(number)
        raise OSError("the power went")

    monkeypatch.setattr(hub.broker, "take_dead_letter", fails)
    with pytest.raises(OSError, match="power"):
        dispose(hub, DEAD_LETTERS)
    assert len(acts(hub)) == 1
    assert dispose(hub, DEAD_LETTERS, dry=True)[DEAD_LETTERS].due == 0  # not counted a second time
    monkeypatch.undo()
    assert dispose(hub, DEAD_LETTERS)[DEAD_LETTERS].disposed == 0
    assert hub.broker.dead_letters() == []
    assert len(acts(hub)) == 1


# what comes afterwards


def test_person_who_was_forgotten_is_nobody_known(hub: Hub, clock: Clock) -> None:
    reading = hub.exchange.read("police", FAMILIES[0])
    person = next(p for p in reading.messages[0].data["people"] if p.get("identifiers"))
    people = People(hub.keys)
    with hub.engine.connect() as connection:
        assert people.known_as(connection, "police", person)
    close(hub)
    for _ in range(3):
        dispose(hub)
        clock.at += LATER
    with hub.engine.connect() as connection:
        assert people.known_as(connection, "police", person) == set()


def test_late_repetition_of_a_message_stops_nobody(hub: Hub, clock: Clock) -> None:
    clock.at += timedelta(days=731)
    assert dispose(hub, INBOX)[INBOX].disposed == 2
    size = hub.ledger.head().size
    hub.exchange.accept("police", [FAMILIES[0]])
    for _ in range(12):
        try:
            hub.exchange.finish()
        except Exception as error:
            assert type(error).__name__ == "AlreadyDecided"  # noqa: PT017
        clock.at += timedelta(hours=1)
    assert hub.broker.depth("submissions") == 0
    decisions = [r.body["kind"] for r in between(hub.engine, size, hub.ledger.head().size)]
    assert "disclosure" not in decisions


# the command


def test_command(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: object, status: int = 0) -> Any:
        arguments = ["retention", *map(str, words), "--data", str(hub.settings.data), "--json"]
        assert command.main(arguments) == status
        text = capsys.readouterr().out
        return json.loads(text) if text.startswith(("{", "[")) else text

    listed = run("list")
    assert [one["class"] for one in listed["classes"]] == list(CLASSES)
    assert {one["due"] for one in listed["classes"]} == {0}
    (made,) = run("hold", "--reason", "access-request", "--everything", "--reference", "AR-2026-31")
    assert made["due"]
    assert run("list", INBOX)["holds"][0]["id"] == made["hold"]
    run("hold", "--reason", "access-request", "--everything", status=1)  # no reference
    run("hold", "--reason", "curiosity", "--everything", "--reference", "AR-1", status=2)
    run("hold", "--reason", "complaint", "--reference", "AR-1", status=2)
    run("hold", "--reason", "complaint", "--message", "Aroha Ngata", "--reference", "AR-1", status=1)
    run("list", "everything", status=2)
    assert run("release", made["hold"])["released"] == made["hold"]
    run("release", made["hold"], status=1)
    run("release", status=2)
    assert run("dispose")["classes"][0]["disposed"] == 0
    (tmp_path / "rules.yaml").write_text("classes: 3")
    run("dispose", "--rules", tmp_path / "rules.yaml", status=1)
