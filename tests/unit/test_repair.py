"""A damaged ledger: the hub refuses to start, the check says what is damaged, and only what follows from the
signed entries is made anew."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from consent.ledger import Ledger, ledger_checkpoint, ledger_entry, ledger_head, ledger_tile
from consent.merkle import leaf_hash
from consent.note import Checkpoint
from consent.repair import check, rebuild_tiles
from gateway.command import main
from schemas.errors import LedgerContradiction
from tests.serving import episode, sent, small_hub
from tests.unit.test_ledger import (  # noqa: F401  # the fixtures are used by name
    ORIGIN,
    SIGNER,
    assert_sound,
    clock,
    damage,
    engine,
    fill,
    ledger,
    postgresql_engine,
)


def found(engine: sa.Engine) -> dict[str, bool]:  # noqa: F811  # the fixture
    return {item.place: item.mendable for item in check(engine, SIGNER, ORIGIN)}


def full(engine: sa.Engine, ledger: Ledger) -> None:  # noqa: F811
    fill(engine, ledger, 280)
    ledger.sign()
    fill(engine, ledger, 270)
    ledger.sign()
    fill(engine, ledger, 20)


def test_check_finds_nothing_in_a_sound_ledger(engine: sa.Engine, ledger: Ledger) -> None:  # noqa: F811
    assert found(engine) == {}
    full(engine, ledger)
    told: list[tuple[int, int]] = []
    assert check(engine, SIGNER, ORIGIN, lambda done, total: told.append((done, total))) == []
    assert told[-1] == (570, 570)


@pytest.mark.parametrize(
    ("statement", "places"),
    [
        (sa.delete(ledger_tile), {"tile 0/0", "tile 0/1", "tile 1/0"}),
        (sa.update(ledger_tile).where(ledger_tile.c.level == 1).values(hashes=bytes(64)), {"tile 1/0"}),
        (
            sa.update(ledger_tile)
            .where(ledger_tile.c.level == 0, ledger_tile.c.n == 1)
            .values(hashes=bytes(8192)),
            {"tile 0/1"},
        ),
        (sa.update(ledger_head).values(size=7), {"head"}),
        (sa.update(ledger_head).values(root=bytes(32)), {"head"}),
        (sa.delete(ledger_head), {"head"}),
    ],
)
def test_damaged_tiles_and_head_are_named_and_made_anew(
    engine: sa.Engine,  # noqa: F811
    ledger: Ledger,  # noqa: F811
    statement: sa.Delete | sa.Update,
    places: set[str],
) -> None:
    full(engine, ledger)
    head = ledger.head()
    damage(engine, statement)
    assert found(engine) == dict.fromkeys(places, True)
    assert rebuild_tiles(engine, SIGNER, ORIGIN) == head
    assert found(engine) == {}
    repaired = Ledger(engine, SIGNER, ORIGIN, clock)
    repaired.start()
    assert_sound(engine, repaired)
    fill(engine, repaired, 300)
    assert_sound(engine, repaired)


@pytest.mark.parametrize(
    ("statement", "places"),
    [
        (sa.update(ledger_entry).where(ledger_entry.c.idx == 4).values(entry=b"{}"), {"entry 4"}),
        (
            sa.update(ledger_entry)
            .where(ledger_entry.c.idx == 300)
            .values(entry=b"{}", leaf=leaf_hash(b"{}")),
            {"checkpoint 550", "tile 0/1", "tile 1/0", "head"},
        ),
        (sa.delete(ledger_entry).where(ledger_entry.c.idx == 4), {"entry 0"}),
        (sa.delete(ledger_entry).where(ledger_entry.c.idx >= 500), {"checkpoint 550", "head"}),
        (
            sa.update(ledger_checkpoint)
            .where(ledger_checkpoint.c.size == 550)
            .values(note=Checkpoint(ORIGIN, 550, bytes(32)).signed_by(SIGNER).note),
            {"checkpoint 550"},
        ),
        (
            sa.update(ledger_checkpoint).where(ledger_checkpoint.c.size == 550).values(note="forged"),
            {"checkpoint 550"},
        ),
    ],
)
def test_damaged_entries_and_checkpoints_are_named_and_never_made_anew(
    engine: sa.Engine,  # noqa: F811
    ledger: Ledger,  # noqa: F811
    statement: sa.Delete | sa.Update,
    places: set[str],
) -> None:
    full(engine, ledger)
    damage(engine, statement)
    assert places <= set(found(engine))
    assert not all(found(engine).values())
    with pytest.raises(LedgerContradiction, match="isr-hub ledger"):
        rebuild_tiles(engine, SIGNER, ORIGIN)


def test_hub_refuses_to_start_on_a_contradiction_and_the_command_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_hub(tmp_path) as hub:
        sent(hub, "police", episode())
        size = hub.ledger.head().size
        with hub.engine.begin() as connection:
            connection.execute(sa.update(ledger_head).values(root=bytes(32)))
    with pytest.raises(LedgerContradiction, match="isr-hub ledger rebuild-tiles"), small_hub(tmp_path):
        pass
    monkeypatch.setenv("ISR_HUB_DATA", str(tmp_path))
    assert main(["ledger", "check"]) == 1
    assert "rebuild-tiles" in capsys.readouterr().out
    assert main(["ledger", "rebuild-tiles"]) == 0
    assert main(["ledger", "check", "--json"]) == 0
    with small_hub(tmp_path) as hub:
        assert hub.ledger.head().size == size
