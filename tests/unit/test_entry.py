"""What counts as an entry is the same with the hub's JSON readers and without them, as outsiders have it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent import entry
from consent.entry import COMMON_FIELDS, Stated, read_entry, read_stated
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


def outcome(data: bytes) -> Stated | str:
    try:
        said = read_stated(data)
    except ProofError as error:
        return str(error)
    assert read_entry(data)[1:] == (said.kind, said.source, said.message, said.party)
    if isinstance(said.disclosure, int) and not 0 <= said.disclosure < 2**63:
        said.disclosure = None  # no entry has this number; to some readers it is a float
    return said


def one(data: bytes) -> Stated | str:
    """What comes of *data*: the same with both quick readers, with one, and with Python's own."""
    assert None not in (entry._quick_stated, vars(entry)["_quick"])
    found = [outcome(data)]
    with pytest.MonkeyPatch.context() as patch:
        for reader in ("_quick_stated", "_quick"):
            patch.setattr(entry, reader, None)
            found.append(outcome(data))
    assert found == [found[0]] * 3
    return found[0]


@given(
    st.dictionaries(st.sampled_from([*COMMON_FIELDS, "agreements", "disclosure", "set", "x"]), values),
    st.booleans(),
)
def test_readers_take_the_same_objects(more: dict[str, Any], ascii_only: bool) -> None:
    one(json.dumps({**BODY, **more}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=3), st.integers(0, 150), st.integers(0, 3))
def test_readers_refuse_the_same_bytes(put: bytes, at: int, over: int) -> None:
    whole = json.dumps({**BODY, "x": {"y": ["z", 1]}}).encode()

    one(whole[:at] + put + whole[at + over :])


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
def test_no_reader_takes_what_is_no_entry(data: bytes) -> None:
    assert isinstance(one(data), str)


@pytest.mark.parametrize("text", [b"\xff", b"\x01", b"\\q", b"\\u12", b"\xed\xa0\x80"])
def test_no_reader_passes_over_text_that_is_none(text: bytes) -> None:
    assert isinstance(one(json.dumps(BODY).encode()[:-1] + b',"x":["' + text + b'"]}'), str)


def test_readers_take_the_last_of_two_equal_names() -> None:
    twice = json.dumps(BODY).encode()[:-1] + b',"party":"acc"}'

    assert one(twice) == Stated(**{**BODY, "party": "acc"})


def test_entry_is_read_with_its_columns() -> None:
    assert one(json.dumps(BODY).encode()) == Stated(**BODY)


@pytest.mark.parametrize("disclosure", ["d1", 7, -1, 2**63, 2**70, True, 1.0, None, ["d1"]])
def test_disclosure_is_text_or_a_whole_number(disclosure: object) -> None:
    said = one(json.dumps({**BODY, "disclosure": disclosure, "agreements": "a", "set": {}}).encode())

    known = disclosure if disclosure in ("d1", 7) else None
    assert said == Stated(**BODY, agreements="a", disclosure=known)
