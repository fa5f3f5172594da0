"""Evidence to hand out: every entry on one message or about one person, proved, with exactly the salts that
open it.

For an access request, a complaint, a court or the Privacy Commissioner. Handing out is itself an entry in the
ledger, durable and signed before the bundle is written, and part of the bundle.
"""

import argparse
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa
from rich.console import Console
from rich.progress import track

from consent.bundle import CHECKPOINT, KEY, REVEAL
from consent.entry import DECISION_KINDS
from consent.ledger import ledger_entry
from consent.note import TlogProof
from consent.people import People
from consent.placing import case_table
from consent.subjects import Subjects, commitment, content_salt, subject_salt
from consent.waiting import referral_id
from gateway import access, queries
from gateway.access import AccessLog, Look, Viewer, message_id
from gateway.hub import Hub, open_hub
from gateway.queries import Row, decisions_on
from gateway.settings import Settings
from schemas.clock import rfc3339
from schemas.database import reading
from schemas.errors import InvalidMessage, NotFound, Problem
from schemas.identifiers import ISSUERS
from schemas.message import identity

REQUESTED = "requested"  # the role, in the entry of a handing-out, of the person whom it is about
_CHUNK = 2000
_MAX_PERSON_BYTES = 100_000
_README = """\
Evidence from the disclosure ledger {origin}
Handed out {at} (UTC), by order of: {party}, purpose {purpose}{reference}.

What it is. Each file in entries/ is one entry of a ledger in which the information-sharing hub writes every
release and every refusal before anything is sent. The file of the same number in proofs/ shows that the entry
stands in the ledger that the hub signed ("checkpoint"), unchanged. An entry names parties, data classes,
clauses and reasons. It holds no name and no content, only salted digests of them ("subjects", "content").

What it does not show: that an entry is true, or that nothing was passed on outside the hub.

reveal.json, where it is here, opens those digests for exactly this {about}. Whoever has it can tell whom the
entries are about. Keep it as you would keep the person's file, and take it out before you pass the rest on.

To check it, you need the ledger's public key FROM SOMEBODY YOU TRUST (ledger.vkey is for comparison), and

    isr-hub verify THIS_FOLDER_OR_ARCHIVE --key KEY

or, with nothing but Python 3.11, the single file verify_ledger.py from the hub or from any agency:

    python3 verify_ledger.py THIS_FOLDER_OR_ARCHIVE --key KEY

To see that a message you hold is what was sent under one of the entries, add --content FILE.
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A bundle that was written: the *entries* in it by kind, how many commitments its salts open, and the
    index of the entry that says so.
    """

    path: Path
    entries: Mapping[str, int]
    opens: int
    recorded: int


def of_message(hub: Hub, viewer: Viewer, message: str, source: str, path: Path, *, salts: bool) -> Evidence:
    """Writes the evidence on *message* (of *source*, "" when only one party used the id) to *path*: its
    decisions, those of people included, and what became of its deliveries. With *salts*, those that open its
    people and what left.

    Raises `NotFound`, `InvalidMessage` (several sources), and `FileExistsError`.
    """
    look = Look("evidence", message=message_id(message), which="salts" if salts else "")
    recorded = _record(hub, viewer, look, path)
    rows = decisions_on(hub.engine, message, source or None)
    senders = sorted({row.body["source"] for row in rows})
    if not rows:
        raise NotFound("the ledger has no decision on this message")
    if len(senders) > 1:
        raise InvalidMessage(
            "several senders use this id",
            Problem("source", "does not say which", "use --source " + " or ".join(senders)),
        )
    # What a person of the holder decided about it later stands under an id of its own.
    for row in [row for row in rows if row.body["referred"]]:
        rows += decisions_on(hub.engine, referral_id(row.body["source"], message, row.body["party"]))
    people = _people_of(hub, {case for row in rows for case in row.body["cases"]}) if salts else {}
    opened = [_opened(row, people, contents=True) for row in rows] if salts else []
    after = _afterwards(hub, rows)
    contents = {one["index"]: one["content"] for one in opened if "content" in one}
    for row in after:
        if "content" in row.body and row.body["disclosure"] in contents:  # narrowed, under the same salt
            opened.append({"index": row.index, "subjects": [], "content": contents[row.body["disclosure"]]})
    return _write(hub, viewer, [*rows, *after], opened, recorded, path, "message")


