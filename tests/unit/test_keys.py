"""Signing keys in files, in the environment and behind a command, and their rotation in a ledger in use."""

import os
import shlex
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from consent.key_history import KeyHistory
from consent.ledger import Ledger, Signer
from consent.monitor import watch
from consent.note import Checkpoint, ProofError, open_note
from consent.single_file import single_file
from consent.verify import verify
from gateway import migrations
from gateway.keys import CommandSigner, Keyring, make_key, rotate
from gateway.settings import Settings, from_environment
from schemas.clock import utc_now
from schemas.database import open_database
from schemas.errors import BadSettings, NotSigned
from tests.unit.test_ledger import entry

ORIGIN = "isr.test/ledger"
ELSEWHERE = Signer(ORIGIN, bytes(range(40, 72)))
PUBLIC = b64encode(ELSEWHERE.key.public).decode()
# A hardware module, as far as the hub can tell.
MODULE = f"""
import sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
assert sys.argv[1] == {ELSEWHERE.key.id.hex()!r}
key = Ed25519PrivateKey.from_private_bytes(bytes(range(40, 72)))
sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))
"""


def command(program: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {{key}}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "hub").mkdir()
    return Settings(data=tmp_path / "hub", origin=ORIGIN)


@pytest.fixture
def engine(settings: Settings) -> Iterator[sa.Engine]:
    engine = open_database(settings.database)
    migrations.migrate(engine)
    yield engine
    engine.dispose()


def opened(engine: sa.Engine, settings: Settings) -> Ledger:
    ledger = Ledger(engine, make_key(settings), ORIGIN, utc_now)
    ledger.start()
    return ledger


def grow(engine: sa.Engine, ledger: Ledger, count: int) -> Checkpoint:
    start = ledger.head().size
    with engine.begin() as connection:
        ledger.append(connection, [entry(start + i) for i in range(count)])
    return ledger.sign()


def signers_of(note: str, keyring: Keyring) -> list[str]:
    keys = [key for key, _, _ in keyring.history.spans()]
    return [key.id.hex() for key, _ in open_note(note, keys)[1]]


