"""The demo: the same seed gives the same day, the ledger proves it, and a forged entry is named."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from consent.entry import DECISION_KINDS
from gateway.command import GOOD, MISUSED, WRONG, main
from gateway.hub import open_hub
from gateway.sandbox.day import five_f
from gateway.sandbox.population import DEMO_DAY, stream
from gateway.settings import Settings
from tests.acceptance.leaks import Search
from tests.acceptance.played import Kept, Played, ledger_of

Player = Callable[..., Played]


@pytest.fixture
def copy(player: Player, tmp_path: Path) -> Path:
    """A played day that a test may damage: ledger and key, without the agencies."""
    return _copied(player(30, 3).folder, tmp_path)


def _copied(folder: Path, into: Path) -> Path:
    for name in ("hub.db", "ledger.vkey"):
        shutil.copy(folder / name, into / name)
    return into


# The same day again


def test_same_seed_gives_the_same_people_and_decisions(player: Player) -> None:
    first, second = player(30, 3), player(30, 3, again="once more")
    assert first.folder != second.folder
    assert first.report["decisions_digest"] == second.report["decisions_digest"]
    people = [(played.folder / "population.json").read_bytes() for played in (first, second)]
    assert people[0] == people[1]
    ignored = {"folder", "seconds", "day_seconds", "ledger"}
    assert {k: v for k, v in first.report.items() if k not in ignored} == {
        k: v for k, v in second.report.items() if k not in ignored
    }


def test_ledgers_of_two_hubs_differ_since_their_secrets_do(player: Player) -> None:
    first, second = player(30, 3), player(30, 3, again="once more")
    assert first.report["ledger"]["size"] == second.report["ledger"]["size"]
    assert first.report["ledger"]["root"] != second.report["ledger"]["root"]


def test_other_seed_gives_another_day(player: Player) -> None:
    first, other = player(2, 1), player(2, 1, seed=8)
    assert first.report["decisions_digest"] != other.report["decisions_digest"]
    assert first.invented.people["f00000.v"]["name"] != other.invented.people["f00000.v"]["name"]


# What the report says


def test_report_says_everything_that_is_promised(demo: Played) -> None:
    report = demo.report
    assert report["submitted"] > 4000
    assert set(report["decisions"]) == {"permit", "reduced", "refer", "refuse"}
    assert all(count > 0 for count in report["decisions"].values())
    assert set(report["by_recipient"]) == set(demo.agreements.parties)
    assert {"ADDR-V", "ADDR-SAFE", "ID-XREF", "EPISODE-NARR"} <= set(report["withheld_by_class"])
    assert {"V1", "V2", "V3", "V7", "V9", "V12", "IPP13"} <= set(report["guards_held"])
    assert report["unlogged"] == report["undelivered"] == report["quarantined"] == 0
    assert report["ledger"]["verified"] is True
    assert len(bytes.fromhex(report["ledger"]["root"])) == 32
    assert report["seconds"] >= report["day_seconds"] > 0
    assert report["requests"]["asked"] == report["requests"]["answered"]


def test_report_agrees_with_ledger_and_folders(demo: Played) -> None:
    report = demo.report
    decided = [entry for entry in demo.entries if entry["kind"] in DECISION_KINDS]
    assert report["ledger"]["size"] == len(demo.entries)
    assert sum(report["decisions"].values()) == len(decided)
    assert report["deliveries"] == report["received"] == len({f.disclosure for f in demo.received})
    assert report["deliveries"] == sum(entry["kind"] == "delivery" for entry in demo.entries)


def test_population_keeps_to_the_figures_of_the_review(demo: Played) -> None:
    assert len(demo.report["rates"]) >= 20
    for rate in demo.report["rates"]:
        assert set(rate) == {"name", "review", "here"}
    sites = {rate["name"]: rate for rate in demo.report["rates"] if rate["name"].startswith("site ")}
    assert {f"site {site}" for site in ("waikato-city", "waikato-rural", "christchurch")} == set(sites)
    for rate in sites.values():  # of 119 episodes, a share of a third is off by less than three deviations
        assert abs(rate["review"] - rate["here"]) < 0.13


# Proof


def test_verify_proves_the_day(demo: Played, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(demo.folder), "--json"]) == GOOD
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_verify_names_the_entry_of_which_one_byte_was_changed(
    copy: Path, capsys: pytest.CaptureFixture[str], place: float
) -> None:
    connection = sqlite3.connect(copy / "hub.db")
    with connection:
        (last,) = connection.execute("SELECT max(idx) FROM ledger_entry").fetchone()
        idx = int(last * place)
        (raw,) = connection.execute("SELECT entry FROM ledger_entry WHERE idx = ?", (idx,)).fetchone()
        changed = bytearray(raw)
        changed[len(changed) // 2] ^= 1
        connection.execute("UPDATE ledger_entry SET entry = ? WHERE idx = ?", (bytes(changed), idx))
    connection.close()
    assert main(["verify", str(copy)]) == WRONG
    assert f"entry {idx}" in capsys.readouterr().out


def test_verify_sees_that_a_refusal_became_a_permission(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = sqlite3.connect(copy / "hub.db")
    with connection:
        idx, raw = connection.execute(
            "SELECT idx, entry FROM ledger_entry WHERE kind = 'refusal' ORDER BY idx LIMIT 1"
        ).fetchone()
        forged = bytes(raw).replace(b'"outcome":"refuse"', b'"outcome":"permit"')
        assert forged != bytes(raw)
        connection.execute("UPDATE ledger_entry SET entry = ? WHERE idx = ?", (forged, idx))
    connection.close()
    assert main(["verify", str(copy)]) == WRONG
    assert f"entry {idx}" in capsys.readouterr().out


# Explanation


def test_explain_names_every_party_and_its_clause_or_what_held(
    demo: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    example = demo.report["example"]
    assert main(["explain", "--data", str(demo.folder), example, "--json"]) == GOOD
    found = json.loads(capsys.readouterr().out)
    (site,) = {
        demo.invented.families[family]["site"]
        for entry in demo.entries
        if entry.get("message") == example
        for family in _families_of(demo, example)
    }
    expected = {p.id for p in demo.agreements.candidates(site, "police")}
    assert {one["party"] for one in found["recipients"]} == expected
    for one in found["recipients"]:
        assert one["clauses"] or one["guards"] or one["reasons"], one["party"]
        if one["given"]:
            assert one["clauses"]
            assert one["basis"]
    assert main(["explain", "--data", str(demo.folder), example]) == GOOD
    text = " ".join(capsys.readouterr().out.split())
    for party in expected:
        assert f"({party})" in text
        assert demo.agreements.parties[party].name in text


def _families_of(demo: Played, message: str) -> set[str]:
    search = Search(f for f in demo.invented.facts if f.kind == "number:police")
    for step in demo.steps:
        for native, ids in zip(step.natives, step.ids, strict=True):
            if message in ids:
                return set().union(*(fact.families for fact in search.find(native.content)))
    raise AssertionError("nobody sent it")


def test_explain_says_no_more_of_an_unknown_message(demo: Played, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--data", str(demo.folder), "00000000-0000-5000-8000-000000000000"]) == WRONG
    assert "not-found" in capsys.readouterr().err


# Sizes


def test_empty_day_is_a_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "empty"
    arguments = ["demo", "--episodes", "0", "--releases", "0", "--data", str(folder), "--json"]
    assert main(arguments) == GOOD
    report = json.loads(capsys.readouterr().out)
    assert report["people"] == report["submitted"] == 0
    assert report["ledger"]["size"] == 1  # which agreements are in force
    assert report["ledger"]["verified"] is True
    assert main(["verify", str(folder)]) == GOOD


# The only release of a day is the one that nobody announced, after the meeting: no plan is made.
@pytest.mark.parametrize(("episodes", "releases", "plans"), [(1, 0, 1), (0, 1, 0)])
def test_smallest_day_is_a_day(player: Player, episodes: int, releases: int, plans: int) -> None:
    report = player(episodes, releases).report
    assert report["plans"] == plans
    assert report["deliveries"] > 0
    assert report["unlogged"] == report["undelivered"] == report["quarantined"] == 0
    assert report["ledger"]["verified"] is True


def test_demo_is_played_again_in_its_own_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--episodes", "1", "--releases", "0", "--data", str(tmp_path / "day")]
    assert main([*arguments, "--json"]) == GOOD
    first = json.loads(capsys.readouterr().out)
    assert main(arguments) == GOOD
    assert first["decisions_digest"] in "".join(capsys.readouterr().out.split())


def test_four_hundred_episodes_at_once_are_all_decided_and_proved(tmp_path: Path) -> None:
    incidents = list(stream(7, 400, first_day=DEMO_DAY, days=1))
    now = max(incident.episode.recorded_at for incident in incidents)
    kept = Kept()
    with open_hub(Settings(data=tmp_path), clock=lambda: now, transport=kept) as hub:
        receipts = hub.exchange.accept("police", [five_f(i.family, i.episode) for i in incidents])
        assert all(receipt.accepted and not receipt.rejected for receipt in receipts)
        hub.exchange.finish()
        assert hub.broker.dead_letters() == []
    entries = ledger_of(tmp_path)
    decided: dict[str, int] = {}
    for entry in entries:
        if entry["kind"] in DECISION_KINDS:
            decided[entry["message"]] = decided.get(entry["message"], 0) + 1
    assert set(decided) == {receipt.accepted[0] for receipt in receipts}
    assert sum(entry["kind"] == "disclosure" for entry in entries) == len(kept.received)
    assert main(["verify", str(tmp_path), "--json"]) == GOOD


# Used wrongly


@pytest.mark.parametrize("arguments", [["--episodes", "-1"], ["--releases", "many"], ["--engine", "none"]])
def test_demo_refuses_arguments_that_make_no_day(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--data", str(tmp_path / "day"), *arguments])
    assert ended.value.code == MISUSED
    assert arguments[0] in capsys.readouterr().err


def test_demo_never_empties_a_folder_that_is_not_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("four years of work")
    assert main(["demo", "--episodes", "0", "--data", str(tmp_path)]) == MISUSED
    assert "choose another --data" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "four years of work"


def test_verify_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == MISUSED
    assert "key" in capsys.readouterr().out
