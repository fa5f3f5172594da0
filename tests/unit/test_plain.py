"""The agreement in plain words, and as ODRL: everything that is in the file, and nothing that is not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from consent.agreement import Agreements
from consent.clause import OBLIGATIONS, PURPOSES
from consent.conditions import meaning
from consent.guards import GUARDS
from consent.odrl import odrl_agreement, odrl_agreements
from consent.plain import KIND_NAMES, PURPOSE_NAMES, agreement_text, agreements_text
from schemas.classes import CLASSES

FOLDER = Path(__file__).parents[2] / "consent" / "agreements"
PRESENT = Agreements.load(FOLDER)
EACH = pytest.mark.parametrize("agreement", list(PRESENT), ids=lambda a: a.id)
# Rules of the ODRL Information Model 2.2, sections 2.1 to 2.6, as far as an Agreement needs them.
OPERATORS = {
    "eq",
    "gt",
    "gteq",
    "lt",
    "lteq",
    "neq",
    "isA",
    "hasPart",
    "isPartOf",
    "isAllOf",
    "isAnyOf",
    "isNoneOf",
}
LEFT_OPERANDS = {"purpose", "dateTime", "elapsedTime"}
ACTIONS = {"distribute", "delete", "inform", "obtainConsent"}


def words(text: str) -> str:
    """*text* on one line: where a line ends is no part of what is said."""
    return " ".join(text.split())


@EACH
def test_text_names_every_word_of_every_clause(agreement: Any) -> None:
    said = words(agreement_text(PRESENT, agreement))

    for clause in agreement.clauses:
        assert clause.id in said
        assert clause.belief.statement in said
        for name in clause.conditions:
            assert f"{meaning(name)} ({name})" in said
        for name in clause.obligations:
            assert f"{OBLIGATIONS[name]} ({name})" in said
        for classes in clause.grants.values():
            for name in classes:
                assert f"{CLASSES[name].title} ({name})" in said
        for names in clause.refer.values():
            for name in names:
                assert f"{CLASSES[name].title} ({name})" in said
        for basis in clause.basis:
            assert basis.section in said


def test_text_is_the_same_from_the_same_files() -> None:
    assert agreements_text(PRESENT) == agreements_text(Agreements.load(FOLDER))


def test_text_says_what_no_clause_overrides() -> None:
    said = agreements_text(PRESENT)

    assert all(f"({code})" in said for code in GUARDS)


def test_text_keeps_macrons_and_breaks_no_long_line() -> None:
    said = agreements_text(PRESENT)

    assert "whānau" in said
    assert max(map(len, said.splitlines())) <= 100


def test_text_tells_the_short_form_and_the_referral_apart(tmp_path: Path) -> None:
    (education,) = [a for a in PRESENT if a.id == "ISR-EDUCATION"]
    said = words(agreement_text(PRESENT, education))

    assert "about a child, only the short form of: safety plan and tasks about those at risk (FSP-V)" in said
    assert (
        "about the perpetrator, only if a person of the agency that holds it agrees each time: custody"
        in said
    )


def test_text_has_a_name_for_every_kind_and_purpose() -> None:
    assert set(PURPOSE_NAMES) == PURPOSES
    assert {party.kind for party in PRESENT.parties.values()} <= set(KIND_NAMES)


@EACH
def test_odrl_has_the_structure_of_an_agreement(agreement: Any) -> None:
    policy = odrl_agreement(PRESENT, agreement)

    assert policy["@context"][0] == "http://www.w3.org/ns/odrl.jsonld"
    assert policy["@type"] == "Agreement"
    assert re.fullmatch(r"urn:isr:agreement:[A-Z-]+:\d+", policy["uid"])
    assert policy["assigner"]
    assert policy["assignee"]  # an Agreement has both (2.1.3)
    assert policy["conflict"] == "prohibit"
    assert policy["profile"]  # it uses operands of its own
    for rule in (*policy["permission"], *policy["prohibition"]):
        assert rule["action"] in ACTIONS
        assert rule["target"]["uid"]
        assert rule["assigner"]["uid"]
        assert rule["assignee"]["uid"]
        for constraint in rule["constraint"]:
            assert set(constraint) >= {"leftOperand", "operator", "rightOperand"}
            assert constraint["operator"] in OPERATORS
            assert constraint["leftOperand"] in LEFT_OPERANDS or constraint["leftOperand"].startswith(
                "urn:isr:"
            )
        for duty in rule.get("duty", ()):
            assert duty["action"] in ACTIONS or duty["action"].startswith("urn:isr:action:")


@EACH
def test_odrl_has_one_permission_for_each_word_of_the_file(agreement: Any) -> None:
    uids = [rule["uid"] for rule in odrl_agreement(PRESENT, agreement)["permission"]]
    expected = {
        f"urn:isr:agreement:{agreement.id}:{agreement.version}:{clause.id}:{role}:{name}"
        for clause in (*agreement.clauses, *(glass.clause for glass in agreement.break_glass))
        for side in (clause.grants, clause.refer)
        for role, names in side.items()
        for name in names
    }

    assert len(uids) == len(set(uids))
    assert set(uids) == expected


@EACH
def test_odrl_says_every_condition_obligation_and_referral(agreement: Any) -> None:
    rules = {rule["uid"]: rule for rule in odrl_agreement(PRESENT, agreement)["permission"]}

    for clause in agreement.clauses:
        prefix = f"urn:isr:agreement:{agreement.id}:{agreement.version}:{clause.id}:"
        for uid, rule in rules.items():
            if not uid.startswith(prefix):
                continue
            asked = {c["leftOperand"] for c in rule["constraint"]}
            assert {f"urn:isr:condition:{name}" for name in clause.conditions} <= asked
            done = {d.get("uid") for d in rule["duty"]}
            assert {f"urn:isr:obligation:{name}" for name in clause.obligations} <= done
            role, name = uid.removeprefix(prefix).split(":")
            referred = name in clause.refer.get(role, ())
            assert (rule["duty"][0]["action"] == "obtainConsent") is referred


def test_odrl_says_when_and_how_long_an_override_permits() -> None:
    (emergency,) = [a for a in PRESENT if a.break_glass]
    (glass,) = emergency.break_glass
    for rule in odrl_agreement(PRESENT, emergency)["permission"]:
        limits = {c["leftOperand"]: c["rightOperand"] for c in rule["constraint"]}
        assert {t["@id"] for t in limits["urn:isr:override"]} == {
            f"urn:isr:threat:{threat}" for threat in glass.threats
        }
        assert limits["elapsedTime"]["@value"] == f"PT{glass.minutes}M"


def test_odrl_has_one_prohibition_for_each_guard() -> None:
    policy = odrl_agreement(PRESENT, next(iter(PRESENT)))

    assert {rule["uid"] for rule in policy["prohibition"]} == {f"urn:isr:guard:{code}" for code in GUARDS}


def test_odrl_graph_holds_every_agreement_and_is_json() -> None:
    graph = json.loads(json.dumps(odrl_agreements(PRESENT), ensure_ascii=False))

    assert [p["uid"] for p in graph["@graph"]] == sorted(
        f"urn:isr:agreement:{a.id}:{a.version}" for a in PRESENT
    )
