"""The mutation run does what it says: it notices what is broken, and its list of survivors is of today."""

import ast
import subprocess
import sys

import pytest

from tests.mutation.mutate import MODULES, ROOT, listed, mutants


@pytest.mark.parametrize("module", MODULES)
def test_every_mutant_differs_from_the_code(module: str) -> None:
    source = ast.dump(ast.parse((ROOT / "consent" / f"{module}.py").read_text("utf-8")))
    made = list(mutants(module))
    assert len(made) > 15
    assert all(ast.dump(mutant.tree) != source for mutant in made[::7])


def test_every_explained_survivor_is_a_mutant_of_the_code_as_it_is() -> None:
    present = {mutant.key for module in MODULES for mutant in mutants(module)}
    assert [key for key in listed() if key not in present] == []
    assert all(len(reason) > 20 for reason in listed().values())


def test_a_few_mutants_are_killed_and_the_code_as_it_is_lives() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.mutation.mutate", "conditions", "--every", "7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "consent/conditions.py: 3 mutants, 0 survive" in run.stdout
