"""The edges of a decision, one small test for each: what is remembered, what people decided for one party,
the hub's own words, and what is left when nothing is given.
"""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import product
from typing import Any

import pytest

from consent import agreement
from consent.agreement import Agreements, Memory
from consent.case import Case, PersonInCase
from consent.decision import NAMES, Decision, Grant, Leave, Outcome, Question
from consent.guards import Effect, Situation, Subject, guarded
from consent.minimise import minimise
from consent.policy import HUB, decide, decide_all, nothing_left, seen_each
from schemas.catalogue import published
from schemas.classes import FRAME, Facet
from tests.unit.test_minimise import DATA, EPISODE, ROLES
from tests.unit.test_policy import ADDRESS, AGREEMENTS, NARR, SUM, TYPE, question, reach

CORE, NUMBER, ALERT, HARM = Facet("ID-CORE"), Facet("ID-XREF"), Facet("HEALTH-ALERT"), Facet("HEALTH-INJ")
HISTORY, RISK, RESTRICTED = Facet("OFFENCE-HIST"), Facet("RISK"), Facet("RESTRICT-META")
POLICE, HEALTH, FSS = (AGREEMENTS.parties[name] for name in ("police", "health", "fss"))
MINISTRY, ACC = (AGREEMENTS.parties[name] for name in ("oranga-tamariki", "acc"))
PROVIDER = AGREEMENTS.parties["ngo.aviva#ivs"]


def to_all(asked: Question, *parties: str, **more: Any) -> dict[str, Decision]:
    """What each of *parties* is told, in the order in which `decide_all` says it."""
    known = {"numbered": {}, **more}
    found = decide_all(AGREEMENTS, asked, (AGREEMENTS.parties[name] for name in parties), **known)
    return {party.id: decision for party, decision in found}


def test_a_party_is_known_by_what_it_is_and_not_by_being_the_same_object() -> None:
    twin = replace(HEALTH)
    assert twin is not HEALTH
    assert decide(AGREEMENTS, question(), twin) == decide(AGREEMENTS, question(), HEALTH)
    assert decide(AGREEMENTS, question(), twin).given


def test_decide_all_says_of_each_party_what_decide_says_when_nothing_is_added() -> None:
    asked, parties = question(), ("fss", "acc", "health")
    told = to_all(asked, *parties)
    assert list(told) == list(parties)
    assert told == {name: decide(AGREEMENTS, asked, AGREEMENTS.parties[name]) for name in parties}


def test_decide_all_adds_a_number_for_the_agency_that_has_one_and_for_that_person_only() -> None:
    asked = question(holdings={"": frozenset({SUM}), "p1": frozenset({CORE}), "p2": frozenset({CORE})})
    numbered = {"p2": frozenset({"health"})}
    told = to_all(asked, "health", "fss", numbered=numbered)
    assert ("p2", NUMBER) in reach(told["health"])
    assert ("p1", NUMBER) not in reach(told["health"])
    assert ("p1", CORE) in reach(told["health"])
    assert told["fss"] == decide(AGREEMENTS, asked, FSS)
    assert ("p2", NUMBER) not in reach(told["fss"])


def test_decide_all_gives_what_people_decided_to_the_party_they_decided_it_for() -> None:
    asked = question(holdings={"": frozenset({SUM, NARR}), "p1": frozenset({CORE})})
    leave = Leave(frozenset({("case", "EPISODE-NARR")}), scrubbed=True)
    told = to_all(asked, "corrections", "health", leaves={"corrections": leave})
    assert reach(told["corrections"])["", NARR] == 2
    assert told["health"] == decide(AGREEMENTS, asked, HEALTH)
    assert ("", NARR) not in reach(told["health"])


def test_seen_each_sees_every_subject_and_nothing_at_a_time_that_is_no_day() -> None:
    asked = question()
    ((situation, subjects),) = seen_each(AGREEMENTS, asked, (HEALTH,))
    assert situation.kind == "HNZ"
    assert {ref: subject.role for ref, subject in subjects.items()} == {"": "case", **asked.roles}
    no_day = replace(asked, at=datetime(2026, 11, 20))  # noqa: DTZ001  # a naive time is the point
    assert list(seen_each(AGREEMENTS, no_day, (HEALTH,))) == []


