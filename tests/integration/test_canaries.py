"""No name, address, telephone number or NHI number lies readable on the disks of RabbitMQ and PostgreSQL, or
in the embedded engine's file, whatever state a message is in.

Invented people are played into every state; then every file is searched for them in every writing that a
server could use. That the search finds what is there is shown by the same play with the sealing taken out.
"""

import contextlib
import copy
import dataclasses
import json
import secrets
import string
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pika
import psycopg
import pytest
import sqlalchemy as sa
from joserfc import jwe
from joserfc.jwk import ECKey

from adapters.adapter import Native
from broker.broker import SUBMISSIONS, Outgoing, deliveries_to
from broker.sealed import Seal, SealedBroker
from broker.topology import DOOR, DOOR_EXCHANGE, mailbox_of
from consent.people import Keys, person_identifier
from consent.waiting import kept_submission
from gateway.amqp_door import take_in
from gateway.hub import Hub, migrate, open_hub
from gateway.settings import Settings
from schemas.identifiers import nhi_check
from tests import servers
from tests.conftest import new_database
from tests.processes import NOW, until
from tests.serving import episode

JSON, JOSE, HL7 = "application/json", "application/jose", "application/hl7-v2+er7"
COLLECTS, WAITS, STRANGE = "corrections", "oranga-tamariki", "police"
# Where somebody's message rests when the disks are searched; each state has people of its own.
STATES = {
    "a": "accepted, carried, waiting to be delivered, referred and kept",
    "b": "published by AMQP, carried",
    "c": "published by AMQP, lying in the door",
    "d": "submitted, not carried",
    "e": "not readable as its format, quarantined",
    "f": "published by AMQP for another key, set aside",
    "g": "carried twice with two contents, a dead letter",
    "h": "in a queue under another queue's key, set aside as unsealed",
    "i": "a hospital's message about somebody unknown, set aside",
}
Publish = Callable[[bytes, str], None]


@dataclasses.dataclass(frozen=True)
class Canaries:
    """Invented marks of one play. Names and streets end with the letter of their state."""

    name: str
    street: str
    phone: str
    known: str  # NHI number of somebody whom a case knows
    unknown: str

    def of(self, state: str) -> tuple[str, str, str, str]:
        """Name, street, telephone number and NHI number of the people in *state*."""
        at = list(STATES).index(state)
        nhi = self.known if state == "a" else self.unknown
        return f"{self.name}{state}", f"{self.street}{state}", f"021 {self.phone}{at}", nhi

    def marks(self) -> set[str]:
        """What must not be found."""
        return {self.name, self.street, self.phone, self.known, self.unknown}

    def by_state(self) -> set[str]:
        """The names and streets of every state, one by one."""
        return {mark for state in STATES for mark in self.of(state)[:2]}


def writings(marks: Iterable[str]) -> dict[bytes, str]:
    """Every way in which a file may hold one of *marks*."""
    found: dict[bytes, str] = {}
    for mark in marks:
        for spelt in (mark, mark.lower(), mark.upper()):
            for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
                found[spelt.encode(encoding)] = mark
        raw = mark.encode()
        found[raw.hex().encode()] = mark
        for before in range(3):
            for alphabet in (b64encode, urlsafe_b64encode):
                text = alphabet(bytes(before) + raw)
                # Only the signs in which nothing but the mark is written.
                found[text[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]] = mark
    return found


def invented() -> Canaries:
    def letters(count: int) -> str:
        return "".join(secrets.choice(string.ascii_lowercase) for _ in range(count))

    def nhi(first: str) -> str:
        while True:
            stem = f"{first}{secrets.choice('BCDFGHJK')}{secrets.randbelow(900) + 100}"
            if check := nhi_check(stem):
                return stem + check

    phone = str(secrets.randbelow(9_000_000) + 1_000_000)
    return Canaries(f"Wq{letters(10)}", f"Xv{letters(10)}", phone, nhi("ZV"), nhi("ZW"))


