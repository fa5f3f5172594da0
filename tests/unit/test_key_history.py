"""The keys of a ledger over its life: who is trusted from which key, and up to which size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.key_history import KeyHistory, Rotation
from consent.merkle import EMPTY_ROOT
from consent.note import COSIGNATURE_V1, Checkpoint, ProofError, Signer

ORIGIN = "isr.test/ledger"
FIRST, SECOND, THIRD, THIEF = (Signer(ORIGIN, bytes(range(i, i + 32))) for i in range(4))


def rotation(old: Signer, new: Signer, start: int, until: int, *by: Signer) -> Rotation:
    return Rotation(ORIGIN, start, until, old.key, new.key).signed_by(by or (new, old))


ONE = rotation(FIRST, SECOND, 11, 20)
TWO = rotation(SECOND, THIRD, 31, 40)


def signed(size: int, *signers: Signer) -> str:
    return Checkpoint(ORIGIN, size, EMPTY_ROOT).signed_by(*signers).note


def opens(history: KeyHistory, size: int, *signers: Signer) -> bool:
    try:
        return history.open(signed(size, *signers)).size == size
    except ProofError:
        return False


@pytest.mark.parametrize("anchor", [FIRST, SECOND, THIRD], ids=["first", "second", "third"])
def test_history_leads_from_any_key_to_every_other(anchor: Signer) -> None:
    history = KeyHistory.parse(KeyHistory(THIRD.key, [TWO, ONE]).encode(), anchor.key)
    assert [(key, start) for key, start, _ in history.spans()] == [
        (FIRST.key, 0),
        (SECOND.key, 11),
        (THIRD.key, 31),
    ]
    assert history.newest == THIRD.key
    assert KeyHistory.parse(history.encode()).encode() == history.encode()


@pytest.mark.parametrize(
    ("signer", "good"), [(FIRST, {0, 10, 11, 20}), (SECOND, {11, 20, 21, 31, 40}), (THIRD, {31, 40, 41})]
)
def test_each_key_counts_for_its_sizes_and_no_others(signer: Signer, good: set[int]) -> None:
    history = KeyHistory(FIRST.key, [ONE, TWO])
    assert {size for size in (0, 10, 11, 20, 21, 31, 40, 41) if opens(history, size, signer)} == good


def test_one_of_two_signatures_is_enough_and_the_other_key_is_ignored_beyond_its_time() -> None:
    history = KeyHistory(FIRST.key, [ONE])
    assert opens(history, 15, FIRST, SECOND)
    assert opens(history, 21, FIRST, SECOND)
    assert not opens(history, 21, FIRST)
    assert not opens(history, 15, THIEF)


def test_rotation_counts_only_when_a_trusted_key_signed_it() -> None:
    lost = rotation(FIRST, SECOND, 11, 10, SECOND)
    assert not opens(KeyHistory(FIRST.key, [lost]), 11, SECOND)
    assert opens(KeyHistory(SECOND.key, [lost]), 11, SECOND)
    assert opens(KeyHistory(SECOND.key, [lost]), 10, FIRST)
    assert not opens(KeyHistory(SECOND.key, [lost]), 11, FIRST)
    foreign = rotation(FIRST, THIEF, 11, 20, THIEF)
    assert KeyHistory(FIRST.key, [foreign]).rotations == []


def test_stolen_key_that_names_a_successor_of_its_own_contradicts_the_true_one() -> None:
    """Both notes together are the evidence; no verifier goes on with either."""
    with pytest.raises(ProofError, match="replaced twice"):
        KeyHistory(FIRST.key, [ONE, rotation(FIRST, THIEF, 11, 20)])
    with pytest.raises(ProofError, match="replaced twice"):
        KeyHistory(SECOND.key, [ONE, rotation(THIEF, SECOND, 5, 9)])


def test_history_that_goes_round_in_a_circle_is_refused() -> None:
    with pytest.raises(ProofError):
        KeyHistory(FIRST.key, [ONE, rotation(SECOND, FIRST, 31, 40)])


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ("v1", "v2"),
        ("from 11", "from 011"),
        ("from 11", "from 22"),  # a gap: nobody signs 21
        ("until 20", "until -1"),
        ("log isr.test/ledger", "log other.test/ledger"),
        (SECOND.vkey(), FIRST.vkey()),
        (SECOND.vkey(), Signer(ORIGIN, bytes(32), COSIGNATURE_V1).vkey()),
        ("until 20\n", "until 20\nuntil 20\n"),
    ],
)
def test_rotation_that_is_not_one_is_refused(change: str, to: str) -> None:
    assert Rotation.from_note(ONE.note) == ONE
    text = ONE.text().replace(change, to)
    with pytest.raises(ProofError):
        Rotation.from_note(f"{text}\n{FIRST.sign(text)}")


@given(st.integers(0, len(ONE.note) - 1), st.characters(codec="utf-8"))
def test_rotation_with_one_character_changed_never_counts(at: int, character: str) -> None:
    changed = KeyHistory(SECOND.key, [ONE]).encode()
    offset = changed.index(ONE.note) + at
    if changed[offset] == character:
        return
    changed = changed[:offset] + character + changed[offset + 1 :]
    try:
        history = KeyHistory.parse(changed, FIRST.key)
    except ProofError:
        return
    # A broken line of the new key leaves the old key's, which is enough.
    assert all(each.text() == ONE.text() for each in history.rotations)


@given(st.text())
def test_readers_raise_only_their_own_error(text: str) -> None:
    for read in (KeyHistory.parse, Rotation.from_note):
        try:
            read(text)
        except ProofError as error:
            assert len(text) < 8 or text not in str(error)  # noqa: PT017  # nothing of what was read is repeated


def test_checkpoint_and_rotation_cannot_be_taken_for_each_other() -> None:
    with pytest.raises(ProofError):
        Checkpoint.from_note(ONE.note)
    with pytest.raises(ProofError):
        Rotation.from_note(signed(11, FIRST))
