"""Comma-separated files between agencies: RFC 4180 read strictly, a manifest that proves the file is whole,
and rows that fail alone.

A file is UTF-8 (a byte order mark is accepted) with a header row; columns go by name, in any order. The
manifest is a JSON companion `<name without .csv>.manifest.json`:

    {"file": "custody-20260301.csv", "rows": 2, "sha256": "…64 hex…", "produced": "2026-03-01T06:00:00+13:00"}

*produced* is the instant at which the sender made the file; its New Zealand date is the file's date. A cell
that a spreadsheet would run as a formula (it starts with `=`, `+`, `-`, `@`, a tab or a line end) travels
behind one apostrophe, in both directions, so reading undoes writing.
"""

import csv
import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from adapters.adapter import Native, Reading, Rejected
from adapters.local import DAY_FIRST, date_of, local_date
from schemas.clock import instant_of
from schemas.errors import HubError, Problem, TooLarge, Unreadable
from schemas.message import Message, decode

MEDIA_TYPE = "text/csv"
MAX_FILE_BYTES = 32 * 1_048_576  # a day's muster of every prison is about 4 MB
MAX_ROW_BYTES = 65_536
_FIELD = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r\n|\n|\Z)')
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_LINE = re.compile(r"[^\x00-\x1f]{1,200}")
_MANIFEST = ("file", "rows", "sha256", "produced")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the sender says of its file: *rows* without the header, *sha256* in lower-case hex, *produced*
    an aware UTC instant."""

    file: str
    rows: int
    sha256: str
    produced: datetime

    @property
    def file_date(self) -> str:
        """The file's date on New Zealand clocks, ISO."""
        return local_date(self.produced).isoformat()

    def to_json(self) -> bytes:
        """The manifest as it travels."""
        said = {
            "file": self.file,
            "rows": self.rows,
            "sha256": self.sha256,
            "produced": self.produced.isoformat(),
        }
        return json.dumps(said).encode()


