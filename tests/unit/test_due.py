"""Due times: elapsed hours through every odd day, working days by region, and the statutes' own counting."""

from datetime import UTC, date, datetime, time, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.due import ANNIVERSARY, CALENDARS, first_contact_due, local_instant
from schemas.clock import NEW_ZEALAND


def _naive(year: int, month: int = 1, day: int = 1, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour)  # noqa: DTZ001  # what a wall clock shows


INSTANTS = st.datetimes(_naive(2018), _naive(2041), timezones=st.just(UTC))


def nz(year: int, month: int, day: int, hour: int = 10, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=NEW_ZEALAND)


@pytest.mark.parametrize(
    ("assigned", "risk", "site", "due"),
    [
        pytest.param(nz(2026, 10, 25), "high", "waikato-city", nz(2026, 10, 26), id="high on Labour Day too"),
        pytest.param(nz(2026, 12, 24), "high", "christchurch", nz(2026, 12, 25), id="high at Christmas"),
        pytest.param(nz(2026, 12, 24), "medium", "christchurch", nz(2026, 12, 27), id="medium at Christmas"),
        pytest.param(nz(2026, 10, 22), "low", "waikato-city", nz(2026, 10, 29), id="low skips Labour Day"),
        pytest.param(nz(2026, 10, 27, 8), "low", "waikato-rural", nz(2026, 11, 2, 8), id="after a holiday"),
        pytest.param(nz(2026, 1, 23), "low", "waikato-city", nz(2026, 1, 30), id="city anniversary"),
        pytest.param(nz(2026, 1, 23), "low", "waikato-rural", nz(2026, 1, 30), id="rural anniversary"),
        pytest.param(nz(2026, 1, 23), "low", "christchurch", nz(2026, 1, 29), id="not in Christchurch"),
        pytest.param(nz(2026, 11, 10), "low", "christchurch", nz(2026, 11, 17), id="Canterbury Show Day"),
        pytest.param(nz(2026, 11, 10), "low", "waikato-city", nz(2026, 11, 16), id="no Show Day in Waikato"),
        pytest.param(nz(2026, 7, 6), "low", "christchurch", nz(2026, 7, 13), id="Matariki"),
        pytest.param(nz(2026, 4, 24), "low", "waikato-city", nz(2026, 5, 1), id="Mondayised Anzac Day"),
        pytest.param(nz(2027, 2, 5), "low", "christchurch", nz(2027, 2, 12), id="Mondayised Waitangi Day"),
        pytest.param(nz(2026, 12, 23), "low", "waikato-city", nz(2026, 12, 31), id="low over Christmas"),
        pytest.param(nz(2027, 12, 24), "low", "waikato-city", nz(2028, 1, 5), id="Christmas and New Year"),
        pytest.param(nz(2026, 10, 25), "low", "waikato-city", nz(2026, 10, 30), id="assigned on a Sunday"),
        pytest.param(nz(2026, 9, 24), "low", "christchurch", nz(2026, 9, 30), id="low keeps the local time"),
    ],
)
def test_first_contact_due_is_this_when(assigned: datetime, risk: str, site: str, due: datetime) -> None:
    assert due.astimezone(UTC) == first_contact_due(assigned, risk, site)


def test_first_contact_due_counts_elapsed_hours_when_clocks_skip_an_hour() -> None:
    due = first_contact_due(nz(2026, 9, 26, 12), "high", "christchurch")
    assert due.astimezone(NEW_ZEALAND).replace(tzinfo=None) == _naive(2026, 9, 27, 13)


def test_first_contact_due_counts_elapsed_hours_when_clocks_repeat_an_hour() -> None:
    due = first_contact_due(nz(2027, 4, 3, 12), "high", "christchurch")
    assert due.astimezone(NEW_ZEALAND).replace(tzinfo=None) == _naive(2027, 4, 4, 11)


def test_first_contact_due_keeps_the_local_time_when_working_days_span_the_change() -> None:
    assigned = nz(2026, 9, 24)
    due = first_contact_due(assigned, "low", "christchurch")
    assert due - assigned.astimezone(UTC) == timedelta(days=6, hours=-1)


def test_first_contact_due_tells_repeated_hours_apart_when_the_risk_is_high() -> None:
    first, second = (datetime(2027, 4, 4, 2, 30, tzinfo=NEW_ZEALAND, fold=fold) for fold in (0, 1))
    dues = [first_contact_due(assigned, "high", "waikato-city") for assigned in (first, second)]
    assert dues[1] - dues[0] == timedelta(hours=1)


@given(INSTANTS, st.sampled_from(sorted(ANNIVERSARY)))
def test_first_contact_due_is_ordered_by_risk_for_any_instant(assigned: datetime, site: str) -> None:
    high, medium, low = (first_contact_due(assigned, risk, site) for risk in ("high", "medium", "low"))
    assert assigned < high < medium < low
    assert low.tzinfo is UTC
    local = low.astimezone(NEW_ZEALAND)
    assert CALENDARS[f"isr-operational:{site}"].is_working_day(local.date())


@given(INSTANTS, st.integers(-14, 14), st.sampled_from(["high", "medium", "low"]))
def test_first_contact_due_is_the_same_whatever_offset_the_instant_is_written_in(
    assigned: datetime, hours: int, risk: str
) -> None:
    elsewhere = assigned.astimezone(timezone(timedelta(hours=hours)))
    assert first_contact_due(assigned, risk, "christchurch") == first_contact_due(
        elsewhere, risk, "christchurch"
    )


