"""Deciding: beside Cedar, with ever more clauses of other parties, and over the past under a draft. All of it
is one thread's work, so what is counted is this process's time on the processor.
"""

import json
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from time import process_time
from typing import Any

from consent import inputs
from consent.agreement import Agreements, Party
from consent.clause import Agreement, Clause
from consent.conditions import CONDITIONS
from consent.inputs import Asked
from consent.policy import Question, decide_each
from consent.replay import Replay
from gateway.bench.figures import Side, median, microseconds_each
from gateway.bench.load import NOW, accepted, carried, embedded_hub
from gateway.bench.run import Run
from gateway.hub import Hub
from schemas.database import reading

NO_CEDAR = "cedarpy is not installed; make bench installs it, or: pip install cedarpy"
_CLAUSES = 200
_LEAST_SECONDS = 0.2


def measure(run: Run) -> None:
    """R4: what every party may receive of a message, with reasons and withheld classes."""
    present, past = _past(run, min(300, run.size.episodes))
    questions = [a.question for a in past]
    run.step("deciding")
    found, n = run.findings, run.size.repetitions
    several = widened(present, _CLAUSES)
    ours = _microseconds(several, questions, n)
    parties = sum(len(_recipients(several, q)) for q in questions) / len(questions)
    found.figure("decide", "a party's decision, remembered", ours / parties, "µs", n)
    cold = _cold(several, questions, n)
    found.figure("decide", "a party's decision, first message of a day", cold / parties, "µs", n)
    run.step("Cedar, on the same question")
    asking = cedar(several, questions)
    if asking is None:
        found.missing("R4", NO_CEDAR)
    else:
        by_party, by_class, requests = asking
        beside = microseconds_each(questions[:40], by_party, n)
        found.ratio(
            "R4",
            ours / beside,
            Side("all parties, with reasons and withheld classes", ours, "µs a message"),
            Side("cedarpy, policies parsed, one request a party", beside, "µs a message"),
            n,
        )
        each = microseconds_each(questions[:4], by_class, n)
        found.figure("decide", "cedarpy, one request a party", beside / parties, "µs", n)
        found.figure(
            "decide",
            f"cedarpy, one request a class ({requests(questions[0])} a message)",
            each / parties,
            "µs",
            n,
        )
    run.step("deciding, with ever more clauses of others")
    times = {}
    for count in (10, 100, 1000, 10_000):
        more = widened(present, sum(len(a.clauses) for a in present) + count)
        times[count] = _microseconds(more, questions, n)
        found.figure("decide", f"all parties, {count:,} clauses of others", times[count], "µs a message", n)
    found.ratio(
        "R4-flat",
        times[10_000] / times[10],
        Side("10,000 clauses of others", times[10_000], "µs a message"),
        Side("10 clauses of others", times[10], "µs a message"),
        n,
    )


def measure_what_if(run: Run) -> None:
    """How many past decisions a second are put to a draft, each under both."""
    present, _ = _past(run, 1)
    run.step("the past under a draft")
    drafts = {
        "a draft that touches two kinds of party": narrowed(present, {"MSD", "HNZ"}),
        "a draft that touches every party": narrowed(present, None),
    }
    decided = 0
    with run.own_folder() as folder, embedded_hub(folder) as hub:
        _play(run, hub, run.size.episodes)
        for name, draft in drafts.items():
            rates = []
            for _ in range(run.size.repetitions):
                seconds, decided = what_if(hub, draft)
                rates.append(decided / seconds)
            run.findings.figure("what-if", name, median(rates), "decisions/s", len(rates))
    run.findings.figure("what-if", "decisions replayed", decided, "decisions")


def what_if(hub: Hub, draft: Agreements) -> tuple[float, int]:
    """Replays all that *hub* decided under *draft*; returns seconds and decisions."""
    # As the command does: both sets of agreements are read anew, nothing is remembered.
    present = Agreements(hub.agreements.parties, tuple(hub.agreements), hub.agreements.version_hash)
    draft = Agreements(draft.parties, tuple(draft), draft.version_hash)
    started = process_time()
    replay = Replay(present, draft, NOW.date())
    with reading(hub.engine).connect() as connection:
        for asked in inputs.stored(connection):
            replay.take(asked)
    return process_time() - started, replay.found.decisions


def narrowed(agreements: Agreements, kinds: Set[str] | None) -> Agreements:
    """*agreements* as a draft in which clauses for parties of *kinds* (None: of any) grant one class less
    about each role.
    """

    def less(clause: Clause) -> Clause:
        if kinds is not None and clause.recipient not in kinds:
            return clause
        grants = {role: dict(sorted(classes.items())[1:]) for role, classes in clause.grants.items()}
        return replace(clause, grants=grants)

    drafts = [replace(a, clauses=tuple(less(c) for c in a.clauses)) for a in agreements]
    return Agreements(agreements.parties, drafts, "draft")


def widened(agreements: Agreements, clauses: int) -> Agreements:
    """*agreements* with as many further clauses, for other parties of the same kinds, that there are
    *clauses* in all.
    """
    present = [clause for a in agreements for clause in a.clauses]
    wanted = clauses - len(present)
    if wanted <= 0:
        return agreements
    first = next(iter(agreements))
    pattern = next(iter(agreements.parties.values()))
    parties: dict[str, Party] = dict(agreements.parties)
    more = []
    for n in range(wanted):
        name = f"other.n{n // 20}"
        if name not in parties:
            parties[name] = replace(pattern, id=name, name=name, sites=frozenset({f"elsewhere-{n // 20}"}))
        more.append(replace(present[n % len(present)], id=f"OTHER-{n}", recipient=name))
    other: Agreement = replace(first, id="OTHERS", clauses=tuple(more))
    return Agreements(parties, (*agreements, other), f"with {wanted} more")


