"""New Zealand Police: family-harm episodes (5F) from mobile capture, reports of concern, answers, tasks.

Police's own format is not public. This one follows what is: the attendance code 5F, roles of an event, risk
instruments SAFVR and DYRA, Police Safety Orders (Family Violence Act 2018, part 3). Instruments are
carried as opaque evidence, never recomputed. The assumed contract is docs/formats/police.md.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from adapters import notice
from adapters.adapter import Native, Reading
from adapters.notice import address, people_of, person_shape, shared_records
from adapters.record import Format, Record
from adapters.shape import (
    Place,
    Shape,
    code,
    each,
    flag,
    identifier,
    line,
    local_code,
    may,
    need,
    past_instant,
    ref,
    text,
    whole,
    within,
)
from schemas.clock import NEW_ZEALAND, instant_of
from schemas.message import Message

_PEOPLE = ("persons", "line")
_EVENT_NUMBER = r"P[0-9]{6,10}"
_ROLES = {
    "Predominant aggressor": "perpetrator",
    "Primary victim": "victim",
    "Victim": "victim",
    "Child exposed": "child",
    "Child or young person exposed": "child",
    "Witness": "witness",
    "Informant": "witness",
    "Associate": "associate",
    "Other person": "associate",
}
VOCABULARY = notice.Vocabulary(
    roles={
        "perpetrator": "Predominant aggressor",
        "victim": "Primary victim",
        "child": "Child exposed",
        "witness": "Witness",
        "associate": "Associate",
    },
    own={"police-person": "personRecordId", "police-event": "eventNumber"},
)

# Which station works which site: an assumption until the sites' boundaries are agreed.
_STATIONS: Mapping[str, tuple[str, ...]] = {
    "waikato-city": (
        "Hamilton", "Hamilton Central", "Hamilton East", "Hamilton West", "Hillcrest", "Flagstaff",
    ),
    "waikato-rural": (
        "Cambridge", "Coromandel", "Huntly", "Kāwhia", "Matamata", "Morrinsville", "Ngāruawāhia",
        "Ōtorohanga", "Paeroa", "Piopio", "Putāruru", "Raglan", "Tairua", "Te Aroha", "Te Awamutu",
        "Te Kauwhata", "Te Kūiti", "Thames", "Tīrau", "Tokoroa", "Waihi", "Whangamatā", "Whitianga",
    ),
    "christchurch": (
        "Akaroa", "Ashburton", "Christchurch", "Christchurch Central", "Hornby", "Kaiapoi", "Lincoln",
        "Lyttelton", "New Brighton", "Papanui", "Rangiora", "Rolleston",
    ),
}  # fmt: skip
_SITE = code(
    say={station: site for site, stations in _STATIONS.items() for station in stations},
    see="the stations in docs/formats/police.md",
)


_HARMS = each(code("verbal", "physical", "threats", "property-damage", say={"Sexual": "sexual"}), 6, least=1)


def _nature(value: Any, at: Place) -> Any:
    """What harm was done. Sexual harm is told apart: it is of another data class than the other kinds."""
    kinds = _HARMS(value, at)
    if not isinstance(kinds, list):
        return kinds
    found: dict[str, Any] = {"harms": list(dict.fromkeys(k for k in kinds if k != "sexual"))}
    return {**found, "sexualHarm": True} if "sexual" in kinds else found


def _opaque(value: Any, at: Place) -> Any:
    """What an instrument gave, a word or a whole number, as evidence: the hub attaches no meaning to it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return line(value, at)


_NAME = within(
    {"surname": need("family", line), "forenames": need("given", line), "otherNames": may("other", line)}
)
_PERSON: Shape = person_shape(
    "line",
    role=code(say=_ROLES),
    name=may("name", _NAME),
    aliases=may("aliases", each(_NAME, 20)),
    personRecordId=may("identifiers[]", identifier("police-person")),
)
_EPISODE: Shape = {
    "eventNumber": need("episode.reference", identifier("police-event", _EVENT_NUMBER)),
    "attendanceCode": may("episode.attendance", code("5F")),
    "occurredAt": need("episode.occurredAt", past_instant),
    "station": need("episode.site", _SITE),
    "location": may("episode.place", address),
    "natureOfHarm": need("episode.*", _nature),
    "strangulation": may("episode.strangulation", flag),
    "childrenPresent": may("episode.childrenPresent", flag),
    "alcohol": may("episode.alcohol", flag),
    "drugs": may("episode.drugs", flag),
    "weapons": may("episode.weapons", each(code("knife", "blunt-object", "vehicle", "firearm", "other"), 6)),
    "firearms": may(
        "episode.firearms", within({"access": need("access", flag), "detail": may("detail", text)})
    ),
    "pso": may(
        "episode.safetyOrder",
        within(
            {
                "boundPerson": need("boundPerson", ref),
                "issued": need("issued", flag),
                "issuedAt": may("issuedAt", past_instant),
                "days": may("days", whole(1, 10)),
            }
        ),
    ),
    "breachOfOrder": may("episode.breachOfOrder", flag),
    "arrest": may(
        "episode.arrest",
        within(
            {
                "person": need("person", ref),
                "at": may("at", past_instant),
                "outcome": need(
                    "outcome",
                    code(
                        "remanded-in-custody",
                        "bailed",
                        "summonsed",
                        "released",
                        say={"RIC": "remanded-in-custody", "ROB": "bailed"},
                    ),
                ),
            }
        ),
    ),
    "riskAssessments": may(
        "episode.riskInstruments",
        each(
            within(
                {
                    "person": need("person", ref),
                    "instrument": need("instrument", local_code),
                    "version": need("version", local_code),
                    "value": need("value", _opaque),
                }
            ),
            20,
        ),
    ),
    "reportOfConcernMade": may("episode.reportOfConcernMade", flag),
    "dangersToVisitors": may("episode.dangers", each(code("dogs", "gang-pad", "firearms", "other"), 4)),
    "narrative": may("episode.narrative", text),
    "persons": need("people", people_of(_PERSON)),
}


def _dated(data: dict[str, Any]) -> None:
    # The reduced view shows the New Zealand date, not the hour.
    episode = data["episode"]
    episode["occurredOn"] = instant_of(episode["occurredAt"]).astimezone(NEW_ZEALAND).date().isoformat()


FORMAT = Format(
    "form",
    {
        "5F": Record(
            "police.episode-recorded",
            _EPISODE,
            key=("eventNumber", "revision"),
            at="reportedAt",
            people=_PEOPLE,
            fixed={"episode.kind": "family-harm"},
            finish=_dated,
        ),
        **shared_records(_PEOPLE, _PERSON, identifier("police-event", _EVENT_NUMBER)),
    },
)


def read(native: Native, party: str, now: datetime) -> Reading:
    """The messages in *native*, JSON as docs/formats/police.md describes it, sent by *party*."""
    return FORMAT.read(native, party, now)


def write(message: Message, party: str) -> Native:  # noqa: ARG001  # all Police systems read it
    """*message* as a notice with Police's words for roles; nothing that it holds is left out."""
    return notice.write(message, VOCABULARY)
