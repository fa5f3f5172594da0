"""A person of the holder decides: what is shown to whom, what leaves, what is recorded, and that it ends
once."""

import io
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console

from consent import waiting
from consent.agreement import Agreements
from consent.referral import REQUEST, State
from consent.verify import verify
from consent.waiting import Row, kept_submission
from gateway import evidence
from gateway.access import Viewer
from gateway.explain import explain, outward, print_explanation
from gateway.hub import Hub, agreements_folder, open_hub
from gateway.queries import decisions_on
from gateway.referrals import Person, Referrals
from gateway.serve import _steps
from gateway.settings import Settings
from schemas.errors import AlreadyDecided, InvalidMessage, NotFound
from tests.acceptance.faults import folder_in_memory
from tests.serving import episode, now, sent, small_hub

OFFICER = Person("police", "privacy-officer", "0f" * 16)
NARRATIVE = "She moved to her sister's in Kaiapoi"


@pytest.fixture(autouse=True, scope="module")
def agreements() -> Iterator[None]:
    """The agreements, read once: they do not change, and reading them is half of opening a hub."""
    read = Agreements.load(agreements_folder(Settings()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Agreements, "load", lambda _: read)
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as made:
        yield made


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    with small_hub(folder) as hub:
        yield hub


def an_episode() -> dict[str, object]:
    found = episode()
    return json.loads(json.dumps(found))


@pytest.fixture
def referrals(hub: Hub) -> Referrals:
    sent(hub, "police", an_episode())
    return Referrals(hub)


def to(referrals: Referrals, party: str) -> Row:
    (found,) = [r for r in referrals.open() if r.party == party]
    return found


def entries(hub: Hub, id: str) -> list[dict[str, object]]:
    return [json.loads(entry) for _, entry in hub.ledger.find(id)]


def kept(hub: Hub) -> int:
    with hub.engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(kept_submission)).scalar_one()


def received(hub: Hub, party: str) -> list[bytes]:
    folder = hub.settings.data / "agencies" / party / "received"
    return [f.read_bytes() for f in sorted(folder.iterdir())] if folder.exists() else []


def test_what_is_referred_waits_for_its_holder_with_a_deadline(hub: Hub, referrals: Referrals) -> None:
    found = {r.party: r for r in referrals.open("police")}
    assert {"health", "oranga-tamariki", "corrections"} <= set(found)
    assert found["corrections"].cells == (("case", "EPISODE-NARR"),)
    assert all(r.standing.due > now() for r in found.values())
    assert referrals.open("health") == []
    assert kept(hub) == 1  # one submission, whoever waits for it


def test_submission_is_kept_sealed(hub: Hub, referrals: Referrals) -> None:
    with hub.engine.connect() as connection:
        (sealed,) = connection.execute(sa.select(kept_submission.c.sealed)).scalars()
    people = episode()["persons"]
    assert not any(p["name"]["surname"].encode() in bytes(sealed) for p in people if "name" in p)
    row = to(referrals, "health")
    with hub.engine.connect() as connection:
        restored = waiting.Waiting(hub.keys, lambda at, *_: at).kept(connection, row.source, row.message)
    assert restored is not None
    assert restored.message.id == row.message


def test_draft_is_for_a_person_of_the_holder_alone(hub: Hub, referrals: Referrals) -> None:
    row = to(referrals, "health")
    draft = referrals.draft(row.id, OFFICER)
    assert draft.data["people"]
    for stranger in ("health", "corrections", "fss"):
        with pytest.raises(NotFound):
            referrals.draft(row.id, OFFICER._replace(party=stranger))
        with pytest.raises(NotFound):
            referrals.approve(row.id, OFFICER._replace(party=stranger))
        with pytest.raises(NotFound):
            referrals.decline(row.id, OFFICER._replace(party=stranger), "no-help")
    assert to(referrals, "health").standing.state is State.WAITING


def test_approval_releases_by_the_one_way_out(hub: Hub, referrals: Referrals) -> None:
    row = to(referrals, "health")
    before = len(received(hub, "health"))
    leaves = referrals.draft(row.id, OFFICER).leaves
    assert leaves == (("perpetrator", "CUSTODY"),)
    assert referrals.approve(row.id, OFFICER, leaves) is State.PART
    hub.exchange.finish()
    (entry,) = entries(hub, row.id)
    assert entry["kind"] == "disclosure"
    assert entry["referral"] == {"source": "police", "message": row.message}
    assert entry["decided_by"]["capacity"] == "privacy-officer"  # type: ignore[index]
    assert "CUSTODY" in entry["given"]["perpetrator"]  # type: ignore[index]
    (delivered,) = entries(hub, str(entry["disclosure"]))
    assert delivered["outcome"] == "delivered"
    assert len(received(hub, "health")) == before + 1


