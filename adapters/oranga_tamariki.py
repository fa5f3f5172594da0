"""Oranga Tamariki: decisions on reports of concern, how a child is known, and the reports of any agency.

Decisions are those of the Intake and Decision Response tool (practice centre). Oranga Tamariki's system
CYRAS has no public message format; the assumed contract is docs/formats/oranga-tamariki.md.
"""

from datetime import datetime

from adapters import notice
from adapters.adapter import Native, Reading
from adapters.notice import SUPPLIED_UNDER, people_of, person_shape, shared_records, worker
from adapters.record import Format, Record
from adapters.shape import Shape, code, day, each, flag, identifier, may, need, past_day, ref, within
from schemas.message import Message

_PEOPLE = ("people", "person")
_ROLES = code(
    "victim", "child", "perpetrator", "witness", "associate",
    say={
        "Tamaiti": "child",
        "Rangatahi": "child",
        "Caregiver": "associate",
        "Whānau": "associate",
        "Alleged perpetrator": "perpetrator",
    },
)  # fmt: skip
VOCABULARY = notice.Vocabulary(own={"cyras": "cyrasId"})

_DECISION = code(
    "no-further-action", "referred-to-service", "child-and-family-assessment", "investigation",
    "additional-information",
    say={
        "NFA": "no-further-action",
        "Refer to service": "referred-to-service",
        "FAR-CFA": "child-and-family-assessment",
        "FAR-INV": "investigation",
        "Additional intake information": "additional-information",
    },
)  # fmt: skip
_CUSTODY = code(
    "parents", "chief-executive", "whanau", "other", say={"s101 Chief Executive": "chief-executive"}
)

_PERSON: Shape = person_shape(
    "person", role=_ROLES, cyrasId=may("identifiers[]", identifier("cyras", r"[0-9]{4,12}"))
)
_EVERYONE: Shape = {"people": need("people", people_of(_PERSON))}

FORMAT = Format(
    "record",
    {
        # One intake may decide about several children; each decision is a message of its own.
        "intake-decision": Record(
            "oranga-tamariki.report-of-concern-outcome",
            _EVERYONE,
            key=("intakeId", "revision"),
            at="recordedAt",
            people=_PEOPLE,
            split="decisions",
            entry={
                "child": need("outcome.child", ref),
                "decision": need("outcome.decision", _DECISION),
                "decidedOn": need("outcome.decidedOn", past_day),
                "involved": need("outcome.involved", flag),
                "socialWorker": may("outcome.socialWorker", worker),
            },
            entry_key=("number",),
        ),
        "child-involvement": Record(
            "oranga-tamariki.child-involvement-reported",
            {
                "suppliedUnder": may("suppliedUnder", SUPPLIED_UNDER),
                "children": need(
                    "involvement",
                    each(
                        within(
                            {
                                "child": need("child", ref),
                                "known": need("involved", flag),
                                "openFile": may("openFile", flag),
                                "socialWorker": may("socialWorker", worker),
                                "custody": may("custody", _CUSTODY),
                                "groupConferenceOn": may("groupConferenceOn", day),
                            }
                        ),
                        60,
                        least=1,
                    ),
                ),
                **_EVERYONE,
            },
            key=("checkId", "revision"),
            at="recordedAt",
            people=_PEOPLE,
        ),
        **shared_records(_PEOPLE, _PERSON, identifier("cyras", r"[0-9]{4,12}")),
    },
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native*, JSON as docs/formats/oranga-tamariki.md describes it, sent by *party*."""
    return FORMAT.read(native, party, now)


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # one system reads for every site
    """*message* as a notice; nothing that it holds is left out."""
    return notice.write(message, VOCABULARY)
