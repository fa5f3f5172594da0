"""What counts as an entry is the same with the hub's own JSON reader and without it, as outsiders have it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent import entry
from consent.entry import COMMON_FIELDS, read_entry
from consent.merkle import ProofError

BODY: dict[str, Any] = {
    "kind": "delivery",
    "at": "2026-11-22T03:00:00Z",
    "source": "hub",
    "message": "m1",
    "party": "msd",
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def outcome(data: bytes) -> Any:
    try:
        _, *columns = read_entry(data)
    except ProofError as error:
        return str(error)
    return columns


def both(data: bytes) -> tuple[Any, Any]:
    """What comes of *data* with the quick reader and without."""
    assert entry._quick is not None
    quick = outcome(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "_quick", None)
        return quick, outcome(data)


@given(st.dictionaries(st.sampled_from([*COMMON_FIELDS, "disclosure", "x"]), values), st.booleans())
def test_both_readers_take_the_same_objects(more: dict[str, Any], ascii_only: bool) -> None:
    quick, plain = both(json.dumps({**BODY, **more}, ensure_ascii=ascii_only).encode("utf-8", "replace"))

    assert quick == plain


@given(st.binary(max_size=3), st.integers(0, 130), st.integers(0, 3))
def test_both_readers_refuse_the_same_bytes(put: bytes, at: int, over: int) -> None:
    whole = json.dumps(BODY).encode()

    quick, plain = both(whole[:at] + put + whole[at + over :])

    assert quick == plain


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b" " + json.dumps(BODY).encode(), id="space-before"),
        pytest.param(json.dumps(BODY).encode() + b"\n", id="line-end-after"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="deep-object"),
        pytest.param(json.dumps(BODY).encode() + json.dumps(BODY).encode(), id="two"),
        pytest.param(b"\xef\xbb\xbf" + json.dumps(BODY).encode(), id="byte-order-mark"),
    ],
)
def test_neither_reader_takes_what_is_no_entry(data: bytes) -> None:
    quick, plain = both(data)

    assert quick == plain
    assert isinstance(quick, str)


def test_both_readers_take_the_last_of_two_equal_names() -> None:
    twice = json.dumps(BODY).encode()[:-1] + b',"party":"acc"}'

    assert both(twice) == (["delivery", "hub", "m1", "acc"],) * 2


def test_entry_is_read_with_its_columns() -> None:
    assert both(json.dumps(BODY).encode()) == (["delivery", "hub", "m1", "msd"],) * 2
