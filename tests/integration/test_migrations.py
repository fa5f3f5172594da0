"""Migrations lead from nothing, and from every earlier revision, to exactly the tables that are declared."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from gateway import migrations
from gateway.hub import migrate, open_hub
from gateway.settings import Settings
from schemas.database import add_rows, metadata, open_database
from schemas.errors import BadSettings

# Everything that Alembic's own comparison leaves out is in here too: conditions of indexes, checks.
_SQLITE = (
    "SELECT name, sql FROM sqlite_master "
    "WHERE name NOT LIKE 'sqlite_%' AND name NOT LIKE '%alembic%' AND sql IS NOT NULL"
)
_POSTGRESQL = """
    SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT conrelid::regclass || ' ' || conname, pg_get_constraintdef(c.oid)
        FROM pg_constraint c WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT table_name || '.' || column_name,
        concat_ws(' ', data_type, character_maximum_length, is_nullable, column_default)
        FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT attrelid::regclass || '.' || attname || ' stored', attstorage::text
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path / 'migrated.db'}")
    else:
        engine = open_database(request.getfixturevalue("postgresql_empty_database"))
    yield engine
    engine.dispose()


@pytest.fixture
def declared(request: pytest.FixtureRequest, empty: sa.Engine, tmp_path: Path) -> Iterator[sa.Engine]:
    """A database of the same kind whose tables were created as the code declares them."""
    if empty.dialect.name == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path / 'declared.db'}")
        metadata.create_all(engine)
    else:
        engine = open_database(request.getfixturevalue("postgresql_database"))
    yield engine
    engine.dispose()


def described(engine: sa.Engine) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            _SQLITE if engine.dialect.name == "sqlite" else _POSTGRESQL.replace("%", "%%")
        ).all()
    # Only in SQLite are there the embedded broker's queues.
    elsewhere = migrations.EMBEDDED_ONLY if engine.dialect.name != "sqlite" else frozenset()
    return {
        name: " ".join(text.split())
        for name, text in rows
        if "alembic" not in name + text and not any(table in name + text for table in elsewhere)
    }


def test_migrated_database_is_what_the_code_declares(empty: sa.Engine, declared: sa.Engine) -> None:
    migrations.migrate(empty)

    assert described(empty) == described(declared)


def test_alembic_sees_no_difference_between_migrations_and_metadata(empty: sa.Engine) -> None:
    migrations.migrate(empty)

    with empty.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_object": migrations.belongs_here(connection),
                "target_metadata": metadata,
                "compare_server_default": True,
            },
        )
        assert compare_metadata(context, metadata) == []


def test_migrate_goes_from_every_revision_to_the_newest_and_keeps_what_is_stored(
    empty: sa.Engine, declared: sa.Engine
) -> None:
    for revision in reversed(migrations.known()):
        assert migrations.migrate(empty, revision) == revision
        with empty.begin() as connection:
            stored = connection.execute(sa.text("SELECT count(*) FROM inbox")).scalar_one()
            digest = sa.bindparam("digest", bytes(32), sa.LargeBinary)
            connection.execute(
                sa.text(
                    "INSERT INTO inbox (source, message, digest, at) VALUES ('police', :m, :digest, 'now')"
                ).bindparams(digest, m=revision)
            )
        assert migrations.migrate(empty, revision) == revision
    assert migrations.migrate(empty) == migrations.HEAD

    with empty.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM inbox")).scalar_one() == stored + 1
    assert described(empty) == described(declared)


def test_duties_stay_when_their_key_changes(empty: sa.Engine) -> None:
    columns = ("kind", "party", "case_id", "role", "at", "due", "state", "ended")
    stored = [("ipp3a", "health", "c1", "child", "now", "then", "", ""), ("s66k", *"abcdefg")]
    migrations.migrate(empty, "0007")
    with empty.begin() as connection:
        add_rows(connection, metadata.tables["duty"], columns, stored)

    migrations.migrate(empty)

    with empty.connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT {', '.join(columns)} FROM duty ORDER BY kind")
        assert [tuple(row) for row in rows] == stored