def of_person(
    hub: Hub,
    viewer: Viewer,
    person: Mapping[str, Any],
    agency: str,
    path: Path,
    *,
    progress: Callable[[Iterator[Row]], Iterator[Row]] = lambda rows: rows,
) -> Evidence:
    """Writes the evidence about *person*, whom *agency* describes as in a message, to *path*: every decision
    on a message about that person and how its delivery ended, with the salts of this person alone.

    Reads every decision in the ledger: entries cannot be searched by person, which is their point.
    Raises `NotFound` when nobody known, or no entry, is meant, and `InvalidMessage` when several people are.
    """
    with reading(hub.engine).begin() as connection:
        known = sorted(People(hub.keys).known_as(connection, agency, person))
        keys = Subjects(hub.keys).keys_of(connection, known)
    name = identity("hub", f"evidence\n{viewer.officer}\n{rfc3339(hub.clock())}\n{os.urandom(16).hex()}")
    # Somebody unknown, or forgotten, leaves the same trace; it opens for nobody.
    keys = {meant: keys.get(meant) or os.urandom(32) for meant in known or ("",)}
    subjects = [(REQUESTED, commitment(key, "hub", name, meant)) for meant, key in keys.items()]
    recorded = _record(hub, viewer, Look("evidence", "person", name, subjects), path)
    # Only now: nobody learns whether somebody is known here without leaving a trace.
    if len(known) > 1:
        raise InvalidMessage(
            "several people are meant",
            Problem("person", f"leads to {len(known)} people", "give one identifier, and no name"),
        )
    meant = known[0] if known else ""
    rows = list(progress(_about(hub, meant, keys[meant]))) if known else []
    if not rows:
        raise NotFound("the ledger has nothing about this person")
    opened = [_opened(row, keys, contents=False) for row in rows]
    opened.append(
        {
            "index": recorded,
            "subjects": [{"person": meant, "salt": subject_salt(keys[meant], "hub", name).hex()}],
        }
    )
    return _write(hub, viewer, [*rows, *_afterwards(hub, rows)], opened, recorded, path, "person")


def _record(hub: Hub, viewer: Viewer, look: Look, path: Path) -> int:
    if path.exists():
        raise FileExistsError(path)
    recorded = AccessLog(hub.engine, hub.ledger, hub.keys, hub.clock).record(viewer, look)
    if recorded is None:
        raise AssertionError("a new log remembers no look")
    return recorded


def _about(hub: Hub, pseudonym: str, key: bytes) -> Iterator[Row]:
    """Every decision on a message about *pseudonym*, who has *key*, in order."""
    columns = (ledger_entry.c.idx, ledger_entry.c.source, ledger_entry.c.message, ledger_entry.c.entry)
    last, former, wanted = -1, ("", ""), b""
    while True:
        query = (
            sa.select(*columns)
            .where(ledger_entry.c.idx > last, ledger_entry.c.kind.in_(DECISION_KINDS))
            .order_by(ledger_entry.c.idx)
            .limit(_CHUNK)
        )
        with reading(hub.engine).begin() as connection:
            part = connection.execute(query).all()
        for index, source, message, entry in part:
            if (source, message) != former:  # one commitment for all recipients of a message
                former, wanted = (source, message), commitment(key, source, message, pseudonym).encode()
            if wanted in bytes(entry):
                yield Row(index, orjson.loads(bytes(entry)))
        if len(part) < _CHUNK:
            return
        last = part[-1].idx


def _people_of(hub: Hub, cases: set[str]) -> dict[str, bytes]:
    """The people in *cases* with their keys, as far as these still exist."""
    query = sa.select(case_table.c.facts).where(case_table.c.id.in_(sorted(cases)))
    with reading(hub.engine).begin() as connection:
        people = {p for facts in connection.execute(query).scalars() for p in orjson.loads(facts)["people"]}
        return Subjects(hub.keys).keys_of(connection, people)


def _opened(row: Row, people: Mapping[str, bytes], *, contents: bool) -> dict[str, Any]:
    """The salts for the entry *row*: of those of *people* (with their keys) that are in it, and of its
    content when all it is about are among them.
    """
    said, stated = row.body, {digest for _, digest in row.body["subjects"]}
    found = {
        p: key for p, key in people.items() if commitment(key, said["source"], said["message"], p) in stated
    }
    one: dict[str, Any] = {
        "index": row.index,
        "subjects": [
            {"person": p, "salt": subject_salt(key, said["source"], said["message"]).hex()}
            for p, key in found.items()
        ],
    }
    if contents and "disclosure" in said and len(found) == len(stated):
        one["content"] = {"salt": content_salt(found, said["disclosure"]).hex()}
    return one


def _afterwards(hub: Hub, rows: Sequence[Row]) -> list[Row]:
    """How the deliveries of *rows* ended, and what was stopped, narrowed or recalled of them."""
    found = queries.afterwards(hub.engine, [r.body["disclosure"] for r in rows if "disclosure" in r.body])
    return [row for after in found.values() for row in after]


