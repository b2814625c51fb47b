"""Use cases of administrators themselves; each opens and commits its own transaction, audit entry included."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiproject.accounts.core.model import check_name, is_askable, refuse_misleading_name
from aiproject.accounts.login.password_policy import MIN_PASSWORD_LENGTH, check_new_password
from aiproject.accounts.login.throttle import LoginThrottle, ThrottleScope
from aiproject.accounts.login.verifier import PasswordVerifier, StoredPassword, Verified
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.db.errors import PRIMARY, UniqueViolation
from aiproject.adapters.db.schema import NAME_LENGTH, name_key, new_account_id
from aiproject.adapters.passwords import PasswordService
from aiproject.administration import store
from aiproject.administration.jwts import SESSION_LIFETIME, Claims, Kind, Signer
from aiproject.administration.model import (
    Administrator,
    AdministratorUnknown,
    JwtRefused,
    NotPermitted,
    Role,
)
from aiproject.audit.model import CHANGED, Actor, ActorKind, AuditContext, Fact
from aiproject.audit.store import record
from aiproject.codes import Detail
from aiproject.errors import InvalidInput, LoginFailed, NameTaken

__all__ = ["Administrators", "Change", "Session", "SignedIn"]

FIRST_ID = 1
"""Number of the administrator that is made by the setup code: of two concurrent set-ups, the primary key lets one
succeed."""

DRAWS = 5


@dataclass(frozen=True, slots=True, repr=False)
class SignedIn:
    """What a login gives."""

    administrator: Administrator
    access_token: str
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Session:
    """An authenticated administrator."""

    administrator: Administrator
    session_id: str


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """The new values of an administrator; ``None``: unchanged."""

    name: str | None = None
    password: str | None = None
    role: Role | None = None


class AdministratorPasswords:
    """The passwords of administrators, for `PasswordVerifier`."""

    scope = ThrottleScope.ADMIN

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stored_key(self, name: str) -> str | None:
        """Return the key under which the administrator that the name means is stored."""
        async with self._database.connect() as connection:
            return await store.stored_key(connection, name)

    async def find(self, name: str) -> StoredPassword[Administrator] | None:
        """Return the administrator that the name means, and the password."""
        async with self._database.connect() as connection:
            found = await store.password_of(connection, name)
        return None if found is None else StoredPassword(*found)


class Administrators:
    """Making, changing and recognising administrators.

    Args:
        signer: ``None`` on the command line, where there are no logins.
        password_min_length: characters of a new password.
    """

    def __init__(
        self,
        database: Database,
        passwords: PasswordService,
        signer: Signer | None = None,
        *,
        login_throttle: LoginThrottle | None = None,
        password_min_length: int = MIN_PASSWORD_LENGTH,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._signer = signer
        self._login_throttle = login_throttle or LoginThrottle(database)
        self._verifier = PasswordVerifier(passwords, self._login_throttle)
        self._directory = AdministratorPasswords(database)
        self._password_min_length = password_min_length
        self._clock = clock

    # -- accounts of administrators -------------------------------------------------------------------------------

    async def add(self, name: str, password: str, role: Role | None, origin: AuditContext) -> Administrator:
        """Make an administrator.

        Args:
            role: ``None``: owner if there is no owner yet, else admin.

        Raises:
            InvalidInput: see `check_name`, `refuse_misleading_name` and `check_new_password`.
            NameTaken: by another administrator.
        """
        name, key, stored = await self._checked(name, password)
        for _ in range(DRAWS - 1):
            try:
                return await self._database.transact(self._add, name, key, stored, role, origin)
            except UniqueViolation:
                continue  # the number is taken: draw another one
        return await self._database.transact(self._add, name, key, stored, role, origin)

    async def _add(
        self, connection: Connection, name: str, key: str, stored: str, role: Role | None, origin: AuditContext
    ) -> Administrator:
        now = self._clock()
        owners = await store.count(connection, roles=[Role.OWNER])
        new = Administrator(new_account_id(now), name, role or (Role.ADMIN if owners else Role.OWNER), now, None)
        await self._insert(connection, new, key, stored, origin, "admin.add")
        return new

    async def set_up(self, name: str, password: str, address: str, request_id: str) -> Administrator:
        """Make the first administrator, an owner. The caller has checked the setup code.

        Raises:
            InvalidInput: as in `add`.
            LoginFailed: there is an administrator already.
        """
        name, key, stored = await self._checked(name, password)
        origin = AuditContext(Actor(ActorKind.SERVER, "setup code"), address, request_id)
        try:
            return await self._database.transact(self._add_first, name, key, stored, origin)
        except (UniqueViolation, NameTaken):
            raise LoginFailed from None

    async def _add_first(
        self, connection: Connection, name: str, key: str, stored: str, origin: AuditContext
    ) -> Administrator:
        if await store.count(connection):
            raise LoginFailed
        new = Administrator(FIRST_ID, name, Role.OWNER, self._clock(), None)
        await self._insert(connection, new, key, stored, origin, "admin.setup")
        return new

    async def modify(
        self,
        target: str,
        change: Change,
        by: Administrator | None,
        origin: AuditContext,
        *,
        session_id: str | None = None,
    ) -> Administrator:
        """Change an administrator's name, password or role.

        A new password or role ends all sessions of the target. Administrators who change their own name or password
        keep the session that asks, with both of its tokens, and lose all others.

        Args:
            by: who asks; ``None``: the command line. Owners may change everybody, others their own name and password;
                nobody changes their own role, so that there is always an owner left.
            session_id: of the session that asks; ``None``: no session does, so none is kept.

        Raises:
            JwtRefused: the session was ended while this call was on its way.
            NotPermitted: see above.
            AdministratorUnknown: there is none of this name.
            NameTaken: by another administrator.
            InvalidInput: nothing to change, or see `add`.
        """
        if change == Change():
            raise InvalidInput(Detail.NOTHING_TO_CHANGE)
        _refuse_unaskable(target)
        if by is not None:
            # Checked again under the row's lock. Here it saves hashing a password for a caller who may not set it.
            _refuse_unless_permitted(by, change, is_own=name_key(by.name) == name_key(target))
        columns = await self._columns(change, target)
        # Looked up before the name changes: afterwards ``target`` may mean another administrator.
        key = await self._directory.stored_key(target)
        changed = await self._database.transact(self._modify, target, change, columns, by, origin, session_id)
        if change.password is not None:
            await self._login_throttle.unlock(ThrottleScope.ADMIN, target, stored_key=key)
        return changed

    async def _modify(
        self,
        connection: Connection,
        target: str,
        change: Change,
        columns: dict[str, Any],
        by: Administrator | None,
        origin: AuditContext,
        session_id: str | None,
    ) -> Administrator:
        """Args: columns: the new values of the row, see `_columns`; the others: see `modify`."""
        now = self._clock()
        old = await store.by_name(connection, target, is_locked=True)
        is_own = by is not None and old is not None and old.admin_id == by.admin_id
        if by is not None:
            _refuse_unless_permitted(by, change, is_own=is_own)
        if old is None:
            raise AdministratorUnknown
        if is_own and session_id is not None:
            await _refuse_ended_session(connection, session_id, old.admin_id, now)
        if change.role not in (None, Role.OWNER) and by is None:
            await self._leave_an_owner(connection, old)
        ends = is_own or change.password is not None or change.role not in (None, old.role)
        stamped = {**columns, "password_changed_at": now} if change.password is not None else columns
        if change.name is not None:
            await _refuse_taken(connection, change.name, old.admin_id)
        try:
            await store.set_columns(connection, old.admin_id, **stamped)
        except UniqueViolation:
            raise NameTaken from None
        if ends:
            await store.end_sessions(connection, old.admin_id, now, kept=session_id if is_own else None)
        before, after = _difference(old, change)
        await record(connection, origin, "admin.modify", old.name, before=before, after=after)
        return Administrator(
            old.admin_id,
            columns.get("name", old.name),
            change.role or old.role,
            old.created_at,
            stamped.get("password_changed_at", old.password_changed_at),
        )

    async def remove(self, target: str, origin: AuditContext, *, owners_too: bool) -> Administrator:
        """Remove an administrator; all tokens of theirs become invalid at once.

        Args:
            owners_too: whether an owner may be removed (the command line), though never the last one.

        Raises:
            AdministratorUnknown: there is none of this name, or it is an owner.
            InvalidInput: it is the last owner.
        """
        _refuse_unaskable(target)
        return await self._database.transact(self._remove, target, origin, owners_too=owners_too)

    async def _remove(
        self, connection: Connection, target: str, origin: AuditContext, *, owners_too: bool
    ) -> Administrator:
        old = await store.by_name(connection, target, is_locked=True)
        if old is None or (old.role is Role.OWNER and not owners_too):
            raise AdministratorUnknown
        await self._leave_an_owner(connection, old)
        await store.remove(connection, old.admin_id)
        before: dict[str, Fact] = {"admin": old.admin_id, "role": str(old.role)}
        await record(connection, origin, "admin.delete", old.name, before=before)
        return old

    async def all(self) -> list[Administrator]:
        """Return all administrators in the order of names."""
        async with self._database.connect() as connection:
            return await store.listed(connection)

    async def exist(self) -> bool:
        """Say whether there is any administrator."""
        async with self._database.connect() as connection:
            return bool(await store.count(connection))

    # -- sessions -------------------------------------------------------------------------------------------------

    async def login(self, name: str, password: str, address: str, request_id: str) -> SignedIn:
        """Open a session. An unknown name costs the same work as a wrong password.

        Raises:
            LoginFailed: never says why.
            TooManyRequests: failures before it, of the name or the address, or logins at this moment; no work is done.
        """
        verified = await self._verifier.verify(self._directory, name, password, address=address)
        administrator, session_id = verified.owner, secrets.token_hex(16)
        origin = AuditContext(Actor(ActorKind.ADMINISTRATOR, administrator.name), address, request_id)
        try:
            await self._database.transact(self._open_session, verified, session_id, origin)
        except LoginFailed:
            if verified.rehashed is None:
                raise
            # A concurrent login may have renewed the hash, so the password is verified against the new one.
            return await self.login(name, password, address, request_id)
        claims, signer = Claims(administrator.admin_id, session_id), self._the_signer
        return SignedIn(
            administrator,
            signer.make("access", claims, administrator.name, is_fresh=True),
            signer.make("refresh", claims, administrator.name),
        )

    async def _open_session(
        self,
        connection: Connection,
        verified: Verified[Administrator],
        session_id: str,
        origin: AuditContext,
    ) -> None:
        now, administrator = self._clock(), verified.owner
        if await store.stored_password(connection, administrator.admin_id) != verified.stored:
            raise LoginFailed  # changed or removed while the password was being verified
        if verified.rehashed is not None:
            await store.set_columns(connection, administrator.admin_id, password=verified.rehashed)
        await store.forget_sessions(connection, administrator.admin_id, now)
        await store.add_session(
            connection,
            session_id,
            administrator.admin_id,
            now=now,
            expires_at=now + SESSION_LIFETIME,
            address=origin.address,
        )
        await record(connection, origin, "admin.login", administrator.name)

    async def authenticate(self, token: str, kind: Kind) -> Session:
        """Return the session of a token, looked up each time so that deletions and sign-outs take effect at once.

        Raises:
            JwtRefused: see `Signer.read`; or its session has ended, or its administrator was removed.
        """
        claims = self._the_signer.read(token, kind)
        async with self._database.connect() as connection:
            found = await store.of_session(connection, claims.session_id, claims.admin_id, self._clock())
        if found is None:
            raise JwtRefused(401, Detail.JWT_REVOKED)
        return Session(found, claims.session_id)

    def renew(self, session: Session) -> str:
        """Return a new access token of a session."""
        claims = Claims(session.administrator.admin_id, session.session_id)
        return self._the_signer.make("access", claims, session.administrator.name)

    async def logout(self, session: Session, origin: AuditContext) -> None:
        """End a session; both of its tokens become invalid at once."""
        await self._database.transact(self._end_session, session, origin)

    async def _end_session(self, connection: Connection, session: Session, origin: AuditContext) -> None:
        await store.end_session(connection, session.session_id, self._clock())
        await record(connection, origin, "admin.logout", session.administrator.name)

    # -- helpers ---------------------------------------------------------------------------------------------------

    @property
    def _the_signer(self) -> Signer:
        if self._signer is None:
            raise RuntimeError("administrators without a signer do not log in")
        return self._signer

    async def _checked(self, name: str, password: str) -> tuple[str, str, str]:
        """Return name, name key and password hash of a new administrator."""
        name = check_name(name)
        refuse_misleading_name(name)
        password = check_new_password(password, name, self._password_min_length)
        return name, name_key(name), await self._passwords.hash(password)

    async def _columns(self, change: Change, target: str) -> dict[str, Any]:
        name = target
        columns: dict[str, Any] = {}
        if change.name is not None:
            name = check_name(change.name)
            refuse_misleading_name(name)
            columns |= {"name": name, "name_key": name_key(name)}
        if change.password is not None:
            password = check_new_password(change.password, name, self._password_min_length)
            columns["password"] = await self._passwords.hash(password)
        if change.role is not None:
            columns["role"] = str(change.role)
        return columns

    async def _insert(
        self, connection: Connection, new: Administrator, key: str, stored: str, origin: AuditContext, action: str
    ) -> None:
        await _refuse_taken(connection, new.name, new.admin_id)
        try:
            await store.add(connection, new, name_key=key, password=stored)
        except UniqueViolation as error:
            if error.constraint == PRIMARY:
                raise
            raise NameTaken from None
        after: dict[str, Fact] = {"admin": new.admin_id, "role": str(new.role)}
        await record(connection, origin, action, new.name, after=after)

    async def _leave_an_owner(self, connection: Connection, old: Administrator) -> None:
        if old.role is Role.OWNER and await store.count(connection, roles=[Role.OWNER]) < 2:
            raise InvalidInput(Detail.LAST_OWNER)


def _refuse_unless_permitted(by: Administrator, change: Change, *, is_own: bool) -> None:
    if by.role is not Role.OWNER and (not is_own or change.role is not None):
        raise NotPermitted
    if is_own and change.role is not None:
        raise NotPermitted


async def _refuse_ended_session(connection: Connection, session_id: str, admin_id: int, now: datetime) -> None:
    """Check the session again, under the lock of its administrator's row.

    Two sessions may change the same password concurrently. The second was ended by the first and must not end the first
    in its turn.
    """
    if await store.of_session(connection, session_id, admin_id, now) is None:
        raise JwtRefused(401, Detail.JWT_REVOKED)


async def _refuse_taken(connection: Connection, name: str, admin_id: int) -> None:
    """Refuse a name that another administrator has, under any key. The unique index catches a concurrent one."""
    bearer = await store.by_name(connection, name)
    if bearer is not None and bearer.admin_id != admin_id:
        raise NameTaken


def _refuse_unaskable(name: str) -> None:
    if not is_askable(name) or not 0 < len(name.strip()) <= NAME_LENGTH:
        raise AdministratorUnknown


def _difference(old: Administrator, change: Change) -> tuple[dict[str, Fact], dict[str, Fact]]:
    before: dict[str, Fact] = {}
    after: dict[str, Fact] = {}
    if change.name is not None:
        before["name"], after["name"] = old.name, change.name.strip()
    if change.role is not None:
        before["role"], after["role"] = str(old.role), str(change.role)
    if change.password is not None:
        after["password"] = CHANGED
    return before, after