def test_text_leaves_only_after_a_person_has_read_it(hub: Hub, referrals: Referrals) -> None:
    row = to(referrals, "corrections")
    draft = referrals.draft(row.id, OFFICER)
    assert (draft.leaves, draft.to_read) == ((), (("case", "EPISODE-NARR"),))
    with pytest.raises(InvalidMessage) as caught:
        referrals.approve(row.id, OFFICER)
    assert "V2" in caught.value.problems[0].detail
    assert entries(hub, row.id) == []
    assert referrals.approve(row.id, OFFICER, scrubbed=True) is State.APPROVED
    (entry,) = entries(hub, row.id)
    assert entry["scrubbed"] is True
    assert "EPISODE-NARR" in entry["given"]["case"]  # type: ignore[index]


def test_guard_holds_against_an_approval(hub: Hub, referrals: Referrals) -> None:
    row = to(referrals, "oranga-tamariki")
    assert ("victim", "ADDR-SAFE") in row.cells
    with pytest.raises(InvalidMessage) as caught:
        referrals.approve(row.id, OFFICER, [("victim", "ADDR-SAFE")], scrubbed=True)
    assert "V1" in caught.value.problems[0].detail
    assert referrals.approve(row.id, OFFICER, scrubbed=True) is State.PART
    (entry,) = entries(hub, row.id)
    assert "ADDR-SAFE" not in json.dumps(entry["given"])


def test_evidence_on_the_message_holds_what_a_person_approved(
    hub: Hub, referrals: Referrals, tmp_path: Path
) -> None:
    row = to(referrals, "oranga-tamariki")
    referrals.approve(row.id, OFFICER, scrubbed=True)
    hub.exchange.finish()
    who = Viewer("0" * 32, "police", "ADM-ACCESS", "AR-2026-31")
    made = evidence.of_message(hub, who, row.message, "", tmp_path / "e", salts=True)
    (approved,) = decisions_on(hub.engine, row.id)
    report = verify(made.path, str(hub.settings.data / "ledger.vkey"))
    assert report.ok
    assert approved.index in {index for index, _ in report.opened}


def test_guards_are_asked_again_at_the_moment_of_approval(hub: Hub, referrals: Referrals) -> None:
    """A conflict of interest that became known after the referral locks everything."""
    row = to(referrals, "health")
    with hub.engine.begin() as connection:
        facts = connection.exec_driver_sql("SELECT facts FROM case_file").scalar_one()
        changed = json.dumps({**json.loads(facts), "conflicts": ["health"]})
        connection.execute(sa.text("UPDATE case_file SET facts = :f"), {"f": changed})
    with pytest.raises(InvalidMessage) as caught:
        referrals.approve(row.id, OFFICER, scrubbed=True)
    assert "V7" in caught.value.problems[0].detail
    assert entries(hub, row.id) == []


def test_decline_is_an_entry_and_deletes_what_nobody_needs(hub: Hub, referrals: Referrals) -> None:
    rows = referrals.open()
    for row in rows[:-1]:
        assert referrals.decline(row.id, OFFICER, "not-necessary") is State.DECLINED
        assert kept(hub) == 1
    assert referrals.told(rows[-1].id, OFFICER) is State.TOLD
    assert kept(hub) == 0
    assert referrals.open() == []
    (entry,) = entries(hub, rows[0].id)
    assert (entry["kind"], entry["reasons"]) == ("refusal", ["not-necessary"])
    assert entry["given"] == {}
    (entry,) = entries(hub, rows[-1].id)
    assert entry["reasons"] == ["told-in-person"]


def test_ended_referral_ends_once(hub: Hub, referrals: Referrals) -> None:
    row = to(referrals, "health")
    referrals.approve(row.id, OFFICER, scrubbed=True)
    for again in (
        lambda: referrals.approve(row.id, OFFICER, scrubbed=True),
        lambda: referrals.decline(row.id, OFFICER, "no-help"),
        lambda: referrals.told(row.id, OFFICER),
        lambda: referrals.draft(row.id, OFFICER),
    ):
        with pytest.raises(AlreadyDecided):
            again()
    assert len(entries(hub, row.id)) == 1


