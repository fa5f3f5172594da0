"""The Family Safety System: meeting lists, questions, tasks, risk, plans, and requests for alerts and
reviews.

FSS speaks for the ISR team and addresses parties by their ids. A list, a question and a set of tasks
concern many cases or parties at once; each part is a message of its own. The assumed contract is
docs/formats/fss.md.
"""

from datetime import datetime

from adapters import notice
from adapters.adapter import Native, Reading
from adapters.notice import people_of, person_shape, risk_level, shared_records, site
from adapters.record import Format, Record
from adapters.shape import (
    Field,
    Shape,
    code,
    day,
    each,
    identifier,
    instant,
    line,
    local_code,
    may,
    need,
    party_id,
    past_day,
    past_instant,
    ref,
    text,
    token,
    whole,
    within,
)
from schemas.message import Message

_PEOPLE = ("people", "person")
VOCABULARY = notice.Vocabulary(own={"fss-person": "fssPersonId"})
_PERSON: Shape = person_shape(
    "person",
    fssPersonId=may("identifiers[]", identifier("fss-person")),
    # A recipient gets its own number back, so that it finds the person, and nobody else's.
    policePersonId=may("identifiers[]", identifier("police-person")),
    prn=may("identifiers[]", identifier("prn", "[0-9]{5,10}")),
    cyrasId=may("identifiers[]", identifier("cyras", "[0-9]{4,12}")),
    swn=may("identifiers[]", identifier("swn", "[0-9]{9}")),
)
_EVERYONE: Shape = {"people": need("people", people_of(_PERSON))}
_NAMED = ("reference", "revision")
_TASK_KIND = code(
    "make-contact", "share-information", "source-information", "allocate-specialist", "liaise",
    "professionals-meeting", "immediate-safety-action", "other-action", "set-review-date",
    "alarm-or-home-security",
)  # fmt: skip
_SERVICE = code("ivs", "pos", "wsw", "lrr")


def _record(event: str, fields: Shape, **split: object) -> Record:
    return Record(event, fields, key=_NAMED, at="sentAt", people=_PEOPLE, **split)  # type: ignore[arg-type]


def _about(path: str) -> Field:
    return need(path, ref)


