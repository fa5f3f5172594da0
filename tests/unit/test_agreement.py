"""Agreements load only when every word in them is understood, and are in force only when they say so."""

import contextlib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from consent import agreement as module
from consent.agreement import Agreements
from consent.clause import BASES, OBLIGATIONS, PURPOSES
from consent.conditions import CONDITIONS
from consent.guards import GUARDS
from consent.matrix import check, difference, matrix_csv, matrix_rows, matrix_text, who_can_learn
from consent.strict_yaml import line_of, read
from schemas.classes import CLASSES
from schemas.errors import BadAgreement

FOLDER = Path(__file__).parents[2] / "consent" / "agreements"
DAY = date(2026, 11, 20)
PARTIES = """parties:
  - id: police
    kind: POL
    name: Police
    sites: [christchurch]
    table: true
    status: {fva: listed, cwpa: listed}
  - id: acc
    kind: ACC
    name: ACC
    sites: [christchurch, waikato-city]
    table: false
    status: {fva: listed, cwpa: none}
"""
AGREEMENT = """agreement:
  id: TEST-ONE
  version: 3
  title: A test agreement
  status: active
  instrument: MOU
  lead: police
  purpose: Tests of what an agreement may say
  effective_from: 2026-07-01
  review_by: 2027-06-30
clauses:
  - id: ACC-SUM
    from: [POL]
    to: ACC
    grants:
      case: [{EPISODE-SUM: reduced}]
      victim: [ID-CORE]
    purposes: [FV-RISK]
    basis:
      - {code: FVA20, section: s 20}
    belief:
      kind: standing
      statement: Kā pārongo ka āwhina — it will help to assess the risk
      decided_by: privacy officer
      decided_on: 2026-06-20
      until: 2027-06-30
    conditions: [OPEN_EPISODE, ASSIGNED]
    obligations: [no-onward]
"""


def folder(at: Path, agreement: str = AGREEMENT, parties: str = PARTIES) -> Path:
    (at / "parties.yaml").write_text(parties, encoding="utf-8")
    (at / "test.yaml").write_text(agreement, encoding="utf-8")
    return at


def line(text: str, of: str = AGREEMENT) -> int:
    """The line of the first occurrence of *text*, from 1."""
    return of[: of.index(text)].count("\n") + 1


def test_load_reads_what_the_file_says(tmp_path: Path) -> None:
    agreements = Agreements.load(folder(tmp_path))
    (agreement,) = agreements
    (clause,) = agreement.clauses
    assert agreement.name_of(clause) == "TEST-ONE@3/ACC-SUM"
    assert clause.grants == {"case": {"EPISODE-SUM": "reduced"}, "victim": {"ID-CORE": "full"}}
    assert clause.belief.statement.startswith("Kā pārongo")
    assert clause.line == line("- id: ACC-SUM")
    assert agreements.parties["police"].agency == "police"
    assert len(agreements.version_hash) == 64


def test_load_reads_the_agreements_that_come_with_the_hub() -> None:
    agreements = Agreements.load(FOLDER)
    assert 40 <= sum(len(a.clauses) for a in agreements) <= 100
    assert len(agreements.parties) == 19
    assert {p.id for p in agreements.parties.values() if p.table} == {
        "police",
        "oranga-tamariki",
        "corrections",
        "health",
        "fss",
    }
    assert agreements.parties["corrections#em"].capacity == "em"


