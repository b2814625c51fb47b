"""Password hashing with argon2id, and verification of the formats of an imported legacy database.

The legacy application stored ``MD5(password + "#_#")`` in hex or, in earlier versions, the password itself. Both are
still verified; `Verdict.needs_rehash` then requests an argon2id hash to be stored.

`PasswordHasher` is synchronous and slow by design. `PasswordService` runs it in a few threads of its own, so that many
simultaneous logins neither block the event loop nor exhaust the machine's memory.
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

# A stored value that no password matches, for accounts without a password.
UNUSABLE_PASSWORD = "$none$"  # noqa: S105

# Bytes. Far longer than any password in use; it prevents a request from making the server normalise megabytes.
MAX_PASSWORD = 4096

# Gives the threads a tenth of the event loop's CPU share when they compete (a weight of 110 against 1024; source:
# Linux, sched/core.c).
NICENESS = 10

# Turns in addition to those whose password is being hashed, for the database work before and after it.
AT_THE_DATABASE = 2

COME_BACK_SECONDS = 5

_LEGACY_SUFFIX = "#_#"  # source: behaviour of the legacy application, Core/Tools/md5_password.py
_MD5_HEX = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
# The "$identifier$…" form of crypt(3) is always treated as a hash, known or unknown, and never as a plain password.
# Otherwise a stolen hash of an unknown kind could be used as the password.
_CRYPT_FORM = re.compile(r"\$[A-Za-z0-9_-]*\$")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Verdict:
    """The result of a verification.

    Attributes:
        ok: the password is correct.
        needs_rehash: the password is correct and must be stored again, since the stored form is weaker than today's.
    """

    ok: bool
    needs_rehash: bool = False


_WRONG = Verdict(ok=False)


def argon2id(memory: int, passes: int, lanes: int) -> Parameters:
    """Return argon2id parameters; the lengths of salt and hash are those of `DEFAULT_PROFILE`.

    Args:
        memory: KiB.
        passes: iterations over the memory.
        lanes: degree of parallelism.
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
    """Hashes and verifies passwords in the caller's thread; each takes 64 MiB, and 0.25 s on two busy cores of 2024.

    Args:
        profile: argon2 parameters; `DEFAULT_PROFILE` except in tests.
    """

    def __init__(self, profile: Parameters = DEFAULT_PROFILE) -> None:
        self._argon2 = argon2.PasswordHasher.from_parameters(profile)

    def hash(self, password: str) -> str:
        """Return the form to store: argon2id in PHC format, under 100 characters.

        Raises:
            InvalidInput: the password is empty, cannot be encoded as UTF-8, or is longer than `MAX_PASSWORD`.
        """
        encoded = _encode(password)
        if encoded is None:
            raise InvalidInput(Detail.PASSWORD_UNUSABLE)
        return self._argon2.hash(encoded)

    def verify(self, stored: str, password: str) -> Verdict:
        """Compare a password with the stored form. The time depends neither on that form nor on the result.

        Args:
            stored: an argon2 hash, or one of the legacy forms.
            password: the password as it was typed.
        """
        encoded = _encode(password)
        if encoded is None:
            self.dummy_verify()
            return _WRONG
        if stored.startswith("$argon2"):
            return self._verify_argon2(stored, encoded)
        is_right = _verify_legacy(stored, password)
        # An additional argon2 hash: otherwise the time would reveal that the account exists and has long been unused.
        self.dummy_verify()
        return Verdict(ok=True, needs_rehash=True) if is_right else _WRONG

    def dummy_verify(self) -> None:
        """Do the work of `verify` for a user that does not exist, so that the time does not reveal this."""
        self._argon2.hash(b"a password that nobody has")  # verifying is hashing and comparing

    def _verify_argon2(self, stored: str, encoded: bytes) -> Verdict:
        try:
            self._argon2.verify(stored, encoded)
        except VerifyMismatchError:
            return _WRONG
        except (ValueError, VerificationError):  # InvalidHashError is a ValueError, and so are encoding errors
            # A truncated or damaged hash: no password matches it, and the time must not reveal it either.
            self.dummy_verify()
            return _WRONG
        return Verdict(ok=True, needs_rehash=self._argon2.check_needs_rehash(stored))


