"""The documents name what the code has: settings, metrics, errors, guards, conditions, types, modules.

`python tests/docs/test_documented.py` prints docs/messages.md anew.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from consent.clause import BASES, OBLIGATIONS, PURPOSES
from consent.conditions import CONDITIONS
from consent.guards import GUARDS
from consent.policy import carried
from gateway.settings import PREFIX, Settings
from gateway.telemetry import Telemetry
from schemas.catalogue import MessageType, published
from schemas.classes import CLASSES, FRAME
from schemas.errors import HubError

ROOT = Path(__file__).parents[2]
PACKAGES = ("adapters", "broker", "consent", "gateway", "schemas")
_HEAD = """\
# Messages

Every message is a CloudEvents 1.0 event whose `data` meets the JSON Schema of its type: `type` is
`nz.isr.` and the name below, the schema `schemas/messages/<name>.json`. This page is made from those files;
a test holds it to them.

*To* is `table`: every active party of the case's site is considered and decided for by itself; or
`addressee`: only the party in `data.to`. *Holds* are the data classes of what the type is about; ◆ opens a
case. Who receives which class is what the [agreements](agreements.md) say.

A message with `people` can besides hold about each of them: PEOPLE.

| name | says | from | to | purpose | holds |
|---|---|---|---|---|---|
"""
_CLASSES = """
## Data classes

Tier 1 (public) to 5 (a life depends on it). *Place*: every value of it reveals where somebody is; other
properties may be marked so one by one (`x-locates`).

| class | holds | tier | place | health |
|---|---|---|---|---|
"""


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def code_spans(*names: str) -> set[str]:
    """What stands in backticks on the pages *names*."""
    return {span for name in names for span in re.findall(r"`([^`\n]+)`", text(name))}


def missing(wanted: Iterable[str], *names: str) -> list[str]:
    found = code_spans(*names)
    return sorted(set(wanted) - found)


def messages_page() -> str:
    """docs/messages.md as the catalogue has it."""
    kinds = sorted(published(), key=lambda kind: kind.name)
    people = {facet.name for kind in kinds for _, facet, _, listed in carried(kind.shape) if listed} - {FRAME}
    rows = "".join(_row(kind) for kind in kinds)
    classes = "".join(
        f"| `{c.name}` | {c.title} | {c.tier} | {_yes(c.locates)} | {_yes(c.health)} |\n"
        for c in CLASSES.values()
    )
    return _HEAD.replace("PEOPLE", ", ".join(sorted(people))) + rows + _CLASSES + classes


def _yes(holds: bool) -> str:
    return "yes" if holds else ""


def _row(kind: MessageType) -> str:
    held = sorted({facet.name for _, facet, _, listed in carried(kind.shape) if not listed} - {FRAME})
    opens = " ◆" if kind.opens_case else ""
    return (
        f"| `{kind.name.removeprefix('nz.isr.')}`{opens} | {kind.title} | {', '.join(sorted(kind.senders))} "
        f"| {kind.audience} | {kind.purpose} | {', '.join(held) or 'none'} |\n"
    )


def test_every_setting_is_documented() -> None:
    assert missing((PREFIX + field.name.upper() for field in fields(Settings)), "README.md") == []


def test_no_setting_is_documented_that_does_not_exist() -> None:
    known = {PREFIX + field.name.upper() for field in fields(Settings)}
    named = {
        word
        for page in pages()
        for word in re.findall(r"ISR_HUB_[A-Z_]*[A-Z]", page.read_text("utf-8"))
        if not word.startswith("ISR_HUB_TEST")
    }
    assert named - known == set()


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    Telemetry(registry)
    names = {metric.name + ("_total" if metric.type == "counter" else "") for metric in registry.collect()}
    assert missing(names, "docs/operator.md") == []


def test_no_metric_is_documented_that_does_not_exist() -> None:
    registry = CollectorRegistry()
    Telemetry(registry)
    names = {metric.name for metric in registry.collect()}
    suffix = re.compile(r"_(total|bucket|count|sum)$")
    named = {
        suffix.sub("", word)
        for page in pages()
        for word in re.findall(r"\bisr_[a-z_]*[a-z]", page.read_text("utf-8"))
    }
    assert named - names - {"isr_hub", "isr_hub_owner", "isr_hub_records"} == set()  # roles in PostgreSQL


def errors(kind: type[HubError] = HubError) -> Iterator[type[HubError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from errors(below)


def test_every_error_code_is_documented() -> None:
    codes = {kind.code for kind in errors() if kind.__module__ == HubError.__module__}
    assert missing(codes, "docs/operator.md") == []


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(GUARDS, id="guards"),
        pytest.param(CONDITIONS, id="conditions"),
        pytest.param(BASES, id="legal-bases"),
        pytest.param(PURPOSES, id="purposes"),
        pytest.param(OBLIGATIONS, id="obligations"),
    ],
)
def test_every_word_of_the_agreements_is_documented(words: Iterable[str]) -> None:
    assert missing(words, "docs/agreements.md") == []


def test_messages_page_is_the_catalogue() -> None:
    assert messages_page() == text("docs/messages.md")


def modules() -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }


def test_architecture_lists_every_module_once() -> None:
    """A new module gets its row under "Concepts and files"."""
    section = text("ARCHITECTURE.md").split("## Concepts and files")[1].split("\n## ")[0]
    listed = re.findall(r"\[([a-z0-9_/]+\.py)\]", section)
    assert (modules() - set(listed), set(listed) - modules()) == (set(), set())
    assert len(listed) == len(set(listed))


def pages() -> list[Path]:
    """The pages people read: the root's, docs/ and the folders' own."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return found + [page for package in (*PACKAGES, "deploy") for page in (ROOT / package).rglob("*.md")]


def test_code_refers_to_no_page_that_does_not_exist() -> None:
    named = {
        word
        for package in PACKAGES
        for suffix in ("py", "yaml", "html")
        for path in (ROOT / package).rglob(f"*.{suffix}")
        for word in re.findall(r"\bdocs/[a-z/-]+\.md\b", path.read_text("utf-8"))
    }
    assert [word for word in sorted(named) if not (ROOT / word).is_file()] == []


def test_index_leads_to_every_page_of_docs() -> None:
    linked = set(re.findall(r"\]\(([^)#]+\.md)", text("docs/index.md")))
    docs = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"index.md"}
    assert docs - linked == set()


if __name__ == "__main__":
    print(messages_page(), end="")