def with_another_victim(services: frozenset[str], *roles: str, kind: str = "police") -> Question:
    """A message that tells *kind* of one victim, whose case has a second one whom the message does not name;
    that one has held *roles*, and the party has *services* for her.
    """
    people = {"s2": PersonInCase(["victim"]), "s9": PersonInCase([*roles, "victim"])}
    case = Case("one", "christchurch", True, "high", people, {(kind, "s2", "task")})
    case.assignments |= {(kind, "s9", service) for service in services}
    return question(
        source="health",
        roles={"p2": "victim"},
        pseudonyms={"p2": "s2"},
        holdings={"": frozenset({SUM, NARR}), "p2": frozenset({CORE})},
        cases=(case,),
    )


def test_an_agency_that_works_with_every_victim_reads_the_text_and_one_that_does_not_does_not() -> None:
    """Both are asked after one another, so that one is not remembered for the other. That somebody was the
    perpetrator once makes the question about her no less for an agency.
    """
    for roles in ((), ("perpetrator",)):
        for services, read in (
            (frozenset({"asked"}), True),
            (frozenset(), False),
            (frozenset({"ivs"}), True),
        ):
            decision = decide(AGREEMENTS, with_another_victim(services, *roles), POLICE)
            assert (("", NARR) in reach(decision)) is read, (roles, services)


def test_a_provider_that_was_only_asked_about_a_victim_who_was_the_perpetrator_does_not_know_places() -> None:
    for roles, read in (((), True), (("perpetrator",), False), ((), True)):
        asked = with_another_victim(frozenset({"asked"}), *roles, kind=PROVIDER.id)
        ((situation, _),) = seen_each(AGREEMENTS, asked, (PROVIDER,))
        assert situation.knows_places is read, roles
        assert (("", NARR) in reach(decide(AGREEMENTS, asked, PROVIDER))) is read, roles


def without_victims() -> Question:
    """The perpetrator alone, and a text, with the team at the table."""
    case = Case("one", "christchurch", True, "high", {"s1": PersonInCase(["perpetrator"])})
    case.assignments = {("fss", "*", "table")}
    return question(
        roles={"p1": "perpetrator"},
        pseudonyms={"p1": "s1"},
        holdings={"": frozenset({SUM, NARR}), "p1": frozenset({CORE})},
        cases=(case,),
    )


def test_nobody_knows_the_places_of_a_case_without_victims() -> None:
    decision = decide(AGREEMENTS, without_victims(), FSS)
    assert ("", SUM) in reach(decision)
    assert ("", NARR) not in reach(decision)
    assert "V2" in decision.guards


@pytest.mark.parametrize(
    ("leave", "read"),
    [
        pytest.param(
            Leave(frozenset({("case", "EPISODE-NARR")}), scrubbed=True), True, id="approved and read"
        ),
        pytest.param(Leave(frozenset({("case", "EPISODE-NARR")})), False, id="approved, not read"),
        pytest.param(Leave(frozenset({("case", "ORDERS")}), scrubbed=True), False, id="another one read"),
    ],
)
def test_a_granted_text_leaves_only_when_a_person_approved_and_read_this_very_text(
    leave: Leave, read: bool
) -> None:
    decision = decide(AGREEMENTS, replace(without_victims(), leave=leave), FSS)
    assert (("", NARR) in reach(decision)) is read


def test_the_perpetrators_alert_reaches_health_care_only_when_nobody_at_risk_stands_beside_it() -> None:
    alone = question(
        roles={"p1": "perpetrator"},
        holdings={"": frozenset({SUM}), "p1": frozenset({CORE, NUMBER, ALERT})},
    )
    assert ("p1", ALERT) in reach(decide(AGREEMENTS, alone, HEALTH))
    beside = question(
        holdings={**alone.holdings, "p2": frozenset({CORE})}, roles={**alone.roles, "p2": "victim"}
    )
    assert ("p1", ALERT) not in reach(decide(AGREEMENTS, beside, HEALTH))


