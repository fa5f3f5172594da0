"""What later knowledge touches: which messages are about which case, since when a case calls for more care,
and the recalls that came of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from schemas.database import BigInt, add_rows, metadata, rows_among

case_message = sa.Table(
    "case_message",
    metadata,
    sa.Column("case_id", sa.String(64), primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("message", sa.Text, primary_key=True),
)
case_caution = sa.Table(
    "case_caution",
    metadata,
    sa.Column("case_id", sa.String(64), primary_key=True),
    sa.Column("entry", BigInt, nullable=False, index=True),  # decisions before this index did not know it
    sa.Column("reason", sa.String(20), nullable=False),
)
recall = sa.Table(
    "recall",
    metadata,
    sa.Column("disclosure", sa.String(64), primary_key=True),
    sa.Column("entry", BigInt, nullable=False),  # that says so in the ledger
    sa.Column("released", BigInt, nullable=False),  # the entry of the disclosure
    sa.Column("party", sa.String(80), nullable=False),  # who has what is recalled
    sa.Column("holder", sa.String(80), nullable=False),  # whose privacy officer is told
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("reason", sa.String(40), nullable=False),
    sa.Column("at", sa.String(30), nullable=False),
    sa.Column("settled", BigInt, nullable=True),  # the entry that says that the privacy officer is done
)
_CHUNK = 400


class Task(NamedTuple):
    """One recall as the holder's privacy officer sees it: *party* was told to withdraw what it has of
    *message*. *settled* is the ledger's index of the end of it; None while it is open.
    """

    disclosure: str
    entry: int
    released: int
    party: str
    holder: str
    message: str
    type: str
    reason: str
    at: str
    settled: int | None


def remember(connection: sa.Connection, rows: Iterable[tuple[str, str, str]]) -> None:
    """Stores that a message is about a case (case, source, message), in the caller's transaction."""
    add_rows(connection, case_message, ("case_id", "source", "message"), list(rows))


def forget(connection: sa.Connection, cases: Iterable[str], messages: Iterable[str]) -> None:
    """Removes that *messages* (ids) were about *cases*, in the caller's transaction: without their questions
    nothing can be asked again.
    """
    there = list(_parts(messages))
    for part in _parts(cases):
        for ids in there:
            connection.execute(
                sa.delete(case_message).where(
                    case_message.c.case_id.in_(part), case_message.c.message.in_(ids)
                )
            )


def warn(connection: sa.Connection, cautions: Mapping[str, tuple[int, str]]) -> None:
    """Stores from which ledger index on decisions know of what is new in a case (case → index, reason)."""
    if not cautions:
        return
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(case_caution)
    statement = insert.on_conflict_do_update(
        index_elements=["case_id"], set_={"entry": insert.excluded.entry, "reason": insert.excluded.reason}
    )
    connection.execute(
        statement, [{"case_id": c, "entry": n, "reason": why} for c, (n, why) in cautions.items()]
    )


def newest(connection: sa.Connection) -> int:
    """The highest ledger index from which on something more was known of any case; -1 when nothing was."""
    found = connection.execute(sa.select(sa.func.max(case_caution.c.entry))).scalar()
    return -1 if found is None else int(found)


def warned(
    connection: sa.Connection, cases: Iterable[str] | None = None, above: int = -1
) -> dict[str, tuple[int, str]]:
    """Of *cases* (all), those of which something was learnt above a ledger index: case → (index, reason)."""
    if cases is None:
        query = sa.select(case_caution).where(case_caution.c.entry > above)
        return {row.case_id: (row.entry, row.reason) for row in connection.execute(query)}
    columns = ("case_id", "entry", "reason")
    rows = rows_among(connection, case_caution, columns, "case_id", cases)
    return {case: (entry, reason) for case, entry, reason in rows if entry > above}


def messages_of(connection: sa.Connection, cases: Iterable[str]) -> dict[str, set[tuple[str, str]]]:
    """(source, message) of every message that was carried about each of *cases*."""
    found: dict[str, set[tuple[str, str]]] = {}
    columns = ("case_id", "source", "message")
    for case, source, message in rows_among(connection, case_message, columns, "case_id", cases):
        found.setdefault(case, set()).add((source, message))
    return found


def recalled(connection: sa.Connection, disclosures: Iterable[str]) -> set[str]:
    """Which of *disclosures* have been recalled."""
    return {id for (id,) in rows_among(connection, recall, ("disclosure",), "disclosure", disclosures)}


def add(connection: sa.Connection, tasks: Sequence[Task]) -> None:
    """Stores *tasks* in the caller's transaction."""
    add_rows(connection, recall, Task._fields, tasks)


def settle(connection: sa.Connection, disclosure: str, entry: int) -> None:
    """Notes the ledger's *entry* that ends the recall of *disclosure*."""
    connection.execute(sa.update(recall).where(recall.c.disclosure == disclosure).values(settled=entry))


def tasks(connection: sa.Connection, *, is_open: bool = False) -> list[Task]:
    """The recalls, newest first; with *is_open* only those that nobody has settled."""
    query = sa.select(recall).order_by(recall.c.entry.desc())
    if is_open:
        query = query.where(recall.c.settled.is_(None))
    return [Task(**row._mapping) for row in connection.execute(query)]


def _parts(values: Iterable[str]) -> Iterator[list[Any]]:
    listed = sorted(set(values))
    return (listed[i : i + _CHUNK] for i in range(0, len(listed), _CHUNK))
