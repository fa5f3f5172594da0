"""The sandbox's agencies: each reads what its adapter put into `received/`, looks into its own records, and
answers in its own format.

They know of the hub only their folders and the door. An agency finds people as its own system would: by its
own number, else by name and birth date.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from adapters.adapter import Native
from consent.people import fold
from gateway.sandbox import native
from gateway.sandbox.people import AGENCY_SYSTEM, Family, Person
from gateway.sandbox.population import Population
from schemas.clock import NEW_ZEALAND

Post = tuple[str, Native]
_CANONICAL = {
    "Predominant aggressor": "perpetrator",
    "Primary victim": "victim",
    "Child exposed": "child",
    "Witness": "witness",
    "Associate": "associate",
}
_NUMBERS = (
    "personRecordId",
    "cyrasId",
    "prn",
    "nhi",
    "swn",
    "claimantId",
    "justicePersonId",
    "enrolmentNumber",
    "fssPersonId",
)


@dataclass(frozen=True, slots=True)
class Notice:
    """A file that an agency received: a written notice, a FHIR flag or a CSV request, as far as the sandbox
    reads it.
    """

    kind: str
    reference: str
    case: str | None
    answers: str | None
    about: tuple[Mapping[str, Any], ...]
    event: Mapping[str, Any]

    def subject(self, ref: str) -> Mapping[str, Any]:
        """The person whom the event calls *ref*; empty when the hub withheld the person."""
        return next((p for p in self.about if p.get("ref") == ref), {})


class Inbox:
    """An agency's folder of received files; each file is given out once, in the order of sending."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[str] = set()

    def new(self) -> list[Notice]:
        """What arrived since the last look."""
        files = (
            [f for f in self._folder.glob("*") if f.name not in self._seen] if self._folder.exists() else []
        )
        self._seen.update(f.name for f in files)
        found = [(*self._read(f), f.name) for f in files]
        return [notice for _, notice, _ in sorted(found, key=lambda one: (one[0], one[2]))]

    def _read(self, file: Path) -> tuple[str, Notice]:
        if file.suffix == ".csv":
            row = next(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
            about = {
                "ref": "p1",
                "swn": row["SWN"],
                "birthDate": "-".join(reversed(row["BIRTH DATE"].split("/"))),
            }
            about |= {"name": {"family": row["FAMILY NAME"], "given": row["GIVEN NAMES"]}}
            event = {"review": {"task": row["TASK"], "person": "p1"}}
            return "", Notice("msd.entitlement-review-requested", row["REQUEST"], None, None, (about,), event)
        said = json.loads(file.read_text(encoding="utf-8"))
        if said.get("resourceType") == "Flag":
            return "", Notice(
                "health.alert-requested", said["id"], None, None, tuple(_patients(said)), {"flag": said}
            )
        return said["sent"], Notice(
            said["notice"],
            said["reference"],
            said.get("case"),
            said.get("answers"),
            tuple(said.get("about", ())),
            said.get("event", {}),
        )


def _patients(flag: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    number = flag.get("subject", {}).get("identifier", {}).get("value")
    if number is not None:
        yield {"ref": "p1", "nhi": number}
    for patient in flag.get("contained", ()):
        name = (patient.get("name") or [{}])[0]
        given = " ".join(name.get("given", ()))
        yield {
            "ref": "p1",
            "name": {"family": name.get("family", ""), "given": given},
            "birthDate": patient.get("birthDate"),
        }


class Records:
    """What agencies' systems find: one agency's people by its own number, or by name and birth date as it
    spells them.
    """

    def __init__(self, population: Population) -> None:
        self._population = population
        self._by_number: dict[tuple[str, str], Person] = {}
        self._by_name: dict[tuple[str, str, str | None], Person] = {}
        for person in population.people.values():
            born = person.birth_date.isoformat() if person.birth_date else None
            for agency in (*AGENCY_SYSTEM, "fss", "ngo"):
                name = person.spelled(agency)
                self._by_name.setdefault((fold(name.family), fold(name.given), born), person)
            for system, value in person.identifiers.items():
                self._by_number[system, value] = person
        self._family_of: dict[str, Family] = {}
        for family in population.families:
            for person in family.people:
                self._family_of.setdefault(person.key, family)

    def find(self, agency: str, about: Mapping[str, Any]) -> Person | None:
        """The person *about* speaks of, if *agency*'s system has a record."""
        person = self.anybody(about)
        return (
            person if person is not None and (agency in ("ngo", "fss") or person.known_to(agency)) else None
        )

    def anybody(self, about: Mapping[str, Any]) -> Person | None:
        """The person *about* speaks of, whoever holds a record."""
        for number in _NUMBERS:
            for system in AGENCY_SYSTEM.values():
                if (system, about.get(number)) in self._by_number:
                    return self._by_number[system, about[number]]
        name = about.get("name")
        if not name:
            return None
        return self._by_name.get((fold(name["family"]), fold(name["given"]), about.get("birthDate")))

    def family(self, person: Person) -> Family:
        """The (first) family of *person*."""
        return self._family_of[person.key]


@dataclass(slots=True)
class Agencies:
    """All agencies but FSS: what they send of their own accord and what they answer."""

    population: Population
    records: Records
    counters: dict[str, int] = field(default_factory=dict)
    requests_seen: int = 0
    requests_answered: int = 0
    schools_told: int = 0

    def number(self, series: str) -> str:
        """The next number of a series, such as a report's."""
        self.counters[series] = self.counters.get(series, 0) + 1
        return f"{series}-{self.counters[series]:05d}"

    def answer(self, party: str, notice: Notice, now: datetime) -> list[Post]:
        """What *party* sends upon *notice*."""
        if notice.kind == "fss.information-requested":
            self.requests_seen += 1
            posts = self._look_up(party, notice, now)
            self.requests_answered += bool(posts)
            return posts
        if notice.kind == "fss.task-assigned":
            return self._take_on(party, notice, now)
        if notice.kind == "oranga-tamariki.report-of-concern-submitted":
            return self._decide_concern(notice, now)
        if notice.kind == "health.alert-requested":
            return self._place_alert(notice, now)
        return []

    def _look_up(self, party: str, notice: Notice, now: datetime) -> list[Post]:
        agency = native.agency_of(party)
        known = [
            (about, person)
            for about in notice.about
            if (person := self.records.find(agency, about)) is not None
        ]
        special = {
            "oranga-tamariki": self._involvement,
            "health": self._health,
            "acc": self._claims,
            "justice": self._court,
            "education": self._attendance,
        }.get(agency)
        posts = special(notice, known, now) if special else []
        # Every request is answered, also when the answer is that nothing is held.
        return posts or [(party, self._response(party, notice, now))]

    def _response(self, party: str, notice: Notice, now: datetime) -> Native:
        agency = native.agency_of(party)
        holdings, people = [], []
        label = {"police": "line", "justice": "number"}.get(agency, "person")
        for n, about in enumerate(notice.about, start=1):
            role = _CANONICAL.get(about["role"], about["role"])
            person = self.records.find(agency, about)
            holdings.append({"person": n, **self._held(agency, role, person)})
            anybody = person or self.records.anybody(about)
            people.append(
                native.person(party, n, role, anybody, detail=False)
                if anybody
                else {label: n, "role": about["role"]}
            )
        return native.record(
            party,
            "information-response",
            people,
            reportId=self.number(f"IR-{agency}"),
            revision=1,
            sentAt=native.local(now),
            case=notice.case,
            answers=notice.reference,
            request=notice.event.get("request", {}).get("request"),
            holdings=holdings,
        )

    def _held(self, agency: str, role: str, person: Person | None) -> dict[str, Any]:
        if person is None:
            return {"held": False}
        if agency == "police":
            held: dict[str, Any] = {"held": True, "priorEpisodes": person.prior_episodes}
            if role == "perpetrator":
                held |= {
                    "offences": list(person.offences),
                    "firearmsAccess": person.firearms_access,
                    "gang": person.gang,
                }
            return held
        if agency == "corrections":
            return (
                {"held": True, "sentence": person.sentence} if person.sentence != "none" else {"held": True}
            )
        return {"held": agency != "ngo" or person.prior_episodes > 2}

    def _involvement(
        self, notice: Notice, _known: list[tuple[Mapping[str, Any], Person]], now: datetime
    ) -> list[Post]:
        children = [(a, self.records.anybody(a)) for a in notice.about if a["role"] == "child"]
        named = [(a, p) for a, p in children if p is not None]
        if not named:
            return []
        listed, people = [], []
        for n, (_, person) in enumerate(named, start=1):
            entry: dict[str, Any] = {"child": n, "known": person.care is not None}
            if person.care is not None:
                entry |= {"openFile": person.care.open_file, "custody": person.care.custody}
                if person.care.social_worker is not None:
                    entry["socialWorker"] = {
                        "name": person.care.social_worker.name,
                        "phone": person.care.social_worker.phone,
                    }
                if person.care.group_conference_on is not None:
                    entry["groupConferenceOn"] = person.care.group_conference_on.isoformat()
            listed.append(entry)
            people.append(native.person("oranga-tamariki", n, "child", person, detail=False))
        said = native.record(
            "oranga-tamariki",
            "child-involvement",
            people,
            checkId=self.number("CHK"),
            revision=1,
            recordedAt=native.local(now),
            case=notice.case,
            answers=notice.reference,
            children=listed,
        )
        return [("oranga-tamariki", said)]

    def _health(
        self, notice: Notice, known: list[tuple[Mapping[str, Any], Person]], now: datetime
    ) -> list[Post]:
        posts: list[Post] = []
        involved, people = [], []
        for n, (about, person) in enumerate(known, start=1):
            recent = [v for v in person.presentations if v.arrived_at < now][-2:]
            posts += [
                ("health", native.presentation(person, visit, self.number("ADT"), now)) for visit in recent
            ]
            if person.mental_health or person.addiction:
                services = ["mental-health"] * person.mental_health + ["alcohol-and-drug"] * person.addiction
                involved.append({"person": n, "involved": True, "services": services})
                people.append(native.person("health", n, about["role"], person, detail=False))
        if involved:
            said = native.record(
                "health",
                "mental-health-involvement",
                people,
                reportId=self.number("MH"),
                revision=1,
                sentAt=native.local(now),
                case=notice.case,
                answers=notice.reference,
                involvement=involved,
            )
            posts.append(("health", said))
        return posts

    def _claims(
        self, _notice: Notice, known: list[tuple[Mapping[str, Any], Person]], now: datetime
    ) -> list[Post]:
        return [
            ("acc", native.claims("acc", self.number("CLM"), person, person.claims, now))
            for _, person in known
            if person.claims
        ]

    def _court(
        self, notice: Notice, known: list[tuple[Mapping[str, Any], Person]], now: datetime
    ) -> list[Post]:
        posts: list[Post] = []
        for _, person in known:
            family = self.records.family(person)
            for order in family.orders:
                if order.restrained != person.key:
                    continue
                others = [family.person(key) for key in order.protected]
                parties = [native.person("justice", 1, "perpetrator", person, detail=False)]
                parties += [
                    native.person(
                        "justice",
                        n,
                        "child" if p.is_child(self.population.day) else "victim",
                        p,
                        detail=False,
                    )
                    for n, p in enumerate(others, start=2)
                ]
                said = native.record(
                    "justice",
                    "order",
                    parties,
                    orderId=self.number("ORD"),
                    revision=1,
                    sealedAt=native.local(now),
                    case=notice.case,
                    answers=notice.reference,
                    type={
                        "protection": "Protection order",
                        "property": "Property order",
                        "parenting": "Parenting order",
                    }.get(order.kind, "Occupation order"),
                    status="In force" if order.in_force else "Discharged",
                    respondent=1,
                    protected=list(range(2, 2 + len(others))),
                    madeOn=order.made_on.isoformat(),
                    conditions=list(order.conditions),
                    protectedAddress=native.address(order.protected_address)
                    if order.protected_address
                    else None,
                )
                posts.append(("justice", said))
        return posts

    def _attendance(
        self, notice: Notice, known: list[tuple[Mapping[str, Any], Person]], now: datetime
    ) -> list[Post]:
        pupils = [(a, p) for a, p in known if p.school is not None]
        if not pupils:
            return []
        listed = [
            {
                "pupil": n,
                "concern": (p.attendance_percent or 100) < 80,
                "halfDays": {"possible": 100, "attended": p.attendance_percent or 100},
                "school": {"name": p.school.name, "number": p.school.number} if p.school else None,
            }
            for n, (_, p) in enumerate(pupils, start=1)
        ]
        said = native.record(
            "education",
            "attendance",
            [
                native.person("education", n, "child", p, detail=False)
                for n, (_, p) in enumerate(pupils, start=1)
            ],
            returnId=self.number("ATT"),
            revision=1,
            preparedAt=native.local(now),
            case=notice.case,
            answers=notice.reference,
            pupils=listed,
        )
        return [("education", said)]

    def _take_on(self, party: str, notice: Notice, now: datetime) -> list[Post]:
        task = notice.event.get("task", {})
        about = notice.subject(task.get("person", ""))
        person = self.records.anybody(about) if about else None
        if person is None:
            return []
        role = _CANONICAL.get(about["role"], about["role"])
        posts = [(party, self._task_update(party, notice, task["task"], role, person, now))]
        if party == "education":
            self.schools_told += 1
            posts.append((party, self._school_told(notice, task["task"], person, now)))
        if party.startswith("ngo.") and task.get("kind") == "make-contact":
            posts += self._make_contact(party, notice, role, person, now)
        return posts

    def _task_update(
        self, party: str, notice: Notice, task: str, role: str, person: Person, now: datetime
    ) -> Native:
        return native.record(
            party,
            "task-update",
            [native.person(party, 1, role, person, detail=False)],
            reportId=self.number(f"TU-{native.agency_of(party)}"),
            revision=1,
            sentAt=native.local(now),
            case=notice.case,
            answers=notice.reference,
            task=task,
            person=1,
            status="accepted",
            updatedAt=native.local(now - timedelta(minutes=1)),
        )

    def _school_told(self, notice: Notice, task: str, person: Person, now: datetime) -> Native:
        return native.record(
            "education",
            "school-notified",
            [native.person("education", 1, "child", person, detail=False)],
            returnId=self.number("SN"),
            revision=1,
            preparedAt=native.local(now),
            case=notice.case,
            answers=notice.reference,
            pupil=1,
            task=task,
            notifiedOn=now.astimezone(NEW_ZEALAND).date().isoformat(),
        )

    def _make_contact(
        self, party: str, notice: Notice, role: str, person: Person, now: datetime
    ) -> list[Post]:
        turn = self.counters.get("ENG", 0) % 6
        outcome = (
            "Support accepted",
            "Some engagement, no uptake",
            "Support accepted",
            "Declined",
            "Support accepted",
            "Uncontactable",
        )[turn]
        service = party.split("#")[1]
        said = native.record(
            party,
            "engagement",
            [native.person(party, 1, role, person, detail=False, number=None)],
            formId=self.number("ENG"),
            revision=1,
            completedAt=native.local(now),
            case=notice.case,
            answers=notice.reference,
            person=1,
            service=service.upper(),
            reportedOn=now.astimezone(NEW_ZEALAND).date().isoformat(),
            outcome=outcome,
            hours=1,
            progress="First contact made." if turn % 2 == 0 else None,
            views={"recorded": True, "sharing": "limit" if turn == 0 else "share"},
        )
        posts = [(party, said)]
        # The specialist learns what nobody else knows: the safe house, the number that is safe to text.
        if (
            role == "victim"
            and service in ("ivs", "wsw")
            and (person.safe_address is not None or turn in (0, 2))
        ):
            told = native.person(party, 1, role, person, contact=True)
            if person.safe_address is not None:
                told["safeAddress"] = native.address(person.safe_address)
            details = native.record(
                party,
                "contact-details",
                [told],
                reportId=self.number("CD"),
                revision=1,
                sentAt=native.local(now),
                case=notice.case,
                answers=notice.reference,
                asOf=now.astimezone(NEW_ZEALAND).date().isoformat(),
                site=self.records.family(person).site,
            )
            posts.append((party, details))
        return posts

    def _decide_concern(self, notice: Notice, now: datetime) -> list[Post]:
        child = notice.subject(notice.event.get("concern", {}).get("child", ""))
        person = self.records.anybody(child) if child else None
        if person is None:
            return []
        # The review: eight of fourteen closed at intake, the others still open.
        turn = self.counters.get("INT", 0) % 14
        decision = (
            "No further action" if turn < 8 else ("FAR-CFA", "Additional information", "FAR-INV")[turn % 3]
        )
        entry = {
            "number": 1,
            "child": 1,
            "decision": decision,
            "decidedOn": now.astimezone(NEW_ZEALAND).date().isoformat(),
            "involved": decision != "No further action",
        }
        said = native.record(
            "oranga-tamariki",
            "intake-decision",
            [native.person("oranga-tamariki", 1, "child", person, detail=False)],
            intakeId=self.number("INT"),
            revision=1,
            recordedAt=native.local(now),
            case=notice.case,
            answers=notice.reference,
            decisions=[entry],
        )
        return [("oranga-tamariki", said)]

    def _place_alert(self, notice: Notice, now: datetime) -> list[Post]:
        person = next((p for a in notice.about if (p := self.records.find("health", a)) is not None), None)
        if person is None:
            return []
        today: date = now.astimezone(NEW_ZEALAND).date()
        return [
            (
                "health",
                native.alert(person, "D02", today, today + timedelta(days=182), self.number("ADT"), now),
            )
        ]
