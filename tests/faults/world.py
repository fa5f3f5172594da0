"""The hub's processes between real servers, agencies that send to it and agencies that it sends to; and the
check of what must hold whatever was broken.

Senders are told 202 or a confirm before they stop sending. Recipients are of all three ways: a folder, HTTPS
services, a mailbox. Everything between the hub and its servers passes a `Proxy`. The checks read database,
queues and recipients past it.
"""

import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pika
import pika.exceptions
import psycopg
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters import police
from adapters.adapter import Native
from broker.broker import SUBMISSIONS, deliveries_to
from broker.outbox import inbox, outbox
from broker.topology import DOOR, DOOR_EXCHANGE, mailbox_of
from consent.ledger import ledger_checkpoint, ledger_entry, ledger_head
from consent.verify import verify
from gateway.auth import mint
from gateway.hub import migrate, open_hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from tests import servers
from tests.conftest import new_database
from tests.faults import breakable
from tests.faults.nursery import Child, Nursery
from tests.faults.proxy import Proxy
from tests.faults.service import Services
from tests.processes import NOW

PATIENCE_SECONDS = 240.0
PARTS = ("gateway", "exchange", "adapters")
SERVICES = ("corrections", "oranga-tamariki")
MAILBOX, FOLDER = "health", "fss"
DECISIONS = ("disclosure", "refusal", "referral")


