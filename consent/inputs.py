"""What deciding needed: for every message carried, its question without content, kept so that past decisions
can be put to a draft of the agreements.

A row holds types, roles, classes, pseudonyms and keyed digests: no name, address, number or text, and no
agency's identifier. It is as sensitive as the case files beside it (who is in whose case), and it does not
leave the hub.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from consent.case import Case
from consent.policy import Question
from schemas.classes import Facet
from schemas.clock import instant_of, rfc3339
from schemas.database import BigInt, add_rows, metadata, rows_among

decision_input = sa.Table(
    "decision_input",
    metadata,
    sa.Column("number", BigInt, primary_key=True),  # order of carrying
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Text, nullable=False),  # RFC 3339, UTC
    sa.Column("asked", sa.LargeBinary, nullable=False),
)
_PAGE = 1000
_COLUMNS = ("source", "message", "at", "asked")


Row = tuple[str, str, str, bytes]  # source, message, at, asked


class Asked(NamedTuple):
    """One message as it was decided. *to* is the addressee, "" for the table. *numbered* says for each ref
    which agencies' own number the hub added (IPP 13): each of those was asked with ID-XREF among the
    holdings of that ref.
    """

    message: str
    to: str
    question: Question
    numbered: Mapping[str, frozenset[str]]


def encode(asked: Asked) -> Row:
    """*asked* as a row. The cases are written as they are now; later messages change them."""
    q = asked.question
    body: dict[str, Any] = {
        "y": q.type,
        "p": q.purpose,
        "a": q.audience,
        "r": dict(q.roles),
        "n": dict(q.pseudonyms),
        "h": {ref: _written(facets) for ref, facets in q.holdings.items()},
        "c": {case.id: case.to_json() for case in q.cases},
    }
    if q.elsewhere:
        body["e"] = {case.id: case.to_json() for case in q.elsewhere}
    if q.tags:
        body["g"] = sorted(q.tags)
    if asked.to:
        body["t"] = asked.to
    if asked.numbered:
        body["o"] = {ref: sorted(agencies) for ref, agencies in asked.numbered.items()}
    return q.source, asked.message, _said(q.at), orjson.dumps(body)


def keep(connection: sa.Connection, rows: Sequence[Row]) -> None:
    """Stores *rows* of `encode` in the caller's transaction, in one statement.

    It is the transaction of the decisions themselves: a crash before its commit leaves neither, after it
    both, so that each decision in the ledger has its question here, once.
    """
    add_rows(connection, decision_input, _COLUMNS, rows)


def count(connection: sa.Connection) -> int:
    """How many messages are stored."""
    return connection.execute(sa.select(sa.func.count()).select_from(decision_input)).scalar_one()


def stored(connection: sa.Connection) -> Iterator[Asked]:
    """Every message stored, in the order of carrying."""
    last = -1
    columns = decision_input.c
    while True:
        query = sa.select(decision_input).where(columns.number > last).order_by(columns.number).limit(_PAGE)
        rows = connection.execute(query).all()
        for row in rows:
            yield _decoded(row.source, row.message, row.at, row.asked)
        if len(rows) < _PAGE:
            return
        last = rows[-1].number


def older(connection: sa.Connection, until: str, after: int, limit: int) -> list[tuple[int, Asked]]:
    """Up to *limit* messages decided at or before *until* (RFC 3339, UTC) with a number above *after*, each
    with its number.
    """
    query = (
        sa.select(decision_input)
        .where(decision_input.c.number > after, decision_input.c.at <= until)
        .order_by(decision_input.c.number)
        .limit(limit)
    )
    return [
        (row.number, _decoded(row.source, row.message, row.at, row.asked))
        for row in connection.execute(query)
    ]


def forget(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Removes the messages with *numbers* in the caller's transaction: it is that of the entry that says
    so.
    """
    connection.execute(sa.delete(decision_input).where(decision_input.c.number.in_(numbers)))


def of(connection: sa.Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Asked]:
    """The stored question of each of *keys* (source, message), as far as there is one."""
    wanted = set(keys)
    found: dict[tuple[str, str], Asked] = {}
    messages = {message for _, message in wanted}
    for source, message, at, asked in rows_among(connection, decision_input, _COLUMNS, "message", messages):
        if (source, message) in wanted:
            found[source, message] = _decoded(source, message, at, asked)
    return found


def _decoded(source: str, message: str, at: str, asked: bytes) -> Asked:
    body = orjson.loads(asked)
    question = Question(
        type=body["y"],
        purpose=body["p"],
        audience=body["a"],
        source=source,
        roles=body["r"],
        pseudonyms=body["n"],
        holdings={ref: _facets(written) for ref, written in body["h"].items()},
        cases=tuple(Case.from_json(id, facts) for id, facts in body["c"].items()),
        at=instant_of(at),
        elsewhere=tuple(Case.from_json(id, facts) for id, facts in body.get("e", {}).items()),
        tags=frozenset(body.get("g", ())),
    )
    numbered = {ref: frozenset(agencies) for ref, agencies in body.get("o", {}).items()}
    return Asked(message, body.get("t", ""), question, numbered)


_said = lru_cache(maxsize=16)(rfc3339)  # a batch is asked at one instant


@lru_cache(maxsize=4096)
def _written(facets: frozenset[Facet]) -> str:
    """*facets* as words: the class, `+` when it locates, `~` when it is free text."""
    return " ".join(sorted(f.name + "+" * f.locates + "~" * f.free_text for f in facets))


@lru_cache(maxsize=4096)
def _facets(written: str) -> frozenset[Facet]:
    return frozenset(Facet(word.rstrip("+~"), "+" in word, "~" in word) for word in written.split())


def unnumbered(question: Question, own: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    """For each ref whom the sender did not number: the agencies whose own number the hub knows, from *own*
    (pseudonym → agencies).
    """
    number = Facet("ID-XREF")
    return {
        ref: frozenset(own[pseudonym])
        for ref, pseudonym in question.pseudonyms.items()
        if own.get(pseudonym) and number not in question.holdings.get(ref, ())
    }
