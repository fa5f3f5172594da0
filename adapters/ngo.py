"""Specialist family-violence services (IVS, POS, WSW, LRR): engagement, safety plan progress, contact safety.

Every provider has a case system of its own; what they share is the form described in docs/formats/ngo.md, an
assumed contract. The same adapter serves every provider and capacity (`ngo.aviva#ivs`, `ngo.manaaki#pos`).
"""

from datetime import datetime
from typing import Any

from adapters import notice
from adapters.adapter import Native, Reading
from adapters.notice import people_of, person_shape, shared_records
from adapters.record import Format, Record
from adapters.shape import Place, Shape, code, flag, identifier, may, need, past_day, ref, text, within
from schemas.message import Message

_PEOPLE = ("people", "person")
VOCABULARY = notice.Vocabulary(own={"ngo-client": "clientNumber"})
_PERSON: Shape = person_shape("person", clientNumber=may("identifiers[]", identifier("ngo-client")))
_EVERYONE: Shape = {"people": need("people", people_of(_PERSON))}
_SERVICE = code(
    "ivs", "pos", "wsw", "lrr",
    say={
        "Independent Victim Specialist": "ivs",
        "Perpetrator Outreach Support": "pos",
        "Whānau Support Worker": "wsw",
        "Low Risk Response": "lrr",
    },
)  # fmt: skip
_OUTCOME = code(
    "support-accepted", "some-engagement", "declined", "statutory-only", "uncontactable-or-unsafe",
    "no-attempt",
    say={
        "Some engagement, no uptake": "some-engagement",
        "Statutory engagement only": "statutory-only",
        "Uncontactable": "uncontactable-or-unsafe",
        "Unsafe to contact": "uncontactable-or-unsafe",
    },
)  # fmt: skip
_RATING = code(say={"Worse": 1, "No change": 2, "Improved": 3, "Significantly improved": 4})


def _hours(value: Any, at: Place) -> Any:
    """Hours of support so far. The message counts whole hours: a part of an hour is rounded up, and
    reported.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1000:
        return at.wrong("is not a number of hours", "send hours from 0 to 1000")
    whole_hours = int(value)
    if whole_hours != value:
        at.no_place("has a part of an hour, which has no place in the message", "expect it rounded up")
        return whole_hours + 1
    return whole_hours


def _rating(value: Any, at: Place) -> Any:
    """The safety rating at close, 1 (worse) to 4 (significantly improved), in figures or in words."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 4:
        return value
    return _RATING(value, at)


FORMAT = Format(
    "form",
    {
        "engagement": Record(
            "ngo.engagement-reported",
            {
                "person": need("engagement.person", ref),
                "service": need("engagement.service", _SERVICE),
                "reportedOn": may("engagement.reportedOn", past_day),
                "outcome": need("engagement.outcome", _OUTCOME),
                "hours": may("engagement.hours", _hours),
                "safetyRating": may("engagement.safetyRating", _rating),
                "progress": may("engagement.progress", text),
                "views": may(
                    "engagement.views",
                    within(
                        {
                            "recorded": need("recorded", flag),
                            "sharing": may("sharing", code("share", "limit", "do-not-share")),
                            "statement": may("statement", text),
                        }
                    ),
                ),
                **_EVERYONE,
            },
            key=("formId", "revision"),
            at="completedAt",
            people=_PEOPLE,
        ),
        **shared_records(_PEOPLE, _PERSON, identifier("ngo-client")),
    },
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native*, JSON as docs/formats/ngo.md describes it, sent by *party*."""
    return FORMAT.read(native, party, now)


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # every provider reads the same notice
    """*message* as a notice; nothing that it holds is left out."""
    return notice.write(message, VOCABULARY)
