"""One ISR day in the sandbox: invented people, agencies that speak their own formats, and the real hub
between them.

Saturday's episodes and Corrections' notices arrive as they happen; on Sunday FSS lists the cases, every
agency is asked and answers, the meeting sets risk and gives out tasks, alerts are placed, schools told, a
remand prisoner freed on the spot. The hub sees the same clock as the sandbox.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import sqlalchemy as sa
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from adapters.adapter import Native
from consent.entry import DECISION_KINDS, RECALL
from consent.entry import withheld as withheld_of
from consent.ledger import ledger_entry
from consent.report import Report
from consent.verify import verify
from gateway.due import local_instant
from gateway.hub import Hub, migrate, open_hub
from gateway.sandbox import native
from gateway.sandbox.agencies import Agencies, Inbox, Post, Records
from gateway.sandbox.fss import FamilySafetySystem, posts
from gateway.sandbox.people import Episode, Family, Person, Release
from gateway.sandbox.population import Population, build
from gateway.sandbox.rates import rates
from gateway.settings import Settings
from schemas.clock import NEW_ZEALAND
from schemas.database import open_database
from schemas.errors import BadSettings

_POLICE_KINDS = {
    "partner": "Partner",
    "ex-partner": "Ex-partner",
    "parent": "Parent",
    "child": "Child",
    "sibling": "Sibling",
}
_STATIONS = {
    "waikato-city": "Hamilton Central",
    "waikato-rural": "Tokoroa",
    "christchurch": "Christchurch Central",
}
_STEPS = (
    "Corrections notifies releases",
    "Police record episodes",
    "FSS publishes the meeting's lists",
    "every agency is asked, and answers",
    "courts sit, Corrections counts",
    "the meeting sets risk",
    "plans, tasks, alerts, reviews",
    "a same-day remand release",
    "agencies act and report back",
    "the ledger is proved from outside",
)


@dataclass(slots=True)
class _Day:
    """The hub, the sandbox around it, and the time of day."""

    hub: Hub
    population: Population
    agencies: Agencies
    fss: FamilySafetySystem
    truths: dict[str, Episode | Release]
    clock: list[datetime]
    inboxes: dict[str, Inbox]
    submitted: int = 0
    rejected: int = 0
    unplaced: int = 0

    @property
    def now(self) -> datetime:
        return self.clock[0]

    def at(self, moment: datetime) -> None:
        """Lets the time of day go on to *moment*; it never goes back."""
        self.clock[0] = max(self.clock[0], moment)

    def send(self, sent: Iterable[Post], *, truth: Episode | Release | None = None) -> None:
        """Everything in *sent* goes through the door, in order."""
        for party, group in _by_party(sent):
            for receipt in self.hub.exchange.accept(party, group):
                self.submitted += len(receipt.accepted)
                self.rejected += len(receipt.rejected)
                self.unplaced += len(receipt.unplaced)
                if truth is not None:
                    self.truths.update(dict.fromkeys(receipt.accepted, truth))

    def settle(self) -> None:
        """The hub carries and delivers until nothing is left to move."""
        self.hub.exchange.finish()

    def react(self) -> None:
        """Agencies read what arrived and answer, until nobody has anything to say."""
        while True:
            answers = [
                post
                for party in sorted(self.inboxes)
                for notice in self.inboxes[party].new()
                for post in self._answer(party, notice)
            ]
            if not answers:
                return
            self.send(answers)
            self.settle()

    def _answer(self, party: str, notice: Any) -> list[Post]:
        if party == "fss":
            self.fss.take_in(notice)
            return []
        return self.agencies.answer(party, notice, self.now)


def run_day(
    folder: Path,
    *,
    episodes: int = 119,
    releases: int = 10,
    seed: int = 7,
    engine: str = "embedded",
    show_progress: bool = True,
) -> dict[str, Any]:
    """Plays the day into *folder*, which is made anew, and returns the report that the demo prints or gives
    as JSON.

    The same *seed* gives the same people and the same decisions, on either *engine*.
    """
    started = perf_counter()
    _clear(folder)
    population = build(seed, episodes, releases)
    (folder / "population.json").write_text(
        json.dumps(population.to_json(), ensure_ascii=False, indent=1), encoding="utf-8"
    )
    with _engine(engine, folder) as settings:
        clock = [local_instant(population.day - timedelta(days=9), time(6))]
        with open_hub(settings, clock=lambda: clock[0]) as hub:
            records = Records(population)
            truths: dict[str, Episode | Release] = {}
            day = _Day(
                hub,
                population,
                Agencies(population, records),
                FamilySafetySystem(records, truths, seed),
                truths,
                clock,
                {p: Inbox(folder / "agencies" / p / "received") for p in hub.agreements.parties},
            )
            with _progress(show_progress) as step:
                for name, play in zip(_STEPS, _PLAYS, strict=False):
                    step(name)
                    play(day)
                day_seconds = perf_counter() - started
                step(_STEPS[-1])
                report = _report(day, folder)
    report["seconds"] = round(perf_counter() - started, 2)
    report["day_seconds"] = round(day_seconds, 2)
    (folder / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    return report


def _clear(folder: Path) -> None:
    """Empties *folder*, if it is one of ours: a demo must never delete anything else."""
    if folder.exists():
        foreign = [f.name for f in folder.iterdir()]
        if foreign and not (folder / "population.json").exists():
            raise FileExistsError(f"{folder} is not empty and is no demo; choose another --data")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


@contextmanager
def _engine(engine: str, folder: Path) -> Iterator[Settings]:
    if engine == "embedded":
        yield Settings(data=folder)
        return
    from gateway.sandbox.servers import private_servers  # noqa: PLC0415  # only this engine needs servers

    with private_servers(folder) as (database_url, broker_url):
        settings = Settings(data=folder, database_url=database_url, broker_url=broker_url)
        migrate(settings)
        _require_empty(settings)
        yield settings


def _require_empty(settings: Settings) -> None:
    """A day is played into a ledger of its own: beside another's entries its figures would mean nothing."""
    database = open_database(settings.database)
    with database.connect() as connection:
        entry = connection.execute(sa.select(ledger_entry.c.idx).limit(1)).first()
    database.dispose()
    if entry is not None:
        raise BadSettings("the database holds a ledger already; give the demo an empty one, or none at all")


