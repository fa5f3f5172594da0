"""YAML with one meaning: no anchors, aliases or tags, no repeated keys, no values that change type by
accident; every value knows its line.

YAML 1.1 turns `no` into false and `1_0` into ten. An agreement is law between its parties, so this reader
refuses what two readers could take differently and returns only dicts, lists, text, integers, booleans
(`true`, `false`) and None; dates stay text.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from schemas.errors import BadAgreement, Problem

_MAX_CHARACTERS = 1_000_000
# The same language, read by libyaml where it is there: ten times faster.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DATE, _TEXT, _INT, _BOOL, _NULL = (
    f"tag:yaml.org,2002:{t}" for t in ("timestamp", "str", "int", "bool", "null")
)

Place = tuple[str | int, ...]


def read(text: str, name: str) -> tuple[Any, dict[Place, int]]:
    """The value in *text* and the line (from 1) of every place in it. *name* is the file's name, for
    messages.

    Raises `BadAgreement` with `file:line` for everything that is not plain, unambiguous YAML.
    """
    if len(text) > _MAX_CHARACTERS:
        raise BadAgreement(
            f"{name} is too large",
            Problem(name, f"more than {_MAX_CHARACTERS} characters", "split the agreement"),
        )
    problems: list[Problem] = []
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            problems.extend(_forbidden(event, name))
        if problems:
            raise BadAgreement(f"{name} uses YAML that an agreement may not use", *problems)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadAgreement(
            f"{name} is not YAML",
            Problem(f"{name}:{line}", str(error.problem), "check indentation, colons and quotes"),
        ) from None
    except yaml.YAMLError:
        raise BadAgreement(
            f"{name} is not YAML", Problem(name, "holds characters YAML does not allow", "save it as UTF-8")
        ) from None
    if root is None:
        raise BadAgreement(
            f"{name} is empty",
            Problem(f"{name}:1", "holds nothing", "write the agreement, or remove the file"),
        )
    lines: dict[Place, int] = {}
    value = _plain(root, (), name, lines, problems)
    if problems:
        raise BadAgreement(f"{name} can be read in two ways", *problems)
    return value, lines


def line_of(lines: dict[Place, int], place: Place) -> int:
    """The line of *place*, or of the nearest thing around it."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _forbidden(event: Any, name: str) -> Iterator[Problem]:
    at = f"{name}:{event.start_mark.line + 1}"
    if isinstance(event, yaml.AliasEvent):
        yield Problem(at, "refers to an anchor", "write the value out")
    elif getattr(event, "anchor", None) is not None:
        yield Problem(at, "sets an anchor", "remove the anchor and write the value out where it is needed")
    elif getattr(event, "tag", None) is not None:
        yield Problem(at, "carries a tag", "remove the tag")


def _plain(node: Any, place: Place, name: str, lines: dict[Place, int], problems: list[Problem]) -> Any:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, i), name, lines, problems) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, item in node.value:
            at = f"{name}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                problems.append(
                    Problem(
                        at,
                        "has a key that is not text",
                        "use a plain word as the key (quote yes, no, on, off, dates and numbers)",
                    )
                )
            elif key.value in found:
                problems.append(Problem(at, f"repeats the key {key.value}", "keep one of the two"))
            else:
                found[key.value] = _plain(item, (*place, key.value), name, lines, problems)
                lines[(*place, key.value)] = key.start_mark.line + 1
        return found
    return _scalar(node, f"{name}:{node.start_mark.line + 1}", problems)


def _scalar(node: Any, at: str, problems: list[Problem]) -> Any:
    if node.tag in (_TEXT, _DATE):
        return node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL and node.value in ("true", "false"):
        return node.value == "true"
    if node.tag == _INT and node.value.isdecimal() and (node.value == "0" or node.value[0] != "0"):
        return int(node.value)
    problems.append(
        Problem(
            at,
            "has a value that YAML readers take differently",
            "quote it, or write true, false or a plain whole number",
        )
    )
    return None