def test_what_had_to_be_supplied_must_not_serve_the_investigation_of_an_offence() -> None:
    asked = question(purpose="CW-ASSESS", holdings={"": frozenset({SUM}), "p3": frozenset({CORE})})
    plain = decide(AGREEMENTS, asked, MINISTRY)
    tagged = decide(AGREEMENTS, replace(asked, tags=frozenset({"S66"})), MINISTRY)
    assert plain.given
    assert "not-for-offences" not in plain.obligations
    assert tagged.given == plain.given
    assert set(tagged.obligations) == {*plain.obligations, "not-for-offences"}
    # Who is given nothing is bound to nothing.
    nothing = decide(AGREEMENTS, replace(asked, tags=frozenset({"S66"}), purpose="FV-RISK"), MINISTRY)
    assert not nothing.given
    assert nothing.obligations == ()


BARE: dict[str, Any] = {
    "type": "nz.isr.hub.recall.v1",
    "source": HUB,
    "audience": "addressee",
    "roles": {},
    "pseudonyms": {},
    "holdings": {"": frozenset({Facet(FRAME)})},
    "cases": (),
}


def test_the_hubs_own_words_to_one_party_about_nobody_are_permitted() -> None:
    assert decide(AGREEMENTS, question(**BARE), ACC).outcome is Outcome.PERMIT


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"source": "police"}, id="another's words"),
        pytest.param({"audience": "table"}, id="to the table"),
        pytest.param({"roles": {"p2": "victim"}}, id="about somebody"),
        pytest.param({"holdings": {"": frozenset({SUM})}}, id="with a matter"),
        pytest.param({"holdings": {"": frozenset({Facet(FRAME), SUM})}}, id="with structure and a matter"),
    ],
)
def test_what_is_not_the_hubs_own_words_to_one_party_about_nobody_is_refused(changes: dict[str, Any]) -> None:
    assert decide(AGREEMENTS, question(**{**BARE, **changes}), ACC).outcome is Outcome.REFUSE


def where_retired(*names: str) -> Agreements:
    """The same agreements, in which the parties *names* are no longer active."""
    retired = {name: replace(AGREEMENTS.parties[name], active=False) for name in names}
    return Agreements({**AGREEMENTS.parties, **retired}, AGREEMENTS, "retired")


def test_a_party_that_left_hears_nothing_and_is_heard_no_more() -> None:
    left = where_retired("health", "police")
    assert decide(left, question(source="police"), left.parties["health"]).reasons == ("unknown-party",)
    assert decide(left, question(**BARE), left.parties["health"]).outcome is Outcome.REFUSE
    assert decide(left, question(source="police"), FSS).reasons == ("unknown-source",)
    assert decide(left, question(source="oranga-tamariki"), FSS).given


def test_a_service_for_perpetrators_is_linked_though_it_works_with_the_victim_only() -> None:
    service = next(p for _, p in sorted(AGREEMENTS.parties.items()) if p.kind == "NGOP")
    asked = with_another_victim(frozenset({"ivs"}), kind=service.id)
    ((situation, _),) = seen_each(AGREEMENTS, asked, (service,))
    assert situation.linked
    assert "V3" in decide(AGREEMENTS, replace(asked, holdings={"p2": frozenset({ADDRESS})}), service).guards


def test_a_school_waits_only_when_the_perpetrator_speaks_for_its_own_pupil() -> None:
    """Another child, whom he represents, does not make the school's own pupil wait."""
    people = {
        "s1": PersonInCase(["perpetrator"]),
        "s3": PersonInCase(["child"], school="digest"),
        "s4": PersonInCase(["child"], school="digest", representative="s1"),
    }
    school = AGREEMENTS.parties["education"]
    for pupil, given in (("s3", True), ("s4", False), ("s3", True)):
        case = Case("one", "christchurch", True, "high", people, {("education", pupil, "task")})
        asked = question(
            roles={"p3": "child", "p4": "child"},
            pseudonyms={"p3": "s3", "p4": "s4"},
            holdings={"": frozenset({SUM}), "p3": frozenset({CORE}), "p4": frozenset({CORE})},
            cases=(case,),
        )
        decision = decide(AGREEMENTS, asked, school)
        assert (("", SUM) in reach(decision)) is given, pupil
        assert (("case", "EPISODE-SUM") in decision.referred) is not given, pupil


