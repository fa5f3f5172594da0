"""What a person may add to the clauses: approvals, break-glass, section 66. None reaches past a guard."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from consent.agreement import Agreements
from consent.clause import LOCKED, THREATS, Agreement, Clause
from consent.decision import Decision
from consent.plain import agreement_text
from consent.policy import Leave, Outcome, Question, decide
from schemas.classes import CASE, Facet
from schemas.errors import BadAgreement
from tests.unit.test_agreement import PARTIES
from tests.unit.test_policy import ADDRESS, AGREEMENTS, AT, NARR, SUM, question, questions, reach

ASKING = frozenset({"V1", "V5", "V6", "V10", "V14", "S66"})  # the guards that ask a person
NUMBER = Facet("OFFENCE-HIST")
GLASS = AGREEMENTS.on(AT.date()).behind_glass(AGREEMENTS.parties["police"])


def put_to_a_person(decision: Decision) -> frozenset[tuple[str, str]]:
    return frozenset(decision.referred)


def granting_what_is_referred(cells: frozenset[tuple[str, str]]) -> Agreements:
    """The same agreements, in which *cells* are granted wherever they were only referred."""

    def granted(clause: Clause) -> Clause:
        grants: dict[str, Mapping[str, str]] = dict(clause.grants)
        for role, names in clause.refer.items():
            more = {name: "full" for name in names if (role, name) in cells}
            if more:
                grants[role] = {**grants.get(role, {}), **more}
        return replace(clause, grants=grants)

    def widened(agreement: Agreement) -> Agreement:
        return replace(agreement, clauses=tuple(granted(clause) for clause in agreement.clauses))

    return Agreements(AGREEMENTS.parties, [widened(a) for a in AGREEMENTS], "widened")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(questions())
def test_approval_is_a_grant_that_stands_behind_the_same_guards(asked: tuple[Question, str]) -> None:
    question, party = asked
    recipient = AGREEMENTS.parties[party]
    before = decide(AGREEMENTS, question, recipient)
    cells = put_to_a_person(before)
    approved = decide(AGREEMENTS, replace(question, leave=Leave(cells)), recipient)
    granted = decide(granting_what_is_referred(cells), question, recipient)
    # A guard that asks is answered by the person who approves; a mere grant is not.
    asks = {cell for cell in put_to_a_person(granted) if not ASKING.isdisjoint(granted.guards)}
    ours, theirs = reach(approved), reach(granted)
    names = dict(question.roles) | {"": CASE}
    for fact in ours.keys() | theirs.keys():
        if (names[fact[0]], fact[1].name) in asks or "V9" in granted.guards:
            continue
        # Who is granted all victims' addresses may be told more besides; who is given one once may not.
        if "ADDR-V" in {name for _, name in cells}:
            assert ours.get(fact, 0) <= theirs.get(fact, 0), fact
        else:
            assert ours.get(fact) == theirs.get(fact), fact


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(questions())
def test_no_leave_gives_less_and_none_opens_what_guards_lock(asked: tuple[Question, str]) -> None:
    question, party = asked
    recipient = AGREEMENTS.parties[party]
    before = decide(AGREEMENTS, question, recipient)
    everything = frozenset((role, name) for role, name, _ in before.withheld)
    widest = Leave(everything, scrubbed=True, opened=frozenset(GLASS), mandatory=True)
    after = decide(AGREEMENTS, replace(question, leave=widest), recipient)
    assert reach(before).keys() <= reach(after).keys()
    if party in question.cases[0].conflicts or "V7" in before.guards:
        assert not after.given
    for _, facet in reach(after):
        assert facet.name not in ("RESTRICT-META", "PRIV")
        assert facet.name != "NOTIFIER-ID" or recipient.kind == "OT"


def test_text_leaves_only_when_the_person_says_that_no_place_stands_in_it() -> None:
    asked = question(holdings={"": frozenset({SUM, NARR}), "p1": frozenset({Facet("ID-CORE")})})
    corrections = AGREEMENTS.parties["corrections"]
    cell = frozenset({("case", "EPISODE-NARR")})
    unread = decide(AGREEMENTS, replace(asked, leave=Leave(cell)), corrections)
    read = decide(AGREEMENTS, replace(asked, leave=Leave(cell, scrubbed=True)), corrections)
    assert ("", NARR) not in reach(unread)
    assert ("case", "EPISODE-NARR") in unread.referred
    assert reach(read)["", NARR] == 2
    assert ("case", "EPISODE-NARR") not in read.referred


def test_approving_what_nobody_referred_gives_nothing() -> None:
    asked = question(holdings={"p2": frozenset({ADDRESS, Facet("ADDR-SAFE", True)})})
    leave = Leave(frozenset({("victim", "ADDR-V"), ("victim", "ADDR-SAFE")}), scrubbed=True)
    for party in ("corrections", "acc", "ngo.aviva#pos"):
        assert not decide(AGREEMENTS, replace(asked, leave=leave), AGREEMENTS.parties[party]).given


def test_section_66_asks_a_person_instead_of_refusing_and_cites_itself() -> None:
    asked = question(
        source="acc",
        type="nz.isr.acc.injury-claims-reported.v1",
        holdings={"p3": frozenset({Facet("ACC-CLAIM"), Facet("PRIV")})},
    )
    ministry = AGREEMENTS.parties["oranga-tamariki"]
    assert decide(AGREEMENTS, asked, ministry).outcome is Outcome.REFUSE
    must = decide(AGREEMENTS, replace(asked, leave=Leave(mandatory=True)), ministry)
    assert must.outcome is Outcome.REFER
    assert must.referred == (("child", "ACC-CLAIM"),)  # privilege is not even put to a person
    leave = Leave(frozenset({("child", "ACC-CLAIM")}), mandatory=True)
    answered = decide(AGREEMENTS, replace(asked, leave=leave), ministry)
    assert ("p3", Facet("ACC-CLAIM")) in reach(answered)
    assert answered.basis == ("OTA66: Oranga Tamariki Act 1989 s 66",)
    assert "not-for-offences" in answered.obligations


def test_break_glass_clause_counts_only_while_it_is_opened() -> None:
    asked = question(
        source="msd",
        type="nz.isr.msd.income-and-housing-reported.v1",
        holdings={"p2": frozenset({Facet("HOUSING", True), Facet("ADDR-SAFE", True), Facet("ID-CORE")})},
    )
    police = AGREEMENTS.parties["police"]
    (name,) = GLASS
    assert not [f for _, f in reach(decide(AGREEMENTS, asked, police)) if f.name == "HOUSING"]
    opened = decide(AGREEMENTS, replace(asked, leave=Leave(opened=frozenset(GLASS))), police)
    assert {f.name for _, f in reach(opened)} == {"HOUSING", "ID-CORE"}
    assert name in opened.clauses
    other = AGREEMENTS.parties["msd"]
    assert AGREEMENTS.on(AT.date()).behind_glass(other) == {}


GLASS_FILE = """agreement:
  id: TEST-GLASS
  version: 1
  title: A test of break-glass
  status: active
  instrument: MOU
  lead: police
  purpose: Tests of what a break-glass clause may say
  effective_from: 2026-07-01
  review_by: 2027-06-30
