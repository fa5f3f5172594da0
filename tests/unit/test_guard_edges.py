"""The edges of the guards: how far each one holds back, and whom it counts as whom.

Each row is a situation that a privacy officer could ask about. The rows stand here because a change of one
word in a guard, or in what a case is read for, went unnoticed without them (tests/mutation).
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consent.agreement import Agreements
from consent.case import Case, PersonInCase
from consent.decision import Question
from consent.guards import Effect, Situation, Subject, guarded
from consent.policy import decide, decide_each, seen_each
from schemas.classes import Facet

AGREEMENTS = Agreements.load(Path(__file__).parents[2] / "consent" / "agreements")
PARTIES = AGREEMENTS.parties
# Nothing is wrong here: whoever is this may know every place, and no caution holds.
TRUSTED = Situation(
    kind="POL",
    capacity="",
    audience="table",
    risk="high",
    linked=False,
    conflicted=False,
    knows_places=True,
    own_pupil=False,
    others_at_risk=True,
    perpetrator_represents_pupil=False,
)
ASKED, TASK, TABLE = frozenset({"asked"}), frozenset({"task"}), frozenset({"table"})
IVS = frozenset({"ivs"})
PUPIL = Subject("child", TASK, own_pupil=True, numbered=True)
FORMER = Subject("victim", ASKED, was_perpetrator=True, numbered=True, contact_said=True)
FREE_TEXT = Facet("RISK", free_text=True)


def held(
    subject: Subject, of: Facet, view: str = "full", **who: Any
) -> tuple[Effect | None, tuple[str, ...]]:
    return guarded(replace(TRUSTED, **who), subject, of, view)


@pytest.mark.parametrize(
    ("who", "subject", "of", "effect", "code"),
    [
        # Never to be given, and no person may be asked to give it either.
        ({"conflicted": True}, Subject("perpetrator"), Facet("RISK"), Effect.NOTHING, "V7"),
        ({"conflicted": True}, Subject("case"), Facet("EPISODE-SUM"), Effect.NOTHING, "V7"),
        ({"kind": "POL"}, Subject("victim", numbered=True), Facet("HEALTH-ALERT"), Effect.NOTHING, "V4"),
        ({"kind": "NGOV"}, Subject("victim", IVS, numbered=True), Facet("ID-XREF"), Effect.NOTHING, "IPP13"),
        ({"kind": "EDU", "own_pupil": True}, PUPIL, Facet("ID-XREF"), Effect.NOTHING, "IPP13"),
        # The monitoring unit needs a zone, but only as a person of the holder draws it; no one else linked
        # is told at all, and neither is the rest of Corrections.
        (
            {"kind": "COR", "capacity": "em", "linked": True},
            Subject("perpetrator"),
            Facet("EXCL-ZONE"),
            Effect.NO_RELEASE,
            "V3",
        ),
        ({"kind": "COR", "linked": True}, Subject("perpetrator"), Facet("EXCL-ZONE"), Effect.NOTHING, "V3"),
        # A refuge written beside the perpetrator is still hers.
        ({"kind": "COR", "linked": True}, Subject("perpetrator"), Facet("ADDR-SAFE"), Effect.NOTHING, "V3"),
        # A health practitioner's confidence: somebody inquires first (s 66B), and may then say yes.
        (
            {"kind": "HNZ", "supplied_under_66": True, "for_care": True},
            Subject("child", TASK, numbered=True),
            Facet("HEALTH-INJ"),
            Effect.ASK,
            "S66",
        ),
        # What he could ask his child's doctor for: where the child goes to school.
        (
            {"kind": "GP"},
            Subject("child", TASK, perpetrator_represents=True, numbered=True),
            Facet("EDU-ENROL"),
            Effect.ASK,
            "V5",
        ),
    ],
)
def test_guard_holds_back_just_so_far(
    who: dict[str, Any], subject: Subject, of: Facet, effect: Effect, code: str
) -> None:
    assert effect is held(subject, of, **who)[0]
    assert code in held(subject, of, **who)[1]


@pytest.mark.parametrize("name", ["ADDR-V", "ADDR-SAFE", "EXCL-ZONE", "CONTACT-V", "FSP-V", "VIEWS", "LOC-P"])
def test_what_leads_to_those_at_risk_is_held_back_by_its_class_even_in_a_field_not_marked_as_a_place(
    name: str,
) -> None:
    unmarked = Facet(name, locates=False)
    linked, codes = held(Subject("victim", TASK, contact_said=True), unmarked, kind="NGOP", linked=True)
    assert linked is Effect.NOTHING
    assert "V3" in codes
    assert "V14" in held(FORMER, unmarked, kind="NGOV")[1]


@pytest.mark.parametrize("kind", ["NGOV", "NGOP"])
@pytest.mark.parametrize("role", ["victim", "child"])
@pytest.mark.parametrize("services", [ASKED, TABLE, ASKED | TABLE])
def test_provider_only_asked_about_a_former_perpetrator_asks_a_person_where_they_are(
    kind: str, role: str, services: frozenset[str]
) -> None:
    turned = replace(FORMER, role=role, services=services)
    assert held(turned, Facet("ADDR-V", locates=True), kind=kind) == (Effect.ASK, ("V14",))


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("NGOV", replace(FORMER, services=ASKED | IVS)),  # it works with her
        ("NGOV", replace(FORMER, was_perpetrator=False)),  # she never was the perpetrator
        ("NGOV", replace(FORMER, role="perpetrator")),  # not a question about somebody at risk
        ("OT", FORMER),  # no provider
    ],
)
def test_nobody_else_is_sent_to_a_person_for_it(kind: str, subject: Subject) -> None:
    assert "V14" not in held(subject, Facet("ADDR-V", locates=True), kind=kind)[1]


@pytest.mark.parametrize(
    ("subject", "of", "who"),
    [
        # The summary of the episode is for the school of a child in it; nobody else's summary is.
        (Subject("perpetrator"), Facet("EPISODE-SUM"), {"own_pupil": True}),
        (Subject("victim"), Facet("EPISODE-SUM"), {"own_pupil": True}),
        # Of the case it is told that and no more: no orders, no plan, although it may know its pupil's.
        (Subject("case"), Facet("ORDERS"), {"own_pupil": True}),
        (Subject("case"), Facet("CP-STATUS"), {"own_pupil": True}),
        # Another school's case.
        (Subject("case"), Facet("EPISODE-SUM"), {"own_pupil": False}),
        # Another school's child.
        (replace(PUPIL, own_pupil=False), Facet("CP-STATUS"), {"own_pupil": True}),
        # Low risk, or a risk that nobody assessed.
        (Subject("case"), Facet("EPISODE-SUM"), {"own_pupil": True, "risk": "low"}),
        (PUPIL, Facet("CP-STATUS"), {"own_pupil": True, "risk": None}),
    ],
)
def test_school_learns_nothing_beyond_its_own_pupil(subject: Subject, of: Facet, who: dict[str, Any]) -> None:
    assert held(subject, of, "reduced", kind="EDU", **who) == (Effect.NO_RELEASE, ("V12",))


@pytest.mark.parametrize(
    ("subject", "of", "view", "who"),
    [
        # Its own pupil's school is told, from medium risk, that the child was exposed.
        (Subject("case"), Facet("EPISODE-SUM"), "reduced", {"kind": "EDU", "own_pupil": True}),
        (PUPIL, Facet("CP-STATUS"), "reduced", {"kind": "EDU", "own_pupil": True, "risk": "medium"}),
        # A summary in its reduced view has no place left in it.
        (Subject("case"), Facet("EPISODE-SUM", locates=True), "reduced", {"knows_places": False}),
        # Who the sibling is, by the number that Oranga Tamariki gave the child itself.
        (Subject("child"), Facet("ID-XREF"), "full", {"kind": "OT"}),
        # Words about somebody in a case without a safe house need no reader.
        (Subject("victim", TASK), FREE_TEXT, "full", {}),
        # Oranga Tamariki itself has what was supplied to it.
        (
            Subject("child", TASK, numbered=True),
            Facet("HEALTH-INJ"),
            "full",
            {"kind": "OT", "supplied_under_66": True, "for_care": True},
        ),
        # How dangerous it is does not say where a former perpetrator is.
        (FORMER, Facet("RISK"), "full", {"kind": "NGOV"}),
    ],
)
def test_guards_let_through_what_is_harmless(
    subject: Subject, of: Facet, view: str, who: dict[str, Any]
) -> None:
    assert held(subject, of, view, **who) == (None, ())


# From here on: how a case is read. One family, the perpetrator apart from the mother and her child.


def case(id: str = "one", **changes: Any) -> Case:
    people = {
        "he": PersonInCase(["perpetrator"], {"his flat"}),
        "she": PersonInCase(["victim"], {"her home"}),
        "child": PersonInCase(["child"], {"her home"}, "school"),
    }
    made = Case(id, "christchurch", True, "high", people, {("police", "*", "table"), ("fss", "*", "table")})
    return replace(made, **changes)


def question(*cases: Case, **changes: Any) -> Question:
    place = Facet("ADDR-V", locates=True)
    asked = Question(
        type="nz.isr.police.episode-recorded.v1",
        purpose="FV-RISK",
        audience="table",
        source="police",
        roles={"p1": "perpetrator", "p2": "victim", "p3": "child"},
        pseudonyms={"p1": "he", "p2": "she", "p3": "child"},
        holdings={
            "": frozenset({Facet("EPISODE-SUM")}),
            "p1": frozenset({Facet("ID-CORE"), Facet("LOC-P", locates=True)}),
            "p2": frozenset({Facet("ID-CORE"), place}),
            "p3": frozenset({Facet("ID-CORE")}),
        },
        cases=cases,
        at=datetime(2026, 11, 20, 2, tzinfo=UTC),
    )
    return replace(asked, **changes)


def sight(asked: Question, party: str) -> tuple[Situation, Any]:
    return next(seen_each(AGREEMENTS, asked, (PARTIES[party],)))


@pytest.mark.parametrize(
    ("party", "assignments", "linked"),
    [
        # Who is there for the perpetrator is linked to him before the first appointment.
        ("ngo.aviva#pos", set(), True),
        ("ngo.aviva#pos", {("ngo.aviva#pos", "she", "asked")}, True),
        ("corrections", set(), True),
        # Who is there for the victim is linked by work with him, or with somebody unknown.
        ("ngo.aviva#ivs", {("ngo.aviva#ivs", "he", "ivs")}, True),
        ("ngo.aviva#ivs", {("ngo.aviva#ivs", "nobody knows", "ivs")}, True),
        ("ngo.aviva#ivs", {("ngo.aviva#ivs", "he", "asked")}, False),
        ("ngo.aviva#ivs", {("ngo.aviva#ivs", "she", "ivs")}, False),
    ],
)
def test_who_counts_as_linked_to_the_perpetrator(
    party: str, assignments: set[tuple[str, str, str]], linked: bool
) -> None:
    situation, _ = sight(question(case(assignments=assignments)), party)
    assert situation.linked is linked
    if linked:
        assert not situation.knows_places


@pytest.mark.parametrize(
    ("roles", "at_risk"),
    [
        ({"p1": "perpetrator", "p2": "victim"}, True),
        ({"p1": "perpetrator", "p3": "child"}, True),
        ({"p1": "perpetrator"}, False),
    ],
)
def test_a_message_with_a_child_in_it_has_somebody_at_risk_beside_the_perpetrator(
    roles: dict[str, str], at_risk: bool
) -> None:
    asked = question(case())
    holdings = {ref: held for ref, held in asked.holdings.items() if ref in roles}
    situation, _ = sight(replace(asked, roles=roles, holdings=holdings), "health")
    assert situation.others_at_risk is at_risk


HE_IS = PersonInCase(["perpetrator"], {"his flat"})
WITH_HER = {"he": HE_IS, "other": PersonInCase(["victim"], {"his flat"})}


@pytest.mark.parametrize(
    ("people", "elsewhere", "changes", "reveals"),
    [
        ({}, (), {}, False),
        # He was once a child of this very case, or the message calls him one: his home is a child's.
        ({"he": PersonInCase(["child", "perpetrator"], {"his flat"})}, (), {}, True),
        ({"he": PersonInCase(["victim", "perpetrator"], {"his flat"})}, (), {}, True),
        ({}, (), {"pseudonyms": {"p1": "he", "p2": "she", "p3": "he"}}, True),
        ({}, (), {"pseudonyms": {"p1": "he", "p2": "he", "p3": "child"}}, True),
        # A witness is not somebody at risk; an own earlier role as one tells nothing.
        ({"he": PersonInCase(["witness", "perpetrator"], {"his flat"})}, (), {}, False),
        # In another case somebody at risk lives with him, or he was at risk himself.
        ({}, (case("two", people=WITH_HER),), {}, True),
        ({}, (case("two", people={"he": PersonInCase(["child"], set())}),), {}, True),
        ({}, (case("two", people={"he": PersonInCase(["victim"], set())}),), {}, True),
        ({}, (case("two", people={"other": PersonInCase(["victim"], {"his flat"})}),), {}, False),
    ],
)
def test_whose_home_the_perpetrators_home_gives_away(
    people: dict[str, PersonInCase], elsewhere: tuple[Case, ...], changes: dict[str, Any], reveals: bool
) -> None:
    here = case(people={**case().people, **people})
    _, subjects = sight(question(here, elsewhere=elsewhere, **changes), "health")
    assert subjects["p1"].reveals_home is reveals


@pytest.mark.parametrize(
    ("services", "knows"),
    [(("ivs",), True), (("asked",), False), (("table",), False), (("asked", "table"), False), ((), False)],
)
def test_provider_knows_the_places_of_a_former_perpetrator_only_by_working_with_her(
    services: tuple[str, ...], knows: bool
) -> None:
    """Whoever works with a former perpetrator is linked by that; the row that knows is of a victim who never
    was one.
    """
    party = "ngo.aviva#ivs"
    given = {(party, "*" if service == "table" else "she", service) for service in services}
    was = PersonInCase(["perpetrator", "victim"] if services != ("ivs",) else ["victim"], {"her home"})
    situation, _ = sight(question(case(people={**case().people, "she": was}, assignments=given)), party)
    assert situation.knows_places is knows


@pytest.mark.parametrize(
    ("cases", "met"),
    [
        ((case(),), True),
        ((case(open=False),), False),
        ((case(), case("two", open=False)), True),
        ((case("two", open=False), case()), True),
        ((), False),
    ],
)
def test_an_episode_is_open_in_some_case_and_in_none_that_nobody_knows(
    cases: tuple[Case, ...], met: bool
) -> None:
    found = decide(AGREEMENTS, question(*cases), PARTIES["fss"])
    assert found.conditions["OPEN_EPISODE"] is met


@pytest.mark.parametrize("first", ["fss", "oranga-tamariki", "ngo.aviva#wsw"])
def test_one_party_is_not_taken_for_another_that_was_decided_before_it(first: str) -> None:
    """All three sit at the table of the same case; only the last two work with somebody in it besides."""
    mine = {(p, "*", "table") for p in ("fss", "oranga-tamariki", "ngo.aviva#wsw")}
    mine |= {("oranga-tamariki", "child", "task"), ("ngo.aviva#wsw", "she", "wsw")}
    asked = question(case(assignments=mine))
    order = sorted(("fss", "oranga-tamariki", "ngo.aviva#wsw"), key=lambda party: party != first)
    together = list(seen_each(AGREEMENTS, asked, [PARTIES[p] for p in order]))
    assert together == [sight(asked, p) for p in order]
    assert [d.recipient for d in decide_each(AGREEMENTS, asked, [PARTIES[p] for p in order])] == order
    services = {p: subjects["p3"].services for p, (_, subjects) in zip(order, together, strict=True)}
    assert services == {"fss": TABLE, "oranga-tamariki": TABLE | TASK, "ngo.aviva#wsw": TABLE}
