"""The tables, as SQLAlchemy Core sees them; one `MetaData` for the whole house.

A room that owns tables adds them to `metadata` here, and a migration beside them (`aiproject.adapters.migrations`); a
test compares the two on every database.

The table ``user`` keeps the seed's columns in the seed's spelling, since people look at it with their database tools
and other programs read it. ``Id`` is the public uuid: the account's only credential for existing apps, a secret, and
something that its owner may have changed. So nothing refers to it; other tables refer to ``AccountId``.
"""

from __future__ import annotations

import secrets
import unicodedata
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

__all__ = [
    "ACADEMY_LENGTH",
    "EMAIL_LENGTH",
    "NAME_KEY_LENGTH",
    "NAME_LENGTH",
    "PASSWORD_HASH_LENGTH",
    "UtcDateTime",
    "binary_text",
    "metadata",
    "name_key",
    "new_account_id",
    "user",
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
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
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


def _seed_text(length: int) -> TypeEngine[str]:
    """A text column of the seed. Not collated on PostgreSQL, where the seed's columns never were.

    On MySQL the collation is named, because a column that was adopted would otherwise keep a character set in which
    not every name can be written.
    """
    on_mysql = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(on_mysql, "mysql", "mariadb")


metadata = sa.MetaData()

user = sa.Table(
    "user",
    metadata,
    sa.Column("Id", _seed_text(50), primary_key=True),
    sa.Column("UserName", _seed_text(NAME_LENGTH), nullable=False),
    sa.Column("PassWord", _seed_text(PASSWORD_HASH_LENGTH), nullable=False),
    sa.Column("Tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("Email", _seed_text(EMAIL_LENGTH), nullable=False),
    sa.Column("PicTimes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("Academy", _seed_text(ACADEMY_LENGTH)),
    # Ours. `AccountId` is what everything else refers to: it never changes and is no secret.
    sa.Column("AccountId", sa.BigInteger, nullable=False),
    sa.Column("NameKey", binary_text(NAME_KEY_LENGTH), nullable=False),
    sa.Column("VoiceMs", sa.BigInteger),  # dictation left, in milliseconds; NULL: unmetered
    sa.Column("VoiceUsedMs", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("CreatedAt", UtcDateTime),  # NULL: adopted from a database that did not record it
    sa.Column("DisabledAt", UtcDateTime),  # NULL: enabled
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


def name_key(name: str) -> str:
    """The form under which a user name is unique: without case, compatibility forms and blanks around it.

    ``"Ａlice "`` and ``"alice"`` are one name. The result may be longer than the name; over `NAME_KEY_LENGTH`
    characters it cannot be stored. Applying it twice changes nothing.

    Source: The Unicode Standard, section 3.13, D146 (compatibility caseless match), composed at the end.
    """
    key = unicodedata.normalize("NFD", name)
    for _ in range(2):
        # Twice, because folding can bring forth what normalises further, and the other way round.
        key = unicodedata.normalize("NFKC", key.casefold())
    return key.strip()


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
