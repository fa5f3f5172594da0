"""The state machines of what people decide: each thing ends once, and never by silence."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent import duty, override, referral
from consent.clause import THREATS, BreakGlass
from consent.override import Attempt, opening
from consent.referral import CAPACITIES, OPEN, REASONS, RELEASE, REQUEST, Standing, State
from gateway.due import decision_due
from schemas.errors import AlreadyDecided, HubError, InvalidMessage, NotAuthorised
from tests.unit.test_leave import GLASS

NOW = datetime(2026, 11, 20, 3, tzinfo=UTC)  # a Friday afternoon in New Zealand
STANDINGS = st.builds(
    Standing,
    st.sampled_from([RELEASE, REQUEST]),
    st.sampled_from(list(State)),
    st.booleans(),
    st.sampled_from([NOW - timedelta(hours=1), NOW + timedelta(hours=1)]),
)


def waiting(kind: str = RELEASE, *, mandatory: bool = False, state: State = State.WAITING) -> Standing:
    return Standing(kind, state, mandatory, NOW)


@given(STANDINGS, st.booleans(), st.sampled_from(sorted(REASONS)), st.sampled_from(sorted(CAPACITIES)))
def test_what_ended_never_moves_again(at: Standing, whole: bool, reason: str, capacity: str) -> None:
    for step in (
        lambda: referral.approved(at, whole=whole),
        lambda: referral.told(at),
        lambda: referral.declined(at, reason, capacity),
    ):
        if at.state in OPEN:
            try:
                after = step()
            except InvalidMessage:
                continue
            assert after not in OPEN or after is State.LEGAL
        else:
            with pytest.raises(AlreadyDecided):
                step()
    after = referral.escalated(at, NOW)
    assert after in (None, State.ESCALATED)
    assert after is None or at.state is State.WAITING
    answered = referral.answered(at)
    assert (answered is not None) == (at.kind == REQUEST and at.state in OPEN)


@pytest.mark.parametrize("capacity", sorted(set(CAPACITIES) - {"legal"}))
@pytest.mark.parametrize("reason", sorted(REASONS))
def test_mandatory_goes_to_the_lawyers_and_is_not_refused(capacity: str, reason: str) -> None:
    for kind in (RELEASE, REQUEST):
        assert referral.declined(waiting(kind, mandatory=True), reason, capacity) is State.LEGAL


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_lawyers_refuse_what_is_mandatory_for_privilege_alone(reason: str) -> None:
    at = waiting(mandatory=True, state=State.LEGAL)
    if reason in ("privilege", "not-held"):
        assert referral.declined(at, reason, "legal") is State.DECLINED
    else:
        with pytest.raises(InvalidMessage) as caught:
            referral.declined(at, reason, "legal")
        assert "not-held, privilege" in caught.value.problems[0].fix


def test_request_is_answered_and_not_approved() -> None:
    with pytest.raises(InvalidMessage, match="answered"):
        referral.approved(waiting(REQUEST), whole=True)
    assert referral.answered(waiting(REQUEST)) is State.ANSWERED
    assert referral.answered(waiting(REQUEST, state=State.DECLINED)) is None


@pytest.mark.parametrize(("reason", "capacity"), [("because", "legal"), ("no-help", "cleaner"), ("", "")])
def test_decline_takes_no_other_word(reason: str, capacity: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        referral.declined(waiting(), reason, capacity)
    assert caught.value.problems[0].fix.startswith("use one of")


def test_overdue_begins_after_the_deadline_and_only_while_it_waits() -> None:
    assert not referral.is_overdue(waiting(), NOW)
    later = NOW + timedelta(seconds=1)
    assert referral.is_overdue(waiting(), later)
    assert referral.is_overdue(waiting(state=State.ESCALATED), later)
    assert not referral.is_overdue(waiting(state=State.DECLINED), later)
    assert referral.escalated(waiting(), NOW) is None
    assert referral.escalated(waiting(state=State.ESCALATED), later) is None


@pytest.mark.parametrize(
    ("what", "risk", "site", "day"),
    [
        pytest.param(RELEASE, "high", "christchurch", "2026-11-23", id="high: the next working day"),
        pytest.param(RELEASE, None, "christchurch", "2026-11-23", id="unknown may be high"),
        pytest.param(RELEASE, "medium", "waikato-city", "2026-11-24", id="medium"),
        pytest.param(REQUEST, "low", "waikato-city", "2026-11-27", id="low"),
        pytest.param(RELEASE, "extreme", "", "2026-11-23", id="a risk and a site that nobody knows"),
        pytest.param("review", None, "waikato-city", "2026-11-23", id="review"),
        pytest.param(duty.NOTIFY, "high", "christchurch", "2026-12-18", id="notice"),
    ],
)
def test_due_times_count_working_days(what: str, risk: str | None, site: str, day: str) -> None:
    due = decision_due(NOW, what, risk, site)
    assert due.isoformat() == f"{day}T03:00:00+00:00"


# duties


@pytest.mark.parametrize("kind", sorted(duty.DISPOSITIONS))
def test_notice_names_its_channel_and_nothing_else_does(kind: str) -> None:
    for code, said in duty.DISPOSITIONS[kind].items():
        channel = "in-person" if said.notice else ""
        duty.require_disposition(kind, code, channel)
        with pytest.raises(InvalidMessage):
            duty.require_disposition(kind, code, "" if said.notice else "in-person")


@pytest.mark.parametrize(
    ("kind", "code", "channel", "pointer"),
    [
        ("ipp4", "notified", "in-person", "/kind"),
        ("ipp3a", "views-taken", "", "/code"),
        ("ipp3a", "notified", "letter", "/channel"),
        ("ipp3a", "notified", "shared-phone", "/channel"),
    ],
)
def test_disposition_takes_no_other_word(kind: str, code: str, channel: str, pointer: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        duty.require_disposition(kind, code, channel)
    assert caught.value.problems[0].pointer == pointer


def test_duty_is_overdue_until_somebody_records_how_it_ended() -> None:
    assert duty.is_overdue("", NOW, NOW + timedelta(seconds=1))
    assert not duty.is_overdue("", NOW, NOW)
    assert not duty.is_overdue("notified", NOW, NOW + timedelta(days=1))


# overrides


def attempt(**changes: object) -> Attempt:
    return Attempt("life", "he is at the door", case_known=True, conflicted=False, running=False)._replace(
        **changes
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"case_known": False}, "case-unknown"),
        ({"conflicted": True}, "V7"),
        ({"running": True}, "already-open"),
        ({"threat": "released"}, "no-clause"),
        ({"case_known": False, "conflicted": True, "running": True}, "case-unknown"),
    ],
)
def test_override_is_refused(changes: dict[str, object], why: str) -> None:
    found = opening(attempt(**changes), GLASS)
    assert (found.state, found.clauses, found.minutes, found.why) == (override.State.REFUSED, (), 0, why)


def test_override_opens_what_its_clauses_say_for_the_shortest_of_their_times() -> None:
    (glass,) = GLASS.values()
    clauses: dict[str, BreakGlass] = {
        "A": glass,
        "B": BreakGlass(glass.clause, frozenset({"life"}), 30, "after"),
        "C": BreakGlass(glass.clause, frozenset({"weapon"}), 5, "before"),
    }
    assert opening(attempt(), clauses)[:3] == (override.State.OPEN, ("A", "B"), 30)
    assert opening(attempt(threat="weapon"), clauses)[:3] == (override.State.ASKED, ("A", "C"), 5)
    assert opening(attempt(), {}).why == "no-clause"


def test_second_person_is_another_one_and_comes_in_time() -> None:
    asked = override.State.ASKED
    assert override.agreed(asked, NOW, NOW, same_person=False) is override.State.OPEN
    with pytest.raises(NotAuthorised):
        override.agreed(asked, NOW, NOW, same_person=True)
    for state, at in ((asked, NOW + timedelta(minutes=61)), (override.State.OPEN, NOW)):
        with pytest.raises(AlreadyDecided):
            override.agreed(state, NOW, at, same_person=False)


@pytest.mark.parametrize("state", list(override.State))
def test_override_is_reviewed_once_by_somebody_else_with_a_known_finding(state: override.State) -> None:
    if state in (override.State.OPEN, override.State.CLOSED):
        assert override.reviewed(state, "justified", same_person=False) is override.State.REVIEWED
        with pytest.raises(NotAuthorised):
            override.reviewed(state, "justified", same_person=True)
        with pytest.raises(InvalidMessage):
            override.reviewed(state, "fine", same_person=False)
    else:
        with pytest.raises(HubError):
            override.reviewed(state, "justified", same_person=False)


def test_override_runs_until_its_time_and_not_at_it() -> None:
    until = NOW + timedelta(minutes=1)
    assert override.runs(override.State.OPEN, until, NOW)
    assert not override.runs(override.State.OPEN, until, until)
    assert not override.runs(override.State.CLOSED, until, NOW)
    with pytest.raises(AlreadyDecided):
        override.closed(override.State.REVIEWED)


@pytest.mark.parametrize(
    ("threat", "reason", "pointer"),
    [
        ("boredom", "long enough a reason", "/threat"),
        ("life", "  short  ", "/reason"),
        ("life", "x" * 2001, "/reason"),
    ],
)
def test_override_needs_a_threat_and_a_reason(threat: str, reason: str, pointer: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        override.require_words(threat, reason)
    assert caught.value.problems[0].pointer == pointer
    override.require_words(next(iter(THREATS)), "long enough a reason")