def _notify_releases(day: _Day) -> None:
    ahead = [r for r in day.population.releases if not r.same_day]
    for moment in sorted({r.notified_at for r in ahead}):
        day.at(moment)
        for n, release in enumerate(r for r in ahead if r.notified_at == moment):
            day.send([("corrections", _release_file(day, release, n))], truth=release)
        day.settle()


def _release_file(day: _Day, release: Release, n: int) -> Native:
    family = day.population.family(release.family)
    row = native.release_row(
        day.agencies.number("REL"), family.person(release.person), release, family.person(family.victim)
    )
    return native.custody_file([row], day.now + timedelta(seconds=n))


def _record_episodes(day: _Day) -> None:
    hour: datetime | None = None
    for episode in sorted(day.population.episodes, key=lambda e: (e.recorded_at, e.key)):
        if hour is not None and episode.recorded_at >= hour + timedelta(hours=1):
            day.settle()
            hour = None
        hour = hour or episode.recorded_at
        day.at(episode.recorded_at)
        day.send([("police", five_f(day.population.family(episode.family), episode))], truth=episode)
        if episode.concern_reported and episode.exposed:
            day.settle()
            day.send([("police", _concern(day, episode))])
    day.settle()


def five_f(family: Family, episode: Episode) -> Native:
    """The officer's 5F record of *episode* in *family*, as Police's mobile capture sends it."""
    labels = {key: n for n, key in enumerate(episode.roles, start=1)}
    persons = []
    for key, role in episode.roles.items():
        who = family.person(key)
        shown = native.person("police", labels[key], role, who, contact=True)
        shown["relationships"] = [
            {"to": labels[r.to], "kind": _POLICE_KINDS.get(r.kind, "Other"), "statedBy": labels[r.stated_by]}
            for r in family.relationships
            if r.of == key and r.to in labels and r.stated_by in labels
        ]
        if role == "perpetrator":
            shown["gang"] = who.gang
        if who.representative in labels:
            shown["representative"] = labels[who.representative]
        persons.append(shown)
    victim = episode.holder("victim")
    order = episode.safety_order
    return native.record(
        "police",
        "5F",
        persons,
        eventNumber=episode.event_number,
        revision=1,
        attendanceCode="5F",
        occurredAt=native.local(episode.occurred_at),
        reportedAt=native.local(episode.recorded_at),
        station=_STATIONS[episode.site],
        location=native.address(episode.place),
        natureOfHarm=[
            *(h.replace("-", " ") for h in episode.harms),
            *(["Sexual"] if episode.sexual_harm else []),
        ],
        strangulation=episode.strangulation,
        childrenPresent=episode.children_present,
        alcohol=episode.alcohol,
        drugs=episode.drugs,
        weapons=[w.replace("-", " ") for w in episode.weapons] or None,
        firearms={
            "access": episode.firearms,
            **({"detail": episode.firearms_detail} if episode.firearms_detail else {}),
        },
        breachOfOrder=episode.breach_of_order,
        pso=order
        and {
            "boundPerson": labels[order.bound],
            "issued": True,
            "issuedAt": native.local(order.issued_at),
            "days": order.days,
        },
        arrest=episode.arrest
        and {
            "person": labels[episode.arrest.person],
            "at": native.local(episode.arrest.at),
            "outcome": "RIC" if episode.arrest.outcome == "remanded-in-custody" else "ROB",
        },
        riskAssessments=[
            {
                "person": labels[victim],
                "instrument": "DYRA",
                "version": "2018.1",
                "value": episode.risk.title(),
            }
        ],
        reportOfConcernMade=episode.concern_reported,
        dangersToVisitors=[d.replace("-", " ") for d in episode.dangers] or None,
        narrative=episode.narrative,
    )


