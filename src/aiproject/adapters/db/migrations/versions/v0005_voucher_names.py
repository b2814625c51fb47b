"""Give vouchers a name and a number in addition to their code, so that only the voucher's own row contains the code.

The migration only adds, so the previous release can keep running. Vouchers that it creates meanwhile have neither name
nor number, and their redemptions are in the ledger under their code, as before.
"""

from __future__ import annotations

import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ROWS = 500
"""Vouchers that are numbered by one statement."""

INDEXES = {"uq_voucher_id": "voucher_id", "uq_voucher_name": "name_key"}


def upgrade() -> None:
    connection = op.get_bind()
    inspector = sa.inspect(connection)
    for table, columns in new_columns().items():
        present = {column["name"] for column in inspector.get_columns(table)}
        for column in columns:
            if column.name not in present:
                op.add_column(table, column)
    known = {index["name"] for index in inspector.get_indexes("voucher")}
    for name, indexed in INDEXES.items():
        if name not in known:
            op.create_index(name, "voucher", [indexed], unique=True)
    number_vouchers(connection)


def number_vouchers(connection: sa.Connection) -> None:
    """Give each voucher that has none a number, and a name that says the number; see `aiproject.vouchers.model`."""
    voucher = sa.table("voucher", *(sa.column(name) for name in ("code", "voucher_id", "name", "name_key")))
    unnumbered = sa.select(voucher.c.code).where(voucher.c.voucher_id.is_(None)).limit(ROWS)
    numbering = (
        sa.update(voucher)
        .where(voucher.c.code == sa.bindparam("of"))
        .values(voucher_id=sa.bindparam("number"), name=sa.bindparam("title"), name_key=sa.bindparam("title"))
    )
    while codes := list(connection.scalars(unnumbered)):
        numbers = [1 + secrets.randbelow(2**53 - 1) for _ in codes]
        connection.execute(
            numbering,
            [
                {"of": code, "number": number, "title": f"#{number}"}
                for code, number in zip(codes, numbers, strict=True)
            ],
        )


def new_columns() -> dict[str, list[sa.Column[Any]]]:
    return {
        "voucher": [
            sa.Column("voucher_id", sa.BigInteger),
            sa.Column("name", binary(100)),
            sa.Column("name_key", binary(200)),
        ],
        "voucher_redemption": [sa.Column("voucher_id", sa.BigInteger), sa.Column("is_adopted", sa.Boolean)],
    }


def binary(length: int) -> sa.types.TypeEngine[str]:
    on_mysql = sa.dialects.mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        sa.String(length)
        .with_variant(on_mysql, "mysql", "mariadb")
        .with_variant(sa.String(length, collation="C"), "postgresql")
    )