def test_nothing_left_is_a_refusal_unless_a_person_was_asked() -> None:
    given = decide(AGREEMENTS, question(holdings={"": frozenset({SUM}), "p2": frozenset({CORE})}), FSS)
    assert given.given
    assert not given.referred
    left = nothing_left(given)
    assert (left.outcome, left.given, left.found.given, left.obligations) == (Outcome.REFUSE, {}, (), ())
    assert "nothing-to-give" in left.reasons
    both = decide(
        AGREEMENTS, question(holdings={"": frozenset({SUM, NARR}), "p2": frozenset({CORE})}), HEALTH
    )
    assert both.given
    assert both.referred
    assert nothing_left(both).outcome is Outcome.REFER
    assert nothing_left(both).referred == both.referred


def named(decision: Decision) -> dict[str, set[str]]:
    """What the decision says it gave, by role."""
    return {role: set(NAMES.words(words)) for role, words in decision.found.given}


def test_what_was_given_is_told_by_role_and_view_and_only_of_whom_something_was_given() -> None:
    holdings: Mapping[str, frozenset[Facet]] = {
        "": frozenset({SUM}),
        "p1": frozenset({RESTRICTED}),
        "p2": frozenset({CORE, ADDRESS}),
    }
    decision = decide(AGREEMENTS, question(holdings=holdings), FSS)
    assert named(decision) == {"case": {"EPISODE-SUM"}, "victim": {"ID-CORE", "ADDR-V"}}
    # A view that is not full is said with the class.
    school = with_another_victim(frozenset(), kind="education")
    school.cases[0].people["s3"] = PersonInCase(["child"], set(), "digest")
    school.cases[0].assignments.add(("education", "s3", "task"))
    holdings = {"": frozenset({SUM}), "p3": frozenset({CORE})}
    asked = replace(school, roles={"p3": "child"}, pseudonyms={"p3": "s3"}, holdings=holdings)
    told = named(decide(AGREEMENTS, asked, AGREEMENTS.parties["education"]))
    assert told == {"case": {"EPISODE-SUM:reduced"}, "child": {"ID-CORE"}}


@pytest.mark.parametrize("kind", [TYPE, "nz.isr.never.heard-of.v9"])
def test_names_are_not_sent_alone_and_are_not_said_to_have_been(kind: str) -> None:
    holdings = {"": frozenset({RESTRICTED, NARR}), "p2": frozenset({CORE})}
    decision = decide(AGREEMENTS, question(type=kind, holdings=holdings), HEALTH)
    assert not decision.given
    assert "V9" in decision.guards
    assert decision.found.given == ()
    assert decision.obligations == ()
    assert ("victim", "ID-CORE", "names-alone") in decision.withheld


def test_a_message_of_which_a_decision_was_made_anew_is_minimised_without_its_memory() -> None:
    """A decision read back holds plain mappings; what it gives is the same."""
    gives = {"p2": {CORE: "full"}}
    plain = Decision(Outcome.REDUCED, gives, "FV-RISK", "police")
    made = minimise(EPISODE, DATA, plain, ROLES, {})
    assert [person["ref"] for person in made["people"]] == ["p2"]
    assert made["people"][0]["birthDate"] == "1991-01-01"
    assert published()[TYPE].shape is EPISODE


def test_a_message_that_names_nobody_is_minimised_and_one_that_must_name_nobody_names_nobody() -> None:
    alone = {"episode": DATA["episode"]}
    given = Decision(Outcome.REDUCED, {"": {SUM: "reduced"}}, "FV-RISK", "fss")
    assert minimise(EPISODE, alone, given, {}, {})["episode"]["kind"] == "family-harm"
    recall = published()["nz.isr.hub.recall.v1"].shape
    surprising = {"to": "msd", "recall": {"reason": "error"}, "people": DATA["people"]}
    assert minimise(recall, surprising, given, ROLES, {}) == {}


def test_what_is_empty_is_not_sent_as_an_empty_thing() -> None:
    weapons = {Facet("FIREARMS"): "full", Facet("FIREARMS", free_text=True): "full"}
    given = Decision(
        Outcome.REDUCED, {"": {SUM: "full", **weapons}, "p2": {CORE: "full"}}, "FV-RISK", "police"
    )
    nothing = {"episode": {}, "people": DATA["people"]}
    assert list(minimise(EPISODE, nothing, given, ROLES, {})) == ["people"]
    unarmed = {"episode": {"kind": "family-harm", "firearms": {}}}
    assert minimise(EPISODE, unarmed, given, {}, {}) == {"episode": {"kind": "family-harm"}}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param("hub.recall", {"to": "msd", "surprise": "1 Example Street"}, id="unknown"),
        pytest.param("hub.recall", {"recall": {"surprise": "1 Example Street"}}, id="unknown below"),
        pytest.param("police.episode-recorded", {"episode": {"kind": "family-harm"}}, id="a matter"),
        pytest.param("police.episode-recorded", {"people": [{"birthDate": "1990-01-01"}]}, id="a name"),
    ],
)
def test_bare_structure_is_sent_whole_only_when_it_is_bare(kind: str, data: dict[str, Any]) -> None:
    permitted = Decision(Outcome.PERMIT, {}, "FV-RISK", "msd")
    assert minimise(published()[f"nz.isr.{kind}.v1"].shape, data, permitted, {}, {}) == {}


