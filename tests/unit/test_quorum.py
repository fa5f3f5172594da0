"""Which witnesses are enough (c2sp.org/tlog-policy)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.merkle import EMPTY_ROOT, ProofError
from consent.note import COSIGNATURE_V1, MLDSA44, Checkpoint, Signer
from consent.quorum import Quorum

LOG = Signer("isr.test/ledger", bytes(range(32)))
NAMES = ["x1", "x2", "x3", "y1", "y2"]
WITNESSES = {
    name: Signer(f"{name}.test", bytes(range(i, i + 32)), MLDSA44 if name == "y2" else COSIGNATURE_V1)
    for i, name in enumerate(NAMES, 1)
}
LINES = [f"witness {name} {signer.vkey()} http://{name}.test/" for name, signer in WITNESSES.items()]
POLICY = "\n".join(
    [
        "# two of the agencies, and one of the Commissioner's",
        f"log {LOG.vkey()}",
        *LINES,
        "",
        "\tgroup agencies 2 x1 x2  x3 ",
        "group commissioner any y1 y2",
        "group both all agencies commissioner",
        "quorum both",
    ]
)


def test_policy_is_read_and_names_whom_to_ask() -> None:
    policy = Quorum.parse(POLICY)
    assert [w.url for w in policy.witnesses.values()] == [f"http://{name}.test" for name in NAMES]
    assert [w.key for w in policy.witnesses.values()] == [s.key for s in WITNESSES.values()]
    assert policy.logs == (LOG.key,)


@given(st.sets(st.sampled_from(NAMES)))
def test_quorum_is_met_by_two_agencies_and_one_of_the_commissioner(have: set[str]) -> None:
    expected = len(have & {"x1", "x2", "x3"}) >= 2 and bool(have & {"y1", "y2"})
    assert Quorum.parse(POLICY).met(have) is expected


def test_quorum_counts_cosignatures_that_verify_and_of_no_other_checkpoint() -> None:
    policy = Quorum.parse(POLICY)
    plain, other = (Checkpoint(LOG.name, size, EMPTY_ROOT).signed_by(LOG) for size in (0, 1))
    note = plain.note + "".join(s.sign(plain.text(), i) for i, s in enumerate(WITNESSES.values(), 5))
    assert policy.cosigners(note) == dict(zip(NAMES, range(5, 10), strict=True))
    # One line that is another checkpoint's takes that witness away, and nobody else.
    mixed = plain.note + WITNESSES["x1"].sign(other.text(), 5) + WITNESSES["y2"].sign(plain.text(), 6)
    assert policy.cosigners(mixed) == {"y2": 6}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("quorum both", "one line"),
        ("group g 2 both", "from 1"),
        ("group g 0 both", "from 1"),
        ("group g any x1", "in another group"),
        ("group g any nobody", "defined above"),
        ("group g any both both", "each once"),
        ("group both any agencies", "in another group"),
        ("group none any both", "taken"),
        (f"witness z {LOG.vkey()}", "key of a witness"),
        (LINES[0], "stands in the file"),
        (f"witness x1 {Signer('z.test', bytes(32), COSIGNATURE_V1).vkey()}", "taken"),
        (f"witness z {Signer('z.test', bytes(32), COSIGNATURE_V1).vkey()} ftp://z.test", "http"),
        (f"log {LOG.vkey()}", "stands in the file"),
        ("witnes x", "none of"),
        ("quorum", "one line"),
    ],
)
def test_policy_that_is_not_understood_is_refused_with_its_line(line: str, says: str) -> None:
    with pytest.raises(ProofError, match=says) as raised:
        Quorum.parse(f"{POLICY}\n{line}\n")
    assert f"line {len(POLICY.splitlines()) + 1}" in str(raised.value)


def test_policy_without_a_quorum_is_refused() -> None:
    with pytest.raises(ProofError, match="quorum"):
        Quorum.parse(POLICY.rsplit("\n", 1)[0])
    assert Quorum.parse("quorum none").met(())


@given(st.text())
def test_reader_raises_only_its_own_error(text: str) -> None:
    with contextlib.suppress(ProofError):
        Quorum.parse(text)
