"""When work is due: clock hours at high and medium risk, working days at low risk and in statutes.

A high-risk family is contacted within 24 elapsed hours whatever the day, a medium one within 72; only a low
one waits for working days, and those leave out the region's anniversary. Statutes count differently from the
region and from each other, so each way of counting is a calendar with a name. Every instant returned is in
UTC; days and times of day are Pacific/Auckland's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from types import MappingProxyType

import holidays

from consent.duty import CONSULT, CONSULT_WORKING_DAYS, NOTIFY, NOTIFY_WORKING_DAYS
from consent.override import REVIEW_WORKING_DAYS
from schemas.clock import NEW_ZEALAND

CLOCK_HOURS: Mapping[str, int] = MappingProxyType({"high": 24, "medium": 72})
LOW_RISK_WORKING_DAYS = 4
# The province whose anniversary a site keeps, as ISO 3166-2 without `NZ-`. Waikato (WKO) has no day of its
# own: it keeps the Auckland province's, and asking for WKO's would silently give none. South Canterbury
# keeps another day than Christchurch's Show Day; families there belong to the Christchurch site and are
# counted by its calendar.
ANNIVERSARY: Mapping[str, str] = MappingProxyType(
    {"waikato-city": "AUK", "waikato-rural": "AUK", "christchurch": "CAN"}
)

_CHRISTMAS_HOLIDAYS = (
    "Christmas Day",
    "Boxing Day",
    "New Year's Day",
)  # "Day after New Year's Day" contains the last


@lru_cache(maxsize=256)
def _public_holidays(province: str | None, year: int) -> frozenset[date]:
    # A frozen set per year: the library's own object grows while it is read, which two threads must not see.
    return frozenset(holidays.country_holidays("NZ", subdiv=province, years=year))


@lru_cache(maxsize=64)
def _statutory_holidays(year: int) -> frozenset[date]:
    # Waitangi Day, Good Friday, Easter Monday, Anzac Day, the Sovereign's birthday, Matariki and Labour Day,
    # with Waitangi Day and Anzac Day moved to the Monday when they fall on a weekend.
    named = holidays.country_holidays("NZ", years=year).items()
    return frozenset(
        day for day, names in named if not all(_is_christmas(name) for name in str(names).split("; "))
    )


def _is_christmas(name: str) -> bool:
    return any(title in name for title in _CHRISTMAS_HOLIDAYS)


def _legislation_act_break(day: date) -> bool:
    """25 December to 2 January, and the Mondays and Tuesdays that a 1 January from Friday to Sunday adds."""
    if (day.month, day.day) >= (12, 25) or (day.month == 1 and day.day <= 2):
        return True
    first = date(day.year, 1, 1).weekday()
    closed = {4: (4,), 5: (3, 4), 6: (2, 3)}.get(first, ())
    return day.month == 1 and day.day in closed


def _privacy_act_break(day: date) -> bool:
    """25 December to 15 January."""
    return (day.month, day.day) >= (12, 25) or (day.month == 1 and day.day <= 15)


@dataclass(frozen=True, slots=True)
class Calendar:
    """One way of counting working days: its *name*, its *source*, and which weekdays it leaves out."""

    name: str
    source: str
    _closed: Callable[[date], bool]

    def is_working_day(self, day: date) -> bool:
        """Whether *day* counts: Monday to Friday and not closed."""
        return day.weekday() < 5 and not self._closed(day)

    def after(self, day: date, working_days: int) -> date:
        """The day on which *working_days* (1 or more) have passed since *day*; *day* is not counted."""
        if working_days < 1:
            raise ValueError("at least one working day is counted")
        while working_days:
            day += timedelta(days=1)
            working_days -= self.is_working_day(day)
        return day


def _operational(site: str, province: str) -> Calendar:
    return Calendar(
        f"isr-operational:{site}",
        f"Holidays Act 2003 ss 44, 45, 45A; anniversary of {province}",
        lambda day: day in _public_holidays(province, day.year),
    )


CALENDARS: Mapping[str, Calendar] = MappingProxyType(
    {
        calendar.name: calendar
        for calendar in (
            Calendar(
                "legislation-act-2019",
                "Legislation Act 2019 s 13",
                lambda day: day in _statutory_holidays(day.year) or _legislation_act_break(day),
            ),
            Calendar(
                "privacy-act-2020",
                "Privacy Act 2020 s 7",
                lambda day: day in _statutory_holidays(day.year) or _privacy_act_break(day),
            ),
            *(_operational(site, province) for site, province in ANNIVERSARY.items()),
        )
    }
)


def first_contact_due(assigned_at: datetime, risk: str, site: str) -> datetime:
    """When first contact is due, in UTC, for work assigned at *assigned_at* to a family of *site* at *risk*.

    High: 24 elapsed hours, medium: 72, weekends, public holidays and changes of daylight time included. Low:
    four working days of the site's region, at the same local time of day. Raises `ValueError` for a time
    without an offset, an unknown risk or an unknown site: a due time that is a guess would be worse than
    none.
    """
    if assigned_at.tzinfo is None:
        raise ValueError("a time without an offset has no instant")
    if site not in ANNIVERSARY:
        raise ValueError("the site has no calendar")
    if risk in CLOCK_HOURS:
        return assigned_at.astimezone(UTC) + timedelta(hours=CLOCK_HOURS[risk])
    if risk != "low":
        raise ValueError("the risk has no due time")
    local = assigned_at.astimezone(NEW_ZEALAND)
    day = CALENDARS[f"isr-operational:{site}"].after(local.date(), LOW_RISK_WORKING_DAYS)
    return local_instant(day, local.time())


# Working days in which a person decides, by risk; an unknown risk may be a high one.
DECISION_WORKING_DAYS: Mapping[str, int] = MappingProxyType({"low": 5, "medium": 2, "high": 1})
_WORKING_DAYS: Mapping[str, int] = MappingProxyType(
    {NOTIFY: NOTIFY_WORKING_DAYS, CONSULT: CONSULT_WORKING_DAYS, "review": REVIEW_WORKING_DAYS}
)


def decision_due(at: datetime, what: str, risk: str | None, site: str) -> datetime:
    """When a person must have decided on *what* began at *at*: a `release` or `request` by its risk, a
    `review`, or a duty of `consent.duty`. At the same local time, in the working days of *site*'s region; of
    the statutory calendar where the site is unknown. In UTC.
    """
    days = _WORKING_DAYS.get(what) or DECISION_WORKING_DAYS.get(risk or "", 1)
    local = at.astimezone(NEW_ZEALAND)
    calendar = CALENDARS.get(f"isr-operational:{site}", CALENDARS["legislation-act-2019"])
    return local_instant(calendar.after(local.date(), days), local.time())


def local_instant(day: date, at: time) -> datetime:
    """The instant at which New Zealand's clocks show *at* on *day*, in UTC.

    A time that daylight saving skips means the end of the gap, the first instant after it; a time that comes
    twice means the first of the two, because a deadline may come early and never late.
    """
    wall = datetime.combine(day, at.replace(tzinfo=None, fold=0), NEW_ZEALAND)
    instant = wall.astimezone(UTC)
    if instant.astimezone(NEW_ZEALAND).replace(tzinfo=None) == wall.replace(tzinfo=None):
        return instant
    # Read with the later offset, a skipped time lies before the change: the first minute whose offset
    # differs.
    before = wall.replace(fold=1, second=0, microsecond=0).astimezone(UTC)
    offset = before.astimezone(NEW_ZEALAND).utcoffset()
    while before.astimezone(NEW_ZEALAND).utcoffset() == offset:
        before += timedelta(minutes=1)
    return before
