"""The tables, as SQLAlchemy Core sees them; one `MetaData` for the whole package.

A package that owns tables adds them to `metadata` here, and a migration in `aiproject.adapters.db.migrations`; a test
compares the two on every database.

The table ``user`` keeps the legacy columns in their spelling, since operators look at it with their database tools and
other programs read it. ``Id`` is the public uuid: the account's only credential for existing apps, a secret, and
something that its owner may have changed. So nothing refers to it; other tables refer to ``AccountId``.
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
NAME_KEY_LENGTH = 200  # compatibility forms may expand; a name whose key is longer is refused
PASSWORD_HASH_LENGTH = 255  # an argon2id hash has 97 today; room for longer salts and parameters
EMAIL_LENGTH = 254  # the longest address that SMTP can carry; source: RFC 5321, section 4.5.3.1.3, less the brackets
ACADEMY_LENGTH = 100

_ACCOUNT_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_ACCOUNT_RANDOM_BITS = 21


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A moment: aware and UTC in Python, with microseconds; UTC without a zone where the database knows none."""

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
    """The same, to read what somebody may have edited: SQLite keeps any value in any column.

    What is no moment is returned as text.
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
    """Text that is compared and sorted by code point, on every database.

    MySQL's default collations take ``é`` for ``e`` and differ between servers; PostgreSQL's depend on the locale of
    the cluster; so the collation is always named. SQLite compares bytes by itself.
    """
    on_mysql = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        sa.String(length)
        .with_variant(on_mysql, "mysql", "mariadb")
        .with_variant(sa.String(length, collation="C"), "postgresql")
    )


def _legacy_text(length: int) -> TypeEngine[str]:
    """A text column of the legacy schema. Not collated on PostgreSQL, where these columns never were.

    On MySQL the collation is named, because a column that was adopted would otherwise keep a character set in which
    not every name can be written.
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
    # Ours. `AccountId` is what everything else refers to: it never changes and is no secret.
    sa.Column("AccountId", sa.BigInteger, nullable=False),
    sa.Column("NameKey", binary_text(NAME_KEY_LENGTH), nullable=False),
    sa.Column("VoiceMs", sa.BigInteger),  # dictation left, in milliseconds; NULL: unmetered
    sa.Column("VoiceUsedMs", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("CreatedAt", UtcDateTime),  # NULL: adopted from a database that did not record it
    sa.Column("DisabledAt", UtcDateTime),  # NULL: enabled
    sa.Column("EmailVerifiedAt", UtcDateTime),  # NULL: nobody has shown that mail arrives there
    sa.Column("PasswordChangedAt", UtcDateTime),  # NULL: never since the account was opened
    sa.Column("DeletedAt", UtcDateTime),  # set: the personal data are gone, the row stays for the ledger
    # The ledger (`aiproject.ledger`). A balance is the sum of its ledger entries; what is held by running calls is part
    # of it and may not be spent twice.
    sa.Column("HeldTokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("HeldPicTimes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("HeldVoiceMs", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("LedgerSeq", sa.BigInteger, nullable=False, server_default=sa.text("0")),  # of the newest entry
    sa.Column("LedgerHash", sa.String(64), nullable=False, server_default=sa.text("''")),  # of the newest entry
    sa.CheckConstraint(sa.column("Tokens") >= 0, name="ck_user_tokens"),
    sa.CheckConstraint(sa.column("PicTimes") >= 0, name="ck_user_pic_times"),
    sa.CheckConstraint(sa.column("VoiceMs") >= 0, name="ck_user_voice_ms"),
    # Unique indexes rather than constraints: SQLite can add them to a table that exists. Foreign keys may refer to
    # them on all four.
    sa.Index("uq_user_name_key", "NameKey", unique=True),
    sa.Index("uq_user_account_id", "AccountId", unique=True),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
    mysql_row_format="DYNAMIC",  # its indexes take 3072 bytes a column; older formats stop at 767
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
    sa.Column("stage", sa.String(12), nullable=False),  # how far the call got
    sa.Column("owner", sa.String(64), nullable=False),  # the process that runs the call
    sa.Column("lease_until", sa.BigInteger, nullable=False),  # milliseconds since 1970, by the database's clock
    sa.Column("opened_at", sa.BigInteger, nullable=False),
    sa.Column("closed_at", sa.BigInteger),
    sa.Column("outcome", sa.String(24)),
    sa.Column("reported", sa.BigInteger),  # what upstream said was consumed; NULL: it said nothing
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
    "unpaid_usage",  # what failed calls of an account have used in a day without being charged, up to its bound
    metadata,
    sa.Column("account_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),  # YYYYMMDD
    sa.Column("tokens", sa.BigInteger, nullable=False),
    **_TABLE_OPTIONS,
)

voucher = sa.Table(
    "voucher",
    metadata,
    sa.Column("code", binary_text(64), primary_key=True),  # a secret: whoever knows it may redeem it
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("pic_times", sa.BigInteger, nullable=False),
    sa.Column("audience", binary_text(100)),  # the academy that may redeem it; NULL: everybody
    sa.Column("is_available", sa.Boolean, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("max_uses", sa.BigInteger),  # NULL: one for each account, without end
    sa.Column("uses", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("created_at", UtcDateTime, nullable=False),
    # No secrets: what lists, the ledger and the audit log show. NULL: made by a release before 0005 beside this one.
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
    # Its ledger entries have the reference ``voucher:<voucher_id>``; NULL: ``voucher:<code>``, as before 0005.
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
    sa.Column("body_hash", sa.String(64), nullable=False),  # SHA-256 of what was asked, endpoint included
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
    sa.Column("prefix", sa.String(16), nullable=False),  # public: names the key in lists and logs
    sa.Column("secret_hash", sa.String(64), nullable=False),  # SHA-256 of the whole key, which is random enough
    sa.Column("name", binary_text(100), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("last_used_address", sa.String(64)),
    sa.Column("requests_per_minute", sa.Integer),  # NULL here and below: no limit of its own
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
    "login_guard",  # failures in a row, of names (known or not) and addresses alike
    metadata,
    sa.Column("realm", sa.String(16), primary_key=True),  # what is guessed, and whether the subject is name or address
    sa.Column("subject", sa.String(64), primary_key=True),  # SHA-256, so that what is mistyped is not kept
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("blocked_until", sa.BigInteger, nullable=False),  # milliseconds since 1970
    sa.Column("last_failure_at", sa.BigInteger, nullable=False),
    sa.Index("ix_login_guard_age", "last_failure_at"),
    **_TABLE_OPTIONS,
)

signup_count = sa.Table(
    "signup_count",  # accounts that were opened from an address in a day
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
    sa.Column("session_id", sa.String(32), nullable=False),  # public: names it in the owner's list
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
    sa.Column("email", binary_text(EMAIL_LENGTH), nullable=False),  # where it was sent
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
    "audit_entry",  # append-only; chained by hashes, so that a later edit shows
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
    """A new account's internal number: positive, below 2^53 (exact in JSON and JavaScript), rising with time.

    The upper bits are the seconds since 2020 (until 2156), the lower 21 bits are random: two accounts of one second
    collide once in two million. The unique index decides; draw again when it refuses.

    Args:
        now: aware.
    """
    seconds = int((now - _ACCOUNT_EPOCH).total_seconds())
    if not 0 <= seconds < 1 << 32:
        raise ValueError("the clock is off: not between 2020 and 2156")
    return (seconds << _ACCOUNT_RANDOM_BITS) | secrets.randbits(_ACCOUNT_RANDOM_BITS)
