"""HL7 v2 messages as New Zealand hospitals send them: framing, character set, separators, escapes, and
access by position.

The splitting is done by `hl7`; what surrounds it is ours because that library guesses nothing and
neither does it check: it takes bytes in one fixed encoding and decodes `\\X..\\` as Latin-1. Positions
are those of the standard, counted from 1: field, repetition, component, sub-component. The HL7 null
(`""`, "delete what you hold") reads as absent: the hub holds nothing to delete.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import hl7

from adapters.local import date_of, on_local_clock
from schemas.errors import Problem, TooLarge, Unreadable
from schemas.message import MAX_BYTES

MEDIA_TYPES = ("application/hl7-v2+er7", "x-application/hl7-v2+er7")
# HL7 table 0211. An empty MSH-18 means ASCII, of which UTF-8 is the superset that hospitals really send.
_CHARSETS = {
    "": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "ASCII": "ascii",
    "8859/1": "iso-8859-1",
    "8859/15": "iso-8859-15",
}
_TIME = re.compile(r"([0-9]{8})(?:([0-9]{4})([0-9]{2})?(?:\.?([0-9]{1,6}))?)?([+-][0-9]{4})?")
_ESCAPE_ENDS = {"F": 0, "R": 1, "S": 2, "T": 3}  # order of the separators below


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment. *number* is its ordinal among the segments of its name, from 1."""

    name: str
    number: int
    fields: Any
    text: "_Text"

    def get(self, field: int, repetition: int = 1, component: int = 1, sub: int = 1) -> str | None:
        """The text at a position, unescaped, in NFC, without surrounding blanks; None when empty or null."""
        node: Any = self.fields[field] if field < len(self.fields) else ""
        for index in (repetition - 1, component - 1, sub - 1):
            # hl7 leaves out the levels that a field does not use.
            node = (
                (node if index == 0 else "")
                if isinstance(node, str)
                else node[index]
                if index < len(node)
                else ""
            )
        value = str(node).strip()
        return None if value in ("", '""') else self.text.plain(value).strip() or None

    def repetitions(self, field: int) -> range:
        """The ordinals of the repetitions of *field*; empty when the field is."""
        if field >= len(self.fields) or not str(self.fields[field]).strip(self.text.separators + " "):
            return range(1, 1)
        return range(1, len(self.fields[field]) + 1)

    def present(self) -> Iterator[int]:
        """The numbers of the fields that say something."""
        return (n for n in range(1, len(self.fields)) if self.repetitions(n) and str(self.fields[n]) != '""')

    def at(self, field: int, component: int = 0, repetition: int = 0) -> str:
        """The position as HL7 people write it: `PID-3`, `PID-3[2].4`, `ZAL[2]-3` for the second segment
        of its name.
        """
        name = self.name if self.number == 1 else f"{self.name}[{self.number}]"
        again = f"[{repetition}]" if repetition > 1 else ""
        return f"{name}-{field}{again}" + (f".{component}" if component else "")

    def instant(self, field: int, component: int = 1) -> datetime | None:
        """The instant in UTC at *field*; a time without offset is on New Zealand clocks. None when the
        field is empty.

        Raises `Unreadable` when it is no time, has no time of day, or names an hour that clocks skipped.
        """
        value = self.get(field, component=component)
        return None if value is None else self._moment(value, field)

    def _moment(self, value: str, field: int) -> datetime:
        found = _TIME.fullmatch(value)
        if found is None or found[2] is None:
            raise self.bad(field, "is not a time of day with its date", "send YYYYMMDDHHMM[SS[.SSS]][+ZZZZ]")
        day, clock, second, fraction, offset = found.groups()
        try:
            naive = datetime.strptime(day + clock + (second or "00"), "%Y%m%d%H%M%S")  # noqa: DTZ007
            naive += timedelta(microseconds=int((fraction or "0").ljust(6, "0")))
            if offset:
                away = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])) * (
                    -1 if offset[0] == "-" else 1
                )
                return naive.replace(tzinfo=timezone(away)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise self.bad(
                field, "is no time of the calendar", "send the time that the clock showed"
            ) from None
        if (instant := on_local_clock(naive)) is None:
            raise self.bad(field, "is an hour that clocks skipped", "send the offset with the time")
        return instant

    def date(self, field: int) -> str | None:
        """The ISO date at *field* as written there, a time behind it left aside. None when the field is
        empty.

        Raises `Unreadable` when it is no whole date.
        """
        value = self.get(field)
        if value is None:
            return None
        found = date_of(value[:8], ("%Y%m%d",)) if _TIME.fullmatch(value) else None
        if found is None:
            raise self.bad(field, "is not a whole date", "send YYYYMMDD")
        return found

    def bad(self, field: int, detail: str, fix: str) -> Unreadable:
        """The error for *field*; the caller raises it."""
        return Unreadable("an HL7 field could not be read", Problem(self.at(field), detail, fix))


@dataclass(frozen=True, slots=True)
class Hl7Message:
    """A message: its segments in order."""

    segments: tuple[Segment, ...]

    def first(self, name: str) -> Segment | None:
        """The first segment called *name*, or None."""
        return next((s for s in self.segments if s.name == name), None)

    def all(self, name: str) -> list[Segment]:
        """Every segment called *name*, in order."""
        return [s for s in self.segments if s.name == name]

    def require(self, name: str) -> Segment:
        """The first segment called *name*. Raises `Unreadable` when there is none."""
        if (segment := self.first(name)) is None:
            raise Unreadable(
                "the HL7 message lacks a segment", Problem(name, "is missing", "send the segment")
            )
        return segment


@dataclass(frozen=True, slots=True)
class _Text:
    """How this message writes text: its *separators* (field, repetition, component, sub-component),
    escape character and encoding.
    """

    separators: str
    escape: str
    encoding: str

    def plain(self, value: str) -> str:
        """*value* with its escape sequences resolved (HL7 v2 chapter 2, 2.7); formatting and unknown
        ones disappear.
        """
        if self.escape not in value:
            return unicodedata.normalize("NFC", value)
        parts = value.split(self.escape)
        out: list[str | bytes] = [parts[0]]
        i = 1
        while i < len(parts):
            if i + 1 == len(parts):  # an escape character that nothing closes stands for itself
                out.append(self.escape + parts[i])
                break
            out += [self._resolved(parts[i]), parts[i + 1]]
            i += 2
        # Hex bytes of one character may come in two sequences, so they are joined before they are decoded.
        return unicodedata.normalize("NFC", _joined(out, self.encoding))

    def _resolved(self, sequence: str) -> str | bytes:
        if sequence in _ESCAPE_ENDS:
            return self.separators[_ESCAPE_ENDS[sequence]]
        if sequence == "E":
            return self.escape
        if sequence in (".br", ".sp"):
            return " "
        if re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", sequence):
            return bytes.fromhex(sequence[1:])
        return ""


def _joined(parts: list[str | bytes], encoding: str) -> str:
    out: list[str] = []
    pending = b""
    for part in parts:
        if isinstance(part, bytes):
            pending += part
        elif part:
            out += [pending.decode(encoding, "replace"), part]
            pending = b""
    return "".join([*out, pending.decode(encoding, "replace")])


def parse(content: bytes) -> Hl7Message:
    """The one HL7 message in *content*: MLLP framing and a byte order mark are taken off, segments may
    end with CR, LF or both.

    Raises `Unreadable` naming the position for anything that is not one message in a known character
    set, `TooLarge` beyond 1 MiB.
    """
    if len(content) > MAX_BYTES:
        raise TooLarge(
            "the message is too large",
            Problem("", f"has {len(content)} bytes", f"send at most {MAX_BYTES} bytes"),
        )
    body = content.strip(b"\r\n \t").removeprefix(b"\x0b").strip(b"\r\n \t")
    body = body.removesuffix(b"\x1c").removeprefix(b"\xef\xbb\xbf").strip(b"\r\n \t")
    encoding = _encoding(body)
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        line = body[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1
        raise Unreadable(
            "the message is not in its character set",
            Problem(
                f"segment {line}",
                "has bytes that MSH-18 does not announce",
                "set MSH-18, best to UNICODE UTF-8",
            ),
        ) from None
    lines = [one for one in re.split(r"\r\n|\r|\n", text) if one.strip()]
    if sum(one[:3] == "MSH" for one in lines) != 1:
        raise Unreadable(
            "not one message", Problem("MSH", "stands more than once", "send each message by itself")
        )
    try:
        parsed = hl7.parse("\r".join(lines))
    except (hl7.ParseException, LookupError, ValueError):
        raise Unreadable(
            "not an HL7 v2 message", Problem("MSH", "is not a message header", r"start with MSH|^~\&|")
        ) from None
    known = _Text(parsed.separators[1:5], parsed.esc, encoding)
    counts: dict[str, int] = {}
    segments: list[Segment] = []
    for segment in parsed:
        name = str(segment[0])
        if not re.fullmatch(r"[A-Z][A-Z0-9]{2}", name):
            where = f"segment {len(segments) + 1}"
            raise Unreadable(
                "not an HL7 segment", Problem(where, "has no segment name", "escape line ends inside fields")
            )
        counts[name] = counts.get(name, 0) + 1
        segments.append(Segment(name, counts[name], segment, known))
    return Hl7Message(tuple(segments))


def _encoding(body: bytes) -> str:
    """The Python name of the character set in MSH-18, whose own text is ASCII in every set that we know."""
    head = re.split(rb"[\r\n]", body, maxsplit=1)[0]
    if not head.startswith(b"MSH") or len(head) < 8 or len(set(head[3:8])) != 5:
        fix = r"start with MSH and five different separators, as in MSH|^~\&|"
        raise Unreadable("not an HL7 v2 message", Problem("MSH", "is not a message header", fix))
    fields = head.split(head[3:4])
    # MSH-1 is the separator itself, so MSH-18 is the 18th piece; its first repetition is the set of the whole
    # message.
    named = fields[17].split(head[5:6])[0].decode("ascii", "replace").strip() if len(fields) > 17 else ""
    if named not in _CHARSETS:
        known = ", ".join(name for name in _CHARSETS if name)
        raise Unreadable(
            "unknown character set", Problem("MSH-18", "names a set that is not read", f"use one of: {known}")
        )
    return _CHARSETS[named]
