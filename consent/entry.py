"""What every ledger entry says, as far as the ledger and those who verify it need to know.

An entry is one JSON object. It names its `kind`, the time `at`, and the `source`, `message` and `party`
that it is about; what else it holds is the business of whoever wrote it.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consent.merkle import ProofError

DISCLOSURE = "disclosure"
REFUSAL = "refusal"
REFERRAL = "referral"
DELIVERY = "delivery"
KEY_CHANGE = "key"  # the signing key was replaced
ACCESS = "access"  # somebody looked: who, at what, for which purpose
RETENTION = "retention"  # disposed of, put under a hold, or released from one
ESCALATION = "escalation"  # nobody decided in time, or only a lawyer may
OVERRIDE = "override"  # break-glass: asked, opened, refused, used, closed, reviewed
DISPOSITION = "disposition"  # how a duty after a release ended
STOPPED = "stopped"  # decided again before it was sent: nothing leaves
NARROWED = "narrowed"  # likewise: less leaves
RECALL = "recall"
AGREEMENT = "agreement"
DECISION_KINDS = (DISCLOSURE, REFUSAL, REFERRAL)  # one of these, once, for each message and party
_ABOUT_DISCLOSURES = {DELIVERY: "delivery", STOPPED: "stop", NARROWED: "narrowing", RECALL: "recall"}
COMMON_FIELDS = ("kind", "at", "source", "message", "party")
Columns = tuple[str, str, str, str]  # kind, source, message, party
_NO_DISCLOSURE, _UNKNOWN = 0, 1  # unknown where the entry itself is missing or unreadable, which is said
_NOT_AN_ENTRY = "it is not a JSON object with " + ", ".join(COMMON_FIELDS)
# What json.loads calls, without its search for white space: canonical JSON has none.
_scan: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]


@dataclass(slots=True)
class Stated:
    """What the rules look at in an entry. The last three as far as they are text (*disclosure*: or a number);
    None where the entry does not say it.
    """

    kind: str
    at: str
    source: str
    message: str
    party: str
    agreements: str | None = None
    disclosure: str | int | None = None
    set: str | None = None


# Where the hub's own readers are installed they do the same, one five times faster, the other, which makes
# nothing of what no rule looks at, ten times. Python's decides wherever these do not read an entry, so what
# counts as one is the same with and without them.
try:
    from orjson import loads as _quick
except ImportError:
    _quick = None  # type: ignore[assignment]  # there may be none
try:
    from msgspec import MsgspecError
    from msgspec.json import Decoder

    _quick_stated: Callable[[bytes], Stated] | None = Decoder(Stated).decode
except ImportError:
    _quick_stated, MsgspecError = None, ValueError  # type: ignore[assignment, misc]


def _json_of(entry: bytes) -> Any:
    """The JSON in *entry*, without white space around it. Raises `ValueError` and its like."""
    if _quick is not None and entry[:1] == b"{" and entry[-1:] == b"}":
        try:
            return _quick(entry)
        except ValueError:
            pass
    text = entry.decode()
    body, end = _scan(text, 0)
    if end != len(text):
        raise ValueError
    return body


def read_entry(entry: bytes) -> tuple[dict[str, object], str, str, str, str]:
    """The JSON object of *entry*, its kind, source, message and party. Raises `ProofError`."""
    try:
        body = _json_of(entry)
        kind, at, source, message, party = (
            body["kind"],
            body["at"],
            body["source"],
            body["message"],
            body["party"],
        )
    except (ValueError, TypeError, LookupError, StopIteration, RecursionError) as error:
        raise ProofError(_NOT_AN_ENTRY) from error
    if not type(kind) is type(at) is type(source) is type(message) is type(party) is str:
        raise ProofError(_NOT_AN_ENTRY)
    return body, kind, source, message, party


def read_stated(entry: bytes) -> Stated:
    """What the rules look at in *entry*. Raises `ProofError`."""
    if _quick_stated is not None and entry[:1] == b"{" and entry[-1:] == b"}":
        try:
            if not entry.isascii():
                entry.decode()  # it passes over text that it does not need, whatever the bytes are
            return _quick_stated(entry)
        except (ValueError, MsgspecError, RecursionError):
            pass
    body, kind, source, message, party = read_entry(entry)
    agreements, disclosure, named = body.get("agreements"), body.get("disclosure"), body.get("set")
    return Stated(
        kind,
        str(body["at"]),
        source,
        message,
        party,
        agreements if isinstance(agreements, str) else None,
        disclosure if type(disclosure) in (str, int) else None,  # type: ignore[arg-type]
        named if isinstance(named, str) else None,
    )


def withheld(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(role, class, reason) of what the decision in *body* withheld, sorted by role."""
    for role, by_reason in body["withheld"].items():
        for reason, names in by_reason.items():
            for name in names:
                yield role, name, reason


