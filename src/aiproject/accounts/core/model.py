"""Accounts and their rules; no I/O."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime

from aiproject.accounts.login.password_policy import MIN_PASSWORD_LENGTH, check_new_password
from aiproject.adapters.db.schema import NAME_KEY_LENGTH
from aiproject.codes import Detail, Term
from aiproject.errors import InvalidInput
from aiproject.protocols.names import hides_characters, is_reordering, mixes_digits, mixes_scripts, name_key

__all__ = [
    "MAX_ACADEMY_LENGTH",
    "MAX_EMAIL_LENGTH",
    "MAX_NAME_LENGTH",
    "Account",
    "NewAccount",
    "check_name",
    "check_new_account",
    "is_askable",
    "refuse_misleading_name",
]

MAX_NAME_LENGTH = 50
"""Characters of a user name: the width of the seed's column, so that an adopted table and a new one agree."""

MAX_EMAIL_LENGTH = 254
"""Characters of an address: the longest that mail can carry (RFC 5321, section 4.5.3.1.3)."""

MAX_ACADEMY_LENGTH = 100
"""Characters of the academy, a free text of the existing apps."""


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """An account as the database holds it.

    Attributes:
        account_id: our own number for it; stable, no secret, what logs and the ledger name.
        uuid: the credential that apps keep on disk; a secret, hence not in the ``repr``.
        username: as its owner wrote it.
        email: may be empty.
        academy: ``None`` where never given.
        tokens: balance for chats.
        pic_times: balance for pictures.
        voice_ms: balance for dictation in milliseconds; ``None``: unmetered.
        disabled_at: set while the account may not be used.
        email_verified_at: when its owner showed that mail to ``email`` arrives; ``None``: not yet.
        name_key: under which ``username`` is stored: its `aiproject.protocols.names.name_key` or, where another account
            has that, its `exact_name_key`.
    """

    account_id: int
    uuid: str
    username: str
    email: str
    academy: str | None
    tokens: int
    pic_times: int
    voice_ms: int | None
    voice_used_ms: int
    created_at: datetime | None
    disabled_at: datetime | None
    email_verified_at: datetime | None = None
    name_key: str = ""

    def __repr__(self) -> str:
        return f"Account({self.account_id})"

    @property
    def is_disabled(self) -> bool:
        return self.disabled_at is not None


@dataclass(frozen=True, slots=True, repr=False)
class NewAccount:
    """What somebody registers with, checked and trimmed by `check_new_account`."""

    username: str
    password: str
    email: str
    academy: str | None

    def __repr__(self) -> str:
        return f"NewAccount({self.username!r})"


MAX_ASKED_LENGTH = 1000
"""Characters of a name that is looked for; no stored one is nearly as long. Without a bound, normalising 64 KB of
combining marks keeps the event loop busy for seconds, since sorting them takes quadratic time."""


def is_askable(name: str) -> bool:
    """Whether a database can be asked for a name at all: PostgreSQL takes no NUL, nothing takes half a surrogate pair.

    No account has such a name, nor one of more than `MAX_ASKED_LENGTH` characters, so the caller answers as for any
    other that is unknown.
    """
    return len(name) <= MAX_ASKED_LENGTH and not any(
        character == "\0" or "\ud800" <= character <= "\udfff" for character in name
    )


def check_name(name: str) -> str:
    """Trim and check the name of an account or an administrator.

    Raises:
        InvalidInput: it is empty, too long, has control characters, or nothing that anybody could see.
    """
    name = name.strip()
    if len(name) > MAX_NAME_LENGTH:  # first, see `MAX_ASKED_LENGTH`
        raise InvalidInput(Detail.FIELD_TOO_LONG, field=Term.USERNAME, limit=MAX_NAME_LENGTH)
    if not name_key(name) or all(unicodedata.category(character) == "Cf" for character in name):
        raise InvalidInput(Detail.TERM_EMPTY, field=Term.USERNAME)
    _refuse_controls(Term.USERNAME, name)
    if len(name_key(name)) > NAME_KEY_LENGTH:
        raise InvalidInput(Detail.NAME_EXPANDS_TOO_LONG)  # one character can stand for eighteen: U+FDFA
    return name


def refuse_misleading_name(name: str) -> None:
    """Refuse a new name that can be made to look like somebody else's; existing names are never asked.

    Raises:
        InvalidInput: it mixes scripts or digits that have look-alikes, turns the direction of writing, or has what
            nobody sees.
    """
    if is_reordering(name):
        raise InvalidInput(Detail.NAME_REORDERS_TEXT)
    if hides_characters(name):
        raise InvalidInput(Detail.NAME_HIDES_CHARACTERS)
    if mixes_scripts(name) or mixes_digits(name):
        raise InvalidInput(Detail.NAME_MIXES_SCRIPTS)


def _refuse_controls(field: Term, text: str) -> None:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InvalidInput(Detail.FIELD_HAS_CONTROLS, field=field)


def check_new_account(
    username: str,
    password: str,
    email: str,
    academy: str | None,
    *,
    password_min_length: int = MIN_PASSWORD_LENGTH,
) -> NewAccount:
    """Trim and check what somebody registers with.

    The existing apps trim nothing and may send any single field empty; the original trims all four. An e-mail address
    is therefore taken as it is (the seed's own example is ``"xxx"``) and may be empty.

    Raises:
        InvalidInput: a name that is empty, too long or with invisible control characters; or a password that
            `check_new_password` refuses.
    """
    username, email = check_name(username), email.strip()
    academy = academy.strip() or None if academy is not None else None
    if len(email) > MAX_EMAIL_LENGTH:
        raise InvalidInput(Detail.FIELD_TOO_LONG, field=Term.EMAIL, limit=MAX_EMAIL_LENGTH)
    if academy is not None and len(academy) > MAX_ACADEMY_LENGTH:
        raise InvalidInput(Detail.FIELD_TOO_LONG, field=Term.ACADEMY, limit=MAX_ACADEMY_LENGTH)
    _refuse_controls(Term.EMAIL, email)
    _refuse_controls(Term.ACADEMY, academy or "")
    return NewAccount(username, check_new_password(password, username, password_min_length), email, academy)
