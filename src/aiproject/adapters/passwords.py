"""Passwords: argon2id, and the formats of an adopted database.

The original stored ``MD5(password + "#_#")`` in hex, or, earlier still, the password itself. Both are verified once
more, and `Verdict.needs_rehash` says to store an argon2id hash then.

`PasswordHasher` is the plain, slow thing; `PasswordService` runs it on a few threads of its own, so that many logins
at once neither stop the event loop nor take the machine's memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import sys
import threading
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

import argon2
import argon2.profiles
from argon2 import Parameters
from argon2.exceptions import VerificationError, VerifyMismatchError

from aiproject.codes import Detail
from aiproject.errors import InvalidInput, TooManyRequests, Unavailable
from aiproject.protocols.addresses import address_group, address_site

__all__ = ["MAX_PASSWORD", "UNUSABLE_PASSWORD", "PasswordHasher", "PasswordService", "Verdict", "argon2id"]

# RFC 9106, section 4, second recommended option: t=3, p=4, m=64 MiB.
DEFAULT_PROFILE: Parameters = argon2.profiles.RFC_9106_LOW_MEMORY

# A stored value that no password matches, for accounts that have none.
UNUSABLE_PASSWORD = "$none$"  # noqa: S105

# Bytes. Far above any password that people type; keeps a request from making us normalise megabytes.
MAX_PASSWORD = 4096

# A tenth of what the event loop gets where they compete (a weight of 110 beside 1024; source: Linux, sched/core.c).
NICENESS = 10

# Turns beside those whose password is being hashed: they read before it or write after it.
AT_THE_DATABASE = 2

COME_BACK_SECONDS = 5

_LEGACY_SUFFIX = "#_#"  # source: behaviour of the original, Core/Tools/md5_password.py
_MD5_HEX = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
# The "$identifier$…" form of crypt(3): some hash, whether we know it or not, and never a plain password. Else whoever
# stole a hash that we do not know could log in by typing it.
_CRYPT_FORM = re.compile(r"\$[A-Za-z0-9_-]*\$")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        ok: the password is right.
        needs_rehash: it is right, and should be stored anew: the old form is weaker than today's.
    """

    ok: bool
    needs_rehash: bool = False


_WRONG = Verdict(ok=False)


def argon2id(memory: int, passes: int, lanes: int) -> Parameters:
    """Return a profile; salt and hash are as long as in `DEFAULT_PROFILE`.

    Args:
        memory: KiB.
    """
    return Parameters(
        type=DEFAULT_PROFILE.type,
        version=DEFAULT_PROFILE.version,
        salt_len=DEFAULT_PROFILE.salt_len,
        hash_len=DEFAULT_PROFILE.hash_len,
        time_cost=passes,
        memory_cost=memory,
        parallelism=lanes,
    )


class PasswordHasher:
    """Hashes and verifies, on the caller's thread; each takes 64 MiB, and 0.25 s on two busy cores of 2024.

    Args:
        profile: argon2 parameters; `DEFAULT_PROFILE` except in tests.
    """

    def __init__(self, profile: Parameters = DEFAULT_PROFILE) -> None:
        self._argon2 = argon2.PasswordHasher.from_parameters(profile)

    def hash(self, password: str) -> str:
        """The form to store: argon2id in PHC format, under 100 characters.

        Raises:
            InvalidInput: the password is not text that can be encoded, or absurdly long.
        """
        encoded = _encode(password)
        if encoded is None:
            raise InvalidInput(Detail.PASSWORD_UNUSABLE)
        return self._argon2.hash(encoded)

    def verify(self, stored: str, password: str) -> Verdict:
        """Compare a password with what is stored; takes the same time whatever is stored, and whatever comes out.

        Args:
            stored: argon2, or one of the original's forms.
        """
        encoded = _encode(password)
        if encoded is None:
            self.dummy_verify()
            return _WRONG
        if stored.startswith("$argon2"):
            return self._verify_argon2(stored, encoded)
        is_right = _verify_legacy(stored, password)
        # One argon2 more, or the time would tell that this account exists and has not been here for long.
        self.dummy_verify()
        return Verdict(ok=True, needs_rehash=True) if is_right else _WRONG

    def dummy_verify(self) -> None:
        """Do the work of `verify` for a user who does not exist, so that the time does not tell."""
        self._argon2.hash(b"a password that nobody has")  # verifying is hashing and comparing

    def _verify_argon2(self, stored: str, encoded: bytes) -> Verdict:
        try:
            self._argon2.verify(stored, encoded)
        except VerifyMismatchError:
            return _WRONG
        except (ValueError, VerificationError):  # InvalidHashError is a ValueError, and so are encoding errors
            # A hash that was cut or mangled; nobody can log in by it, and the time should not tell either.
            self.dummy_verify()
            return _WRONG
        return Verdict(ok=True, needs_rehash=self._argon2.check_needs_rehash(stored))