def test_nothing_is_given_of_somebody_in_a_role_that_no_type_knows() -> None:
    given = Decision(Outcome.REDUCED, {"p2": {CORE: "full"}}, "FV-RISK", "police")
    assert minimise(EPISODE, DATA, given, {**ROLES, "p2": "king"}, {}) == {}


def test_the_recipients_own_numbers_stand_beside_the_one_that_the_message_holds() -> None:
    said, known = {"system": "prn", "value": "2"}, {"system": "prn", "value": "3"}
    given = Decision(Outcome.REDUCED, {"p1": {CORE: "full", NUMBER: "full"}}, "FV-RISK", "corrections")
    (person,) = minimise(EPISODE, DATA, given, ROLES, {"p1": [known]})["people"]
    assert person["identifiers"] == [said, known]


SEEN_BY = Situation("POL", "", "table", "high", False, False, True, False, True, False)
HER = Subject("victim", frozenset({"asked"}), was_perpetrator=True, contact_said=True, numbered=True)
HER_PUPIL = Subject("child", frozenset({"task"}), own_pupil=True, numbered=True)
OF_PUPIL = Subject("case", frozenset({"task"}), own_pupil=True)


@pytest.mark.parametrize(
    ("who", "subject", "facet", "view", "effect", "codes"),
    [
        # A place counts as one though its class is not one that leads to those at risk.
        ({"kind": "NGOV"}, HER, Facet("HOUSING", True), "full", Effect.ASK, ("V14",)),
        # The reduced view of an alert is for the team alone.
        ({"kind": "POL"}, Subject("victim"), ALERT, "reduced", Effect.NOTHING, ("V4",)),
        ({"kind": "FSS"}, Subject("victim"), ALERT, "reduced", None, ()),
        # That a pupil is in the case opens what the school may know of the episode, and of the pupil alone.
        ({"kind": "EDU", "own_pupil": True}, OF_PUPIL, SUM, "reduced", None, ()),
        (
            {"kind": "EDU", "own_pupil": True},
            OF_PUPIL,
            Facet("ORDERS"),
            "reduced",
            Effect.NO_RELEASE,
            ("V12",),
        ),
        # A zone reaches the monitoring unit of Corrections; the same word at another party opens nothing.
        (
            {"kind": "NGOP", "capacity": "em", "linked": True},
            OF_PUPIL,
            Facet("EXCL-ZONE"),
            "full",
            Effect.NOTHING,
            ("V3",),
        ),
        # A pupil for whom he does not speak does not wait because of another one.
        ({"kind": "EDU", "perpetrator_represents_pupil": True}, HER_PUPIL, CORE, "full", None, ()),
    ],
)
def test_a_guard_reads_both_halves_of_what_it_asks(
    who: dict[str, Any],
    subject: Subject,
    facet: Facet,
    view: str,
    effect: Effect | None,
    codes: tuple[str, ...],
) -> None:
    assert guarded(replace(SEEN_BY, **who), subject, facet, view) == (effect, codes)


def test_what_any_case_knows_of_a_child_counts_whichever_case_comes_last() -> None:
    knows = Case("one", "christchurch", True, "high", {"s1": PersonInCase(["perpetrator"])})
    knows.people["s3"] = PersonInCase(["child"], school="digest", representative="s1")
    other = Case("two", "christchurch", True, "high", {"s3": PersonInCase(["child"])})
    knows.assignments = {("education", "s3", "task")}
    school = AGREEMENTS.parties["education"]
    for cases in ((knows, other), (other, knows)):
        asked = question(roles={"p3": "child"}, pseudonyms={"p3": "s3"}, cases=cases)
        ((_, subjects),) = seen_each(
            AGREEMENTS, replace(asked, holdings={"p3": frozenset({CORE})}), (school,)
        )
        assert subjects["p3"].own_pupil
        assert subjects["p3"].perpetrator_represents


