"""What the product imports is what a fresh machine installs: a module that only the development tools bring
would end `make serve` there, and nowhere else.
"""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("adapters", "broker", "consent", "gateway", "schemas")
# What the hub is measured beside; the measurement says so when it is missing.
OPTIONAL = {"cedarpy", "faststream"}


def imported() -> Iterator[tuple[str, str]]:
    """(file, name of the outermost package) of every import of something that is neither ours nor Python's
    own.
    """
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module]
                for name in names:
                    top = name.partition(".")[0]
                    if top not in PACKAGES and top not in sys.stdlib_module_names:
                        yield str(path.relative_to(ROOT)), top


def pinned() -> set[str]:
    text = (ROOT / "requirements.txt").read_text("utf-8")
    return {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_comes_with_requirements_txt() -> None:
    providers, installed = packages_distributions(), pinned()
    missing = {
        (file, module)
        for file, module in imported()
        if module not in OPTIONAL and installed.isdisjoint(map(normal, providers.get(module, [module])))
    }

    assert missing == set()
