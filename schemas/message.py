"""A message: a CloudEvents 1.0 event in structured JSON, unique by `source` and `id`.

Ids come from what the sender calls the event (`identity`), so sending something twice gives one message.
`correlationid` is the hub's name of the case, `causationid` the id of the message that this one answers.
"""

import json
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from typing import Any

import orjson

from schemas.canonical import canonical_trusted, digest, nfc
from schemas.catalogue import MAX_DEPTH
from schemas.clock import rfc3339
from schemas.errors import InvalidMessage, Problem, TooLarge

MAX_BYTES = (
    1_048_576  # the largest real message, an episode with sixty people and a long narrative, is under 200 KB
)
CONTENT_TYPE = "application/cloudevents+json"
_HALF = re.compile(r"[\ud800-\udfff]")
_FIELD_NAME = re.compile(r"[a-z][A-Za-z]{0,39}")
_NAMESPACE = uuid.UUID("5d1d9d6e-5f0c-5b0e-9d6e-6f1b0a5a7e11").bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One message. *data* is plain JSON; *time* is RFC 3339. A message is never changed:
    `dataclasses.replace` it.
    """

    source: str  # the party, without `urn:isr:`
    id: str
    type: str
    time: str
    data: dict[str, Any]
    correlationid: str | None = None
    causationid: str | None = None
    origin: str | None = None  # on a disclosure: the agency it came from

    def to_json(self) -> dict[str, Any]:
        """The CloudEvents object."""
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "source": f"urn:isr:{self.source}",
            "type": self.type,
            "time": self.time,
            "datacontenttype": "application/json",
            "data": self.data,
        }
        for name in ("correlationid", "causationid", "origin"):
            if (value := getattr(self, name)) is not None:
                event[name] = value
        return event

    def encode(self) -> bytes:
        """Structured-mode bytes."""
        return orjson.dumps(self.to_json())

    def body_digest(self) -> bytes:
        """SHA-256 over what the message says, without `time`: equal for the same event sent again."""
        said = [self.source, self.id, self.type, self.correlationid, self.causationid, self.data]
        return digest(canonical_trusted(said))

    @classmethod
    def from_json(cls, event: dict[str, Any]) -> "Message":
        """The message of a CloudEvents object that the catalogue has validated."""
        return cls(
            source=event["source"].removeprefix("urn:isr:"),
            id=event["id"],
            type=event["type"],
            time=event["time"],
            data=event["data"],
            correlationid=event.get("correlationid"),
            causationid=event.get("causationid"),
            origin=event.get("origin"),
        )


def decode(raw: bytes) -> Any:
    """The JSON value in *raw*, its text in NFC.

    Raises `TooLarge` beyond 1 MiB or 24 levels, `InvalidMessage` for anything that is not one UTF-8 JSON
    value or that repeats a key: two readers could take different ones.
    """
    if len(raw) > MAX_BYTES:
        raise TooLarge(
            "the body is too large",
            Problem("", f"has {len(raw)} bytes", f"send at most {MAX_BYTES} bytes a message"),
        )
    if _depth(raw) > MAX_DEPTH:
        raise TooLarge(
            "the body is too deeply nested",
            Problem("", f"more than {MAX_DEPTH} levels", "send the published shape"),
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidMessage(
            "the body is not UTF-8", Problem("", f"byte {error.start} is not UTF-8", "encode as UTF-8")
        ) from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidMessage(
            "the body is not JSON",
            Problem("", f"line {error.lineno}, column {error.colno}: {error.msg}", "send one JSON object"),
        ) from None
    except ValueError:  # Python refuses integers of more than 4,300 digits
        problem = Problem("", "holds a number of thousands of digits", "send an integer within ±(2^53-1)")
        raise InvalidMessage("the body is not JSON", problem) from None
    if "\\u" in text:
        _refuse_half_characters(value)
    elif text.isascii():
        return value
    return nfc(value)


def _refuse_half_characters(value: Any) -> None:
    """Raises `InvalidMessage` when an escape in *value* was half of a surrogate pair: no encoder writes it
    again (RFC 8259 section 8.2)."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        problem = Problem(
            _half_character(value, "") or "",
            "a \\u escape is half of a surrogate pair",
            "escape whole characters, or send them as UTF-8",
        )
        raise InvalidMessage("the body is not Unicode text", problem) from None


def _half_character(value: Any, pointer: str) -> str | None:
    """Where in *value* the first half of a pair stands; None when there is none."""
    if isinstance(value, str):
        return pointer if _HALF.search(value) else None
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for n, (key, inner) in enumerate(inside):
        if isinstance(key, str) and _HALF.search(key):
            return pointer
        # A key may itself be somebody's name; only what looks like a field name is repeated.
        shown = key if isinstance(key, int) or _FIELD_NAME.fullmatch(key) else f"(field {n + 1})"
        if (found := _half_character(inner, f"{pointer}/{shown}")) is not None:
            return found
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidMessage(
            "the body repeats a key", Problem("", "an object has the same key twice", "send every key once")
        )
    return found


def _no_constant(_: str) -> Any:
    raise InvalidMessage(
        "the body is not JSON", Problem("", "NaN and Infinity are not JSON", "send an integer")
    )


def _depth(raw: bytes) -> int:
    """The deepest nesting of brackets in *raw*, found without recursion so that nesting cannot exhaust the
    stack.
    """
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return 0
    if b"\\" in raw:
        # Escaped backslashes first: what is left of an odd run escapes the quote behind it. Outside of a text
        # there is no backslash in JSON, and its reader stops there.
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(raw.split(b'"')[::2])
    depth = deepest = 0
    for bracket in outside.translate(None, _NOT_BRACKETS):
        if bracket in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


_OPENING = b"[{"
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


def identity(source: str, native_key: str) -> str:
    """The id of the message that *source* calls *native_key*: the same key always gives the same id (RFC 9562
    version 5).

    The key must be the sender's name for the event (control id, event number with revision), never a person's
    identifier.
    """
    # As uuid.uuid5 does it, at a fifth of its cost: every disclosure of a batch gets its id here.
    named = bytearray(
        sha1(_NAMESPACE + f"{source}\n{native_key}".encode(), usedforsecurity=False).digest()[:16]
    )
    named[6] = named[6] & 0x0F | 0x50
    named[8] = named[8] & 0x3F | 0x80
    text = named.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def agency_of(party: str) -> str:
    """The agency of a *party*: `ngo.aviva` of `ngo.aviva#ivs`."""
    return party.partition("#")[0]


def new_message(
    source: str,
    event: str,
    data: dict[str, Any],
    *,
    key: str,
    at: datetime,
    case: str | None = None,
    cause: str | None = None,
) -> Message:
    """A message of *source* of type `nz.isr.<event>.v1`, named by the sender's *key*, that happened *at*."""
    return Message(
        source=source,
        id=identity(source, f"{event}\n{key}"),
        type=f"nz.isr.{event}.v1",
        time=rfc3339(at),
        data=nfc(data),
        correlationid=case,
        causationid=cause,
    )
