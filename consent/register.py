"""The register of agreements: each version with its text as approved, where it stands in its life, and the
sets of them that decisions were made under.

What is in force is in the database and not in a folder: a file is where an agreement is written, and counts
from its approval on, as it was then. Each step is an entry in the ledger in the transaction that takes it,
and so is each new set, with the hash of every agreement in it: a decision names the set's hash and its
clauses, and that entry leads from there to agreement, version and content.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import sqlalchemy as sa

from consent import life as lives_of
from consent.agreement import Agreement, Agreements
from consent.agreement_file import PARTIES, content_of, texts_of
from consent.entry import AGREEMENT
from consent.ledger import Entry, Ledger, ledger_entry
from consent.life import APPROVE, APPROVED, DRAFT, PROPOSE, REVOKED, SUPERSEDE, SUSPENDED, Life, Officer
from consent.people import Keys, fold
from schemas.clock import Clock, rfc3339
from schemas.database import BigInt, in_sequence, metadata, reading
from schemas.errors import BadAgreement, NotFound, OutOfTurn, Problem
from schemas.message import identity

agreement_version = sa.Table(
    "agreement_version",
    metadata,
    sa.Column("agreement", sa.String(60), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("content", sa.String(64), nullable=False),
    sa.Column("file", sa.String(200), nullable=False),
    sa.Column("text", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("people", sa.Text, nullable=False),
)
agreement_set = sa.Table(
    "agreement_set",
    metadata,
    sa.Column("entry", BigInt, primary_key=True, autoincrement=False),  # its index in the ledger
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("documents", sa.Text, nullable=False),
)
BASELINE, IN_FORCE = "baseline", "in-force"
_LOOK_SECONDS = 1.0
_FILE_STATES = {"active": APPROVED, "draft": DRAFT, "suspended": SUSPENDED}
HUB = "hub"


class Taken(NamedTuple):
    """A step that was taken: *life* after it, the *message* that the ledger names it by, whether it changed
    what is in force, and the parties *concerned*.
    """

    life: Life
    message: str
    changed: bool
    concerned: frozenset[str]


class Register:
    """The agreements of the hub behind *engine*. Give `current` to whoever asks what is in force."""

    def __init__(self, engine: sa.Engine, ledger: Ledger, folder: Path, keys: Keys, clock: Clock) -> None:
        self._engine, self._ledger, self._folder = engine, ledger, folder
        self._keys, self._clock = keys, clock
        self._reading = reading(engine)
        self._entry = -1
        self._now: Agreements | None = None
        self._sets: dict[str, Agreements] = {}
        self._looked = 0.0
        self._signature: object = None
        self._troubles: tuple[Problem, ...] = ()
        self._broken: tuple[Problem, ...] = ()

    @property
    def since(self) -> int:
        """The ledger's index of the entry that says what is in force; decisions before it were made under
        another set. -1 while nothing is recorded.
        """
        return self._entry

    def start(self, *, record: bool = True) -> None:
        """Takes the folder's agreements as the baseline of a new hub: they count as approved, and the ledger
        says so. On any later start the register counts, and not the folder. With *record* False nothing is
        written, and the folder stands in for a baseline that nobody has recorded.

        Raises `BadAgreement`. A crash before the commit leaves no baseline; the next start makes it.
        """
        with self._reading.connect() as connection:
            self.refresh(connection)
        if self._now is not None:
            return
        texts = texts_of(self._folder)
        agreements = Agreements.of(texts)
        if not record:
            self._now = agreements
            return
        with self._engine.begin() as connection:
            in_sequence(connection)
            if connection.execute(sa.select(agreement_set.c.entry).limit(1)).first() is None:
                self._baseline(connection, texts, agreements)
            self.refresh(connection)

    def _baseline(
        self, connection: sa.Connection, texts: Mapping[str, bytes], agreements: Agreements
    ) -> None:
        by_file = {agreement.file: agreement for agreement in agreements}
        for name, text in texts.items():
            _, content = content_of(name, text)
            agreement = by_file.get(name)
            if agreement is not None:
                state = _FILE_STATES.get(agreement.status, REVOKED)
                self._write(
                    connection, Life(agreement.id, agreement.version, content, name, state), text, new=True
                )
            else:
                self._write(connection, Life(_parties_id(name), 1, content, name, APPROVED), text, new=True)
        self._record_set(connection, BASELINE)

    def refresh(self, connection: sa.Connection) -> Agreements | None:
        """What is in force as *connection*'s transaction sees it: one query, unless it changed.

        A set that this hub cannot read (a newer one approved it) is said in `troubles`, and the last good one
        stays.
        """
        newest = sa.select(agreement_set.c.entry).order_by(agreement_set.c.entry.desc()).limit(1)
        entry = connection.execute(newest).scalar()
        # Never back: another thread's connection may not see yet what this one is about to commit.
        if entry is None or entry <= self._entry:
            return self._now
        query = sa.select(agreement_set).where(agreement_set.c.entry == entry)
        row = connection.execute(query).one()
        try:
            self._now = self._set(connection, row.hash, row.documents)
            self._broken = ()
        except BadAgreement as error:
            if self._now is None:
                raise
            self._broken = error.problems
        self._entry = entry
        self._signature = None
        return self._now

    def forget(self) -> None:
        """Reads anew what is in force: after a step that was rolled back."""
        self._entry, self._looked = -1, 0.0

    def current(self) -> Agreements:
        """What is in force, at most a second old."""
        if monotonic() - self._looked > _LOOK_SECONDS:
            self._look()
        if self._now is None:
            raise BadAgreement("no agreement is in force")
        return self._now

    def troubles(self) -> tuple[Problem, ...]:
        """What in the folder is not what was approved, or cannot be read, at most a second old. None of it
        counts: what was approved goes on.
        """
        self.current()
        return (*self._broken, *self._troubles)

    def _look(self) -> None:
        self._looked = monotonic()
        try:
            with self._reading.connect() as connection:
                self.refresh(connection)
                signature = _signature(self._folder)
                if signature != self._signature and self._entry >= 0:
                    self._troubles = tuple(self._compared(connection))
                    self._signature = signature
        except sa.exc.DBAPIError:
            return  # the database is away: what was in force stays until it answers

    def _compared(self, connection: sa.Connection) -> list[Problem]:
        found: list[Problem] = []
        known = self.lives(connection)
        try:
            texts = texts_of(self._folder)
        except (BadAgreement, OSError):
            return [Problem(self._folder.name, "holds no agreements", "put the approved files back")]
        for name, text in texts.items():
            try:
                value, content = content_of(name, text)
            except BadAgreement as error:
                found.extend(error.problems)
                continue
            life = _of_content(name, value, content, known)
            if life is None:
                found.append(Problem(name, "was never proposed", "isr-hub agreements propose FILE"))
            elif life.content != content and life.state != DRAFT:
                found.append(
                    Problem(
                        name,
                        f"was changed after {life.name} was approved; what was approved stays in force",
                        "put it back, or give it the next version and propose it",
                    )
                )
        return found

    def at(self, hash: str) -> Agreements | None:
        """The set of this *hash*, whenever it was in force; None for one that was never recorded."""
        known = self._sets.get(hash)
        if known is None:
            with self._reading.connect() as connection:
                row = connection.execute(
                    sa.select(agreement_set).where(agreement_set.c.hash == hash).limit(1)
                ).first()
                known = self._set(connection, hash, row.documents) if row is not None else None
        return known

    def lives(self, connection: sa.Connection) -> dict[str, Life]:
        """Every version of every agreement, by `ID@version`."""
        columns = [c for c in agreement_version.c if c.name != "text"]
        query = sa.select(*columns).order_by(agreement_version.c.agreement, agreement_version.c.version)
        found = {}
        for row in connection.execute(query):
            bare = Life(row.agreement, row.version, row.content, row.file, row.state)
            found[bare.name] = bare.with_stored(json.loads(row.people))
        return found

    def shown(self, today: date) -> list[tuple[Life, Agreement | None, str]]:
        """Every version with its content (None for parties) and the word for where it stands *today*."""
        with self._reading.connect() as connection:
            lives = self.lives(connection)
            texts = self._texts(connection)
        in_set = {a.name: a for a in self.current()}
        counting = list(_documents(lives).values())
        found: list[tuple[Life, Agreement | None, str]] = []
        for name, life in lives.items():
            if is_parties(life):
                word = life.state if not life.counts else "in force" if life in counting else "superseded"
                found.append((life, None, word))
                continue
            agreement = in_set.get(name)
            if agreement is None:
                with suppress(BadAgreement):  # a draft may name a party that is no more
                    parties = {o.file: texts[o.name] for o in counting if is_parties(o)}
                    agreement = next(iter(Agreements.of({**parties, "draft.yaml": texts[name]})), None)
            found.append((life, agreement, lives_of.says(life, agreement, today)))
        return found

    def officer(self, party: str, person: str) -> Officer:
        """The officer that *person* (a name or staff number) of *party* is: by a keyed digest, so that the
        ledger names nobody and the same person is still recognised.
        """
        return Officer(party, self._keys.salt("officer", party, fold(person))[:16].hex())

    def propose(self, connection: sa.Connection, file: Path, by: Officer) -> Taken:
        """Takes *file* in as a draft by *by*, in the caller's transaction. A draft of the same version is
        replaced, and its approvals are void. Raises `BadAgreement`, `OutOfTurn`.
        """
        agreements = self._begin(connection, by)
        text = file.read_bytes()
        value, content = content_of(file.name, text)
        known = self.lives(connection)
        if "parties" in value:
            id = _parties_id(file.name)
            versions = [o.version for o in known.values() if o.agreement == id and o.state != DRAFT]
            draft = Life(id, max(versions, default=0) + 1, content, file.name, author=by)
        else:
            head = value["agreement"]
            draft = Life(head["id"], head["version"], content, file.name, author=by)
        former = known.get(draft.name)
        if former is not None and former.state != DRAFT:
            raise OutOfTurn(f"{draft.name} is {former.state}; give the file the next version")
        lives = {**known, draft.name: draft}
        # As if it were approved: what could never load is not worth anybody's reading.
        counted = {**lives, draft.name: replace(draft, state=APPROVED)}
        preview = self._built(connection, counted, {draft.name: text})
        self._write(connection, draft, text, new=former is None)
        wanted = lives_of.sides(_named(preview, draft))
        return self._said(connection, draft, PROPOSE, by, agreements, wanted)

    def take(
        self,
        connection: sa.Connection,
        verb: str,
        name: str,
        by: Officer,
        *,
        content: str = "",
        by_name: str = "",
    ) -> Taken:
        """Takes the step *verb* with the agreement *name* (`ID@version`), in the caller's transaction.
        *content* is how the hash begins that *by* has read; *by_name* is the successor of a supersession.

        Raises `NotFound`, `OutOfTurn`, and `BadAgreement` when what would then be in force does not load; the
        caller MUST then roll back. A crash before the commit leaves nothing of the step.
        """
        agreements = self._begin(connection, by)
        known = self.lives(connection)
        life = _known(known, name)
        if content and not life.content.startswith(content):
            raise OutOfTurn(f"{life.name} has another content than was read; read it again")
        preview = self._built(connection, {**known, life.name: replace(life, state=APPROVED)})
        wanted = lives_of.sides(_named(preview, life))
        lead = getattr(_named(preview, life), "lead", "")
        changed = {}
        if verb == APPROVE:
            after = lives_of.approved(life, by, wanted, agreements.parties)
        elif verb == SUPERSEDE:
            after = lives_of.superseded(life, _known(known, by_name), known)
        else:
            after = lives_of.stepped(life, verb, by, wanted, agreements.parties, lead)
        changed[after.name] = after
        successor = _named(preview, life)
        former = known.get(successor.supersedes) if successor is not None else None
        if verb == APPROVE and after.state == APPROVED and former is not None and former.state == APPROVED:
            changed[former.name] = lives_of.superseded(former, after, {**known, after.name: after})
        for one in changed.values():
            self._write(connection, one)
        taken = self._said(connection, after, verb, by, agreements, wanted)
        for one in list(changed.values())[1:]:
            self._said(connection, one, SUPERSEDE, by, agreements, wanted)
        before = self._entry
        self._record_set(connection, IN_FORCE)
        self.refresh(connection)
        return taken._replace(changed=self._entry != before)

    def history(self, name: str) -> list[Mapping[str, Any]]:
        """The steps of the agreement *name* (`ID` or `ID@version`) from the ledger, in order."""
        found: list[Mapping[str, Any]] = []
        with self._reading.connect() as connection:
            query = (
                sa.select(ledger_entry.c.idx, ledger_entry.c.entry)
                .where(ledger_entry.c.kind == AGREEMENT)
                .order_by(ledger_entry.c.idx)
            )
            for idx, entry in connection.execute(query):
                body = json.loads(bytes(entry))
                one = f"{body.get('agreement')}@{body.get('version')}"
                if name in (one, body.get("agreement")) or name in _versions(body.get("agreements", {})):
                    found.append({"entry": idx, **body})
        return found

    def _begin(self, connection: sa.Connection, by: Officer) -> Agreements:
        in_sequence(connection)
        agreements = self.refresh(connection)
        if agreements is None:
            raise BadAgreement("no agreement is in force")
        party = agreements.parties.get(by.party)
        if party is None or not party.active:
            raise OutOfTurn(f"{by.party} is no active party")
        return agreements

    def _write(self, connection: sa.Connection, life: Life, text: bytes = b"", *, new: bool = False) -> None:
        columns = agreement_version.c
        values = {"content": life.content, "state": life.state, "people": json.dumps(life.to_json())}
        if text:
            values |= {"text": text, "file": life.file}  # type: ignore[dict-item]
        if new:
            key = {"agreement": life.agreement, "version": life.version}
            connection.execute(sa.insert(agreement_version).values(**key, **values))
        else:
            connection.execute(
                sa.update(agreement_version)
                .where(columns.agreement == life.agreement, columns.version == life.version)
                .values(**values)
            )

    def _built(
        self, connection: sa.Connection, lives: Mapping[str, Life], more: Mapping[str, bytes] | None = None
    ) -> Agreements:
        """What counts of *lives*, read together; *more* are texts not stored yet, by `ID@version`."""
        texts = {**self._texts(connection), **(more or {})}
        files = {file: texts[life.name] for file, life in _documents(lives).items()}
        return Agreements.of(files, _superseded(lives), approved=True)

    def _texts(self, connection: sa.Connection) -> dict[str, bytes]:
        columns = agreement_version.c
        rows = connection.execute(sa.select(columns.agreement, columns.version, columns.text))
        return {f"{agreement}@{version}": bytes(text) for agreement, version, text in rows}

    def _set(self, connection: sa.Connection, hash: str, documents: str) -> Agreements:
        known = self._sets.get(hash)
        if known is None:
            said, texts = json.loads(documents), self._texts(connection)
            known = self._sets[hash] = Agreements.of(
                {file: texts[name] for file, name in said["files"].items()}, said["superseded"], approved=True
            )
        return known

    def _record_set(self, connection: sa.Connection, step: str) -> None:
        """Says in the ledger what is in force now, unless that is what was in force before."""
        lives = self.lives(connection)
        named = _documents(lives)
        made = self._built(connection, lives)
        former = self._now if self._entry >= 0 else None
        if former is not None and former.version_hash == made.version_hash:
            return
        at = rfc3339(self._clock())
        superseded = _superseded(lives)
        size = self._ledger.size(connection)
        body = {
            "v": 1,
            "kind": AGREEMENT,
            "step": step,
            "at": at,
            "source": HUB,
            "message": identity(HUB, f"agreements\n{made.version_hash}\n{size}"),
            "party": HUB,
            "set": made.version_hash,
            "agreements": {life.name: life.content for life in named.values()},
            "superseded": superseded,
        }
        number = self._append(connection, body)
        files = {file: life.name for file, life in named.items()}
        connection.execute(
            sa.insert(agreement_set).values(
                entry=number,
                hash=made.version_hash,
                documents=json.dumps({"files": files, "superseded": superseded}),
            )
        )

    def _said(
        self,
        connection: sa.Connection,
        life: Life,
        verb: str,
        by: Officer,
        agreements: Agreements,
        wanted: tuple[lives_of.Side, ...],
    ) -> Taken:
        party = agreements.parties[by.party]
        capacities = sorted({side.capacity for side in wanted if lives_of.stands_for(party, side)})
        size = self._ledger.size(connection)
        message = identity(by.party, f"agreement\n{verb}\n{life.name}\n{life.content}\n{size}")
        body = {
            "v": 1,
            "kind": AGREEMENT,
            "step": verb,
            "at": rfc3339(self._clock()),
            "source": by.party,
            "message": message,
            "party": by.party,
            "agreement": life.agreement,
            "version": life.version,
            "content": life.content,
            "state": life.state,
            "officer": by.person,
            "capacity": capacities,
        }
        if life.superseded_by:
            body["by"] = life.superseded_by
        self._append(connection, body)
        concerned = frozenset(
            other.id
            for other in agreements.parties.values()
            if other.active
            and (other.id == by.party or not wanted or any(lives_of.stands_for(other, s) for s in wanted))
        )
        return Taken(life, message, False, concerned)

    def _append(self, connection: sa.Connection, body: dict[str, Any]) -> int:
        entry = Entry(AGREEMENT, body["source"], body["message"], body["party"], body)
        return self._ledger.append(connection, [entry])[0]


def _documents(lives: Mapping[str, Life]) -> dict[str, Life]:
    """What counts of *lives*, by the names of the files that it is read from together."""
    counting = [life for life in lives.values() if life.counts]
    newest: dict[str, Life] = {}
    for life in counting:
        if is_parties(life) and life.version >= newest.get(life.agreement, life).version:
            newest[life.agreement] = life
    named: dict[str, Life] = {}
    for life in (*(o for o in counting if not is_parties(o)), *newest.values()):
        stem, _, end = life.file.rpartition(".")
        named[life.file if life.file not in named else f"{stem}@{life.version}.{end}"] = life
    return named


def is_parties(life: Life) -> bool:
    """Whether *life* is of a file of parties."""
    return life.agreement.partition(":")[0] == PARTIES


def _parties_id(file: str) -> str:
    """Each file of parties has versions of its own."""
    stem = file.rpartition(".")[0]
    return PARTIES if stem == "parties" else f"{PARTIES}:{stem[:40]}"


def _superseded(lives: Mapping[str, Life]) -> dict[str, str]:
    return {
        life.name: life.superseded_by
        for life in lives.values()
        if life.counts and life.superseded_by in lives and lives[life.superseded_by].counts
    }


def _versions(agreements: Mapping[str, str]) -> set[str]:
    return {*agreements, *(name.partition("@")[0] for name in agreements)}


def _known(lives: Mapping[str, Life], name: str) -> Life:
    """The life called *name*; without a version, its newest."""
    if name in lives:
        return lives[name]
    versions = [life for life in lives.values() if life.agreement == name]
    if not versions:
        raise NotFound("there is no such agreement; isr-hub agreements history lists them")
    return max(versions, key=lambda life: life.version)


def _named(agreements: Agreements, life: Life) -> Agreement | None:
    return next((a for a in agreements if a.name == life.name), None)


def _of_content(name: str, value: Mapping[str, Any], content: str, known: Mapping[str, Life]) -> Life | None:
    """The life that the file *name*, which says *value*, is a copy of."""
    if "parties" not in value:
        return known.get(f"{value['agreement']['id']}@{value['agreement']['version']}")
    versions = [life for life in known.values() if life.agreement == _parties_id(name)]
    same = [life for life in versions if life.content == content]
    return max(same or [life for life in versions if life.counts], key=lambda o: o.version, default=None)


def _signature(folder: Path) -> object:
    try:
        return tuple(
            (path.name, stat.st_mtime_ns, stat.st_size)
            for path in sorted(folder.glob("*.yaml"))
            for stat in (path.stat(),)
        )
    except OSError:
        return None
