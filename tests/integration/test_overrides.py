"""Break-glass: what it opens and what it never does, who is told, and that every attempt is on record. And
what a release obliges to afterwards."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adapters.adapter import Native
from consent.agreement import Agreements
from consent.override import State
from consent.referral import REQUEST
from gateway.duties import Duties
from gateway.hub import Hub, agreements_folder, open_hub
from gateway.overrides import Override, Overrides
from gateway.referrals import Person, Referrals
from gateway.register import DECLINED, OVERDUE, PART, SHARED, WAITING, Register, counted
from gateway.settings import Settings
from schemas.errors import AlreadyDecided, InvalidMessage, NotAuthorised, NotFound
from schemas.message import CONTENT_TYPE, identity
from tests.acceptance.faults import folder_in_memory
from tests.serving import episode, now, sent

SERGEANT = Person("police", "duty-manager", "0a" * 16)
OFFICER = Person("health", "privacy-officer", "0b" * 16)
LAWYER = Person("oranga-tamariki", "legal", "0c" * 16)
REASON = "A neighbour heard shots; he has told her that he comes back tonight."


@pytest.fixture(autouse=True, scope="module")
def agreements() -> Iterator[None]:
    """The agreements, read once."""
    read = Agreements.load(agreements_folder(Settings()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Agreements, "load", lambda _: read)
        yield


@pytest.fixture
def clock() -> list[datetime]:
    return [now()]


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as made:
        yield made


@pytest.fixture
def hub(folder: Path, clock: list[datetime]) -> Iterator[Hub]:
    with open_hub(Settings(data=folder), clock=lambda: clock[0]) as hub:
        sent(hub, "police", json.loads(json.dumps(episode())))
        yield hub


@pytest.fixture
def case(hub: Hub) -> str:
    with hub.engine.connect() as connection:
        return str(connection.exec_driver_sql("SELECT id FROM case_file").scalar_one())


def received(hub: Hub, party: str) -> list[dict[str, Any]]:
    folder = hub.settings.data / "agencies" / party / "received"
    return [json.loads(f.read_bytes()) for f in sorted(folder.iterdir())] if folder.exists() else []


def notices(hub: Hub, party: str) -> list[dict[str, Any]]:
    return [n["event"]["notice"] for n in received(hub, party) if n["notice"] == "hub.notice"]


def canonical(hub: Hub, party: str, event: str, key: str, data: dict[str, Any], **more: str) -> str:
    """The id of a message of *party*, carried and delivered."""
    made = {
        "specversion": "1.0",
        "id": identity(party, key),
        "source": f"urn:isr:{party}",
        "type": f"nz.isr.{event}.v1",
        "time": "2026-11-22T03:00:00Z",
        "datacontenttype": "application/json",
        "data": data,
        **more,
    }
    receipt = hub.exchange.accept(party, [Native(json.dumps(made).encode(), CONTENT_TYPE)])[0]
    assert receipt.rejected == []
    hub.exchange.finish()
    return receipt.accepted[0]


def victim(**more: Any) -> dict[str, Any]:
    said: Any = episode()["persons"][1]
    name = {"family": said["name"]["surname"], "given": said["name"]["forenames"]}
    return {"ref": "p1", "role": "associate", "name": name, "birthDate": "1993-08-12", **more}


def injury(hub: Hub, key: str = "one") -> str:
    """Health report an injury of the victim: a person of Health decides whether Police learn of it."""
    presentation = {"person": "p1", "arrivedAt": "2026-11-22T01:00:00Z", "strangulation": True}
    data = {"presentation": presentation, "people": [victim()]}
    return canonical(hub, "health", "health.ed-presentation-recorded", key, data)


def given_to(hub: Hub, party: str) -> int:
    """How often *party* was told of a strangulation."""
    return sum(
        n.get("event", {}).get("presentation", {}).get("strangulation", False) for n in received(hub, party)
    )


def entries(hub: Hub, kind: str) -> list[dict[str, Any]]:
    every = [json.loads(e) for e in hub.ledger.entries(0, 10_000)]
    return [e for e in every if e["kind"] == kind]


def opened(hub: Hub, case: str) -> Override:
    made = Overrides(hub).open(SERGEANT, case, "life", REASON)
    hub.exchange.finish()
    return made


# what opens


def test_override_opens_what_waits_and_tells_its_source(hub: Hub, case: str) -> None:
    message = injury(hub)
    assert given_to(hub, "police") == 0
    made = opened(hub, case)
    assert given_to(hub, "police") == 1
    assert given_to(hub, "corrections") == 0
    (told,) = notices(hub, "health")
    assert told == {"about": "override-used", "message": message, "override": made.id, "party": "police"}
    (use,) = [e for e in entries(hub, "disclosure") if e.get("override")]
    assert use["override"] == made.id
    assert "ISR-EMERGENCY@1/POL-THREAT" in use["clauses"]
    # The holder's person still decides what the referral comes to.
    assert [r for r in Referrals(hub).open("health") if r.party == "police"]


def test_override_opens_what_arrives_while_it_runs_and_nothing_after(
    hub: Hub, case: str, clock: list[datetime]
) -> None:
    made = opened(hub, case)
    injury(hub, "during")
    assert given_to(hub, "police") == 1
    assert len(notices(hub, "health")) == 1
    used = [e for e in entries(hub, "override") if e["outcome"] == "used"]
    assert [(e["override"], e["party"]) for e in used] == [(made.id, "police")]
    clock[0] += timedelta(minutes=made.minutes)
    injury(hub, "after")
    assert given_to(hub, "police") == 1


def test_override_of_one_case_and_party_opens_no_other(hub: Hub, case: str) -> None:
    opened(hub, case)
    other = json.loads(json.dumps(episode()))
    other["eventNumber"] = "P066234999"
    other.pop("case")
    for person in other["persons"]:
        person.pop("personRecordId", None)
        if "name" in person:
            person["name"]["surname"] += "other"
            person.pop("aliases", None)
    sent(hub, "police", other)
    said = victim()
    said["name"]["family"] += "other"
    presentation = {"person": "p1", "arrivedAt": "2026-11-22T01:00:00Z", "strangulation": True}
    data = {"presentation": presentation, "people": [said]}
    canonical(hub, "health", "health.ed-presentation-recorded", "other", data)
    assert given_to(hub, "police") == 0


def test_override_closed_before_its_time_opens_nothing_more(hub: Hub, case: str) -> None:
    made = opened(hub, case)
    with pytest.raises(NotFound):
        Overrides(hub).close(made.id, OFFICER)  # another agency's
    assert Overrides(hub).close(made.id, SERGEANT).state is State.CLOSED
    injury(hub)
    assert given_to(hub, "police") == 0
    with pytest.raises(AlreadyDecided):
        Overrides(hub).close(made.id, SERGEANT)


def test_conflict_that_becomes_known_locks_what_was_opened(hub: Hub, case: str) -> None:
    opened(hub, case)
    injury(hub, "before")
    assert given_to(hub, "police") == 1
    with hub.engine.begin() as connection:
        facts = json.loads(connection.exec_driver_sql("SELECT facts FROM case_file").scalar_one())
        changed = json.dumps({**facts, "conflicts": ["police"]})
        connection.execute(sa.text("UPDATE case_file SET facts = :f"), {"f": changed})
    injury(hub, "after")
    assert given_to(hub, "police") == 1


# what is refused


def refused(hub: Hub, case: str, person: Person = SERGEANT, threat: str = "life") -> dict[str, Any]:
    before = len(entries(hub, "override"))
    with pytest.raises(NotFound) as caught:
        Overrides(hub).open(person, case, threat, REASON)
    assert str(caught.value) == "nothing opens here"  # whatever the reason was (V8)
    after = entries(hub, "override")
    assert len(after) == before + 1
    return after[-1]


def test_refused_attempts_look_alike_and_stay_visible(hub: Hub, case: str) -> None:
    strange = "Aroha Example, 12 Kowhai Street"
    entry = refused(hub, strange)
    assert (entry["outcome"], entry["reasons"], entry["cases"]) == ("refused", ["case-unknown"], [])
    assert strange not in json.dumps(entry)
    assert refused(hub, case, OFFICER)["reasons"] == ["no-clause"]
    assert refused(hub, case, threat="released")["reasons"] == ["no-clause"]
    opened(hub, case)
    assert refused(hub, case)["reasons"] == ["already-open"]
    assert [o.state for o in Overrides(hub).find()].count(State.REFUSED) == 4
    metric = hub.telemetry.registry.get_sample_value
    assert metric("isr_overrides_total", {"party": "police", "outcome": "refused"}) == 3


def test_conflict_of_interest_opens_nothing(hub: Hub, case: str) -> None:
    with hub.engine.begin() as connection:
        facts = json.loads(connection.exec_driver_sql("SELECT facts FROM case_file").scalar_one())
        changed = json.dumps({**facts, "conflicts": ["police"]})
        connection.execute(sa.text("UPDATE case_file SET facts = :f"), {"f": changed})
    assert refused(hub, case)["reasons"] == ["V7"]


@pytest.mark.parametrize(
    ("person", "threat", "reason"),
    [
        (SERGEANT, "boredom", REASON),
        (SERGEANT, "life", "short"),
        (SERGEANT._replace(capacity="cleaner"), "life", REASON),
    ],
)
def test_bad_words_are_named(hub: Hub, case: str, person: Person, threat: str, reason: str) -> None:
    with pytest.raises(InvalidMessage):
        Overrides(hub).open(person, case, threat, reason)
    assert entries(hub, "override") == []


# the review


def test_review_is_by_somebody_else_once_and_overdue_until_then(
    hub: Hub, case: str, clock: list[datetime]
) -> None:
    overrides = Overrides(hub)
    made = opened(hub, case)
    assert made.review_due == "2026-11-23T05:00:00.000Z"
    clock[0] += timedelta(days=3)
    assert [o.is_overdue(clock[0]) for o in overrides.find(only_unreviewed=True)] == [True]
    assert Referrals(hub).counts()["review", "police", "overdue"] == 1
    for unfit in (SERGEANT, SERGEANT._replace(capacity="legal"), OFFICER._replace(capacity="supervisor")):
        with pytest.raises(NotAuthorised):
            overrides.review(made.id, unfit, "justified")
    assert overrides.review(made.id, LAWYER, "not-justified").state is State.REVIEWED
    with pytest.raises(AlreadyDecided):
        overrides.review(made.id, OFFICER, "justified")
    assert overrides.find(only_unreviewed=True) == []
    assert [e["outcome"] for e in entries(hub, "override")] == ["opened", "reviewed"]
    assert entries(hub, "override")[-1]["reasons"] == ["not-justified"]


def test_reason_is_sealed_and_only_committed_to(
    hub: Hub, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = opened(hub, case)
    assert Overrides(hub).reason(made.id) == REASON
    everything = b"".join(hub.ledger.entries(0, 10_000)) + caplog.text.encode()
    with hub.engine.connect() as connection:
        everything += bytes(connection.exec_driver_sql("SELECT sealed FROM override").scalar_one())
    assert b"neighbour heard" not in everything
    with pytest.raises(NotFound):
        Overrides(hub).reason("nobody")


def test_second_person_agrees_first_where_the_clause_says_so(
    hub: Hub, case: str, monkeypatch: pytest.MonkeyPatch, clock: list[datetime]
) -> None:
    in_force = hub.agreements.in_force(clock[0])
    assert in_force is not None
    ((name, glass),) = in_force.behind_glass(hub.agreements.parties["police"]).items()
    before = {name: replace(glass, approval="before")}
    monkeypatch.setattr(type(in_force), "behind_glass", lambda _self, _party: before)
    injury(hub)
    asked = opened(hub, case)
    assert (asked.state, asked.until) == (State.ASKED, "")
    assert given_to(hub, "police") == 0
    with pytest.raises(NotAuthorised):
        Overrides(hub).agree(asked.id, SERGEANT)
    with pytest.raises(NotFound):
        Overrides(hub).agree(asked.id, OFFICER)
    second = SERGEANT._replace(officer="0d" * 16)
    made = Overrides(hub).agree(asked.id, second)
    hub.exchange.finish()
    assert made.runs(clock[0])
    assert given_to(hub, "police") == 1
    assert [e["outcome"] for e in entries(hub, "override")] == ["asked", "opened"]


# duties


def test_release_brings_one_duty_for_each_recipient_case_and_role(hub: Hub, case: str) -> None:
    found = Duties(hub).find(party="corrections")
    assert {(d.kind, d.role, d.case) for d in found} == {
        ("ipp3a", role, case) for role in ("victim", "perpetrator")
    } | {(d.kind, d.role, d.case) for d in found if d.role not in ("victim", "perpetrator")}
    before = len(Duties(hub).find())
    changed = json.loads(json.dumps(episode()))
    changed["revision"] = 3
    sent(hub, "police", changed)
    assert len(Duties(hub).find()) == before  # told once that this agency collects in this case


def test_duty_ends_once_by_somebody_of_the_agency(hub: Hub, case: str, clock: list[datetime]) -> None:
    duties, person = Duties(hub), Person("corrections", "practitioner", "0e" * 16)
    what = ("ipp3a", "corrections", case, "victim")
    with pytest.raises(NotFound):
        duties.record(*what, "already-aware", OFFICER)
    with pytest.raises(InvalidMessage):
        duties.record(*what, "notified", person)  # by which channel?
    clock[0] += timedelta(days=60)
    assert what in {d[:4] for d in duties.find(overdue=True)}
    done = duties.record(*what, "notified", person, "through-specialist")
    assert what not in {d[:4] for d in duties.find(overdue=True)}
    with pytest.raises(AlreadyDecided):
        duties.record(*what, "already-aware", person)
    (entry,) = entries(hub, "disposition")
    assert (entry["message"], entry["outcome"], entry["channel"]) == (
        done.id,
        "notified",
        "through-specialist",
    )
    assert Referrals(hub).counts()["ipp3a", "corrections", "overdue"] > 0


# the register and requests


def request(hub: Hub, case: str, source: str = "fss", **more: Any) -> str:
    asked = {"request": "R-1", "asks": ["injuries"], "purpose": "FV-RISK", **more}
    data = {"to": "health", "request": asked, "people": [victim(role="victim")]}
    return canonical(hub, source, "fss.information-requested", f"ask {source}", data, correlationid=case)


def lines(hub: Hub) -> list[Any]:
    return list(Register(hub).lines(0, hub.ledger.head().size))


def ending(hub: Hub, message: str) -> str:
    (found,) = [line.ending for line in lines(hub) if line.what == "request" and line.message == message]
    return str(found)


def test_request_ends_with_its_answer_or_is_overdue(hub: Hub, case: str, clock: list[datetime]) -> None:
    asked = request(hub, case)
    (row,) = [r for r in Referrals(hub).open("health") if r.standing.kind == REQUEST]
    assert (row.party, row.standing.mandatory) == ("fss", False)
    assert ending(hub, asked) == WAITING
    clock[0] += timedelta(days=9)
    assert ending(hub, asked) == OVERDUE
    assert row.id in {r.id for r in Register(hub).overdue()}
    (disclosed,) = [
        n["reference"] for n in received(hub, "health") if n["notice"] == "fss.information-requested"
    ]
    records = [{"person": "p1", "held": False}]
    data = {"answer": {"records": records}, "people": [victim()]}
    canonical(hub, "health", "fss.information-provided", "answer", data, causationid=disclosed)
    assert ending(hub, asked) in (SHARED, PART)
    assert row.id not in {r.id for r in Register(hub).overdue()}


def test_request_is_declined_with_a_reason(hub: Hub, case: str) -> None:
    asked = request(hub, case)
    (row,) = [r for r in Referrals(hub).open("health") if r.standing.kind == REQUEST]
    with pytest.raises(InvalidMessage, match="answered"):
        Referrals(hub).approve(row.id, OFFICER)
    Referrals(hub).decline(row.id, OFFICER, "no-help")
    assert ending(hub, asked) == DECLINED
    (line,) = [x for x in lines(hub) if x.what == "request"]
    assert (line.reasons, line.by) == (("no-help",), "privacy-officer")


def test_request_under_section_66_goes_to_the_lawyers_and_is_answered_through_a_person(
    hub: Hub, case: str
) -> None:
    request(hub, case, "oranga-tamariki", under="OTA66")
    (row,) = [r for r in Referrals(hub).open("health") if r.standing.kind == REQUEST]
    assert row.standing.mandatory
    assert Referrals(hub).decline(row.id, OFFICER, "no-help").value == "legal"
    (escalation,) = entries(hub, "escalation")
    assert (escalation["outcome"], escalation["reasons"]) == ("legal", ["no-help"])
    with pytest.raises(InvalidMessage):
        Referrals(hub).decline(row.id, OFFICER._replace(capacity="legal"), "no-help")
    presentation = {"person": "p1", "arrivedAt": "2026-11-22T01:00:00Z", "strangulation": True}
    data = {"presentation": presentation, "people": [victim()]}
    canonical(hub, "health", "health.ed-presentation-recorded", "must", data, causationid=row.message)
    (must,) = [
        r for r in Referrals(hub).open("health") if r.standing.mandatory and r.standing.kind != REQUEST
    ]
    assert (must.party, must.standing.state.value) == ("oranga-tamariki", "legal")
    Referrals(hub).approve(must.id, OFFICER._replace(capacity="legal"), scrubbed=True)
    hub.exchange.finish()
    assert given_to(hub, "oranga-tamariki") == 1


def test_nobody_but_oranga_tamariki_and_police_requires(hub: Hub, case: str) -> None:
    request(hub, case, under="OTA66")
    (row,) = [r for r in Referrals(hub).open("health") if r.standing.kind == REQUEST]
    assert not row.standing.mandatory


def test_register_has_every_decision_once_and_every_ending_a_reason(hub: Hub) -> None:
    injury(hub)
    for row in Referrals(hub).open("health"):
        if row.party == "fss":
            Referrals(hub).decline(row.id, OFFICER, "not-necessary")
    found = lines(hub)
    decided = [e for e in map(json.loads, hub.ledger.entries(0, 10_000)) if "outcome" in e and "given" in e]
    candidates = [x for x in found if x.what == "candidate"]
    assert len(candidates) == len([e for e in decided if "referral" not in e])
    assert all(x.reasons for x in found if x.ending in (DECLINED, PART))
    assert {x.by for x in found if x.party == "fss" and x.holder == "health"} == {"privacy-officer"}
    assert sum(counted(found).values()) == len(found)
