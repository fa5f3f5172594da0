"""What leaves is what was given: built up from it, with no trace of what was not."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.minimise import minimise, own_systems
from consent.policy import Decision, FrozenDict, Outcome
from schemas.catalogue import Branch, Leaf, about_whom, holdings, published
from schemas.classes import CASE, FRAME, Facet

EPISODE = published()["nz.isr.police.episode-recorded.v1"].shape
DATA: dict[str, Any] = {
    "episode": {
        "reference": {"system": "police-event", "value": "P001"},
        "occurredAt": "2026-11-02T10:00:00Z",
        "occurredOn": "2026-11-02",
        "site": "christchurch",
        "kind": "family-harm",
        "place": {"line1": "1 Example Street", "city": "Ōtautahi"},
        "harms": ["verbal"],
        "firearms": {"access": True, "detail": "in the shed"},
        "safetyOrder": {"boundPerson": "p1", "issued": True, "days": 5},
        "arrest": {"person": "p1", "outcome": "bailed"},
        "riskInstruments": [
            {"person": "p1", "instrument": "A", "version": "1", "value": "high"},
            {"person": "p2", "instrument": "B", "version": "1", "value": "low"},
        ],
        "narrative": "At the house in Example Street",
    },
    "people": [
        {
            "ref": "p1",
            "role": "perpetrator",
            "identifiers": [{"system": "police-person", "value": "1"}, {"system": "prn", "value": "2"}],
            "name": {"family": "Tāne", "given": "Rangi"},
            "birthDate": "1990-01-01",
            "area": "Addington",
            "relationships": [{"to": "p2", "kind": "partner", "statedBy": "p3"}],
        },
        {
            "ref": "p2",
            "role": "victim",
            "name": {"family": "Wāhine", "given": "Aroha"},
            "birthDate": "1991-01-01",
            "address": {"line1": "1 Example Street", "city": "Ōtautahi"},
            "safeContact": {"doNotContact": True, "codeWord": "kererū"},
            "relationships": [{"to": "p1", "kind": "partner"}],
        },
        {
            "ref": "p3",
            "role": "child",
            "name": {"family": "Wāhine", "given": "Moana"},
            "livesWith": ["p1", "p2"],
            "school": {"name": "Te Kura"},
        },
    ],
}
ROLES = {"p1": "perpetrator", "p2": "victim", "p3": "child"}
CORE, SUM, XREF, SAFE, HOME = (
    Facet("ID-CORE"),
    Facet("EPISODE-SUM"),
    Facet("ID-XREF"),
    Facet("SAFE-CONTACT"),
    Facet("CHILD-HH"),
)


def decision(
    given: dict[str, dict[Facet, str]], recipient: str = "police", outcome: Outcome = Outcome.REDUCED
) -> Decision:
    frozen = FrozenDict({ref: FrozenDict(facets) for ref, facets in given.items()})
    return Decision(outcome, frozen, "FV-RISK", recipient)


def minimised(
    given: dict[str, dict[Facet, str]], recipient: str = "police", own: dict[str, Any] | None = None
) -> dict[str, Any]:
    return minimise(EPISODE, DATA, decision(given, recipient), ROLES, own or {})


def test_minimise_gives_a_class_in_full_and_nothing_else() -> None:
    assert minimised({"p2": {CORE: "full"}}) == {
        "people": [
            {
                "ref": "p2",
                "role": "victim",
                "name": {"family": "Wāhine", "given": "Aroha"},
                "birthDate": "1991-01-01",
            }
        ]
    }


def test_minimise_gives_only_the_reduced_view() -> None:
    assert minimised({"": {SUM: "reduced"}, "p2": {CORE: "reduced", SAFE: "reduced"}}) == {
        "episode": {"occurredOn": "2026-11-02", "site": "christchurch", "kind": "family-harm"},
        "people": [
            {
                "ref": "p2",
                "role": "victim",
                "name": {"family": "Wāhine", "given": "Aroha"},
                "safeContact": {"doNotContact": True},
            }
        ],
    }


def test_minimise_tells_facets_of_one_class_apart() -> None:
    """A child's household may be given while the school, the same class but a place, is not."""
    made = minimised({"p3": {HOME: "full"}, "p2": {CORE: "full"}})
    assert made["people"][1] == {"ref": "p3", "role": "child", "livesWith": ["p2"]}