@dataclass(frozen=True, slots=True)
class Row:
    """One row. *number* counts as a spreadsheet does (the header is row 1); *cells* by column, empty ones
    left out; *raw* as it came."""

    number: int
    cells: Mapping[str, str]
    raw: str

    def at(self, column: str) -> str:
        """The position of *column*, for a `Problem`."""
        return f"row {self.number}, column {column}"

    def get(self, column: str) -> str | None:
        """The cell of *column*; None when it is empty or the file lacks the column."""
        return self.cells.get(column)

    def require(self, column: str) -> str:
        """The cell of *column*. Raises `Unreadable` when it is empty."""
        if (value := self.cells.get(column)) is None:
            raise self.bad(column, "is empty", "fill it")
        return value

    def one_of(self, column: str, words: Mapping[str, Any]) -> Any:
        """What *words* has for the cell of *column*, capitals, hyphens and spaces aside. Raises
        `Unreadable` when it has nothing for it."""
        word = " ".join(self.require(column).upper().replace("-", " ").split())
        if word not in words:
            raise self.bad(column, "is not one of the agreed words", "use one of: " + ", ".join(words))
        return words[word]

    def line(self, column: str) -> str | None:
        """The cell of *column*, one line of at most 200 characters; None when it is empty. Raises
        `Unreadable`.
        """
        value = self.cells.get(column)
        if value is not None and not _LINE.fullmatch(value):
            raise self.bad(column, "is not one line of at most 200 characters", "shorten it")
        return value

    def lines(self, column: str, most: int) -> list[str]:
        """The parts of the cell of *column* between semicolons, each one line, at most *most*. Raises
        `Unreadable`.
        """
        found = [part.strip() for part in self.cells.get(column, "").split(";") if part.strip()]
        if len(found) > most or not all(_LINE.fullmatch(part) for part in found):
            raise self.bad(
                column, f"is not up to {most} entries of one line each", "separate entries by semicolons"
            )
        return found

    def flag(self, column: str) -> bool | None:
        """Y or N in *column*; None when it is empty. Raises `Unreadable`."""
        return None if column not in self.cells else bool(self.one_of(column, {"Y": True, "N": False}))

    def date(self, column: str, not_after: datetime | None = None) -> str | None:
        """The ISO date of *column*, written DD/MM/YYYY; None when it is empty. Raises `Unreadable`, also
        for a day later than *not_after*.
        """
        if (value := self.cells.get(column)) is None:
            return None
        if (found := date_of(value, (DAY_FIRST,))) is None:
            raise self.bad(column, "is not a date", "write DD/MM/YYYY")
        if not_after is not None and found > local_date(not_after).isoformat():
            raise self.bad(column, "lies in the future", "write the date at which it happened")
        return found

    def name(self, family: str, given: str) -> dict[str, str] | None:
        """The name in two columns, what follows the first given name apart; None when both are empty.
        Raises `Unreadable` when one is.
        """
        first, last = self.line(given), self.line(family)
        if first is None and last is None:
            return None
        if first is None or last is None:
            raise self.bad(
                given if first is None else family, "is empty", "send family and given names together"
            )
        one, _, more = first.partition(" ")
        return {"family": last, "given": one} | ({"other": more.strip()} if more.strip() else {})

    def address(self, street: str) -> dict[str, str] | None:
        """The address in *street*, SUBURB, CITY, POSTCODE; None when *street* is empty. Raises
        `Unreadable`.
        """
        if (line1 := self.line(street)) is None:
            return None
        if (city := self.line("CITY")) is None:
            raise self.bad("CITY", "is empty", "send the city with the street")
        found = {"line1": line1, "city": city}
        if suburb := self.line("SUBURB"):
            found["suburb"] = suburb
        if postcode := self.get("POSTCODE"):
            if not re.fullmatch(r"[0-9]{4}", postcode):
                raise self.bad("POSTCODE", "is not a postcode", "write four digits")
            found["postcode"] = postcode
        return found

    def matching(self, column: str, pattern: re.Pattern[str], fix: str) -> str:
        """The cell of *column*, which has the form *pattern*. Raises `Unreadable`."""
        if not pattern.fullmatch(value := self.require(column)):
            raise self.bad(column, "does not have its form", fix)
        return value

    def bad(self, column: str, detail: str, fix: str) -> Unreadable:
        """The error for *column*; the caller raises it."""
        return Unreadable("a row could not be read", Problem(self.at(column), detail, fix))


@dataclass(frozen=True, slots=True)
class Table:
    """A file that is whole. *rows* holds a `Row` or, for a row that is no CSV or does not fit the header,
    its number, text and error."""

    native: Native
    manifest: Manifest
    header: str
    columns: tuple[str, ...]
    rows: list["Row | tuple[str, Unreadable]"]

    def gather(self, take: Callable[[Row, list[Problem]], Message | None]) -> Reading:
        """What *take* reads of each row (adding to its list what has no place). A row that raises is
        rejected alone; so is one that uses the key of an earlier row for something else. The same row
        twice has one effect."""
        reading = Reading([])
        seen: dict[str, bytes] = {}
        for number, row in enumerate(self.rows, 2):
            try:
                if not isinstance(row, Row):
                    raise row[1]
                message = take(row, reading.unplaced)
                if message is None:
                    continue
                said = message.body_digest()
                if seen.get(message.id, said) != said:
                    detail = "is used by an earlier row for something else"
                    raise row.bad("REFERENCE", detail, "give every event its own")
            except HubError as error:
                raw = row.raw if isinstance(row, Row) else row[0]
                reading.rejected.append(Rejected(self.alone(raw), error))
                continue
            if message.id in seen:
                reading.unplaced.append(Problem(f"row {number}", "repeats an earlier row", "no action"))
                continue
            seen[message.id] = said
            reading.messages.append(message)
        return reading

    def alone(self, raw: str) -> Native:
        """The row *raw* as a file that can be sent again by itself: the header, the row and a manifest with
        the same date."""
        content = f"{self.header}\r\n{raw}\r\n".encode()
        name = self.native.name
        digest = hashlib.sha256(content).hexdigest()
        again = Manifest(name, 1, digest, self.manifest.produced)
        return Native(content, MEDIA_TYPE, name, {manifest_name(name): again.to_json()})