@dataclass
class Row:
    """What came of one kind of fault: how often it was *tried* on how many *messages*, and what it did."""

    kind: str
    tried: int = 0
    messages: int = 0
    lost: int = 0
    doubled: int = 0
    unlogged: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether the hub kept its promises."""
        return not (self.lost or self.doubled or self.unlogged or self.findings)


class World:
    """One hub on a database and a virtual host of its own. Not for several threads."""

    def __init__(self, found: breakable.Servers, nursery: Nursery, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rabbit, self.rabbitmq, self.postgresql = found.rabbit, found.rabbitmq, found.postgresql
        self._server_url, self._nursery, self._folder = found.database_url, nursery, folder
        self._began = time.monotonic()
        self._natives = stream(seed, 20_000, days=300)
        self.sent: dict[str, Native] = {}  # message id → what senders were told is taken
        self.set_aside: set[str] = set()  # message ids that may become dead letters
        self.is_spoiled = False  # something was done to it that the hub cannot mend
        self.children: dict[str, Child] = {}
        self._senders: list[Sender] = []
        self._logs = 0
        self._checked: set[str] = set()
        self._collected: dict[str, bytes] = {}
        self._collected_changed: set[str] = set()

    @contextlib.contextmanager
    def opened(self) -> Iterator["World"]:
        """Sets everything up, and leaves nothing behind."""
        with contextlib.ExitStack() as stack:
            database_url = stack.enter_context(new_database(self._server_url))
            broker_url = stack.enter_context(self.rabbit.virtual_host())
            self.to_rabbitmq = Proxy(breakable.port_of(broker_url))
            self.to_postgresql = Proxy(breakable.port_of(database_url))
            for proxy in (self.to_rabbitmq, self.to_postgresql):
                stack.callback(proxy.close)
            self.services = Services(SERVICES, self._is_logged)
            stack.callback(self.services.close)
            [self._door] = servers.free_ports(1)
            self.settings = Settings(
                data=self._folder / "hub",
                database_url=database_url,
                broker_url=broker_url,
                recipients=self._recipients(),
            )
            migrate(self.settings)
            self.hub = stack.enter_context(open_hub(self.settings, clock=lambda: NOW))
            stack.callback(self.end)
            stack.callback(self._stop_senders)
            self._first_checkpoint = ""
            yield self

    def _recipients(self) -> Path:
        key = self._folder / "key.pem"
        key.touch(0o600)
        key.write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        text = f"recipients:\n  {MAILBOX}: mailbox\n"
        for party in SERVICES:
            text += f"  {party}:\n    https: {self.services.url}/{party}\n"
            text += f"    token_endpoint: {self.services.url}/token\n"
            text += "    client_id: isr-hub\n    key: key.pem\n    timeout_seconds: 2\n"
        path = self._folder / "recipients.yaml"
        path.write_text(text + "others: folder\n", "utf-8")
        return path

    # --- processes

    def start(self, part: str, name: str = "", **harm: Any) -> Child:
        """Starts `isr-hub run PART`, to come to *harm* as `tests.faults.harm` says."""
        self._logs += 1
        settings = self.settings
        environment = {
            "ISR_HUB_DATA": str(settings.data),
            "ISR_HUB_DATABASE_URL": breakable.through(settings.database_url, self.to_postgresql.port),
            "ISR_HUB_BROKER_URL": breakable.through(settings.broker_url, self.to_rabbitmq.port),
            "ISR_HUB_RECIPIENTS": str(settings.recipients),
            "ISR_HUB_LISTEN": f"127.0.0.1:{self._door}",
            "ISR_HUB_TEST_BEGAN": str(self._began),
        }
        log = self._folder / f"{self._logs}-{part}.log"
        child = self._nursery.start(environment, ["run", part], log, harm)
        self.children[name or part] = child
        return child

    def start_all(self, parts: Sequence[str] = PARTS) -> None:
        """Starts what does not run of *parts*."""
        for part in parts:
            if part not in self.children or self.children[part].ended.is_set():
                self.start(part)

    def end(self) -> None:
        """Kills every process."""
        for child in self.children.values():
            child.kill()

    # --- senders

    def next_natives(self, count: int) -> list[Native]:
        """*count* records that nobody has sent yet."""
        return [five_f(i.family, i.episode) for _, i in zip(range(count), self._natives, strict=False)]

    @contextlib.contextmanager
    def sending(self, count: int) -> Iterator["Sender"]:
        """*count* new records on their way, each one to three times, by HTTP and by AMQP, until every sender
        has its answer."""
        sender = self.send(count)
        yield sender
        self.answer(sender)

    def send(self, count: int) -> "Sender":
        """A sender of *count* new records, at work; `answer` ends it."""
        sender = Sender(self, self.next_natives(count))
        self._senders.append(sender)
        return sender

    def answer(self, sender: "Sender") -> None:
        """Waits until *sender* has all its answers."""
        sender.wait()
        sender.stop()
        self._senders.remove(sender)
        self.sent |= sender.answered

    def _stop_senders(self) -> None:
        for sender in self._senders:
            sender.stop()

    # --- what must hold

    def settle(self, *, losing: bool = False) -> None:
        """Starts what does not run, and waits until nothing is left to move; with *losing*, until nothing
        moves although not everything arrived."""
        self.start_all()
        lost = {"to carry", "to deliver"} if losing else set()
        self.until(lambda: self.state().keys() <= lost)
        # What is lost is in no queue and in nobody's hands; AMQP does not tell what others hold.
        while losing and self._held():
            self.until(lambda: self.state().keys() <= lost)

    def until(self, holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until *holds*."""
        deadline, pause = time.monotonic() + seconds, threading.Event()
        while not holds():
            if time.monotonic() > deadline:
                logs = {name: child.said() for name, child in self.children.items()}
                raise AssertionError(f"nothing moves any more: {self.state()}\n{json.dumps(logs, indent=1)}")
            pause.wait(0.05)

    def check(self, kind: str, tried: int, messages: int) -> Row:
        """What the idle hub did to everything that was sent so far."""
        row = Row(kind, tried, messages)
        entries, taken, disclosures, delivered = self._ledger()
        expected = self.sent.keys() - self.set_aside
        lost = expected - taken
        decided = Counter((e["message"], e["party"]) for e in entries if e["kind"] in DECISIONS)
        undecided = taken - {message for message, _ in decided}
        received = self._received()
        missing = disclosures - received.keys()
        row.lost = len(lost) + len(undecided) + len(missing) + len(disclosures - delivered.keys())
        row.unlogged = len(received.keys() - disclosures) + len(taken - self.sent.keys() - self.set_aside)
        row.unlogged += sum(len(agency.unlogged) for agency in self.services.agencies.values())
        twice = [*(f"decided twice for {p}" for (_, p), n in decided.items() if n > 1)]
        twice += [f"outcome recorded twice for {p}" for (p, _), n in delivered.items() if n > 1]
        twice += [f"two things received by {p}" for (p, _), n in received.items() if n > 1]
        row.doubled = len(twice)
        row.findings = twice + self._proved()
        return row

    def unlogged_now(self) -> int:
        """How much has left by now that the ledger does not hold, be it that the adapters caught it: must be
        0 at every instant."""
        left = set(self._received())
        left |= {
            (letter.headers["party"], letter.headers["id"])
            for letter in self.hub.broker.dead_letters()
            if letter.queue.startswith(deliveries_to("")) and letter.headers["id"] not in self.set_aside
        }
        return len(left - self._ledger()[2])

    def _ledger(
        self,
    ) -> tuple[list[dict[str, Any]], set[str], set[tuple[str, str]], Counter[tuple[str, str]]]:
        """Entries, messages taken in, disclosures (party, id) under a signature, deliveries recorded."""
        with self.hub.engine.connect() as connection:
            signed = connection.execute(sa.select(sa.func.max(ledger_checkpoint.c.size))).scalar() or 0
            rows = connection.execute(sa.select(ledger_entry.c.idx, ledger_entry.c.entry)).all()
            taken = set(connection.execute(sa.select(inbox.c.message)).scalars())
        entries = [json.loads(row.entry) for row in rows]
        disclosures = {
            (e["party"], e["disclosure"])
            for row, e in zip(rows, entries, strict=True)
            if e["kind"] == "disclosure" and row.idx < signed
        }
        delivered = Counter(
            (e["party"], e["message"])
            for e in entries
            if e["kind"] == "delivery" and e["outcome"] == "delivered"
        )
        return entries, taken, disclosures, delivered

    def _received(self) -> Counter[tuple[str, str]]:
        """(party, delivery) → how many different things recipients have of it. One thing that came twice
        under one id is one: that is what the id is for."""
        received: Counter[tuple[str, str]] = Counter()
        for file in (self.settings.data / "agencies").glob("*/received/*"):
            if file.name.count(".") == 1:  # more dots: a companion
                received[file.parts[-3], file.name.partition(".")[0]] += 1
        for party, agency in self.services.agencies.items():
            with agency.lock:
                received.update((party, key) for key in agency.taken)
                received.update((party, key) for key in agency.changed)
        self._collect()
        received.update((MAILBOX, key) for key in self._collected)
        received.update((MAILBOX, key) for key in self._collected_changed)
        return received

    def _collect(self) -> None:
        """Empties the mailbox, as its party's system does."""
        with contextlib.closing(self.amqp()) as connection:
            channel = connection.channel()
            while True:
                method, properties, body = channel.basic_get(mailbox_of(MAILBOX))
                if method is None:
                    return
                if self._collected.setdefault(properties.message_id, body) != body:
                    self._collected_changed.add(properties.message_id)
                channel.basic_ack(method.delivery_tag)

    def amqp(self) -> pika.BlockingConnection:
        """A connection to RabbitMQ, past the proxy."""
        return pika.BlockingConnection(pika.URLParameters(self.settings.broker_url))

    def _is_logged(self, party: str, disclosure: str) -> bool:
        """Whether a signed entry says that *disclosure* was released to *party*. Asked by a recipient at the
        moment when it arrives; while the database is away nothing can be added to it."""
        question = (
            "SELECT count(*) FROM ledger_entry WHERE kind = 'disclosure' AND party = %s"
            " AND position(convert_to(%s, 'UTF8') IN entry) > 0"
            " AND idx < (SELECT max(size) FROM ledger_checkpoint)"
        )
        while True:
            try:
                with psycopg.connect(servers.driver_url(self.settings.database_url)) as connection:
                    found = connection.execute(question, (party, disclosure)).fetchone()
                return bool(found and found[0])
            except psycopg.OperationalError:
                time.sleep(0.05)

    def state(self) -> Mapping[str, object]:
        """What is left to move, by name; empty when nothing is."""
        try:
            with self.hub.engine.connect() as connection:
                taken = connection.execute(sa.select(inbox.c.message)).scalars()
                kinds = Counter(connection.execute(sa.select(ledger_entry.c.kind)).scalars())
                left = connection.execute(sa.select(sa.func.count()).select_from(outbox)).scalar_one()
                head = connection.execute(sa.select(ledger_head.c.size)).scalar_one()
                signed = connection.execute(sa.select(sa.func.max(ledger_checkpoint.c.size))).scalar()
            to_carry = self.sent.keys() - self.set_aside - set(taken)
            state = {
                "to carry": len(to_carry),
                "to deliver": kinds["disclosure"] - kinds["delivery"],
                "in the outbox": left,
                "to sign": head - (signed or 0),
            }
            if not (state["in the outbox"] or state["to sign"]):
                with contextlib.closing(self.amqp()) as amqp:
                    channel = amqp.channel()
                    for name in (SUBMISSIONS, DOOR, *map(deliveries_to, (*SERVICES, MAILBOX, FOLDER))):
                        answer = channel.queue_declare(name, passive=True)
                        state[name] = answer.method.message_count
        except (sa.exc.OperationalError, pika.exceptions.AMQPError, OSError) as error:
            return {"away": type(error).__name__}
        return {name: count for name, count in state.items() if count}

    def _held(self) -> int:
        """Messages that the hub's own queues hold, those in a consumer's hands included."""
        host = urlsplit(self.settings.broker_url).path[1:]
        told = self.rabbit.control(
            "list_queues", "--vhost", host, "--quiet", "--formatter", "json", "name", "messages"
        )
        own = (SUBMISSIONS, DOOR, *map(deliveries_to, (*SERVICES, MAILBOX, FOLDER)))
        return sum(queue["messages"] for queue in json.loads(told) if queue["name"] in own)

    def taken_in(self) -> int:
        """How many submissions were carried."""
        with self.hub.engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(inbox)).scalar_one())

    def waits_for_a_lock(self) -> bool:
        """Whether one of the hub's processes waits for another's transaction."""
        with psycopg.connect(servers.driver_url(self.settings.database_url)) as connection:
            found = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
        return bool(found and found[0])

    def _proved(self) -> list[str]:
        """What an outsider finds wrong with the ledger, from its first checkpoint to its last; and what was
        set aside that should not have been."""
        export, key = self.settings.data / "export", str(self.settings.data / "ledger.vkey")
        self.hub.ledger.export(export)
        if not self._first_checkpoint:
            with self.hub.engine.connect() as connection:
                first = sa.select(ledger_checkpoint.c.note).order_by(ledger_checkpoint.c.size).limit(1)
                self._first_checkpoint = connection.execute(first).scalar_one()
        report = verify(export, key, self._first_checkpoint)
        wrong = [f"ledger: {finding.place}: {finding.detail}" for finding in report.findings]
        if report.unsigned:
            wrong.append(f"{report.unsigned} entries are not signed")
        for letter in self.hub.broker.dead_letters():
            if letter.headers.get("id", "") not in self.set_aside and letter.number not in self._checked:
                self._checked.add(letter.number)
                if letter.queue != "accept":
                    wrong.append(f"a dead letter {letter.error['code']} in {letter.queue}")
        return wrong


