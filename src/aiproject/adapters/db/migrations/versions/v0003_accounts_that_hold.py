"""Add API keys and their limits, sessions, mail tokens, administrators, the audit log and the login throttle.

The migration only adds, so the previous release can keep running.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",
}


def upgrade() -> None:
    connection = op.get_bind()
    inspector = sa.inspect(connection)
    for table, columns in new_columns().items():
        present = {column["name"] for column in inspector.get_columns(table)}
        for column in columns:
            if column.name not in present:
                op.add_column(table, column)
    for table_ in new_tables().sorted_tables:
        if not inspector.has_table(table_.name):
            table_.create(connection)
            continue
        known = {index["name"] for index in inspector.get_indexes(table_.name)}
        for index in table_.indexes:
            if index.name not in known:
                index.create(connection)


def new_columns() -> dict[str, list[sa.Column[Any]]]:
    return {
        "user": [
            sa.Column("EmailVerifiedAt", moment()),
            sa.Column("PasswordChangedAt", moment()),
            sa.Column("DeletedAt", moment()),
        ],
        "hold": [sa.Column("key_id", sa.BigInteger), sa.Column("key_day", sa.Integer)],
    }


def binary(length: int) -> sa.types.TypeEngine[str]:
    on_mysql = sa.dialects.mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        sa.String(length)
        .with_variant(on_mysql, "mysql", "mariadb")
        .with_variant(sa.String(length, collation="C"), "postgresql")
    )


def moment() -> sa.types.TypeEngine[Any]:
    return (
        sa.DateTime()
        .with_variant(sa.dialects.mysql.DATETIME(fsp=6), "mysql", "mariadb")
        .with_variant(sa.dialects.postgresql.TIMESTAMP(timezone=True), "postgresql")
    )


def new_tables() -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table(
        "api_key",
        metadata,
        sa.Column("key_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("account_id", sa.BigInteger, nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("name", binary(100), nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.Column("expires_at", moment()),
        sa.Column("revoked_at", moment()),
        sa.Column("last_used_at", moment()),
        sa.Column("last_used_address", sa.String(64)),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("concurrent_calls", sa.Integer),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("capabilities", sa.String(100)),
        sa.Column("models", sa.String(1000)),
        sa.Column("addresses", sa.String(1000)),
        sa.Index("uq_api_key_prefix", "prefix", unique=True),
        sa.Index("ix_api_key_account", "account_id"),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "spend_limit",
        metadata,
        sa.Column("key_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("capability", sa.String(16), primary_key=True),
        sa.Column("total", sa.BigInteger),
        sa.Column("spent", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("held", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("daily", sa.BigInteger),
        sa.Column("day", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("day_spent", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("day_held", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "login_guard",
        metadata,
        sa.Column("realm", sa.String(16), primary_key=True),
        sa.Column("subject", sa.String(64), primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("blocked_until", sa.BigInteger, nullable=False),
        sa.Column("last_failure_at", sa.BigInteger, nullable=False),
        sa.Index("ix_login_guard_age", "last_failure_at"),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "browser_session",
        metadata,
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("session_id", sa.String(32), nullable=False),
        sa.Column("account_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.Column("seen_at", moment(), nullable=False),
        sa.Column("expires_at", moment(), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("user_agent", binary(200), nullable=False),
        sa.Index("uq_browser_session_id", "session_id", unique=True),
        sa.Index("ix_browser_session_account", "account_id"),
        sa.Index("ix_browser_session_end", "expires_at"),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "mail_token",
        metadata,
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.BigInteger, nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("email", binary(254), nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.Column("expires_at", moment(), nullable=False),
        sa.Index("ix_mail_token_account", "account_id"),
        sa.Index("ix_mail_token_end", "expires_at"),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "administrator",
        metadata,
        sa.Column("admin_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name_key", binary(200), nullable=False),
        sa.Column("name", binary(100), nullable=False),
        sa.Column("password", binary(255), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.Column("password_changed_at", moment()),
        sa.Index("uq_administrator_name", "name_key", unique=True),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "administrator_session",
        metadata,
        sa.Column("session_id", sa.String(32), primary_key=True),
        sa.Column("admin_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.Column("expires_at", moment(), nullable=False),
        sa.Column("revoked_at", moment()),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Index("ix_administrator_session_admin", "admin_id"),
        sa.Index("ix_administrator_session_end", "expires_at"),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "audit_entry",
        metadata,
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor_kind", sa.String(16), nullable=False),
        sa.Column("actor", binary(100), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", binary(200), nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Index("ix_audit_entry_at", "at"),
        **TABLE_OPTIONS,
    )
    return metadata
