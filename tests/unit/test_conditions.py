"""Each condition holds when its operand says so, and not when the operand is missing, unknown or stale."""

from dataclasses import replace
from datetime import date

import pytest

from consent.conditions import CONDITIONS, Facts, meaning, risk_at_least

NOTHING = Facts(
    kind="MSD",
    status={},
    today=date(2026, 11, 20),
    audience="table",
    case_open=False,
    risk=None,
    linked=False,
    conflicted=False,
    role="victim",
    services=frozenset(),
    in_case=False,
    own_pupil=False,
)


TASK_SERVICES_SAID = ("task", "asked", "ivs", "pos", "wsw", "lrr", "refuge")


@pytest.mark.parametrize(
    ("name", "holds", "fails"),
    [
        ("OPEN_EPISODE", {"case_open": True}, {"case_open": False}),
        ("ASSIGNED", {"services": frozenset({"table"})}, {"services": frozenset()}),
        ("IN_CASE", {"in_case": True}, {"in_case": False}),
        ("TASKED", {"services": frozenset({"asked"})}, {"services": frozenset({"table"})}),
        ("TASKED", {"services": frozenset({"table", "ivs"})}, {"services": frozenset({"never-heard-of"})}),
        *(("TASKED", {"services": frozenset({s})}, {"services": frozenset()}) for s in TASK_SERVICES_SAID),
        ("RISK_MEDIUM", {"risk": "medium"}, {"risk": "low"}),
        ("RISK_MEDIUM", {"risk": "high"}, {"risk": None}),
        ("RISK_HIGH", {"risk": "high"}, {"risk": "medium"}),
        ("RISK_HIGH", {"risk": "high"}, {"risk": "extreme"}),
        ("NOT_PERP_LINKED", {"linked": False}, {"linked": True}),
        ("COI_CLEAR", {"conflicted": False}, {"conflicted": True}),
        ("OWN_PUPIL", {"own_pupil": True}, {"own_pupil": False}),
        ("ROLE_CLINICAL", {"kind": "GP"}, {"kind": "ACC"}),
        (
            "REG_CURRENT",
            {"status": {"registered_until": "2026-11-20"}},
            {"status": {"registered_until": "2026-11-19"}},
        ),
        ("REG_CURRENT", {"status": {"registered_until": "2027-01-01"}}, {"status": {}}),
        ("TRAINED", {"status": {"trained_until": "2027-01-01"}}, {"status": {"trained_until": "soon"}}),
        ("NAMED_RECIPIENT", {"status": {"named_recipient": "yes"}}, {"status": {"named_recipient": "maybe"}}),
        ("ADDRESSED", {"audience": "addressee"}, {"audience": "both"}),
    ],
)
def test_condition_holds_when_known_and_fails_when_not(
    name: str, holds: dict[str, object], fails: dict[str, object]
) -> None:
    assert CONDITIONS[name](replace(NOTHING, **holds)) is True  # type: ignore[arg-type]
    assert CONDITIONS[name](replace(NOTHING, **fails)) is False  # type: ignore[arg-type]


def test_conditions_fail_when_nothing_is_known() -> None:
    """Only the two that speak of an absence hold before anything is known."""
    assert {name for name, holds in CONDITIONS.items() if holds(NOTHING)} == {"NOT_PERP_LINKED", "COI_CLEAR"}


def test_meaning_says_every_condition_in_a_sentence() -> None:
    assert all(meaning(name).endswith(".") for name in CONDITIONS)


def test_risk_at_least_is_false_when_risk_is_unknown() -> None:
    assert not risk_at_least(None, "low")
    assert not risk_at_least("MEDIUM", "low")
    assert risk_at_least("low", "low")
