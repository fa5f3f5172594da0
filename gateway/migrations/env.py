"""What Alembic runs for every command: the migrations, on the connection that `gateway.migrations` opened."""

from alembic import context

from gateway.migrations import belongs_here
from schemas.database import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    # Both databases take a change of tables back with its transaction, and ours is open already; Alembic
    # supposes otherwise of SQLite.
    transactional_ddl=True,
    # SQLite changes a column by copying its table.
    render_as_batch=connection.dialect.name == "sqlite",
    compare_server_default=True,
    include_object=belongs_here(connection),
)
context.run_migrations()