def _concern(day: _Day, episode: Episode) -> Native:
    family = day.population.family(episode.family)
    child = family.person(episode.exposed[0])
    return native.record(
        "police",
        "report-of-concern",
        [native.person("police", 1, "child", child)],
        reportId=day.agencies.number("ROC"),
        revision=1,
        sentAt=native.local(day.now),
        child=1,
        reportedAt=native.local(day.now - timedelta(minutes=1)),
        urgency="Critical" if episode.risk == "high" else "Very urgent",
        concerns=["Exposure to family harm"],
        notifier={"name": "Attending constable", "phone": "07 555 0111", "agency": "New Zealand Police"},
    )


def _publish_lists(day: _Day) -> None:
    day.at(local_instant(day.population.day, time(6)))
    day.react()
    conflicts = {
        item.case: [family.conflict]
        for item in day.fss.items
        if (family := day.population.family(item.truth.family)).conflict is not None
    }
    day.send(posts(day.fss.lists(day.population.day, day.now, conflicts)))
    day.settle()


def _ask_everybody(day: _Day) -> None:
    day.at(local_instant(day.population.day, time(6, 10)))
    day.send(posts(day.fss.questions(day.now, local_instant(day.population.day, time(9, 30)))))
    day.settle()
    day.at(local_instant(day.population.day, time(8)))
    known = _asked_of(day, "msd")
    day.react()
    if known:
        day.send([("msd", native.income_file([(day.agencies.number("INC"), p) for p in known], day.now))])
    day.settle()


def _asked_of(day: _Day, agency: str) -> list[Person]:
    """The people of the day's cases whom *agency*'s own records hold, once each."""
    people = {p.key: p for item in day.fss.items for _, p in item.people.values()}
    return [p for p in people.values() if p.known_to(agency)]