def five_f(canaries: Canaries, state: str, **changes: Any) -> bytes:
    """An episode whose people, places and numbers are canaries."""
    name, street, phone, nhi = canaries.of(state)
    found = copy.deepcopy(episode())
    del found["case"], found["answers"]
    found["eventNumber"] = f"P{secrets.randbelow(900_000_000) + 100_000_000}"
    found["location"]["street"] = f"3 {street} Road"
    found["narrative"] = f"{name} of 3 {street} Road, NHI {nhi}, rang from {phone}."
    for person in found["persons"]:
        if "name" in person:
            person["name"]["surname"] = name
            person.pop("aliases", None)
        if "personRecordId" in person:
            person["personRecordId"] = f"PR{secrets.randbelow(9_000_000) + 1_000_000}"
        for place in ("address", "safeAddress"):
            if place in person:
                person[place]["street"] = f"{5 + len(place)} {street} Road"
        for number in person.get("phones", ()):
            number["number"] = phone
    return json.dumps({**found, **changes}, ensure_ascii=False).encode()


def hospital(canaries: Canaries, state: str) -> bytes:
    """An alert of a hospital about the woman of `five_f`, with her NHI number."""
    name, street, _, nhi = canaries.of(state)
    lines = (
        "MSH|^~\\&|PROD_PAS^RPAS|MIDX^G00033|Regional HUB^RHUB|RHIP^G09999|20261121091410+1300||ADT^A31|"
        f"{secrets.token_hex(4)}|P|2.4",
        "EVN|A31|20261121091410",
        f"PID|1||{nhi}^^^NHI&2.16.840.1.113883.2.18.2&ISO^NHI||{name}^Mārama^^^Mrs^^L||19930812000000|F|||"
        f"12 {street} Lane^^Palmerston North^^4410^NZ^C^Hokowhitu",
        "ZAL|1|H5|D02||20260310|2|20270910|||DR TEST|20260316091400|CLERK|MIDX HOSPITAL|",
    )
    return "\r".join(lines).encode()


def to_hub(hub: Hub, body: bytes) -> bytes:
    """*body* as an agency encrypts it."""
    [key] = hub.encryption.public()["keys"]
    return encrypted(ECKey.import_key(key), body)


def encrypted(key: ECKey, body: bytes) -> bytes:
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "cty": JSON}
    return jwe.encrypt_compact(header, body, key).encode()


def accepted(hub: Hub, party: str, content: bytes, media_type: str = JSON) -> None:
    [receipt] = hub.exchange.accept(party, [Native(content, media_type, "")])
    assert (bool(receipt.accepted), receipt.rejected) == (True, [])


def play(hub: Hub, canaries: Canaries, publish: Publish, *, is_encrypted: bool) -> None:
    """Brings people into every state; at the end something lies in each of the queues and tables."""

    def published(body: bytes, key: ECKey | None = None) -> None:
        if not is_encrypted:
            publish(body, JSON)
        else:
            publish(encrypted(key, body) if key else to_hub(hub, body), JOSE)

    accepted(hub, "police", five_f(canaries, "a"))
    published(five_f(canaries, "b"))
    published(five_f(canaries, "f", occurredAt="yesterday"), ECKey.generate_key("P-256"))
    until(lambda: take_in(hub) == 0 and is_set_aside(hub, "unreadable"))
    until(lambda: carried_all(hub))
    accepted(hub, "health", hospital(canaries, "a"), HL7)
    accepted(hub, "health", hospital(canaries, "i"), HL7)
    number = "P900000001"
    accepted(hub, "police", five_f(canaries, "g", eventNumber=number))
    accepted(hub, "police", five_f(canaries, "g", eventNumber=number, alcohol=False))
    [receipt] = hub.exchange.accept(
        "police", [Native(five_f(canaries, "e", occurredAt="yesterday"), JSON, "")]
    )
    assert receipt.rejected
    until(lambda: carried_all(hub))
    assert isinstance(hub.broker, SealedBroker)
    elsewhere = Seal(hub.keys.queue).close("elsewhere", five_f(canaries, "h"))
    stranger = {"id": "h", "entry": "0"}
    hub.broker._inner.publish([Outgoing(deliveries_to(STRANGE), elsewhere, stranger)])
    strange = "unsealed" if is_encrypted else "unproved"
    until(lambda: hub.exchange.deliver(COLLECTS) > 0)
    until(lambda: hub.exchange.deliver(STRANGE) == 0 and is_set_aside(hub, strange))
    published(five_f(canaries, "c"))
    accepted(hub, "police", five_f(canaries, "d"))

    codes = [letter.error["code"] for letter in hub.broker.dead_letters()]
    assert sorted(codes) == sorted(["case-unknown", "identity-reused", "unreadable", "unreadable", strange])
    assert all(hub.broker.depth(q) > 0 for q in (SUBMISSIONS, deliveries_to(WAITS), DOOR))
    with hub.engine.connect() as connection:
        assert connection.execute(kept_submission.select()).all()
        assert "health" in connection.execute(sa.select(person_identifier.c.agency)).scalars().all()


