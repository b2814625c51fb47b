"""Add unpaid usage: what failed calls of an account have consumed without being charged, and which losses count in it.

The migration only adds, so the previous release can keep running.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    connection = op.get_bind()
    inspector = sa.inspect(connection)
    present = {column["name"] for column in inspector.get_columns("operator_loss")}
    for column in (
        sa.Column("unpaid", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("unpaid_day", sa.Integer),
    ):
        if column.name not in present:
            op.add_column("operator_loss", column)
    if not inspector.has_table("unpaid_usage"):
        op.create_table(
            "unpaid_usage",
            sa.Column("account_id", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("tokens", sa.BigInteger, nullable=False),
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
            mysql_collate="utf8mb4_bin",
            mysql_row_format="DYNAMIC",
        )
