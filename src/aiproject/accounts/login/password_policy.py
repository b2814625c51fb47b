"""What a new password must be. Old ones are not measured by it: whoever has one logs in.

Source: OWASP ASVS 5.0, section 6.2: length, a list of common ones, every character, and no rules of composition.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path

from aiproject.adapters.db.schema import name_key
from aiproject.codes import Detail, Term
from aiproject.errors import InvalidInput

__all__ = [
    "LEAST_MIN_LENGTH",
    "MAX_PASSWORD_LENGTH",
    "MIN_PASSWORD_LENGTH",
    "check_new_password",
    "common_passwords",
]

MIN_PASSWORD_LENGTH = 8
"""Characters of a new password unless ``AIPROJECT_PASSWORD_MIN_LENGTH`` says otherwise: the least of ASVS 6.2.1."""

LEAST_MIN_LENGTH = 6
"""The lowest value of that setting, for operators whose users come from apps that demand no more."""

MAX_PASSWORD_LENGTH = 128
"""Characters (code points) after NFKC, the form in which a password is hashed; a bound on the work of hashing."""


def check_new_password(password: str, username: str, min_length: int = MIN_PASSWORD_LENGTH) -> str:
    """Return a new password as it is to be hashed: without the blanks around it, which login drops as well.

    Args:
        username: whose it shall be; no password is the name of its account, in any spelling.
        min_length: in characters, counted after NFKC.

    Raises:
        InvalidInput: too short, too long, common, the user name, or with characters that cannot be typed.
    """
    password = password.strip()
    if not password:
        raise InvalidInput(Detail.TERM_EMPTY, field=Term.PASSWORD)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in password):
        raise InvalidInput(Detail.FIELD_HAS_CONTROLS, field=Term.PASSWORD)
    # One character can stand for eighteen, U+FDFA, so a bound before it is expanded keeps the work small.
    length = len(password) if len(password) > 4 * MAX_PASSWORD_LENGTH else len(unicodedata.normalize("NFKC", password))
    if length < min_length:
        raise InvalidInput(Detail.PASSWORD_TOO_SHORT, limit=min_length)
    if length > MAX_PASSWORD_LENGTH:
        raise InvalidInput(Detail.FIELD_TOO_LONG, field=Term.PASSWORD, limit=MAX_PASSWORD_LENGTH)
    key = name_key(password)
    if key == name_key(username):
        raise InvalidInput(Detail.PASSWORD_IS_NAME)
    if key in common_passwords():
        raise InvalidInput(Detail.PASSWORD_COMMON)
    return password


class CommonPasswords:
    """Common passwords, kept as eight bytes of a hash of each: the texts would take some 17 MB of every process.

    That another password has the same eight bytes as one of these is as likely as one in 10^14.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = array("Q", sorted({_short_hash(key) for key in keys}))

    def __contains__(self, key: str) -> bool:
        wanted = _short_hash(key)
        place = bisect_left(self._hashes, wanted)
        return place < len(self._hashes) and self._hashes[place] == wanted

    def __len__(self) -> int:
        return len(self._hashes)


def _short_hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@functools.cache
def common_passwords() -> CommonPasswords:
    """Return the common passwords, without case, that are long enough to be chosen at all.

    They are zxcvbn's: the 30 000 most frequent of large leaks. Reading them takes some 100 ms, so a server calls this
    once before it serves.

    Raises:
        RuntimeError: the installed zxcvbn has no such list.
    """
    return CommonPasswords(name_key(entry) for entry in _zxcvbn_passwords() if len(entry) >= LEAST_MIN_LENGTH)


def _zxcvbn_passwords() -> Sequence[str]:
    """Read zxcvbn's list from its file alone. Importing the package would rank all of its lists and keep them."""
    package = importlib.util.find_spec("zxcvbn")
    folder = Path(package.origin).parent if package is not None and package.origin is not None else Path()
    spec = importlib.util.spec_from_file_location("frequency_lists", folder / "frequency_lists.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("zxcvbn has no frequency_lists")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    passwords: Sequence[str] = module.FREQUENCY_LISTS["passwords"]
    return passwords