def test_minimise_drops_people_of_whom_nothing_is_given_and_every_reference_to_them() -> None:
    made = minimised({"p1": {SUM: "full", CORE: "full"}, "p3": {HOME: "full"}})
    assert [p["ref"] for p in made["people"]] == ["p1", "p3"]
    assert made["people"][0]["relationships"] == [{"kind": "partner", "statedBy": "p3"}]
    assert made["people"][1]["livesWith"] == ["p1"]
    assert "p2" not in json.dumps(made)


def test_minimise_drops_a_person_who_is_left_with_references_to_nobody() -> None:
    """The child is given only as living with two people who are not there: then nothing about the child is
    given.
    """
    assert minimised({"p3": {HOME: "full"}, "": {SUM: "reduced"}}) == {
        "episode": {"occurredOn": "2026-11-02", "site": "christchurch", "kind": "family-harm"}
    }


def test_minimise_keeps_naming_a_person_of_whom_only_the_body_speaks() -> None:
    made = minimised({"p1": {Facet("CUSTODY"): "full"}})
    assert made == {
        "episode": {"arrest": {"person": "p1", "outcome": "bailed"}},
        "people": [{"ref": "p1", "role": "perpetrator"}],
    }


def test_minimise_keeps_structure_only_beside_something_given() -> None:
    made = minimised({"p2": {Facet("RISK"): "full"}})
    assert made["episode"] == {
        "riskInstruments": [{"person": "p2", "instrument": "B", "version": "1", "value": "low"}]
    }
    assert made["people"] == [{"ref": "p2", "role": "victim"}]


def test_minimise_returns_nothing_when_the_granted_view_is_empty() -> None:
    assert minimised({"p1": {Facet("CUSTODY"): "reduced"}, "p2": {}}) == {}
    assert minimised({}) == {}


def test_minimise_withholds_free_text_apart_from_its_class() -> None:
    plain, text = Facet("FIREARMS"), Facet("FIREARMS", free_text=True)
    assert minimised({"": {plain: "full"}}) == {"episode": {"firearms": {"access": True}}}
    assert minimised({"": {plain: "full", text: "full"}}) == {
        "episode": {"firearms": {"access": True, "detail": "in the shed"}}
    }


@pytest.mark.parametrize(
    ("recipient", "own", "kept"),
    [
        ("corrections", {}, [{"system": "prn", "value": "2"}]),
        ("corrections#em", {}, [{"system": "prn", "value": "2"}]),
        ("police", {}, [{"system": "police-person", "value": "1"}]),
        ("msd", {"p1": [{"system": "swn", "value": "9"}]}, [{"system": "swn", "value": "9"}]),
        ("msd", {"p1": [{"system": "prn", "value": "2"}]}, None),
        ("corrections", {"p1": [{"system": "prn", "value": "2"}]}, [{"system": "prn", "value": "2"}]),
        ("ngo.aviva#ivs", {"p1": [{"system": "ngo-client", "value": "3"}]}, None),
        ("", {"p1": [{"system": "swn", "value": "9"}]}, None),
    ],
)
def test_minimise_gives_back_only_the_recipients_own_identifiers(
    recipient: str, own: dict[str, Any], kept: Any
) -> None:
    made = minimised({"p1": {CORE: "reduced", XREF: "full"}}, recipient, own)
    assert made["people"][0].get("identifiers") == kept


def test_minimise_adds_an_own_identifier_that_the_message_does_not_hold() -> None:
    made = minimised(
        {"p2": {CORE: "reduced", XREF: "full"}}, "health", {"p2": [{"system": "nhi", "value": "ZZZ0016"}]}
    )
    assert made["people"][0]["identifiers"] == [{"system": "nhi", "value": "ZZZ0016"}]
    without = minimised({"p2": {CORE: "reduced"}}, "health", {"p2": [{"system": "nhi", "value": "ZZZ0016"}]})
    assert "identifiers" not in without["people"][0]


def test_minimise_gives_an_episode_number_to_its_issuer_only() -> None:
    assert "reference" in minimised({"": {SUM: "reduced", XREF: "full"}}, "police")["episode"]
    assert "reference" not in minimised({"": {SUM: "reduced", XREF: "full"}}, "corrections")["episode"]


def test_own_systems_names_the_nhi_for_practitioners_too() -> None:
    assert own_systems("gp") == {"nhi"}
    assert own_systems("health") == {"nhi"}
    assert own_systems("police") == {"police-person", "police-event"}
    assert own_systems("nobody") == frozenset()


