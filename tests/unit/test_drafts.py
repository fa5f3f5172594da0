"""The example drafts do what docs/drafts says of them."""

import re
import shutil
from datetime import date
from pathlib import Path

import pytest

from consent.agreement import Agreements
from consent.analysis import differences
from consent.matrix import matrix_html, matrix_rows
from schemas.classes import CLASSES, SUBJECT_ROLES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "consent" / "agreements"
PAGE = (ROOT / "docs" / "drafts" / "README.md").read_text("utf-8")
DAY = date(2026, 11, 22)


def wider(folder: Path) -> None:
    shutil.copy(ROOT / "docs" / "drafts" / "msd-wider.yaml", folder)


def narrower(folder: Path) -> None:
    command = re.search(r"sed -i 's/(.*)\\\]/(.*)\]/' var/narrower/(\S+)", PAGE)
    assert command is not None
    old, new, name = f"{command[1]}]", f"{command[2]}]", command[3]
    text = (folder / name).read_text("utf-8")
    assert text.count(old) == 1
    (folder / name).write_text(text.replace(old, new), "utf-8")


@pytest.mark.parametrize("change", [wider, narrower])
def test_diff_of_a_draft_is_what_the_page_shows(change: object, tmp_path: Path) -> None:
    folder = tmp_path / "draft"
    shutil.copytree(FOLDER, folder)
    assert callable(change)
    change(folder)
    lines = [d.line() for d in differences(Agreements.load(FOLDER), Agreements.load(folder), DAY)]
    assert lines
    assert [line for line in lines if line not in PAGE] == []


def test_matrix_as_html_stands_alone_and_has_every_class_role_and_clause() -> None:
    rows = matrix_rows(Agreements.load(FOLDER), DAY)
    page = matrix_html(rows, SUBJECT_ROLES)
    assert "http" not in page
    assert "src=" not in page
    assert all(f"<h2>About {role}</h2>" in page for role in SUBJECT_ROLES)
    assert all(f"<th>{name}<td" in page for name in CLASSES if name != "FRAME")
    assert page.count("<tr><td>") == len(rows)
    assert all(row.basis in page and row.clause in page for row in rows)