def _encode(password: str) -> bytes | None:
    """NFKC, so that the same characters typed on another keyboard match; in UTF-8. ``None``: not usable."""
    if len(password) > MAX_PASSWORD:
        return None
    try:
        encoded = unicodedata.normalize("NFKC", password).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return None
    return encoded if 0 < len(encoded) <= MAX_PASSWORD else None


def _verify_legacy(stored: str, password: str) -> bool:
    """The original's two forms. They were made from the text as it was typed, so it is not normalised."""
    if _MD5_HEX.fullmatch(stored):
        # Not also tried as plain text: a stolen MD5 must not work as the password.
        digest = hashlib.md5((password + _LEGACY_SUFFIX).encode(), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(digest, stored.lower())
    if not stored or _CRYPT_FORM.match(stored):
        return False
    try:
        return hmac.compare_digest(stored.encode(), password.encode())
    except UnicodeEncodeError:
        return False


def _step_back() -> None:
    """Let this thread, and those that argon2 starts from it, run after all others: streams go first.

    Linux knows niceness by thread (sched(7)); elsewhere it is the whole process's, which must keep its own.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class PasswordService:
    """A `PasswordHasher` for the event loop: few threads, a bounded queue.

    Args:
        hasher: what does the work.
        threads: at work at once; each takes 64 MiB and, in the default profile, up to four cores for a moment.
        queue: calls that may wait beside those; at 0.25 s each, the last of 32 waits four seconds.
        tells_addresses_apart: whether addresses take turns, and none may have more than half of the places; else one
            burst of logins from one address keeps everybody out until it is worked off. ``False`` for set-ups in which
            all callers share an address.
    """

    def __init__(
        self, hasher: PasswordHasher, *, threads: int = 2, queue: int = 32, tells_addresses_apart: bool = True
    ) -> None:
        self._hasher = hasher
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="passwords", initializer=_step_back)
        self._limit = threads + queue
        self._under_way = 0
        self._places = 0
        self._most_turns = threads + AT_THE_DATABASE
        self._turns = asyncio.Semaphore(self._most_turns)
        self._tells_addresses_apart = tells_addresses_apart
        self._places_of: Counter[str] = Counter()
        self._turns_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._is_closed = False

    async def hash(self, password: str) -> str:
        """See `PasswordHasher.hash`. Raises also TooManyRequests, when the queue is full."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, stored: str, password: str) -> Verdict:
        """See `PasswordHasher.verify`. Raises TooManyRequests, when the queue is full."""
        return await self._run(lambda: self._hasher.verify(stored, password))

    async def dummy_verify(self) -> None:
        """See `PasswordHasher.dummy_verify`. Raises TooManyRequests, when the queue is full."""
        await self._run(self._hasher.dummy_verify)

    @contextmanager
    def place(self, address: str | None = None) -> Iterator[None]:
        """Hold a place in the queue while a password is checked, from before the database is asked for anything.

        Args:
            address: of the caller; ``None``: from this machine's command line, or not known.

        Raises:
            TooManyRequests: the queue is full, or half full of this address' calls; nothing was done.
        """
        group = self._group(address)
        if self._places >= self._limit or (group and self._places_of[group] >= max(1, self._limit // 2)):
            raise TooManyRequests(COME_BACK_SECONDS, Detail.TOO_MANY_LOGINS)
        self._places += 1
        self._places_of[group] += 1
        try:
            yield
        finally:
            self._places -= 1
            self._places_of[group] -= 1
            if not self._places_of[group]:
                del self._places_of[group]

    @asynccontextmanager
    async def turn(self, address: str | None = None) -> AsyncIterator[None]:
        """Have a turn at working on a password, database work around it included; entering it waits for one.

        So few have theirs at once that a thousand logins do not queue up before the database either, where running
        calls would have to wait behind them. Only as many of one address wait for the turns of all.

        Args:
            address: as in `place`.
        """
        group = self._group(address)
        of_address = self._turns_of.setdefault(group, asyncio.Semaphore(self._most_turns)) if group else nullcontext()
        async with of_address, self._turns:
            yield

    def _group(self, address: str | None) -> str:
        """Return what is told apart, of IPv6 the site, as for other shares; empty: nothing."""
        if address is None or not self._tells_addresses_apart:
            return ""
        group = address_group(address)
        return address_site(group) or group

    async def close(self) -> None:
        """End the threads; calls that wait are cancelled, those at work are waited for."""
        self._is_closed = True
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._is_closed:
            raise Unavailable("shutting down")
        with self._lock:
            if self._under_way >= self._limit:
                raise TooManyRequests(COME_BACK_SECONDS, Detail.TOO_MANY_LOGINS)
            self._under_way += 1
        try:
            future = self._executor.submit(work)
        except BaseException:
            self._leave()
            raise
        # Counted until the work has ended, not until the caller stopped waiting: who hangs up frees no thread.
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _future: Future[_T] | None = None) -> None:
        with self._lock:
            self._under_way -= 1
