"""A body is read as one value or refused, and every text in it has one spelling."""

import json
import unicodedata
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import message
from schemas.canonical import nfc
from schemas.errors import InvalidMessage, TooLarge
from schemas.message import decode

# Letters that compose and marks that they compose with, a singleton, and what JSON escapes.
LETTERS = st.text(
    'aen <>="\\/\n\t\x01\u0301\u0303\u0307\u0323\u0338\u0308\u212b\u1100\u1161\u11a8\uac00', max_size=6
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | LETTERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)


def spelt(value: Any) -> Any:
    """Every text in *value* in NFC, one by one."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {key: spelt(inner) for key, inner in value.items()}
    return [spelt(inner) for inner in value] if isinstance(value, list) else value


@given(VALUES)
@example("\n\u0303")
@example("\\n\u0303")
@example(["a", "\u0301"])
@example({"a": "e\u0301"})
@example("\\u0301")
def test_texts_are_composed_wherever_they_stand(value: Any) -> None:
    """Looking at the whole at once finds what looking at each text finds."""
    assert nfc(value) == spelt(value)
    assert decode(json.dumps(value).encode()) == spelt(value)
    assert decode(json.dumps(value, ensure_ascii=False).encode()) == spelt(value)


def test_nfc_gives_back_what_is_composed_already() -> None:
    """Nothing is copied for nothing; what JSON cannot hold is composed like the rest."""
    value = {"name": ["Ngāruawāhia"]}
    assert nfc(value) is value
    assert nfc(["e\u0301", 2**70]) == ["\u00e9", 2**70]
    assert nfc(["e\u0301", "\ud800"]) == ["\u00e9", "\ud800"]


def depth(value: Any) -> int:
    """How deeply *value* is nested."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(
    st.recursive(st.text('[]{}"\\a', max_size=4), lambda inner: st.lists(inner, max_size=3)),
    st.integers(1, 4),
)
def test_depth_counts_brackets_outside_of_texts_only(value: Any, limit: int) -> None:
    """A text may hold any bracket, quote and backslash."""
    raw = orjson.dumps(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(message, "MAX_DEPTH", limit)
        if depth(value) > limit:
            with pytest.raises(TooLarge):
                decode(raw)
        else:
            assert decode(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[" * 100_000, id="never closed"),
        pytest.param(b'{"a":' * 100_000, id="objects"),
        pytest.param(b'["\\\\",' + b"[" * 100_000, id="behind an escaped backslash"),
        pytest.param(b'["\\\\\\"",' + b"[" * 100_000, id="behind an escaped quote"),
        pytest.param(b"]" * 10 + b"[" * 100_000, id="behind too many closings"),
    ],
)
def test_nesting_cannot_exhaust_the_stack(raw: bytes) -> None:
    """It is refused before anything reads it."""
    with pytest.raises((TooLarge, InvalidMessage)):
        decode(raw)
