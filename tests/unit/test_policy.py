"""What holds of every decision, whatever the agreements: it is total, pure, never widened by a caution, and
flat in the number of clauses.
"""

import copy
import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent.agreement import Agreements
from consent.case import Case, PersonInCase
from consent.policy import Decision, Outcome, Question, carried, decide, decide_each, outward
from schemas.catalogue import published
from schemas.classes import CLASSES, ROLES, Facet

AGREEMENTS = Agreements.load(Path(__file__).parents[2] / "consent" / "agreements")
AT = datetime(2026, 11, 20, 2, tzinfo=UTC)
TYPE = "nz.isr.police.episode-recorded.v1"
PARTIES = sorted(AGREEMENTS.parties)
SUM, NARR, ADDRESS = Facet("EPISODE-SUM"), Facet("EPISODE-NARR", free_text=True), Facet("ADDR-V", True)


def question(**changes: Any) -> Question:
    people = {
        "s1": PersonInCase(["perpetrator"], {"a"}),
        "s2": PersonInCase(["victim"], {"b"}),
        "s3": PersonInCase(["child"], {"b"}, "school"),
    }
    case = Case(
        "one",
        "christchurch",
        True,
        "high",
        people,
        {(p, "*", "table") for p in ("police", "oranga-tamariki", "corrections", "health", "fss")},
    )
    asked = Question(
        type=TYPE,
        purpose="FV-RISK",
        audience="table",
        source="police",
        roles={"p1": "perpetrator", "p2": "victim", "p3": "child"},
        pseudonyms={"p1": "s1", "p2": "s2", "p3": "s3"},
        holdings={
            "": frozenset({SUM, NARR, ADDRESS}),
            "p1": frozenset({Facet("ID-CORE")}),
            "p2": frozenset({Facet("ID-CORE"), ADDRESS}),
            "p3": frozenset(),
        },
        cases=(case,),
        at=AT,
    )
    return replace(asked, **changes)


def reach(decision: Decision) -> dict[tuple[str, Facet], int]:
    """How much of each fact a decision gives: 2 in full, 1 reduced."""
    return {
        (ref, f): 2 if view == "full" else 1
        for ref, facets in decision.given.items()
        for f, view in facets.items()
    }


FACETS = st.frozensets(
    st.builds(Facet, st.sampled_from(sorted(CLASSES)), st.booleans(), st.booleans()), max_size=12
)
SERVICES = st.sampled_from(["table", "asked", "task", "ivs", "pos", "wsw", "lrr", "refuge"])


@st.composite
def questions(draw: st.DrawFn) -> tuple[Question, str]:
    recipient = draw(st.sampled_from(PARTIES))
    refs = ["p1", "p2", "p3"][: draw(st.integers(0, 3))]
    roles = {ref: draw(st.sampled_from(ROLES)) for ref in refs}
    people = {
        f"s-{ref}": PersonInCase(
            [*draw(st.lists(st.sampled_from(ROLES), max_size=1)), role],
            set(draw(st.lists(st.sampled_from("ab"), max_size=2))),
            draw(st.sampled_from([None, "school"])),
            draw(st.sampled_from([None, "s-p1", "s-p2", "elsewhere"])),
        )
        for ref, role in roles.items()
    }
    case = Case(
        "one",
        "christchurch",
        draw(st.booleans()),
        draw(st.sampled_from([None, "low", "medium", "high", "?"])),
        people,
    )
    case.assignments = {
        (recipient, draw(st.sampled_from([*people, "*"])), service)
        for service in draw(st.lists(SERVICES, max_size=3))
    }
    case.conflicts = set(draw(st.lists(st.sampled_from([recipient, "other"]), max_size=1)))
    kind = draw(st.sampled_from(sorted(t.name for t in published())))
    asked = Question(
        type=kind,
        purpose=draw(st.sampled_from(["FV-RISK", "FV-PLAN", "FV-PROTECT", "CW-ASSESS", "CW-ROC"])),
        audience=draw(st.sampled_from(["table", "addressee"])),
        source=draw(st.sampled_from(PARTIES)),
        roles=roles,
        pseudonyms={ref: f"s-{ref}" for ref in refs},
        holdings={"": draw(FACETS), **{ref: draw(FACETS) for ref in refs}},
        cases=(case,),
        at=AT,
    )
    return asked, recipient


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(questions(), st.data())
def test_decide_never_widens_when_a_caution_is_added(
    asked: tuple[Question, str], data: st.DataObject
) -> None:
    """INVARIANT: a conflict, a link, a shared home, a past role, a lost assignment, a lower risk or less
    knowledge never gives more.
    """
    question_, recipient = asked
    party = AGREEMENTS.parties[recipient]
    before = reach(decide(AGREEMENTS, question_, party))
    case = question_.cases[0]
    somebody = data.draw(st.sampled_from(sorted(case.people))) if case.people else None

    def changed(edit: Any) -> dict[tuple[str, Facet], int]:
        twin = copy.deepcopy(case)
        edit(twin)
        return reach(decide(AGREEMENTS, replace(question_, cases=(twin,)), party))

    cautions: list[Any] = [
        lambda c: c.conflicts.add(recipient),
        # Not those to a perpetrator: what links is lifted with them.
        lambda c: c.assignments.difference_update(
            {a for a in c.assignments if not c.has_role(a[1], "perpetrator")}
        ),
        lambda c: setattr(c, "open", False),
        lambda c: setattr(c, "risk", None),
    ]
    if somebody is not None:
        cautions += [
            lambda c: c.people[somebody].roles.insert(0, "perpetrator"),
            lambda c: [p.households.add("a") for p in c.people.values()],
            lambda c: setattr(c.people[somebody], "representative", "elsewhere"),
            lambda c: setattr(c.people[somebody], "protected", True),
            lambda c: c.people.pop(somebody),
        ]
    for caution in cautions:
        after = changed(caution)
        assert all(after[key] <= before.get(key, 0) for key in after)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(questions())