break_glass:
  - id: POL-NOW
    from: [any]
    to: POL
    grants: {victim: [HEALTH-INJ]}
    threats: [life]
    minutes: 60
    approval: before
    purposes: [FV-RISK]
    basis: [{code: FVA20, section: s 20}]
    belief: {kind: case, statement: A threat to life now, decided_by: the officer in charge, decided_on: 2026-06-20, until: 2027-06-30}
    conditions: [COI_CLEAR]
    obligations: [no-onward]
"""  # noqa: E501


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        pytest.param("HEALTH-INJ", "ADDR-SAFE", "no override opens ADDR-SAFE", id="locked by V17"),
        pytest.param("HEALTH-INJ", "NOTIFIER-ID", "no override opens NOTIFIER-ID", id="notifier"),
        pytest.param("HEALTH-INJ", "PRIV", "can never be granted", id="privilege"),
        pytest.param("threats: [life]", "threats: [boredom]", "boredom is not a threat", id="threat"),
        pytest.param("minutes: 60", "minutes: 2000", "maximum", id="too long"),
        pytest.param("approval: before", "approval: never", "not one of the allowed words", id="approval"),
        pytest.param("    approval: before\n", "", "lacks approval", id="no approval"),
        pytest.param("grants: {victim", "refer: {victim", "lacks grants", id="refers only"),
        pytest.param("    to: POL\n", "    to: POL\n    refer: {victim: [RISK]}\n", "refer", id="refers too"),
        pytest.param("id: POL-NOW", "id: pol", "pattern", id="id"),
    ],
)
def test_break_glass_that_says_too_much_does_not_load(tmp_path: Path, old: str, new: str, says: str) -> None:
    (tmp_path / "parties.yaml").write_text(PARTIES, encoding="utf-8")
    (tmp_path / "glass.yaml").write_text(GLASS_FILE.replace(old, new), encoding="utf-8")
    with pytest.raises(BadAgreement) as caught:
        Agreements.load(tmp_path)
    (problem, *_) = caught.value.problems
    assert says in problem.line()
    assert problem.pointer.startswith("glass.yaml:")


def test_break_glass_ends_with_its_belief_and_is_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "parties.yaml").write_text(PARTIES, encoding="utf-8")
    (tmp_path / "glass.yaml").write_text(GLASS_FILE, encoding="utf-8")
    loaded = Agreements.load(tmp_path)
    police = loaded.parties["police"]
    (glass,) = loaded.on(date(2026, 11, 22)).behind_glass(police).values()
    assert (glass.minutes, glass.approval, glass.threats) == (60, "before", frozenset({"life"}))
    assert loaded.on(date(2027, 7, 1)).behind_glass(police) == {}
    (agreement,) = loaded
    text = " ".join(agreement_text(loaded, agreement).split())
    assert "lasts 60 minutes at most; a second person must agree before it opens" in text
    assert THREATS["life"] in text


def test_what_is_locked_is_what_the_safety_rule_says() -> None:
    assert {"ADDR-SAFE", "NOTIFIER-ID", "RESTRICT-META", "PRIV"} <= LOCKED
