"""Breaks the policy in one place at a time and sees whether a test notices.

`python -m tests.mutation.mutate` (`make mutate`) makes every mutant of the modules below, each in a process
of its own, and puts the tests to it that need nothing but the module: the tables of conditions and guards,
the named cases, the minimiser's tests, and the oracle's comparison in the usual situation and in every
single deviation from it. What survives must stand in survivors.tsv with the reason why no test can tell the
difference, else the exit status is 1.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import importlib.util
import inspect
import io
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
MODULES = ("conditions", "guards", "operands", "verdict", "policy", "minimise")
SURVIVORS = Path(__file__).with_name("survivors.tsv")
TESTS = (
    "tests.unit.test_conditions",
    "tests.unit.test_guards",
    "tests.unit.test_guard_edges",
    "tests.unit.test_policy_cases",
    "tests.unit.test_minimise",
    "tests.unit.test_policy",
    "tests.unit.test_policy_edges",
    "tests.unit.test_leave",
    "tests.unit.test_policy_oracle",
)
# Too slow for each of hundreds of mutants, and a count of the pairs that are left out here.
LEFT_OUT = frozenset(
    {
        "test_decide_gives_each_standing_cell_in_some_message_and_no_other",
        "test_oracle_is_compared_in_more_than_a_million_points",
    }
)
SECONDS = 60  # a mutant that takes longer has lost its way, and that is noticed too

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
_SWAPPED = {"NOTHING": "ASK", "NO_RELEASE": "ASK", "ASK": "NO_RELEASE", "all": "any", "any": "all"}


class Mutant(NamedTuple):
    """One change: in which *module* and function, *what* it is, the source *line* it is in, and the module's
    changed *tree*.
    """

    module: str
    function: str
    what: str
    line: str
    tree: ast.Module

    @property
    def key(self) -> tuple[str, str, str, str]:
        """How the mutant is named in the list of survivors."""
        return self.module, self.function, self.what, self.line


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of consent/*module*.py, in the order of its lines."""
    source = (ROOT / "consent" / f"{module}.py").read_text("utf-8")
    lines, tree = source.splitlines(), ast.parse(source)
    names = {
        id(inner): function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for inner in ast.walk(function)
    }
    # A dataclass that is no longer frozen decides the same.
    decorators = {
        id(inner)
        for node in ast.walk(tree)
        for decorator in getattr(node, "decorator_list", ())
        for inner in ast.walk(decorator)
    }
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in decorators:
            continue
        for what, change in _changes(node):
            twin = copy.deepcopy(tree)
            change(next(itertools.islice(ast.walk(twin), number, None)))
            line = lines[getattr(node, "lineno", 1) - 1].strip()
            yield Mutant(module, names.get(id(node), "(module)"), what, line, ast.fix_missing_locations(twin))


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], None]]]:
    if isinstance(node, ast.Compare):
        for n, op in enumerate(node.ops):
            other = _COMPARED[type(op)]
            yield (
                f"{type(op).__name__} → {other.__name__}",
                lambda twin, n=n, other=other: twin.ops.__setitem__(n, other()),
            )
    elif isinstance(node, ast.BoolOp):
        turned = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} → {turned.__name__}", lambda twin: setattr(twin, "op", turned())
        for n in range(len(node.values)):
            yield f"operand {n + 1} gone", lambda twin, n=n: _operand_gone(twin, n)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not gone", _not_gone
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield "if → if not", lambda twin: setattr(twin, "test", ast.UnaryOp(ast.Not(), twin.test))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} → {not node.value}", lambda twin: setattr(twin, "value", not twin.value)
    elif isinstance(node, ast.Set):
        for n, element in enumerate(node.elts):
            if isinstance(element, ast.Constant):
                yield f"{element.value} gone", lambda twin, n=n: twin.elts.pop(n)
    elif isinstance(node, ast.Attribute) and node.attr in _SWAPPED and isinstance(node.value, ast.Name):
        if node.value.id == "Effect":
            yield (
                f"{node.attr} → {_SWAPPED[node.attr]}",
                lambda twin: setattr(twin, "attr", _SWAPPED[twin.attr]),
            )
    elif isinstance(node, ast.Name) and node.id in ("all", "any"):
        yield f"{node.id} → {_SWAPPED[node.id]}", lambda twin: setattr(twin, "id", _SWAPPED[twin.id])
    elif isinstance(node, (ast.Continue, ast.Break)):
        yield f"{type(node).__name__.lower()} → pass", lambda twin: setattr(twin, "__class__", ast.Pass)


