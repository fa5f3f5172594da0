"""Ministry of Justice: what a court decided, and protection, property and parenting orders.

Courts' case systems have no public message format; the assumed contract is docs/formats/justice.md. The bail
address and its conditions come in as the court set them: whether it lies too near is not for an adapter
to judge.
"""

from datetime import datetime

from adapters import notice
from adapters.adapter import Native, Reading
from adapters.notice import address, people_of, person_shape, shared_records
from adapters.record import Format, Record
from adapters.shape import Shape, code, each, identifier, line, local_code, may, need, past_day, ref, within
from schemas.message import Message

_PEOPLE = ("parties", "number")
_COURT_FILE = identifier("court-file", r"[A-Z]{2,4}-[0-9]{4}-[0-9]{3}-[0-9]{4,6}")  # CRI-2026-009-001234
VOCABULARY = notice.Vocabulary(own={"justice-person": "justicePersonId", "court-file": "courtFile"})
_ROLES = code(
    "victim", "child", "perpetrator", "witness", "associate",
    say={
        "Defendant": "perpetrator",
        "Respondent": "perpetrator",
        "Complainant": "victim",
        "Applicant": "victim",
        "Protected person": "victim",
        "Child of the family": "child",
    },
)  # fmt: skip
_PERSON: Shape = person_shape(
    "number", role=_ROLES, justicePersonId=may("identifiers[]", identifier("justice-person"))
)
_EVERYONE: Shape = {"parties": need("people", people_of(_PERSON))}
_RESULT = code(
    "convicted", "discharged", "withdrawn", "remanded-in-custody", "remanded-on-bail", "none-recorded",
    say={
        "Charge dismissed": "discharged",
        "Discharged without conviction": "discharged",
        "Charge withdrawn": "withdrawn",
        "RIC": "remanded-in-custody",
        "ROB": "remanded-on-bail",
        "No result recorded": "none-recorded",
    },
)  # fmt: skip
_ORDER = code(
    "protection", "property", "parenting", "occupation",
    say={
        "Protection order": "protection",
        "Temporary protection order": "protection",
        "Property order": "property",
        "Parenting order": "parenting",
        "Occupation order": "occupation",
    },
)  # fmt: skip
_IN_FORCE = code(
    say={"In force": True, "Temporary": True, "Discharged": False, "Lapsed": False, "Expired": False}
)
_CONDITIONS = each(line, 20)

FORMAT = Format(
    "document",
    {
        # A hearing may decide about several defendants; each result is a message of its own.
        "hearing-result": Record(
            "justice.court-outcome-recorded",
            {
                "courtFile": may("outcome.reference", _COURT_FILE),
                "court": may("outcome.court", line),
                "heardOn": may("outcome.heardOn", past_day),
                **_EVERYONE,
            },
            key=("hearingId", "revision"),
            at="enteredAt",
            people=_PEOPLE,
            split="results",
            entry={
                "defendant": need("outcome.person", ref),
                "result": need("outcome.result", _RESULT),
                "bail": may(
                    "outcome.*",
                    within(
                        {
                            "conditions": may("bailConditions", _CONDITIONS),
                            "address": may("bailAddress", address),
                        }
                    ),
                ),
                "offenceCodes": may("outcome.offences", each(local_code, 50)),
            },
            entry_key=("item",),
        ),
        "order": Record(
            "justice.order-made",
            {
                "respondent": need("order.restrained", ref),
                "protected": may("order.protected", each(ref, 20)),
                "type": need("order.kind", _ORDER),
                "status": need("order.inForce", _IN_FORCE),
                "madeOn": may("order.madeOn", past_day),
                "conditions": may("order.conditions", _CONDITIONS),
                "protectedAddress": may("order.protectedAddress", address),
                **_EVERYONE,
            },
            key=("orderId", "revision"),
            at="sealedAt",
            people=_PEOPLE,
        ),
        **shared_records(_PEOPLE, _PERSON, _COURT_FILE),
    },
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native*, JSON as docs/formats/justice.md describes it, sent by *party*."""
    return FORMAT.read(native, party, now)


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # one system reads for every court
    """*message* as a notice; nothing that it holds is left out."""
    return notice.write(message, VOCABULARY)
