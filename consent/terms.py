"""When an agreement holds beside others: its versions, what it supersedes, and whom it names.

Two versions of one agreement never hold on the same day, unless the later says that it supersedes the
earlier; then the earlier ends on the day before. Whatever is unclear about it is a problem at load.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

from consent.clause import ANY, Agreement, Party

Wrong = Callable[[Agreement, tuple[str | int, ...], str, str], None]


def settled(agreements: Iterable[Agreement], superseded: Mapping[str, str], wrong: Wrong) -> list[Agreement]:
    """*agreements*, each with the end that its successor gives it. *superseded* says besides what the files
    say which (`ID@version`) is superseded by which; *wrong* is told what cannot be (agreement, place in its
    file, what, fix).
    """
    by_name: dict[str, Agreement] = {}
    for agreement in agreements:
        if agreement.name in by_name:
            wrong(agreement, ("agreement", "id"), f"the agreement {agreement.name} exists twice", "keep one")
            continue
        by_name[agreement.name] = agreement
    successors = {old: by_name[new] for old, new in superseded.items() if new in by_name}
    for agreement in by_name.values():
        if agreement.supersedes:
            successors.setdefault(agreement.supersedes, agreement)
    for agreement in by_name.values():
        if (chain := _circle(agreement, successors)) is not None:
            wrong(
                agreement,
                ("agreement", "supersedes"),
                "supersession goes in a circle: " + " by ".join(chain),
                "take out one of them",
            )
            return list(by_name.values())
    ended = [_ended(a, successors.get(a.name), wrong) for a in by_name.values()]
    _overlaps(ended, wrong)
    return ended


def _circle(agreement: Agreement, successors: Mapping[str, Agreement]) -> list[str] | None:
    chain, after = [agreement.name], successors.get(agreement.name)
    while after is not None:
        chain.append(after.name)
        if after is agreement:
            return chain
        if after.name in chain[:-1]:
            return None  # a circle further on, found from there
        after = successors.get(after.name)
    return None


def _ended(agreement: Agreement, successor: Agreement | None, wrong: Wrong) -> Agreement:
    if successor is None or successor.status != "active":
        return agreement
    if successor.effective_from <= agreement.effective_from:
        wrong(
            successor,
            ("agreement", "effective_from"),
            f"begins no later than {agreement.name}, which it supersedes",
            "let it begin later, or revoke the other",
        )
    last = successor.effective_from - timedelta(days=1)
    return replace(agreement, effective_to=min(last, agreement.effective_to or last))


def _overlaps(agreements: Iterable[Agreement], wrong: Wrong) -> None:
    terms: dict[str, list[Agreement]] = {}
    for agreement in agreements:
        if agreement.status == "active":
            terms.setdefault(agreement.id, []).append(agreement)
    for versions in terms.values():
        versions.sort(key=lambda a: (a.effective_from, a.version))
        for earlier, later in pairwise(versions):
            if later.effective_from <= (earlier.effective_to or date.max):
                wrong(
                    later,
                    ("agreement", "effective_from"),
                    f"its dates overlap those of {earlier.name}",
                    f"end {earlier.name} before, or say supersedes: {earlier.name}",
                )


def outsiders(agreement: Agreement, parties: Mapping[str, Party], wrong: Wrong) -> None:
    """Tells *wrong* each clause from or to somebody who is not among the agreement's own parties, when it
    names any.
    """
    if not agreement.parties:
        return
    named = set(agreement.parties)
    kinds = named | {parties[p].kind for p in named if p in parties}
    for i, clause in enumerate(agreement.clauses):
        to = parties.get(clause.recipient)
        if not {clause.recipient, to.kind if to else clause.recipient} & named:
            wrong(
                agreement,
                ("clauses", i, "to"),
                f"{clause.recipient} is not a party of this agreement",
                "add it to the agreement's parties, or take the clause out",
            )
        for kind in sorted(clause.sources - {ANY} - kinds):
            wrong(
                agreement,
                ("clauses", i, "from"),
                f"{kind} is not a party of this agreement",
                "add it to the agreement's parties, or take it out of the clause",
            )
