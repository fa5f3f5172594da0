"""What the command line tells a privacy officer before an agreement is signed: the difference, the past under
a draft, who can learn a class, what is unused, what nothing can break, and the agreement in words.

Reads only. Exit status: 0 good; 1 a promise is broken, or something does not load; 2 used wrongly.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from consent import inputs
from consent.agreement import Agreements
from consent.analysis import differences, known_subject, unused, who_can_learn
from consent.entry import DECISION_KINDS
from consent.ledger import ledger_head
from consent.odrl import odrl_agreement, odrl_agreements
from consent.plain import agreement_text, agreements_text
from consent.proof import prove
from consent.replay import Replay, opening_day
from gateway import migrations, queries
from gateway.hub import agreements_folder
from gateway.settings import Settings, from_environment
from schemas.clock import NEW_ZEALAND, utc_now
from schemas.database import open_database, reading
from schemas.errors import NotFound

GOOD, WRONG, MISUSED = 0, 1, 2


def run(given: argparse.Namespace, usage: str, out: Console, err: Console) -> int:
    """Runs one action of `isr-hub agreements`; *usage* says what words it takes."""
    actions: dict[str, Callable[[argparse.Namespace, Console], int | None]] = {
        "diff": _diff,
        "what-if": _what_if,
        "who-can-learn": _who_can_learn,
        "unused": _unused,
        "prove": _prove,
        "text": _text,
        "odrl": _odrl,
    }
    status = actions[given.action](given, out)
    if status is None:
        err.print(f"use it as: isr-hub agreements {given.action} {usage}".rstrip(), markup=False)
        return MISUSED
    return status


def _diff(given: argparse.Namespace, out: Console) -> int | None:
    if len(given.words) != 2:
        return None
    first, second = (Agreements.load(folder) for folder in given.words)
    found = differences(first, second, given.day or _today())
    if given.json:
        _json([d._asdict() for d in found])
    else:
        for difference in found:
            out.print(difference.line(), markup=False, soft_wrap=True)
        out.print(f"{len(found)} differences", markup=False)
    return GOOD


def _what_if(given: argparse.Namespace, out: Console) -> int | None:
    if len(given.words) != 1:
        return None
    draft = Agreements.load(given.words[0])
    with _database(given) as (settings, connection):
        present = Agreements.load(given.folder or agreements_folder(settings))
        day = given.day or opening_day(draft, _today())
        replay = Replay(present, draft, day)
        started = perf_counter()
        with _progress(shown=not given.json) as bar:
            task = bar.add_task("messages", total=inputs.count(connection))
            for n, asked in enumerate(inputs.stored(connection), 1):
                replay.take(asked)
                if n % 100 == 0:
                    bar.update(task, completed=n)
            bar.update(task, completed=replay.found.messages)
        seconds = perf_counter() - started
    found, rows = replay.found, replay.found.rows()
    if given.json:
        _json(
            {
                "day": day.isoformat(),
                "messages": found.messages,
                "decisions": found.decisions,
                "changed": found.changed,
                "changes": rows,
            }
        )
    else:
        for row in rows:
            out.print(_change_line(row), markup=False, soft_wrap=True)
        rate = found.decisions / seconds if seconds else 0
        out.print(
            f"{found.changed:,} of {found.decisions:,} decisions on {found.messages:,} messages would differ "
            f"on {day}; {rate:,.0f} decisions a second, each under both. Nothing was written.",
            markup=False,
            soft_wrap=True,
        )
    return GOOD


def _change_line(row: dict[str, Any]) -> str:
    reason = f", withheld because {row['reason']}" if row["reason"] else ""
    return (
        f"{'more' if row['widens'] else 'less'}: {row['data_class']} about {row['role']} to {row['party']}: "
        f"{row['before'] or 'nothing'} → {row['after'] or 'nothing'} in {row['decisions']} decisions, "
        f"for example on {row['examples'][0]}{reason}"
    )


def _who_can_learn(given: argparse.Namespace, out: Console) -> int | None:
    if len(given.words) != 3 or given.words[1] != "about":
        return None
    data_class, _, role = given.words
    if not known_subject(data_class, role):
        raise NotFound("there is no such class or role; docs/messages.md lists them")
    found = who_can_learn(_present(given), data_class, role, given.day or _today())
    if given.json:
        _json(
            [
                {**learner.row._asdict(), "guards": learner.guards, "example": learner.example}
                for learner in found
            ]
        )
        return GOOD
    for row, guards, example in found:
        out.print(
            f"{row.recipient} ({row.kind}): {row.outcome}, by {row.clause} on {row.basis}, "
            f"for {row.purposes}; "
            f"if {row.conditions or 'nothing'}; may be held back by {' '.join(guards) or 'no guard'}; "
            + (f"for example: {example}" if example else "never in any situation"),
            markup=False,
            soft_wrap=True,
        )
    out.print(f"{len(found)} clauses by party", markup=False)
    return GOOD


def _unused(given: argparse.Namespace, out: Console) -> int | None:
    if given.words or given.days < 1:
        return None
    today = given.day or _today()
    with _database(given) as (settings, connection):
        size = connection.execute(sa.select(ledger_head.c.size)).scalar() or 0
        engine = connection.engine
        first, _ = queries.day_range(engine, size, today - timedelta(days=given.days))
        cited = {
            clause
            for row in queries.between(engine, first, size)
            if row.body["kind"] in DECISION_KINDS
            for clause in row.body["clauses"]
        }
        found = unused(Agreements.load(given.folder or agreements_folder(settings)), cited, today)
    if given.json:
        _json([{**u._asdict(), "since": u.since.isoformat()} for u in found])
        return GOOD
    table = Table(title=f"Clauses in force that no decision of {given.days} days cited")
    for heading in ("clause", "to", "in force since", "classes"):
        table.add_column(heading, overflow="fold")
    for clause in found:
        table.add_row(clause.clause, clause.recipient, clause.since.isoformat(), " ".join(clause.grants))
    out.print(table)
    return GOOD


def _prove(given: argparse.Namespace, out: Console) -> int | None:
    if given.words:
        return None
    agreements = _present(given)
    with _progress(shown=not given.json) as bar:
        task = bar.add_task("recipients", total=None)
        proofs = prove(agreements, progress=lambda done, of: bar.update(task, completed=done, total=of))
    if given.json:
        _json(
            [
                {
                    "code": p.code,
                    "text": p.text,
                    "situations": p.situations,
                    "holds": p.holds,
                    "counterExample": p.counter_example._asdict() if p.counter_example else None,
                }
                for p in proofs
            ]
        )
    else:
        for proof in proofs:
            mark = "[green]holds[/]" if proof.holds else "[red]BROKEN[/]"
            out.print(f"{mark} {proof.code}: {proof.text} ({proof.situations:,} situations)", soft_wrap=True)
            if proof.counter_example is not None:
                out.print(f"  {proof.counter_example.line()}", markup=False, soft_wrap=True)
    return GOOD if all(p.holds for p in proofs) else WRONG


def _text(given: argparse.Namespace, out: Console) -> int | None:  # noqa: ARG001  # as the others
    if len(given.words) > 1:
        return None
    agreements = _present(given)
    if given.words:
        chosen = _named(agreements, given.words[0])
        texts = {chosen.id: agreement_text(agreements, chosen)}
    else:
        texts = {a.id: agreement_text(agreements, a) for a in agreements}
    if given.json:
        _json(texts)
    else:
        print("".join(texts.values()) if given.words else agreements_text(agreements), end="")
    return GOOD


def _odrl(given: argparse.Namespace, out: Console) -> int | None:  # noqa: ARG001  # as the others
    if len(given.words) > 1:
        return None
    agreements = _present(given)
    if given.words:
        _json(odrl_agreement(agreements, _named(agreements, given.words[0])))
    else:
        _json(odrl_agreements(agreements))
    return GOOD


def _named(agreements: Agreements, name: str) -> Any:
    found = next((a for a in agreements if a.id == name), None)
    if found is None:
        raise NotFound("there is no such agreement; there are " + ", ".join(sorted(a.id for a in agreements)))
    return found


def _present(given: argparse.Namespace) -> Agreements:
    return Agreements.load(given.folder or agreements_folder(from_environment()))


@contextmanager
def _database(given: argparse.Namespace) -> Iterator[tuple[Settings, sa.Connection]]:
    """The hub's database, to read; it need not stand still meanwhile."""
    settings = from_environment(data=given.data)
    url = sa.make_url(settings.database)
    if url.drivername.startswith("sqlite") and not Path(url.database or "").is_file():
        raise NotFound("there is no hub in this data folder")  # opening it would make one
    engine = open_database(settings.database)
    try:
        migrations.require_current(engine)
        with reading(engine).connect() as connection:
            yield settings, connection
    finally:
        engine.dispose()


def _progress(*, shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not shown,
    )


def _today() -> date:
    return utc_now().astimezone(NEW_ZEALAND).date()


def _json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))
