"""What agencies without a public message format share in their JSON: the person, the reports any of them may
send, the written notice.

All of it is an assumed contract, described in docs/formats/notice.md; `adapters.shape` reads it, `write`
writes it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from adapters.adapter import Native
from adapters.record import MEDIA_TYPE, Record
from adapters.shape import (
    NOTHING,
    Field,
    Place,
    Shape,
    Take,
    code,
    each,
    flag,
    line,
    local_code,
    matching,
    may,
    need,
    negated,
    only_true,
    party_id,
    past_day,
    past_instant,
    phone_number,
    ref,
    text,
    token,
    whole,
    within,
)
from schemas.clock import NEW_ZEALAND, instant_of
from schemas.message import Message

_MOST_PEOPLE = 60  # as the catalogue allows


ADDRESS: Shape = {
    "street": need("line1", line),
    "suburb": may("suburb", line),
    "town": need("city", line),
    "postcode": may("postcode", matching(re.compile(r"[0-9]{4}"), "is not a postcode", "send four digits")),
}
address = within(ADDRESS)
name = within({"family": need("family", line), "given": need("given", line), "other": may("other", line)})
school = within(
    {
        "name": need("name", line),
        "number": may(
            "number", matching(re.compile(r"[0-9]{1,5}"), "is not a school number", "send up to five digits")
        ),
    }
)
worker = within({"name": need("name", line), "phone": may("phone", phone_number)})
risk_level = code("low", "medium", "high")
site = code(
    "waikato-city",
    "waikato-rural",
    "christchurch",
    say={"Hamilton": "waikato-city", "Canterbury": "christchurch"},
)
gender = code(
    "male",
    "female",
    "another",
    "unknown",
    say={"M": "male", "F": "female", "X": "another", "U": "unknown", "Gender diverse": "another"},
)
# Stats NZ ethnicity, level 1; any code of levels 1 to 4 is taken as it is.
_ETHNICITY = {
    "European": "1", "New Zealand European": "11111", "Pākehā": "11111", "Māori": "2", "Pacific Peoples": "3",
    "Pacific": "3", "Asian": "4", "Middle Eastern/Latin American/African": "5", "African": "53",
    "Other": "6", "Not stated": "99", "Unknown": "94",
}  # fmt: skip
ethnicity = code(*(str(level) for level in (1, 2, 3, 4, 5, 6, 9)), say=_ETHNICITY)


def ethnic_group(value: Any, at: Place) -> Any:
    """An ethnicity in words or as a Stats NZ code of any level."""
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,4}", value):
        return value
    return ethnicity(value, at)


_CHANNELS = code(
    "call",
    "text",
    "voicemail",
    "email",
    "in-person",
    "through-worker",
    say={"SMS": "text", "Visit": "in-person", "Phone": "call"},
)
safe_contact = within(
    {
        "safeToContact": need("doNotContact", negated),
        "by": may("channels", each(_CHANNELS, 6)),
        "times": may("times", line),
        "codeWord": may("codeWord", line),
        "leaveMessage": may("leaveMessage", flag),
        "confirmedOn": may("confirmedOn", past_day),
    }
)
_PHONE: Shape = {
    "number": need("number", phone_number),
    "type": may("kind", code("mobile", "landline", "work", say={"Cell": "mobile", "Home": "landline"})),
    "preferred": may("preferred", flag),
}
_PHONES = each(within(_PHONE), 10)


def phones(value: Any, at: Place) -> Any:
    """A person's telephone numbers, at most ten; the one marked `preferred` also stands alone, for the
    reduced view."""
    numbers = _PHONES(value, at)
    if numbers is NOTHING:
        return NOTHING
    found: dict[str, Any] = {"phones": [{k: v for k, v in n.items() if k != "preferred"} for n in numbers]}
    wanted = [found["phones"][i] for i, n in enumerate(numbers) if n.get("preferred")]
    if len(wanted) > 1:
        return at.wrong("has several preferred numbers", "mark one number as preferred")
    return {**found, "preferredPhone": wanted[0]} if wanted else found


def placed(person: dict[str, Any]) -> None:
    """Gives *person* the area of the address, which is all that a reduced view shows of it. The safe address
    never yields one."""
    if where := person.get("address"):
        person["area"] = ", ".join(where[part] for part in ("suburb", "city") if part in where)[:200]


RELATIONSHIP = code(
    "partner", "ex-partner", "intermittent", "parent", "child", "sibling", "other",
    say={"Spouse": "partner", "De facto": "partner", "Former partner": "ex-partner",
         "On and off": "intermittent"},
)  # fmt: skip
relationship = within(
    {"to": need("to", ref), "kind": need("kind", RELATIONSHIP), "statedBy": may("statedBy", ref)}
)
_GANG = code("member", "associate", "none", say={"Patched member": "member", "Prospect": "associate"})
# A mandatory request (Oranga Tamariki Act 1989 s 66): what answers it carries the bar on other uses.
SUPPLIED_UNDER = code(say={"s 66": "OTA66", "OTA66": "OTA66"})
_ROLE = code("victim", "child", "perpetrator", "witness", "associate")


def person_shape(label: str, role: Take = _ROLE, **own: Field) -> Shape:
    """The fields of a person whom the sender calls by *label* in *role*; *own* are the sender's own fields
    beside them."""
    return {
        label: need("ref", ref),
        "role": need("role", role),
        "name": may("name", name),
        "aliases": may("aliases", each(name, 20)),
        "birthDate": may("birthDate", past_day),
        "gender": may("gender", gender),
        "ethnicities": may("ethnicities", each(ethnic_group, 6)),
        "address": may("address", address),
        "safeAddress": may("safeAddress", address),
        "whereaboutsProtected": may("whereaboutsProtected", only_true),
        "phones": may("*", phones),
        "safeContact": may("safeContact", safe_contact),
        "school": may("school", school),
        "unborn": may("unborn", flag),
        "livesWith": may("livesWith", each(ref, 20)),
        "representative": may("representative", ref),
        "gang": may("gang", _GANG),
        "relationships": may("relationships", each(relationship, 20)),
        **own,
    }


def people_of(shape: Shape) -> Take:
    """The people of a record, each of *shape*."""
    return each(within(shape, placed), _MOST_PEOPLE, least=1)


_TASK_STATUS = code(
    "accepted",
    "done",
    "not-possible",
    "reviewed",
    say={"Completed": "done", "Unable to complete": "not-possible"},
)
_URGENCY = code(
    "24h",
    "48h",
    "7d",
    "20d",
    say={"Critical": "24h", "Very urgent": "48h", "Urgent": "7d", "Low urgent": "20d"},
)
_CONCERN = code("emotional-abuse", "physical-abuse", "neglect", "exposure-to-family-harm", "sexual-abuse")
_NOTIFIER = within(
    {"name": need("name", line), "phone": may("phone", phone_number), "agency": may("agency", line)}
)
_HOLDING: Shape = {
    "person": need("person", ref),
    "held": need("held", flag),
    "priorEpisodes": may("priorEpisodes", whole(0, 1000)),
    "offences": may("offences", each(local_code, 100)),
    "sentence": may("sentence", code("none", "community", "prison", "remand")),
    "orders": may("orders", each(local_code, 20)),
    "firearmsAccess": may("firearmsAccess", flag),
    "gang": may("gang", _GANG),
    "note": may("note", text),
}


def shared_records(people: tuple[str, str], person: Shape, reference: Take) -> dict[str, Record]:
    """The four reports that any agency may send, with *people* and *person* as this agency writes them;
    *reference* takes its own name of a report of concern. See docs/formats/notice.md, "Reports of any
    agency"."""
    everyone: Shape = {people[0]: need("people", people_of(person))}

    def record(event: str, fields: Shape, **more: Any) -> Record:
        return Record(event, {**fields, **everyone}, ("reportId", "revision"), "sentAt", people, **more)

    return {
        "contact-details": record(
            "any.contact-details-reported",
            {"asOf": need("report.asOf", past_day), "site": may("report.site", site)},
        ),
        "information-response": record(
            "fss.information-provided",
            {
                "suppliedUnder": may("suppliedUnder", SUPPLIED_UNDER),
                "request": may("answer.request", token),
                "holdings": need("answer.records", each(within(_HOLDING), 60)),
            },
        ),
        "task-update": record(
            "fss.task-updated",
            {
                "to": may("to", party_id),
                "task": need("task.task", token),
                "person": need("task.person", ref),
                "status": need("task.status", _TASK_STATUS),
                "updatedAt": need("task.updatedAt", past_instant),
                "outcome": may("task.outcome", text),
            },
            fixed={"to": "fss"},
        ),
        "report-of-concern": record(
            "oranga-tamariki.report-of-concern-submitted",
            {
                "child": need("concern.child", ref),
                "reference": may("concern.reference", reference),
                "reportedAt": need("concern.reportedAt", past_instant),
                "urgency": may("concern.urgency", _URGENCY),
                "concerns": need("concern.kinds", each(_CONCERN, 5, least=1)),
                "detail": may("concern.detail", text),
                "notifier": may("concern.notifier", _NOTIFIER),
            },
            fixed={"to": "oranga-tamariki"},
        ),
    }


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How an agency names people: *roles* maps canonical roles to its words, *own* its identifier systems to
    the field that shows one."""

    roles: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)


CANONICAL = Vocabulary()


def write(message: Message, vocabulary: Vocabulary = CANONICAL) -> Native:
    """*message* as a notice: a head, the people under `about`, the rest of the data under `event`.

    Nothing is dropped and nothing is added: a property that was withheld is absent. Instants are in New
    Zealand time with their offset. Keys are ordered, so the same message gives the same bytes.
    """
    kind, _, version = message.type.removeprefix("nz.isr.").rpartition(".v")
    head = {
        "notice": kind,
        "version": int(version) if version.isascii() and version.isdigit() else version,
        "reference": message.id,
        "case": message.correlationid,
        "answers": message.causationid,
        "sent": _local(message.time),
        "from": message.origin or message.source,
    }
    body: dict[str, Any] = {name: value for name, value in head.items() if value is not None}
    data = _ordered(message.data)
    people = data.get("people")
    if isinstance(people, list):
        body["about"] = [_person(p, vocabulary) if isinstance(p, dict) else p for p in people]
    rest = {k: v for k, v in data.items() if k != "people" or "about" not in body}
    if rest:
        body["event"] = rest
    return Native(orjson.dumps(body, option=orjson.OPT_INDENT_2), MEDIA_TYPE, f"{message.id}.json")


def _person(person: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """*person* with `ref` and `role` first, the role in the agency's word, its own identifier as a field of
    its own."""
    shown: dict[str, Any] = {k: person[k] for k in ("ref", "role") if k in person}
    if isinstance(role := shown.get("role"), str):
        shown["role"] = vocabulary.roles.get(role, role)
    identifiers, kept = person.get("identifiers", ()), []
    systems = [i.get("system") for i in identifiers if isinstance(i, dict)]
    for one in identifiers:
        system = one.get("system") if isinstance(one, dict) else None
        # Two identifiers of one system, or more than system and value, do not fit a field: they stay as they
        # are.
        if (
            isinstance(system, str)
            and system in vocabulary.own
            and systems.count(system) == 1
            and set(one) == {"system", "value"}
        ):
            shown[vocabulary.own[system]] = one["value"]
        else:
            kept.append(one)
    for key, value in person.items():
        if key == "identifiers":
            if kept:
                shown[key] = kept
        elif key not in ("ref", "role"):
            shown[key] = value
    return shown


def _ordered(data: Mapping[str, Any]) -> dict[str, Any]:
    """*data* with the keys of every object in order and its instants in New Zealand time: JSON is put in
    order, searched and read again in less time than Python takes to go through it."""
    written = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
    ordered: dict[str, Any] = orjson.loads(_INSTANT.sub(_in_local_time, written))
    return ordered


# The catalogue names every instant `at` or `…At`; a conformance test holds it to that. Within a text a quote
# is escaped, so what stands before a colon here is a name and no value. Letters first: it is sought fast.
_INSTANT = re.compile(rb't":"(?:(?<=At":")|(?<="at":"))([^"\\]+)(?=")')


def _in_local_time(found: re.Match[bytes]) -> bytes:
    return b't":"' + _local(found[1].decode()).encode()


@lru_cache(maxsize=2048)  # every recipient's notice of one message has the same instants
def _local(moment: str) -> str:
    """*moment*, RFC 3339, in New Zealand time; anything else unchanged."""
    try:
        local = instant_of(moment).astimezone(NEW_ZEALAND)
    except (ValueError, OverflowError):
        return moment
    return local.isoformat(timespec="milliseconds" if local.microsecond else "seconds")