@pytest.mark.parametrize(
    ("assigned", "risk", "site"),
    [
        pytest.param(_naive(2026, 10), "high", "christchurch", id="naive"),
        pytest.param(nz(2026, 10, 1), "extreme", "christchurch", id="unknown risk"),
        pytest.param(nz(2026, 10, 1), "", "christchurch", id="no risk"),
        pytest.param(nz(2026, 10, 1), "low", "auckland-secret", id="unknown site"),
        pytest.param(nz(2026, 10, 1), "high", "auckland-secret", id="unknown site at high risk"),
    ],
)
def test_first_contact_due_never_repeats_what_it_refuses_when(
    assigned: datetime, risk: str, site: str
) -> None:
    with pytest.raises(ValueError, match=r"^(a time without|the )") as refusal:
        first_contact_due(assigned, risk, site)
    assert "extreme" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_local_instant_is_the_end_of_the_gap_when_the_time_does_not_exist() -> None:
    end = datetime(2026, 9, 26, 14, 0, tzinfo=UTC)
    assert [end] * 3 == [local_instant(date(2026, 9, 27), time(2, m, 30)) for m in (0, 30, 59)]
    assert end == local_instant(date(2026, 9, 27), time(3, 0))
    assert datetime(2026, 9, 26, 13, 59, tzinfo=UTC) == local_instant(date(2026, 9, 27), time(1, 59))


def test_local_instant_is_the_first_when_the_time_comes_twice() -> None:
    expected = datetime(2027, 4, 3, 13, 30, tzinfo=UTC)
    assert expected == local_instant(date(2027, 4, 4), time(2, 30))
    assert expected == local_instant(date(2027, 4, 4), time(2, 30, fold=1))


LEGISLATION = CALENDARS["legislation-act-2019"]
PRIVACY = CALENDARS["privacy-act-2020"]


@pytest.mark.parametrize(
    ("day", "legislation", "privacy"),
    [
        pytest.param(date(2026, 12, 24), True, True, id="Christmas Eve"),
        pytest.param(date(2026, 12, 25), False, False, id="Christmas Day"),
        pytest.param(date(2026, 12, 29), False, False, id="between the years"),
        pytest.param(date(2027, 1, 4), False, False, id="Monday after a 1 January on a Friday"),
        pytest.param(date(2027, 1, 5), True, False, id="January by the Privacy Act"),
        pytest.param(date(2027, 1, 15), True, False, id="last day of the Privacy Act's break"),
        pytest.param(date(2027, 1, 18), True, True, id="after the break"),
        pytest.param(date(2028, 1, 3), False, False, id="Monday after a 1 January on a Saturday"),
        pytest.param(date(2028, 1, 4), False, False, id="Tuesday after a 1 January on a Saturday"),
        pytest.param(date(2028, 1, 5), True, False, id="Wednesday after a 1 January on a Saturday"),
        pytest.param(date(2023, 1, 3), False, False, id="Tuesday after a 1 January on a Sunday"),
        pytest.param(date(2023, 1, 4), True, False, id="Wednesday after a 1 January on a Sunday"),
        pytest.param(date(2026, 1, 26), True, True, id="no statute knows a provincial anniversary"),
        pytest.param(date(2026, 11, 13), True, True, id="no statute knows Show Day"),
        pytest.param(date(2026, 2, 6), False, False, id="Waitangi Day"),
        pytest.param(date(2027, 2, 8), False, False, id="Waitangi Day Mondayised"),
        pytest.param(date(2026, 4, 3), False, False, id="Good Friday"),
        pytest.param(date(2026, 4, 6), False, False, id="Easter Monday"),
        pytest.param(date(2026, 4, 27), False, False, id="Anzac Day Mondayised"),
        pytest.param(date(2026, 6, 1), False, False, id="the Sovereign's birthday"),
        pytest.param(date(2026, 7, 10), False, False, id="Matariki 2026"),
        pytest.param(date(2027, 6, 25), False, False, id="Matariki 2027"),
        pytest.param(date(2026, 10, 26), False, False, id="Labour Day"),
        pytest.param(date(2038, 4, 26), False, False, id="Anzac Day observed on Easter Monday"),
        pytest.param(date(2026, 10, 24), False, False, id="a Saturday"),
    ],
)
def test_statutory_calendar_counts_as_its_act_says_on(day: date, legislation: bool, privacy: bool) -> None:
    assert (legislation, privacy) == (LEGISLATION.is_working_day(day), PRIVACY.is_working_day(day))


def test_calendar_counts_twenty_working_days_over_the_summer_as_its_act_says() -> None:
    start = date(2026, 12, 14)
    assert date(2027, 1, 20) == LEGISLATION.after(start, 20)
    assert date(2027, 2, 2) == PRIVACY.after(start, 20)


@given(st.dates(date(2018, 1, 1), date(2045, 12, 31)))
def test_privacy_calendar_never_counts_a_day_that_the_legislation_calendar_leaves_out(day: date) -> None:
    assert LEGISLATION.is_working_day(day) or not PRIVACY.is_working_day(day)


@given(st.dates(date(2020, 1, 1), date(2035, 12, 31)), st.integers(1, 40), st.sampled_from(sorted(CALENDARS)))
def test_calendar_ends_after_exactly_that_many_working_days(day: date, count: int, name: str) -> None:
    end = CALENDARS[name].after(day, count)
    between = [day + timedelta(days=n) for n in range(1, (end - day).days + 1)]
    assert count == sum(CALENDARS[name].is_working_day(d) for d in between)
    assert CALENDARS[name].is_working_day(end)


@pytest.mark.parametrize("count", [0, -1])
def test_calendar_refuses_when_there_is_nothing_to_count(count: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        LEGISLATION.after(date(2026, 1, 1), count)