_ALERT: Shape = {
    "to": need("to", party_id),
    "person": _about("alert.person"),
    "code": need("alert.code", code("C01", "C02", "C03", "D01", "D02", "D03", "E01", "P01", "R01")),
    "startsOn": may("alert.startedOn", day),
    "reviewOn": need("alert.reviewOn", day),
    "endsOn": may("alert.endedOn", day),
    "contact": need("alert.contact", line),
}
_OPEN_TASK: Shape = {
    "task": need("task", token),
    "party": need("party", party_id),
    "dueAt": may("dueAt", instant),
}
FORMAT = Format(
    "kind",
    {
        "sam-list": _record(
            "fss.sam-list-published",
            {
                "meetingOn": need("list.meetingOn", day),
                "site": need("list.site", site),
                "of": need("list.of", whole(1, 2000)),
            },
            split="cases",
            entry={
                "item": need("list.item", whole(1, 2000)),
                "type": need("list.kind", code("episode", "prison-release")),
                "occurredOn": may("list.occurredOn", past_day),
                "risk": may("list.riskLevel", risk_level),
                "conflicts": may("list.conflicts", each(party_id, 50)),
                "openTasks": may("list.openTasks", each(within(_OPEN_TASK), 200)),
                **_EVERYONE,
            },
            entry_key=("item",),
        ),
        "information-request": _record(
            "fss.information-requested",
            {
                "reference": need("request.request", token),
                "purpose": need("request.purpose", code("FV-RISK", "FV-PLAN", "FV-PROTECT", "CW-ASSESS")),
                "site": may("request.site", site),
                "occurredOn": may("request.occurredOn", past_day),
                **_EVERYONE,
            },
            split="ask",
            entry={
                "to": need("to", party_id),
                "asks": need("request.asks", each(local_code, 40, least=1)),
                "dueAt": may("request.dueAt", instant),
            },
            entry_key=("number",),
        ),
        "tasks": _record(
            "fss.task-assigned",
            {
                "risk": may("task.riskLevel", risk_level),
                "episode": may(
                    "episode",
                    within(
                        {
                            "occurredOn": may("occurredOn", past_day),
                            "type": need("kind", code("prison-release", say={"Episode": "family-harm"})),
                        }
                    ),
                ),
                **_EVERYONE,
            },
            split="tasks",
            entry={
                "to": need("to", party_id),
                "task": need("task.task", token),
                "person": _about("task.person"),
                "kind": need("task.kind", _TASK_KIND),
                "dueAt": need("task.dueAt", instant),
                "detail": may("task.detail", text),
            },
            entry_key=("task",),
        ),
        "risk": _record(
            "fss.risk-assessed",
            {
                "level": need("risk.level", risk_level),
                "previous": may("risk.previous", risk_level),
                "assessedAt": need("risk.assessedAt", past_instant),
                "instrument": may("risk.instrument", local_code),
                "version": may("risk.version", local_code),
                "factors": may("risk.factors", each(local_code, 50)),
                "rationale": need("risk.rationale", text),
                **_EVERYONE,
            },
        ),
        "plan-opened": _record(
            "fss.plan-opened",
            {
                "plan": need("plan.plan", token),
                "lead": need("plan.lead", party_id),
                "openedOn": need("plan.openedOn", past_day),
                "specialists": may(
                    "plan.specialists",
                    each(
                        within(
                            {
                                "party": need("party", party_id),
                                "person": _about("person"),
                                "service": need("service", _SERVICE),
                                "hours": may("hours", whole(0, 200)),
                                "weeks": may("weeks", whole(0, 52)),
                            }
                        ),
                        20,
                    ),
                ),
                "goals": may(
                    "plan.goals", each(within({"person": _about("person"), "goal": need("goal", text)}), 50)
                ),
                **_EVERYONE,
            },
        ),
        "plan-closed": _record(
            "fss.plan-closed",
            {
                "plan": need("plan.plan", token),
                "closedOn": need("plan.closedOn", past_day),
                "reason": need(
                    "plan.reason", code("goals-met", "declined", "moved-away", "duplicate", "other")
                ),
                "safetyRating": may("plan.safetyRating", whole(1, 4)),
                **_EVERYONE,
            },
        ),
        # An alert is a pointer for clinicians: never on a portal, to a proxy or in a letter, whatever FSS
        # says.
        "alert-request": Record(
            "health.alert-requested",
            {**_ALERT, **_EVERYONE},
            key=_NAMED,
            at="sentAt",
            people=_PEOPLE,
            fixed={
                "alert.display.portal": False,
                "alert.display.proxy": False,
                "alert.display.letter": False,
            },
        ),
        "entitlement-review": _record(
            "msd.entitlement-review-requested",
            {
                "to": need("to", party_id),
                "person": _about("review.person"),
                "task": may("review.task", token),
                "reviews": need(
                    "review.kinds",
                    each(
                        code(
                            "full-and-correct-entitlement",
                            "relocation",
                            "bond",
                            "phone-replacement",
                            say={"FACE": "full-and-correct-entitlement"},
                        ),
                        4,
                        least=1,
                    ),
                ),
                "dueAt": may("review.dueAt", instant),
                **_EVERYONE,
            },
        ),
        **shared_records(_PEOPLE, _PERSON, identifier("fss-person")),
    },
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native*, JSON as docs/formats/fss.md describes it, sent by *party*."""
    return FORMAT.read(native, party, now)


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # there is one FSS
    """*message* as a notice; nothing that it holds is left out."""
    return notice.write(message, VOCABULARY)
