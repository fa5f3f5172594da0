"""The commands of the people who decide: referrals, the register, break-glass, duties after a release.

Only the words of the command line are here, and how an answer is shown.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from consent.clause import THREATS
from consent.duty import CHANNELS, DISPOSITIONS
from consent.override import FINDINGS
from consent.referral import CAPACITIES, REASONS
from gateway.settings import from_environment
from schemas.errors import HubError, InvalidMessage, Problem

_Run = Callable[[argparse.Namespace], int]
GOOD, WRONG, MISUSED = 0, 1, 2


class _Add(Protocol):
    def __call__(self, name: str, text: str, run: _Run, *, data: bool = True) -> argparse.ArgumentParser:
        """A new command."""
        ...


def add_commands(add: _Add, out: Console) -> None:
    """Adds the commands to the parser behind *add*; they print on *out*."""
    referrals = add("referrals", "what waits for a person of the holder agency", lambda g: _referrals(g, out))
    referrals.add_argument(
        "action",
        choices=("list", "show", "approve", "decline", "told", "escalate"),
        metavar="ACTION",
        help="list, show ID, approve ID, decline ID, told ID, or escalate what is overdue",
    )
    referrals.add_argument("ids", nargs="*", metavar="ID")
    referrals.add_argument("--holder", default="", help="list: only what waits for this agency")
    referrals.add_argument("--overdue", action="store_true", help="list: only what is overdue")
    referrals.add_argument("--all", action="store_true", help="list: also what has ended")
    referrals.add_argument("--reason", choices=tuple(REASONS), help="decline: why")
    referrals.add_argument(
        "--class",
        dest="cells",
        action="append",
        default=[],
        metavar="ROLE:CLASS",
        help="approve: only this; may be repeated (default: all of it that may leave)",
    )
    referrals.add_argument(
        "--scrubbed", action="store_true", help="you have read the text, and no place stands in it"
    )
    _say_who_decides(referrals)

    register = add("register", "what was considered, and how it ended (s 24)", lambda g: _register(g, out))
    register.add_argument("--day", type=_day, help="only this day, YYYY-MM-DD")
    register.add_argument(
        "--ending", default="", help="list what ended so: shared, part, declined, waiting, overdue"
    )
    register.add_argument(
        "--overdue", action="store_true", help="list what is overdue now, whenever it began"
    )
    register.add_argument("--limit", type=int, default=50, help="lines listed (default 50); counts are whole")

    override = add("override", "break-glass: open, agree, close, review, list", lambda g: _override(g, out))
    override.add_argument(
        "action",
        choices=("list", "open", "agree", "close", "review", "reason"),
        metavar="ACTION",
        help="list, open, agree ID, close ID, review ID, or reason ID",
    )
    override.add_argument("id", nargs="?", default="", metavar="ID")
    override.add_argument("--case", default="", help="open: the hub's name of the case")
    override.add_argument("--threat", choices=tuple(THREATS), help="open: what threatens")
    override.add_argument(
        "--reason",
        default="",
        metavar="FILE",
        help="open: file with the reason, or - for standard input; on the command line others could read it",
    )
    override.add_argument("--finding", choices=tuple(FINDINGS), help="review: what you find")
    _say_who_decides(override)

    duties = add(
        "duties",
        "who is to be told (IPP 3A) and asked (s 66K), and how that ended",
        lambda g: _duties(g, out),
    )
    duties.add_argument("action", choices=("list", "record"))
    duties.add_argument("words", nargs="*", metavar="KIND CASE ROLE CODE", help="record: for the party given")
    duties.add_argument("--overdue", action="store_true", help="list: only what is overdue")
    duties.add_argument(
        "--channel", default="", choices=("", *CHANNELS), help="record: how the individual was told"
    )
    _say_who_decides(duties)


def _say_who_decides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--party", default="", help="the party for which you act")
    parser.add_argument("--capacity", choices=tuple(CAPACITIES), help="in which capacity you act")
    parser.add_argument(
        "--officer", default="", help="your number at your party (default: this machine's account)"
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("is not a day as YYYY-MM-DD") from None


@contextmanager
def _hub(given: argparse.Namespace, *, changes: bool) -> Iterator[Any]:
    from gateway.hub import open_hub

    settings = from_environment(data=given.data)
    with open_hub(settings, alone=changes) as hub:
        yield hub
        if changes and settings.embedded_broker:  # else the hub's processes are at work
            hub.exchange.finish()


def _person(given: argparse.Namespace, hub: Any) -> Any:
    """Who acts. Raises `InvalidMessage` when the command line does not say."""
    from gateway.access import viewer_of
    from gateway.referrals import Person

    missing = [
        Problem(f"--{name}", "is missing", "say for whom, and in which capacity, you act")
        for name in ("party", "capacity")
        if not getattr(given, name)
    ]
    if missing:
        raise InvalidMessage("say who acts", *missing)
    given.purpose, given.reference = "DECIDE", ""
    viewer = viewer_of(given, hub.keys, hub.agreements.parties)
    return Person(viewer.party, given.capacity, viewer.officer)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _table(out: Console, title: str, headings: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading == "id")
    for line in lines:
        table.add_row(*line)
    out.print(table)


def referral_json(row: Any, *, overdue: bool) -> dict[str, Any]:
    """A referral as the command, the console and the door tell of it; no content."""
    from schemas.clock import rfc3339

    return {
        "id": row.id,
        "kind": row.standing.kind,
        "state": row.standing.state.value,
        "overdue": overdue,
        "mandatory": row.standing.mandatory,
        "holder": row.holder,
        "party": row.party,
        "source": row.source,
        "message": row.message,
        "type": row.type,
        "asked": [{"role": role, "class": name} for role, name in row.cells],
        "cases": list(row.cases),
        "at": row.at,
        "due": rfc3339(row.standing.due),
        "ended": row.ended,
        "reason": row.reason,
    }


def _referrals(given: argparse.Namespace, out: Console) -> int:
    from gateway.referrals import Referrals

    acts = given.action not in ("list", "show")
    if given.action in ("list", "escalate") if given.ids else given.action not in ("list", "escalate"):
        out.print(f"use it as: isr-hub referrals {given.action}" + ("" if given.ids else " ID"), markup=False)
        return MISUSED
    if given.action == "decline" and not given.reason:
        out.print("say why: --reason " + "|".join(REASONS), markup=False, soft_wrap=True)
        return MISUSED
    with _hub(given, changes=acts) as hub:
        referrals = Referrals(hub)
        if given.action == "list":
            return _list_referrals(given, hub, referrals, out)
        if given.action == "escalate":
            late = referrals.escalate()
            _print_json([r.id for r in late]) if given.json else out.print(f"{len(late)} escalated")
            return GOOD
        person = _person(given, hub)
        if given.action == "show":
            return _show_referral(given, hub, referrals, person, out)
        steps: Mapping[str, Callable[[str], Any]] = {
            "approve": lambda id: referrals.approve(
                id, person, map(_cell, given.cells), scrubbed=given.scrubbed
            ),
            "decline": lambda id: referrals.decline(id, person, given.reason),
            "told": lambda id: referrals.told(id, person),
        }
        ended = _each(given.ids, steps[given.action], out, as_json=given.json)
    if given.json:
        _print_json(ended)
    return WRONG if any("error" in one for one in ended.values()) else GOOD


def _each(
    ids: Iterable[str], step: Callable[[str], Any], out: Console, *, as_json: bool
) -> dict[str, dict[str, Any]]:
    ended: dict[str, dict[str, Any]] = {}
    for id in ids:
        try:
            ended[id] = {"state": step(id).value}
        except HubError as error:
            ended[id] = {"error": error.as_json()}
        if not as_json:
            said = ended[id].get("state") or f"{ended[id]['error']['code']}: {ended[id]['error']['detail']}"
            out.print(f"{id}: {said}", markup=False, soft_wrap=True)
            for problem in ended[id].get("error", {}).get("problems", ()):
                out.print(f"  {problem['detail']} — {problem['fix']}", markup=False, soft_wrap=True)
    return ended


def _cell(text: str) -> tuple[str, str]:
    role, _, name = text.partition(":")
    return role, name


def _list_referrals(given: argparse.Namespace, hub: Any, referrals: Any, out: Console) -> int:
    from consent.referral import is_overdue

    now = hub.clock()
    found = referrals.find(holder=given.holder, only_open=not given.all)
    shown = [(row, is_overdue(row.standing, now)) for row in found]
    if given.overdue:
        shown = [one for one in shown if one[1]]
    if given.json:
        _print_json([referral_json(row, overdue=late) for row, late in shown])
        return GOOD
    _table(
        out,
        f"{len(shown)} referrals, the most urgent first",
        ("id", "for a person of", "would go to", "what", "due", "state"),
        (
            (
                row.id,
                row.holder,
                row.party,
                ", ".join(f"{role} {name}" for role, name in row.cells) or "a request for information",
                f"{row.standing.due:%Y-%m-%d %H:%M}Z",
                ("OVERDUE, " if late else "")
                + ("mandatory, " if row.standing.mandatory else "")
                + row.standing.state.value,
            )
            for row, late in shown
        ),
    )
    return GOOD


def _show_referral(given: argparse.Namespace, hub: Any, referrals: Any, person: Any, out: Console) -> int:
    from consent.referral import REQUEST, is_overdue
    from gateway.access import AccessLog, Look, Viewer
    from gateway.explain import party_name, reason_says, type_title

    row = referrals.one(given.ids[0])
    # ‖ Before anything is shown: a crash leaves a look that showed nothing, never the reverse.
    look = Look("referral", message=row.id)
    AccessLog(hub.engine, hub.ledger, hub.keys, hub.clock).record(
        Viewer(person.officer, person.party, "DECIDE"), look
    )
    said = referral_json(row, overdue=is_overdue(row.standing, hub.clock()))
    if row.standing.kind != REQUEST:
        draft = referrals.draft(row.id, person, scrubbed=given.scrubbed)
        said |= {
            "leaves": [list(cell) for cell in draft.leaves],
            "to_read": [list(cell) for cell in draft.to_read],
            "held": [{"role": c[0], "class": c[1], "guards": list(codes)} for c, codes in draft.held],
            "draft": draft.data,
        }
    if given.json:
        _print_json(said)
        return GOOD
    lines = [
        ("message", f"{type_title(hub, row.type)} ({row.message})"),
        ("would go to", f"{party_name(hub, row.party)} ({row.party})"),
        ("due", said["due"] + (" OVERDUE" if said["overdue"] else "")),
        ("may leave", ", ".join(f"{r} {c}" for r, c in said.get("leaves", ())) or "nothing"),
        ("after reading for places", ", ".join(f"{r} {c}" for r, c in said.get("to_read", ())) or "nothing"),
    ]
    for one in said.get("held", ()):
        why = "; ".join(f"{code} {reason_says(code)}" for code in one["guards"])
        lines.append(("held", f"{one['role']} {one['class']}: {why or 'no clause gives it any more'}"))
    for label, text in lines:
        out.print(f"{label:<25} {text}", markup=False, soft_wrap=True)
    if said.get("draft"):
        out.print("what would leave, for you alone:", style="bold")
        out.print(json.dumps(said["draft"], ensure_ascii=False, indent=2), markup=False, soft_wrap=True)
    return GOOD


def _register(given: argparse.Namespace, out: Console) -> int:
    from gateway import queries
    from gateway.register import ENDINGS, Register, counted

    if given.ending and given.ending not in ENDINGS:
        out.print("--ending is one of " + ", ".join(ENDINGS), markup=False)
        return MISUSED
    with _hub(given, changes=False) as hub:
        register, size = Register(hub), hub.ledger.head().size
        if given.overdue:
            late = [referral_json(row, overdue=True) for row in register.overdue()]
            if given.json:
                _print_json(late)
            else:
                _table(
                    out,
                    f"{len(late)} overdue",
                    ("id", "holder", "party", "kind", "due"),
                    ((r["id"], r["holder"], r["party"], r["kind"], r["due"]) for r in late),
                )
            return WRONG if late else GOOD
        start, stop = queries.day_range(hub.engine, size, given.day) if given.day else (0, size)
        lines = list(register.lines(start, stop))
    counts = counted(lines)
    wanted = [line for line in lines if line.ending == given.ending] if given.ending else []
    if given.json:
        shown = wanted if given.ending else lines
        _print_json(
            {
                "counts": [
                    {"what": w, "holder": h, "ending": e, "number": n}
                    for (w, h, e), n in sorted(counts.items())
                ],
                "lines": [line._asdict() for line in shown],
            }
        )
        return GOOD
    keys = sorted({(what, holder) for what, holder, _ in counts})
    _table(
        out,
        "What was considered (Family Violence Act 2018 s 24)",
        ("what", "holder", *ENDINGS),
        ((w, h, *(f"{counts[w, h, e]:,}" for e in ENDINGS)) for w, h in keys),
    )
    if given.ending:
        _table(
            out,
            f"{ENDINGS[given.ending]}: {len(wanted):,}, the last {min(given.limit, len(wanted))}",
            ("when", "what", "holder", "party", "message", "reasons", "due", "decided by"),
            (
                (
                    w.at,
                    w.what,
                    w.holder,
                    w.party,
                    w.message,
                    ", ".join(w.reasons),
                    w.due,
                    w.by or "the agreements",
                )
                for w in wanted[-given.limit :]
            ),
        )
    return GOOD


def _override(given: argparse.Namespace, out: Console) -> int:
    from gateway.overrides import Overrides

    if (given.action not in ("list", "open")) != bool(given.id):
        out.print(f"use it as: isr-hub override {given.action}" + ("" if given.id else " ID"), markup=False)
        return MISUSED
    needed = {"open": ("case", "threat", "reason"), "review": ("finding",)}.get(given.action, ())
    if missing := [f"--{name}" for name in needed if not getattr(given, name)]:
        out.print(f"{', '.join(missing)} is missing", markup=False)
        return MISUSED
    with _hub(given, changes=given.action not in ("list", "reason")) as hub:
        overrides = Overrides(hub)
        if given.action == "list":
            return _list_overrides(given, hub, overrides, out)
        person = _person(given, hub)
        if given.action == "reason":
            return _reason(given, hub, overrides, person, out)
        steps: Mapping[str, Callable[[], Any]] = {
            "open": lambda: overrides.open(person, given.case, given.threat, _text(given.reason)),
            "agree": lambda: overrides.agree(given.id, person),
            "close": lambda: overrides.close(given.id, person),
            "review": lambda: overrides.review(given.id, person, given.finding),
        }
        made = steps[given.action]()
    if given.json:
        _print_json(made._asdict())
    else:
        until = f", until {made.until}" if made.until else ""
        out.print(
            f"{made.id}: {made.state.value}{until}; review due {made.review_due}",
            markup=False,
            soft_wrap=True,
        )
    return GOOD


def _text(name: str) -> str:
    return sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")


def _reason(given: argparse.Namespace, hub: Any, overrides: Any, person: Any, out: Console) -> int:
    from gateway.access import AccessLog, Look, Viewer

    text = overrides.reason(given.id)
    # ‖ As for a referral's draft.
    AccessLog(hub.engine, hub.ledger, hub.keys, hub.clock).record(
        Viewer(person.officer, person.party, "DECIDE"), Look("override", message=given.id)
    )
    _print_json({"id": given.id, "reason": text}) if given.json else out.print(
        text, markup=False, soft_wrap=True
    )
    return GOOD


def _list_overrides(given: argparse.Namespace, hub: Any, overrides: Any, out: Console) -> int:
    now = hub.clock()
    found = overrides.find()
    late = [o for o in found if o.is_overdue(now)]
    if given.json:
        _print_json([{**o._asdict(), "runs": o.runs(now), "overdue": o.is_overdue(now)} for o in found])
    else:
        _table(
            out,
            f"{len(found)} overrides and refused attempts, {len(late)} with an overdue review",
            ("id", "when", "party", "case", "threat", "state", "until", "review due"),
            (
                (
                    o.id,
                    o.at,
                    o.party,
                    o.case,
                    o.threat,
                    o.state.value + (" " + o.finding if o.finding else ""),
                    o.until,
                    o.review_due,
                )
                for o in found
            ),
        )
    return WRONG if late else GOOD


def _duties(given: argparse.Namespace, out: Console) -> int:
    from gateway.duties import Duties

    if (given.action == "record") != (len(given.words) == 4):
        out.print(
            "use it as: isr-hub duties list, or: isr-hub duties record KIND CASE ROLE CODE --party PARTY",
            markup=False,
            soft_wrap=True,
        )
        return MISUSED
    with _hub(given, changes=given.action == "record") as hub:
        duties = Duties(hub)
        if given.action == "record":
            kind, case, role, code = given.words
            person = _person(given, hub)
            party = person.party
            done = duties.record(kind, party, case, role, code, person, given.channel)
            _print_json(done._asdict()) if given.json else out.print(f"{done.id}: {done.state}")
            return GOOD
        found = duties.find(party=given.party, overdue=given.overdue)
        late = sum(duties.is_overdue(d) for d in found)
    if given.json:
        _print_json([d._asdict() for d in found])
    else:
        kinds = {"ipp3a": "tell the individual", "s66k": "ask the child"}
        _table(
            out,
            f"{len(found)} to record, {late} of them overdue; codes: "
            + "; ".join(f"{k} {', '.join(v)}" for k, v in DISPOSITIONS.items()),
            ("party", "what", "case", "about", "since", "due"),
            ((d.party, f"{d.kind}: {kinds[d.kind]}", d.case, d.role, d.at, d.due) for d in found),
        )
    return WRONG if given.overdue and late else GOOD