@pytest.mark.parametrize(
    ("old", "new", "at", "detail"),
    [
        ("    to: ACC\n", "    too: ACC\n", "too: ACC", "too is not a known key"),
        ("    to: ACC\n", "    to: BANK\n", "to: BANK", "BANK is neither a kind nor a party"),
        ("from: [POL]", "from: [BANK]", "    from:", "is not one of the allowed words"),
        (
            "[OPEN_EPISODE, ASSIGNED]",
            "[OPEN_EPISODE, FULL_MOON]",
            "conditions:",
            "FULL_MOON is not a condition",
        ),
        ("victim: [ID-CORE]", "victim: [ID-KORE]", "victim:", "ID-KORE is not a data class"),
        ("victim: [ID-CORE]", "victim: [PRIV]", "victim:", "PRIV can never be granted or referred"),
        ("victim: [ID-CORE]", "victim: [RESTRICT-META]", "victim:", "RESTRICT-META can never be granted"),
        ("victim: [ID-CORE]", "victim: [ID-CORE, ID-CORE]", "victim:", "ID-CORE is named twice"),
        ("victim: [ID-CORE]", "neighbour: [ID-CORE]", "neighbour:", "neighbour is not a role"),
        ("victim: [ID-CORE]", "victim: [{ID-CORE: some}]", "victim:", "is not one of the allowed words"),
        ("victim: [ID-CORE]", "victim: []", "victim:", "breaks the rule minItems"),
        ("[FV-RISK]", "[FV-RISK, CURIOSITY]", "purposes:", "CURIOSITY is not a purpose"),
        ("[FV-RISK]", "[FV-RISK, CW-ASSESS]", "purposes:", "no basis of the clause carries CW-ASSESS"),
        ("code: FVA20", "code: HUNCH", "basis:", "HUNCH is not a legal basis"),
        ("[no-onward]", "[be-nice]", "obligations:", "be-nice is not an obligation"),
        ("until: 2027-06-30", "until: 2026-06-19", "until:", "ends before it was decided"),
        ("until: 2027-06-30", "until: 2027-02-30", "until:", "is not a date"),
        ("review_by: 2027-06-30", "review_by: 2026-06-30", "agreement:", "is reviewed before it begins"),
        ("lead: police", "lead: nobody", "lead:", "nobody is not a party"),
        ("status: active", "status: maybe", "status:", "is not one of the allowed words"),
        ("version: 3", "version: three", "version:", "breaks the rule type"),
        ("  title: A test agreement\n", "", "agreement:", "lacks title"),
        ("  title: A", "  title: B\n  title: A", "title: A", "repeats the key title"),
        ("version: 3", "version: 03", "version:", "readers take differently"),
        ("version: 3", "version: 1_0", "version:", "readers take differently"),
        ("version: 3", "version: 3.0", "version:", "readers take differently"),
    ],
)
def test_load_refuses_and_names_the_line_when_a_word_is_not_understood(
    tmp_path: Path, old: str, new: str, at: str, detail: str
) -> None:
    assert old in AGREEMENT
    changed = AGREEMENT.replace(old, new, 1)
    with pytest.raises(BadAgreement) as caught:
        Agreements.load(folder(tmp_path, changed))
    (problem, *_) = [p for p in caught.value.problems if detail in p.detail] or [None]
    assert problem is not None, caught.value.problems
    name, _, number = problem.pointer.partition(":")
    assert name == "test.yaml"
    assert abs(int(number) - line(at, changed)) <= 1
    assert problem.fix


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("a: &x 1\nb: *x\n", "anchor"),
        ("a: !!python/object:os.system {}\n", "tag"),
        ("a: !secret b\n", "tag"),
        ("a: [1, 2\n", "expected"),
        ("a: b: c\n", "mapping values"),
        ("yes: 1\n", "key that is not text"),
        ("a: yes\n", "readers take differently"),
        ("a: 0o17\n", ""),
        ("a: .inf\n", "readers take differently"),
        ("", "holds nothing"),
        ("a: \x07\n", "does not allow"),
        ("<<: {a: 1}\n", "key that is not text"),
        ("? [a]\n: b\n", "key that is not text"),
        ("a: 1\n---\nb: 2\n", "but found another document"),
    ],
)
def test_read_refuses_yaml_with_two_meanings(text: str, detail: str) -> None:
    if detail:
        with pytest.raises(BadAgreement) as caught:
            read(text, "x.yaml")
        assert any(detail in p.detail for p in caught.value.problems)
        assert all(p.pointer.startswith("x.yaml") for p in caught.value.problems)
    else:
        assert read(text, "x.yaml")[0] == {"a": "0o17"}  # text, as written