def test_an_approval_answers_a_guard_that_asks_and_none_that_forbids() -> None:
    doubtful = question(source="fss", holdings={"": frozenset({SUM}), "p1": frozenset({CORE, HISTORY})})
    asked = decide(AGREEMENTS, doubtful, POLICE)
    assert ("perpetrator", "OFFENCE-HIST") in asked.referred
    leave = Leave(frozenset({("perpetrator", "OFFENCE-HIST"), ("case", "EPISODE-SUM")}))
    assert ("p1", HISTORY) in reach(decide(AGREEMENTS, replace(doubtful, leave=leave), POLICE))
    doubtful.cases[0].conflicts.add("police")
    assert not decide(AGREEMENTS, replace(doubtful, leave=leave), POLICE).given


def test_what_a_clause_refers_is_referred_by_that_clause_and_not_by_section_66_besides() -> None:
    asked = question(holdings={"": frozenset({SUM}), "p3": frozenset({CORE, HARM, NUMBER})})
    plain = decide(AGREEMENTS, asked, MINISTRY)
    assert ("child", "HEALTH-INJ") in plain.referred
    must = decide(AGREEMENTS, replace(asked, leave=Leave(mandatory=True)), MINISTRY)
    assert ("child", "HEALTH-INJ") in must.referred
    assert must.clauses == plain.clauses


def test_families_that_differ_in_their_refs_only_share_what_was_found() -> None:
    asked, named = question(), {"": "", "p1": "x", "p2": "y", "p3": "z"}
    renamed = question(
        roles={named[ref]: role for ref, role in asked.roles.items()},
        pseudonyms={named[ref]: pseudonym for ref, pseudonym in asked.pseudonyms.items()},
        holdings={named[ref]: held for ref, held in asked.holdings.items()},
    )
    one, two = (decide(AGREEMENTS, each, HEALTH) for each in (asked, renamed))
    assert one.given.keys() == {"", "p1", "p2"}
    assert two.given == {named[ref]: facets for ref, facets in one.given.items()}
    assert two.found is one.found


def test_subjects_who_are_alike_are_found_once_and_each_given() -> None:
    held = {"": frozenset({SUM}), "p1": frozenset({CORE}), "p9": frozenset({CORE})}
    roles = {"p1": "perpetrator", "p9": "perpetrator"}
    asked = question(roles=roles, pseudonyms={"p1": "s1", "p9": "s1"}, holdings=held)
    decision = decide(AGREEMENTS, asked, HEALTH)
    assert decision.given["p1"] is decision.given["p9"]
    alone = replace(asked, roles={"p1": "perpetrator"}, holdings={r: held[r] for r in ("", "p1")})
    assert decide(AGREEMENTS, alone, HEALTH).found is decision.found


def test_equal_grants_are_one_object_whoever_is_given_them() -> None:
    told = to_all(question(holdings={"": frozenset({SUM}), "p1": frozenset({CORE})}), "health", "fss")
    assert told["health"].found != told["fss"].found
    assert told["health"].given["p1"] is told["fss"].given["p1"]
    assert isinstance(told["health"].given["p1"], Grant)


def test_a_decision_is_stored_as_what_it_is_and_cannot_be_changed() -> None:
    decision = decide(AGREEMENTS, question(), HEALTH)
    copied = pickle.loads(pickle.dumps(decision))
    assert copied == decision
    assert [type(facets) for facets in copied.given.values()] == [Grant] * len(decision.given)
    for given in (copied.given, copied.given["p1"]):
        with pytest.raises(TypeError, match="cannot be changed"):
            given["p1"] = {}


def test_a_party_that_is_not_registered_is_seen_as_it_is_each_time() -> None:
    for kind in ("NGOV", "HNZ", "POL"):
        ((situation, _),) = seen_each(AGREEMENTS, question(), (replace(PROVIDER, id="nobody", kind=kind),))
        assert situation.kind == kind


