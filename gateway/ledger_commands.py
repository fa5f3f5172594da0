"""The commands of those who keep the ledger or watch it: `isr-hub keys`, `witness`, `monitor`, and what
`isr-hub ledger` does to a damaged one.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from gateway.settings import Settings, address_of, from_environment
from schemas.clock import utc_now
from schemas.errors import BadSettings

if TYPE_CHECKING:
    import sqlalchemy as sa

GOOD, WRONG, MISUSED = 0, 1, 2
Add = Callable[..., argparse.ArgumentParser]
out = Console(highlight=False)
_EVER = 2**63 - 1


def register(add: Add) -> None:
    """Adds the commands; *add* takes a name, what it does, and what runs it."""
    keys = add("keys", "the ledger's signing keys: show, init, rotate", _keys)
    keys.add_argument("action", choices=("show", "init", "rotate"))
    keys.add_argument("--overlap", type=int, metavar="ENTRIES", help="rotate: how long the old key counts")
    keys.add_argument(
        "--without-old", action="store_true", help="rotate: the old key is lost or stolen, and signs nothing"
    )
    keys.add_argument("--public", default="", metavar="BASE64", help="a key that ISR_HUB_SIGNER holds")
    witness = add("witness", "a witness of ledgers: init, serve, status, evidence", _witness, data=False)
    witness.add_argument("action", choices=("init", "serve", "status", "evidence"))
    witness.add_argument("folder", type=Path, nargs="?", default=Path("var/witness"))
    witness.add_argument("--name", help="init: the witness's name, such as witness.example.nz/isr")
    witness.add_argument("--log", action="append", default=[], metavar="VKEY", help="init: a log to watch")
    witness.add_argument("--algorithm", choices=("ed25519", "ml-dsa-44"), default="ed25519")
    witness.add_argument("--listen", default="127.0.0.1:8090", help="serve: address and port")
    monitor = add("monitor", "walk a whole ledger from outside, and shout", _monitor, data=False)
    monitor.add_argument("target", help="exported folder, data folder or web address")
    monitor.add_argument("--key", required=True, help="the ledger's verifier key, or a file that holds it")
    monitor.add_argument("--state", type=Path, required=True, help="file that remembers how far it is")
    monitor.add_argument(
        "--witness-keys", action="append", default=[], metavar="VKEY", help="must have cosigned the newest"
    )
    monitor.add_argument("--policy", type=Path, help="witness policy that the newest must meet")
    monitor.add_argument("--stale", type=float, default=26.0, metavar="HOURS", help="default: 26")
    monitor.add_argument("--token", type=Path, help="file with an auditor's access token, for a web address")
    monitor.add_argument("--metrics", type=Path, help="file to write metrics into, for node_exporter")
    monitor.add_argument("--every", type=float, metavar="SECONDS", help="again and again, until it shouts")


def check_ledger(given: argparse.Namespace, settings: Settings, _out: Console) -> int:
    """`isr-hub ledger check`: what contradicts what, and whether it can be mended."""
    from consent.repair import check
    from gateway.keys import Keyring

    ring = Keyring(settings, may_lack_newest=True)
    with _database(settings) as engine, _bar(given, "entries") as progress:
        found = check(engine, ring, settings.origin, progress)
    mendable = bool(found) and all(damage.mendable for damage in found)
    lines = [f"{damage.place}: {damage.detail}" for damage in found]
    if not found:
        lines.append("head, tiles, entries and checkpoints agree")
    elif mendable:
        lines.append("Only tiles or head are damaged: isr-hub ledger rebuild-tiles makes them anew.")
    else:
        lines.append(
            "Entries or checkpoints are damaged, and cannot be made anew. Keep this database as evidence, "
            "and restore the newest backup that continues the newest checkpoint kept outside."
        )
    said = {"ok": not found, "mendable": mendable, "found": [asdict(damage) for damage in found]}
    _say(given, said, "\n".join(lines))
    return WRONG if found else GOOD


def rebuild(given: argparse.Namespace, settings: Settings, _out: Console) -> int:
    """`isr-hub ledger rebuild-tiles`: tiles and head anew from the signed entries."""
    from consent.repair import rebuild_tiles
    from gateway.keys import Keyring

    with _database(settings) as engine:
        head = rebuild_tiles(engine, Keyring(settings, may_lack_newest=True), settings.origin)
    _say(given, {"size": head.size, "root": head.root.hex()}, f"made anew from {head.size:,} entries")
    return GOOD


def _keys(given: argparse.Namespace) -> int:
    from gateway.keys import OVERLAP, Keyring, make_key, rotate

    settings = from_environment(data=given.data)
    settings.data.mkdir(parents=True, exist_ok=True)
    if given.action == "init":
        ring = make_key(settings, given.public)
    elif given.action == "rotate":
        overlap = OVERLAP if given.overlap is None else given.overlap
        if overlap < 0 or (given.without_old and given.overlap):
            raise BadSettings("--overlap is a number of entries, and not for a key that is lost or stolen")
        with _database(settings) as engine:
            made = rotate(
                settings,
                engine,
                utc_now,
                overlap=overlap,
                without_old=given.without_old,
                public=given.public,
            )
        _say(
            given,
            {"from": made.start, "until": made.until, "old": made.old.vkey(), "new": made.new.vkey()},
            f"{made.new.vkey()}\nsigns from {made.start:,} entries on; the old key counts up to "
            f"{made.until:,}. Give the new key to every witness, monitor and verifier"
            + (
                " in person: nothing that the old key signed from now on counts."
                if given.without_old
                else "."
            ),
        )
        return GOOD
    else:
        ring = Keyring(settings, may_lack_newest=True)
    spans = [
        {"vkey": key.vkey(), "from": start, "until": None if end == _EVER else end}
        for key, start, end in ring.history.spans()
    ]
    lines = [f"{s['vkey']}  from {s['from']}" + (f" until {s['until']}" if s["until"] else "") for s in spans]
    _say(given, {"origin": settings.origin, "keys": spans}, "\n".join(lines))
    return GOOD


def _witness(given: argparse.Namespace) -> int:
    from gateway import witness_door

    if given.action == "init":
        if not given.name:
            raise BadSettings("say its name: isr-hub witness init FOLDER --name NAME --log VKEY")
        vkey = witness_door.init(given.folder, given.name, given.log, given.algorithm)
        _say(given, {"vkey": vkey, "folder": str(given.folder)}, vkey)
        return GOOD
    if given.action == "status":
        return _witness_status(given)
    witness = witness_door.open_witness(given.folder)
    if given.action == "evidence":
        kept = [{"note": n, "against": a, "reason": r} for n, a, r in witness.evidence()]
        text = "\n".join(f"{k['reason']}:\n{k['note']}\nagainst\n{k['against']}" for k in kept)
        _say(given, kept, text or "nothing: every checkpoint continued the one before")
        return WRONG if kept else GOOD
    host, port = address_of(given.listen)
    if not given.json:
        out.print(f"The witness answers on http://{given.listen}/add-checkpoint. Ctrl-C ends it.")
    witness_door.serve(witness, host, port)
    return GOOD


def _witness_status(given: argparse.Namespace) -> int:
    """The hub's side: how far each configured witness is."""
    from gateway.hub import open_hub

    with open_hub(from_environment(), alone=False) as hub:
        if hub.witnessing is None:
            raise BadSettings("ISR_HUB_WITNESSES names no witness policy")
        found = hub.witnessing.standing(hub.ledger.checkpoint())
    lines = [f"{row.witness}: {row.entries:,} entries, {row.at or 'never'}" for row in found.rows]
    lines.append(
        f"enough of them: {found.witnessed:,} of {found.signed:,} signed; releases leave up to "
        f"{found.releasable:,}"
    )
    _say(given, asdict(found), "\n".join(lines))
    return GOOD if found.is_enough else WRONG


