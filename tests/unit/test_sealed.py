"""What lies in a queue is a JWE that any library opens with the queue's key, and nobody without it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import OctKey

from broker.broker import Outgoing
from broker.embedded import EmbeddedBroker, dead_letter, queue_message
from broker.sealed import Seal, SealedBroker
from schemas import database
from schemas.errors import Unsealed

KEYS = {"a": b"a" * 32, "b": b"b" * 32}
CANARY = "Te Rangikāheke, 14 Kōwhai Street".encode()
ERROR = {"code": "invalid-message", "detail": "d", "problems": []}


def seal() -> Seal:
    return Seal(KEYS.__getitem__)


@given(st.binary(max_size=300))
def test_library_opens_what_we_close(body: bytes) -> None:
    closed = seal().close("a", body)
    opened = jwe.decrypt_compact(closed, OctKey.import_key(KEYS["a"]))
    assert opened.plaintext == body
    assert opened.headers() == {"alg": "dir", "enc": "A256GCM", "kid": "a"}


def test_we_open_what_we_close_and_nothing_else() -> None:
    closed = seal().close("a", CANARY)
    assert seal().open("a", closed) == CANARY
    other = jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, CANARY, OctKey.import_key(KEYS["a"]))
    for wrong in (
        CANARY,
        b"",
        b"....",
        closed[:-1],
        closed + b".",
        closed.replace(b".", b"x", 1),
        other.encode(),
        seal().close("b", CANARY),
        bytes([closed[-1] ^ 1]).join((closed[:-1], b"")),
    ):
        with pytest.raises(Unsealed):
            seal().open("a", wrong)


@given(st.data())
def test_a_changed_byte_does_not_open(data: st.DataObject) -> None:
    closed = bytearray(seal().close("a", CANARY))
    # The last bits of a base64 text stand for nothing.
    at = data.draw(st.integers(0, len(closed) - 2).filter(lambda at: closed[at + 1] != ord(".")))
    closed[at] = data.draw(st.integers(0, 255).filter(lambda new: new != closed[at]))
    try:
        assert seal().open("a", bytes(closed)) == CANARY
    except Unsealed:
        return
    pytest.fail("a changed body was opened")


def test_same_body_is_never_closed_alike() -> None:
    assert seal().close("a", CANARY) != seal().close("a", CANARY)


def test_what_somebody_else_put_into_a_queue_is_set_aside(tmp_path: Path) -> None:
    engine = database.open_database(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    database.metadata.create_all(engine)
    inner = EmbeddedBroker(engine, lambda: datetime(2026, 3, 2, tzinfo=UTC))
    broker = SealedBroker(inner, seal(), lambda queue: queue == "open")
    inner.publish([Outgoing("a", CANARY, {"n": "1"})])
    inner.publish([Outgoing("a", seal().close("b", CANARY), {"n": "2"})])
    broker.publish([Outgoing("a", b"ours", {"n": "3"}), Outgoing("open", b"plain", {})])

    (delivery,) = broker.receive("a", 1)

    assert delivery.body == b"ours"
    assert [letter.error["code"] for letter in broker.dead_letters()] == ["unsealed", "unsealed"]
    assert broker.depth("a") == 1
    (plain,) = inner.receive("open", 1)
    assert plain.body == b"plain"
    broker.close()
    engine.dispose()


def test_nothing_readable_lies_in_queues_or_among_dead_letters(tmp_path: Path) -> None:
    engine = database.open_database(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    database.metadata.create_all(engine)
    broker = SealedBroker(EmbeddedBroker(engine, lambda: datetime(2026, 3, 2, tzinfo=UTC)), seal())
    broker.publish([Outgoing("a", CANARY, {}), Outgoing("a", CANARY, {}), Outgoing("b", CANARY, {})])
    broker.quarantine([(Outgoing("b", CANARY, {}), ERROR)])
    first, second = broker.receive("a", 2)
    broker.bury([(first, ERROR)])
    broker.requeue([second])

    with engine.begin() as connection:
        bodies = [
            bytes(row.body)
            for table in (queue_message, dead_letter)
            for row in connection.execute(table.select())
        ]
    assert len(bodies) == 4
    assert not any(b"Rangik" in body for body in bodies)
    # Whoever has the key reads all of it.
    assert {letter.body for letter in broker.dead_letters()} == {CANARY}
    (again,) = broker.receive("a", 2)
    assert again.body == CANARY
    broker.close()
    engine.dispose()