def test_read_refuses_a_file_that_is_very_large() -> None:
    with pytest.raises(BadAgreement, match="too large"):
        read("a: " + "x" * 1_000_001, "x.yaml")


@given(st.text(max_size=60))
def test_read_raises_one_error_type_for_any_text(text: str) -> None:
    with contextlib.suppress(BadAgreement):
        read(text, "x.yaml")


def test_line_of_falls_back_to_what_is_around() -> None:
    _, lines = read("a:\n  b:\n    - c\n", "x.yaml")
    assert line_of(lines, ("a", "b", 0)) == 3
    assert line_of(lines, ("a", "b", 7)) == 2
    assert line_of(lines, ("z",)) == 1


def test_load_refuses_an_empty_folder_and_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(BadAgreement, match="no agreements"):
        Agreements.load(tmp_path)
    folder(tmp_path)
    (tmp_path / "more.yaml").write_bytes(b"parties: \xff")
    with pytest.raises(BadAgreement, match=r"more\.yaml: is not UTF-8"):
        Agreements.load(tmp_path)


def test_load_refuses_ids_that_are_used_twice(tmp_path: Path) -> None:
    clauses = AGREEMENT[AGREEMENT.index("  - id:") :]
    with pytest.raises(BadAgreement, match="the clause ACC-SUM exists twice"):
        Agreements.load(folder(tmp_path, AGREEMENT + clauses))
    folder(tmp_path)
    (tmp_path / "again.yaml").write_text(AGREEMENT, encoding="utf-8")
    with pytest.raises(BadAgreement, match="the agreement TEST-ONE@3 exists twice"):
        Agreements.load(tmp_path)
    (tmp_path / "again.yaml").write_text(PARTIES, encoding="utf-8")
    with pytest.raises(BadAgreement, match="the party police is defined twice"):
        Agreements.load(tmp_path)


def test_load_reports_every_problem_at_once(tmp_path: Path) -> None:
    bad = AGREEMENT.replace("[no-onward]", "[be-nice]").replace("lead: police", "lead: nobody")
    with pytest.raises(BadAgreement) as caught:
        Agreements.load(folder(tmp_path, bad))
    assert len(caught.value.problems) == 2


def test_version_hash_changes_with_content_and_not_with_comments(tmp_path: Path) -> None:
    plain = Agreements.load(folder(tmp_path)).version_hash
    assert Agreements.load(folder(tmp_path, "# a note\n" + AGREEMENT)).version_hash == plain
    assert (
        Agreements.load(
            folder(tmp_path, AGREEMENT.replace("[OPEN_EPISODE, ASSIGNED]", "[ASSIGNED]"))
        ).version_hash
        != plain
    )


def test_candidates_are_the_active_parties_of_the_site_without_the_source(tmp_path: Path) -> None:
    inactive = PARTIES + PARTIES.partition("parties:\n")[2].replace(
        "id: acc", "id: retired\n    active: false"
    ).replace("id: police", "id: msd")
    agreements = Agreements.load(folder(tmp_path, parties=inactive))
    assert [p.id for p in agreements.candidates("christchurch", "police")] == ["acc", "msd"]
    assert [p.id for p in agreements.candidates("waikato-city", "police")] == ["acc"]
    assert [p.id for p in agreements.candidates(["waikato-city", "christchurch"], "acc")] == ["msd", "police"]
    assert agreements.candidates([], "acc") == ()


