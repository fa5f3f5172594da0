"""Opening commitments: that an entry is about a certain person, or that a certain content is what left.

An entry holds SHA-256 of a salt and what is committed to. Whoever was given a salt (`isr-hub evidence`) can
show that one thing and no other. The salts come in a file:

    {"v": 1, "entries": [
      {"index": 17, "subjects": [{"person": "…", "salt": "hex"}], "content": {"salt": "hex"}}]}

*person* is the pseudonym that the hub gave the person; a content is the canonical message that was released,
or its `data`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from consent.merkle import ProofError

MAX_REVEAL_BYTES = 64_000_000
MAX_CONTENT_BYTES = 16_000_000
_NOT_SALTS = "this is not a file of salts as `isr-hub evidence` writes it"


@dataclass(slots=True)
class _Asked:
    """What is to be opened in one entry."""

    people: list[tuple[str, bytes]] = field(default_factory=list)
    content: bytes | None = None


class Reveal:
    """The salts in a *file*, tried on entries as they are seen; *contents* are (name, bytes) to recognise.

    Raises `ProofError` when the file or a content is not what it should be.
    """

    def __init__(self, file: bytes, contents: Iterable[tuple[str, bytes]] = ()) -> None:
        self._asked = _read(file)
        self._contents = [(name, canonical_content(data)) for name, data in contents]
        self._recognised: set[str] = set()
        self.opened: list[tuple[int, str]] = []  # what was shown of which entry

    def see(self, index: int, body: Mapping[str, object], add: Callable[[str, str], None]) -> None:
        """Opens what is asked of entry *index*, and tells *add* what does not open."""
        asked = self._asked.pop(index, None)
        if asked is None:
            return
        place = f"entry {index}"
        for person, salt in asked.people:
            role = _role(body, sha256(salt + person.encode()).hexdigest())
            if role is None:
                add(place, "it is not about this person: no commitment opens with this salt")
            else:
                self.opened.append((index, f"the person {person} is in it as {role}"))
        if asked.content is not None:
            for name, data in self._contents:
                if sha256(asked.content + data).hexdigest() == body.get("content"):
                    self._recognised.add(name)
                    self.opened.append((index, f"{name} is what was released to {body.get('party')}"))

    def end(self, add: Callable[[str, str], None]) -> None:
        """Tells *add* what was asked of entries that were not there, and which contents no entry recorded."""
        for index in sorted(self._asked):
            add(f"entry {index}", "a salt is given for it, but it is not here")
        for name, _ in self._contents:
            if name not in self._recognised:
                add("content", f"{name} is not what any of these entries recorded")


def canonical_content(data: bytes) -> bytes:
    """The bytes that are committed to, of a released message or of its `data`: JSON with sorted keys and
    nothing between (RFC 8785 for what the hub writes). Raises `ProofError`.
    """
    try:
        value = json.loads(data)
        if isinstance(value, dict) and "specversion" in value and "data" in value:
            value = value["data"]
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return text.encode()
    except (ValueError, RecursionError) as error:  # text that is no Unicode included
        raise ProofError("the content is not JSON") from error


def _role(body: Mapping[str, object], commitment: str) -> str | None:
    subjects = body.get("subjects")
    for subject in subjects if isinstance(subjects, list) else ():
        if isinstance(subject, list) and len(subject) == 2 and subject[1] == commitment:
            return str(subject[0])
    return None


def _read(file: bytes) -> dict[int, _Asked]:
    try:
        said: Any = json.loads(file)
        if said["v"] != 1:
            raise ProofError(_NOT_SALTS)
        asked: dict[int, _Asked] = {}
        for item in said["entries"]:
            if type(item["index"]) is not int:
                raise ProofError(_NOT_SALTS)
            one = asked.setdefault(item["index"], _Asked())
            one.people += [_person(p) for p in item.get("subjects", ())]
            if "content" in item:
                one.content = bytes.fromhex(item["content"]["salt"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ProofError(_NOT_SALTS) from error
    return asked


def _person(said: Mapping[str, Any]) -> tuple[str, bytes]:
    if not isinstance(said["person"], str):
        raise ProofError(_NOT_SALTS)
    said["person"].encode()  # a lone surrogate is no text
    return said["person"], bytes.fromhex(said["salt"])
