"""Create the ledger: holds, ledger entries, the operator's losses, vouchers, stored answers.

The migration only adds, so the previous release can keep running. What that release takes from balances is missing in
the ledger until its last node has stopped. So upgrade when the old nodes are stopped, or run `aiproject ledger verify`
afterwards, which shows what they took. The present balances become the first entries, so that every balance is the sum
of its entries. Dictation used until now becomes an entry without a balance, like unmetered dictation.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import sqlalchemy as sa
from alembic import op

from aiproject.messages.commands import Line
from aiproject.messages.formatting import Message

revision = "0002"
down_revision = "0001"

BATCH = 500

TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",
}


def upgrade() -> None:
    notes: list[Message] = op.get_context().config.attributes["notes"]  # type: ignore[union-attr]
    connection = op.get_bind()
    inspector = sa.inspect(connection)
    present = {column["name"] for column in inspector.get_columns("user")}
    for column in new_columns():
        if column.name not in present:
            op.add_column("user", column)
    for table in new_tables().sorted_tables:
        if not inspector.has_table(table.name):
            table.create(connection)
            continue
        known = {index["name"] for index in inspector.get_indexes(table.name)}
        for index in table.indexes:
            if index.name not in known:
                index.create(connection)
    opened = open_books(connection)
    if opened:
        notes.append(Message(Line.NOTE_BOOKS_OPENED, {"count": opened}))


def new_columns() -> list[sa.Column[Any]]:
    zero = sa.text("0")
    return [
        sa.Column("HeldTokens", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("HeldPicTimes", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("HeldVoiceMs", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("LedgerSeq", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("LedgerHash", sa.String(64), nullable=False, server_default=sa.text("''")),
    ]


def new_tables() -> sa.MetaData:
    metadata = sa.MetaData()

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

    sa.Table(
        "ledger_entry",
        metadata,
        sa.Column("account_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("capability", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("balance", sa.BigInteger),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("rule", sa.String(500), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "hold",
        metadata,
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("account_id", sa.BigInteger, nullable=False),
        sa.Column("capability", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("stage", sa.String(12), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.Column("outcome", sa.String(24)),
        sa.Column("reported", sa.BigInteger),
        sa.Column("charged", sa.BigInteger),
        sa.Column("sid", sa.String(64)),
        sa.Column("rule", sa.String(500), nullable=False),
        sa.Index("ix_hold_lease", "state", "lease_until"),
        sa.Index("ix_hold_account", "account_id", "opened_at"),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "operator_loss",
        metadata,
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("account_id", sa.BigInteger, nullable=False),
        sa.Column("capability", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "voucher",
        metadata,
        sa.Column("code", binary(64), primary_key=True),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("pic_times", sa.BigInteger, nullable=False),
        sa.Column("audience", binary(100)),
        sa.Column("is_available", sa.Boolean, nullable=False),
        sa.Column("expires_at", moment()),
        sa.Column("max_uses", sa.BigInteger),
        sa.Column("uses", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", moment(), nullable=False),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "voucher_redemption",
        metadata,
        sa.Column("code", binary(64), primary_key=True),
        sa.Column("account_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("redeemed_at", moment(), nullable=False),
        **TABLE_OPTIONS,
    )
    sa.Table(
        "stored_answer",
        metadata,
        sa.Column("scope", sa.String(80), primary_key=True),
        sa.Column("key_hash", sa.String(64), primary_key=True),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("answer", sa.LargeBinary().with_variant(sa.dialects.mysql.MEDIUMBLOB(), "mysql", "mariadb")),
        sa.Index("ix_stored_answer_expiry", "expires_at"),
        **TABLE_OPTIONS,
    )
    return metadata


def open_books(connection: sa.Connection) -> int:
    """Write an opening entry for every balance, and for dictation used, that is not 0; does nothing the second time."""
    columns = ("AccountId", "Tokens", "PicTimes", "VoiceMs", "VoiceUsedMs", "LedgerSeq")
    user = sa.table("user", *(sa.column(name) for name in (*columns, "LedgerHash")))
    entry = new_tables().tables["ledger_entry"]
    after = -1
    opened = 0
    while rows := connection.execute(
        sa.select(*(user.c[name] for name in columns))
        .where(user.c.AccountId > after)
        .order_by(user.c.AccountId)
        .limit(BATCH)
    ).all():
        after = rows[-1][0]
        entries: list[dict[str, Any]] = []
        heads: list[dict[str, Any]] = []
        for account_id, tokens, pic_times, voice_ms, voice_used_ms, seq in rows:
            if seq:
                continue
            previous = ""
            for capability, amount, balance in (
                ("tokens", tokens, tokens),
                ("pic_times", pic_times, pic_times),
                ("voice_seconds", -voice_used_ms, None),
                ("voice_seconds", voice_ms, voice_ms),
            ):
                if amount:
                    seq += 1
                    fields = {
                        "account_id": account_id,
                        "seq": seq,
                        "capability": capability,
                        "amount": amount,
                        "balance": balance,
                        "kind": "opening",
                        "request_id": "migration 0002",
                        "attempt": 0,
                        "rule": "{}",
                        "created_at": int(time.time() * 1000),
                    }
                    previous = seal(previous, fields)
                    entries.append({**fields, "hash": previous})
            if seq:
                heads.append({"k": account_id, "s": seq, "h": previous})
        if heads:
            # On MySQL a broken-off run may have left entries of this batch without their heads.
            connection.execute(entry.delete().where(entry.c.account_id.in_([head["k"] for head in heads])))
            connection.execute(entry.insert(), entries)
            connection.execute(
                user.update()
                .where(user.c.AccountId == sa.bindparam("k"))
                .values(LedgerSeq=sa.bindparam("s"), LedgerHash=sa.bindparam("h")),
                heads,
            )
            opened += len(heads)
    return opened


def seal(previous: str, fields: dict[str, Any]) -> str:
    """The chain's hash as this revision knew it."""
    text = json.dumps([previous, *fields.values()], separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
