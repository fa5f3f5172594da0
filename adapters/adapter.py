"""What every agency's adapter is: a module with `read` and `write`, beside a transport that sends.

`read` and `write` are pure translations between an agency's native bytes and canonical messages; they know
nothing of agreements. What an adapter is given to write has already been decided and minimised, so it must
cope with any property being absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from schemas.errors import HubError, Problem
from schemas.message import Message


@dataclass(frozen=True, slots=True)
class Native:
    """Bytes in an agency's own format. *name* is a file name without any personal detail; *companions* are
    files that belong to it (a manifest), by name.
    """

    content: bytes
    media_type: str
    name: str = ""
    companions: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A part of the input (a CSV row, a list item) that could not be read while its neighbours could: *raw*
    can be sent again alone.
    """

    raw: Native
    error: HubError


@dataclass(frozen=True, slots=True)
class Reading:
    """What `read` understood. *unplaced* names the fields that the format has and the canonical message has
    no place for: reported, never dropped in silence.
    """

    messages: list[Message]
    rejected: list[Rejected] = field(default_factory=list)
    unplaced: list[Problem] = field(default_factory=list)


class Adapter(Protocol):
    """An agency's adapter module."""

    def read(self, native: Native, party: str, now: datetime) -> Reading:
        """The messages in *native*, sent by *party*.

        MUST give the same message ids for the same event sent twice. MUST raise `Unreadable` (or another
        `HubError`) when nothing can be read, with a `Problem` whose pointer is a native position (`PID-3.1`,
        `row 7, column PRN`, `/people/0/role`) and which holds no value of the input. MUST NOT validate
        against the catalogue: the journey does that for all adapters.
        """
        ...

    def write(self, message: Message, party: str) -> Native:
        """*message* (a minimised disclosure) as *party*'s system reads it. MUST be deterministic. MUST NOT
        invent what was withheld.
        """
        ...


class Transport(Protocol):
    """Takes native bytes to an agency's system."""

    def send(self, party: str, deliveries: Sequence[tuple[str, Native]]) -> list[HubError | None]:
        """Sends each (delivery id, native); one answer each: None (the recipient has it durably), `NotSent`
        (try again later) or `RefusedByRecipient`.

        MUST be idempotent by delivery id: a delivery sent again after a crash has no second effect at the
        recipient.
        """
        ...
