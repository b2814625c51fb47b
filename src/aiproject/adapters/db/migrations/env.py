"""Alembic's entry point: runs the scripts on the connection that `aiproject.adapters.db.migrations` provides."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from aiproject.adapters.db.schema import metadata

connection = context.config.attributes.get("connection")
if not isinstance(connection, sa.Connection):
    raise RuntimeError("migrations are run by `aiproject db upgrade`, not by the alembic command")

context.configure(connection=connection, target_metadata=metadata, version_table="alembic_version")
with context.begin_transaction():
    context.run_migrations()