def decide_together(hub: Hub, id: str) -> list[str]:
    """What became of eight people who decide on *id* at once: half approve, half decline."""
    ended: list[str] = []
    start = threading.Barrier(8)

    def decide(number: int) -> None:
        referrals = Referrals(hub)
        start.wait()
        try:
            if number % 2:
                ended.append(referrals.approve(id, OFFICER, scrubbed=True).value)
            else:
                ended.append(referrals.decline(id, OFFICER, "no-help").value)
        except AlreadyDecided:
            ended.append("too late")

    threads = [threading.Thread(target=decide, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_two_people_at_once_decide_once(hub: Hub, referrals: Referrals) -> None:
    row = to(referrals, "health")
    assert sorted(decide_together(hub, row.id)).count("too late") == 7
    assert len(entries(hub, row.id)) == 1


@pytest.mark.parametrize("number", range(0, 40, 2))
def test_crash_anywhere_in_an_approval_leaves_it_done_or_not_begun(folder: Path, number: int) -> None:
    """The database fails at its *number*-th statement; afterwards the person tries again."""
    with small_hub(folder) as hub:
        sent(hub, "police", an_episode())
        row = to(Referrals(hub), "health")
        before = len(received(hub, "health"))
        left = [number]

        def fail(*_: object) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError("the disk is gone")

        sa.event.listen(hub.engine, "before_cursor_execute", fail)
        try:
            Referrals(hub).approve(row.id, OFFICER, scrubbed=True)
            done = left[0] >= 0
        except OSError:
            done = False
        sa.event.remove(hub.engine, "before_cursor_execute", fail)
    with open_hub(Settings(data=folder), clock=now) as hub:
        hub.exchange.finish()
        try:
            Referrals(hub).approve(row.id, OFFICER, scrubbed=True)
            assert not done
        except AlreadyDecided:
            pass
        hub.exchange.finish()
        (entry,) = entries(hub, row.id)
        assert [e["outcome"] for e in entries(hub, str(entry["disclosure"]))] == ["delivered"]
        assert len(received(hub, "health")) == before + 1


def test_overdue_is_escalated_once_and_can_still_be_decided(folder: Path) -> None:
    time = [now()]
    with open_hub(Settings(data=folder), clock=lambda: time[0]) as hub:
        sent(hub, "police", an_episode())
        referrals = Referrals(hub)
        assert referrals.escalate() == []
        row = to(referrals, "health")
        time[0] = row.standing.due.replace(hour=(row.standing.due.hour + 1) % 24)
        late = referrals.escalate()
        assert row.id in {r.id for r in late}
        assert referrals.escalate() == []
        (entry,) = entries(hub, row.id)
        assert (entry["kind"], entry["outcome"]) == ("escalation", "overdue")
        assert referrals.decline(row.id, OFFICER, "no-help") is State.DECLINED


def test_unknown_class_is_no_approval(hub: Hub, referrals: Referrals) -> None:
    row = to(referrals, "health")
    with pytest.raises(InvalidMessage) as caught:
        referrals.approve(row.id, OFFICER, [("victim", NARRATIVE)])
    assert NARRATIVE not in str(caught.value.as_json())


def test_content_stands_in_no_entry_and_no_log(
    hub: Hub, referrals: Referrals, caplog: pytest.LogCaptureFixture
) -> None:
    names = {p["name"]["surname"] for p in episode()["persons"] if "name" in p}
    for row in referrals.open():
        referrals.draft(row.id, OFFICER)
        referrals.approve(row.id, OFFICER, scrubbed=True)
    everything = b"".join(hub.ledger.entries(0, 1000)).decode() + caplog.text
    assert not any(name in everything for name in names)


def test_request_is_not_referred_before_anybody_asks(referrals: Referrals) -> None:
    assert [r for r in referrals.open() if r.standing.kind == REQUEST] == []


def test_explanation_says_what_the_person_decided(hub: Hub, referrals: Referrals) -> None:
    health, corrections = to(referrals, "health"), to(referrals, "corrections")
    referrals.approve(health.id, OFFICER, scrubbed=True)
    referrals.decline(corrections.id, OFFICER, "place-in-text")
    hub.exchange.finish()
    found = {r["party"]: r["decided"] for r in explain(hub, health.message)["recipients"]}
    assert found["health"]["says"] == "approved"
    assert found["health"]["state"] == "delivered"
    assert [r["code"] for r in found["corrections"]["reasons"]] == ["place-in-text"]
    assert found["fss"] is None
    out = Console(file=io.StringIO(), width=200)
    print_explanation(explain(hub, health.message), out)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "approved by the agency's privacy officer" in text
    assert "cannot be scrubbed" in text


def test_sender_hears_of_what_its_own_person_released(hub: Hub, referrals: Referrals) -> None:
    rows = [r for r in referrals.open() if r.party == "corrections"]
    before = outward(hub, "police", rows[0].message)
    assert before is not None
    referrals.approve(rows[0].id, OFFICER, scrubbed=True)
    after = outward(hub, "police", rows[0].message)
    assert after is not None
    states = {r["party"]: r["state"] for r in after["recipients"]}
    assert states["corrections"] == "on its way"


def test_exchange_escalates_and_shows_what_waits(folder: Path) -> None:
    time = [now()]
    with open_hub(Settings(data=folder), clock=lambda: time[0]) as hub:
        sent(hub, "police", an_episode())
        time[0] += timedelta(days=9)
        step = _steps(hub, ("exchange",))["deadlines"]
        assert step(0.0) == len(Referrals(hub).open("police"))
        assert step(0.0) == 0
        shown = hub.telemetry.registry.get_sample_value
        labels = {"what": "release", "holder": "police", "state": "overdue"}
        assert shown("isr_waiting", labels) == len(Referrals(hub).open("police"))
        hub.exchange.finish()
        notices = [json.loads(n) for n in received(hub, "police") if b"referrals-overdue" in n]
        assert [n["event"]["notice"]["count"] for n in notices] == [len(Referrals(hub).open("police"))]