def _write(
    hub: Hub,
    viewer: Viewer,
    rows: Sequence[Row],
    opened: Sequence[Mapping[str, Any]],
    recorded: int,
    path: Path,
    about: str,
) -> Evidence:
    checkpoint = hub.ledger.sign()
    indices = sorted({recorded, *(row.index for row in rows)})
    files: dict[str, bytes] = {
        "README.txt": _README.format(
            origin=hub.ledger.origin,
            at=rfc3339(hub.clock()),
            party=viewer.party,
            purpose=viewer.purpose,
            reference=f", {viewer.reference}" if viewer.reference else "",
            about=about,
        ).encode(),
        CHECKPOINT: checkpoint.note.encode(),
        KEY: (hub.settings.data / "ledger.vkey").read_bytes(),
    }
    kinds: dict[str, int] = {}
    for index in indices:
        (entry,) = hub.ledger.entries(index, index + 1)
        proof = TlogProof(index, tuple(hub.ledger.inclusion_proof(index, checkpoint.size)), checkpoint)
        kind = orjson.loads(entry)["kind"]
        kinds[kind] = kinds.get(kind, 0) + 1
        files[f"entries/{index}.json"] = entry
        files[f"proofs/{index}.tlog-proof"] = proof.encode().encode()
    if opened:
        files[REVEAL] = json.dumps({"v": 1, "entries": list(opened)}, indent=1).encode() + b"\n"
    _save(path, files)
    opens = sum(len(one["subjects"]) + ("content" in one) for one in opened)
    return Evidence(path, kinds, opens, recorded)


def _save(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a new folder, or a new archive when the name ends in `.zip`, that only its owner can read. A
    crash leaves part of it; the verifier says so, and handing out is repeated to another place.
    """
    if path.suffix == ".zip":
        with (
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out,
            zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        return
    path.mkdir(mode=0o700, parents=True)
    for name, data in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(data)


def run(given: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Does what `isr-hub evidence` says; returns the exit status."""
    if (given.message is None) == (given.person is None):
        out.print("say which: the id of a message, or --person FILE", markup=False)
        return 2
    with open_hub(settings, alone=False) as hub:
        viewer = access.viewer_of(given, hub.keys, hub.agreements.parties)
        try:
            if given.person is None:
                made = of_message(
                    hub, viewer, given.message, given.source, given.out, salts=not given.no_salts
                )
            else:
                made = of_person(
                    hub, viewer, described(given.person), given.source, given.out, progress=_shown(given)
                )
        except FileExistsError:
            out.print("there is something at the place of --out; evidence is never overwritten")
            return 2
    if given.json:
        print(
            json.dumps(
                {
                    "path": str(made.path),
                    "entries": dict(made.entries),
                    "opens": made.opens,
                    "recorded": made.recorded,
                }
            )
        )
    else:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(made.entries.items()))
        out.print(f"{counted} in {made.path}", markup=False, soft_wrap=True)
        out.print(
            f"its salts open {made.opens} commitments; handing it out is ledger entry {made.recorded}",
            markup=False,
            soft_wrap=True,
        )
    return 0


def _shown(given: argparse.Namespace) -> Callable[[Iterator[Row]], Iterator[Row]]:
    if given.json or not sys.stderr.isatty():
        return lambda rows: rows
    console = Console(stderr=True)
    return lambda rows: iter(track(rows, "reading the ledger", console=console))


def described(path: Path) -> Mapping[str, Any]:
    """The description of a person in the file *path*. Raises `InvalidMessage`, never repeating it."""
    try:
        data = (
            sys.stdin.buffer.read(_MAX_PERSON_BYTES)
            if str(path) == "-"
            else path.read_bytes()[:_MAX_PERSON_BYTES]
        )
        person = json.loads(data)
        identifiers = person.get("identifiers", [])
        fields = [v for i in identifiers for v in (i["system"], i["value"])]
        if "name" in person:
            fields += [person["name"]["family"], person["name"]["given"], person["birthDate"]]
        unknown = any(i["system"] not in ISSUERS for i in identifiers)
        if not fields or unknown or not all(isinstance(f, str) for f in fields):
            raise ValueError  # noqa: TRY301  # one way out
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise InvalidMessage(
            "the person is not described",
            Problem(
                "--person",
                "is not a file with known identifiers, or a name with a birth date",
                'write {"identifiers": [{"system": "nhi", "value": …}]}; systems: '
                + ", ".join(sorted(ISSUERS)),
            ),
        ) from error
    found: Mapping[str, Any] = person
    return found