def _operand_gone(twin: ast.BoolOp, n: int) -> None:
    twin.values.pop(n)
    if len(twin.values) == 1:  # `and` of one operand does not compile: what is left stands for itself
        (left,) = twin.values
        vars(twin).clear()
        twin.__class__ = type(left)
        vars(twin).update(vars(left))


def _not_gone(twin: ast.UnaryOp) -> None:
    twin.op, twin.operand = ast.Not(), ast.UnaryOp(ast.Not(), twin.operand)


def tests_of(module: Any) -> Iterator[Callable[[], object]]:
    """The tests of *module* that need no fixture, one call for each set of parameters."""
    for name, test in vars(module).items():
        if not name.startswith("test_") or name in LEFT_OUT or hasattr(test, "hypothesis"):
            continue
        marks = [m for m in getattr(test, "pytestmark", ()) if m.name == "parametrize"]
        choices = []
        for mark in marks:
            names = (
                mark.args[0].replace(" ", "").split(",") if isinstance(mark.args[0], str) else mark.args[0]
            )
            rows = [row.values if type(row).__name__ == "ParameterSet" else row for row in mark.args[1]]
            choices.append(
                [dict(zip(names, row if _is_row(row, names) else (row,), strict=True)) for row in rows]
            )
        for chosen in itertools.product(*choices):
            given = {k: v for row in chosen for k, v in row.items()}
            if set(inspect.signature(test).parameters) == set(given):
                yield lambda test=test, given=given: test(**given)


def _is_row(row: Any, names: Any) -> bool:
    return isinstance(row, (tuple, list)) and (len(names) > 1 or len(row) == 1)


def noticed() -> bool:
    """Whether any test fails in this process."""
    for name in TESTS:
        module = importlib.import_module(name)
        if hasattr(module, "combinations"):  # the oracle: every single deviation, no pairs
            module.combinations, module.AT_LEAST = (lambda *_: ()), 0
        for test in tests_of(module):
            try:
                test()
            except Exception:
                return True
    return False


def survives(mutant: Mutant | None) -> bool:
    """Whether no test notices *mutant* (None: the code as it is), tried in a process of its own."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    status = 1
    try:
        signal.alarm(SECONDS)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if mutant is not None:
                _load(mutant)
            status = 1 if noticed() else 0
    except BaseException:  # whatever breaks is noticed
        status = 1
    finally:
        os._exit(status)


def _load(mutant: Mutant) -> None:
    name, path = f"consent.{mutant.module}", ROOT / "consent" / f"{mutant.module}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    package = importlib.import_module("consent")
    sys.modules[name] = module
    setattr(package, mutant.module, module)
    exec(compile(mutant.tree, str(path), "exec"), vars(module))  # that is the trade


def listed() -> dict[tuple[str, str, str, str], str]:
    """The survivors that are explained: (module, function, what, line) → reason."""
    found = {}
    for row in SURVIVORS.read_text("utf-8").splitlines():
        if row and not row.startswith("#"):
            *key, reason = row.split("\t")
            found[tuple(key)] = reason
    return found  # type: ignore[return-value]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.mutate", description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(MODULES), metavar="MODULE")
    parser.add_argument("--every", type=int, default=1, help="only every n-th mutant")
    given = parser.parse_args()
    for name in ("schemas.catalogue", "yaml", "jsonschema", "pytest", "hypothesis", "sqlalchemy", "orjson"):
        importlib.import_module(name)  # once, and not in each child
    importlib.import_module("schemas.catalogue").published()
    if not survives(None):
        print("the tests fail on the code as it is")
        return 2
    explained, started, tried, alive = listed(), time.monotonic(), 0, []
    for module in given.modules:
        made = list(mutants(module))[:: given.every]
        left = 0
        for mutant in made:
            if survives(mutant):
                left += 1
                alive.append(mutant)
                mark = "explained" if mutant.key in explained else "UNEXPLAINED"
                print(f"{mark}\t" + "\t".join(mutant.key), flush=True)
        tried += len(made)
        print(f"consent/{module}.py: {len(made)} mutants, {left} survive", flush=True)
    score = 100 * (tried - len(alive)) / max(tried, 1)
    print(
        f"{tried - len(alive)} of {tried} mutants killed ({score:.1f} %), {time.monotonic() - started:.0f} s"
    )
    return 1 if any(mutant.key not in explained for mutant in alive) else 0


if __name__ == "__main__":
    sys.exit(main())
