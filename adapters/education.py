"""Education: a child's enrolment and attendance, and that a school was told of family harm.

Schools' systems have no public message format for this; the assumed contract is
docs/formats/education.md. The national student number has limits of its own in the Education and
Training Act 2020 and is not taken in.
"""

from datetime import datetime
from typing import Any

from adapters import notice
from adapters.adapter import Native, Reading
from adapters.notice import SUPPLIED_UNDER, people_of, person_shape, school, shared_records
from adapters.record import Format, Record
from adapters.shape import (
    NOTHING,
    Place,
    Shape,
    code,
    each,
    flag,
    identifier,
    line,
    may,
    need,
    never,
    past_day,
    ref,
    token,
    whole,
    within,
)
from schemas.message import Message

_PEOPLE = ("people", "person")
VOCABULARY = notice.Vocabulary(own={"learner": "enrolmentNumber"})
_ROLES = code(
    "victim", "child", "perpetrator", "witness", "associate",
    say={"Pupil": "child", "Student": "child", "Ākonga": "child"},
)  # fmt: skip
_PERSON: Shape = person_shape(
    "person",
    role=_ROLES,
    enrolmentNumber=may("identifiers[]", identifier("learner")),
    nsn=may(
        "",
        never("is not carried", "leave the national student number out; send the school's enrolment number"),
    ),
)
_EVERYONE: Shape = {"people": need("people", people_of(_PERSON))}
_HALF_DAYS = within(
    {"possible": need("possible", whole(1, 1000)), "attended": need("attended", whole(0, 1000))}
)


def _share(value: Any, at: Place) -> Any:
    """Half-days attended of those possible, as schools count them; gives whole percent, rounded down so
    that a concern is not rounded away."""
    counted = _HALF_DAYS(value, at)
    if counted is NOTHING or len(counted) < 2:
        return NOTHING
    if counted["attended"] > counted["possible"]:
        return at.wrong("has more half-days attended than possible", "check the two counts")
    return counted["attended"] * 100 // counted["possible"]


FORMAT = Format(
    "return",
    {
        "attendance": Record(
            "education.attendance-reported",
            {
                "suppliedUnder": may("suppliedUnder", SUPPLIED_UNDER),
                "pupils": need(
                    "attendance",
                    each(
                        within(
                            {
                                "pupil": need("child", ref),
                                "concern": may("concern", flag),
                                "halfDays": may("percent", _share),
                                "school": may("school", school),
                            }
                        ),
                        60,
                        least=1,
                    ),
                ),
                **_EVERYONE,
            },
            key=("returnId", "revision"),
            at="preparedAt",
            people=_PEOPLE,
        ),
        "school-notified": Record(
            "education.school-notified",
            {
                "pupil": need("notice.child", ref),
                "task": may("notice.task", token),
                "notifiedOn": need("notice.notifiedOn", past_day),
                "designatedPerson": may("notice.designatedPerson", line),
                **_EVERYONE,
            },
            key=("returnId", "revision"),
            at="preparedAt",
            people=_PEOPLE,
        ),
        **shared_records(_PEOPLE, _PERSON, identifier("learner")),
    },
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native*, JSON as docs/formats/education.md describes it, sent by *party*."""
    return FORMAT.read(native, party, now)


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # every school reads the same notice
    """*message* as a notice; nothing that it holds is left out."""
    return notice.write(message, VOCABULARY)