def _court_and_custody(day: _Day) -> None:
    day.at(local_instant(day.population.day, time(9, 45)))
    rows = []
    for episode in day.population.episodes:
        if episode.arrest is None:
            continue
        family = day.population.family(episode.family)
        who, hearing = family.person(episode.arrest.person), episode.arrest.hearing
        held = episode.arrest.outcome == "remanded-in-custody"
        parties = [native.person("justice", 1, "perpetrator", who, detail=False)]
        result: dict[str, Any] = {
            "item": 1,
            "defendant": 1,
            "result": "RIC" if held else "ROB",
            "offenceCodes": list(hearing.offences),
        }
        if not held:
            bail: dict[str, Any] = {"conditions": list(hearing.bail_conditions)}
            if hearing.bail_address is not None:
                bail["address"] = native.address(hearing.bail_address)
            result["bail"] = bail
        document = native.record(
            "justice",
            "hearing-result",
            parties,
            hearingId=day.agencies.number("H"),
            revision=1,
            enteredAt=native.local(day.now),
            courtFile=hearing.court_file,
            court=hearing.court,
            heardOn=min(hearing.heard_on, day.population.day).isoformat(),
            results=[result],
        )
        day.send([("justice", document)])
        if who.known_to("corrections"):
            event = "REMANDED IN CUSTODY" if held else "BAILED"
            rows.append(native.custody_row(day.agencies.number("CUS"), who, event, episode.arrest.at))
    if rows:
        day.send([("corrections", native.custody_file(rows, day.now))])
    day.settle()


def _set_risk(day: _Day) -> None:
    day.at(local_instant(day.population.day, time(10)))
    day.send(posts(day.fss.risks(day.now)))
    day.settle()
    day.send(posts(day.fss.school_questions(day.now, local_instant(day.population.day, time(14)))))
    day.settle()
    day.react()


def _plan(day: _Day) -> None:
    day.at(local_instant(day.population.day, time(11)))
    day.send(posts(day.fss.plans_and_tasks(day.now)))
    day.settle()
    day.send(posts(day.fss.alerts_and_reviews(day.now)))
    day.settle()


def _same_day_release(day: _Day) -> None:
    for release in (r for r in day.population.releases if r.same_day):
        day.at(release.notified_at)
        family = day.population.family(release.family)
        who, victim = family.person(release.person), family.person(family.victim)
        planned = native.release_row(day.agencies.number("REL"), who, release, victim)
        day.send([("corrections", native.custody_file([planned], day.now))], truth=release)
        day.settle()
        day.at(day.now + timedelta(minutes=1))
        served = native.release_row(day.agencies.number("REL"), who, release, victim, served=True)
        day.send([("corrections", native.custody_file([served], day.now))])
        day.settle()


def _act(day: _Day) -> None:
    day.at(local_instant(day.population.day, time(15)))
    day.react()
    grants = ("ACCOMMODATION SUPPLEMENT", "NONE", "RELOCATION GRANT", "BOND GRANT")
    reviews = [
        (day.agencies.number("REV"), victim, f"T-F{n:05d}-{m}", grants[n % 4])
        for n, item in enumerate(day.fss.items, start=1)
        if item.risk in ("medium", "high")
        for m, victim in enumerate(item.with_role("victim"), start=1)
        if victim.known_to("msd")
    ]
    if reviews:
        day.at(local_instant(day.population.day, time(16, 30)))
        day.send([("msd", native.review_file(reviews, day.now.astimezone(NEW_ZEALAND).date(), day.now))])
    day.send(posts(day.fss.closed(day.now)))
    day.settle()
    day.react()


_PLAYS: tuple[Callable[[_Day], None], ...] = (
    _notify_releases,
    _record_episodes,
    _publish_lists,
    _ask_everybody,
    _court_and_custody,
    _set_risk,
    _plan,
    _same_day_release,
    _act,
)


def _by_party(sent: Iterable[Post]) -> Iterator[tuple[str, list[Native]]]:
    """Runs of the same party, in order: what one agency sends in one go."""
    party: str | None = None
    group: list[Native] = []
    for sender, file in sent:
        if sender != party and group and party is not None:
            yield party, group
            group = []
        party = sender
        group.append(file)
    if group and party is not None:
        yield party, group


def _progress(shown: bool) -> AbstractContextManager[Callable[[str], None]]:
    return _bar() if shown else nullcontext(lambda _: None)


@contextmanager
def _bar() -> Iterator[Callable[[str], None]]:
    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("inventing people", total=len(_STEPS) + 1)

        def step(name: str) -> None:
            bar.update(task, advance=1, description=name)

        yield step
        bar.update(task, advance=1, description="done")


