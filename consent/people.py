"""Who is who: people are found by an agency's own identifier, else by exact name and birth date, each under a
private pseudonym.

The hub keeps no register of people. It keeps keyed digests (HMAC-SHA-256) that let it recognise an
identifier, a name with birth date, or a place it has met before, and each agency's own identifiers, sealed,
so that an agency can be given back its own and only its own (IPP 13).
"""

import hashlib
import hmac
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import filterfalse
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.database import add_rows, metadata, rows_among
from schemas.identifiers import ISSUERS

person_key = sa.Table(
    "person_key",
    metadata,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("pseudonym", sa.String(32), nullable=False),
)
person_identifier = sa.Table(
    "person_identifier",
    metadata,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("pseudonym", sa.String(32), nullable=False, index=True),
    sa.Column("agency", sa.String(40), nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)


_IPAD, _OPAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))  # RFC 2104 section 2


def _worked_in(key: bytes) -> tuple[bytes, bytes]:
    block = key.ljust(64, b"\0")  # all keys here have 32 bytes: SHA-256's block is longer
    return block.translate(_IPAD), block.translate(_OPAD)


def keyed_digest(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA-256 of *text* under a *key* of 32 bytes: what `hmac.digest` gives, at a tenth of what OpenSSL
    takes to find its algorithm anew for each call.
    """
    inner, outer = _worked_in(key)
    return hashlib.sha256(outer + hashlib.sha256(inner + text).digest()).digest()


class Digest:
    """HMAC-SHA-256 under one key (RFC 2104), the key worked in once: `hmac.digest` would do that again for
    each of the twenty short texts that a submission needs digested, which costs more than the text.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        inner, outer = _worked_in(key)
        self._inner, self._outer = hashlib.sha256(inner), hashlib.sha256(outer)

    def __call__(self, text: bytes) -> bytes:
        """The digest of *text*."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.digest()


class Keys:
    """The hub's secret (32 bytes) and what is derived from it: digests that nobody without it can recompute
    or enumerate.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ValueError("the hub's secret has 32 bytes")
        self._person = Digest(_derive(secret, b"person"))
        self._place = Digest(_derive(secret, b"place"))
        self._salt = Digest(_derive(secret, b"salt"))
        self._queue = Digest(_derive(secret, b"queue"))
        self._seal = AESGCM(_derive(secret, b"seal"))

    def identifier(self, system: str, value: str) -> bytes:
        """The key under which an identifier is known."""
        return self._person(f"id\n{system}\n{value.upper()}".encode())

    def named(self, name: Mapping[str, str], birth_date: str) -> bytes:
        """The key under which a name with a birth date is known."""
        return self._person(f"name\n{fold(name['family'])}\n{fold(name['given'])}\n{birth_date}".encode())

    def pseudonym(self, key: bytes) -> str:
        """The pseudonym of a person first met under *key*."""
        return self._person(b"pseudonym\n" + key)[:16].hex()

    def place(self, address: Mapping[str, str]) -> str:
        """The keyed digest of a place: equal for the same address written differently in case, spacing,
        macrons or street type.
        """
        return self._place(f"{_street(address['line1'])}\n{fold(address['city'])}".encode()).hex()[:32]

    def school(self, school: Mapping[str, str]) -> str:
        """The keyed digest of a school."""
        return self._place(f"school\n{fold(school['name'])}".encode()).hex()[:32]

    def salt(self, *parts: str) -> bytes:
        """The salt of a commitment; giving it away opens that one commitment and no other."""
        return self._salt("\n".join(parts).encode())

    def queue(self, name: str) -> bytes:
        """The key (32 bytes) that seals the bodies in the queue *name*."""
        return self._queue(name.encode())

    def seal(self, text: str) -> bytes:
        """*text* encrypted for storage."""
        return self.seal_bytes(text.encode())

    def unseal(self, sealed: bytes) -> str:
        """The text in *sealed*."""
        return self.unseal_bytes(sealed).decode()

    def seal_bytes(self, content: bytes) -> bytes:
        """*content* encrypted for storage."""
        nonce = os.urandom(12)
        return nonce + self._seal.encrypt(nonce, content, None)

    def unseal_bytes(self, sealed: bytes) -> bytes:
        """The bytes in *sealed*."""
        return self._seal.decrypt(sealed[:12], sealed[12:], None)


def _derive(secret: bytes, label: bytes) -> bytes:
    return hmac.digest(secret, b"isr-hub/" + label, "sha256")


def fold(text: str) -> str:
    """*text* for exact comparison of names: case, macrons and runs of space do not distinguish people;
    hyphens and apostrophes do.
    """
    bare = text
    if not text.isascii():
        bare = "".join(filterfalse(unicodedata.combining, unicodedata.normalize("NFD", text)))
    return " ".join(bare.casefold().split())


_STREET_TYPES = {
    "st": "street",
    "rd": "road",
    "ave": "avenue",
    "pl": "place",
    "tce": "terrace",
    "cres": "crescent",
    "dr": "drive",
    "ln": "lane",
}
_WORD = re.compile(r"[a-z0-9/]+")


def _street(line: str) -> str:
    return " ".join(_STREET_TYPES.get(word, word) for word in _WORD.findall(fold(line)))


class People:
    """The crosswalk from what agencies call people to the hub's pseudonyms."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def recognise(
        self, connection: sa.Connection, messages: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
    ) -> list[dict[str, str]]:
        """For each (source agency, people) of a batch: ref → pseudonym. New people and new identifiers are
        stored in the caller's transaction.

        An identifier of the sender's own outranks another agency's, which outranks the name; somebody with
        none of these is nobody known and gets a pseudonym that nobody can be found by.
        """
        wanted = [[self._candidates(agency, person) for person in people] for agency, people in messages]
        known = self._known(
            connection, (key for per_message in wanted for keys, _ in per_message for key in keys)
        )
        new_keys: list[tuple[bytes, str]] = []
        new_identifiers: list[tuple[bytes, str, str, bytes]] = []
        found: list[dict[str, str]] = []
        for (_, people), per_message in zip(messages, wanted, strict=True):
            refs: dict[str, str] = {}
            for person, (keys, identifiers) in zip(people, per_message, strict=True):
                pseudonym = next((known[k] for k in keys if k in known), None)
                if pseudonym is None:
                    pseudonym = self._keys.pseudonym(keys[0] if keys else os.urandom(32))
                refs[person["ref"]] = pseudonym
                for key in keys:
                    if key not in known:
                        known[key] = pseudonym
                        new_keys.append((key, pseudonym))
                        if key in identifiers:
                            agency, system, value = identifiers[key]
                            sealed = self._keys.seal(f"{system}\n{value}")
                            new_identifiers.append((key, pseudonym, agency, sealed))
            found.append(refs)
        add_rows(connection, person_key, ("key", "pseudonym"), new_keys)
        add_rows(connection, person_identifier, ("key", "pseudonym", "agency", "sealed"), new_identifiers)
        return found

    def known_as(self, connection: sa.Connection, agency: str, person: Mapping[str, Any]) -> set[str]:
        """The pseudonyms under which somebody is known whom *agency* describes as *person* (as in a message:
        identifiers, name with birthDate). Stores nothing; empty when nobody is.

        Several when what describes one person was met apart, or two people share a name and a birth date.
        """
        keys, _ = self._candidates(agency, person)
        return set(self._known(connection, keys).values())

    def identifiers_of(
        self, connection: sa.Connection, pseudonyms: Iterable[str]
    ) -> dict[str, dict[str, list[dict[str, str]]]]:
        """pseudonym → issuing agency → that agency's own identifiers ({system, value})."""
        found: dict[str, dict[str, list[dict[str, str]]]] = {}
        columns = ("pseudonym", "agency", "sealed")
        rows = rows_among(connection, person_identifier, columns, "pseudonym", pseudonyms)
        for pseudonym, agency, sealed in rows:
            system, value = self._keys.unseal(sealed).split("\n")
            found.setdefault(pseudonym, {}).setdefault(agency, []).append({"system": system, "value": value})
        for agencies in found.values():
            for identifiers in agencies.values():
                identifiers.sort(key=lambda i: (i["system"], i["value"]))
        return found

    def _candidates(
        self, agency: str, person: Mapping[str, Any]
    ) -> tuple[list[bytes], dict[bytes, tuple[str, str, str]]]:
        own: list[bytes] = []
        other: list[bytes] = []
        identifiers: dict[bytes, tuple[str, str, str]] = {}
        for identifier in person.get("identifiers", ()):
            system, value = identifier["system"], identifier["value"]
            holder = ISSUERS[system]
            if holder == "ngo":
                # A provider's client numbers are its own: two NGOs may both have a client 17.
                holder, key = agency, self._keys.identifier(f"{system}@{agency}", value)
            else:
                key = self._keys.identifier(system, value)
            identifiers[key] = (holder, system, value)
            (own if holder == agency else other).append(key)
        if "name" in person and "birthDate" in person:
            other.append(self._keys.named(person["name"], person["birthDate"]))
        return own + other, identifiers

    def _known(self, connection: sa.Connection, keys: Iterable[bytes]) -> dict[bytes, str]:
        rows = rows_among(connection, person_key, ("key", "pseudonym"), "key", keys)
        return {bytes(key): pseudonym for key, pseudonym in rows}
