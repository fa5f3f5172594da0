"""The sandbox's Family Safety System: lists the day's cases, asks, assesses risk, opens plans, gives out
tasks. It knows of a case what the hub sent it.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

from adapters.adapter import Native
from gateway.due import first_contact_due, local_instant
from gateway.sandbox import native
from gateway.sandbox.agencies import Notice, Post, Records
from gateway.sandbox.people import Episode, Person, Release
from schemas.clock import NEW_ZEALAND

PROVIDERS = {"christchurch": "ngo.aviva", "waikato-city": "ngo.manaaki", "waikato-rural": "ngo.manaaki"}
# Tasks on a plan by its risk, as in the review: 17.9, 6.2 and 1.6 on average.
_TASKS = {"high": (14, 22), "medium": (4, 9), "low": (1, 2)}
_ASKED = ("police", "oranga-tamariki", "corrections", "health", "msd", "acc", "justice")
_WORK: tuple[tuple[str, str, str], ...] = (
    ("police", "Immediate safety action", "victim"),
    ("oranga-tamariki", "Other action", "child"),
    ("health", "Other action", "victim"),
    ("corrections", "Share information", "perpetrator"),
    ("msd", "Other action", "victim"),
    ("{ngo}#ivs", "Alarm or home security", "victim"),
    ("justice", "Source information", "perpetrator"),
    ("acc", "Source information", "victim"),
    ("{ngo}#wsw", "Liaise", "victim"),
    ("police", "Share information", "perpetrator"),
    ("corrections", "Source information", "perpetrator"),
    ("{ngo}#pos", "Liaise", "perpetrator"),
    ("oranga-tamariki", "Professionals-meeting", "child"),
    ("health", "Source information", "perpetrator"),
    ("{ngo}#ivs", "Professionals-meeting", "victim"),
    ("police", "Set review date", "victim"),
)


@dataclass(slots=True)
class Item:
    """One line of the day's list: what happened, to whom, in which case of the hub. *truth* decides what the
    meeting concludes, nothing else.
    """

    case: str
    answers: str
    site: str
    occurred_on: date
    kind: str
    people: dict[str, tuple[str, Person]]  # key → role, person
    truth: Episode | Release
    risk: str = ""
    asked: list[str] = field(default_factory=list)

    def with_role(self, role: str) -> list[Person]:
        """The people who have *role* here."""
        return [p for held, p in self.people.values() if held == role]


class FamilySafetySystem:
    """FSS of the sandbox. *truths* maps the ids of submissions to what really happened."""

    def __init__(self, records: Records, truths: Mapping[str, Episode | Release], seed: int) -> None:
        self._records, self._truths = records, truths
        self._rng = random.Random(f"fss/{seed}")
        self._numbers: dict[str, str] = {}
        self.items: list[Item] = []
        self.tasks = 0
        self.plans = 0

    def take_in(self, notice: Notice) -> None:
        """Opens a line for an episode or a release that the hub sent."""
        if notice.kind not in ("police.episode-recorded", "corrections.prison-release-notified"):
            return
        truth = self._truths[notice.answers or ""]
        part = notice.event.get("episode") or notice.event.get("release") or {}
        people = {
            person.key: (about["role"], person)
            for about in notice.about
            if (person := self._records.anybody(about)) is not None
        }
        is_episode = isinstance(truth, Episode)
        occurred = date.fromisoformat(part["occurredOn"] if is_episode else part["plannedOn"])
        kind = "Episode" if is_episode else "Prison release"
        self.items.append(
            Item(notice.case or "", notice.reference, part["site"], occurred, kind, people, truth)
        )

    def lists(self, day: date, now: datetime, conflicts: Mapping[str, Sequence[str]]) -> Iterator[Native]:
        """The list of each site for the meeting on *day*; *conflicts* by case."""
        for site in sorted({item.site for item in self.items}):
            lines = [item for item in self.items if item.site == site]
            entries = [
                {
                    "item": n,
                    "case": item.case,
                    "answers": item.answers,
                    "type": item.kind,
                    **({"occurredOn": item.occurred_on.isoformat()} if item.kind == "Episode" else {}),
                    **({"conflicts": list(conflicts[item.case])} if item.case in conflicts else {}),
                    "people": self._people(item),
                }
                for n, item in enumerate(lines, start=1)
            ]
            yield self._file(
                {
                    "kind": "sam-list",
                    "reference": f"SAM-{site}-{day}",
                    "revision": 1,
                    "sentAt": native.local(now),
                    "meetingOn": day.isoformat(),
                    "site": site,
                    "of": len(entries),
                    "cases": entries,
                }
            )

    def questions(self, now: datetime, due: datetime) -> Iterator[Native]:
        """To every agency: what do you know about these people?"""
        for n, item in enumerate(self.items, start=1):
            asked = [*_ASKED, f"{PROVIDERS[item.site]}#ivs"]
            item.asked = asked
            yield self._ask(item, f"IR-{n:05d}", asked, now, due)

    def school_questions(self, now: datetime, due: datetime) -> Iterator[Native]:
        """To Education, about children, once the risk is known."""
        for n, item in enumerate(self.items, start=1):
            if item.with_role("child") and item.risk != "low":
                item.asked.append("education")
                yield self._ask(item, f"IRE-{n:05d}", ["education"], now, due, roles=("child",))

    def risks(self, now: datetime) -> Iterator[Native]:
        """What the meeting concluded on each case, with the reason."""
        for n, item in enumerate(self.items, start=1):
            truth = item.truth
            item.risk = truth.risk
            factors = list(truth.risk_factors) if isinstance(truth, Episode) else ["prison-release"]
            rationale = (
                truth.rationale
                if isinstance(truth, Episode)
                else "High risk of family violence on release, as Corrections assessed."
            )
            yield self._file(
                {
                    "kind": "risk",
                    **self._head(item, f"RISK-{n:05d}", now),
                    "level": item.risk,
                    "assessedAt": native.local(now - timedelta(minutes=5)),
                    "instrument": "ISR-triage",
                    "version": "3",
                    "factors": [f.replace(" ", "-") for f in factors],
                    "rationale": rationale,
                    "people": self._people(item, detail=False),
                }
            )

    def plans_and_tasks(self, now: datetime) -> Iterator[Native]:
        """A plan for every case, with specialists by risk, and its first tasks."""
        for n, item in enumerate(self.items, start=1):
            provider = PROVIDERS[item.site]
            victims, perpetrators = item.with_role("victim"), item.with_role("perpetrator")
            labels = {key: label for label, key in enumerate(item.people, start=1)}
            services = {"high": "ivs", "medium": "wsw", "low": "lrr"}[item.risk]
            hours, weeks = {"high": (40, 12), "medium": (4, 6), "low": (1, 2)}[item.risk]
            specialists = [
                {
                    "party": f"{provider}#{services}",
                    "person": labels[v.key],
                    "service": services.upper(),
                    "hours": hours,
                    "weeks": weeks,
                }
                for v in victims
            ]
            if item.risk == "high":
                specialists += [
                    {
                        "party": f"{provider}#pos",
                        "person": labels[p.key],
                        "service": "POS",
                        "hours": 40,
                        "weeks": 12,
                    }
                    for p in perpetrators
                ]
            self.plans += 1
            yield self._file(
                {
                    "kind": "plan-opened",
                    **self._head(item, f"PLAN-{n:05d}-OPEN", now),
                    "plan": f"PLAN-{n:05d}",
                    "lead": f"{provider}#{services}" if victims else "fss",
                    "openedOn": now.astimezone(NEW_ZEALAND).date().isoformat(),
                    "specialists": specialists,
                    "people": self._people(item, detail=False),
                }
            )
            yield from self._tasks(item, n, labels, now)

    def alerts_and_reviews(self, now: datetime) -> Iterator[Native]:
        """Alert requests to Health and entitlement reviews to MSD for those at medium and high risk."""
        today = now.astimezone(NEW_ZEALAND).date()
        for n, item in enumerate(self.items, start=1):
            if item.risk == "low":
                continue
            for m, victim in enumerate(item.with_role("victim"), start=1):
                who = native.person("fss", 1, "victim", victim, contact=True, number=self._number(victim))
                if victim.known_to("health"):
                    yield self._file(
                        {
                            "kind": "alert-request",
                            **self._head(item, f"ALERT-{n:05d}-{m}", now),
                            "to": "health",
                            "person": 1,
                            "code": "D02",
                            "startsOn": today.isoformat(),
                            "reviewOn": (today + timedelta(days=182)).isoformat(),
                            "contact": "ISR team duty desk",
                            "people": [who],
                        }
                    )
                if victim.known_to("msd"):
                    yield self._file(
                        {
                            "kind": "entitlement-review",
                            **self._head(item, f"FACE-{n:05d}-{m}", now),
                            "to": "msd",
                            "person": 1,
                            "task": f"T-F{n:05d}-{m}",
                            "reviews": ["FACE"],
                            "dueAt": native.local(local_instant(today + timedelta(days=7), time(17))),
                            "people": [who],
                        }
                    )

    def closed(self, now: datetime) -> Iterator[Native]:
        """Low-risk plans whose people moved away are closed at the end of the day."""
        for n, item in enumerate(self.items, start=1):
            if item.risk == "low" and n % 7 == 0:
                yield self._file(
                    {
                        "kind": "plan-closed",
                        **self._head(item, f"PLAN-{n:05d}-CLOSE", now),
                        "plan": f"PLAN-{n:05d}",
                        "closedOn": now.astimezone(NEW_ZEALAND).date().isoformat(),
                        "reason": "moved-away",
                        "safetyRating": 2,
                        "people": self._people(item, detail=False),
                    }
                )

    def _tasks(self, item: Item, n: int, labels: Mapping[str, int], now: datetime) -> Iterator[Native]:
        provider = PROVIDERS[item.site]
        due = native.local(first_contact_due(now, item.risk, item.site))
        wanted = self._rng.randint(*_TASKS[item.risk])
        first = {"high": "ivs", "medium": "wsw", "low": "lrr"}[item.risk]
        given: list[tuple[str, str, Person]] = [
            (f"{provider}#{first}", "Make contact", v) for v in item.with_role("victim")[:1]
        ]
        if item.risk == "high":
            given += [(f"{provider}#pos", "Make contact", p) for p in item.with_role("perpetrator")[:1]]
        given += self._school_tasks(item)
        for to, kind, role in _WORK * 2:
            if len(given) >= wanted:
                break
            given += [(to.format(ngo=provider), kind, p) for p in item.with_role(role)[:1]]
        for m, (to, kind, person) in enumerate(given, start=1):
            self.tasks += 1
            role = item.people[person.key][0]
            # A victim's worker needs the whole family, contact details and all; anybody else the person the
            # work is about.
            shown = item.people.values() if to.startswith("ngo.") and role == "victim" else [(role, person)]
            yield self._file(
                {
                    "kind": "tasks",
                    **self._head(item, f"TASKS-{n:05d}-{m:02d}", now),
                    "risk": item.risk,
                    "episode": {"occurredOn": item.occurred_on.isoformat(), "type": "Episode"}
                    if item.kind == "Episode"
                    else None,
                    "tasks": [
                        {
                            "to": to,
                            "task": f"T-{n:05d}-{m:02d}",
                            "person": labels[person.key],
                            "kind": kind,
                            "dueAt": due,
                            "detail": f"{kind}, as the meeting agreed.",
                        }
                    ],
                    "people": [
                        native.person("fss", labels[p.key], r, p, contact=True, number=self._number(p))
                        for r, p in shown
                    ],
                }
            )

    def _school_tasks(self, item: Item) -> list[tuple[str, str, Person]]:
        """Schools are told at medium and high risk; now and then somebody asks at low risk too, and a guard
        must hold.
        """
        truth = item.truth
        if not isinstance(truth, Episode) or not truth.school_told:
            return []
        return [
            ("education", "Share information", c) for c in item.with_role("child") if c.school is not None
        ][:2]

    def _ask(
        self,
        item: Item,
        reference: str,
        asked: Sequence[str],
        now: datetime,
        due: datetime,
        roles: Sequence[str] = (),
    ) -> Native:
        return self._file(
            {
                "kind": "information-request",
                **self._head(item, reference, now),
                "purpose": "FV-RISK",
                "site": item.site,
                **({"occurredOn": item.occurred_on.isoformat()} if item.kind == "Episode" else {}),
                "ask": [
                    {"number": m, "to": to, "asks": ["what-is-held"], "dueAt": native.local(due)}
                    for m, to in enumerate(asked, start=1)
                ],
                "people": self._people(item, roles=roles),
            }
        )

    def _people(self, item: Item, *, detail: bool = True, roles: Sequence[str] = ()) -> list[dict[str, Any]]:
        return [
            native.person(
                "fss", label, role, person, contact=detail, number=self._number(person), detail=detail
            )
            for label, (role, person) in enumerate(item.people.values(), start=1)
            if not roles or role in roles
        ]

    def _number(self, person: Person) -> str:
        return self._numbers.setdefault(person.key, f"F-{70001 + len(self._numbers)}")

    def _head(self, item: Item, reference: str, now: datetime) -> dict[str, Any]:
        return {
            "reference": reference,
            "revision": 1,
            "sentAt": native.local(now),
            "case": item.case,
            "answers": item.answers,
        }

    def _file(self, said: Mapping[str, Any]) -> Native:
        people = said.get("people", [])
        fields = {k: v for k, v in said.items() if k not in ("kind", "people")}
        if "people" not in said:
            return native.whole({"kind": said["kind"], **fields})
        return native.record("fss", said["kind"], people, **fields)


def posts(files: Iterator[Native]) -> list[Post]:
    """*files* as FSS sends them."""
    return [("fss", file) for file in files]
