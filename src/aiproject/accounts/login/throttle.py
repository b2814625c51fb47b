"""Guessing made slow: growing delays and locks by name and by address, in the database, so that every node agrees.

Two ways to use it. For what people choose themselves, passwords, an attempt is counted before the work is done::

    async with guard.attempt(Realm.LOGIN, name=username, address=address):
        ...  # raise LoginFailed where it was wrong

A thousand guesses at the same moment then find the count of each other. Leaving the block normally is a success: the
name's failures are forgotten. `LoginFailed`, `NotSignedIn` and `AccountUnknown` are failures, and stay counted. Any
other error says that nothing was decided (the database away, no free thread), and the attempt is given back.

For long random secrets, uuids and keys, nothing is asked or written while they are right::

    if account is None:
        await guard.wrong_guess(Realm.UUID, name=username, address=address)
        raise AccountUnknown

Names that exist and names that do not are the same here: nobody asks which they are.
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
"""Of an IPv6 address so many bits count: every customer has at least a network of the rest to himself."""

MAX_NAME = 1000
"""Characters of a name that are looked at; no account's name is nearly as long."""

NAMES_KEPT_MS = 365 * 24 * 60 * 60 * 1000
FORGIVEN_KEPT_MS = 24 * 60 * 60 * 1000
"""Where time forgives, a day has forgiven everything."""

MAX_ROWS = 1_000_000
"""Of the table. Over it, those with the fewest failures go first, so that no flood pushes out a name's long row."""

SWEEP_EVERY_MS = 10 * 60 * 1000
SWEEP_ROWS = 1000


class ThrottleScope(StrEnum):
    """What is guessed. Failures of one realm do not count in another."""

    LOGIN = "login"  # a user's password, wherever it is typed
    ADMIN = "admin"  # an administrator's password
    UUID = "uuid"
    KEY = "key"
    SESSION = "session"
    TOKEN = "token"  # noqa: S105 # of a mail, or the first administrator's code


PASSWORD_REALMS = (ThrottleScope.LOGIN, ThrottleScope.ADMIN)


class LoginThrottle:
    """Counts failures in ``login_guard``.

    Args:
        guards_addresses: ``False`` (``AIPROJECT_LIMITS=off``, for set-ups in which all callers share an address)
            counts passwords by name alone, and wrong guesses of long secrets not at all.
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
        realm: ThrottleScope,
        *,
        name: str,
        stored_key: str | None = None,
        address: str | None = None,
        turn: AbstractAsyncContextManager[None] | None = None,
    ) -> AsyncIterator[None]:
        """Count an attempt at a password around the block that checks it; see above.

        Args:
            name: in any spelling, of an account or of none.
            stored_key: under which the account is stored that the name means, where the name has several keys
                (`aiproject.protocols.names.lookup_keys`). Accounts whose names differ only by what is not displayed
                are counted apart by it; else the owner of one could forget the failures at the other's by a login.
            address: of the caller; ``None``: from this machine's command line, or not known.
            turn: entered before the attempt is counted and left at the end, `PasswordService.turn`: who is blocked
                need not queue, and who queues has written nothing yet.

        Raises:
            TooManyRequests: before the block is entered: the name or the address must wait, or the name is locked.
        """
        rules = self._rules(realm, name, address, stored_key)
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

    async def wrong_guess(self, realm: ThrottleScope, *, name: str | None, address: str | None) -> None:
        """Count a wrong guess of a long random secret, after it was seen to be wrong.

        Args:
            name: of the account that was named, if one was.

        Raises:
            TooManyRequests: too many before it; it is not counted then. The right secret would have passed.
        """
        rules = self._rules(realm, name, address)
        if self._guards_addresses and rules:
            await self._look(rules)  # who is blocked and hammers on writes nothing
            await self._count(rules)

    async def check(self, realm: ThrottleScope, *, name: str | None = None, address: str | None = None) -> None:
        """Look whether an attempt would be let through, and count nothing.

        Raises:
            TooManyRequests: it would not.
        """
        rules = self._rules(realm, name, address)
        if rules:
            await self._look(rules)

    async def unlock(self, realm: ThrottleScope, name: str, *, stored_key: str | None = None) -> bool:
        """Forget the failures of a name: its password was reset, or somebody in charge says so.

        Args:
            stored_key: as in `attempt`.

        Returns:
            whether there were any.
        """
        key = (f"{realm}:name", _name_subject(name, stored_key))
        return await self._database.transact(store.remove, [key]) > 0

    async def sweep(self) -> int:
        """Delete rows that do not matter any more, at most some thousands at a time; return how many.

        The rule knows no accounts: wrong passwords of a name are forgotten after a year without another one, everything
        else after a day; and over a million rows, those with the fewest failures.
        """
        now = self._clock()
        async with self._database.connect() as connection:
            keys = await store.oldest(
                connection,
                before=now - FORGIVEN_KEPT_MS,
                limit=SWEEP_ROWS,
                apart_from=[f"{realm}:name" for realm in PASSWORD_REALMS],
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
        self, realm: ThrottleScope, name: str | None, address: str | None, stored_key: str | None = None
    ) -> dict[Key, Rule]:  # fmt: skip
        is_password = realm in PASSWORD_REALMS
        rules = {}
        if name is not None:
            rules[f"{realm}:name", _name_subject(name, stored_key)] = NAME_RULE if is_password else GUESS_RULE
        if address is not None and self._guards_addresses:
            rules[f"{realm}:address", _address_subject(address)] = ADDRESS_RULE if is_password else GUESS_RULE
        return rules

    async def _look(self, rules: Mapping[Key, Rule]) -> None:
        async with self._database.connect() as connection:
            tallies = await store.read(connection, rules)
        self._refuse_blocked(rules, {key: tallies.get(key, NO_FAILURES) for key in rules}, self._clock())

    async def _count(self, rules: Mapping[Key, Rule]) -> None:
        for key, counted in (await self._database.transact(self._write_failures, rules)).items():
            if counted.failures == rules[key].most:
                log.warning("the last attempt before a lock", realm=key[0], subject=key[1][:12])  # a hash's beginning
        await self._sweep_now_and_then()

    async def _write_failures(self, connection: Connection, rules: Mapping[Key, Rule]) -> dict[Key, FailureCount]:
        now = self._clock()
        counts = await store.locked(connection, rules, now)
        self._refuse_blocked(rules, counts, now)
        counted = {key: counts[key].counted(rule, now) for key, rule in rules.items()}
        await store.write(connection, counted)
        return counted

    async def _give_back(self, rules: Mapping[Key, Rule], *, forgotten: Collection[Key]) -> None:
        await self._database.transact(_subtract, rules, forgotten)

    def _refuse_blocked(self, rules: Mapping[Key, Rule], tallies: Mapping[Key, FailureCount], now: int) -> None:
        wait = max(tallies[key].wait(rule, now) for key, rule in rules.items())
        if wait >= LOCKED_MS:
            raise TooManyRequests(wait // 1000, Detail.LOGIN_LOCKED)
        if wait > 0:
            raise TooManyRequests(-(-wait // 1000), Detail.TOO_MANY_FAILURES)

    async def _sweep_now_and_then(self) -> None:
        if self._clock() - self._swept_at < SWEEP_EVERY_MS:
            return
        self._swept_at = self._clock()
        try:
            await self.sweep()
        except AiProjectError as error:
            log.warning("old failures could not be swept away", error=type(error).__name__)  # next time, then


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
