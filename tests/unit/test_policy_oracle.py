"""The engine and a second, independent reading of the matrix agree on every fact, for every kind of
recipient and role.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from consent.agreement import Agreements
from consent.case import Case, PersonInCase
from consent.policy import Question, decide
from schemas.catalogue import Branch, Leaf, published
from schemas.classes import CLASSES, SUBJECT_ROLES, Facet
from tests.unit.oracle import MATRIX, World, cell

AGREEMENTS = Agreements.load(Path(__file__).parents[2] / "consent" / "agreements")
TYPE = "nz.isr.police.episode-recorded.v1"
MATTER = ("ADDR-V", "EPISODE-SUM", "EPISODE-NARR", "SEXUAL-SENS", "FIREARMS", "ORDERS", "CUSTODY", "RISK")
AT = datetime(2026, 11, 20, 1, tzinfo=UTC)
REFS = {"p1": "victim", "p2": "child", "p3": "perpetrator", "p4": "witness", "p5": "associate"}
RECIPIENTS = {
    "police": "POL",
    "oranga-tamariki": "OT",
    "corrections": "COR",
    "corrections#em": "COR",
    "health": "HNZ",
    "gp": "GP",
    "msd": "MSD",
    "acc": "ACC",
    "justice": "MOJ",
    "education": "EDU",
    "ngo.aviva#ivs": "NGOV",
    "ngo.aviva#pos": "NGOP",
    "fss": "FSS",
}
NOBODY: dict[str, tuple[str, ...]] = {}
EVERYBODY = dict.fromkeys(REFS.values(), ("table", "task"))
USUAL: dict[str, Any] = {
    "services": EVERYBODY,
    "risk": "high",
    "case_open": True,
    "conflict": False,
    "audience": "table",
    "purpose": "FV-RISK",
    "shared_home": False,
    "perpetrator_represents": False,
    "school_known": True,
    "safe_house": False,
    "section_66": False,
    "once_perpetrator": False,
    "said": ("SAFE-CONTACT", "ID-XREF"),
}
OTHERWISE: dict[str, list[Any]] = {
    "services": [
        NOBODY,
        dict.fromkeys(REFS.values(), ("table",)),
        {"victim": ("asked",)},
        {"perpetrator": ("asked",)},
        {"victim": ("ivs",), "child": ("ivs",)},
        {"child": ("task",)},
        {"perpetrator": ("pos",)},
        {"victim": ("ivs",), "perpetrator": ("task",)},
    ],
    "risk": [None, "low", "medium"],
    "case_open": [False],
    "conflict": [True],
    "audience": ["addressee"],
    "purpose": ["FV-PLAN", "FV-PROTECT", "CW-ASSESS", "CW-ROC", "BTG"],
    "shared_home": [True],
    "perpetrator_represents": [True],
    "school_known": [False],
    "safe_house": [True],
    "section_66": [True],
    "once_perpetrator": [True],
    "said": [(), ("SAFE-CONTACT",), ("ID-XREF",)],
}


def facts() -> list[tuple[str, str, bool, bool]]:
    """(role, class, locates, free text): every class plain, and every facet that a published message holds
    about that role.
    """
    found = {
        (role, name, c.locates, False)
        for role in SUBJECT_ROLES
        for name, c in CLASSES.items()
        if name != "FRAME"
    }

    def collect(branch: Branch) -> None:
        for child in branch.children.values():
            if isinstance(child, Leaf):
                found.update((role, *facet) for role, facet in child.facets.items() if facet.name != "FRAME")
            else:
                collect(child)

    for kind in published():
        collect(kind.shape)
    found.update((role, "NOT-YET-CLASSIFIED", False, False) for role in SUBJECT_ROLES)
    return sorted(found)


FACTS = facts()


def in_reduced_view() -> set[tuple[str, str, bool, bool]]:
    """What a message of the type can hold of each role in the reduced view."""
    found = set()

    def collect(branch: Branch, about_person: bool) -> None:
        about_person = about_person or bool(branch.about)
        for child in branch.children.values():
            if isinstance(child, Branch):
                collect(child, about_person)
            elif child.reduced:
                found.update(
                    (role, *facet)
                    for role, facet in child.facets.items()
                    if about_person is not (role == "case")
                )

    collect(published()[TYPE].shape, False)
    return found


REDUCIBLE = in_reduced_view()


def situations() -> Iterator[dict[str, Any]]:
    """The usual situation, every single deviation from it, and every pair of deviations."""
    yield USUAL
    single = [(name, value) for name, values in OTHERWISE.items() for value in values]
    for name, value in single:
        yield {**USUAL, name: value}
    for (a, x), (b, y) in combinations(single, 2):
        if a != b:
            yield {**USUAL, a: x, b: y}


def question(
    s: dict[str, Any], recipient: str, type_name: str = TYPE, held: list[tuple[str, str, bool, bool]] = FACTS
) -> Question:
    source = "police" if recipient != "police" else "fss"
    people = {f"s-{ref}": PersonInCase([role]) for ref, role in REFS.items()}
    people["s-p1"].households = {"a"}
    people["s-p1"].protected = s["safe_house"]
    if s["once_perpetrator"]:
        people["s-p1"].roles.insert(0, "perpetrator")
    people["s-p3"].households = {"a" if s["shared_home"] else "b"}
    people["s-p2"].school = "digest" if s["school_known"] else None
    people["s-p2"].representative = "s-p3" if s["perpetrator_represents"] else "s-p1"
    by_role = {role: f"s-{ref}" for ref, role in REFS.items()}
    case = Case(
        "case",
        "christchurch",
        s["case_open"],
        s["risk"],
        people,
        {
            (recipient, by_role[role], service)
            for role, services in s["services"].items()
            for service in services
        },
        {recipient} if s["conflict"] else set(),
    )
    holdings: dict[str, set[Facet]] = {"": set(), **{ref: set() for ref in REFS}}
    refs = {role: ref for ref, role in REFS.items()} | {"case": ""}
    for role, *facet in held:
        if role == "case" or facet[0] not in ("SAFE-CONTACT", "ID-XREF") or facet[0] in s["said"]:
            holdings[refs[role]].add(Facet(*facet))
    return Question(
        type_name,
        s["purpose"],
        s["audience"],
        source,
        REFS,
        {ref: f"s-{ref}" for ref in REFS},
        {ref: frozenset(f) for ref, f in holdings.items()},
        (case,),
        AT,
        tags=frozenset({"S66"}) if s["section_66"] else frozenset(),
    )


AT_LEAST = 90_000  # facts compared for each recipient
Given = dict[tuple[str, str, bool, bool], str]
Answer = tuple[Given, set[tuple[str, str]]]


@cache
def answers(recipient: str) -> list[tuple[dict[str, Any], Answer]]:
    """What the engine says to *recipient* in every situation."""
    roles = {**REFS, "": "case"}
    found = []
    for s in situations():
        decision = decide(AGREEMENTS, question(s, recipient), AGREEMENTS.parties[recipient])
        given = {
            (roles[ref], *facet): view
            for ref, facets in decision.given.items()
            for facet, view in facets.items()
        }
        found.append((s, (given, set(decision.referred))))
    return found


@pytest.mark.parametrize("recipient", RECIPIENTS)
def test_decide_agrees_with_the_oracle_on_every_fact(recipient: str) -> None:
    for s, answer in answers(recipient):
        world = World(
            RECIPIENTS[recipient], em=recipient.endswith("#em"), matter=MATTER, reducible=REDUCIBLE, **s
        )
        said = [
            f for f in FACTS if f[0] == "case" or f[1] not in ("SAFE-CONTACT", "ID-XREF") or f[1] in s["said"]
        ]
        expected = world.answer(said) if s["purpose"] != "BTG" else ({}, set())
        assert answer == expected, {k: v for k, v in s.items() if v != USUAL[k]}
    assert len(answers(recipient)) * len(FACTS) > AT_LEAST


def test_oracle_is_compared_in_more_than_a_million_points() -> None:
    assert len(list(situations())) * len(FACTS) * len(RECIPIENTS) > 1_200_000


def test_oracle_covers_every_cell_of_the_matrix() -> None:
    assert sum(len(row) for row in MATRIX.values()) == 363
    assert set(MATRIX) == set(CLASSES) - {"FRAME"}


def facts_of(type_name: str) -> list[tuple[str, str, bool, bool]]:
    found: set[tuple[str, str, bool, bool]] = set()

    def collect(branch: Branch) -> None:
        for child in branch.children.values():
            if isinstance(child, Leaf):
                found.update((role, *facet) for role, facet in child.facets.items() if facet.name != "FRAME")
            else:
                collect(child)

    collect(published()[type_name].shape)
    return sorted(found)


CARRIED = {name for kind in published() for _, name, _, _ in facts_of(kind.name)}


@pytest.mark.parametrize(("recipient", "kind"), RECIPIENTS.items())
def test_decide_gives_each_standing_cell_in_some_message_and_no_other(recipient: str, kind: str) -> None:
    """A and R cells are given in some message, H cells only ever referred, X and - cells neither."""
    given: set[str] = set()
    referred: set[str] = set()
    for published_type in published():
        held = facts_of(published_type.name)
        for services in (EVERYBODY, *OTHERWISE["services"]):
            for audience in ("table", "addressee"):
                s = {**USUAL, "services": services, "audience": audience, "purpose": published_type.purpose}
                asked = question(s, recipient, published_type.name, held)
                decision = decide(AGREEMENTS, asked, AGREEMENTS.parties[recipient])
                given |= {facet.name for facets in decision.given.values() for facet in facets}
                referred |= {name for _, name in decision.referred}
    standing = {name for name in MATRIX if cell(name, kind) in "AR"} & CARRIED
    by_person = {name for name in MATRIX if cell(name, kind) == "H"} & CARRIED
    assert given == standing
    assert referred == by_person
    assert set(MATRIX) - CARRIED == {"EXCL-ZONE", "PRIV"}