class Sender:
    """Police's systems: three threads that send until they are answered. Every record goes out one to three
    times, and what is not answered goes out again."""

    def __init__(self, world: World, natives: Sequence[Native]) -> None:
        self._world = world
        self.answered: dict[str, Native] = {}
        posts = [native for native in natives for _ in range(world.rng.randint(1, 3))]
        world.rng.shuffle(posts)
        self.count = len(natives)
        self._stopping = threading.Event()
        self._failures: list[BaseException] = []
        shares = [posts[n::3] for n in range(3)]
        works = (self._by_http, self._by_http, self._by_amqp)
        self._threads = [
            threading.Thread(target=self._guarded, args=(work, share))
            for work, share in zip(works, shares, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, share: float = 1.0) -> None:
        """Until *share* of the records are answered."""
        wanted = round(self.count * share)
        self._world.until(lambda: len(self.answered) >= wanted or bool(self._failures))
        if share >= 1.0:
            for thread in self._threads:
                thread.join(PATIENCE_SECONDS)
                assert not thread.is_alive()
        assert self._failures == []

    def stop(self) -> None:
        """Ends the threads, answered or not."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _guarded(self, work: Callable[[Sequence[Native]], None], natives: Sequence[Native]) -> None:
        try:
            work(natives)
        except BaseException as error:
            self._failures.append(error)

    def _by_http(self, natives: Sequence[Native]) -> None:
        world = self._world
        token = mint(world.settings, "police", ["messages:submit"], 24 * 3600, lambda: NOW)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(
            base_url=f"http://127.0.0.1:{world._door}", trust_env=False, timeout=60, headers=headers
        ) as client:
            for native in natives:
                while not self._stopping.is_set():
                    try:
                        answer = client.post(
                            "/v1/messages",
                            content=native.content,
                            headers={"Content-Type": native.media_type},
                        )
                    except httpx.TransportError:
                        time.sleep(0.05)
                        continue
                    if answer.status_code == 202:
                        [message] = answer.json()["accepted"]
                        self.answered[message] = native
                        break
                    assert answer.status_code >= 500, answer.text
                    time.sleep(0.05)

    def _by_amqp(self, natives: Sequence[Native]) -> None:
        left = list(natives)
        while left and not self._stopping.is_set():
            try:
                with contextlib.closing(self._world.amqp()) as connection:
                    channel = connection.channel()
                    channel.confirm_delivery()
                    while left and not self._stopping.is_set():
                        native = left[-1]
                        properties = pika.BasicProperties(content_type=native.media_type, delivery_mode=2)
                        channel.basic_publish(
                            DOOR_EXCHANGE, "police", native.content, properties, mandatory=True
                        )
                        self.answered[message_id(native)] = left.pop()
            except (pika.exceptions.AMQPError, OSError):
                time.sleep(0.1)


def message_id(native: Native) -> str:
    """The id that the hub gives to Police's record *native*."""
    [message] = police.read(native, "police", NOW).messages
    return message.id
