"""An agreement in plain English, made from the same file that decides: who gives what about whom to whom,
why, by which law, and under which conditions.

Deterministic: the same file gives the same text, so that what was signed can be compared with what is in
force. Every word stands for one in the file; nothing is summed up.
"""

import textwrap
from collections.abc import Iterable, Iterator
from datetime import date

from consent.agreement import Agreement, Agreements, Clause
from consent.clause import ANY, LOCKED, NEVER_GRANTED, OBLIGATIONS, THREATS
from consent.conditions import meaning
from consent.guards import GUARDS
from schemas.classes import CASE, CLASSES, SUBJECT_ROLES

_WIDTH = 100
KIND_NAMES = {
    "POL": "Police",
    "OT": "Oranga Tamariki",
    "COR": "Corrections",
    "HNZ": "Health New Zealand",
    "GP": "a general practitioner by name",
    "MSD": "the Ministry of Social Development",
    "ACC": "the Accident Compensation Corporation",
    "MOJ": "the Ministry of Justice",
    "EDU": "the child's own school",
    "NGOV": "a provider that works with victims and children",
    "NGOP": "a provider that works with perpetrators",
    "FSS": "the ISR team's case system",
}
PURPOSE_NAMES = {
    "FV-RISK": "assessing the risk of family violence",
    "FV-PLAN": "planning against family violence",
    "FV-PROTECT": "protecting a victim of family violence",
    "CW-HARM": "preventing harm to a child",
    "CW-ASSESS": "assessing a child's need or risk",
    "CW-PLAN": "planning for a child",
    "CW-PREVENT": "preventing a child's offending or harm",
    "CW-SERVICE": "providing a service to a child",
    "CW-CARE": "a child in care",
    "CW-ROC": "a report of concern about a child",
}
_SUBJECTS = {
    CASE: "the occurrence as a whole",
    "victim": "a victim",
    "child": "a child",
    "perpetrator": "the perpetrator",
    "witness": "a witness",
    "associate": "somebody whose part is not known",
}


def agreement_text(agreements: Agreements, agreement: Agreement) -> str:
    """*agreement* as text of lines of at most 100 characters."""
    return "\n".join(_agreement(agreements, agreement)) + "\n"


def agreements_text(agreements: Agreements) -> str:
    """All of *agreements*, by id, and at the end what no clause overrides."""
    texts = [agreement_text(agreements, a) for a in sorted(agreements, key=lambda a: (a.id, a.version))]
    return "\n\n".join([*texts, "\n".join(_guards()) + "\n"])


def _agreement(agreements: Agreements, agreement: Agreement) -> Iterator[str]:
    title = f"{agreement.title} ({agreement.id}, version {agreement.version})"
    yield from (title, "=" * len(title), "")
    yield from _paragraph(agreement.purpose)
    end = f" and ends on {_day(agreement.effective_to)}" if agreement.effective_to else ""
    standing = (
        "" if agreement.status == "active" else f" It is {agreement.status}: nothing is given under it."
    )
    lead = agreements.parties[agreement.lead].name if agreement.lead in agreements.parties else agreement.lead
    yield from _paragraph(
        f"This agreement begins on {_day(agreement.effective_from)}{end}. It is to be reviewed by "
        f"{_day(agreement.review_by)}. {lead} leads it.{standing} What it does not give is withheld."
    )
    for clause in agreement.clauses:
        yield ""
        yield from _clause(agreements, clause)
    for glass in agreement.break_glass:
        yield ""
        yield from _clause(agreements, glass.clause)
        threats = _either(THREATS[threat] for threat in sorted(glass.threats))
        agreed = (
            "a second person must agree before it opens" if glass.approval == "before" else "it opens at once"
        )
        yield from _paragraph(
            f"This holds in an emergency only, while an override runs: when {threats}. It lasts "
            f"{glass.minutes} minutes at most; {agreed}, and it is reviewed within a working day. It never "
            f"opens {_classes(sorted(LOCKED & CLASSES.keys() - NEVER_GRANTED))}."
        )


def _clause(agreements: Agreements, clause: Clause) -> Iterator[str]:
    yield clause.id
    yield "-" * len(clause.id)
    sender = (
        "Any party" if ANY in clause.sources else _capital(_either(_kind(k) for k in sorted(clause.sources)))
    )
    reached = sorted(p.name for p in agreements.parties.values() if p.active and clause.to(p))
    recipient = _recipient(agreements, clause.recipient)
    yield from _paragraph(f"{sender} that holds it gives to {recipient}:")
    for role in SUBJECT_ROLES:
        full = [name for name, view in clause.grants.get(role, {}).items() if view == "full"]
        part = [name for name, view in clause.grants.get(role, {}).items() if view == "reduced"]
        asked = sorted(clause.refer.get(role, ()))
        subject = _SUBJECTS[role]
        if full:
            yield from _item(f"about {subject}: {_classes(full)}")
        if part:
            yield from _item(f"about {subject}, only the short form of: {_classes(part)}")
        if asked:
            yield from _item(
                f"about {subject}, only if a person of the agency that holds it agrees each time: "
                + _classes(asked)
            )
    yield from _paragraph("What for: " + _list(_purpose(p) for p in sorted(clause.purposes)) + ".")
    yield from _paragraph("By law: " + _list(str(b).partition(": ")[2] for b in clause.basis) + ".")
    belief = clause.belief
    kind = "In each case" if belief.kind == "case" else "As a standing decision"
    yield from _paragraph(
        f"Why: {belief.statement}. {kind}, so decided by {belief.decided_by} on {_day(belief.decided_on)}; "
        f"it holds until {_day(belief.until)}, and then this clause gives nothing more."
    )
    if clause.conditions:
        yield from _paragraph("Only if all of this is so:")
        for name in clause.conditions:
            yield from _item(f"{meaning(name)} ({name})")
    if clause.obligations:
        yield from _paragraph("Rules for whoever receives it:")
        for name in clause.obligations:
            yield from _item(f"{OBLIGATIONS[name]} ({name})")
    named = "; ".join(dict.fromkeys(reached))
    yield from _paragraph(f"This reaches today: {named}." if reached else "This reaches nobody today.")


def _guards() -> Iterator[str]:
    title = "What no clause overrides"
    yield from (title, "=" * len(title), "")
    for code, (protects, _) in GUARDS.items():
        yield from _item(f"{_capital(protects)} ({code})")
    yield from _item("Names are not sent alone, without the matter they belong to (V9)")


def _recipient(agreements: Agreements, recipient: str) -> str:
    if recipient in agreements.parties:
        return agreements.parties[recipient].name
    return _kind(recipient)


def _kind(kind: str) -> str:
    return f"{KIND_NAMES[kind]} ({kind})"


def _purpose(purpose: str) -> str:
    return f"{PURPOSE_NAMES[purpose]} ({purpose})"


def _classes(names: Iterable[str]) -> str:
    return "; ".join(f"{CLASSES[name].title} ({name})" for name in names)


def _list(words: Iterable[str]) -> str:
    return "; ".join(words)


def _either(words: Iterable[str]) -> str:
    return " or ".join(words)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _day(day: date) -> str:
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _item(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="  * ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