def test_rotation_overlaps_and_every_verifier_goes_on_with_the_key_it_has(
    engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    ledger = opened(engine, settings)
    before = grow(engine, ledger, 10)
    old = make_key(settings).history.newest
    assert watch(settings.data, old.vkey(), tmp_path / "state", 1).checked == 10

    made = rotate(settings, engine, utc_now, overlap=5)

    assert (made.start, made.until) == (11, 16 - 1)
    during, after = grow(engine, ledger, 3), grow(engine, ledger, 5)  # the very ledger that was open before
    new = made.new
    keyring = Keyring(settings)
    assert signers_of(before.note, keyring) == [old.id.hex()]
    assert set(signers_of(during.note, keyring)) == {old.id.hex(), new.id.hex()}
    assert signers_of(after.note, keyring) == [new.id.hex()]
    for key in (old, new):
        assert verify(settings.data, key.vkey()).ok
        ledger.export(tmp_path / "out")
        assert verify(tmp_path / "out", key.vkey(), before.note).ok
    assert watch(tmp_path / "out", old.vkey(), tmp_path / "state", 1).checked == 19
    (tmp_path / "verifier.py").write_text(single_file())
    alone = [sys.executable, "-I", str(tmp_path / "verifier.py"), str(tmp_path / "out")]
    assert subprocess.run([*alone, "--key", old.vkey()], capture_output=True, check=False).returncode == 0
    (entered,) = ledger.find(f"key-{new.id.hex()}")
    assert entered[0] == 10
    assert verify(settings.data, new.vkey()).kinds["key"] == 1


def test_lost_key_is_replaced_without_it_and_counts_for_nobody_who_was_not_told(
    engine: sa.Engine, settings: Settings
) -> None:
    ledger = opened(engine, settings)
    grow(engine, ledger, 10)
    old = make_key(settings).history.newest
    (settings.data / "ledger.key").unlink()
    with pytest.raises(BadSettings, match=old.id.hex()):
        make_key(settings)
    with pytest.raises(BadSettings):
        rotate(settings, engine, utc_now)

    made = rotate(settings, engine, utc_now, without_old=True)

    grow(engine, opened(engine, settings), 5)
    assert verify(settings.data, made.new.vkey()).ok
    assert not verify(settings.data, old.vkey()).ok


def test_stolen_key_that_goes_on_signing_counts_for_nobody_who_was_told(
    engine: sa.Engine, settings: Settings
) -> None:
    ledger = opened(engine, settings)
    grow(engine, ledger, 10)
    thief = Signer.from_file(settings.data / "ledger.key")
    made = rotate(settings, engine, utc_now, without_old=True)
    forged = Checkpoint(ORIGIN, 12, bytes(32)).signed_by(thief)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO ledger_checkpoint VALUES (?, ?)", (12, forged.note))
    report = verify(settings.data, made.new.vkey())
    assert [f.place for f in report.findings] == ["checkpoint 12"]
    # Up to the rotation nobody can tell the two apart: that is what witnesses are for.
    assert Keyring(settings).history.open(Checkpoint(ORIGIN, 9, bytes(32)).signed_by(thief).note).size == 9


def test_rotation_interrupted_before_its_entry_is_completed_by_repeating_it(
    engine: sa.Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(engine, settings)
    grow(engine, ledger, 10)

    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", power_cut)
        with pytest.raises(KeyboardInterrupt):
            rotate(settings, engine, utc_now)
    new = Keyring(settings).history.newest
    grow(engine, ledger, 3)

    assert rotate(settings, engine, utc_now).new == new
    assert len(ledger.find(f"key-{new.id.hex()}")) == 1
    assert rotate(settings, engine, utc_now).new != new
    assert verify(settings.data, new.vkey()).ok


def test_signing_goes_on_in_threads_while_the_key_is_rotated(engine: sa.Engine, settings: Settings) -> None:
    ledger, errors = opened(engine, settings), []
    stop = threading.Event()

    def work(first: int) -> None:
        try:
            number = first
            while not stop.is_set():
                with engine.begin() as connection:
                    ledger.append(connection, [entry(number)])
                number += 1
                ledger.sign()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(n * 1_000_000,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        rotate(settings, engine, utc_now, overlap=4)
    stop.set()
    for thread in threads:
        thread.join()
    ledger.sign()
    assert errors == []
    report = verify(settings.data, Keyring(settings).history.newest.vkey())
    assert (report.findings, report.kinds["key"]) == ([], 3)


def test_key_may_come_from_the_environment(tmp_path: Path) -> None:
    signer = Signer(ORIGIN, bytes(range(32)))
    given = from_environment(
        {
            "ISR_HUB_DATA": str(tmp_path),
            "ISR_HUB_ORIGIN": ORIGIN,
            "ISR_HUB_SIGNING_KEY": signer.to_text().strip(),
        }
    )
    assert make_key(given).signers_for(1)[0].key == signer.key
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.vkey"]
    assert "PRIVATE" not in repr(given)
    with pytest.raises(BadSettings, match="not a private key"):
        make_key(Settings(data=tmp_path, origin=ORIGIN, signing_key="PRIVATE+KEY+nonsense"))


def test_key_may_stay_in_a_module_that_a_command_reaches(tmp_path: Path) -> None:
    given = Settings(data=tmp_path, origin=ORIGIN, signer=command(MODULE))
    with pytest.raises(BadSettings, match="--public"):
        make_key(given)
    (signer,) = make_key(given, PUBLIC).signers_for(1)
    checkpoint = Checkpoint(ORIGIN, 3, bytes(32)).signed_by(signer)
    assert checkpoint.note == Checkpoint(ORIGIN, 3, bytes(32)).signed_by(ELSEWHERE).note
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.vkey"]
    with pytest.raises(ProofError):
        signer.to_text()


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(1)",
        "print('no signature')",
        "import sys; sys.stdout.buffer.write(bytes(64))",
        MODULE.replace("sys.stdin.buffer.read()", "b'something else'"),
    ],
)
def test_command_that_does_not_sign_stops_signing_and_repeats_nothing(program: str) -> None:
    with pytest.raises(NotSigned) as raised:
        CommandSigner(ELSEWHERE.key, command(program)).sign("text\n")
    assert "no signature" not in str(raised.value)


def test_rotation_moves_a_key_into_a_module(engine: sa.Engine, settings: Settings) -> None:
    grow(engine, opened(engine, settings), 3)
    with pytest.raises(BadSettings, match="ISR_HUB_SIGNER"):
        rotate(settings, engine, utc_now, public=PUBLIC)
    given = Settings(data=settings.data, origin=ORIGIN, signer=command(MODULE))
    rotate(given, engine, utc_now, overlap=1, public=PUBLIC)
    grow(engine, opened(engine, given), 3)
    assert verify(settings.data, ELSEWHERE.vkey()).ok


@pytest.mark.parametrize("text", ["", "nonsense", f"{Signer('other.test', bytes(32)).vkey()}\n"])
def test_public_key_file_that_is_not_of_this_ledger_is_refused(settings: Settings, text: str) -> None:
    make_key(settings)
    (settings.data / "ledger.vkey").write_text(text)
    with pytest.raises(BadSettings, match=r"ledger\.vkey"):
        make_key(settings)


def test_private_key_that_was_exchanged_is_refused_at_every_opening(settings: Settings) -> None:
    make_key(settings)
    path = settings.data / "ledger.key"
    path.unlink()
    Signer.generate(ORIGIN).save(path)
    with pytest.raises(BadSettings, match="private key"):
        make_key(settings)


def test_history_is_read_again_when_the_file_has_changed(settings: Settings) -> None:
    keyring = make_key(settings)
    first = keyring.history.newest
    other = Signer.generate(ORIGIN)
    other.save(settings.data / "ledger-other.key")
    part = settings.data / "part"
    part.write_text(KeyHistory(other.key).encode())
    os.replace(part, settings.data / "ledger.vkey")
    assert keyring.history.newest == other.key != first