def _encode(password: str) -> bytes | None:
    """Return the password in UTF-8, or ``None`` if it is unusable.

    It is normalised to NFKC, so that the same characters typed with another keyboard or input method match.
    """
    if len(password) > MAX_PASSWORD:
        return None
    try:
        encoded = unicodedata.normalize("NFKC", password).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return None
    return encoded if 0 < len(encoded) <= MAX_PASSWORD else None


def _verify_legacy(stored: str, password: str) -> bool:
    """Verify the two legacy forms. They were made from the text as it was typed, so it is not normalised here."""
    if _MD5_HEX.fullmatch(stored):
        # The value is not compared as plain text as well: a stolen MD5 must not work as the password.
        digest = hashlib.md5((password + _LEGACY_SUFFIX).encode(), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(digest, stored.lower())
    if not stored or _CRYPT_FORM.match(stored):
        return False
    try:
        return hmac.compare_digest(stored.encode(), password.encode())
    except UnicodeEncodeError:
        return False


def _step_back() -> None:
    """Lower the priority of this thread and of those that argon2 starts from it, so that streams are not delayed.

    Linux has a niceness for each thread (sched(7)). Elsewhere it applies to the whole process, so it is left unchanged.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class PasswordService:
    """An asynchronous `PasswordHasher` with few threads and a bounded queue.

    Args:
        hasher: does the work.
        threads: hashes in progress at once; each takes 64 MiB and, in the default profile, up to four cores briefly.
        queue: calls that may wait in addition; at 0.25 s each, the last of 32 waits four seconds.
        tells_addresses_apart: whether addresses take turns and none may hold more than half of the slots. Otherwise a
            burst of logins from one address keeps all others out until it has been processed. ``False`` is for
            deployments in which all callers share an address.
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
        """See `PasswordHasher.hash`. Also raises TooManyRequests if the queue is full."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, stored: str, password: str) -> Verdict:
        """See `PasswordHasher.verify`. Raises TooManyRequests if the queue is full."""
        return await self._run(lambda: self._hasher.verify(stored, password))

    async def dummy_verify(self) -> None:
        """See `PasswordHasher.dummy_verify`. Raises TooManyRequests if the queue is full."""
        await self._run(self._hasher.dummy_verify)

    @contextmanager
    def place(self, address: str | None = None) -> Iterator[None]:
        """Hold a slot in the queue while a password is checked. Enter it before the first database query.

        Args:
            address: the caller's; ``None``: the command line of this machine, or an unknown address.

        Raises:
            TooManyRequests: the queue is full, or calls of this address fill half of it; nothing was done.
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
        """Wait for a turn to process a password, including the database work around it, and hold it.

        The number of turns is so small that a thousand logins do not queue up for the database either, where running
        calls would wait behind them. Of one address, no more callers than there are turns compete for them at once.

        Args:
            address: as in `place`.
        """
        group = self._group(address)
        of_address = self._turns_of.setdefault(group, asyncio.Semaphore(self._most_turns)) if group else nullcontext()
        async with of_address, self._turns:
            yield

    def _group(self, address: str | None) -> str:
        """Return the group whose share is counted (of IPv6 the site, as for other shares); empty: none."""
        if address is None or not self._tells_addresses_apart:
            return ""
        group = address_group(address)
        return address_site(group) or group

    async def close(self) -> None:
        """End the threads: waiting calls are cancelled, running ones are awaited."""
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
        # Counted until the work has ended, even if the caller has stopped waiting: a disconnect does not free a thread.
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _future: Future[_T] | None = None) -> None:
        with self._lock:
            self._under_way -= 1
