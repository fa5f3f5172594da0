"""What the tests of the hospitals' adapter share."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.adapter import Reading
from schemas.catalogue import published
from schemas.message import Message

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "formats" / "health.md").read_text(encoding="utf-8")


def valid(reading: Reading) -> list[Message]:
    for message in reading.messages:
        published().validate(message.to_json(), NOW)
    return reading.messages


def only(reading: Reading) -> dict[str, Any]:
    (message,) = valid(reading)
    return message.data
