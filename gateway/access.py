"""Who looked: every look at decisions, evidence or the ledger is an entry of its own, durable before anything
is shown.

An entry says who (the party, and a keyed digest of the officer's own number there), at what, and for which
purpose under which reference; never a name. Looking stays quick: looks that come together share one
transaction, and the same person looking at the same thing for the same purpose within minutes is one look.
"""

import argparse
import getpass
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from consent.entry import ACCESS
from consent.ledger import Entry, Ledger
from consent.people import Keys
from schemas.clock import Clock, rfc3339
from schemas.errors import InvalidMessage, Problem

# Why somebody may look (Privacy Act 2020: IPP 6 and Part 4, IPP 7, Part 6, section 201, section 154).
PURPOSES: Mapping[str, str] = {
    "ADM-ACCESS": "a request for access to personal information (IPP 6)",
    "ADM-CORRECT": "a request for correction (IPP 7)",
    "ADM-BREACH": "a privacy breach (Part 6)",
    "ADM-AUDIT": "an audit, or the privacy officer's own checks (section 201)",
    "ADM-REPORT": "a report on the agreements (section 154)",
    "DECIDE": "deciding for the agency that holds it, or was asked (Family Violence Act s 24)",
    "OPERATE": "keeping the hub running",
}
ONE_LOOK_SECONDS = 300.0
_MAX_REMEMBERED = 10_000
_OFFICER = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# A number of a request or a file. With a digit in it: nobody's name has one.
_REFERENCE = re.compile(r"(?=.*[0-9])[A-Z0-9][A-Z0-9/.-]{0,39}")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: an *officer* (a keyed digest, see `officer_of`) of a *party*, for a *purpose* of `PURPOSES`
    under a *reference* ("" when there is none).
    """

    officer: str
    party: str
    purpose: str
    reference: str = ""


class Look(NamedTuple):
    """At *what* (a page or a command) and *which* (a message's id, a day, a filter); *subjects* are
    commitments to the people it is about, as [role, commitment].
    """

    what: str
    which: str = ""
    message: str = ""
    subjects: Sequence[Sequence[str]] = ()


@dataclass(slots=True)
class _Waiting:
    entries: list[Entry]
    number: int = -1  # index of the first of them, once they are durable
    error: Exception | None = None
    is_done: bool = False


@dataclass(slots=True)
class AccessLog:
    """Writes looks into *ledger* on *engine*. Safe for any number of threads."""

    engine: sa.Engine
    ledger: Ledger
    keys: Keys
    clock: Clock
    _waiting: list[_Waiting] = field(default_factory=list)
    _listing: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _recent: dict[tuple[Viewer, str, str, str], float] = field(default_factory=dict)

    def record(self, viewer: Viewer, look: Look) -> int | None:
        """Returns once the entry for *look* is durable: its index, or None when the same look was recorded
        minutes ago. Raises what the database raises; then nothing may be shown.
        """
        key = (viewer, look.what, look.which, look.message)
        with self._listing:
            if self._is_recent(key):
                return None
        waiting = _Waiting([self._entry(viewer, look)])
        with self._listing:
            self._waiting.append(waiting)
        with self._writing:  # whoever comes first writes for all that have come meanwhile
            if not waiting.is_done:
                self._write()
        if waiting.error is not None:
            raise waiting.error
        with self._listing:
            if len(self._recent) >= _MAX_REMEMBERED:
                self._recent.clear()
            self._recent[key] = time.monotonic() + ONE_LOOK_SECONDS
        return waiting.number

    def _is_recent(self, key: tuple[Viewer, str, str, str]) -> bool:
        return time.monotonic() < self._recent.get(key, 0.0)

    def _write(self) -> None:
        with self._listing:
            batch, self._waiting = self._waiting, []
        try:
            with self.engine.begin() as connection:
                number = self.ledger.append(connection, [e for w in batch for e in w.entries]).start
            # ‖ The looks are in the ledger. A crash here shows nothing to anybody: looks too many, none too
            # few.
        except Exception as error:
            for waiting in batch:
                waiting.error, waiting.is_done = error, True
            return
        for waiting in batch:
            waiting.number, waiting.is_done = number, True
            number += len(waiting.entries)

    def _entry(self, viewer: Viewer, look: Look) -> Entry:
        at = rfc3339(self.clock())
        body: dict[str, Any] = {
            "v": 1,
            "kind": ACCESS,
            "at": at,
            "source": "hub",
            "message": look.message,
            "party": viewer.party,
            "officer": viewer.officer,
            "purpose": viewer.purpose,
            "reference": viewer.reference,
            "what": look.what,
            "which": look.which,
        }
        if look.subjects:
            body["subjects"] = [list(subject) for subject in look.subjects]
        # Without it an entry could be guessed and tried against the public leaf hashes.
        body["salt"] = self.keys.salt("entry", "access", at, viewer.officer, look.what, look.which)[:16].hex()
        return Entry(ACCESS, "hub", look.message, viewer.party, body)


def message_id(text: str) -> str:
    """*text* when it is an id of a message, else "": what people type into a search box may be a name."""
    return text if _ID.fullmatch(text) else ""


def officer_of(keys: Keys, party: str, number: str) -> str:
    """The keyed digest by which entries name the officer with *number* at *party*: whoever has the hub's
    secret can tell whether an entry is of a certain officer, and nobody can list them.
    """
    return keys.salt("officer", party, number)[:16].hex()


def viewer(keys: Keys, party: str, number: str, purpose: str, reference: str) -> Viewer:
    """The viewer who says this about himself. Raises `InvalidMessage`, naming the field."""
    number, reference = number.strip().lower(), reference.strip().upper()
    problems = []
    if not _OFFICER.fullmatch(number):
        problems.append(Problem("officer", "is not an officer's number or account", "such as po-17"))
    if purpose not in PURPOSES:
        problems.append(Problem("purpose", "is none that the hub knows", "one of " + ", ".join(PURPOSES)))
    if reference and not _REFERENCE.fullmatch(reference):
        problems.append(
            Problem(
                "reference",
                "is not the number of a request or file",
                "letters, digits, / . and -, with at least one digit; never a name",
            )
        )
    if not party:
        problems.append(Problem("party", "is missing", "the party that you look for"))
    if problems:
        raise InvalidMessage("say who looks, and why", *problems)
    return Viewer(officer_of(keys, party, number), party, purpose, reference)


def viewer_of(given: argparse.Namespace, keys: Keys, parties: Mapping[str, object]) -> Viewer:
    """The viewer that a command line names. Raises `InvalidMessage`."""
    if given.party not in ("hub", *parties):
        raise InvalidMessage(
            "say who looks, and why", Problem("party", "is no party", "see isr-hub agreements")
        )
    return viewer(keys, given.party, given.officer or _account(), given.purpose, given.reference)


def _account() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # an account without a name
        name = ""
    return re.sub(r"[^a-z0-9._@-]", "-", name.lower()).lstrip("._@-")[:64] or "unknown"
