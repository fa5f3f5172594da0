"""The journey of a message. Everything that enters, enters here; everything that leaves, leaves here.

accept   native bytes - read - validate - give identity - submit to the broker, confirmed ‖ - answer with the
message id carry    a batch of submissions - seen before? - place in case - decide per recipient - guard -
minimise - one transaction: ledger entries, case changes, outbox ‖ - sign checkpoint ‖ - publish, confirmed ‖
- ack deliver  one recipient's queue - write - send ‖ - outcome into the ledger ‖ - ack

‖ is a durable boundary; the comment there says what a crash leaves and who repairs it. All three work on
batches: take what is there, up to a limit, never wait to fill it. A batch shares one transaction, one
signature and one round of confirms.
"""

import logging
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import orjson
import sqlalchemy as sa

from adapters.adapter import Adapter, Native, Transport
from broker.broker import ACCEPT, SUBMISSIONS, Broker, Delivery, Outgoing, deliveries_to
from broker.hand import Hand
from broker.outbox import Leaving, Outbox, remember, seen
from broker.retry import DELIVERY_LIMIT, backoff, is_exhausted
from broker.sealed import Seal
from broker.suspects import Suspects
from consent import inputs
from consent.ledger import Ledger, Written
from consent.people import Keys, People
from consent.placing import Cases, Placed
from consent.proved import Opened, Prover, proved
from consent.register import Register
from consent.subjects import Subjects
from consent.waiting import Waiting
from gateway.admission import Admission, Receipt, reused
from gateway.beside import Beside
from gateway.disclose import Disclosing, numbered
from gateway.due import decision_due
from gateway.notices import Announcer, Voice
from gateway.overrides import used_notices
from gateway.quarantine import packed, unpacked
from gateway.recheck import Learnt, Recheck
from gateway.record import delivered_entry
from gateway.telemetry import Telemetry
from schemas.catalogue import Catalogue, MessageType
from schemas.clock import Clock, rfc3339
from schemas.database import answers, in_sequence, reading
from schemas.errors import (
    Exhausted,
    HubError,
    NotFound,
    NotSent,
    Problem,
    Unproved,
)
from schemas.message import Message, agency_of

log = logging.getLogger("isr_hub.exchange")
BATCH = 200  # submissions carried together; beyond a few hundred nothing is gained and a crash repeats more