def test_head_is_the_newest_revision() -> None:
    assert migrations.known()[0] == migrations.HEAD


def test_migrate_may_be_repeated(empty: sa.Engine) -> None:
    assert migrations.revision(empty) is None
    assert migrations.migrate(empty) == migrations.HEAD
    assert migrations.migrate(empty) == migrations.HEAD
    assert migrations.revision(empty) == migrations.HEAD
    migrations.require_current(empty)


def test_migrate_from_several_processes_at_once_makes_the_tables_once(empty: sa.Engine) -> None:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(migrations.migrate(empty))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [migrations.HEAD] * 3


def test_migrate_that_fails_leaves_nothing(empty: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with empty.begin() as connection:
        connection.execute(sa.text("CREATE VIEW outbox_watermark AS SELECT 1 AS one"))  # made last but one

    with pytest.raises(sa.exc.DBAPIError):
        migrations.migrate(empty)

    assert sa.inspect(empty).get_table_names() == []
    assert migrations.revision(empty) is None


def test_migrate_refuses_tables_that_no_migration_made(empty: sa.Engine) -> None:
    with empty.begin() as connection:
        connection.execute(sa.text("CREATE TABLE ledger_head (id INTEGER)"))

    with pytest.raises(BadSettings, match="no migration made"):
        migrations.migrate(empty)


def test_hub_refuses_a_database_that_a_newer_hub_made(empty: sa.Engine) -> None:
    migrations.migrate(empty)
    with empty.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(BadSettings, match="9999"):
        migrations.require_current(empty)
    with pytest.raises(BadSettings, match="9999"):
        migrations.migrate(empty)


def test_hub_migrates_its_own_file_when_it_opens(tmp_path: Path) -> None:
    with open_hub(Settings(data=tmp_path)) as hub:
        assert migrations.revision(hub.engine) == migrations.HEAD


def test_hub_says_how_when_postgresql_was_not_migrated(
    postgresql_empty_database: str, tmp_path: Path
) -> None:
    settings = Settings(
        data=tmp_path, database_url=postgresql_empty_database, broker_url="amqp://127.0.0.1:1/"
    )

    with pytest.raises(BadSettings, match="isr-hub migrate"), open_hub(settings):
        pass

    assert migrate(settings) == migrations.HEAD


def test_hub_says_so_when_the_database_cannot_be_reached(tmp_path: Path) -> None:
    url = "postgresql+psycopg://hub:a-secret@127.0.0.1:1/hub"
    settings = Settings(data=tmp_path, database_url=url, broker_url="amqp://127.0.0.1:1/")

    for attempt in (lambda: open_hub(settings).__enter__(), lambda: migrate(settings)):
        with pytest.raises(BadSettings, match="cannot be reached") as raised:
            attempt()
        assert "a-secret" not in str(raised.value)


def test_two_processes_that_start_at_once_share_one_secret(tmp_path: Path) -> None:
    """Whoever is second takes the first one's keys; with keys of their own they would sign two ledgers."""
    program = (
        "import sys; from pathlib import Path; from gateway.hub import secret; "
        "from gateway.keys import make_key; "
        "from gateway.settings import Settings; s = Settings(data=Path(sys.argv[1])); sys.stdin.readline(); "
        "print(secret(s).hex(), make_key(s).public())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()

    said = {process.communicate()[0] for process in processes}

    assert len(said) == 1
    assert said != {""}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub.secret", "ledger.key", "ledger.vkey"]
    assert (tmp_path / "hub.secret").stat().st_mode & 0o777 == 0o600


def test_migrations_run_from_any_folder(tmp_path: Path) -> None:
    """Nothing is looked for in the working folder: a hub from a wheel has no repository."""
    program = "from gateway.command import main; raise SystemExit(main(['migrate', '--json', '--data', 'd']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert migrations.HEAD in done.stdout
    assert (tmp_path / "d" / "hub.db").exists()
