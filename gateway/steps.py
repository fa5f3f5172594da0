"""What people do with agreements and recalls while the hub runs: propose, approve, suspend, resume, revoke,
supersede; settle a recall. Each step is one transaction: the new state, its entry, and the hub's messages to
every party concerned.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from consent import recalls
from consent.agreement_file import schema_text
from consent.entry import RECALL
from consent.ledger import Entry
from consent.life import PROPOSE, SUPERSEDE, VERBS, Officer
from consent.register import Taken
from gateway.hub import Hub, open_hub
from gateway.settings import from_environment
from schemas.clock import NEW_ZEALAND, rfc3339
from schemas.database import in_sequence, reading
from schemas.errors import NotFound, OutOfTurn
from schemas.message import new_message

GOOD, WRONG, MISUSED = 0, 1, 2
HUB = "hub"


def take(hub: Hub, verb: str, words: list[str], by: Officer, content: str = "") -> Taken:
    """Takes the step *verb* in the life of an agreement, and tells every party that it concerns.

    Raises `BadAgreement`, `NotFound` or `OutOfTurn`; then nothing was changed.
    """
    try:
        with hub.engine.begin() as connection:
            if verb == PROPOSE:
                taken = hub.register.propose(connection, Path(words[0]), by)
            else:
                successor = words[1] if verb == SUPERSEDE else ""
                taken = hub.register.take(connection, verb, words[0], by, content=content, by_name=successor)
            _tell(hub, connection, verb, taken, by)
    except BaseException:
        hub.register.forget()
        raise
    # ‖ The step is taken. A crash here leaves it unsigned, which the exchange mends; every process of the hub
    # sees it within a second.
    hub.ledger.sign()
    return taken


def _tell(hub: Hub, connection: Any, verb: str, taken: Taken, by: Officer) -> None:
    life = taken.life
    change = {
        "agreement": life.agreement,
        "version": life.version,
        "content": life.content,
        "step": verb,
        "state": life.state,
        "party": by.party,
    }
    hub.exchange.announcer.say(
        connection,
        [
            new_message(
                HUB,
                "hub.agreement-changed",
                {"to": party, "change": change},
                key=f"{taken.message}\n{party}",
                at=hub.clock(),
            )
            for party in sorted(taken.concerned)
        ],
        hub.clock(),
    )


def settle(hub: Hub, disclosure: str, by: Officer) -> int:
    """Ends the recall of *disclosure*: the privacy officer has heard that it was withdrawn, or dealt with it.
    Returns the ledger's index of the entry. Raises `NotFound`, `OutOfTurn`.
    """
    with hub.engine.begin() as connection:
        in_sequence(connection)
        task = next((t for t in recalls.tasks(connection) if t.disclosure == disclosure), None)
        if task is None:
            raise NotFound("nothing of this id was recalled; isr-hub recalls list")
        if task.settled is not None:
            raise OutOfTurn(f"this recall was settled: ledger entry {task.settled}")
        if task.holder.partition("#")[0] != by.party.partition("#")[0]:
            raise OutOfTurn(f"the privacy officer of {task.holder} settles this recall")
        body = {
            "v": 1,
            "kind": RECALL,
            "at": rfc3339(hub.clock()),
            "source": HUB,
            "message": disclosure,
            "party": task.party,
            "disclosure": task.released,
            "step": "settled",
            "by": by.party,
            "officer": by.person,
        }
        entry = Entry(RECALL, HUB, disclosure, task.party, body)
        number = hub.ledger.append(connection, [entry])[0]
        recalls.settle(connection, disclosure, number)
    # ‖ As above.
    hub.ledger.sign()
    return number


def run(given: argparse.Namespace, usage: str, out: Console, err: Console) -> int:
    """Runs one action of `isr-hub agreements`; *usage* says what words it takes."""
    wanted = {PROPOSE: 1, SUPERSEDE: 2, "schema": 0}.get(given.action, 1)
    enough = len(given.words) == wanted or (given.action == "history" and not given.words)
    if not enough or (given.action in VERBS and not (given.by and given.officer)):
        err.print(f"use it as: isr-hub agreements {given.action} {usage}".rstrip(), markup=False)
        return MISUSED
    if given.action == "schema":
        print(schema_text(), end="")
        return GOOD
    if given.action == PROPOSE and not Path(given.words[0]).is_file():
        raise NotFound("there is no such file")
    settings = from_environment(data=given.data)
    with open_hub(settings, alone=False) as hub:
        if given.action == "history":
            return _history(hub, given, out)
        taken = take(
            hub, given.action, given.words, hub.register.officer(given.by, given.officer), given.content or ""
        )
    life = taken.life
    if given.json:
        _json(
            {
                "agreement": life.agreement,
                "version": life.version,
                "content": life.content,
                "state": life.state,
                "message": taken.message,
                "changed": taken.changed,
            }
        )
    else:
        out.print(f"{life.name} is {life.state}; content {life.content}", markup=False, soft_wrap=True)
        if taken.changed:
            out.print("What is in force changed: running processes follow within a second.")
    return GOOD


def _history(hub: Hub, given: argparse.Namespace, out: Console) -> int:
    """The steps of one agreement, or where each stands; what in the folder does not count."""
    if given.words:
        steps = hub.register.history(given.words[0])
        if not steps:
            raise NotFound("the ledger has no step of such an agreement")
        if given.json:
            _json(steps)
            return GOOD
        table = _table("entry", "at", "step", "version", "state", "by", "officer", "content")
        for s in steps:
            content = s["content"] if "content" in s else s["set"]
            version = str(s.get("version", f"{len(s.get('agreements', {}))} documents"))
            state, officer = s.get("state", "in force"), s.get("officer", "")[:8]
            table.add_row(
                str(s["entry"]), s["at"], s["step"], version, state, s["party"], officer, content[:16]
            )
        out.print(table)
        return GOOD
    today = hub.clock().astimezone(NEW_ZEALAND).date()
    shown, troubles = hub.register.shown(today), hub.register.troubles()
    if given.json:
        _json(
            {
                "in_force": hub.agreements.version_hash,
                "agreements": [
                    {
                        "agreement": life.agreement,
                        "version": life.version,
                        "state": word,
                        "content": life.content,
                        "approved_by": [officer.party for officer in life.approvals],
                        "superseded_by": life.superseded_by,
                    }
                    for life, _, word in shown
                ],
                "troubles": [t.line() for t in troubles],
            }
        )
    else:
        table = _table("agreement", "state", "from", "to", "approved by", "content")
        for life, agreement, word in shown:
            start = agreement.effective_from.isoformat() if agreement else ""
            end = agreement.effective_to.isoformat() if agreement and agreement.effective_to else ""
            by = ", ".join(officer.party for officer in life.approvals)
            table.add_row(life.name, word, start, end, by or "baseline", life.content[:16])
        out.print(table)
        for trouble in troubles:
            out.print(f"not in force: {trouble.line()}", markup=False, soft_wrap=True)
    return WRONG if troubles else GOOD


def run_recalls(given: argparse.Namespace, out: Console, err: Console) -> int:
    """`isr-hub recalls list` and `recalls settle DISCLOSURE`."""
    settling = given.action == "settle"
    if settling and not (given.disclosure and given.by and given.officer):
        err.print("use it as: isr-hub recalls settle DISCLOSURE --by PARTY --officer NAME", markup=False)
        return MISUSED
    with open_hub(from_environment(data=given.data), alone=False) as hub:
        if settling:
            number = settle(hub, given.disclosure, hub.register.officer(given.by, given.officer))
            said = {"disclosure": given.disclosure, "entry": number}
            _json(said) if given.json else out.print(f"settled: ledger entry {number}")
            return GOOD
        with reading(hub.engine).connect() as connection:
            tasks = recalls.tasks(connection)
    if given.json:
        _json([task._asdict() for task in tasks])
        return GOOD
    table = _table("disclosure", "at", "recalled from", "holder", "reason", "settled")
    for task in tasks:
        settled = "open" if task.settled is None else f"entry {task.settled}"
        table.add_row(task.disclosure, task.at, task.party, task.holder, task.reason, settled)
    out.print(table)
    return GOOD


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))