class Exchange:
    """The journey on one broker, one database, one set of agreements."""

    def __init__(
        self,
        engine: sa.Engine,
        broker: Broker,
        ledger: Ledger,
        catalogue: Catalogue,
        register: Register,
        keys: Keys,
        adapter_of: Callable[[str], Adapter],
        transport: Transport,
        telemetry: Telemetry,
        clock: Clock,
        opened: Callable[[Native], Sequence[Native]] = lambda native: [native],
    ) -> None:
        self._engine, self._broker, self._ledger, self._catalogue = engine, broker, ledger, catalogue
        self._agreements, self._keys, self._adapter_of = register.current, keys, adapter_of
        self._register = register
        self._transport, self._telemetry, self._clock = transport, telemetry, clock
        self._opened = opened
        self._has_carried = False
        self._people = People(keys)
        self._cases = Cases(keys, self._table_parties)
        self._subjects = Subjects(keys)
        self._waiting = Waiting(keys, decision_due)
        # Below which size releases may leave, given that of the newest checkpoint, and whether a checkpoint's
        # note holds all that a delivery must prove: witnesses may have to agree.
        self.releasable: Callable[[int], int] = lambda signed: signed
        self.is_witnessed: Callable[[str], bool] = lambda _: True
        self._prover = Prover(ledger.keys_for, ledger.origin, lambda note: self.is_witnessed(note))  # noqa: PLW0108  # it is set later
        self.outbox = Outbox(engine, broker, Seal(keys.queue), self._with_proofs)
        voice = Voice(keys, register.current, catalogue.__getitem__)
        self._voice, self.announcer = voice, Announcer(voice, ledger, self.outbox)
        self._recheck = Recheck(
            engine, ledger, catalogue, register, self._cases, telemetry, clock, self.announcer.say
        )
        self._admission = Admission(engine, catalogue, register.current, adapter_of, clock)
        self.read = self._admission.read
        self._hand = Hand(broker, SUBMISSIONS, lambda: answers(engine))
        self._suspects = Suspects(engine, keys.queue("suspects"), clock)  # no queue has this name
        self._release = Beside()
        self._overlaps = engine.dialect.name != "sqlite"  # which has one writer at a time

    def accept(self, party: str, natives: Sequence[Native]) -> list[Receipt]:
        """Takes native bytes that *party* sent; one receipt each. When it returns, whatever was accepted
        survives a crash.

        What cannot be read or does not meet its schema is quarantined whole, or alone where the format lets
        its neighbours through. Raises `Unconfirmed` when the broker does not confirm; then the sender sends
        again, and what was taken twice is carried once.
        """
        receipts, submissions, quarantined = self._admission.admit(party, natives)
        # ‖ Quarantine first: a crash between the two leaves the sender without an answer, and it sends
        # everything again.
        if quarantined:
            self._broker.quarantine(
                [(packed(party, native), error.as_json()) for native, error in quarantined]
            )
        if submissions:
            self._broker.publish([_submission(m) for m in submissions])
        self._count_accepted(party, submissions, receipts, quarantined)
        return receipts

    def carry(self, limit: int = BATCH, wait_seconds: float = 0.0) -> int:
        """Carries up to *limit* waiting submissions; returns how many. Safe to repeat always.

        The releases of a full batch leave beside the next one, where the database lets two write at once.
        Whoever is told 0 knows that everything has left.
        """
        first = limit if self._has_carried else 1
        deliveries = self._hand.take(first, wait_seconds)
        if not deliveries:
            self._end_release()
            return 0
        with self._telemetry.carry_seconds.time():
            try:
                # What ended the processes before this one is carried alone: beside it, all look as guilty.
                if len(deliveries) == first < limit and not is_exhausted(deliveries[0].attempts):
                    deliveries += self._broker.receive(SUBMISSIONS, limit - first)
                self._telemetry.batch.observe(len(deliveries))
                self._carry(deliveries, beside=self._overlaps and len(deliveries) >= BATCH)
            except BaseException as error:
                # Nothing of this batch is committed, or all of it is and the inbox knows. The caller waits.
                self._suspects.outlived(blamed=not self._hand.keep(deliveries, error))
                raise
        self._has_carried = True
        return len(deliveries)

    def close(self) -> None:
        """Waits for the releases that are on their way. What then did not leave, leaves at the next start."""
        _, failure = self._release.wait()
        if failure is not None:
            log.warning("releases wait for the next start: %s", type(failure).__name__)

    def _end_release(self) -> None:
        """Waits until the batch before has left. When it could not, it is in hand again; raises why."""
        left, failure = self._release.wait()
        if failure is not None:
            self._hand.keep(left, failure)
            raise failure

    def _carry(self, deliveries: list[Delivery], *, beside: bool = False) -> None:
        tries = 0
        if is_exhausted(max(d.attempts for d in deliveries)):
            # Processes ended again and again with these in hand. Alone, each harms only itself.
            if len(deliveries) > 1:
                self._one_by_one(deliveries)
                return
            self._end_release()  # so that nothing else is under way when it ends this process
            # ‖ It is counted. A crash from here on, until it is carried, is evidence against it alone.
            tries = self._suspects.count(deliveries[0].body)
        buried: list[tuple[Delivery, HubError]]
        try:
            buried = [(deliveries[0], Exhausted())] if tries >= DELIVERY_LIMIT else self._commit(deliveries)
        except (sa.exc.DBAPIError, HubError):
            raise
        except Exception as error:
            if len(deliveries) > 1:
                # One of them breaks us. Find it alone, so that the others are not held up by it.
                self._one_by_one(deliveries)
                return
            # Not the error's text: it may repeat the message.
            where = traceback.extract_tb(error.__traceback__)[-1]
            log.error(  # noqa: TRY400  # an exception's text may repeat the message
                "a submission is set aside: %s at %s:%s", type(error).__name__, where.filename, where.lineno
            )
            buried = [(deliveries[0], HubError("the hub failed on this message; its log says where"))]
        # ‖ The transaction is committed. A crash here leaves entries unsigned and releases unpublished: the
        # next `publish` sees to both; the submissions are delivered again and the inbox drops them.
        self._end_release()
        if beside:
            self._release.start(partial(self._let_leave, deliveries, buried), deliveries)
        else:
            self._let_leave(deliveries, buried)

    def _let_leave(self, deliveries: Sequence[Delivery], buried: list[tuple[Delivery, HubError]]) -> None:
        """Signs and publishes what was committed of a batch, and settles the batch."""
        self.publish()
        # ‖ Everything released is confirmed by the broker. A crash here redelivers the submissions, which the
        # inbox drops.
        if buried:
            self._broker.bury([(delivery, error.as_json()) for delivery, error in buried])
            # ‖ They are set aside. A crash here leaves a count that `Suspects` drops in time.
            self._suspects.set_aside([d.body for d, _ in buried if is_exhausted(d.attempts)])
            for delivery, why in buried:
                self._telemetry.dead_letters.labels(delivery.queue, why.code).inc()
        set_aside = {id(delivery) for delivery, _ in buried}
        self._broker.ack([d for d in deliveries if id(d) not in set_aside])
        self._hand.settled()

    def _one_by_one(self, deliveries: Sequence[Delivery]) -> None:
        log.warning("a batch of %d is carried one by one", len(deliveries))
        for delivery in deliveries:
            self._carry([delivery])

    def publish(self) -> int:
        """Signs the ledger's head and publishes what it covers; returns how many deliveries. Repairs after a
        crash at any boundary of `carry`.
        """
        checkpoint = self._ledger.sign()
        self._telemetry.ledger_size.set(checkpoint.size)
        return self.outbox.relay(below=self.releasable(checkpoint.size))

    def _with_proofs(self, leaving: Sequence[Leaving]) -> list[bytes]:
        newest = self._ledger.checkpoint()
        size = self.releasable(newest.size if newest else 0)
        entries = {one.number: one.entry for one in leaving if one.entry is not None}
        proofs = self._ledger.tlog_proofs([one.number for one in leaving], size, entries)
        return [proved(one.body, proof) for one, proof in zip(leaving, proofs, strict=True)]

    def _commit(self, deliveries: Sequence[Delivery]) -> list[tuple[Delivery, HubError]]:
        """Decides a batch and commits what follows from it; returns what is to be set aside."""
        at = rfc3339(self._clock())
        buried: list[tuple[Delivery, HubError]] = []
        is_suspect = len(deliveries) == 1 and is_exhausted(deliveries[0].attempts)
        with self._engine.begin() as connection:
            in_sequence(connection)  # two workers that change one case must not start from the same state
            self._register.refresh(connection)
            fresh = self._fresh(connection, deliveries, buried)
            refs = self._people.recognise(
                connection, [(agency_of(m.source), m.data.get("people", ())) for _, m, _ in fresh]
            )
            batch = self._cases.open_batch(
                connection,
                {m.correlationid for _, m, _ in fresh if m.correlationid},
                {pseudonym for per_message in refs for pseudonym in per_message.values()},
            )
            people = {pseudonym for per_message in refs for pseudonym in per_message.values()}
            own = self._people.identifiers_of(connection, people)
            keys = self._subjects.made_for(connection, people)
            pending = self._waiting.open_batch(connection, [m for _, m, _ in fresh], self._clock())
            deciding = Disclosing(self._agreements(), own, keys, pending, self._keys.salt, self._clock())
            entries: list[Written] = []
            releases: list[tuple[int, Outgoing]] = []  # offset of the entry in the batch, message
            learnt, decided = Learnt(), 0
            taken: dict[tuple[str, str], bytes] = {}
            for (delivery, message, said), pseudonyms in zip(fresh, refs, strict=True):
                kind = self._catalogue[message.type]
                try:
                    placed = batch.place(message, kind, pseudonyms)
                except HubError as error:
                    buried.append((delivery, error))
                    continue
                taken[message.source, message.id] = said
                learnt.add(message, placed, decided)
                decided += deciding.decide(message, kind, placed, pseudonyms)
            for entry, outgoing in deciding.written():
                if outgoing is not None:
                    releases.append((len(entries), outgoing))
                entries.append(entry)
            for notice, outgoing in used_notices(self._voice, pending.used_by_override(), self._clock()):
                if outgoing is not None:
                    releases.append((len(entries), outgoing))
                entries.append(notice)
            remember(connection, taken, at)
            if is_suspect:
                self._suspects.carried(connection, deliveries[0].body)
            batch.save(connection)
            inputs.keep(connection, deciding.asked)
            pending.save(connection)
            numbers = self._ledger.append(connection, [*entries, *pending.entries()])
            leaving = [(numbers[offset], numbered(o, numbers[offset])) for offset, o in releases]
            self.outbox.enqueue(connection, leaving)
            self._recheck.carried(
                connection, learnt, numbers.start if numbers else self._ledger.size(connection)
            )
        if is_suspect:
            self._suspects.committed(deliveries[0].body)
        pending.committed()
        self.outbox.committed(
            [(n, out, entries[offset].data) for (n, out), (offset, _) in zip(leaving, releases, strict=True)]
        )
        self._telemetry.count(deciding.counted)
        return buried

    def place_one(
        self, connection: sa.Connection, message: Message, kind: MessageType
    ) -> tuple[dict[str, str], Placed]:
        """Recognises the people of one message and places it, without saving: for whoever asks what would be
        decided.
        """
        refs = self._people.recognise(
            connection, [(agency_of(message.source), message.data.get("people", ()))]
        )[0]
        batch = self._cases.open_batch(connection, set(), set(refs.values()))
        return refs, batch.place(message, kind, refs)

    def _fresh(
        self,
        connection: sa.Connection,
        deliveries: Sequence[Delivery],
        buried: list[tuple[Delivery, HubError]],
    ) -> list[tuple[Delivery, Message, bytes]]:
        """What has not been carried before, in order of arrival, with its digest; the same source and id with
        another body is set aside.
        """
        messages = [(d, Message.from_json(orjson.loads(d.body))) for d in deliveries]
        known = seen(connection, [(m.source, m.id) for _, m in messages])
        fresh = []
        for delivery, message in messages:
            key, said = (message.source, message.id), message.body_digest()
            if key not in known:
                known[key] = said
                fresh.append((delivery, message, said))
            elif known[key] == said:
                self._telemetry.duplicates.labels(message.source).inc()
            else:
                buried.append((delivery, reused()))
        return fresh

    def deliver(self, party: str, limit: int = BATCH, wait_seconds: float = 0.0) -> int:
        """Sends up to *limit* waiting disclosures to *party*'s system; returns how many were settled
        (delivered or refused for good).
        """
        deliveries = self._broker.receive(deliveries_to(party), limit, wait_seconds)
        if not deliveries:
            return 0
        try:
            return self._deliver(party, deliveries)
        except BaseException:
            self._broker.requeue(deliveries)
            raise

    def _deliver(self, party: str, deliveries: Sequence[Delivery]) -> int:
        deliveries = self._named(party, deliveries)
        with reading(self._engine).begin() as connection:
            ended = self._ledger.delivered(connection, [d.headers["id"] for d in deliveries])
        again: list[Delivery] = []
        waiting: list[Delivery] = []
        for delivery in deliveries:
            # Delivered before a crash, or published twice by one: acknowledged, not sent again.
            (again if delivery.headers["id"] in ended else waiting).append(delivery)
            ended.add(delivery.headers["id"])

        releases: dict[int, Opened] = {}  # what was opened to be asked about again is not opened twice

        def opened(delivery: Delivery) -> Opened:
            release = releases.get(id(delivery))
            if release is None:
                release = self._prover.opened(party, delivery.body, delivery.headers)
                releases[id(delivery)] = release
            return release

        verdict = self._recheck.check(party, waiting, opened)
        stopped = [d for d in waiting if verdict.changed.get(d.headers["id"], d) is None]
        waiting = [d for d in waiting if verdict.changed.get(d.headers["id"], d) is not None]
        adapter = self._adapter_of(party)
        natives: list[tuple[str, Native]] = []
        for delivery in list(waiting):
            try:
                left = verdict.changed.get(delivery.headers["id"])
                native = adapter.write(left or opened(delivery).message, party)
            except Unproved as error:
                # SAFETY: not sent, whoever put it here. The alert on this counter calls a person.
                self._telemetry.unproved.labels(party).inc()
                self._broker.bury([(delivery, error.as_json())])
                waiting.remove(delivery)
            except Exception as error:
                # One that cannot be written must not hold up the others. Not the error's text: it may repeat
                # the message.
                log.error("a delivery to %s cannot be written: %s", party, type(error).__name__)  # noqa: TRY400
                self._broker.bury([(delivery, HubError("the adapter cannot write this delivery").as_json())])
                waiting.remove(delivery)
            else:
                natives.append((delivery.headers["id"], native))
        answers = self._transport.send(party, natives)
        # ‖ The recipient has them. A crash here sends them again under the same delivery ids, which has no
        # second effect there.
        settled = [(d, a) for d, a in zip(waiting, answers, strict=True) if not isinstance(a, NotSent)]
        if settled:
            self._record(party, settled, verdict.seen)
        # ‖ The outcome is in the ledger. A crash here redelivers; the look-up above then only acknowledges.
        self._broker.ack(again + stopped + [d for d, answer in settled if answer is None])
        refused = [(d, answer.as_json()) for d, answer in settled if answer is not None]
        if refused:
            self._broker.bury(refused)
        self._put_back([d for d, a in zip(waiting, answers, strict=True) if isinstance(a, NotSent)])
        for outcome, count in (("delivered", len(settled) - len(refused)), ("refused", len(refused))):
            if count:
                self._telemetry.deliveries.labels(party, outcome).inc(count)
        return len(settled) + len(again) + len(stopped)

    def _record(self, party: str, settled: Sequence[tuple[Delivery, HubError | None]], seen: int) -> None:
        """Writes the outcomes of *settled*, each once: another process may have had the same deliveries, from
        a queue that took this one for dead, or its last commit may have come through after it was killed.
        """
        at = rfc3339(self._clock())
        with self._engine.begin() as connection:
            in_sequence(connection, of=deliveries_to(party))
            known = self._ledger.delivered(connection, [d.headers["id"] for d, _ in settled])
            fresh = [(d, answer) for d, answer in settled if d.headers["id"] not in known]
            self._ledger.append(
                connection, [delivered_entry(party, d.headers, answer, at) for d, answer in fresh]
            )
            has = [d.headers["id"] for d, answer in fresh if answer is None]
            self._recheck.sent(connection, has, seen)

    def _named(self, party: str, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """*deliveries* without those whose headers name no message and entry; these are set aside."""
        named: list[Delivery] = []
        strange: list[Delivery] = []
        for delivery in deliveries:
            is_named = delivery.headers.get("id") and delivery.headers.get("entry", "").isdecimal()
            (named if is_named else strange).append(delivery)
        if strange:
            self._telemetry.unproved.labels(party).inc(len(strange))
            problem = Problem(
                "", "has headers that the hub never wrote", "look for what put it into the queue"
            )
            error = Unproved("the delivery names no entry", problem).as_json()
            self._broker.bury([(delivery, error) for delivery in strange])
        return named

    def _put_back(self, unsent: Sequence[Delivery]) -> None:
        """Back into the queue, each attempt's deliveries together: one round for a backlog that waits for one
        recipient.
        """
        by_attempts: dict[int, list[Delivery]] = {}
        for delivery in unsent:
            by_attempts.setdefault(delivery.attempts, []).append(delivery)
        for attempts, group in by_attempts.items():
            log.info("%d deliveries wait for their recipient", len(group))
            self._broker.requeue(group, delay_seconds=backoff(attempts))

    def finish(self, progress: Callable[[int], None] = lambda _: None) -> int:
        """Carries and delivers until nothing can be moved any more; returns how many steps were settled.
        Repairs what a crash left.
        """
        total = self.publish()
        moved = True
        while moved:
            moved = False
            while (count := self.carry()) > 0:
                total += count
                moved = True
                progress(count)
            for party in sorted(self._agreements().parties):
                while (count := self.deliver(party)) > 0:
                    total += count
                    moved = True
                    progress(count)
        self.publish()
        return total

    def send_again(self, number: str) -> Receipt:
        """Puts dead letter *number* back on its journey: native input through `accept`, anything else into
        its queue.

        Raises `NotFound`. The letter is removed only after the new publication is confirmed: a crash between
        leaves it in both places, and what arrives twice has one effect.
        """
        letter = next((d for d in self._broker.dead_letters() if d.number == number), None)
        if letter is None:
            raise NotFound(f"there is no dead letter {number}")
        if letter.queue == ACCEPT:
            receipt = self._accept_again(*unpacked(letter))
        else:
            self._broker.publish([Outgoing(letter.queue, letter.body, letter.headers)])
            receipt = Receipt(accepted=[letter.headers.get("id", "")])
        self._broker.take_dead_letter(number)
        return receipt

    def _accept_again(self, party: str, native: Native) -> Receipt:
        try:
            natives = self._opened(native)
        except HubError as error:
            self._broker.quarantine([(packed(party, native), error.as_json())])
            return Receipt(rejected=[error])
        whole = Receipt()
        for receipt in self.accept(party, natives):
            whole.accepted.extend(receipt.accepted)
            whole.rejected.extend(receipt.rejected)
            whole.unplaced.extend(receipt.unplaced)
        return whole

    def _count_accepted(
        self,
        party: str,
        submissions: Sequence[Message],
        receipts: Sequence[Receipt],
        quarantined: Sequence[tuple[Native, HubError]],
    ) -> None:
        for message in submissions:
            self._telemetry.accepted.labels(party, message.type).inc()
        for _, error in quarantined:
            self._telemetry.rejected.labels(party, error.code).inc()
            log.warning(
                "input of %s quarantined: %s (%s)",
                party,
                error.code,
                "; ".join(p.pointer for p in error.problems),
            )
        unplaced = sum(len(r.unplaced) for r in receipts)
        if unplaced:
            self._telemetry.unplaced.labels(party).inc(unplaced)

    def _table_parties(self, site: str) -> Sequence[str]:
        return [p.id for p in self._agreements().parties.values() if p.table and p.active and site in p.sites]


def _submission(message: Message) -> Outgoing:
    return Outgoing(
        SUBMISSIONS, message.encode(), {"id": message.id, "type": message.type, "source": message.source}
    )


__all__ = ["BATCH", "Exchange", "Receipt"]