def test_decide_is_total_and_consistent(asked: tuple[Question, str]) -> None:
    question_, recipient = asked
    decision = decide(AGREEMENTS, question_, AGREEMENTS.parties[recipient])
    given_names = {(ref, f) for ref, facets in decision.given.items() for f in facets}
    assert all(f in question_.holdings[ref] for ref, f in given_names)
    if decision.outcome in (Outcome.PERMIT, Outcome.REDUCED):
        assert decision.given
        assert decision.clauses
        assert decision.basis
    else:
        assert not decision.given
        assert decision.reasons
    assert (decision.outcome is Outcome.REFER) is (not decision.given and bool(decision.referred))
    if decision.outcome is Outcome.PERMIT:
        assert not decision.withheld
        assert all(view == "full" for facets in decision.given.values() for view in facets.values())
    assert not {"RESTRICT-META", "PRIV"} & {f.name for _, f in given_names}
    assert decision.recipient == recipient
    assert decide(AGREEMENTS, question_, AGREEMENTS.parties[recipient]) == decision


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(questions())
def test_decide_says_the_same_without_its_memory(asked: tuple[Question, str]) -> None:
    """Remembered decisions equal those made from scratch."""
    question_, recipient = asked
    remembered = decide(AGREEMENTS, question_, AGREEMENTS.parties[recipient])
    for day in AGREEMENTS._days.values():
        day.forget()
    assert decide(AGREEMENTS, question_, AGREEMENTS.parties[recipient]) == remembered


def test_decide_each_says_what_decide_says() -> None:
    asked = question()
    parties = AGREEMENTS.candidates("christchurch", "police")
    assert list(decide_each(AGREEMENTS, asked, parties)) == [decide(AGREEMENTS, asked, p) for p in parties]


def test_decide_follows_a_case_that_changed() -> None:
    """A person's role may flip between two decisions; the memory goes by what the case says now."""
    asked = question()
    police = AGREEMENTS.parties["health"]
    assert decide(AGREEMENTS, asked, police).given
    asked.cases[0].conflicts.add("health")
    assert not decide(AGREEMENTS, asked, police).given
    asked.cases[0].conflicts.clear()
    assert decide(AGREEMENTS, asked, police).given


@pytest.mark.parametrize(
    "changes",
    [
        {"cases": ()},
        {"holdings": {}},
        {"holdings": {"p9": frozenset({SUM})}},
        {"roles": {}},
        {"roles": {"p1": "king", "p2": "victim", "p3": "child"}},
        {"pseudonyms": {}},
        {"type": "nz.isr.never.heard-of.v9"},
        {"purpose": ""},
        {"audience": ""},
        {"source": ""},
        {"at": datetime(2026, 11, 20)},  # noqa: DTZ001  # a naive time is the point
        {"at": datetime(1970, 1, 1, tzinfo=UTC)},
        {"at": datetime.max.replace(tzinfo=UTC) - timedelta(days=2)},
        {"at": datetime.min.replace(tzinfo=UTC) + timedelta(days=2)},
        {"holdings": {"": {SUM, NARR}}},
    ],
)
def test_decide_never_raises_when_operands_are_missing_or_strange(changes: dict[str, Any]) -> None:
    for party in AGREEMENTS.parties.values():
        decision = decide(AGREEMENTS, question(**changes), party)
        assert isinstance(decision, Decision)
        assert ADDRESS not in decision.given.get("p9", {})