@pytest.mark.parametrize(
    ("old", "new", "day", "gives"),
    [
        ("", "", date(2026, 7, 1), True),
        ("", "", date(2026, 6, 30), False),
        ("", "", date(2027, 6, 30), True),
        ("", "", date(2027, 7, 1), False),  # the belief has lapsed
        ("status: active", "status: suspended", DAY, False),
        ("status: active", "status: draft", DAY, False),
        ("  review_by", "  effective_to: 2026-11-19\n  review_by", DAY, False),
        ("  review_by", "  effective_to: 2026-11-20\n  review_by", DAY, True),
        ("decided_on: 2026-06-20", "decided_on: 2026-11-21", DAY, False),
        ("    to: ACC", "    to: acc", DAY, True),
        ("    to: ACC", "    to: police", DAY, False),
        ("code: FVA20", "code: HIPC11", DAY, True),
    ],
)
def test_cells_hold_only_what_is_in_force(tmp_path: Path, old: str, new: str, day: date, gives: bool) -> None:
    agreements = Agreements.load(folder(tmp_path, AGREEMENT.replace(old, new, 1) if old else AGREEMENT))
    assert bool(agreements.on(day).cells("acc", "FV-RISK", "POL")) is gives


def test_cells_are_empty_for_another_source_purpose_or_party(tmp_path: Path) -> None:
    in_force = Agreements.load(folder(tmp_path)).on(DAY)
    assert in_force.cells("acc", "FV-RISK", "POL")[("victim", "ID-CORE")][0].clause == "TEST-ONE@3/ACC-SUM"
    assert not in_force.cells("acc", "FV-RISK", "OT")
    assert not in_force.cells("acc", "FV-PLAN", "POL")
    assert not in_force.cells("nobody", "FV-RISK", "POL")


def test_cells_are_empty_when_the_party_has_no_standing(tmp_path: Path) -> None:
    """ACC is on record as no child welfare and protection agency: a clause on that Act gives it nothing."""
    on_other_act = AGREEMENT.replace("code: FVA20", "code: OTA66C").replace("[FV-RISK]", "[CW-ASSESS]")
    agreements = Agreements.load(folder(tmp_path, on_other_act))
    assert not agreements.on(DAY).cells("acc", "CW-ASSESS", "POL")
    assert any("no standing on record for CW-ASSESS" in f.detail for f in check(tmp_path, DAY))
    designated = PARTIES.replace("cwpa: none", "cwpa: designated")
    assert (
        Agreements.load(folder(tmp_path, on_other_act, designated)).on(DAY).cells("acc", "CW-ASSESS", "POL")
    )


def test_in_force_takes_the_day_in_new_zealand() -> None:
    agreements = Agreements.load(FOLDER)
    late = agreements.in_force(datetime(2026, 6, 30, 12, 0, tzinfo=UTC))
    early = agreements.in_force(datetime(2026, 6, 30, 11, 59, tzinfo=UTC))
    assert late is not None
    assert early is not None
    assert (early.day, late.day) == (date(2026, 6, 30), date(2026, 7, 1))
    assert agreements.in_force(datetime(2026, 7, 1)) is None  # noqa: DTZ001  # a naive time is the point


def test_check_finds_nothing_to_warn_of_in_the_agreements_in_force() -> None:
    assert [f.line() for f in check(FOLDER, DAY) if f.level != "note"] == []


@pytest.mark.parametrize(
    ("old", "new", "day", "says"),
    [
        ("", "", date(2027, 5, 1), "the belief ends on 2027-06-30"),
        ("", "", date(2027, 7, 1), "the time for its review ended on 2027-06-30"),
        ("victim: [ID-CORE]", "victim: [ADDR-SAFE]", DAY, "ADDR-SAFE about victim can never fire for acc"),
        ("victim: [ID-CORE]", "victim: [HEALTH-ALERT]", DAY, "HEALTH-ALERT about victim can never fire"),
        ("victim: [ID-CORE]", "victim: [EXCL-ZONE]", DAY, "no message carries it"),
        ("[OPEN_EPISODE, ASSIGNED]", "[TRAINED]", DAY, "TRAINED can never hold for acc"),
        ("    to: ACC", "    to: MSD", DAY, "reaches no active party"),
        ("FV-RISK]", "FV-RISK, CW-ASSESS]", DAY, "no basis of the clause carries CW-ASSESS"),
    ],
)
def test_check_finds_what_a_privacy_officer_should_mend(
    tmp_path: Path, old: str, new: str, day: date, says: str
) -> None:
    found = check(folder(tmp_path, AGREEMENT.replace(old, new, 1) if old else AGREEMENT), day)
    assert any(says in f.line() for f in found), found


