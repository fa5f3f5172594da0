"""Every attack in docs/attacks.md names tests that exist, and every attack that must be there is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "attacks.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| attack")
]
FINDERS = re.compile("hub|verifier|monitor|witness|Go|reader|door|nobody follows")
# What the ledger's requirements list, by a word of the row.
REQUIRED = (
    "flip",
    "drop",
    "insert",
    "reorder",
    "truncate",
    "swap",
    "replace a tile",
    "roll the database back",
    "show two witnesses different histories",
    "cosignature of another log",
    "wrong size",
    "absurd size",
    "malformed notes",
    "key is lost",
    "key is stolen",
)


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0].replace(" ", "-")) for row in ROWS])
def test_attack_names_who_finds_it_and_tests_that_exist(row: list[str]) -> None:
    _, _, found_by, tests = row
    assert FINDERS.search(found_by)
    count = 0
    for part in tests.split(";"):
        (file,) = re.findall(r"\]\(\.\./(tests/[a-z/_]+\.py)\)", part)
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        known = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        named = set(re.findall(r"`(test_\w+)`", part))
        assert named - known == set(), file
        count += len(named)
    assert count > 0


@pytest.mark.parametrize("attack", REQUIRED)
def test_page_has_every_attack_that_is_required(attack: str) -> None:
    assert any(attack in row[0] for row in ROWS)