def referred(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(role, class) of what the decision in *body* left to a person of the holder."""
    for role, names in body["referred"].items():
        for name in names:
            yield role, name


class Rules:
    """What every entry must say, and what entries say about each other."""

    def __init__(
        self,
        kinds: Counter[str],
        add: Callable[[str, str], None],
        see: Callable[[int, dict[str, object]], None] | None = None,
    ) -> None:
        """Counts *kinds*, tells *add* the place of what is wrong, and what that is, and lets *see* each entry
        that can be read.
        """
        self._kinds, self._add, self._see = kinds, add, see
        # Python's hashes of text are keyed anew in each process, so nobody can prepare two keys that collide;
        # eight bytes instead of three texts keep a ledger of millions in memory.
        self._decided: dict[int, int] = {}
        # By index: the hash of a disclosure's party and id ("" when it has none).
        self._disclosures = array("q")
        self._stopped: set[int] = set()  # indices of disclosures that were stopped before they were sent
        self._sets: set[str] = set()  # hashes of agreements that an entry has named

    def check(self, first: int, entries: Sequence[bytes | None], columns: Sequence[Columns | None]) -> None:
        """Checks *entries*, the first of which is number *first*; *columns* are what the copy files them
        under.
        """
        kinds, add = self._kinds, self._add
        for offset, entry in enumerate(entries):
            index, disclosed = first + offset, _UNKNOWN if entry is None else _NO_DISCLOSURE
            if entry is not None:
                try:
                    said = read_stated(entry)
                except ProofError as error:
                    add(f"entry {index}", str(error))
                    self._disclosures.append(_UNKNOWN)
                    continue
                kind, source, message, party = said.kind, said.source, said.message, said.party
                kinds[kind] += 1
                if self._see:
                    self._see(index, _json_of(entry))
                if columns and columns[offset] != (kind, source, message, party):
                    add(f"entry {index}", "it is filed under another kind, source, message or party")
                if kind in DECISION_KINDS:
                    # Ledgers begun before agreements were recorded name none.
                    if self._sets and said.agreements not in self._sets:
                        add(f"entry {index}", "no earlier entry says what the agreements were that it cites")
                    former = self._decided.setdefault(hash((source, message, party)), index)
                    if former != index:
                        add(f"entry {index}", f"entry {former} already decides on this message and party")
                    if kind == DISCLOSURE:
                        name = said.disclosure
                        disclosed = hash((party, name if isinstance(name, str) else ""))
                elif kind in _ABOUT_DISCLOSURES:
                    self._check_delivery(index, kind, said.disclosure, party, message)
                elif kind == AGREEMENT and said.set is not None:
                    self._sets.add(said.set)
            self._disclosures.append(disclosed)

    def _check_delivery(self, index: int, kind: str, disclosure: object, party: str, message: str) -> None:
        what = _ABOUT_DISCLOSURES[kind]
        if type(disclosure) is not int or not 0 <= disclosure < index:
            self._add(f"entry {index}", f"the {what} does not refer to an earlier entry")
            return
        known = self._disclosures[disclosure]
        if kind == STOPPED:
            self._stopped.add(disclosure)
        elif kind == DELIVERY and disclosure in self._stopped:
            self._add(f"entry {index}", f"what was disclosed in entry {disclosure} had been stopped")
        if known == _NO_DISCLOSURE:
            self._add(f"entry {index}", f"the {what} refers to entry {disclosure}, not a disclosure")
        elif known not in (_UNKNOWN, hash((party, message)), hash((party, ""))):
            self._add(f"entry {index}", f"entry {disclosure} was not this disclosure to this party")
