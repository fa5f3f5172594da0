"""Why each party got what it got of a message, from the ledger alone: nothing is decided again.

`explain` is for privacy officers and operators (the command, the console). `outward` is the answer to the
sender, and says no more than an asker may hear: refused, referred, restricted and not found are one thing
(safety rule V8).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from consent.agreement import OBLIGATIONS
from consent.conditions import CONDITIONS, meaning
from consent.entry import referred, withheld
from consent.guards import GUARDS
from consent.referral import CAPACITIES, REASONS
from consent.waiting import referral_id
from gateway import queries
from gateway.hub import Hub
from schemas.classes import CLASSES
from schemas.errors import InvalidMessage, NotFound, Problem, UnknownType

DELIVERED, ON_ITS_WAY, NOT_SHARED = "delivered", "on its way", "not shared"
OUTCOMES = {
    "permit": "given in full",
    "reduced": "given in part",
    "refer": "waits for a person of the holder agency",
    "refuse": "not given",
}
_REASONS = {
    "no-clause": "no clause in force grants it",
    "needs-person": "a person of the holder agency decides",
    "reduced-view": "the clause grants the reduced view only",
    "names-alone": "names are not sent without what the message is about",
    "nothing-to-give": "the message holds nothing for this party",
    "unknown-party": "the party is not in the agreements, or not active",
    "unknown-source": "the sender is not in the agreements, or not active",
    "no-time": "the time of the decision was not known",
    "told-in-person": "a person of the holder told it outside the hub",
}


def outward(hub: Hub, sender: str, message: str) -> dict[str, Any] | None:
    """What *sender* may know of its own *message*, once somebody that it may know of was given some of it: a
    state for every party at the table, or for the addressee of a message to one party. None otherwise.

    SAFETY: None stands alike for unknown, somebody else's, not yet carried, belonging to no case, and given
    to nobody: otherwise sending a message about somebody would tell whether that person is known here. All
    parties at the table are listed, whatever the site, and no other: which provider received something tells
    who works with a family, and where.
    """
    rows = queries.decisions_on(hub.engine, message, sender)
    shared = {
        row.body["party"]: row.body["disclosure"]
        for row in rows
        if "disclosure" in row.body and _may_be_named(hub, row.body)
    }
    # What a person of the sender's own agency released afterwards went to the same parties.
    for index, answer in _answers(hub, rows).items():
        body = next(row.body for row in rows if row.index == index)
        if "disclosure" in answer.body and _may_be_named(hub, body):
            shared[body["party"]] = answer.body["disclosure"]
    ended = queries.deliveries_of(hub.engine, list(shared.values()))
    if not shared:
        return None
    if _is_addressed(hub, rows[0].body["type"]):
        named = sorted(shared)
    else:
        named = [p.id for _, p in sorted(hub.agreements.parties.items()) if p.table and p.id != sender]
    return {
        "id": message,
        "recipients": [
            {"party": party, "state": _outward_state(shared[party], ended) if party in shared else NOT_SHARED}
            for party in named
        ],
    }


def _may_be_named(hub: Hub, decision: Mapping[str, Any]) -> bool:
    recipient = hub.agreements.parties.get(decision["party"])
    return recipient is not None and (recipient.table or _is_addressed(hub, decision["type"]))


def _outward_state(disclosure: str, ended: Mapping[str, queries.Row]) -> str:
    end = ended.get(disclosure)
    if end is None:
        return ON_ITS_WAY
    return DELIVERED if end.body["outcome"] == "delivered" else NOT_SHARED


def _is_addressed(hub: Hub, type: str) -> bool:
    try:
        return hub.catalogue[type].audience == "addressee"
    except UnknownType:  # a type of a former release
        return False


def explain(hub: Hub, message: str, source: str = "") -> dict[str, Any]:
    """Every decision on *message* (its id, or the id of a disclosure that came of it), as plain JSON:

    {message, source, type, title, at, purpose, purposes agreements, cases, signed, recipients: [ {party,
    name, outcome, outcome_says, state, entry, clauses: [{id, title}], basis, conditions: [{name, value,
    says}], given: [{role, class, title, view}], withheld: [{role, class, title, reason, says}], referred:
    [{role, class, title}], guards: [{code, says}], reasons: [{code, says}], obligations: [{code, says}],
    disclosure, delivery, decided: None or what a person of the holder decided on what was referred: {entry,
    outcome, says, reasons, capacity, approved: [{role, class, title}], disclosure, state}}]}

    Raises `NotFound` when the ledger has no decision on it; `InvalidMessage` when several senders used the id
    and *source* does not say which is meant. Holds nothing that is not in the ledger or the agreements.
    """
    rows = queries.decisions_on(hub.engine, message, source or None)
    if not rows:
        rows = _behind_disclosure(hub, message, source)
    senders = sorted({row.body["source"] for row in rows})
    if not rows:
        raise NotFound("the ledger has no decision on this message")
    if len(senders) > 1:
        raise InvalidMessage(
            "several senders use this id",
            Problem("source", "does not say which", "use " + " or ".join(senders)),
        )
    answers = _answers(hub, rows)
    released = [r.body["disclosure"] for r in (*rows, *answers.values()) if "disclosure" in r.body]
    ended = queries.deliveries_of(hub.engine, released)
    newest = hub.ledger.checkpoint()
    first = rows[0].body
    return {
        "message": first["message"],
        "source": first["source"],
        "source_name": party_name(hub, first["source"]),
        "type": first["type"],
        "title": type_title(hub, first["type"]),
        "at": first["at"],
        "purpose": first["purpose"],
        "agreements": first["agreements"],
        "cases": first["cases"],
        "signed": newest is not None and rows[-1].index < newest.size,
        "recipients": [_recipient(hub, row, ended, answers.get(row.index)) for row in rows],
    }


def _answers(hub: Hub, rows: Iterable[queries.Row]) -> dict[int, queries.Row]:
    """What people of the holder decided on what *rows* referred, by the row's index."""
    found: dict[int, queries.Row] = {}
    for row in rows:
        said = row.body
        if said["referred"]:
            id = referral_id(said["source"], said["message"], said["party"])
            for answer in queries.decisions_on(hub.engine, id, said["source"]):
                found[row.index] = answer
    return found


