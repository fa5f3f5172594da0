"""Each person has a key; destroying it closes every commitment to that person, and no proof fails."""

import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from consent import inputs
from consent.people import Digest, Keys, keyed_digest
from consent.subjects import Subjects, commitment, content_salt, subject_key, subject_salt
from consent.verify import verify
from gateway.hub import Hub, open_hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from schemas import database

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    with open_hub(Settings(data=tmp_path / "hub"), clock=lambda: NOW) as hub:
        hub.exchange.accept("police", [five_f(i.family, i.episode) for i in stream(5, 6, days=1)])
        while hub.exchange.carry():
            pass
        yield hub


def stored(hub: Hub) -> list[inputs.Asked]:
    with hub.engine.begin() as connection:
        return list(inputs.stored(connection))


def opened(hub: Hub, asked: inputs.Asked, pseudonym: str) -> bool:
    """Whether the hub can open the commitment to *pseudonym* in the entries on a message."""
    with hub.engine.begin() as connection:
        keys = Subjects(hub.keys).keys_of(connection, [pseudonym])
    if pseudonym not in keys:
        return False
    wanted = commitment(keys[pseudonym], asked.question.source, asked.message, pseudonym)
    size = hub.ledger.sign().size
    entries = [orjson.loads(raw) for raw in hub.ledger.entries(0, size)]
    return all(
        wanted in [name for _, name in entry["subjects"]]
        for entry in entries
        if entry["message"] == asked.message
    )


def test_destroyed_key_closes_one_person_and_the_ledger_still_verifies(hub: Hub, tmp_path: Path) -> None:
    first, *_, last = stored(hub)
    gone, *others = first.question.pseudonyms.values()
    assert opened(hub, first, gone)
    with hub.engine.begin() as connection:
        assert Subjects(hub.keys).destroy(connection, gone)
    with hub.engine.begin() as connection:
        assert not Subjects(hub.keys).destroy(connection, gone)

    assert not opened(hub, first, gone)
    assert all(opened(hub, first, other) for other in others)
    assert all(opened(hub, last, other) for other in last.question.pseudonyms.values() if other != gone)
    hub.ledger.sign()
    assert verify(tmp_path / "hub", str(tmp_path / "hub" / "ledger.vkey")).ok


def test_a_person_met_again_gets_a_key_that_opens_nothing_of_before(hub: Hub) -> None:
    first = stored(hub)[0]
    gone = next(iter(first.question.pseudonyms.values()))
    with hub.engine.begin() as connection:
        Subjects(hub.keys).destroy(connection, gone)
        Subjects(hub.keys).made_for(connection, [gone])
    assert not opened(hub, first, gone)


def test_keys_are_made_once_and_lie_sealed(tmp_path: Path) -> None:
    engine = database.open_database(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    database.metadata.create_all(engine)
    subjects = Subjects(Keys(b"k" * 32))
    people = [f"{n:032x}" for n in range(1200)]
    with engine.begin() as connection:
        made = subjects.made_for(connection, people)
        again = subjects.made_for(connection, [*people, people[0], "f" * 32])
        lying = [bytes(row.sealed) for row in connection.execute(subject_key.select())]
    assert made == {p: again[p] for p in people}
    assert len(set(made.values())) == 1200
    assert not any(key in sealed for key in list(made.values())[:20] for sealed in lying)
    with engine.begin() as connection:
        assert Subjects(Keys(b"k" * 32)).keys_of(connection, people[:3]) == {p: made[p] for p in people[:3]}
        assert Subjects(Keys(b"k" * 32)).keys_of(connection, []) == {}
    engine.dispose()


def test_content_opens_only_with_the_keys_of_all_it_is_about() -> None:
    keys = {"a": b"1" * 32, "b": b"2" * 32}
    salt = content_salt(keys, "d")
    assert salt == content_salt(dict(reversed(keys.items())), "d")
    assert salt != content_salt({"a": keys["a"]}, "d")
    assert salt != content_salt(keys | {"b": b"3" * 32}, "d")
    assert salt != content_salt(keys, "e")


def test_commitment_is_what_a_salt_opens() -> None:
    salt = subject_salt(b"1" * 32, "police", "m")
    assert commitment(b"1" * 32, "police", "m", "p") == hashlib.sha256(salt + b"p").hexdigest()
    assert salt != subject_salt(b"1" * 32, "police", "n")


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 1000])
def test_digests_are_hmac_sha_256(length: int) -> None:
    """RFC 2104, as Python's own module makes it, whichever way is quicker here."""
    key, text = bytes(range(32)), b"t" * length
    assert keyed_digest(key, text) == Digest(key)(text) == hmac.digest(key, text, "sha256")
