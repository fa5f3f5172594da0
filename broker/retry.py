"""What becomes of a message whose handling failed, and how long anybody waits before trying again: the only
backoff numbers in the hub.

Three kinds of failure. The world outside is not there (a recipient, the database, RabbitMQ), or the hub
itself is not fit to run: the message is not at fault and is tried for as long as it takes, with pauses that
grow to a limit. The message or the recipient's answer is final: it is buried at once. Anything unforeseen may
be a passing fault or a poisonous message: it is tried a few times and then buried.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pika.exceptions
import sqlalchemy.exc
import tenacity

from schemas.errors import BadAgreement, BadCatalogue, BadSettings, HubError, LedgerContradiction, Unconfirmed

DELIVERY_LIMIT = 5  # deliveries of a message whose handling fails in a way nobody foresaw
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 300.0  # a recipient that is back after days is noticed within five minutes
LONGEST_RECONNECT_SECONDS = 15.0
RESUBSCRIBE_SECONDS = 1.0  # after RabbitMQ closed one queue's channel and left the connection open

# What these say is wrong is the hub's, so burying would empty the queues into the dead letters while an
# operator mends one file.
_HUB_UNFIT = (LedgerContradiction, BadAgreement, BadCatalogue, BadSettings)
_SERVER_AWAY = (
    sqlalchemy.exc.OperationalError,  # connection lost, lock not had, deadlock, disk full
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.InternalError,  # transaction ended by the server's timeout, a standby that takes no writes
    sqlalchemy.exc.TimeoutError,  # no free connection in the pool
    pika.exceptions.AMQPConnectionError,
    pika.exceptions.ConnectionWrongStateError,
    pika.exceptions.ChannelWrongStateError,
    ConnectionError,
    TimeoutError,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a message: give it back for *delay_seconds*, or bury it when that is None. *error* is
    for the dead letter or the operator; it holds no value of the message."""

    delay_seconds: float | None
    error: Mapping[str, Any]

    @property
    def is_final(self) -> bool:
        """Whether the message is to be buried."""
        return self.delay_seconds is None


def classify(error: Exception, attempts: int = 0) -> Verdict:
    """The verdict on a message whose handling raised *error* after *attempts* earlier deliveries
    (`Delivery.attempts`)."""
    described = describe(error)
    if isinstance(error, (*_SERVER_AWAY, *_HUB_UNFIT)) or (isinstance(error, HubError) and error.retryable):
        return Verdict(backoff(attempts), described)
    if isinstance(error, HubError) or is_exhausted(attempts):
        return Verdict(None, described)
    return Verdict(backoff(attempts), described)


def is_outside(error: BaseException) -> bool:
    """Whether *error* comes from what the hub stands on (database, RabbitMQ, its own files), so that no
    message is at fault."""
    return isinstance(error, (*_SERVER_AWAY, *_HUB_UNFIT, Unconfirmed))


def is_database_error(error: BaseException) -> bool:
    """Whether the database raised *error*: it may be away, or it may not take what it was given."""
    return isinstance(error, sqlalchemy.exc.DBAPIError)


def is_exhausted(attempts: int) -> bool:
    """Whether a message with *attempts* earlier deliveries had its last. Also asked before handling: a
    message that kills the process leaves no exception behind, only attempts."""
    return attempts + 1 >= DELIVERY_LIMIT


def backoff(attempts: int) -> float:
    """Seconds to wait after the delivery with *attempts* before it: doubling from one second to five
    minutes."""
    doublings = min(max(attempts, 0), 16)  # beyond the limit either way; keeps the power small
    return float(min(FIRST_DELAY_SECONDS * 2**doublings, LONGEST_DELAY_SECONDS))


def describe(error: BaseException) -> dict[str, Any]:
    """*error* as it is stored with a dead letter. Of a foreign exception only the type is kept: its text may
    repeat the input."""
    if isinstance(error, HubError):
        return error.as_json()
    return {"code": "unexpected", "detail": f"handling raised {type(error).__name__}", "problems": []}


def reconnecting(pause: Callable[[int | float], None]) -> tenacity.Retrying:
    """The policy for getting back to a server: for ever, first at once, then up to 15 seconds apart, at
    random so that the processes of a hub do not all return in the same instant. *pause* sleeps and may raise
    to end it."""
    return tenacity.Retrying(
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=LONGEST_RECONNECT_SECONDS),
        retry=tenacity.retry_if_exception_type(
            (pika.exceptions.AMQPError, ConnectionError, TimeoutError, OSError)
        ),
        sleep=pause,
        reraise=True,
    )
