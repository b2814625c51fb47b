"""Checking a password that somebody typed, for accounts and administrators alike.

Everything around the hash is here, once: the bounds of what is looked at, the place in the queue of `PasswordService`,
the delays and locks of `LoginThrottle`, the work for a name that does not exist, and the hash in today's form where the
stored one is weaker. Where the passwords are stored is the part of a `PasswordDirectory`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from aiproject.accounts.core.model import is_askable
from aiproject.accounts.login.throttle import LoginThrottle, ThrottleScope
from aiproject.adapters.db.schema import NAME_LENGTH
from aiproject.adapters.passwords import MAX_PASSWORD, PasswordService
from aiproject.errors import LoginFailed
from aiproject.protocols.names import lookup_keys

__all__ = ["PasswordDirectory", "PasswordVerifier", "StoredPassword", "Verified"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, repr=False)
class StoredPassword(Generic[_T]):
    """A password as it is stored, and whose it is.

    Attributes:
        stored: a hash, or a form of the legacy application, see `aiproject.adapters.passwords`.
        is_disabled: the owner may not sign in, whatever the password.
    """

    owner: _T
    stored: str
    is_disabled: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Verified(Generic[_T]):
    """A password that was right.

    Attributes:
        stored: what it was compared with. Whoever acts on the result later looks whether that is still stored.
        rehashed: what to store instead, in today's form; ``None``: the stored form is today's.
    """

    owner: _T
    stored: str
    rehashed: str | None = None


class PasswordDirectory(Protocol[_T]):
    """Where one kind of user keeps its passwords."""

    @property
    def scope(self) -> ThrottleScope:
        """In which failures are counted."""

    async def stored_key(self, name: str) -> str | None:
        """Return the name key under which the user with this name is stored; ``None``: there is no such user.

        Only called where the name may be stored under several keys; see `LoginThrottle.attempt`.
        """

    async def find(self, name: str) -> StoredPassword[_T] | None:
        """Return the password of the user with this name; ``None``: there is no such user.

        Called once the attempt is counted, so that a thousand guesses at once do not reach the database.
        """


class PasswordVerifier:
    """Verifies passwords.

    Args:
        passwords: hashes them.
        throttle: counts the attempts.
    """

    def __init__(self, passwords: PasswordService, throttle: LoginThrottle) -> None:
        self._passwords = passwords
        self._throttle = throttle

    async def verify(
        self, directory: PasswordDirectory[_T], name: str, password: str, *, address: str | None
    ) -> Verified[_T]:
        """Return whose password it is. Arguments and errors are those of `verified`."""
        async with self.verified(directory, name, password, address=address) as found:
            return found

    @asynccontextmanager
    async def verified(
        self,
        directory: PasswordDirectory[_T],
        name: str,
        password: str,
        *,
        address: str | None,
        rehashes: bool = True,
    ) -> AsyncIterator[Verified[_T]]:
        """Verify a password, and keep the attempt open for what is done with it.

        A `LoginFailed` that the block raises counts as a wrong password; any other error gives the attempt back, since
        nothing was decided.

        Args:
            name: in any spelling; surrounding blanks do not count, here and in ``password``.
            address: of the caller; ``None``: from this machine's command line, or not known.
            rehashes: whether a weaker stored form is to be replaced; it costs a second hash.

        Raises:
            LoginFailed: unknown name, wrong password or disabled user; never says which, and takes the same time.
            TooManyRequests: failures before it, of the name or the address, or too many logins at this moment; the
                password was not looked at.
        """
        name, password = name.strip(), password.strip()
        if not name or not password or len(name) > NAME_LENGTH or len(password) > MAX_PASSWORD:
            raise LoginFailed
        # A name with a single key needs no query: its failures are counted under that key in any case.
        key = await directory.stored_key(name) if is_askable(name) and len(lookup_keys(name)) > 1 else None
        turn = self._passwords.turn(address)
        with self._passwords.place(address):
            async with self._throttle.attempt(directory.scope, name=name, stored_key=key, address=address, turn=turn):
                found = await directory.find(name) if is_askable(name) else None
                yield await self._check(found, password, rehashes=rehashes)

    async def _check(self, found: StoredPassword[_T] | None, password: str, *, rehashes: bool) -> Verified[_T]:
        if found is None:
            await self._passwords.dummy_verify()
            raise LoginFailed
        verdict = await self._passwords.verify(found.stored, password)
        if not verdict.ok or found.is_disabled:
            raise LoginFailed
        rehashed = await self._passwords.hash(password) if verdict.needs_rehash and rehashes else None
        return Verified(found.owner, found.stored, rehashed)