@pytest.mark.parametrize(
    ("old", "new", "at", "says"),
    [
        ("kind: standing", "kind: case", "- id: ACC-SUM", "a belief that somebody has to form in each case"),
        (
            "- {code: FVA20, section: s 20}",
            "- {code: FVA20, section: s 20}\n      - {code: OTA15, section: s 15}",
            "- id: ACC-SUM",
            "OTA15 carries none of its purposes",
        ),
        ("victim: [ID-CORE]", "victim: [ACC-CLAIM]", "- id: ACC-SUM", "nobody of POL holds it"),
        ("from: [POL]", "from: [EDU]", "- id: ACC-SUM", "can never fire: no message of EDU"),
        (
            "[OPEN_EPISODE, ASSIGNED]",
            "[OPEN_EPISODE]",
            "- id: ACC-SUM",
            "ADDR-V about victim makes guard V2 pointless for acc",
        ),
        ("review_by: 2027-06-30", "review_by: 2026-12-01", "agreement:", "ends on 2026-12-01"),
    ],
)
def test_check_names_file_line_and_fix(tmp_path: Path, old: str, new: str, at: str, says: str) -> None:
    text = AGREEMENT.replace(old, new, 1)
    if "V2" in says:
        text = text.replace("victim: [ID-CORE]", "victim: [ADDR-V]")
    if "EDU" in says:
        text = text.replace("case: [{EPISODE-SUM: reduced}]", "child: [ACC-CLAIM]")
        text = text.replace("victim: [ID-CORE]", "victim: [ACC-CLAIM]")
    found = [f for f in check(folder(tmp_path, text), DAY) if says in f.detail]
    assert [f.where.partition(" ")[0] for f in found] == [f"test.yaml:{line(at, text)}"]
    assert found[0].fix


def test_check_names_the_line_of_a_party_whose_standing_ends(tmp_path: Path) -> None:
    parties = PARTIES.replace("cwpa: none}", "cwpa: none, trained_until: 2026-12-24}")
    found = [f for f in check(folder(tmp_path, parties=parties), DAY) if "trained_until" in f.detail]
    assert [f.where for f in found] == [f"parties.yaml:{line('- id: acc', parties)} acc"]


def second(at: Path, **head: str) -> str:
    """The next version of the test agreement as a file beside it; returns its text."""
    text = AGREEMENT.replace("version: 3", "version: 4")
    for key, value in head.items():
        old = next((row for row in text.splitlines() if row.startswith(f"  {key}:")), None)
        new = f"  {key}: {value}"
        text = text.replace(old, new) if old else text.replace("agreement:\n", f"agreement:\n{new}\n")
    (at / "second.yaml").write_text(text, encoding="utf-8")
    return text


def test_load_refuses_versions_that_hold_on_the_same_day(tmp_path: Path) -> None:
    text = second(folder(tmp_path), effective_from="2027-01-01")
    with pytest.raises(BadAgreement) as caught:
        Agreements.load(tmp_path)
    (problem,) = caught.value.problems
    assert problem.pointer == f"second.yaml:{line('effective_from', text)}"
    assert "its dates overlap those of TEST-ONE@3" in problem.detail
    assert "supersedes: TEST-ONE@3" in problem.fix


def test_successor_ends_what_it_supersedes_on_the_day_before_it_begins(tmp_path: Path) -> None:
    second(folder(tmp_path), effective_from="2027-01-01", supersedes="TEST-ONE@3")
    agreements = Agreements.load(tmp_path)

    def cited(day: date) -> set[str]:
        cells = agreements.on(day).cells("acc", "FV-RISK", "POL")
        return {entry.clause.partition("/")[0] for entries in cells.values() for entry in entries}

    assert cited(date(2026, 12, 31)) == {"TEST-ONE@3"}
    assert cited(date(2027, 1, 1)) == {"TEST-ONE@4"}