def manifest_name(name: str) -> str:
    """The name of the manifest that belongs to the file *name*."""
    return PurePosixPath(name).stem + ".manifest.json"


def read_table(native: Native, columns: Sequence[Sequence[str]]) -> Table:
    """The rows of *native*, once its manifest has shown that it is whole. *columns* are the layouts that
    the caller understands; the header must hold every column of one of them that does not end in `?`, and
    no column that none of them has.

    Raises `Unreadable` naming what differs (manifest, encoding, header, row count, digest), `TooLarge`
    beyond 32 MiB.
    """
    if len(native.content) > MAX_FILE_BYTES:
        raise TooLarge(
            "the file is too large",
            Problem("", f"has {len(native.content)} bytes", f"send at most {MAX_FILE_BYTES} bytes a file"),
        )
    manifest = _manifest(native)
    # The digest comes first: of a half-written file every other finding would be a consequence.
    if hashlib.sha256(native.content).hexdigest() != manifest.sha256:
        raise _differs(
            "sha256",
            "the file's SHA-256 is not the manifest's: it was cut short or changed",
            "send both again",
        )
    records = list(_records(_text(native.content)))
    if not records or isinstance(records[0], _Broken):
        raise Unreadable(
            "the file has no header", Problem("row 1", "is not a header row", "start with the column names")
        )
    if len(records) - 1 != manifest.rows:
        raise _differs(
            "rows",
            f"the file has {len(records) - 1} rows, the manifest says {manifest.rows}",
            "send both again",
        )
    header = records[0]
    names = tuple(" ".join(cell.upper().split()) for cell in header.cells)
    _check_header(names, columns)
    return Table(
        native, manifest, header.raw, names, [_row(r, n, names) for n, r in enumerate(records[1:], 2)]
    )


@dataclass(frozen=True, slots=True)
class _Record:
    cells: list[str]
    raw: str


@dataclass(frozen=True, slots=True)
class _Broken:
    column: int
    raw: str


