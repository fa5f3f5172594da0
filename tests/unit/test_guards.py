"""Each guard holds back what it names, and lets through its nearest harmless neighbour."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.guards import GUARDS, Effect, Situation, Subject, guarded
from schemas.classes import CLASSES, SUBJECT_ROLES, Facet

PLAIN = Situation(
    kind="NGOV",
    capacity="ivs",
    audience="table",
    risk="high",
    linked=False,
    conflicted=False,
    knows_places=True,
    own_pupil=False,
    others_at_risk=True,
    perpetrator_represents_pupil=False,
)
IVS = frozenset({"ivs"})


def facet(name: str, *, text: bool = False, place: bool | None = None) -> Facet:
    return Facet(name, CLASSES[name].locates if place is None else place, text)


def codes(who: Situation, subject: Subject, of: Facet, view: str = "full") -> tuple[str, ...]:
    return guarded(who, subject, of, view)[1]


@pytest.mark.parametrize(
    ("code", "who", "subject", "of", "harmless_who", "harmless_subject", "harmless_of"),
    [
        # V1: not to the table, not to another service, not to another kind
        ("V1", {}, Subject("victim", IVS), facet("ADDR-SAFE"), {"audience": "addressee"}, None, None),
        (
            "V1",
            {"audience": "addressee"},
            Subject("victim", frozenset({"task"})),
            facet("ADDR-SAFE"),
            {"audience": "addressee"},
            Subject("victim", IVS),
            None,
        ),
        (
            "V1",
            {"audience": "addressee", "kind": "POL"},
            Subject("victim", IVS),
            facet("ADDR-SAFE"),
            {"audience": "addressee"},
            None,
            None,
        ),
        # V2: free text, the place of the case, a shared home
        ("V2", {"knows_places": False}, Subject("case"), facet("EPISODE-NARR", text=True), {}, None, None),
        (
            "V2",
            {"knows_places": False},
            Subject("victim"),
            facet("CP-STATUS", text=True),
            {},
            Subject("victim"),
            facet("CP-STATUS"),
        ),
        (
            "V2",
            {"knows_places": False},
            Subject("case"),
            facet("ADDR-V"),
            {"knows_places": False},
            Subject("case"),
            facet("EPISODE-SUM"),
        ),
        (
            "V2",
            {"knows_places": False},
            Subject("perpetrator", reveals_home=True),
            facet("LOC-P"),
            {"knows_places": False},
            Subject("perpetrator"),
            None,
        ),
        # V3: whatever leads to those at risk, and nothing about the perpetrator himself
        ("V3", {"linked": True}, Subject("victim"), facet("CONTACT-V"), {}, None, None),
        (
            "V3",
            {"linked": True},
            Subject("child"),
            facet("CHILD-HH", place=True),
            {"linked": True},
            Subject("child"),
            facet("CHILD-HH"),
        ),
        (
            "V3",
            {"linked": True},
            Subject("victim"),
            facet("VIEWS"),
            {"linked": True},
            Subject("victim"),
            facet("RISK"),
        ),
        # V3: the word by which she knows a caller
        (
            "V3",
            {"linked": True},
            Subject("victim"),
            facet("SAFE-CONTACT"),
            {"linked": True},
            Subject("perpetrator"),
            None,
        ),
        # V1: a text of a case with a safe house in it
        (
            "V1",
            {"safe_house": True},
            Subject("case", frozenset({"wsw"})),
            facet("EPISODE-NARR", text=True),
            {"safe_house": True},
            Subject("case", IVS),
            None,
        ),
        # V1: to the refuge itself
        (
            "V1",
            {"audience": "addressee"},
            Subject("victim"),
            facet("ADDR-SAFE"),
            {"audience": "addressee"},
            Subject("victim", frozenset({"refuge"})),
            None,
        ),
        # V3: a number that stands beside the perpetrator is somebody else's
        ("V3", {"linked": True}, Subject("perpetrator"), facet("CONTACT-V"), {}, None, None),
        # V5: only a child has a representative
        (
            "V5",
            {"kind": "GP"},
            Subject("child", IVS, perpetrator_represents=True),
            facet("CHILD-HH"),
            {"kind": "GP"},
            Subject("victim", IVS, perpetrator_represents=True),
            None,
        ),
        # V10: the case as a whole has no number
        ("V10", {}, Subject("victim"), facet("SEXUAL-SENS"), {}, Subject("case"), None),
        # V2: the middle of a zone is a home
        (
            "V2",
            {"knows_places": False},
            Subject("perpetrator"),
            facet("EXCL-ZONE"),
            {},
            None,
            None,
        ),
        # V6: whoever it merely helps, while nobody said that contact is safe
        (
            "V6",
            {"kind": "MSD"},
            Subject("victim"),
            facet("CONTACT-V"),
            {"kind": "MSD"},
            Subject("victim", contact_said=True),
            None,
        ),
        ("V6", {"kind": "HNZ"}, Subject("child"), facet("CONTACT-V"), {"kind": "OT"}, None, None),
        # V10: two people may share a name
        (
            "V10",
            {"kind": "POL"},
            Subject("perpetrator"),
            facet("GANG"),
            {"kind": "POL"},
            Subject("perpetrator", numbered=True),
            None,
        ),
        (
            "V10",
            {"kind": "OT"},
            Subject("child", IVS),
            facet("HEALTH-INJ"),
            {"kind": "OT"},
            None,
            facet("RISK"),
        ),
        # V11: a sibling is not the child
        (
            "V11",
            {},
            Subject("child"),
            facet("CHILD-HH"),
            {},
            Subject("child", IVS),
            None,
        ),
        ("V11", {}, Subject("child"), facet("RISK"), {}, None, facet("ID-CORE")),
        # V14: who was the perpetrator and is the victim now
        (
            "V14",
            {},
            Subject("victim", frozenset({"asked"}), was_perpetrator=True),
            facet("VIEWS"),
            {},
            Subject("victim", frozenset({"asked", "wsw"}), was_perpetrator=True),
            None,
        ),
        (
            "V14",
            {},
            Subject("victim", frozenset({"asked"}), was_perpetrator=True),
            facet("ADDR-V"),
            {"kind": "POL"},
            None,
            None,
        ),
        # S66: what had to be supplied serves a child's care and protection
        (
            "S66",
            {"kind": "POL", "supplied_under_66": True},
            Subject("child", IVS, numbered=True),
            facet("RISK"),
            {"kind": "POL", "supplied_under_66": True, "for_care": True},
            None,
            None,
        ),
        (
            "S66",
            {"kind": "POL", "supplied_under_66": True, "for_care": True},
            Subject("child", IVS, numbered=True),
            facet("HEALTH-INJ"),
            {"kind": "OT", "supplied_under_66": True, "for_care": True},
            None,
            None,
        ),
        (
            "V3",
            {"linked": True},
            Subject("case"),
            facet("ADDR-V"),
            {"linked": True},
            Subject("perpetrator"),
            facet("LOC-P"),
        ),
        (
            "V3",
            {"linked": True},
            Subject("victim"),
            facet("LOC-P"),
            {"linked": True},
            Subject("perpetrator"),
            facet("LOC-P"),
        ),
        (
            "V3",
            {"linked": True, "kind": "COR", "capacity": ""},
            Subject("perpetrator"),
            facet("EXCL-ZONE"),
            {},
            None,
            None,
        ),
        # V4
        ("V4", {"kind": "POL"}, Subject("victim"), facet("HEALTH-ALERT"), {"kind": "HNZ"}, None, None),
        (
            "V4",
            {"kind": "HNZ"},
            Subject("perpetrator"),
            facet("HEALTH-ALERT"),
            {"kind": "HNZ", "others_at_risk": False},
            None,
            None,
        ),
        (
            "V4",
            {"kind": "GP"},
            Subject("victim", was_perpetrator=True),
            facet("HEALTH-ALERT"),
            {"kind": "GP"},
            Subject("victim"),
            None,
        ),
        # V5
        (
            "V5",
            {"kind": "GP"},
            Subject("child", perpetrator_represents=True),
            facet("CHILD-HH"),
            {"kind": "GP"},
            Subject("child"),
            None,
        ),
        (
            "V5",
            {"kind": "HNZ"},
            Subject("child", perpetrator_represents=True),
            facet("HEALTH-INJ"),
            {"kind": "OT"},
            None,
            None,
        ),
        # V7, V8, PRIV
        ("V7", {"conflicted": True}, Subject("victim"), facet("ID-CORE"), {}, None, None),
        ("V8", {}, Subject("case"), facet("RESTRICT-META"), {}, Subject("case"), facet("RISK")),
        (
            "PRIV",
            {"kind": "POL"},
            Subject("case"),
            facet("PRIV"),
            {"kind": "POL"},
            Subject("case"),
            facet("RISK"),
        ),
        # V12
        (
            "V12",
            {"kind": "EDU", "risk": "low"},
            Subject("child", own_pupil=True),
            facet("ID-CORE"),
            {"kind": "EDU", "risk": "medium"},
            None,
            None,
        ),
        (
            "V12",
            {"kind": "EDU", "risk": None},
            Subject("child", own_pupil=True),
            facet("ID-CORE"),
            {"kind": "EDU"},
            None,
            None,
        ),
        (
            "V12",
            {"kind": "EDU"},
            Subject("child"),
            facet("ID-CORE"),
            {"kind": "EDU"},
            Subject("child", own_pupil=True),
            None,
        ),
        ("V12", {"kind": "EDU"}, Subject("victim"), facet("ID-CORE"), {"kind": "MSD"}, None, None),
        # V13, IPP13
        ("V13", {"kind": "FSS"}, Subject("child"), facet("NOTIFIER-ID"), {"kind": "OT"}, None, None),
        ("V13", {"kind": "POL"}, Subject("child"), facet("NOTIFIER-ID"), {"kind": "OT"}, None, None),
        ("IPP13", {}, Subject("victim"), facet("ID-XREF"), {"kind": "MSD"}, None, None),
        ("IPP13", {"kind": "BANK"}, Subject("victim"), facet("ID-XREF"), {"kind": "GP"}, None, None),
    ],
)
def test_guard_holds_back_and_lets_the_neighbour_through(
    code: str,
    who: dict[str, Any],
    subject: Subject,
    of: Facet,
    harmless_who: dict[str, Any],
    harmless_subject: Subject | None,
    harmless_of: Facet | None,
) -> None:
    assert code in codes(replace(PLAIN, **who), subject, of)
    assert code not in codes(replace(PLAIN, **harmless_who), harmless_subject or subject, harmless_of or of)


def test_school_guard_lets_a_reduced_view_through_and_not_the_full_one() -> None:
    school = replace(PLAIN, kind="EDU", own_pupil=True)
    pupil = Subject("child", frozenset({"asked"}), own_pupil=True)
    assert codes(school, pupil, facet("CP-STATUS"), "full") == ("V12",)
    assert codes(school, pupil, facet("CP-STATUS"), "reduced") == ()
    assert codes(school, Subject("case"), facet("EPISODE-SUM"), "reduced") == ()
    assert codes(school, Subject("case"), facet("RISK"), "reduced") == ("V12",)


def test_alert_guard_lets_the_isr_team_see_that_one_stands() -> None:
    team = replace(PLAIN, kind="FSS")
    assert codes(team, Subject("victim"), facet("HEALTH-ALERT"), "reduced") == ()
    assert codes(team, Subject("victim"), facet("HEALTH-ALERT"), "full") == ("V4",)


def test_exclusion_zone_may_be_put_to_a_person_for_the_monitoring_unit_only() -> None:
    unit = replace(PLAIN, kind="COR", capacity="em", linked=True, knows_places=False)
    assert guarded(unit, Subject("perpetrator"), facet("EXCL-ZONE"), "full") == (
        Effect.NO_RELEASE,
        ("V2", "V3"),
    )
    assert (
        guarded(replace(unit, capacity=""), Subject("perpetrator"), facet("EXCL-ZONE"), "full")[0]
        is Effect.NOTHING
    )


def test_representative_guard_asks_a_person() -> None:
    assert guarded(
        replace(PLAIN, kind="GP"),
        Subject("child", IVS, perpetrator_represents=True),
        facet("HEALTH-ALERT"),
        "full",
    ) == (Effect.ASK, ("V5",))


@pytest.mark.parametrize(
    ("kind", "subject", "of", "effect"),
    [
        ("POL", Subject("case"), facet("RESTRICT-META"), Effect.NOTHING),
        ("POL", Subject("case"), facet("PRIV"), Effect.NOTHING),
        ("POL", Subject("child"), facet("CHILD-HH"), Effect.NO_RELEASE),
        ("EDU", Subject("victim"), facet("CUSTODY"), Effect.NO_RELEASE),
        ("POL", Subject("child", IVS), facet("NOTIFIER-ID"), Effect.NO_RELEASE),
        ("MSD", Subject("child", IVS), facet("NOTIFIER-ID"), Effect.NOTHING),
        ("POL", Subject("victim", IVS), facet("ADDR-SAFE"), Effect.NO_RELEASE),
    ],
)
def test_guard_holds_back_as_far_as_it_says(kind: str, subject: Subject, of: Facet, effect: Effect) -> None:
    assert guarded(replace(PLAIN, kind=kind), subject, of, "full")[0] is effect


def test_guarded_takes_the_strongest_effect_and_names_all_guards() -> None:
    effect, held_by = guarded(
        replace(PLAIN, linked=True, conflicted=True, knows_places=False),
        Subject("case"),
        facet("ADDR-V"),
        "full",
    )
    assert effect is Effect.NOTHING
    assert held_by == ("V2", "V3", "V7")


FACETS = st.builds(Facet, st.sampled_from(sorted(CLASSES)), st.booleans(), st.booleans())
SITUATIONS = st.builds(
    Situation,
    kind=st.sampled_from(
        ["POL", "OT", "COR", "HNZ", "GP", "MSD", "ACC", "MOJ", "EDU", "NGOV", "NGOP", "FSS"]
    ),
    capacity=st.sampled_from(["", "em", "ivs", "pos"]),
    audience=st.sampled_from(["table", "addressee"]),
    risk=st.sampled_from([None, "low", "medium", "high"]),
    linked=st.booleans(),
    conflicted=st.booleans(),
    knows_places=st.booleans(),
    own_pupil=st.booleans(),
    others_at_risk=st.booleans(),
    perpetrator_represents_pupil=st.booleans(),
    safe_house=st.booleans(),
    supplied_under_66=st.booleans(),
    for_care=st.booleans(),
)
SUBJECTS = st.builds(
    Subject,
    role=st.sampled_from(SUBJECT_ROLES),
    services=st.frozensets(st.sampled_from(["table", "asked", "ivs", "pos", "task", "refuge"])),
    own_pupil=st.booleans(),
    reveals_home=st.booleans(),
    was_perpetrator=st.booleans(),
    perpetrator_represents=st.booleans(),
    contact_said=st.booleans(),
    numbered=st.booleans(),
)
CAUTIONS_OF_SITUATION = (
    "linked",
    "conflicted",
    "others_at_risk",
    "perpetrator_represents_pupil",
    "safe_house",
    "supplied_under_66",
)
STANDING_OF_SUBJECT = {"contact_said": False, "numbered": False, "services": frozenset[str]()}
CAUTIONS_OF_SUBJECT = ("reveals_home", "was_perpetrator", "perpetrator_represents")


@given(SITUATIONS, SUBJECTS, FACETS, st.sampled_from(["full", "reduced"]))
def test_guards_never_weaken_when_a_flag_is_added(
    who: Situation, subject: Subject, of: Facet, view: str
) -> None:
    """Every operand that speaks of danger only adds effect; every one that speaks of standing only takes it
    away.
    """
    before = guarded(who, subject, of, view)[0] or 0
    for name in CAUTIONS_OF_SITUATION:
        assert (guarded(replace(who, **{name: True}), subject, of, view)[0] or 0) >= before
    for name in CAUTIONS_OF_SUBJECT:
        assert (guarded(who, replace(subject, **{name: True}), of, view)[0] or 0) >= before
    assert (guarded(replace(who, knows_places=False), subject, of, view)[0] or 0) >= before
    assert (
        guarded(replace(who, own_pupil=False), replace(subject, own_pupil=False), of, view)[0] or 0
    ) >= before
    assert (guarded(replace(who, risk=None), subject, of, view)[0] or 0) >= before
    assert (guarded(replace(who, for_care=False), subject, of, view)[0] or 0) >= before
    for name, less in STANDING_OF_SUBJECT.items():
        assert (guarded(who, replace(subject, **{name: less}), of, view)[0] or 0) >= before


def test_every_guard_says_what_it_protects() -> None:
    assert all(statement and code.isalnum() for code, (statement, _) in GUARDS.items())
    assert {f.name for f in fields(Subject)} == {
        "role",
        "services",
        "own_pupil",
        "reveals_home",
        "was_perpetrator",
        "perpetrator_represents",
        "contact_said",
        "numbered",
    }