@pytest.mark.parametrize(
    ("of_first", "head", "says"),
    [
        ("TEST-ONE@4", {"supersedes": "TEST-ONE@3", "effective_from": "2027-01-01"}, "in a circle"),
        ("TEST-ONE@3", {"id": "TEST-TWO"}, "in a circle"),
        ("", {"supersedes": "TEST-ONE@3"}, "begins no later than TEST-ONE@3"),
        ("", {"version": "3"}, "TEST-ONE@3 exists twice"),
    ],
)
def test_load_refuses_supersession_that_leads_nowhere(
    tmp_path: Path, of_first: str, head: dict[str, str], says: str
) -> None:
    first = (
        AGREEMENT.replace("agreement:\n", f"agreement:\n  supersedes: {of_first}\n")
        if of_first
        else AGREEMENT
    )
    second(folder(tmp_path, first), **head)
    with pytest.raises(BadAgreement, match=says):
        Agreements.load(tmp_path)


@pytest.mark.parametrize(
    ("parties", "at", "says"),
    [
        ("[POL, MSD]", "    to: ACC", "ACC is not a party of this agreement"),
        ("[ACC, MSD]", "    from: [POL]", "POL is not a party of this agreement"),
        ("[ACC, BANK]", "  parties:", "BANK is neither a kind nor a party"),
    ],
)
def test_load_refuses_a_clause_for_a_party_that_is_not_in_the_agreement(
    tmp_path: Path, parties: str, at: str, says: str
) -> None:
    text = AGREEMENT.replace("  review_by", f"  parties: {parties}\n  review_by")
    with pytest.raises(BadAgreement) as caught:
        Agreements.load(folder(tmp_path, text))
    assert (f"test.yaml:{line(at, text)}", True) in {
        (p.pointer, says in p.detail) for p in caught.value.problems
    }
    named = text.replace(parties, "[police, ACC]")
    assert Agreements.load(folder(tmp_path, named)).on(DAY).cells("acc", "FV-RISK", "POL")


@pytest.mark.parametrize("lack", ["basis", "belief"])
def test_load_refuses_a_clause_without_basis_or_belief(tmp_path: Path, lack: str) -> None:
    start = AGREEMENT.index(f"    {lack}:")
    end = min(
        at for name in ("belief", "conditions") if (at := AGREEMENT.find(f"    {name}:", start + 1)) > 0
    )
    with pytest.raises(BadAgreement, match=f"lacks {lack}"):
        Agreements.load(folder(tmp_path, AGREEMENT[:start] + AGREEMENT[end:]))


def test_check_finds_overlaps_and_unnamed_practitioners(tmp_path: Path) -> None:
    twin = AGREEMENT[AGREEMENT.index("  - id:") :].replace("ACC-SUM", "ACC-SUM-TWO")
    assert any("names it too" in f.detail for f in check(folder(tmp_path, AGREEMENT + twin), DAY))
    practice = PARTIES.replace("id: acc", "id: gp").replace("kind: ACC", "kind: GP")
    found = check(folder(tmp_path, AGREEMENT.replace("to: ACC", "to: GP"), practice), DAY)
    assert any("named practitioner" in f.detail for f in found)


def test_matrix_rows_answer_who_can_learn_what() -> None:
    agreements = Agreements.load(FOLDER)
    rows = matrix_rows(agreements, DAY)
    assert rows == sorted(rows)
    assert {
        r.kind for r in who_can_learn(agreements, "ADDR-SAFE", "victim", DAY) if r.outcome != "refer"
    } == {"NGOV"}
    learn = {r.recipient: r.outcome for r in rows if r.data_class == "BENEFIT" and r.role == "victim"}
    assert "msd" in learn
    assert "corrections" not in learn
    assert matrix_csv(rows).count("\n") == len(rows) + 1
    table = {line.split()[0]: line.split()[1:] for line in matrix_text(rows).splitlines()[1:]}
    assert table["NOTIFIER-ID"] == ["H", "A", *["-"] * 10]
    assert set(table) == set(CLASSES) - {"FRAME"}
    assert matrix_rows(agreements, date(2026, 6, 1)) == []