def _decided(answer: queries.Row | None, ended: Mapping[str, queries.Row]) -> dict[str, Any] | None:
    if answer is None:
        return None
    said = answer.body
    return {
        "entry": answer.index,
        "outcome": said["outcome"],
        "says": "approved" if "disclosure" in said else "not released",
        "reasons": [{"code": code, "says": reason_says(code)} for code in said["reasons"]],
        "capacity": said["decided_by"]["capacity"],
        "approved": [
            {"role": role, "class": name, "title": class_title(name)}
            for role, name in said.get("approved", ())
        ],
        "disclosure": said.get("disclosure"),
        "state": _state(said.get("disclosure"), ended),
    }


def _state(disclosure: str | None, ended: Mapping[str, queries.Row]) -> str:
    if disclosure is None:
        return ""
    end = ended.get(disclosure)
    return ON_ITS_WAY if end is None else str(end.body["outcome"])


def _behind_disclosure(hub: Hub, disclosure: str, source: str) -> list[queries.Row]:
    """The decisions on the message that *disclosure* came of."""
    end = queries.deliveries_of(hub.engine, [disclosure]).get(disclosure)
    released = queries.entry(hub.engine, end.body["disclosure"]) if end else None
    if released is None:
        return []
    return queries.decisions_on(hub.engine, released.body["message"], source or released.body["source"])


def _recipient(
    hub: Hub, row: queries.Row, ended: Mapping[str, queries.Row], answer: queries.Row | None
) -> dict[str, Any]:
    said = row.body
    disclosure = said.get("disclosure")
    end = ended.get(disclosure) if disclosure else None
    state = _state(disclosure, ended)
    return {
        "party": said["party"],
        "name": party_name(hub, said["party"]),
        "outcome": said["outcome"],
        "outcome_says": OUTCOMES.get(said["outcome"], said["outcome"]),
        "state": state,
        "entry": row.index,
        "clauses": [{"id": name, "title": clause_title(hub, name)} for name in said["clauses"]],
        "basis": said["basis"],
        "conditions": [
            {"name": name, "value": value, "says": condition_says(name)}
            for name, value in sorted(said["conditions"].items())
        ],
        "given": [
            {"role": role, "class": name, "title": class_title(name), "view": view or "full"}
            for role, names in said["given"].items()
            for name, _, view in (entry.partition(":") for entry in names)
            if name != "FRAME"
        ],
        "withheld": [
            {
                "role": role,
                "class": name,
                "title": class_title(name),
                "reason": code,
                "says": reason_says(code),
            }
            for role, name, code in withheld(said)
        ],
        "referred": [
            {"role": role, "class": name, "title": class_title(name)} for role, name in referred(said)
        ],
        "guards": [{"code": code, "says": reason_says(code)} for code in in_order(said["guards"])],
        "reasons": [{"code": code, "says": reason_says(code)} for code in said["reasons"]],
        "obligations": [{"code": code, "says": OBLIGATIONS.get(code, "")} for code in said["obligations"]],
        "disclosure": disclosure,
        "delivery": end.index if end else None,
        "decided": _decided(answer, ended),
    }


def party_name(hub: Hub, party: str) -> str:
    """The name of *party*, or its id when no agreement names it any more."""
    known = hub.agreements.parties.get(party)
    return known.name if known else party


def type_title(hub: Hub, type: str) -> str:
    """What a message of *type* says, in words; the type itself when it is of a former release."""
    try:
        return hub.catalogue[type].title
    except UnknownType:
        return type


def class_title(name: str) -> str:
    """What the data class *name* is, in words."""
    return CLASSES[name].title if name in CLASSES else ""