def carried_all(hub: Hub) -> bool:
    while hub.exchange.carry() > 0:
        continue
    return hub.broker.depth(SUBMISSIONS) == 0


def is_set_aside(hub: Hub, code: str) -> bool:
    return any(letter.error["code"] == code for letter in hub.broker.dead_letters())


@contextlib.contextmanager
def without_sealing() -> Iterator[None]:
    """The hub as it would be without encryption at rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Seal, "close", lambda _, queue, body: body)
        patch.setattr(Seal, "open", lambda _, queue, body: body)
        patch.setattr(Keys, "seal_bytes", lambda _, content: content)
        patch.setattr(Keys, "unseal_bytes", lambda _, sealed: sealed)
        yield


def found_in(folder: Path, canaries: Canaries, *, without: Path | None = None) -> set[str]:
    """Which marks stand in a file below *folder*; where there are any, also of which states."""
    wanted, by_state = writings(canaries.marks()), writings(canaries.by_state())
    found, seen = set[str](), 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not (without and path.is_relative_to(without)):
            content = path.read_bytes()
            seen += len(content)
            if here := {mark for written, mark in wanted.items() if written in content}:
                found |= here | {mark for written, mark in by_state.items() if written in content}
    assert seen > 0
    return found


def test_marks_are_found_however_they_are_written() -> None:
    canaries = invented()
    text = "|".join(canaries.of("a")) + canaries.unknown
    plain, wanted = text.encode(), writings(canaries.marks())
    for raw in (plain, plain.upper(), text.encode("utf-16-le"), text.upper().encode("utf-16-be")):
        assert {mark for written, mark in wanted.items() if written in raw} == canaries.marks()
    for shifted in (b"x" * before + plain for before in range(3)):
        for raw in (b64encode(shifted), urlsafe_b64encode(shifted), shifted.hex().encode()):
            assert {mark for written, mark in wanted.items() if written in raw} == canaries.marks()


# --- the embedded engine


@pytest.mark.parametrize("is_encrypted", [True, False], ids=["sealed", "not sealed"])
def test_embedded_file_holds_nobody(tmp_path: Path, is_encrypted: bool) -> None:
    canaries, settings = invented(), Settings(data=tmp_path / "hub")
    with contextlib.ExitStack() as stack:
        if not is_encrypted:
            stack.enter_context(without_sealing())
        hub = stack.enter_context(open_hub(settings, clock=lambda: NOW))
        headers = {"party": "police"}
        play(
            hub,
            canaries,
            lambda body, kind: hub.broker.publish([Outgoing(DOOR, body, {**headers, "media-type": kind})]),
            is_encrypted=is_encrypted,
        )
        files = settings.data / "agencies"
        found = found_in(settings.data, canaries, without=files)

    assert found == (set() if is_encrypted else canaries.marks() | canaries.by_state())
    assert canaries.name in found_in(files, canaries)  # as its agency reads it


# --- real servers


@pytest.fixture
def own_settings(
    own_rabbitmq: servers.RabbitServer, own_postgresql_url: str, tmp_path: Path
) -> Iterator[Settings]:
    """A hub on servers whose files can be read: private ones."""
    with new_database(own_postgresql_url) as database_url, own_rabbitmq.virtual_host() as broker_url:
        settings = Settings(data=tmp_path / "hub", database_url=database_url, broker_url=broker_url)
        migrate(settings)
        yield settings


@pytest.fixture
def disks(own_settings: Settings, own_rabbitmq: servers.RabbitServer) -> tuple[Path, Path]:
    """The folders of RabbitMQ and PostgreSQL, in which nothing is written more compactly than it came."""
    with psycopg.connect(servers.driver_url(own_settings.database_url), autocommit=True) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
        database = Path(row[0]) if row else Path("/nowhere")
        columns = connection.execute(
            "SELECT c.oid::regclass::text, quote_ident(a.attname) FROM pg_class c"
            " JOIN pg_attribute a ON a.attrelid = c.oid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname = 'public' AND a.attnum > 0 AND a.attlen = -1"
        ).fetchall()
        assert columns
        for table, column in columns:
            # A search does not look into what PostgreSQL packed.
            connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE EXTERNAL".encode())
    # Beside the queues also what the servers said.
    return Path((own_rabbitmq.environment or {})["HOME"]), database.parent


def written_out(settings: Settings) -> None:
    """What PostgreSQL has in memory alone is in its files, too."""
    with psycopg.connect(servers.driver_url(settings.database_url), autocommit=True) as connection:
        connection.execute("CHECKPOINT")


@pytest.mark.parametrize("is_encrypted", [True, False], ids=["sealed", "not sealed"])
def test_disks_of_rabbitmq_and_postgresql_hold_nobody(
    own_settings: Settings,
    disks: tuple[Path, Path],
    tmp_path: Path,
    is_encrypted: bool,
) -> None:
    canaries, theirs, rabbit, database = invented(), ECKey.generate_key("P-256"), *disks
    (tmp_path / "their.jwk").write_text(json.dumps(theirs.as_dict(private=False)), "utf-8")
    mailbox = "{mailbox: {encrypt_to: their.jwk}}" if is_encrypted else "mailbox"
    file = tmp_path / "recipients.yaml"
    file.write_text(f"recipients:\n  {COLLECTS}: {mailbox}\nothers: folder\n", "utf-8")
    settings = dataclasses.replace(own_settings, recipients=file)
    with contextlib.ExitStack() as stack:
        if not is_encrypted:
            stack.enter_context(without_sealing())
        hub = stack.enter_context(open_hub(settings, clock=lambda: NOW))
        agency = stack.enter_context(
            contextlib.closing(pika.BlockingConnection(pika.URLParameters(settings.broker_url)))
        )
        channel = agency.channel()
        channel.confirm_delivery()

        def publish(body: bytes, kind: str) -> None:
            properties = pika.BasicProperties(content_type=kind, delivery_mode=2)
            channel.basic_publish(DOOR_EXCHANGE, "police", body, properties, mandatory=True)

        play(hub, canaries, publish, is_encrypted=is_encrypted)
        method, _, body = channel.basic_get(mailbox_of(COLLECTS))
        assert body is not None
        channel.basic_reject(
            method.delivery_tag, requeue=False
        )  # another dead letter, as the server makes it
        until(lambda: any(d.queue == mailbox_of(COLLECTS) for d in hub.broker.dead_letters()))
        assert hub.broker.depth(mailbox_of(COLLECTS)) > 0
        # RabbitMQ has written and synced what it confirmed; PostgreSQL now, too, outside its log.
        written_out(settings)
        in_rabbit, in_database = (found_in(folder, canaries) for folder in (rabbit, database))

    if is_encrypted:
        assert (in_rabbit, in_database) == (set(), set())
        opened = jwe.decrypt_compact(body, theirs, algorithms=["ECDH-ES", "A256GCM"])
        assert canaries.name.encode() in (opened.plaintext or b"")
    else:
        assert in_rabbit == canaries.marks() | canaries.by_state()
        # Releases, what is kept for a person, and the numbers that agencies gave.
        assert {*canaries.of("a")[:2], canaries.phone, canaries.known} <= in_database