def _monitor(given: argparse.Namespace) -> int:
    from consent.copies import NothingToVerify
    from consent.merkle import ProofError
    from consent.monitor import Alarm, Seen, watch
    from consent.note import Checkpoint, Key
    from consent.quorum import Quorum

    while True:
        seen, shout = Seen(), ""
        try:
            path = Path(given.key)
            stated = path.read_text("utf-8") if "+" not in given.key or path.is_file() else given.key
            witnesses = [Key.from_vkey(text) for text in given.witness_keys]
            token = given.token.read_text("ascii").strip() if given.token else ""
            with _bar(given, "entries") as progress:
                seen = watch(
                    given.target,
                    stated,
                    given.state,
                    int(time.time()),
                    witnesses=witnesses,
                    quorum=Quorum.from_file(given.policy) if given.policy else None,
                    stale_seconds=int(given.stale * 3600),
                    token=token,
                    progress=progress,
                )
        except Alarm as alarm:
            shout = f"{alarm.kind.upper()} {given.target}: {alarm}"
        except (NothingToVerify, ProofError, OSError, UnicodeDecodeError) as error:
            said = str(error) if not isinstance(error, OSError) else type(error).__name__
            print(json.dumps({"ok": False, "error": said}) if given.json else f"cannot monitor: {said}")
            return MISUSED
        if given.metrics:
            _write_metrics(given.metrics, seen.checked, bool(shout))
        if shout:
            print(json.dumps({"ok": False, "alarm": shout}) if given.json else shout)
            return WRONG
        newest = Checkpoint.from_note(seen.note)
        _say(given, {"ok": True, "entries": newest.size}, f"{newest.origin}: {newest.size:,} entries checked")
        if not given.every:
            return GOOD
        sys.stdout.flush()
        threading.Event().wait(given.every)


def _write_metrics(path: Path, checked: int, alarm: bool) -> None:
    """For the textfile collector, which reads only whole files."""
    lines = (
        f"monitored_ledger_entries {checked}",
        f"monitored_ledger_alarm {int(alarm)}",
        f"monitored_ledger_run_timestamp_seconds {int(time.time())}",
    )
    part = path.with_name(path.name + ".part")
    part.write_text("\n".join(lines) + "\n", encoding="ascii")
    part.replace(path)


@contextmanager
def _database(settings: Settings) -> "Iterator[sa.Engine]":
    """The ledger's database, opened without a hub: that would refuse what is to be mended."""
    import sqlalchemy as sa

    from gateway import migrations
    from schemas.database import open_database

    engine = open_database(settings.database)
    try:
        migrations.require_current(engine)
        yield engine
    except sa.exc.OperationalError as error:
        raise BadSettings("the database cannot be reached or used: check ISR_HUB_DATABASE_URL") from error
    finally:
        engine.dispose()


@contextmanager
def _bar(given: argparse.Namespace, what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on the terminal, for long work."""
    if given.json or not sys.stderr.isatty():
        yield None
        return
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _say(given: argparse.Namespace, value: Any, text: str) -> None:
    if given.json:
        print(json.dumps(value, ensure_ascii=False, indent=2))
    else:
        out.print(text, markup=False, soft_wrap=True)
