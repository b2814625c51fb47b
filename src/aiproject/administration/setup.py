"""The one-time code by which the first administrator is made over HTTP.

``aiproject serve`` generates it where there is no administrator and standard output is a terminal, prints it there,
and passes it to its workers. It exists in their memory only, never in a log, a file or a table. It is valid once, for
half an hour, for a few guesses per worker, and only while there is no administrator, which the database decides.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiproject.errors import LoginFailed

__all__ = ["SETUP_SECONDS", "SetupCode", "SetupGuard"]

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUPS, GROUP_LENGTH = 4, 4
"""80 bits in Crockford's base 32, without characters that are easily confused."""

SETUP_SECONDS = 1800
MAX_GUESSES = 10


@dataclass(frozen=True, slots=True, repr=False)
class SetupCode:
    """A code and when it expires.

    Attributes:
        ends_at: seconds since 1970.
    """

    code: str
    ends_at: float

    @classmethod
    def draw(cls) -> SetupCode:
        groups = ("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))
        return cls("-".join(groups), time.time() + SETUP_SECONDS)

    def __repr__(self) -> str:
        return "SetupCode()"


class SetupGuard:
    """Checks guesses of one process.

    Args:
        code: ``None``: there is none, and every guess is wrong.
    """

    def __init__(self, code: SetupCode | None, *, clock: Callable[[], float] = time.time) -> None:
        self._code = code
        self._guesses = 0
        self._clock = clock

    def check(self, guess: str) -> None:
        """Accept the right code.

        Raises:
            LoginFailed: it is wrong, over, used up, or there is none; never says which.
        """
        code = self._code
        if code is None or self._guesses >= MAX_GUESSES or self._clock() >= code.ends_at:
            raise LoginFailed
        self._guesses += 1
        spelled = guess.strip().upper().encode("utf-8", "replace")
        if not hmac.compare_digest(spelled, code.code.encode()):
            raise LoginFailed

    def close(self) -> None:
        """Discard the code once it was used."""
        self._code = None