def test_minimise_keeps_to_and_the_asked_of_a_question() -> None:
    shape = published()["nz.isr.fss.information-requested.v1"].shape
    data = {
        "to": "msd",
        "request": {"request": "R1", "asks": ["housing"], "purpose": "FV-RISK"},
        "people": [{"ref": "p2", "role": "victim", "name": {"family": "A", "given": "B"}}],
    }
    given_ = decision({"p2": {CORE: "full"}}, "msd", Outcome.PERMIT)
    assert minimise(shape, data, given_, {"p2": "victim"}, {}) == data
    assert minimise(shape, data, decision({"p2": {}}, "msd"), {"p2": "victim"}, {}) == {}


def test_minimise_gives_a_message_of_bare_structure_whole() -> None:
    shape = published()["nz.isr.hub.recall.v1"].shape
    data = {"to": "msd", "recall": {"disclosure": "d", "reason": "error", "instruction": "withdraw"}}
    assert minimise(shape, data, decision({}, "msd", Outcome.PERMIT), {}, {}) == data
    assert minimise(shape, data, decision({}, "msd", Outcome.REFUSE), {}, {}) == {}
    assert minimise(EPISODE, DATA, decision({}, "msd", Outcome.PERMIT), ROLES, {}) == {}


def test_minimise_drops_properties_that_the_schema_does_not_know() -> None:
    data = {
        **DATA,
        "surprise": "1 Example Street",
        "episode": {**DATA["episode"], "surprise": {"deep": "secret"}},
    }
    made = minimise(EPISODE, data, decision({"": {SUM: "full"}}), ROLES, {})
    assert "surprise" not in json.dumps(made)


def test_minimise_leaves_the_original_alone() -> None:
    before = copy.deepcopy(DATA)
    made = minimised(
        {"": {SUM: "full"}, "p1": {CORE: "full", XREF: "full"}, "p3": {HOME: "full"}},
        own={"p1": [{"system": "police-person", "value": "8"}]},
    )
    made["people"].clear()
    made["episode"].clear()
    assert before == DATA


def test_minimise_copes_with_many_people() -> None:
    people = [
        {"ref": f"p{i}", "role": "child", "name": {"family": "A", "given": "B"}, "livesWith": [f"p{i + 1}"]}
        for i in range(60)
    ]
    roles = {p["ref"]: "child" for p in people}
    data = {"episode": DATA["episode"], "people": people}
    # A chain in which each is only given as living with the next: nobody stands in the end, so nobody stays.
    made = minimise(EPISODE, data, decision({str(r): {HOME: "full"} for r in roles}), roles, {})
    assert made == {}


def facts(
    shape: Branch, value: Any, roles: dict[str, str], above: str = ""
) -> Iterator[tuple[str, Facet, bool, str]]:
    """(ref, facet, whether in the reduced view, value) of everything in a message, by a walk of our own."""
    for item in value if shape.array else [value]:
        whose = about_whom(shape, item, above)
        for name, inner in item.items():
            child = shape.children[name]
            if isinstance(child, Leaf):
                yield whose, child.facets[roles.get(whose, CASE)], child.reduced, json.dumps(inner)
            else:
                yield from facts(child, inner, roles, whose)


ROLES_HELD, HELD = holdings(EPISODE, DATA)
PAIRS = sorted((ref, facet) for ref, facets_ in HELD.items() for facet in facets_ if facet.name != FRAME)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(PAIRS), st.sampled_from(["full", "reduced"])))
def test_minimise_gives_exactly_what_was_given(chosen: dict[tuple[str, Facet], str]) -> None:
    """Sound: every fact that leaves was granted in that view. Complete: every granted fact leaves, unless
    it points at nobody or is a number.
    """
    given_: dict[str, dict[Facet, str]] = {}
    for (ref, facet), view in chosen.items():
        given_.setdefault(ref, {})[facet] = view
    made = minimised(given_)
    left = list(facts(EPISODE, made, ROLES))
    for ref, facet, reduced, _ in left:
        if facet.name != FRAME:
            assert given_[ref][facet] == "full" or reduced
    remaining = {(ref, facet, text) for ref, facet, _, text in left}
    for ref, facet, reduced, text in facts(EPISODE, DATA, ROLES):
        view = given_.get(ref, {}).get(facet)
        if facet.name not in (FRAME, "ID-XREF", "CHILD-HH") and (
            view == "full" or (view == "reduced" and reduced)
        ):
            assert (ref, facet, text) in remaining
    named = {p["ref"] for p in made.get("people", ())}
    refs = {text for ref, _, _, text in left if text in ('"p1"', '"p2"', '"p3"')}
    assert refs <= {f'"{ref}"' for ref in named}
    assert all(len(p) >= 2 for p in made.get("people", ()))