def _report(day: _Day, folder: Path) -> dict[str, Any]:
    """What happened, read from the ledger and the agencies' folders, not from what the sandbox meant to
    happen.
    """
    hub = day.hub
    checkpoint = hub.ledger.sign()
    decisions: Counter[str] = Counter()
    by_recipient: dict[str, Counter[str]] = {}
    withheld: Counter[str] = Counter()
    why: Counter[tuple[str, str]] = Counter()
    guards: Counter[str] = Counter()
    released: set[str] = set()
    lines: list[str] = []
    deliveries = recalled = 0
    for start in range(0, checkpoint.size, 1000):
        for raw in hub.ledger.entries(start, min(start + 1000, checkpoint.size)):
            entry = orjson.loads(raw)
            if entry["kind"] == "delivery":
                deliveries += entry["outcome"] == "delivered"
            recalled += entry["kind"] == RECALL
            if entry["kind"] not in DECISION_KINDS:
                continue
            decisions[entry["outcome"]] += 1
            by_recipient.setdefault(entry["party"], Counter())[entry["outcome"]] += 1
            guards.update(entry["guards"])
            for _, name, reason in withheld_of(entry):
                withheld[name] += 1
                why[name, reason] += 1
            if "disclosure" in entry:
                released.add(entry["disclosure"])
            lines.append(_digest_line(entry))
    received = {
        file.stem
        for party in hub.agreements.parties
        for file in (folder / "agencies" / party / "received").glob("*")
    }
    key = str(hub.settings.data / "ledger.vkey")
    proof = verify(folder, key) if hub.settings.embedded_broker else _verify_export(hub, folder, key)
    return {
        "seed": day.population.seed,
        "episodes": len(day.population.episodes),
        "releases": len(day.population.releases),
        "people": len(day.population.people),
        "submitted": day.submitted,
        "decisions": {o: decisions[o] for o in ("permit", "reduced", "refer", "refuse")},
        "by_recipient": {party: dict(counts) for party, counts in sorted(by_recipient.items())},
        "withheld_by_class": dict(withheld.most_common()),
        "withheld_why": [[name, reason, n] for (name, reason), n in why.most_common(40)],
        "guards_held": dict(sorted(guards.items())),
        "deliveries": deliveries,
        "recalls": recalled,
        "received": len(received),
        "unlogged": len(received - released),
        "undelivered": len(released - received),
        "quarantined": day.rejected,
        "dead_letters": len(hub.broker.dead_letters()),
        "unplaced_fields": day.unplaced,
        "requests": {"asked": day.agencies.requests_seen, "answered": day.agencies.requests_answered},
        "plans": day.fss.plans,
        "tasks": day.fss.tasks,
        "schools_told": day.agencies.schools_told,
        "ledger": {"size": checkpoint.size, "root": checkpoint.root.hex(), "verified": proof.ok},
        "decisions_digest": hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest(),
        "example": _example(hub),
        "rates": [
            {"name": r.name, "review": r.expected, "here": round(r.observed, 3)}
            for r in rates(day.population)
        ],
        "folder": str(folder),
    }


def _digest_line(entry: dict[str, Any]) -> str:
    """source, id, party, outcome, clauses, classes of one decision."""
    given = ";".join(f"{role}={','.join(names)}" for role, names in sorted(entry["given"].items()))
    return "\t".join(
        (
            entry["source"],
            entry["message"],
            entry["party"],
            entry["outcome"],
            ",".join(entry["clauses"]),
            given,
        )
    )


def _example(hub: Hub) -> str:
    """A message worth explaining: the first episode that was shared with some and refused to others."""
    for raw in hub.ledger.entries(0, 2000):
        entry = orjson.loads(raw)
        if entry.get("type") == "nz.isr.police.episode-recorded.v1":
            return str(entry["message"])
    return ""


def _verify_export(hub: Hub, folder: Path, key: str) -> Report:
    """On servers the ledger is proved from its exported files, as an outsider would."""
    hub.ledger.export(folder / "ledger")
    return verify(folder / "ledger", key)
