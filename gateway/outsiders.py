"""The commands for those who look from outside, and for whoever hands something out to them: the ledger as
files, the verifier, evidence.

Only the words of the command line are here; a command imports what it does when it is run.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import Progress

from gateway import ledger_commands
from gateway.settings import Settings, from_environment

LEDGER_ACTIONS: Mapping[str, str] = {
    "export": "FOLDER",
    "verifier": "",
    "audit-events": "",
    "officer": "PARTY NUMBER",
    "check": "",
    "rebuild-tiles": "",
}
_Run = Callable[[argparse.Namespace], int]


class _Add(Protocol):
    def __call__(self, name: str, text: str, run: _Run, *, data: bool = True) -> argparse.ArgumentParser:
        """A new command."""
        ...


def add_commands(add: _Add, out: Console) -> None:
    """Adds the commands to the parser behind *add*; they print on *out*."""
    ledger = add(
        "ledger",
        "the ledger as files, its verifier, who an officer in it is; what is damaged, and mending it",
        lambda given: run_ledger(given, out),
    )
    ledger.add_argument("action", choices=tuple(LEDGER_ACTIONS))
    ledger.add_argument(
        "words",
        nargs="*",
        help="; ".join(f"{action} {words}" for action, words in LEDGER_ACTIONS.items() if words),
    )
    _add_period(ledger)
    say_who_looks(ledger)
    evidence = add(
        "evidence",
        "a bundle of entries, proofs and salts for one message or person",
        lambda given: _evidence(given, out),
    )
    evidence.add_argument("message", nargs="?", help="the id of a message")
    evidence.add_argument(
        "--person",
        type=Path,
        help='instead: file, or - for standard input, that describes a person: {"identifiers": [{"system", '
        '"value"}]} or {"name": {"family", "given"}, "birthDate"}; on the command line others could read it',
    )
    evidence.add_argument("--source", default="", help="the party that sent the message, or knows the person")
    evidence.add_argument(
        "--out", type=Path, required=True, help="folder to make, or archive when it ends in .zip"
    )
    evidence.add_argument(
        "--no-salts", action="store_true", help="a message's evidence without what opens it, to be passed on"
    )
    say_who_looks(evidence)
    reconcile = add(
        "reconcile",
        "what the hub says it released against what recipients say they received",
        lambda given: _reconcile(given, out),
    )
    reconcile.add_argument("receipts", nargs="+", type=Path, help="CSV or NDJSON: delivery,party,time,digest")
    _add_period(reconcile)
    say_who_looks(reconcile)
    retention = add(
        "retention", "what is kept how long, what is due, legal holds", lambda given: _retention(given, out)
    )
    retention.add_argument("action", choices=("list", "dispose", "hold", "release"))
    retention.add_argument(
        "words", nargs="*", help="list, dispose: one class (default: all); release: the id of the hold"
    )
    retention.add_argument("--rules", type=Path, help="file of classes (default: those of the hub)")
    retention.add_argument("--reason", help="hold: why, such as access-request")
    retention.add_argument("--person", type=Path, help="hold: file that describes a person, as for evidence")
    retention.add_argument("--source", default="", help="hold: the party that knows the person")
    retention.add_argument("--case", help="hold: a case")
    retention.add_argument("--message", help="hold: a message")
    retention.add_argument("--everything", action="store_true", help="hold: everything")
    say_who_looks(retention)


def _add_period(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", type=_day, metavar="DAY", help="the first day, YYYY-MM-DD, New Zealand")
    parser.add_argument("--until", type=_day, metavar="DAY", help="the last day")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("is not a day as YYYY-MM-DD") from None


def say_who_looks(parser: argparse.ArgumentParser) -> None:
    """Adds to a command how whoever runs it says who looks, and why; it becomes an entry in the ledger."""
    parser.add_argument("--officer", help="your number or account at your party (default: this machine's)")
    parser.add_argument("--party", default="hub", help="the party that you look for (default: hub)")
    parser.add_argument(
        "--purpose",
        default="ADM-AUDIT",
        help="ADM-ACCESS, ADM-CORRECT, ADM-BREACH, ADM-AUDIT (default), ADM-REPORT, DECIDE or OPERATE",
    )
    parser.add_argument(
        "--reference", default="", help="the number of the request or file, such as AR-2026-31"
    )


def run_ledger(given: argparse.Namespace, out: Console) -> int:
    """Does what `isr-hub ledger ACTION` says; returns the exit status."""
    actions: Mapping[str, Callable[[argparse.Namespace, Settings, Console], int]] = {
        "export": _export,
        "verifier": _verifier,
        "audit-events": _audit_events,
        "officer": _officer,
        "check": ledger_commands.check_ledger,
        "rebuild-tiles": ledger_commands.rebuild,
    }
    words = LEDGER_ACTIONS[given.action]
    if len(given.words) != len(words.split()):
        out.print(f"use it as: isr-hub ledger {given.action} {words}", markup=False)
        return 2
    return actions[given.action](given, from_environment(data=given.data), out)


def _export(given: argparse.Namespace, settings: Settings, out: Console) -> int:
    from gateway.hub import open_hub

    folder = Path(given.words[0])
    with open_hub(settings, alone=False) as hub:
        checkpoint = hub.ledger.export(folder)
    if given.json:
        print(json.dumps({"size": checkpoint.size, "root": checkpoint.root.hex(), "folder": str(folder)}))
    else:
        out.print(f"{checkpoint.size} entries in {folder}", markup=False, soft_wrap=True)
    return 0


def _verifier(given: argparse.Namespace, _settings: Settings, _out: Console) -> int:
    from consent.single_file import single_file

    print(json.dumps({"verify_ledger.py": single_file()}) if given.json else single_file(), end="")
    return 0


def _audit_events(given: argparse.Namespace, settings: Settings, _out: Console) -> int:
    from gateway.access import AccessLog, Look, viewer_of
    from gateway.audit_events import audit_events
    from gateway.hub import open_hub
    from gateway.queries import period

    with open_hub(settings, alone=False) as hub:
        viewer = viewer_of(given, hub.keys, hub.agreements.parties)
        start, stop = period(hub.engine, hub.ledger.head().size, given.since, given.until)
        # ‖ Before a line is written: who carries the ledger out is in it.
        AccessLog(hub.engine, hub.ledger, hub.keys, hub.clock).record(
            viewer, Look("audit-events", f"{start}-{stop}")
        )
        for event in audit_events(hub, start, stop):
            print(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
    return 0


def _reconcile(given: argparse.Namespace, out: Console) -> int:
    from gateway.access import AccessLog, Look, viewer_of
    from gateway.hub import open_hub
    from gateway.queries import period
    from gateway.reconcile import KINDS, Difference, reconcile

    def tell(one: Difference) -> None:
        if given.json:
            print(json.dumps(one._asdict()))
        else:
            of = f", entry {one.entry}" if one.entry is not None else ""
            whom = ", ".join(
                f"{word} {party}"
                for word, party in (("released to", one.released_to), ("received by", one.received_by))
                if party
            )
            at = f" ({one.place})" if one.place else ""
            out.print(f"{one.kind}: {one.delivery}{of}, {whom}{at}", markup=False, soft_wrap=True)

    with open_hub(from_environment(data=given.data), alone=False) as hub:
        viewer = viewer_of(given, hub.keys, hub.agreements.parties)
        start, stop = period(hub.engine, hub.ledger.head().size, given.since, given.until)
        AccessLog(hub.engine, hub.ledger, hub.keys, hub.clock).record(
            viewer, Look("reconcile", f"{start}-{stop}")
        )
        if given.json or not sys.stderr.isatty():
            found = reconcile(hub, given.receipts, start, stop, tell)
        else:
            with Progress(console=Console(stderr=True)) as bar:
                task = bar.add_task("comparing", total=stop - start)
                found = reconcile(
                    hub, given.receipts, start, stop, tell, lambda done, _: bar.update(task, completed=done)
                )
    if given.json:
        print(json.dumps(found.as_json()))
    else:
        parties = ", ".join(found.parties) or "nobody"
        out.print(
            f"{found.released:,} released, {found.receipts:,} receipts of {parties}: "
            f"{found.agreed:,} agree, {found.waiting:,} on their way",
            markup=False,
            soft_wrap=True,
        )
        for kind, text in KINDS.items():
            if found.kinds[kind]:
                out.print(f"{found.kinds[kind]:,} {kind}: {text}", markup=False, soft_wrap=True)
    return 1 if found.kinds else 0


def _officer(given: argparse.Namespace, settings: Settings, out: Console) -> int:
    from consent.people import Keys
    from gateway.access import officer_of
    from gateway.hub import secret

    party, number = given.words
    digest = officer_of(Keys(secret(settings)), party, number.lower())
    print(json.dumps({"officer": digest})) if given.json else out.print(digest)
    return 0


def _evidence(given: argparse.Namespace, out: Console) -> int:
    from gateway import evidence

    return evidence.run(given, from_environment(data=given.data), out)


def _retention(given: argparse.Namespace, out: Console) -> int:
    from gateway import keeping

    return keeping.run(given, from_environment(data=given.data), out)
