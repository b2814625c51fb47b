"""The tables as SQLAlchemy Core definitions, in one `MetaData` for the whole package.

A package that owns tables adds them to `metadata` here, and adds a migration to `aiproject.adapters.db.migrations`. A
test compares the two on every database.

The table ``user`` keeps the legacy columns and their spelling, since operators inspect it with database tools and other
programs read it. ``Id`` is the public uuid: a secret, the only credential of existing apps, and a value that the owner
can have changed. So no table refers to it; other tables refer to ``AccountId``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from aiproject.protocols.names import name_key

__all__ = [
    "ACADEMY_LENGTH",
    "NAME_KEY_LENGTH",
    "NAME_LENGTH",
    "PASSWORD_HASH_LENGTH",
    "EditedDateTime",
    "UtcDateTime",
    "administrator",
    "administrator_session",
    "api_key",
    "audit_entry",
    "binary_text",
    "browser_session",
    "hold",
    "ledger_entry",
    "login_guard",
    "mail_token",
    "metadata",
    "name_key",
    "new_account_id",
    "operator_loss",
    "signup_count",
    "spend_limit",
    "stored_answer",
    "unpaid_usage",
    "user",
    "voucher",
    "voucher_redemption",
]

# Lengths in characters (code points), as all four databases count them.
NAME_LENGTH = 100
NAME_KEY_LENGTH = 200  # normalisation may lengthen a name; a name with a longer key is refused
PASSWORD_HASH_LENGTH = 255  # an argon2id hash has 97 today; the rest allows longer salts and parameters
EMAIL_LENGTH = 254  # the longest address in SMTP; source: RFC 5321, section 4.5.3.1.3, without the brackets
ACADEMY_LENGTH = 100

_ACCOUNT_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_ACCOUNT_RANDOM_BITS = 21


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A timestamp with microseconds, aware and in UTC in Python; stored without a zone if the database has none."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EditedDateTime(UtcDateTime):
    """A `UtcDateTime` for values that may have been edited by hand: SQLite stores any value in any column.

    A value that is not a timestamp is returned as text.
    """

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        parse = super().result_processor(dialect, coltype)
        if parse is None:
            return None

        def process(value: Any) -> Any:
            try:
                return parse(value)
            except (TypeError, ValueError):
                return str(value)

        return process


def binary_text(length: int) -> TypeEngine[str]:
    """Return a type for text that is compared and sorted by code point on every database.

    MySQL's default collations treat ``é`` as equal to ``e`` and differ between servers; PostgreSQL's depend on the
    cluster's locale. So the collation is always specified. SQLite compares bytes by default.
    """
    on_mysql = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        sa.String(length)
        .with_variant(on_mysql, "mysql", "mariadb")
        .with_variant(sa.String(length, collation="C"), "postgresql")
    )


def _legacy_text(length: int) -> TypeEngine[str]:
    """Return the type of a text column of the legacy schema. PostgreSQL has no collation here: it never had one.

    On MySQL the collation is specified, because an imported column would otherwise keep a character set that cannot
    represent every name.
    """
    on_mysql = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(on_mysql, "mysql", "mariadb")


metadata = sa.MetaData()

user = sa.Table(
    "user",
    metadata,
    sa.Column("Id", _legacy_text(50), primary_key=True),
    sa.Column("UserName", _legacy_text(NAME_LENGTH), nullable=False),
    sa.Column("PassWord", _legacy_text(PASSWORD_HASH_LENGTH), nullable=False),
    sa.Column("Tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("Email", _legacy_text(EMAIL_LENGTH), nullable=False),
    sa.Column("PicTimes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("Academy", _legacy_text(ACADEMY_LENGTH)),
    # Not in the legacy schema. `AccountId` is what everything else refers to: it never changes and is not a secret.
    sa.Column("AccountId", sa.BigInteger, nullable=False),
    sa.Column("NameKey", binary_text(NAME_KEY_LENGTH), nullable=False),
    sa.Column("VoiceMs", sa.BigInteger),  # dictation left, in milliseconds; NULL: unmetered
    sa.Column("VoiceUsedMs", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("CreatedAt", UtcDateTime),  # NULL: imported from a database that did not record it
    sa.Column("DisabledAt", UtcDateTime),  # NULL: enabled
    sa.Column("EmailVerifiedAt", UtcDateTime),  # NULL: not verified
    sa.Column("PasswordChangedAt", UtcDateTime),  # NULL: never since the account was created
    sa.Column("DeletedAt", UtcDateTime),  # set: the personal data are erased, the row stays for the ledger
    # The ledger (`aiproject.ledger`). A balance is the sum of its ledger entries. The amounts held by running calls are
    # part of it and cannot be spent twice.
    sa.Column("HeldTokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("HeldPicTimes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("HeldVoiceMs", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("LedgerSeq", sa.BigInteger, nullable=False, server_default=sa.text("0")),  # of the newest entry
    sa.Column("LedgerHash", sa.String(64), nullable=False, server_default=sa.text("''")),  # of the newest entry
    sa.CheckConstraint(sa.column("Tokens") >= 0, name="ck_user_tokens"),
    sa.CheckConstraint(sa.column("PicTimes") >= 0, name="ck_user_pic_times"),
    sa.CheckConstraint(sa.column("VoiceMs") >= 0, name="ck_user_voice_ms"),
    # Unique indexes rather than constraints: SQLite can add them to an existing table. Foreign keys can refer to them
    # on all four databases.
    sa.Index("uq_user_name_key", "NameKey", unique=True),
    sa.Index("uq_user_account_id", "AccountId", unique=True),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
    mysql_row_format="DYNAMIC",  # allows indexes of 3072 bytes for each column; older formats allow 767
)

_TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",
}

ledger_entry = sa.Table(
    "ledger_entry",
    metadata,
    sa.Column("account_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 … in each account
    sa.Column("capability", sa.String(16), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),  # signed change of the balance; voice in milliseconds
    sa.Column("balance", sa.BigInteger),  # after the entry; NULL: unmetered
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),  # of the call, or the reference of a grant
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("rule", sa.String(500), nullable=False),  # price and rule as they were: JSON
    sa.Column("created_at", sa.BigInteger, nullable=False),  # milliseconds since 1970, UTC, by the database's clock
    sa.Column("hash", sa.String(64), nullable=False),  # over this entry and the one before: `aiproject.ledger.chain`
    **_TABLE_OPTIONS,
)

hold = sa.Table(
    "hold",
    metadata,
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("account_id", sa.BigInteger, nullable=False),
    sa.Column("capability", sa.String(16), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(10), nullable=False),  # open, captured, released
    sa.Column("stage", sa.String(12), nullable=False),  # how far the call has progressed
    sa.Column("owner", sa.String(64), nullable=False),  # the process that runs the call
    sa.Column("lease_until", sa.BigInteger, nullable=False),  # milliseconds since 1970, by the database's clock
    sa.Column("opened_at", sa.BigInteger, nullable=False),
    sa.Column("closed_at", sa.BigInteger),
    sa.Column("outcome", sa.String(24)),
    sa.Column("reported", sa.BigInteger),  # the consumption that upstream reported; NULL: none
    sa.Column("charged", sa.BigInteger),
    sa.Column("sid", sa.String(64)),  # the vendor's session id
    sa.Column("rule", sa.String(500), nullable=False),
    sa.Column("key_id", sa.BigInteger),  # the API key that the call was made with; NULL: none
    sa.Column("key_day", sa.Integer),  # the day, as YYYYMMDD, whose daily cap of that key it counts against
    sa.Index("ix_hold_lease", "state", "lease_until"),
    sa.Index("ix_hold_account", "account_id", "opened_at"),
    **_TABLE_OPTIONS,
)

operator_loss = sa.Table(
    "operator_loss",
    metadata,
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("account_id", sa.BigInteger, nullable=False),
    sa.Column("capability", sa.String(16), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),  # consumed upstream and not charged
    sa.Column("reason", sa.String(32), nullable=False),  # how the call ended, or a `LossReason`
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("unpaid", sa.BigInteger, nullable=False, server_default=sa.text("0")),  # counts in `unpaid_usage`
    sa.Column("unpaid_day", sa.Integer),  # on this day, as YYYYMMDD; NULL: it does not count
    **_TABLE_OPTIONS,
)

unpaid_usage = sa.Table(
    "unpaid_usage",  # what failed calls of an account have consumed in a day without being charged, up to its bound
    metadata,
    sa.Column("account_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),  # YYYYMMDD
    sa.Column("tokens", sa.BigInteger, nullable=False),
    **_TABLE_OPTIONS,
)

voucher = sa.Table(
    "voucher",
    metadata,
    sa.Column("code", binary_text(64), primary_key=True),  # a secret: it is all that is needed to redeem the voucher
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("pic_times", sa.BigInteger, nullable=False),
    sa.Column("audience", binary_text(100)),  # the academy whose accounts may redeem it; NULL: all accounts
    sa.Column("is_available", sa.Boolean, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("max_uses", sa.BigInteger),  # NULL: one for each account, without a total limit
    sa.Column("uses", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("created_at", UtcDateTime, nullable=False),
    # Not secret: shown in lists, the ledger and the audit log. NULL: created by a release before 0005 that runs at the
    # same time as this one.
    sa.Column("voucher_id", sa.BigInteger),
    sa.Column("name", binary_text(NAME_LENGTH)),
    sa.Column("name_key", binary_text(NAME_KEY_LENGTH)),
    sa.Index("uq_voucher_id", "voucher_id", unique=True),
    sa.Index("uq_voucher_name", "name_key", unique=True),
    **_TABLE_OPTIONS,
)

voucher_redemption = sa.Table(
    "voucher_redemption",
    metadata,
    sa.Column("code", binary_text(64), primary_key=True),
    sa.Column("account_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("redeemed_at", UtcDateTime, nullable=False),
    # The ledger entries have the reference ``voucher:<voucher_id>``; NULL: ``voucher:<code>``, as before 0005.
    sa.Column("voucher_id", sa.BigInteger),
    sa.Column(
        "is_adopted", sa.Boolean
    ),  # true: redeemed in the legacy application's database, so there is no entry; else NULL
    **_TABLE_OPTIONS,
)

stored_answer = sa.Table(
    "stored_answer",
    metadata,
    sa.Column("scope", sa.String(80), primary_key=True),  # whose key it is: an account's number, or an address
    sa.Column("key_hash", sa.String(64), primary_key=True),  # SHA-256 of the Idempotency-Key
    sa.Column("body_hash", sa.String(64), nullable=False),  # SHA-256 of the request, endpoint included
    sa.Column("request_id", sa.String(64), nullable=False),  # the call that runs or ran
    sa.Column("state", sa.String(10), nullable=False),  # running, done
    sa.Column("lease_until", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("answer", sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")),
    sa.Index("ix_stored_answer_expiry", "expires_at"),
    **_TABLE_OPTIONS,
)

api_key = sa.Table(
    "api_key",
    metadata,
    sa.Column("key_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("account_id", sa.BigInteger, nullable=False),
    sa.Column("prefix", sa.String(16), nullable=False),  # public: identifies the key in lists and logs
    sa.Column("secret_hash", sa.String(64), nullable=False),  # SHA-256 of the whole key; it has 160 random bits
    sa.Column("name", binary_text(100), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("last_used_address", sa.String(64)),
    sa.Column("requests_per_minute", sa.Integer),  # NULL here and below: the key adds no limit
    sa.Column("concurrent_calls", sa.Integer),
    sa.Column("tokens_per_minute", sa.BigInteger),
    sa.Column("capabilities", sa.String(100)),  # separated by blanks
    sa.Column("models", sa.String(1000)),
    sa.Column("addresses", sa.String(1000)),  # networks, separated by blanks
    sa.Index("uq_api_key_prefix", "prefix", unique=True),
    sa.Index("ix_api_key_account", "account_id"),
    **_TABLE_OPTIONS,
)

spend_limit = sa.Table(
    "spend_limit",  # what one API key may spend of its account's quota; changed with the ledger, in its transaction
    metadata,
    sa.Column("key_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("capability", sa.String(16), primary_key=True),
    sa.Column("total", sa.BigInteger),  # NULL: no limit; voice in milliseconds
    sa.Column("spent", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("held", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("daily", sa.BigInteger),  # NULL: no cap
    sa.Column("day", sa.Integer, nullable=False, server_default=sa.text("0")),  # YYYYMMDD that the next two count
    sa.Column("day_spent", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("day_held", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    **_TABLE_OPTIONS,
)

login_guard = sa.Table(
    "login_guard",  # consecutive failures, of names (known or not) and of addresses
    metadata,
    sa.Column("realm", sa.String(16), primary_key=True),  # the kind of secret, and whether subject is a name or address
    sa.Column("subject", sa.String(64), primary_key=True),  # SHA-256, so that mistyped input is not stored
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("blocked_until", sa.BigInteger, nullable=False),  # milliseconds since 1970
    sa.Column("last_failure_at", sa.BigInteger, nullable=False),
    sa.Index("ix_login_guard_age", "last_failure_at"),
    **_TABLE_OPTIONS,
)

signup_count = sa.Table(
    "signup_count",  # accounts created from an address in a day
    metadata,
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),  # YYYYMMDD
    sa.Column("subject", sa.String(64), primary_key=True),  # SHA-256 of the address or its network
    sa.Column("accounts", sa.Integer, nullable=False),
    **_TABLE_OPTIONS,
)

browser_session = sa.Table(
    "browser_session",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True),  # SHA-256 of the cookie's value
    sa.Column("session_id", sa.String(32), nullable=False),  # public: identifies the session in the owner's list
    sa.Column("account_id", sa.BigInteger, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),  # the absolute end
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("user_agent", binary_text(200), nullable=False),
    sa.Index("uq_browser_session_id", "session_id", unique=True),
    sa.Index("ix_browser_session_account", "account_id"),
    sa.Index("ix_browser_session_end", "expires_at"),
    **_TABLE_OPTIONS,
)

mail_token = sa.Table(
    "mail_token",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True),
    sa.Column("account_id", sa.BigInteger, nullable=False),
    sa.Column("purpose", sa.String(16), nullable=False),  # verify, reset
    sa.Column("email", binary_text(EMAIL_LENGTH), nullable=False),  # the recipient
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Index("ix_mail_token_account", "account_id"),
    sa.Index("ix_mail_token_end", "expires_at"),
    **_TABLE_OPTIONS,
)

administrator = sa.Table(
    "administrator",
    metadata,
    sa.Column("admin_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name_key", binary_text(NAME_KEY_LENGTH), nullable=False),
    sa.Column("name", binary_text(NAME_LENGTH), nullable=False),
    sa.Column("password", binary_text(PASSWORD_HASH_LENGTH), nullable=False),
    sa.Column("role", sa.String(10), nullable=False),  # owner, admin, auditor
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("password_changed_at", UtcDateTime),
    sa.Index("uq_administrator_name", "name_key", unique=True),
    **_TABLE_OPTIONS,
)

administrator_session = sa.Table(
    "administrator_session",
    metadata,
    sa.Column("session_id", sa.String(32), primary_key=True),  # in both of its JWTs
    sa.Column("admin_id", sa.BigInteger, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Index("ix_administrator_session_admin", "admin_id"),
    sa.Index("ix_administrator_session_end", "expires_at"),
    **_TABLE_OPTIONS,
)

audit_entry = sa.Table(
    "audit_entry",  # append-only; chained by hashes, so that later edits are detected
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 …
    sa.Column("at", sa.BigInteger, nullable=False),  # milliseconds since 1970, UTC
    sa.Column("actor_kind", sa.String(16), nullable=False),  # administrator, command line, server
    sa.Column("actor", binary_text(NAME_LENGTH), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("target", binary_text(200), nullable=False),
    sa.Column("before", sa.Text, nullable=False),  # JSON, without secrets
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Index("ix_audit_entry_at", "at"),
    **_TABLE_OPTIONS,
)


def new_account_id(now: datetime) -> int:
    """Return a number for a new account: positive, below 2^53 (exact in JSON and JavaScript), rising with time.

    The upper bits are the seconds since 2020 (until 2156), the lower 21 bits are random: two accounts of the same
    second collide once in two million cases. The unique index detects that; then draw another number.

    Args:
        now: aware.

    Raises:
        ValueError: ``now`` is not between 2020 and 2156.
    """
    seconds = int((now - _ACCOUNT_EPOCH).total_seconds())
    if not 0 <= seconds < 1 << 32:
        raise ValueError("the clock is off: not between 2020 and 2156")
    return (seconds << _ACCOUNT_RANDOM_BITS) | secrets.randbits(_ACCOUNT_RANDOM_BITS)
