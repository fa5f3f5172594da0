"""What an agreement will do: differences with their smallest situation, who can learn a class, what is
unused, and promises that fail with a readable counter-example when a guard is missing.
"""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from consent import policy, verdict
from consent.agreement import Agreements
from consent.analysis import Difference, differences, unused, who_can_learn
from consent.guards import GUARDS
from consent.proof import CODES, PROMISES, prove
from consent.space import Asker, carriers, facets_about, noon, scenes
from schemas.classes import CLASSES, SUBJECT_ROLES

FOLDER = Path(__file__).parents[2] / "consent" / "agreements"
PRESENT = Agreements.load(FOLDER)
DAY = date(2026, 11, 22)


def only(*ids: str) -> Agreements:
    return Agreements({i: PRESENT.parties[i] for i in ids}, PRESENT, "")


SOME = only("police", "corrections#em", "gp", "education", "ngo.aviva#ivs")
PARTIES = """\
parties:
  - id: police
    kind: POL
    name: Police
    sites: [christchurch]
    table: true
    status: {fva: listed, cwpa: listed}
  - id: health
    kind: HNZ
    name: Health New Zealand
    sites: [christchurch]
    table: true
    status: {fva: listed, cwpa: listed}
  - id: corrections
    kind: COR
    name: Corrections
    sites: [christchurch]
    table: true
    status: {fva: listed, cwpa: listed}
"""
AGREEMENT = """\
agreement:
  id: ONE
  version: 1
  title: One
  status: active
  instrument: MOU
  lead: police
  purpose: Something is shared.
  effective_from: 2026-07-01
  review_by: 2028-06-30
clauses:
"""
CLAUSE = """\
  - id: {id}
    from: {sources}
    to: {to}
    grants:
      {role}: [{classes}]
    purposes: [FV-RISK]
    basis:
      - {{code: FVA20, section: s 20}}
    belief:
      kind: standing
      statement: It helps
      decided_by: privacy officers
      decided_on: 2026-06-20
      until: 2028-06-30
    conditions: [{conditions}]
    obligations: [no-onward]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Agreements]:
    """Agreements of the clauses given as (id, to, role, classes, conditions)."""
    numbers = iter(range(100))

    def write(*clauses: tuple[str, str, str, str, str], sources: str = "[any]") -> Agreements:
        path = tmp_path / str(next(numbers))
        path.mkdir()
        (path / "parties.yaml").write_text(PARTIES, "utf-8")
        if clauses:
            names = ("id", "to", "role", "classes", "conditions")
            written = [CLAUSE.format(sources=sources, **dict(zip(names, c, strict=True))) for c in clauses]
            (path / "one.yaml").write_text(AGREEMENT + "".join(written), "utf-8")
        return Agreements.load(path)

    return write


def told(found: list[Difference]) -> list[tuple[str, str, str, str, str]]:
    return [(d.effect, d.role, d.data_class, d.before, d.after) for d in found]


def test_differences_is_empty_for_the_same_agreements() -> None:
    assert differences(SOME, only(*SOME.parties), DAY) == []


def test_differences_finds_what_is_newly_given_with_the_smallest_situation(
    folder: Callable[..., Agreements],
) -> None:
    found = differences(folder(), folder(("CLAUSE-A", "COR", "perpetrator", "CUSTODY", "ASSIGNED")), DAY)

    assert told(found) == [("given", "perpetrator", "CUSTODY", "", "full")]
    (difference,) = found
    assert difference.recipients == ("corrections",)
    assert difference.clauses == ("ONE@1/CLAUSE-A",)
    assert difference.purposes == ("FV-RISK",)
    assert difference.example == "risk high; message to the table; recipient sits at the table"


def test_differences_is_the_mirror_image_the_other_way_round(folder: Callable[..., Agreements]) -> None:
    one, other = folder(), folder(("CLAUSE-A", "COR", "perpetrator", "CUSTODY", "ASSIGNED"))

    assert told(differences(other, one, DAY)) == [("withheld", "perpetrator", "CUSTODY", "full", "")]


def test_differences_finds_the_situation_in_which_a_new_condition_bites(
    folder: Callable[..., Agreements],
) -> None:
    before = folder(("CLAUSE-A", "COR", "perpetrator", "CUSTODY", "ASSIGNED"))
    after = folder(("CLAUSE-A", "COR", "perpetrator", "CUSTODY", "ASSIGNED, OPEN_EPISODE"))

    (difference,) = differences(before, after, DAY)

    assert difference.effect == "withheld"
    assert "case closed" in difference.example


@pytest.mark.parametrize("way", [1, -1], ids=["there", "back"])
def test_differences_tells_both_directions_when_conditions_are_exchanged(
    way: int, folder: Callable[..., Agreements]
) -> None:
    one = folder(("CLAUSE-A", "COR", "perpetrator", "CUSTODY", "OPEN_EPISODE"))
    other = folder(("CLAUSE-A", "COR", "perpetrator", "CUSTODY", "RISK_HIGH"))

    assert [d.effect for d in differences(*(one, other)[::way], DAY)] == ["given", "withheld"]


def test_differences_is_silent_when_a_guard_holds_back_what_is_newly_granted(
    folder: Callable[..., Agreements],
) -> None:
    assert differences(folder(), folder(("CLAUSE-A", "COR", "victim", "CONTACT-V", "ASSIGNED")), DAY) == []


def test_differences_names_the_sources_for_which_it_is_so(folder: Callable[..., Agreements]) -> None:
    after = folder(("CLAUSE-A", "HNZ", "perpetrator", "CUSTODY", "ASSIGNED"), sources="[COR, POL]")

    (difference,) = differences(folder(), after, DAY)

    assert difference.sources == ("POL", "COR")


def test_differences_follows_from_addresses_to_what_tells_a_place(folder: Callable[..., Agreements]) -> None:
    narrative = ("CLAUSE-N", "HNZ", "victim", "EPISODE-NARR", "ASSIGNED")
    place = ("CLAUSE-P", "HNZ", "victim", "ADDR-V", "ASSIGNED")

    found = differences(folder(narrative), folder(narrative, place), DAY)

    assert ("given", "victim", "EPISODE-NARR", "", "full") in told(found)
    assert ("given", "victim", "ADDR-V", "", "full") in told(found)


def test_differences_says_that_no_message_carries_a_class_yet(folder: Callable[..., Agreements]) -> None:
    name, role = next(
        (n, r)
        for r in ("victim", "perpetrator")
        for n in sorted(CLASSES)
        if not carriers(r, n) and n != "PRIV"
    )

    (difference,) = differences(folder(), folder(("CLAUSE-A", "HNZ", role, name, "ASSIGNED")), DAY)

    assert (difference.effect, difference.example) == ("given", "")
    assert "no message carries it yet" in difference.line()


def test_who_can_learn_names_clause_guards_and_smallest_situation() -> None:
    found = {learner.row.recipient: learner for learner in who_can_learn(SOME, "ADDR-SAFE", "victim", DAY)}

    ivs = found["ngo.aviva#ivs"]
    assert ivs.row.outcome == "full"
    assert {"V1", "V3", "V7"} <= set(ivs.guards)
    assert "message to this party alone" in ivs.example
    assert {learner.row.kind for learner in found.values() if learner.row.outcome == "full"} == {"NGOV"}


def test_who_can_learn_is_empty_for_what_nobody_is_granted() -> None:
    assert who_can_learn(PRESENT, "PRIV", "victim", DAY) == []


def test_unused_leaves_out_what_was_cited_under_any_version() -> None:
    everything = {u.clause for u in unused(PRESENT, (), DAY)}
    name = min(everything)
    older = name.replace("@1/", "@0/")

    assert everything - {u.clause for u in unused(PRESENT, [older], DAY)} == {name}


def test_unused_leaves_out_what_is_not_in_force() -> None:
    assert unused(PRESENT, (), date(2026, 6, 30)) == []


@pytest.mark.parametrize("role", SUBJECT_ROLES)
def test_asking_about_many_facets_at_once_says_what_asking_about_each_says(role: str) -> None:
    asker = Asker(PRESENT, PRESENT.parties["ngo.aviva#ivs"], "FV-RISK", "police", noon(DAY))
    for scene in scenes(role)[:: max(1, len(scenes(role)) // 12)]:
        together = asker.all(scene)
        for facet in facets_about(role):
            each = [asker.one(scene, c) for c in carriers(role, facet.name) if c.facet == facet]
            if each and together[facet] != "refer":
                assert together[facet] in each


def test_scenes_come_smallest_first_and_none_twice() -> None:
    for role in SUBJECT_ROLES:
        sizes = [scene.size for scene in scenes(role)]
        assert sizes == sorted(sizes)
        assert len(set(scenes(role))) == len(scenes(role))


def test_prove_finds_every_promise_kept() -> None:
    proofs = prove(SOME, largest=1)

    assert [p.code for p in proofs] == list(CODES)
    assert [p.counter_example for p in proofs if not p.holds] == []
    assert all(p.situations for p in proofs)


@pytest.mark.parametrize("code", sorted(GUARDS))
def test_prove_gives_a_counter_example_when_a_guard_is_taken_out(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(GUARDS, code)

    (proof,) = prove(SOME, [code], largest=2)

    found = proof.counter_example
    assert found is not None
    assert found.recipient in SOME.parties
    assert found.role in SUBJECT_ROLES
    assert found.data_class in found.line()
    assert found.recipient in found.line()
    assert "risk" in found.situation


def test_prove_gives_a_counter_example_when_names_are_sent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "_names_alone", lambda *_: False)

    (proof,) = prove(SOME, ["V9"])

    assert proof.counter_example is not None


def test_prove_gives_a_counter_example_when_a_caution_widens(monkeypatch: pytest.MonkeyPatch) -> None:
    protects, guard = GUARDS["V7"]
    monkeypatch.setitem(
        GUARDS, "V7", (protects, lambda *a: None if a[0].conflicted else guard(*a) or policy.Effect.NOTHING)
    )

    (proof,) = prove(SOME, ["caution"], largest=2)

    assert proof.counter_example is not None
    assert "conflict" in proof.counter_example.situation


def test_every_guard_has_a_promise() -> None:
    assert set(GUARDS) <= set(PROMISES)
