"""The file of retention classes: read exactly, or nothing is disposed of."""

import re
from pathlib import Path

import pytest

from consent.retention import CLASSES, load
from schemas.errors import BadAgreement

TEXT = (Path(__file__).parents[2] / "consent" / "retention.yaml").read_text("utf-8")


def test_classes_that_come_with_the_hub_load() -> None:
    found = load()
    assert tuple(found) == CLASSES
    assert {c.authority.id for c in found.values() if not c.authority.in_force} == {"ISR-DA"}
    assert not found["cases"].authority.in_force  # nobody has approved it
    assert found["cases"].keeps_care_records


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        pytest.param("id: inbox", "id: outbox", "is no class of the hub", id="unknown class"),
        pytest.param("id: people", "id: cases", "stands here twice", id="class twice"),
        pytest.param("from: taken-in", "from: decided", "is not known of this class", id="another moment"),
        pytest.param("keep_days: 90", "keep_days: 0", "not between", id="no time"),
        pytest.param("keep_days: 90", "keep_days: 40000", "not between", id="too long"),
        pytest.param("keep_days: 90", 'keep_days: "90"', "lacks keep_days", id="text for a number"),
        pytest.param("keep_days: 90", "keep_days: true", "lacks keep_days", id="a truth for a number"),
        pytest.param(
            "authority: ISR-DA", "authority: NOBODY", "not among the authorities", id="no authority"
        ),
        pytest.param("in_force: false", "in_force: perhaps", "lacks in_force", id="perhaps"),
        pytest.param("in_force: false", "in_force: no", "in two ways|takes? differently", id="yaml 1.1"),
        pytest.param("care_records: keep", "care_records: maybe", "neither keep nor dispose", id="care"),
        pytest.param(
            "    care_records: keep\n", "    care_records: keep\n    more: 1\n", "not known", id="more"
        ),
        pytest.param("  - id: GDA7", "  - id: ISR-DA", "twice", id="authority twice"),
        pytest.param("classes:", "kinds:", "not known here", id="another key"),
        pytest.param("classes:\n", "classes: 3\nrest:\n", "lacks classes", id="no list"),
    ],
)
def test_file_that_is_not_understood_is_an_error_with_its_line(
    tmp_path: Path, old: str, new: str, detail: str
) -> None:
    assert old in TEXT
    path = tmp_path / "rules.yaml"
    path.write_text(TEXT.replace(old, new), "utf-8")
    with pytest.raises(BadAgreement) as caught:
        load(path)
    said = "\n".join(problem.line() for problem in caught.value.problems) + str(caught.value)
    assert re.search(detail, said)
    assert all(re.match(r"rules\.yaml:[0-9]+", problem.pointer) for problem in caught.value.problems)


def test_missing_or_missing_class_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadAgreement, match="cannot be read"):
        load(tmp_path / "nowhere.yaml")
    path = tmp_path / "rules.yaml"
    path.write_text(TEXT[: TEXT.index("  - id: people")], "utf-8")
    with pytest.raises(BadAgreement) as caught:
        load(path)
    assert "lacks people" in caught.value.problems[0].detail
