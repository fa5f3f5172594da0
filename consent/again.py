"""A question asked again, with what is known now: the case as it is, and each person in the role that the
case gives them since.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from consent.agreement import Agreements, Party
from consent.case import Case
from consent.decision import Decision, Question
from consent.inputs import Asked
from consent.policy import decide
from schemas.catalogue import Branch, Leaf, published
from schemas.classes import CASE, Facet

_RANK = {"": 0, "reduced": 1, "full": 2}
_NUMBER = Facet("ID-XREF")


def roles_now(question: Question, now: Mapping[str, Case], turned: Mapping[str, str]) -> dict[str, str]:
    """The role of each ref of *question*: the one it was asked with, the one that its case has come to since
    (*now*, by id), or the one of a later case (*turned*).
    """
    roles = dict(question.roles)
    for case in question.cases:
        present = now.get(case.id, case)
        for ref, pseudonym in question.pseudonyms.items():
            then, since = case.people.get(pseudonym), present.people.get(pseudonym)
            if since is None or not since.roles or (then is not None and then.roles == since.roles):
                continue
            if ref in roles and since.roles[-1] != "associate":
                roles[ref] = since.roles[-1]
    return {**roles, **turned}


def asked_now(
    question: Question,
    now: Mapping[str, Case],
    elsewhere: Iterable[Case],
    holdings: Mapping[str, frozenset[Facet]],
    roles: Mapping[str, str],
) -> Question:
    """*question* about *holdings* with the cases as they are *now* (by id), later ones included."""
    cases = tuple(now.get(case.id, case) for case in question.cases)
    there = {case.id for case in cases}
    cases = (*cases, *(case for case in now.values() if case.id not in there))
    return replace(question, cases=cases, elsewhere=tuple(elsewhere), holdings=holdings, roles=roles)


def is_less(
    asked: Asked,
    now: Mapping[str, Case],
    elsewhere: Iterable[Case],
    turned: Mapping[str, str],
    agreements: Agreements,
    party: Party,
) -> bool:
    """Whether *party* would have been given less, had been known then what is known *now* of people, roles
    and links. Agreements, day, risk and whether the case is open are as they were: an end of a case or of an
    agreement does not make wrong what was right.
    """
    question = asked.question
    held = held_by(asked, party, question.roles)
    before = decide(agreements, replace(question, holdings=held), party)
    if not before.given:
        return False
    then = {case.id: case for case in question.cases}
    as_then = {id: _knowing(then[id], case) if id in then else case for id, case in now.items()}
    roles = roles_now(question, as_then, turned)
    reheld = held_by(asked, party, roles)
    after = decide(agreements, asked_now(question, as_then, elsewhere, reheld, roles), party)
    return any(
        _RANK[after.given.get(ref, {}).get(target, "")] < _RANK[view]
        for ref, facets in before.given.items()
        for facet, view in facets.items()
        for target in _in_role(question, ref, {facet}, roles)
    )


def held_by(asked: Asked, party: Party, roles: Mapping[str, str]) -> dict[str, frozenset[Facet]]:
    """What the message held about each ref when *party* was decided on, its own number from the crosswalk
    included, in the classes that it has about people in *roles*.

    All of it, and not what is left for the party: that a person was numbered, or said how contact is safe, a
    guard asks of the message and not of the copy.
    """
    question = asked.question
    return {
        ref: _in_role(
            question,
            ref,
            facets | {_NUMBER} if party.agency in asked.numbered.get(ref, ()) else facets,
            roles,
        )
        for ref, facets in question.holdings.items()
    }


def _in_role(
    question: Question, ref: str, facets: Iterable[Facet], roles: Mapping[str, str]
) -> frozenset[Facet]:
    role = question.roles.get(ref, "")
    if not ref or roles.get(ref, role) == role:
        return frozenset(facets)
    turned = reclassified(question.type, role, roles[ref])
    return frozenset(target for facet in facets for target in turned.get(facet, ()))


def _knowing(then: Case, now: Case) -> Case:
    """*then* with what is known *now* about its people."""
    return replace(now, open=then.open, risk=then.risk)


@cache
def reclassified(type: str, old: str, new: str) -> Mapping[Facet, frozenset[Facet]]:
    """What a facet about somebody in role *old* is about the same person in role *new*, in a message of
    *type*: where somebody lives is `LOC-P` of a perpetrator and `ADDR-V` of a victim.
    """
    found: dict[Facet, set[Facet]] = {}
    for leaf in _leaves(published()[type].shape):
        if old in leaf.facets and new in leaf.facets:
            found.setdefault(leaf.facets[old], set()).add(leaf.facets[new])
    return {facet: frozenset(targets) for facet, targets in found.items()}


def _leaves(branch: Branch) -> Iterable[Leaf]:
    for child in branch.children.values():
        if isinstance(child, Leaf):
            yield child
        else:
            yield from _leaves(child)


def given_by_role(decision: Decision, roles: Mapping[str, str]) -> dict[str, list[str]]:
    """What *decision* gives, by role, as a ledger entry says it."""
    given: dict[str, set[str]] = {}
    for ref, facets in decision.given.items():
        for facet, view in facets.items():
            said = facet.name if view == "full" else f"{facet.name}:{view}"
            given.setdefault(roles.get(ref, CASE), set()).add(said)
    return {role: sorted(names) for role, names in sorted(given.items())}