def test_difference_says_what_widens(tmp_path: Path) -> None:
    before = Agreements.load(folder(tmp_path))
    after = Agreements.load(
        folder(
            tmp_path,
            AGREEMENT.replace("{EPISODE-SUM: reduced}", "EPISODE-SUM").replace(
                "victim: [ID-CORE]", "child: [ID-CORE]"
            ),
        )
    )
    changes = {(c.role, c.data_class): (c.before, c.after, c.widens) for c in difference(before, after, DAY)}
    assert changes == {
        ("case", "EPISODE-SUM"): ("reduced", "full", True),
        ("child", "ID-CORE"): ("", "full", True),
        ("victim", "ID-CORE"): ("full", "", False),
    }
    assert difference(before, before, DAY) == []


def test_every_word_an_agreement_may_use_is_explained() -> None:
    text = (FOLDER.parents[1] / "docs" / "agreements.md").read_text(encoding="utf-8")
    for word in (*CONDITIONS, *GUARDS, *OBLIGATIONS, *BASES, *PURPOSES):
        assert f"`{word}`" in text, word


def test_shipped_clauses_read_as_plain_yaml() -> None:
    """Another YAML reader takes the files the same way."""
    for path in FOLDER.glob("*.yaml"):
        ours, _ = read(path.read_text(encoding="utf-8"), path.name)

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: plain(v) for k, v in value.items()}
            if isinstance(value, list):
                return [plain(v) for v in value]
            return value.isoformat() if isinstance(value, date) else value

        assert ours == plain(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_check_and_matrix_take_today_when_no_day_is_given() -> None:
    agreements = Agreements.load(FOLDER)
    assert all(row.view == row.outcome for row in matrix_rows(agreements))
    assert not [f for f in check(FOLDER) if f.level == "error"]


def test_days_on_which_nothing_begins_or_ends_are_one() -> None:
    """What was found on one of them was found on all."""
    agreements = Agreements.load(FOLDER)
    assert agreements.on(date(2026, 11, 22)) is agreements.on(date(2026, 11, 23))


@pytest.mark.parametrize(
    ("change", "last"),
    [
        ("  review_by", date(2026, 11, 22)),  # the agreement ends
        ("status", date(2026, 11, 22)),  # a party's certificate ends
    ],
)
def test_the_day_after_something_ended_is_another(tmp_path: Path, change: str, last: date) -> None:
    agreement, parties = AGREEMENT, PARTIES
    if change == "status":
        parties = parties.replace("cwpa: none", f"cwpa: none, trained_until: {last}", 1)
    else:
        agreement = agreement.replace(change, f"  effective_to: {last}\n{change}", 1)
    agreements = Agreements.load(folder(tmp_path, agreement, parties))
    before, on_it, after = (agreements.on(last + timedelta(days=n)) for n in (-1, 0, 1))
    assert before is on_it
    assert after is not on_it
    assert after.memory() is not on_it.memory()


def test_memories_of_days_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KINDS_KEPT", 2)
    parties = PARTIES.replace("cwpa: none", "cwpa: none, trained_until: 2026-11-05", 1)
    agreement = AGREEMENT.replace("  review_by", "  effective_to: 2026-11-10\n  review_by", 1)
    agreements = Agreements.load(folder(tmp_path, agreement, parties))
    days = [agreements.on(date(2026, 11, n)) for n in range(1, 21)]
    assert len({id(day) for day in days}) == 3
    assert len(agreements._alike) <= 2
    assert len({id(day) for day in agreements._days.values()}) <= 2
