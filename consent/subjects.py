"""One key for each person, from which the salts of every commitment to that person come.

The ledger names nobody: it holds digests of salted pseudonyms and salted content. Destroying a person's key
makes them unopenable for everybody, the hub included, while every proof still holds: erasure without touching
the log (Privacy Act 2020, IPP 9).
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping

import sqlalchemy as sa

from consent.people import Keys, keyed_digest
from schemas.database import add_rows, metadata, rows_among

subject_key = sa.Table(
    "subject_key",
    metadata,
    sa.Column("pseudonym", sa.String(32), primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
_KEY_BYTES = 32


class Subjects:
    """The keys of people, sealed in the database."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def keys_of(self, connection: sa.Connection, pseudonyms: Iterable[str]) -> dict[str, bytes]:
        """pseudonym → key, for those who have one."""
        rows = rows_among(connection, subject_key, ("pseudonym", "sealed"), "pseudonym", pseudonyms)
        return {pseudonym: self._keys.unseal_bytes(sealed) for pseudonym, sealed in rows}

    def made_for(self, connection: sa.Connection, pseudonyms: Iterable[str]) -> dict[str, bytes]:
        """pseudonym → key for all of them; new people get one in the caller's transaction."""
        wanted = set(pseudonyms)
        found = self.keys_of(connection, wanted)
        new = {pseudonym: os.urandom(_KEY_BYTES) for pseudonym in wanted - found.keys()}
        rows = [(pseudonym, self._keys.seal_bytes(key)) for pseudonym, key in new.items()]
        add_rows(connection, subject_key, ("pseudonym", "sealed"), rows)
        return found | new

    def destroy(self, connection: sa.Connection, pseudonym: str) -> bool:
        """Destroys the key of *pseudonym* in the caller's transaction; False when there was none. Who is met
        again gets a new key, which opens nothing of before.

        ‖ Before the commit nothing is destroyed. After it, backups still hold the sealed key until they are
        overwritten: their keeping time is part of the promise.
        """
        result = connection.execute(sa.delete(subject_key).where(subject_key.c.pseudonym == pseudonym))
        return result.rowcount == 1


def subject_salt(key: bytes, source: str, message: str) -> bytes:
    """The salt that opens the commitment to the person with *key* in the entries on *message* of *source*,
    and no other.
    """
    return keyed_digest(key, f"subject\n{source}\n{message}".encode())


def commitment(key: bytes, source: str, message: str, pseudonym: str) -> str:
    """SHA-256 of the salt and *pseudonym*: the same person has another one in every message, and whoever
    holds the salt can open this one.
    """
    return hashlib.sha256(subject_salt(key, source, message) + pseudonym.encode()).hexdigest()


def content_salts(keys: Mapping[str, bytes]) -> Callable[[str], bytes]:
    """What gives the `content_salt` of any disclosure about all who have *keys* (by pseudonym)."""
    together = hashlib.sha256(b"".join(keys[pseudonym] for pseudonym in sorted(keys))).digest()
    return lambda disclosure: keyed_digest(together, f"content\n{disclosure}".encode())


def content_salt(keys: Mapping[str, bytes], disclosure: str) -> bytes:
    """The salt that opens the content of *disclosure*, about all who have *keys* (by pseudonym): without the
    key of any one of them it cannot be made again.
    """
    return content_salts(keys)(disclosure)
