"""The verifier as one file that needs nothing of the hub: made from the modules that the hub itself verifies
with, so that there is one logic and not two.

Whatever `consent.verify` reaches is copied as it stands, with its comments; what it does not reach (signing,
writing) is left out. The result runs on Python 3.11 and later, alone.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files

# Each uses only those before it.
_MODULES = (
    "merkle",
    "ed25519",
    "note",
    "key_history",
    "tiles",
    "entry",
    "copies",
    "report",
    "reveal",
    "spot",
    "bundle",
    "verify",
)
_START = "main"
_LEFT_OUT = frozenset({"Signer"})  # private keys, and whatever needs them
_HEAD = '''\
#!/usr/bin/env python3
"""Proves a disclosure ledger of the information-sharing hub from outside. Needs Python 3.11 and nothing
else.

    python3 verify_ledger.py DIR|FILE|URL --key VKEY_OR_FILE
    python3 verify_ledger.py --help

Take the public key from somebody you trust, not from where the ledger came from. Exit status 0: everything is
proved; 1: something is wrong, and it is said what; 2: used wrongly, or there is nothing to verify.

Made by `isr-hub ledger verifier` from the hub's own modules, each under its heading below. To trust it, read
it from the end: `main`, `verify`, `_Walk`. With the package `cryptography` installed signatures are verified
by it, otherwise by the arithmetic below.
"""
'''


@dataclass(slots=True)
class _Piece:
    """One definition of a module: its *text*, the names it gives, and the names that it uses."""

    text: str
    gives: set[str]
    uses: set[str]
    is_block: bool


@dataclass(slots=True)
class _Module:
    name: str
    doc: str
    pieces: list[_Piece] = field(default_factory=list)


def single_file() -> str:
    """The verifier's source. Raises `ValueError` when two of its modules give one name, or one uses another
    out of order: then those are to be renamed or moved.
    """
    imports: dict[tuple[str, str], str] = {}  # (module, name) as imported → name as used
    modules = [_read(name, number, imports) for number, name in enumerate(_MODULES)]
    kept = _reached([piece for module in modules for piece in module.pieces])
    used = {name for piece in kept for name in piece.uses}
    reached = {id(piece) for piece in kept}
    body = "".join(_section(module, reached) for module in modules)
    return f'{_HEAD}\n{_imports(imports, used)}{body}\n\nif __name__ == "__main__":\n    sys.exit(main())\n'


def _read(name: str, number: int, imports: dict[tuple[str, str], str]) -> _Module:
    source = (files("consent") / f"{name}.py").read_text("utf-8")
    lines, tree = source.split("\n"), ast.parse(source)
    module = _Module(name, ast.get_docstring(tree) or "")
    for node in tree.body:
        match node:
            case ast.ImportFrom(module=str(origin), names=names):
                if not origin.startswith("consent."):
                    imports.update({(origin, a.name): a.asname or a.name for a in names})
                elif origin.removeprefix("consent.") not in _MODULES[:number]:
                    raise ValueError(f"consent.{name} uses {origin}, which does not come before it")
            case ast.Import(names=names):
                imports.update({("", a.name): a.asname or a.name.partition(".")[0] for a in names})
            case ast.Expr() | ast.If():  # the docstring; what runs the module as a program
                pass
            case _:
                if (piece := _piece(node, lines)) is not None:
                    module.pieces.append(piece)
    return module


def _piece(node: ast.stmt, lines: list[str]) -> _Piece | None:
    gives = set(_given(node))
    if "__all__" in gives or gives & _LEFT_OUT:
        return None
    uses = set(_names(node))
    text = lines[_first_line(node, lines) : node.end_lineno]
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            if _LEFT_OUT & set(_names(member)):
                first, last = _first_line(member, lines), member.end_lineno or 0
                start = _first_line(node, lines)
                text[first - start : last - start] = [""] * (last - first)
        uses = (
            set()
            .union(*(_names(n) for n in (*node.bases, *node.decorator_list)))
            .union(*(_names(m) for m in node.body if not _LEFT_OUT & set(_names(m))))
        )
    joined = re.sub(r"\n{3,}", "\n\n", "\n".join(text))
    return _Piece(joined, gives, uses, isinstance(node, ast.FunctionDef | ast.ClassDef))


def _given(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Try(body=body, handlers=handlers):
            for inner in (*body, *(s for h in handlers for s in h.body)):
                yield from _given(inner)
        case ast.ImportFrom(names=names):
            yield from (a.asname or a.name for a in names)
        case _:
            raise ValueError(f"line {node.lineno}: a verifier's module holds definitions only")


def _names(node: ast.AST) -> Iterator[str]:
    """Every name that *node* refers to, those that stand in quotes in annotations included."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value.isidentifier():
            yield inner.value


def _first_line(node: ast.stmt, lines: list[str]) -> int:
    """The index of the first line of *node*, its decorators and the comment right above it included."""
    decorators = getattr(node, "decorator_list", [])
    first: int = min([node.lineno, *(d.lineno for d in decorators)]) - 1
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return first


def _reached(pieces: list[_Piece]) -> list[_Piece]:
    """The *pieces* that the start uses, directly or not, in their order."""
    by_name: dict[str, _Piece] = {}
    for piece in pieces:
        for name in piece.gives:
            former = by_name.setdefault(name, piece)
            if former is not piece:
                raise ValueError(f"two modules of the verifier give the name {name}; rename one")
    wanted, reached = [by_name[_START]], set[int]()
    while wanted:
        piece = wanted.pop()
        if id(piece) not in reached:
            reached.add(id(piece))
            wanted += [by_name[name] for name in piece.uses if name in by_name]
    return [piece for piece in pieces if id(piece) in reached]


def _section(module: _Module, kept: set[int]) -> str:
    doc = "\n".join(f"# {line}".rstrip() for line in module.doc.split("\n"))
    body, blank = "", 1
    for piece in (p for p in module.pieces if id(p) in kept):
        body += "\n" * (2 if piece.is_block else blank) + piece.text + "\n"
        blank = 2 if piece.is_block else 0
    return f"\n\n# {'=' * 30} {module.name} {'=' * 30}\n#\n{doc}\n{body}"


def _imports(imports: dict[tuple[str, str], str], used: Iterable[str]) -> str:
    wanted = set(used) | {"sys"}
    plain = sorted({name for (origin, name), known in imports.items() if not origin and known in wanted})
    by_module: dict[str, set[str]] = {}
    for (origin, name), known in imports.items():
        if origin and known in wanted:
            by_module.setdefault(origin, set()).add(name if name == known else f"{name} as {known}")
    lines = [f"import {name}" for name in plain]
    lines += [
        f"from {origin} import {', '.join(sorted(names))}" for origin, names in sorted(by_module.items())
    ]
    return "\n".join(lines) + "\n"
