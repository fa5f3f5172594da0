"""The documents work: commands parse, links lead somewhere, what the README shows is what the hub says."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from consent.agreement import Agreements
from consent.conditions import CONDITIONS
from gateway import command
from gateway.explain import reason_says
from schemas.classes import CLASSES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "adapters/*.md", "broker/*.md", "consent/*.md", "deploy/**/*.md")
    for page in ROOT.glob(pattern)
)
PAGE = pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
_TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.M))


def shell_lines(page: Path) -> Iterator[str]:
    """The commands in a page's shell blocks, and those in running text."""
    content = page.read_text("utf-8")
    for language, block in _FENCE.findall(content):
        for raw in block.splitlines():
            prompted = raw.startswith("$ ")
            if language in ("sh", "bash") or (language == "console" and prompted):
                yield raw.removeprefix("$ ").split(" #")[0].strip()
    for span in re.findall(r"`([^`\n]+)`", _FENCE.sub("", content)):
        yield span.strip()


def hub_commands(page: Path) -> list[list[str]]:
    found = []
    for line in shell_lines(page):
        match = re.match(r"(?:[A-Z_]+=\S+ )*(?:\S*/)?isr-hub (?=[a-z-])(.*)", line)
        if match:
            found.append(shlex.split(re.split(r" [|>&;]|>", match[1])[0]))
    return found


def subcommands() -> dict[str, argparse.ArgumentParser]:
    parser = command._parser()
    choices = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    return dict(choices)


@PAGE
def test_every_command_is_one_of_the_hub(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser, known = command._parser(), subcommands()
    wrong = []
    for words in hub_commands(page):
        if len(words) == 1 and words[0] in known:
            continue  # the command's name alone, in running text
        try:
            parser.parse_args(words)
        except SystemExit as end:
            if end.code:
                wrong.append((" ".join(words), capsys.readouterr().err.splitlines()[-1]))
    assert wrong == []


@PAGE
def test_every_make_target_exists(page: Path) -> None:
    named = {
        word
        for line in shell_lines(page)
        if line.startswith("make ")
        for word in line.split("`")[0].split()[1:]
        if re.fullmatch(r"[a-z-]+", word)
    }
    assert named - _TARGETS == set()


def test_pages_have_commands() -> None:
    """Or the two tests above would look at nothing."""
    assert {"verify", "explain", "agreements"} <= {c[0] for c in hub_commands(ROOT / "README.md")}


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@PAGE
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_readme_has_the_two_commands_and_the_journey_on_its_first_screen() -> None:
    first = README.splitlines()[:40]
    assert [line for line in first if line.startswith("make demo")]
    assert [line for line in first if line.startswith("make test")]
    assert any("(gateway/exchange.py)" in line for line in first)


def test_readme_lists_every_command() -> None:
    table = README.split("## Commands")[1].split("\n## ")[0]
    assert [name for name in subcommands() if not re.search(rf"isr-hub {name}\b", table)] == []


def test_readme_links_every_acceptance_test() -> None:
    """A guarantee stands beside the test that would catch its breach."""
    tests = sorted(path.name for path in (ROOT / "tests" / "acceptance").glob("test_*.py"))
    assert [name for name in tests if f"(tests/acceptance/{name})" not in README] == []


def example() -> str:
    """The README's `isr-hub explain`."""
    return next(block for _, block in _FENCE.findall(README) if "ledger entry" in block)


def test_readme_shows_a_release_in_full_a_reduced_one_and_a_refusal() -> None:
    for words in ("given in full", "given in part", "not given"):
        assert words in example()


def test_readme_explains_as_the_hub_does() -> None:
    """Names and sentences of clauses, reasons, conditions and classes are those of today."""
    clauses = {
        agreement.name_of(clause): clause.belief.statement
        for agreement in Agreements.load(ROOT / "consent" / "agreements")
        for clause in agreement.clauses
    }
    block = example()
    cited = re.findall(r"^clause +(\S+): (.+)$", block, re.M)
    assert [(name, clauses[name]) for name, _ in cited] == cited
    reasons = re.findall(r"^ +([A-Z]+\d+|[a-z]+-[A-Za-z_-]+): (.+)$", block, re.M)
    assert [(code, reason_says(code)) for code, _ in reasons] == reasons
    classes = set(re.findall(r"\b[A-Z]+-[A-Z]+\b(?![@/])", " ".join(said(block, "given", "withheld"))))
    conditions = set(re.findall(r"([A-Z_]+) (?:yes|no)", " ".join(said(block, "conditions"))))
    assert (classes - set(CLASSES), conditions - set(CONDITIONS)) == (set(), set())
    assert all((cited, reasons, classes, conditions))  # or nothing was compared


def said(block: str, *words: str) -> list[str]:
    return [line for line in block.splitlines() if line.split(" ")[0] in words]
