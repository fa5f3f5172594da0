"""What waits for people, stored: the same in SQLite and in PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from consent import waiting
from consent.override import State as OverrideState
from consent.people import Keys
from consent.placing import Placed
from consent.policy import Decision, Leave, decide
from consent.referral import State
from consent.waiting import Pending, Waiting
from gateway.due import decision_due
from schemas.clock import rfc3339
from schemas.database import metadata, open_database
from schemas.message import Message, identity
from tests.unit.test_policy import AGREEMENTS, NARR, SUM, question

NOW = datetime(2026, 11, 20, 3, tzinfo=UTC)
LATER = rfc3339(NOW + timedelta(days=30))
SECRET = "12 Kōwhai Street"


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "sqlite":
        made = open_database(f"sqlite:///{tmp_path}/hub.sqlite")
        metadata.create_all(made)
    else:
        made = open_database(request.getfixturevalue("postgresql_database"))
    yield made
    made.dispose()


def message(**changes: Any) -> Message:
    made = Message(
        "police",
        identity("police", "one"),
        "nz.isr.police.episode-recorded.v1",
        rfc3339(NOW),
        {"episode": {"narrative": SECRET}, "people": []},
    )
    return replace(made, **changes)


ASKED = question(
    holdings={"": frozenset({SUM, NARR}), "p1": frozenset(), "p2": frozenset(), "p3": frozenset()}
)
PLACED = Placed(ASKED.cases, message().data, dict(ASKED.roles))
CASE = ASKED.cases[0].id


def decided(party: str, leave: Leave = Leave()) -> Decision:  # noqa: B008  # a constant
    return decide(AGREEMENTS, replace(ASKED, leave=leave), AGREEMENTS.parties[party])


def stored(engine: sa.Engine, *parties: str, said: Message | None = None, mandatory: bool = False) -> Pending:
    store = Waiting(Keys(bytes(32)), decision_due)
    with engine.begin() as connection:
        pending = store.open_batch(connection, [said or message()], NOW)
        for party in parties:
            leave = Leave(mandatory=mandatory)
            pending.add(said or message(), PLACED, ASKED.pseudonyms, decided(party, leave), leave)
        pending.save(connection)
    pending.committed()
    return pending


def found(engine: sa.Engine, **wanted: Any) -> list[waiting.Row]:
    with engine.connect() as connection:
        return waiting.rows(connection, **wanted)


def test_referral_comes_back_as_it_was_stored(engine: sa.Engine) -> None:
    stored(engine, "corrections", "health")
    corrections, health = sorted(found(engine), key=lambda r: r.party)
    assert corrections.cells == (("case", "EPISODE-NARR"),)
    assert corrections.cases == (CASE,)
    assert corrections.standing.state is State.WAITING
    assert corrections.standing.due == datetime(
        2026, 11, 23, 3, tzinfo=UTC
    )  # high risk: the next working day
    assert found(engine, ids=[health.id]) == [health]
    assert found(engine, holder="health") == []
    assert {r.id for r in found(engine, case=CASE)} == {corrections.id, health.id}
    assert found(engine, case="%") == []
    assert found(engine, due_before=rfc3339(NOW)) == []
    assert len(found(engine, due_before=LATER)) == 2


def test_submission_is_sealed_once_and_goes_with_its_last_referral(engine: sa.Engine) -> None:
    stored(engine, "corrections", "health")
    store = Waiting(Keys(bytes(32)), decision_due)
    with engine.begin() as connection:
        (sealed,) = connection.execute(sa.select(waiting.kept_submission.c.sealed)).scalars()
        assert SECRET.encode() not in bytes(sealed)
        kept = store.kept(connection, "police", message().id)
        assert kept is not None
        assert (kept.data, kept.cases) == (message().data, [CASE])
        for number, row in enumerate(waiting.rows(connection)):
            assert waiting.end(connection, row, State.DECLINED, "no-help", rfc3339(NOW))
            assert not waiting.end(connection, row, State.APPROVED, "", rfc3339(NOW))
            assert (store.kept(connection, "police", message().id) is None) is (number == 1)


def test_submission_filed_under_another_message_is_not_taken(engine: sa.Engine) -> None:
    stored(engine, "corrections")
    with engine.begin() as connection:
        connection.execute(sa.update(waiting.kept_submission).values(message="another-one"))
        with pytest.raises(ValueError, match="another message"):
            Waiting(Keys(bytes(32)), decision_due).kept(connection, "police", "another-one")


def test_duties_are_stored_once_whoever_brings_them(engine: sa.Engine) -> None:
    for key in ("one", "two"):  # two processes: neither knows what the other has seen
        asked = question()
        decision = decide(AGREEMENTS, asked, AGREEMENTS.parties["oranga-tamariki"])
        with engine.begin() as connection:
            pending = Waiting(Keys(bytes(32)), decision_due).open_batch(connection, [], NOW)
            said = message(id=identity("police", key))
            pending.add(said, PLACED, asked.pseudonyms, decision, Leave())
            pending.save(connection)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(waiting.duty.c.kind, waiting.duty.c.role)).all()
    assert sorted(tuple(r) for r in rows) == [("ipp3a", "perpetrator"), ("ipp3a", "victim")]


def test_counts_tell_late_from_in_time(engine: sa.Engine) -> None:
    stored(engine, "corrections", "health")
    with engine.connect() as connection:
        assert waiting.counts(connection, rfc3339(NOW))["release", "police", "waiting"] == 2
        assert waiting.counts(connection, LATER)["release", "police", "overdue"] == 2


def test_what_section_66_requires_begins_with_the_lawyers(engine: sa.Engine) -> None:
    stored(engine, "corrections", mandatory=True)
    (row,) = found(engine)
    assert (row.standing.state, row.standing.mandatory) == (State.LEGAL, True)
    with engine.connect() as connection:
        assert waiting.counts(connection, rfc3339(NOW)) == {("release", "police", "legal"): 1}


def running(engine: sa.Engine, until: datetime) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.insert(waiting.override).values(
                id="o1", party="police", case_id=CASE, clauses='["A@1/B"]', threat="life", sealed=b"x",
                capacity="legal", person="p", at=rfc3339(NOW), until=rfc3339(until), minutes=60,
                review_due=LATER, state=OverrideState.OPEN.value, finding="",
            )
        )  # fmt: skip


def test_override_that_runs_is_found_for_its_case_and_party(engine: sa.Engine) -> None:
    running(engine, NOW + timedelta(seconds=1))
    with engine.begin() as connection:
        pending = Waiting(Keys(bytes(32)), decision_due).open_batch(connection, [message()], NOW)
        assert pending.leaves(message(), PLACED) == {"police": Leave(opened=frozenset({"A@1/B"}))}
        elsewhere = replace(PLACED, cases=(replace(ASKED.cases[0], id="another"),))
        assert pending.leaves(message(), elsewhere) == {}
        after = Waiting(Keys(bytes(32)), decision_due).open_batch(
            connection, [message()], NOW + timedelta(seconds=1)
        )
        assert after.leaves(message(), PLACED) == {}
