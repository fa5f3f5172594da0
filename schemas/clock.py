"""The only place that asks what time it is.

Everything that needs the time takes a `Clock`, so that a simulated day, a test and production differ in one
argument. Instants are always aware and in UTC; New Zealand local time exists only at the edges.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

Clock = Callable[[], datetime]

NEW_ZEALAND = ZoneInfo("Pacific/Auckland")


def utc_now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)


def rfc3339(instant: datetime) -> str:
    """*instant* as RFC 3339 in UTC with milliseconds and `Z`; a naive one is refused, because its meaning is
    a guess.
    """
    if instant.tzinfo is None:
        raise ValueError("a time without an offset has no instant")
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instant_of(text: str) -> datetime:
    """The instant that an RFC 3339 *text* names, in UTC. Raises `ValueError` when it has no offset."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("a time without an offset has no instant")
    return instant.astimezone(UTC)