def _text(content: bytes) -> str:
    try:
        return unicodedata.normalize("NFC", content.removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        # Windows-1252 decodes almost any bytes, so guessing it would turn one name into another in silence.
        raise Unreadable(
            "the file is not UTF-8",
            Problem(f"row {row}", "has bytes that are not UTF-8 (Windows-1252?)", "export as UTF-8"),
        ) from None


def _records(text: str) -> Iterator[_Record | _Broken]:
    """Splits *text* by RFC 4180 section 2. A record with a stray quote ends at its line end: its neighbours
    are not its fault."""
    start = 0
    while start < len(text):
        cells: list[str] = []
        at = start
        while True:
            found = _FIELD.match(text, at)
            if found is None or found.end() - start > MAX_ROW_BYTES:
                newline = text.find("\n", start)
                end = len(text) if newline < 0 else newline + 1
                yield _Broken(len(cells) + 1, text[start:end].rstrip("\r\n"))
                start = end
                break
            quoted, plain, ending = found.groups()
            cells.append(plain if quoted is None else quoted.replace('""', '"'))
            at = found.end()
            if ending != ",":
                yield _Record(cells, text[start : at - len(ending)])
                start = at
                break


def _row(record: _Record | _Broken, number: int, names: tuple[str, ...]) -> "Row | tuple[str, Unreadable]":
    if isinstance(record, _Broken):
        problem = Problem(
            f"row {number}, field {record.column}",
            "has a stray quote or is too long",
            'write a quote as "" inside quotes',
        )
        return record.raw, Unreadable("a row is not CSV", problem)
    if len(record.cells) != len(names):
        problem = Problem(
            f"row {number}",
            f"has {len(record.cells)} fields, the header {len(names)}",
            "quote cells that hold commas",
        )
        return record.raw, Unreadable("a row does not fit the header", problem)
    cells = ((name, unguarded(cell.strip(" "))) for name, cell in zip(names, record.cells, strict=True))
    return Row(number, {name: cell for name, cell in cells if cell}, record.raw)


def _check_header(names: tuple[str, ...], layouts: Sequence[Sequence[str]]) -> None:
    if len(set(names)) != len(names):
        raise Unreadable(
            "the header repeats a column",
            Problem("row 1", "two columns have one name", "name each column once"),
        )
    misfits = []
    for layout in layouts:
        known = {c.removesuffix("?") for c in layout}
        missing = [c for c in layout if not c.endswith("?") and c not in names]
        misfits.append((len(missing), missing, [i for i, n in enumerate(names, 1) if n not in known]))
    # Against several layouts, the complaint is about the one that is nearest.
    _, missing, extra = min(misfits, key=lambda m: (m[0] + len(m[2]), m[0]))
    problems = [Problem(f"row 1, column {name}", "is missing", "add the column") for name in missing]
    # An unknown column is refused, not skipped: nobody would notice what it held. It is named by position,
    # the text being the sender's.
    problems += [
        Problem(f"row 1, field {i}", "is no column of this file", "remove it, or agree on it first")
        for i in extra
    ]
    if problems:
        raise Unreadable("the header does not fit", *problems)


def _manifest(native: Native) -> Manifest:
    name = manifest_name(native.name)
    if name not in native.companions:
        raise Unreadable(
            "the file has no manifest",
            Problem(
                "manifest", "did not come with the file", f"send it beside the file, named {_MANIFEST_FORM}"
            ),
        )
    try:
        said = decode(native.companions[name])
    except HubError as error:
        found = (Problem(f"manifest {p.pointer}".rstrip(), p.detail, p.fix) for p in error.problems)
        raise Unreadable("the manifest is not JSON", *found) from None
    if not isinstance(said, dict) or set(said) != set(_MANIFEST):
        raise Unreadable(
            "the manifest is not complete",
            Problem("manifest", "does not have exactly its four keys", "send " + ", ".join(_MANIFEST)),
        )
    if said["file"] != native.name:
        raise _differs("file", "names another file", "send each file with its own manifest")
    if not isinstance(said["rows"], int) or isinstance(said["rows"], bool) or said["rows"] < 0:
        raise _differs("rows", "is not a count", "send the number of rows without the header")
    if not isinstance(said["sha256"], str) or not re.fullmatch(r"[0-9a-fA-F]{64}", said["sha256"]):
        raise _differs("sha256", "is not a SHA-256 in hex", "send 64 hex digits")
    try:
        produced = instant_of(said["produced"])
    except (TypeError, ValueError, OverflowError):
        raise _differs(
            "produced",
            "is not an RFC 3339 instant with an offset",
            "send the time at which the file was made",
        ) from None
    return Manifest(said["file"], said["rows"], said["sha256"].lower(), produced)


_MANIFEST_FORM = "as the file, .manifest.json in place of .csv"


def _differs(key: str, detail: str, fix: str) -> Unreadable:
    return Unreadable("file and manifest do not agree", Problem(f"manifest /{key}", detail, fix))


def guarded(cell: str) -> str:
    """*cell* so that no spreadsheet runs it as a formula; `unguarded` gives it back."""
    return "'" + cell if cell.lstrip("'").startswith(_FORMULA) else cell


def unguarded(cell: str) -> str:
    """*cell* without the apostrophe that `guarded` put before a would-be formula; others (`'Aho`) keep
    theirs."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def write_table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> bytes:
    """RFC 4180 bytes, UTF-8 without a byte order mark: the header *columns*, then *rows* by column; an
    absent cell is empty."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([guarded(row.get(column, "")) for column in columns])
    return buffer.getvalue().encode("utf-8")


__all__ = [
    "MEDIA_TYPE",
    "Manifest",
    "Row",
    "Table",
    "guarded",
    "manifest_name",
    "read_table",
    "unguarded",
    "write_table",
]
