"""Reading what New Zealand systems write: local dates and times of day, and telephone numbers.

Inside the hub a date is ISO 8601, an instant is aware UTC and a number is E.164; each function here takes
one local spelling there or says that it cannot, with `None`. The caller knows the position and raises; a
value that was not understood is never repeated.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime

from schemas.clock import NEW_ZEALAND

DAY_FIRST = "%d/%m/%Y"
_SHAPES = {
    DAY_FIRST: re.compile(r"[0-9]{2}/[0-9]{2}/[0-9]{4}"),
    "%d-%m-%Y": re.compile(r"[0-9]{2}-[0-9]{2}-[0-9]{4}"),
    "%Y-%m-%d": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "%Y%m%d": re.compile(r"[0-9]{8}"),
    "%Y%m%d%H%M%S": re.compile(r"[0-9]{14}"),
}
_DIAL = re.compile(r"\+?[0-9]+")
# ITU-T E.164 allows 15 digits; a New Zealand number has 8 to 10 after its country code.
_HERE, _ABROAD = re.compile(r"\+64[1-9][0-9]{7,9}"), re.compile(r"\+[1-9][0-9]{6,14}")
_FILLER = re.compile(r"[\s().\-]")


def date_of(text: str, forms: Sequence[str]) -> str | None:
    """*text* as an ISO date when it has exactly one of *forms* (`strptime` patterns of this module) and
    that day exists."""
    for form in forms:
        # strptime alone also takes one-digit days and other scripts' digits: two spellings for one date.
        if _SHAPES[form].fullmatch(text):
            try:
                return datetime.strptime(text, form).date().isoformat()  # noqa: DTZ007  # a calendar date has no zone
            except ValueError:
                return None
    return None


def instant_at(day: str, time_of_day: str) -> datetime | None:
    """The instant, in UTC, of the ISO date *day* at *time_of_day* (`HH:MM`, `HH:MM:SS`) on New Zealand
    clocks.

    None when no clock shows that time on that day (the hour skipped in September). Of the hour that clocks
    show twice in April, the first.
    """
    if not re.fullmatch(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?", time_of_day):
        return None
    try:
        return on_local_clock(datetime.fromisoformat(f"{day}T{time_of_day}"))
    except ValueError:
        return None


def on_local_clock(naive: datetime) -> datetime | None:
    """The instant, in UTC, at which New Zealand clocks show *naive*; None when they never do, or when it
    lies beyond the calendar."""
    try:
        instant = naive.replace(tzinfo=NEW_ZEALAND).astimezone(UTC)
    except OverflowError:
        return None
    return instant if instant.astimezone(NEW_ZEALAND).replace(tzinfo=None) == naive else None


def local_date(instant: datetime) -> date:
    """The date on New Zealand clocks at *instant*."""
    return instant.astimezone(NEW_ZEALAND).date()


def e164(text: str) -> str | None:
    """*text* as an E.164 number; None when it is not a full number.

    A leading 0 is New Zealand's trunk prefix, 00 the international one. Short codes and numbers without an
    area code have no E.164 form.
    """
    dial = _FILLER.sub("", text)
    if not _DIAL.fullmatch(dial) or not dial.isascii():
        return None
    if dial.startswith("00"):
        dial = "+" + dial[2:]
    elif dial.startswith("0"):
        dial = "+64" + dial[1:]
    shape = _HERE if dial.startswith("+64") else _ABROAD
    return dial if shape.fullmatch(dial) else None


def phone(text: str, kind: str = "landline") -> dict[str, str] | None:
    """The canonical phone for *text*; a New Zealand 02 number is a mobile whatever *kind* says. None when
    it is not a full number."""
    number = e164(text)
    if number is None:
        return None
    return {"number": number, "kind": "mobile" if number.startswith("+642") else kind}
