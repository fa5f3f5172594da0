"""The JSON examples of docs/formats, and ways to read and spoil them."""

import copy
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from adapters.adapter import Adapter, Native, Reading
from adapters.record import Format, Record
from schemas.catalogue import published

NOW = datetime.fromisoformat("2026-11-22T18:00:00+13:00")
DOCS = Path(__file__).parents[1] / "docs" / "formats"


def page(name: str) -> str:
    """The text of a page of docs/formats."""
    return (DOCS / f"{name}.md").read_text("utf-8")


def examples(name: str) -> list[Any]:
    """The fenced JSON blocks of a page, in order."""
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", page(name), re.S | re.M)]


def records(name: str, kind: str) -> dict[str, Any]:
    """The records of a page by kind, those inside batches too; of several of one kind, the first."""
    found: dict[str, Any] = {}
    for example in examples(name):
        for record in example.get("batch", [example]):
            found.setdefault(record[kind], record)
    return found


def native(value: Any) -> Native:
    """*value* as a file."""
    return Native(json.dumps(value).encode(), "application/json", "in.json")


def read(adapter: Adapter, value: Any, party: str) -> Reading:
    """What the adapter makes of *value*; every message is checked against the catalogue."""
    reading = adapter.read(native(value), party, NOW)
    for message in reading.messages:
        published().validate(message.to_json(), NOW)
        assert message.source == party
    return reading


def positions(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every node of *value* below its top."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*above, key)
        yield from positions(inner, (*above, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """A copy of *value* with *by* at *path*."""
    spoiled = copy.deepcopy(value)
    node = spoiled
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = by
    return spoiled


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy of *value* without what is at *path*."""
    spoiled = copy.deepcopy(value)
    node = spoiled
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return spoiled


def undocumented(form: Format, name: str) -> set[str]:
    """Declared fields of *form* that neither its page nor the common one mentions."""
    said = set(re.findall(r"`([A-Za-z]+)`", page(name) + page("notice")))
    return {field for record in form.records.values() for field in declared(record)} - said


def declared(record: Record) -> set[str]:
    """The native fields of a record and of its entries."""
    split = {record.split} if record.split else set()
    return {
        *record.fields,
        *record.entry,
        *record.key,
        *record.entry_key,
        record.at,
        *split,
        "case",
        "answers",
    }


def unshown(form: Format, name: str, shared: frozenset[str]) -> dict[str, set[str]]:
    """By kind of record, but for those in *shared*: declared fields that the page's example lacks."""
    shown = records(name, form.kind)
    missing = {}
    for kind, record in form.records.items():
        if kind not in shared:
            example = shown[kind]
            has = {*example, *(k for entry in example.get(record.split, ()) for k in entry)}
            if gone := declared(record) - has:
                missing[kind] = gone
    return missing


SHARED = frozenset({"contact-details", "information-response", "task-update", "report-of-concern"})
