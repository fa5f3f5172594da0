"""`isr-hub retention`: what is kept how long, what is due, what is under a legal hold."""

import argparse
import json
import sys

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from consent.people import People
from consent.retention import CLASSES, HOLD_REASONS, load
from gateway import disposal
from gateway.access import Viewer, message_id, viewer_of
from gateway.disposal import Disposal, Disposed
from gateway.evidence import described
from gateway.hub import Hub, open_hub
from gateway.settings import Settings
from schemas.clock import NEW_ZEALAND
from schemas.database import reading
from schemas.errors import BadSettings, InvalidMessage, NotFound, Problem


def run(given: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Does what `isr-hub retention ACTION` says; returns the exit status."""
    rules = load(given.rules)
    with open_hub(settings, alone=False) as hub:
        viewer = viewer_of(given, hub.keys, hub.agreements.parties)
        if given.action == "hold":
            return _hold(given, hub, viewer, out)
        if given.action == "release":
            if len(given.words) != 1:
                out.print("use it as: isr-hub retention release HOLD", markup=False)
                return 2
            disposal.release(hub, viewer, given.words[0])
            print(json.dumps({"released": given.words[0]})) if given.json else out.print("released")
            return 0
        if len(given.words) > 1 or not set(given.words) <= set(CLASSES):
            words = "|".join(CLASSES)
            out.print(f"use it as: isr-hub retention {given.action} [{words}]", markup=False)
            return 2
        only = given.words[0] if given.words else None
        try:
            found = _disposed(Disposal(hub, rules, viewer), only, given)
        except sa.exc.ProgrammingError as error:
            if "InsufficientPrivilege" not in type(error.orig).__name__:
                raise
            raise BadSettings(
                "the role in ISR_HUB_DATABASE_URL may not dispose of anything: use isr_hub_records"
            ) from None
        standing = disposal.holds(hub)
    if given.json:
        print(json.dumps({"classes": [one.as_json() for one in found], "holds": standing}, indent=2))
    else:
        out.print(_lines(found))
        for one in standing:
            due = f", to be decided by {one['due']}" if one["due"] else ""
            about = f"{one['reason']} {one['reference']} ({one['scope']})"
            out.print(
                f"hold {one['id']} since {one['at']}: {about}{due}",
                markup=False,
                soft_wrap=True,
            )
    return 0


def _disposed(work: Disposal, only: str | None, given: argparse.Namespace) -> list[Disposed]:
    dry = given.action == "list"
    if given.json or not sys.stderr.isatty():
        return work.run(only, dry=dry)
    from rich.progress import Progress  # noqa: PLC0415  # only a terminal shows it

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("looking", total=None)
        return work.run(only, dry=dry, progress=lambda id: bar.update(task, description=id, advance=1))


def _hold(given: argparse.Namespace, hub: Hub, viewer: Viewer, out: Console) -> int:
    scopes = [name for name in ("person", "case", "message") if getattr(given, name)]
    if given.words or given.reason not in HOLD_REASONS or len(scopes) + given.everything != 1:
        out.print(
            "use it as: isr-hub retention hold --reason "
            + "|".join(HOLD_REASONS)
            + " and one of --person FILE, --case CASE, --message MESSAGE, --everything",
            markup=False,
            soft_wrap=True,
        )
        return 2
    if not viewer.reference:
        raise InvalidMessage(
            "a hold has a reference", Problem("--reference", "is missing", "the request's or file's number")
        )
    scope = scopes[0] if scopes else "all"
    made = []
    for ref in _refs(given, hub, scope):
        id, due = disposal.hold(hub, viewer, given.reason, scope, ref, viewer.reference)
        made.append({"hold": id, "due": due.astimezone(NEW_ZEALAND).date().isoformat() if due else None})
    if given.json:
        print(json.dumps(made))
    else:
        for one in made:
            due_on = f"; to be decided by {one['due']}" if one["due"] else ""
            out.print(f"hold {one['hold']}{due_on}", markup=False)
    return 0


def _refs(given: argparse.Namespace, hub: Hub, scope: str) -> list[str]:
    if scope == "person":
        with reading(hub.engine).begin() as connection:
            known = People(hub.keys).known_as(connection, given.source, described(given.person))
        if not known:
            raise NotFound("nobody known is meant; what is still to come cannot be held in advance")
        return sorted(known)  # whoever may be meant is kept
    if scope == "all":
        return [""]
    ref = str(getattr(given, scope))
    if scope == "message" and not message_id(ref):
        raise InvalidMessage("no message is meant", Problem("--message", "is no id of a message"))
    if len(ref) > 64:
        raise InvalidMessage("no case is meant", Problem("--case", "is no id of a case"))
    return [ref]


def _lines(found: list[Disposed]) -> Table:
    """One row a class: what is kept how long, on whose authority, and what that came to."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for one in found:
        authority = one.rule.authority
        kept = f"{one.rule.days:,} days from {one.rule.since}, {authority.id}"
        counts = (
            (one.due, "due"),
            (one.disposed, "disposed of"),
            (one.held, "under a hold"),
            (one.care, "care records"),
            (one.busy, "unfinished"),
        )
        said = ", ".join(f"{n:,} {word}" for n, word in counts if n or word == "due")
        table.add_row(
            one.rule.id, f"{kept}{'' if authority.in_force else ' (not in force: all is kept)'}: {said}"
        )
    return table
