"""Throttling of guesses: growing delays and locks by name and by address, in the database, so that all nodes agree.

There are two ways to use it. For passwords, which users choose themselves, an attempt is counted before the hash is
computed::

    async with throttle.attempt(ThrottleScope.LOGIN, name=username, address=address):
        ...  # raise LoginFailed if it is wrong

So a thousand guesses at the same time see each other's counts. Leaving the block normally is a success: the name's
failures are deleted. `LoginFailed`, `NotSignedIn` and `AccountUnknown` are failures and stay counted. Any other error
means that nothing was decided (the database is away, no thread is free), and the attempt is subtracted again.

For long random secrets, uuids and keys, nothing is read or written as long as they are right::

    if account is None:
        await throttle.wrong_guess(ThrottleScope.UUID, name=username, address=address)
        raise AccountUnknown

Existing and unknown names are treated alike, so that the answers do not reveal which names exist.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from enum import StrEnum

from aiproject.accounts.login import throttle_store as store
from aiproject.accounts.login.throttle_rules import (
    ADDRESS_RULE,
    GUESS_RULE,
    LOCKED_MS,
    NAME_RULE,
    NO_FAILURES,
    FailureCount,
    Rule,
)
from aiproject.accounts.login.throttle_store import Key
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.db.schema import name_key
from aiproject.adapters.log import get_logger
from aiproject.codes import Detail
from aiproject.errors import AccountUnknown, AiProjectError, LoginFailed, NotSignedIn, TooManyRequests

__all__ = ["LoginThrottle", "ThrottleScope"]

log = get_logger("login_throttle")

FAILURES = (LoginFailed, NotSignedIn, AccountUnknown)

IPV6_SITE_BITS = 64
"""Bits of an IPv6 address that count: a customer has at least one network of this size."""

MAX_NAME = 1000
"""Characters of a name that are hashed at most; names of accounts are far shorter."""

NAMES_KEPT_MS = 365 * 24 * 60 * 60 * 1000
FORGIVEN_KEPT_MS = 24 * 60 * 60 * 1000
"""Of scopes whose failures expire: after a day none of them counts."""

MAX_ROWS = 1_000_000
"""Rows of the table. Beyond that, those with the fewest failures are deleted first, so that a flood of new names does
not evict a name that is being attacked."""

SWEEP_EVERY_MS = 10 * 60 * 1000
SWEEP_ROWS = 1000


class ThrottleScope(StrEnum):
    """What is guessed. Failures of one scope do not count in another."""

    LOGIN = "login"  # a user's password, wherever it is typed
    ADMIN = "admin"  # an administrator's password
    UUID = "uuid"
    KEY = "key"
    SESSION = "session"
    TOKEN = "token"  # noqa: S105 # of a mail, or the first administrator's code


PASSWORD_SCOPES = (ThrottleScope.LOGIN, ThrottleScope.ADMIN)


class LoginThrottle:
    """Counts failures, in the table ``login_guard``.

    Args:
        guards_addresses: ``False`` (``AIPROJECT_LIMITS=off``, for installations in which all callers share an address)
            counts failed passwords by name only, and wrong guesses of long secrets not at all.
        clock: milliseconds since 1970. Nodes whose clocks differ disagree by as much about when a delay ends.
    """

    def __init__(
        self,
        database: Database,
        *,
        guards_addresses: bool = True,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._database = database
        self._guards_addresses = guards_addresses
        self._clock = clock
        self._swept_at = clock()

    @asynccontextmanager
    async def attempt(
        self,
        scope: ThrottleScope,
        *,
        name: str,
        stored_key: str | None = None,
        address: str | None = None,
        turn: AbstractAsyncContextManager[None] | None = None,
    ) -> AsyncIterator[None]:
        """Count an attempt at a password around the block that checks it; see the module.

        Args:
            name: in any spelling, of an account or of none.
            stored_key: under which the account is stored that the name means, where the name has several keys
                (`aiproject.protocols.names.lookup_keys`). Accounts whose names differ only by what is not displayed
                are counted apart by it; else the owner of one could forget the failures at the other's by a login.
            address: of the caller; ``None``: from this machine's command line, or not known.
            turn: entered before the attempt is counted and left at the end, see `PasswordService.turn`: a blocked
                caller does not queue, and a caller that queues has written nothing yet.

        Raises:
            TooManyRequests: before the block is entered: the name or the address must wait, or the name is locked.
        """
        rules = self._rules(scope, name, address, stored_key)
        await self._look(rules)
        async with turn or nullcontext(), self._reserved(rules):
            yield

    @asynccontextmanager
    async def _reserved(self, rules: Mapping[Key, Rule]) -> AsyncIterator[None]:
        await self._count(rules)
        try:
            yield
        except FAILURES:
            raise
        except Exception:
            await self._give_back(rules, forgotten=())
            raise
        await self._give_back(rules, forgotten=[key for key, rule in rules.items() if rule.forgiven_every is None])

    async def wrong_guess(self, scope: ThrottleScope, *, name: str | None, address: str | None) -> None:
        """Count a wrong guess of a long random secret, after it was seen to be wrong.

        Args:
            name: of the account that was named, if one was.

        Raises:
            TooManyRequests: too many before it; it is not counted then. The right secret would have passed.
        """
        rules = self._rules(scope, name, address)
        if self._guards_addresses and rules:
            await self._look(rules)  # a blocked caller that goes on writes nothing
            await self._count(rules)

    async def check(self, scope: ThrottleScope, *, name: str | None = None, address: str | None = None) -> None:
        """Check whether an attempt would be allowed, without counting one.

        Raises:
            TooManyRequests: it would not.
        """
        rules = self._rules(scope, name, address)
        if rules:
            await self._look(rules)

    async def unlock(self, scope: ThrottleScope, name: str, *, stored_key: str | None = None) -> bool:
        """Delete the failures of a name: its password was reset, or an administrator unlocks it.

        Args:
            stored_key: as in `attempt`.

        Returns:
            whether there were any.
        """
        key = (f"{scope}:name", _name_subject(name, stored_key))
        return await self._database.transact(store.remove, [key]) > 0

    async def sweep(self) -> int:
        """Delete rows that no longer matter, at most a few thousand at a time; return how many.

        Wrong passwords of a name are kept for a year after the last one, everything else for a day; beyond a million
        rows, those with the fewest failures are deleted.
        """
        now = self._clock()
        async with self._database.connect() as connection:
            keys = await store.oldest(
                connection,
                before=now - FORGIVEN_KEPT_MS,
                limit=SWEEP_ROWS,
                apart_from=[f"{scope}:name" for scope in PASSWORD_SCOPES],
            )
            keys += await store.oldest(connection, before=now - NAMES_KEPT_MS, limit=SWEEP_ROWS)
            too_many = await store.count(connection) - MAX_ROWS
            if too_many > 0:
                keys += await store.weakest(connection, min(too_many, SWEEP_ROWS))
        keys = sorted(set(keys))
        removed = 0
        for start in range(0, len(keys), 100):
            removed += await self._database.transact(store.remove, keys[start : start + 100])
        return removed

    def _rules(
        self, scope: ThrottleScope, name: str | None, address: str | None, stored_key: str | None = None
    ) -> dict[Key, Rule]:  # fmt: skip
        is_password = scope in PASSWORD_SCOPES
        rules = {}
        if name is not None:
            rules[f"{scope}:name", _name_subject(name, stored_key)] = NAME_RULE if is_password else GUESS_RULE
        if address is not None and self._guards_addresses:
            rules[f"{scope}:address", _address_subject(address)] = ADDRESS_RULE if is_password else GUESS_RULE
        return rules

    async def _look(self, rules: Mapping[Key, Rule]) -> None:
        async with self._database.connect() as connection:
            counts = await store.read(connection, rules)
        self._refuse_blocked(rules, {key: counts.get(key, NO_FAILURES) for key in rules}, self._clock())

    async def _count(self, rules: Mapping[Key, Rule]) -> None:
        for key, counted in (await self._database.transact(self._write_failures, rules)).items():
            if counted.failures == rules[key].most:
                log.warning(
                    "the last attempt before a lock", realm=key[0], subject=key[1][:12]
                )  # the beginning of a hash
        await self._sweep_if_due()

    async def _write_failures(self, connection: Connection, rules: Mapping[Key, Rule]) -> dict[Key, FailureCount]:
        now = self._clock()
        counts = await store.locked(connection, rules, now)
        self._refuse_blocked(rules, counts, now)
        counted = {key: counts[key].counted(rule, now) for key, rule in rules.items()}
        await store.write(connection, counted)
        return counted

    async def _give_back(self, rules: Mapping[Key, Rule], *, forgotten: Collection[Key]) -> None:
        await self._database.transact(_subtract, rules, forgotten)

    def _refuse_blocked(self, rules: Mapping[Key, Rule], counts: Mapping[Key, FailureCount], now: int) -> None:
        wait = max(counts[key].wait(rule, now) for key, rule in rules.items())
        if wait >= LOCKED_MS:
            raise TooManyRequests(wait // 1000, Detail.LOGIN_LOCKED)
        if wait > 0:
            raise TooManyRequests(-(-wait // 1000), Detail.TOO_MANY_FAILURES)

    async def _sweep_if_due(self) -> None:
        if self._clock() - self._swept_at < SWEEP_EVERY_MS:
            return
        self._swept_at = self._clock()
        try:
            await self.sweep()
        except AiProjectError as error:
            log.warning("old failures could not be swept away", error=type(error).__name__)  # tried again later


async def _subtract(connection: Connection, rules: Mapping[Key, Rule], forgotten: Collection[Key]) -> None:
    counts = await store.lock_existing(connection, rules)
    rest = {key: counts[key].given_back(rule) for key, rule in rules.items() if key in counts}
    gone = [key for key, count in rest.items() if count.failures == 0 or key in forgotten]
    await store.remove(connection, gone)
    await store.write(connection, {key: count for key, count in rest.items() if key not in gone})


def _name_subject(name: str, stored_key: str | None) -> str:
    key = stored_key or name_key(name[:MAX_NAME])
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _address_subject(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    if isinstance(parsed, ipaddress.IPv6Address):
        site = ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False)
        return hashlib.sha256(str(site).encode()).hexdigest()
    return hashlib.sha256(str(parsed).encode()).hexdigest()