def test_decide_refuses_a_party_the_agreements_do_not_know() -> None:
    stranger = replace(AGREEMENTS.parties["police"], id="police2")
    promoted = replace(AGREEMENTS.parties["corrections"], kind="POL")
    retired = replace(AGREEMENTS.parties["police"], active=False)
    for party in (stranger, promoted, retired):
        decision = decide(AGREEMENTS, question(source="fss"), party)
        assert decision.outcome is Outcome.REFUSE
        assert decision.reasons == ("unknown-party",)


def test_decide_withholds_every_class_it_has_never_heard_of() -> None:
    unheard = Facet("TOMORROWS-CLASS")
    for party in AGREEMENTS.parties.values():
        decision = decide(
            AGREEMENTS, question(holdings={"": frozenset({SUM, unheard}), "p2": frozenset({unheard})}), party
        )
        assert all(unheard not in facets for facets in decision.given.values())


def test_decide_takes_the_highest_risk_and_any_conflict_of_several_cases() -> None:
    low = Case(
        "a",
        "christchurch",
        risk="low",
        people={"s3": PersonInCase(["child"], school="s")},
        assignments={("education", "s3", "task")},
    )
    high = Case("b", "christchurch", risk="high")
    asked = question(cases=(low,), holdings={"": frozenset({SUM}), "p3": frozenset({Facet("ID-CORE")})})
    school = AGREEMENTS.parties["education"]
    assert decide(AGREEMENTS, asked, school).outcome is Outcome.REFUSE
    assert decide(AGREEMENTS, replace(asked, cases=(low, high)), school).outcome is Outcome.REDUCED
    high.conflicts.add("education")
    assert decide(AGREEMENTS, replace(asked, cases=(low, high)), school).outcome is Outcome.REFUSE


def test_a_seat_at_one_table_says_nothing_about_a_person_of_no_case() -> None:
    """A person whom no case knows is nobody's to learn about, the table included."""
    asked = question(
        roles={"p9": "victim"},
        pseudonyms={},
        holdings={"": frozenset({SUM}), "p9": frozenset({Facet("ID-CORE")})},
    )
    decision = decide(AGREEMENTS, asked, AGREEMENTS.parties["health"])
    assert "p9" not in decision.given


def test_decision_cannot_be_changed_and_still_encodes() -> None:
    decision = decide(AGREEMENTS, question(), AGREEMENTS.parties["fss"])
    with pytest.raises(TypeError):
        decision.given["p2"][ADDRESS] = "full"  # type: ignore[index]
    with pytest.raises(TypeError):
        decision.conditions.clear()  # type: ignore[attr-defined]
    assert orjson.loads(orjson.dumps(decision.conditions)) == json.loads(json.dumps(decision.conditions))
    assert pickle.loads(pickle.dumps(decision)) == decision
    assert copy.deepcopy(decision) == decision


def test_outward_is_one_word_for_everything_that_does_not_come() -> None:
    words = {
        outward(replace(decide(AGREEMENTS, question(), AGREEMENTS.parties["fss"]), outcome=o))
        for o in (Outcome.REFER, Outcome.REFUSE)
    }
    assert words == {"not-available"}


def test_carried_lists_facets_by_role_and_marks_people() -> None:
    held = set(carried(published()[TYPE].shape))
    assert ("victim", Facet("ADDR-V", True), True, True) in held
    assert ("perpetrator", Facet("LOC-P"), False, True) in held
    assert ("case", Facet("EPISODE-NARR", free_text=True), False, False) in held
    assert not any(role == "case" and facet.name == "ID-CORE" for role, facet, _, _ in held)


def test_cells_visited_stay_few_when_there_are_many_clauses(tmp_path: Path) -> None:
    """A thousand clauses for other parties do not make a decision look at more entries."""
    folder = Path(__file__).parents[2] / "consent" / "agreements"
    for path in folder.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    few = Agreements.load(folder).on(AT.date()).cells("health", "FV-RISK", "POL")
    text = (folder / "isr-education.yaml").read_text(encoding="utf-8").replace("ISR-EDUCATION", "ISR-MANY")
    head, _, clause = text.partition("  - id: EDU-WHO\n")
    clause = clause.partition("  - id:")[0]
    (tmp_path / "many.yaml").write_text(
        head + "".join(f"  - id: MANY-{i}\n{clause}" for i in range(1000)), encoding="utf-8"
    )
    assert Agreements.load(tmp_path).on(AT.date()).cells("health", "FV-RISK", "POL") == few