def test_the_hubs_own_words_are_about_no_person_whatever_was_asked_before() -> None:
    """Two questions that hold the same and differ in whether anybody is named."""
    words = question(
        source=HUB, audience="addressee", roles={}, pseudonyms={}, holdings={"": frozenset({Facet(FRAME)})}
    )
    naming = replace(words, roles={"p2": "victim"})
    for asked, outcome in ((words, Outcome.PERMIT), (naming, Outcome.REFUSE), (words, Outcome.PERMIT)):
        assert decide(AGREEMENTS, asked, HEALTH).outcome is outcome


def neighbours(party: str) -> Iterator[Question]:
    """Questions that differ from one another in one thing or two: what *party* has to do with whom, who
    somebody is, what is known of that person and of the case, and how it is asked.
    """
    held = {"": frozenset({SUM, NARR}), "p1": frozenset({CORE, NUMBER, RISK, ADDRESS, Facet("CHILD-HH")})}
    services = ((), ("s1", "task"), ("s1", "asked"), ("s5", "task"), ("s5", "asked"), ("*", "table"))
    lives = (
        PersonInCase([]),
        PersonInCase([], {"b"}),
        PersonInCase([], school="school"),
        PersonInCase([], school="school", representative="s7"),
        PersonInCase(["perpetrator"]),
    )
    for role, life, (who, *service) in product(
        ("perpetrator", "child", "victim", "associate"), lives, ((s or ("",)) for s in services)
    ):
        people = {"s1": replace(life, roles=[*life.roles, role]), "s5": PersonInCase(["associate"], {"b"})}
        assigned = {(party, who, one) for one in service}
        case = Case("one", "christchurch", True, "high", people, assigned)
        asked = question(
            source="police" if party != "police" else "health",
            roles={"p1": role},
            pseudonyms={"p1": "s1"},
            holdings=held,
            cases=(case,),
        )
        yield asked
        yield replace(asked, tags=frozenset({"S66"}))
        yield replace(asked, leave=Leave(mandatory=True))
        yield replace(asked, cases=(replace(case, risk="low"),))
        yield replace(asked, cases=(replace(case, open=False),))
        yield replace(asked, cases=(replace(case, conflicts={party}),))


@pytest.mark.parametrize("party", ["corrections", "education", "ngo.aviva#ivs"])
def test_what_is_remembered_of_one_question_is_said_of_no_other(party: str) -> None:
    asked, recipient = list(neighbours(party)), AGREEMENTS.parties[party]
    day = AGREEMENTS.in_force(asked[0].at)
    assert day is not None
    day.forget()
    together = [decide(AGREEMENTS, one, recipient) for one in asked]
    for one, decision in zip(asked, together, strict=True):
        day.forget()
        assert decide(AGREEMENTS, one, recipient) == decision


def test_of_two_children_alike_a_school_learns_of_its_own_pupil() -> None:
    people = {"s3": PersonInCase(["child"], school="school"), "s4": PersonInCase(["child"])}
    asked_about = {("education", who, "asked") for who in people}
    asked = question(
        roles={"p3": "child", "p4": "child"},
        pseudonyms={"p3": "s3", "p4": "s4"},
        holdings={"": frozenset({SUM}), "p3": frozenset({CORE}), "p4": frozenset({CORE})},
        cases=(Case("one", "christchurch", True, "high", people, asked_about),),
    )
    given = reach(decide(AGREEMENTS, asked, AGREEMENTS.parties["education"]))
    assert ("p3", CORE) in given
    assert ("p4", CORE) not in given


def test_memory_begins_anew_when_it_holds_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    day = AGREEMENTS.in_force(question().at)
    assert day is not None
    day.forget()
    before, memory = decide(AGREEMENTS, question(), HEALTH), day.memory()
    assert decide(AGREEMENTS, question(), HEALTH).found is before.found
    assert memory.found == 1
    assert day.memory() is memory
    monkeypatch.setattr(agreement, "_REMEMBERED", 2)
    assert day.memory() is not memory
    after = decide(AGREEMENTS, question(), HEALTH)
    assert after == before
    assert after.found is not before.found


def test_memory_is_full_of_findings_or_of_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_REMEMBERED", 2)
    findings, operands = Memory(), Memory()
    findings.found = 1
    operands.number("one")
    assert not findings.is_full()
    assert not operands.is_full()
    findings.found = 2
    assert findings.is_full()
    assert operands.number("two") != operands.number("one") == operands.number("one")
    assert operands.is_full()
