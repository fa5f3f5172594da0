"""What is asked again: nothing while nothing changed, no query more for a longer queue, and never more than
before."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.adapter import Native
from broker.broker import Delivery, deliveries_to
from consent import life as lives
from consent.again import reclassified
from consent.agreement import Agreements
from consent.case import CONFLICT, HOME, LINK, PROXY, ROLE, Case, Caution, PersonInCase
from consent.life import APPROVED, DRAFT, SUSPENDED, Life, Officer
from gateway.hub import agreements_folder
from gateway.sandbox.day import five_f
from gateway.sandbox.population import stream
from gateway.settings import Settings
from schemas.catalogue import published
from schemas.classes import Facet
from schemas.errors import OutOfTurn
from tests.serving import episode, small_hub


def family() -> Case:
    case = Case("c1", "christchurch")
    case.people["him"] = PersonInCase(["perpetrator"], {"his"})
    case.people["her"] = PersonInCase(["victim"], {"hers"})
    case.people["tam"] = PersonInCase(["child"], {"hers"})
    return case


def test_quiet_case_has_only_its_roles() -> None:
    assert {c.what for c in family().cautions()} == {ROLE}


def test_each_thing_that_calls_for_care_is_a_caution() -> None:
    case = family()
    before = case.cautions()
    case.assignments |= {("ngo.a#wsw", "him", "wsw"), ("ngo.b#wsw", "her", "wsw"), ("police", "*", "table")}
    case.assignments |= {("ngo.c#ivs", "nobody", "ivs"), ("ngo.d#ivs", "him", "asked")}
    case.conflicts.add("health")
    case.people["him"].households.add("hers")
    case.people["tam"].representative = "him"
    case.people["her"].roles.append("perpetrator")

    assert case.cautions() - before == {
        Caution(LINK, "ngo.a#wsw", "him"),
        Caution(LINK, "ngo.b#wsw", "her"),  # since she was called the perpetrator
        Caution(LINK, "ngo.c#ivs", "nobody"),
        Caution(CONFLICT, "health", ""),
        Caution(HOME, "him", ""),
        Caution(HOME, "her", ""),
        Caution(PROXY, "tam", "him"),
        Caution(ROLE, "her", "victim/perpetrator"),
    }


def test_where_somebody_lives_is_another_class_in_another_role() -> None:
    turned = reclassified("nz.isr.police.episode-recorded.v1", "perpetrator", "victim")

    assert {f.name for f in turned[Facet("LOC-P")]} >= {"ADDR-V"}
    same = reclassified("nz.isr.police.episode-recorded.v1", "victim", "victim")
    assert all(targets == {facet} for facet, targets in same.items())
    assert published()["nz.isr.police.episode-recorded.v1"].opens_case


def test_what_a_batch_learns_of_its_own_disclosures_is_not_looked_for_among_deliveries(
    tmp_path: Path,
) -> None:
    """They wait in the outbox, and are asked about again before they leave."""
    from tests.integration.test_life import flipped  # noqa: PLC0415  # its families

    with small_hub(tmp_path) as hub:
        statements: list[str] = []
        sa.event.listen(hub.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
        natives = [Native(orjson.dumps(r), "application/json", "in.json") for r in (episode(), flipped())]
        hub.exchange.accept("police", natives)
        hub.exchange.carry()

        assert any("INSERT INTO case_caution" in s for s in statements)
        assert not [s for s in statements if "FROM ledger_entry" in s and "message IN" in s]

        hub.exchange.finish()
        decided = [orjson.loads(e) for e in hub.ledger.entries(0, hub.ledger.head().size)]
        assert "corrections" in {e["party"] for e in decided if e["kind"] in ("stopped", "narrowed")}
        assert not [e for e in decided if e["kind"] == "recall"]


def test_a_larger_batch_runs_no_more_statements(tmp_path: Path) -> None:
    natives = [five_f(i.family, i.episode) for i in stream(7, 100, days=1)]
    with small_hub(tmp_path) as hub:
        statements: list[str] = []
        sa.event.listen(hub.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

        def run(batch: list[Native]) -> int:
            hub.exchange.accept("police", batch)
            statements.clear()
            assert hub.exchange.carry() == len(batch)
            return len(statements)

        run(natives[:1])
        few, many = run(natives[1:6]), run(natives[6:])
        assert many <= few + 10  # a recall among so many families costs its own


def test_checking_a_longer_queue_takes_no_more_queries(tmp_path: Path) -> None:
    with small_hub(tmp_path) as hub:
        from tests.integration.test_life import send  # noqa: PLC0415  # its hub, its way in

        send(hub, "police", episode())
        deliveries = hub.broker.receive(deliveries_to("fss"), 1, 0.0)
        statements: list[str] = []
        sa.event.listen(hub.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

        def queries(waiting: list[Delivery]) -> int:
            statements.clear()
            verdict = hub.exchange._recheck.check(
                "fss", waiting, lambda d: hub.exchange._prover.opened("fss", d.body, d.headers)
            )
            assert verdict.changed == {}
            return sum("SELECT" in s for s in statements)

        few, many = queries(deliveries), queries(deliveries * 200)
        assert few == many <= 2
        # Somebody else's case calls for care: one look at the entries, and nothing is decided again.
        with hub.engine.begin() as connection:
            from consent import recalls  # noqa: PLC0415

            recalls.warn(connection, {"another-case": (10_000, ROLE)})
        few, many = queries(deliveries), queries(deliveries * 200)
        assert few == many
        hub.broker.requeue(deliveries)


def agreements() -> Agreements:
    return Agreements.load(agreements_folder(Settings()))


VERBS = ("approve", "suspend", "resume", "revoke")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(VERBS),
        st.sampled_from(sorted(agreements().parties)),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(STEPS)
def test_nothing_comes_into_force_without_both_sides_and_two_people(
    steps: list[tuple[str, str, str]],
) -> None:
    """Whatever is tried in whatever order: what counts was approved by every side and never by its author."""
    parties = agreements().parties
    agreement = next(a for a in agreements() if a.id == "ISR-EDUCATION")
    wanted = lives.sides(agreement)
    author = Officer("education", "a")
    life = Life("ISR-EDUCATION", 2, "0" * 64, "x.yaml", author=author)
    stopped_by = ""
    for verb, party, person in steps:
        by, before = Officer(party, person), life
        try:
            if verb == "approve":
                life = lives.approved(life, by, wanted, parties)
            else:
                life = lives.stepped(life, verb, by, wanted, parties, agreement.lead)
        except OutOfTurn:
            assert life is before
            continue
        if verb == "suspend":
            stopped_by = person
        if verb == "resume":
            assert person != stopped_by
        assert before.state != "revoked"
    people = [officer.person for officer in life.approvals]
    assert author.person not in people
    if life.state in (APPROVED, SUSPENDED):
        assert len(set(people)) >= 2
        assert len({officer.party for officer in life.approvals}) >= 2
        assert lives.lacking(life, wanted, parties) == ()
    else:
        assert life.counts is False


def test_supersession_never_comes_back_to_where_it_began() -> None:
    one, two, three = (Life("A-ONE", n, "0" * 64, "a.yaml", APPROVED) for n in (1, 2, 3))
    one = lives.superseded(one, two, {one.name: one, two.name: two})
    known = {life.name: life for life in (one, two, three)}
    two = lives.superseded(two, three, known)
    with pytest.raises(OutOfTurn, match="itself superseded"):
        lives.superseded(three, one, {**known, two.name: two})
    with pytest.raises(OutOfTurn, match="is draft"):
        lives.superseded(three, replace(one, state=DRAFT), known)