def _past(run: Run, count: int) -> tuple[Agreements, list[Asked]]:
    """The agreements, and *count* messages as the exchange asked about them."""
    with run.own_folder() as folder, embedded_hub(folder) as hub:
        _play(run, hub, count)
        with reading(hub.engine).connect() as connection:
            return hub.agreements, list(inputs.stored(connection))


def _play(run: Run, hub: Hub, count: int) -> None:
    accepted(hub, run.natives(count))
    carried(hub)


def _recipients(agreements: Agreements, question: Question) -> Sequence[Party]:
    return agreements.candidates(frozenset(case.site for case in question.cases), question.source)


def _decider(agreements: Agreements) -> Callable[[Question], Any]:
    def decide_all(question: Question) -> Any:
        return list(decide_each(agreements, question, _recipients(agreements, question)))

    return decide_all


def _microseconds(agreements: Agreements, questions: Sequence[Question], repetitions: int) -> float:
    return microseconds_each(questions, _decider(agreements), repetitions, least_seconds=_LEAST_SECONDS)


def _cold(agreements: Agreements, questions: Sequence[Question], repetitions: int) -> float:
    """Median microseconds a message when nothing is remembered at the start."""
    times = []
    for _ in range(repetitions):
        decide_all = _decider(Agreements(agreements.parties, tuple(agreements), "anew"))
        part = questions[:50]
        started = process_time()
        for question in part:
            decide_all(question)
        times.append((process_time() - started) / len(part) * 1e6)
    return median(times)


_Ask = Callable[[Question], Any]


def cedar(
    agreements: Agreements, questions: Sequence[Question]
) -> tuple[_Ask, _Ask, Callable[[Question], int]] | None:
    """How to put a question to Cedar under the same clauses: once a party, or once a party and class (what it
    takes to know what is withheld); and how many requests the latter makes. None when it is not installed.

    Cedar answers yes or no to one request, so the first way leaves open what a party may receive: the
    comparison is to Cedar's advantage. Policies and entities are parsed beforehand, and the conditions are
    worked out for it.
    """
    try:
        import cedarpy  # noqa: PLC0415  # optional
    except ImportError:
        return None
    policies = cedarpy.PolicySet.from_str("\n".join(_policy(c) for a in agreements for c in a.clauses))
    entities = cedarpy.Entities.from_json_str(json.dumps(_entities(agreements, questions)))

    met: dict[tuple[int, str], dict[str, bool]] = {}
    for question in questions:
        for decision in decide_each(agreements, question, _recipients(agreements, question)):
            met[id(question), decision.recipient] = dict(decision.conditions)

    def request(party: Party, question: Question, facts: Sequence[str]) -> dict[str, Any]:
        flags = _UNMET | met[id(question), party.id]
        context = {"purpose": question.purpose, "facts": list(facts), **flags}
        return {
            "principal": f'Party::"{party.id}"',
            "action": 'Action::"receive"',
            "resource": f'Type::"{question.type}"',
            "context": context,
        }

    def facts_of(question: Question) -> list[str]:
        return sorted(
            {
                f"{question.roles.get(ref, 'case')}/{facet.name}"
                for ref, facets in question.holdings.items()
                for facet in facets
            }
        )

    def by_party(question: Question) -> Any:
        facts = facts_of(question)
        requests = [request(party, question, facts) for party in _recipients(agreements, question)]
        return [cedarpy.is_authorized(r, policies, entities) for r in requests]

    def by_class(question: Question) -> Any:
        requests = [
            request(party, question, [fact])
            for party in _recipients(agreements, question)
            for fact in facts_of(question)
        ]
        return cedarpy.is_authorized_batch(requests, policies, entities)

    return by_party, by_class, lambda q: len(_recipients(agreements, q)) * len(facts_of(q))


_UNMET = dict.fromkeys(CONDITIONS, False)


def _policy(clause: Clause) -> str:
    """*clause* in Cedar's language; its conditions as flags that the asker has worked out."""
    facts = json.dumps([f"{role}/{c}" for role, classes in clause.grants.items() for c in classes])
    purposes = json.dumps(sorted(clause.purposes))
    flags = "".join(f" && context.{name}" for name in clause.conditions)
    return (
        f'permit (principal in Group::"{clause.recipient}", action == Action::"receive", resource) '
        f"when {{ {purposes}.contains(context.purpose) && {facts}.containsAny(context.facts){flags} }};"
    )


def _entities(agreements: Agreements, questions: Sequence[Question]) -> list[dict[str, Any]]:
    groups = {clause.recipient for a in agreements for clause in a.clauses}
    known: list[dict[str, Any]] = [
        {"uid": {"type": "Group", "id": group}, "attrs": {}, "parents": []} for group in sorted(groups)
    ]
    wanted = {party.id: party for q in questions for party in _recipients(agreements, q)}
    known += [
        {
            "uid": {"type": "Party", "id": party.id},
            "attrs": {},
            "parents": [
                {"type": "Group", "id": group} for group in (party.kind, party.id) if group in groups
            ],
        }
        for party in wanted.values()
    ]
    return known