def condition_says(name: str) -> str:
    """What the condition *name* says, as a sentence; empty when it is of a former release."""
    return meaning(name) if name in CONDITIONS else ""


def reason_says(code: str) -> str:
    """What the reason or guard *code* means, in words."""
    if code in GUARDS:
        return GUARDS[code][0]
    if code.startswith("unmet-"):
        name = code.removeprefix("unmet-")
        return f"a condition was not met: {condition_says(name) or name}".rstrip(".")
    if code == "V9":
        return _REASONS["names-alone"]
    if code in REASONS:
        return REASONS[code].says
    return _REASONS.get(code, code)


def in_order(guards: Iterable[str]) -> list[str]:
    """*guards* (codes) in the order of the safety rules: V2 before V12."""
    # By the number in the code; codes without a safety rule's number come after.
    return sorted(
        guards, key=lambda code: (code[:1] != "V", int(code[1:] or 0) if code[1:].isdigit() else 0, code)
    )


def clause_title(hub: Hub, name: str) -> str:
    """What the clause cited as *name* (`AGREEMENT@version/CLAUSE`) is for; empty when that version is not in
    force.
    """
    for agreement in hub.agreements:
        for clause in (*agreement.clauses, *(glass.clause for glass in agreement.break_glass)):
            if agreement.name_of(clause) == name:
                return clause.belief.statement
    return ""


def print_explanation(found: Mapping[str, Any], out: Console) -> None:
    """Prints what `explain` *found* on *out*, one block per recipient."""
    out.print(Text(f"{found['title']}", style="bold"), soft_wrap=True)
    out.print(f"message {found['message']}", markup=False, soft_wrap=True)
    signed = "under a signed checkpoint" if found["signed"] else "not signed yet"
    out.print(
        f"from {found['source_name']} ({found['source']}), decided {found['at']}, "
        f"purpose {found['purpose']}, {signed}",
        markup=False,
        soft_wrap=True,
    )
    for one in found["recipients"]:
        out.print()
        out.print(_heading(one), soft_wrap=True)
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text in _lines(one):
            grid.add_row(label, Text(text))
        out.print(grid)


_STYLES = {"permit": "green", "reduced": "yellow", "refer": "magenta", "refuse": "red"}


def _heading(one: Mapping[str, Any]) -> Text:
    state = f", {one['state']}" if one["state"] else ""
    return Text.assemble(
        (one["name"], "bold"),
        f" ({one['party']}): ",
        (one["outcome_says"], _STYLES.get(one["outcome"], "")),
        f"{state}; ledger entry {one['entry']}",
    )


def _lines(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a person reads first comes first: what was given, then what was withheld for which reason."""
    lines = [("given", _by_role((g["role"], g["class"], g["view"] == "reduced") for g in one["given"]))]
    reasons: dict[tuple[str, str], list[tuple[str, str, bool]]] = {}
    for w in one["withheld"]:
        reasons.setdefault((w["reason"], w["says"]), []).append((w["role"], w["class"], False))
    lines += [
        ("withheld", f"{_by_role(items)}\n{code}: {says}") for (code, says), items in sorted(reasons.items())
    ]
    lines += [("referred", _by_role((r["role"], r["class"], False) for r in one["referred"]))]
    if (decided := one["decided"]) is not None:
        lines += [("decided", _decision_says(decided))]
    if not one["withheld"]:
        lines += [("reason", f"{r['code']}: {r['says']}") for r in one["reasons"]]
    held = {code for code, _ in reasons}
    lines += [("guard", f"{g['code']}: {g['says']}") for g in one["guards"] if g["code"] not in held]
    conditions = [f"{c['name']} {'yes' if c['value'] else 'no'}" for c in one["conditions"]]
    lines += [("conditions", ", ".join(conditions))]
    lines += [("clause", f"{c['id']}: {c['title']}") for c in one["clauses"]]
    lines += [("basis", "; ".join(one["basis"]))]
    lines += [("obligations", "; ".join(o["says"] or o["code"] for o in one["obligations"]))]
    return [(label, text) for label, text in lines if text]


def _decision_says(decided: Mapping[str, Any]) -> str:
    by = CAPACITIES.get(decided["capacity"], decided["capacity"])
    if decided["disclosure"] is None:
        why = "; ".join(r["says"] for r in decided["reasons"])
        return f"not released, by {by}: {why} (entry {decided['entry']})"
    what = _by_role((a["role"], a["class"], False) for a in decided["approved"])
    return f"approved by {by}: {what}, {decided['state']} (entry {decided['entry']})"


def _by_role(items: Iterable[tuple[str, str, bool]]) -> str:
    """(role, class, reduced) as `victim ID-CORE, RISK (reduced); child CP-STATUS`."""
    roles: dict[str, list[str]] = {}
    for role, name, reduced in items:
        roles.setdefault(role, []).append(f"{name} (reduced)" if reduced else name)
    return "; ".join(f"{role} {', '.join(names)}" for role, names in roles.items())
