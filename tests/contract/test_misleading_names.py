"""Names that look like somebody else's: who may have them, and that those who do stay who they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sa
from argon2.profiles import CHEAPEST

from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.accounts.login.throttle import LoginThrottle
from aiproject.accounts.login.throttle_rules import NAME_RULE
from aiproject.accounts.selfservice.deletion import AccountDeletion
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import administrator, user
from aiproject.adapters.http.asgi import RECORD
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.administration.jwts import Signer
from aiproject.administration.model import Administrator
from aiproject.administration.service import Administrators, Change
from aiproject.administration.table_store import Tables
from aiproject.administration.users import NewProfile, UserAdministration
from aiproject.audit.model import Actor, ActorKind, AuditContext
from aiproject.errors import InvalidInput, LoginFailed, NameTaken, TooManyRequests
from aiproject.ledger.model import Meter
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.protocols.names import exact_name_key

PASSWORD = "correct horse"
ORIGIN = AuditContext(Actor(ActorKind.COMMAND_LINE, "tests"), "", "test")
TWINS = ("owner", "Owner\u200b")


@pytest.fixture
async def passwords() -> AsyncIterator[PasswordService]:
    service = PasswordService(PasswordHasher(CHEAPEST))
    yield service
    await service.close()


@pytest.fixture
def quotas(database: Database) -> Quotas:
    return Quotas(database, LeaseTimes(30))


@pytest.fixture
def guard(database: Database) -> LoginThrottle:
    """One whose time stands still: a delay of a second might be over on a busy machine."""
    return LoginThrottle(database, clock=lambda: 1_800_000_000_000)


@pytest.fixture
def accounts(database: Database, passwords: PasswordService, quotas: Quotas, guard: LoginThrottle) -> Accounts:
    grant_opening = partial(quotas.grant_opening, tokens=100, pic_times=1, voice_ms=None)
    return Accounts(database, passwords, grant_opening, login_throttle=guard)


@pytest.fixture
def administrators(database: Database, passwords: PasswordService, guard: LoginThrottle) -> Administrators:
    return Administrators(database, passwords, Signer(b"k" * 32), login_throttle=guard)


@pytest.fixture
async def twins(accounts: Accounts, database: Database) -> list[Account]:
    """Two accounts of before: the second one's name is the first one's, but for what is not displayed."""
    first = await accounts.register(TWINS[0], PASSWORD, "")
    second = await accounts.register("another", "another horse", "")
    columns = {"UserName": TWINS[1], "NameKey": exact_name_key(TWINS[1])}
    async with database.begin() as connection:
        await connection.execute(user.update().where(user.c.AccountId == second.account_id).values(**columns))
    return [first, await accounts.named(TWINS[1])]


class TestNewNames:
    @pytest.mark.parametrize(
        "name",
        ["owner\u200b", "\u2060OWNER", "ow\u00adner", "owner\ufe0f", "\u202eowner", "own\u3164er", "Ｏwner\u200d"],
    )
    async def test_what_is_not_displayed_makes_no_other_name(
        self, accounts: Accounts, administrators: Administrators, name: str
    ) -> None:
        await accounts.register("owner", PASSWORD, "")
        with pytest.raises(NameTaken):
            await accounts.register(name, PASSWORD, "")
        await administrators.add("owner", PASSWORD, None, ORIGIN)
        with pytest.raises((NameTaken, InvalidInput)):
            await administrators.add(name, PASSWORD, None, ORIGIN)
        assert [each.name for each in await administrators.all()] == ["owner"]

    @pytest.mark.parametrize(
        "name", ["оwner", "раyраl", "\u202enimda", "\u2066x", "boss\ufff9", "2026\u2800", "x  y", "1\u0661"]
    )
    async def test_what_looks_like_another_one_is_refused(
        self, accounts: Accounts, administrators: Administrators, name: str
    ) -> None:
        with pytest.raises(InvalidInput, match=r"^NAME_"):
            await accounts.register(name, PASSWORD, "")
        with pytest.raises(InvalidInput, match=r"^NAME_"):
            await administrators.add(name, PASSWORD, None, ORIGIN)
        await administrators.add("boss", PASSWORD, None, ORIGIN)
        with pytest.raises(InvalidInput, match=r"^NAME_"):
            await administrators.modify("boss", Change(name=name), None, ORIGIN)

    @pytest.mark.parametrize("name", ["小明Tom", "小明❤\ufe0f", "田中さくら", "김민준 Kim", "Иван", "José"])
    async def test_honest_names_are_taken(
        self, accounts: Accounts, administrators: Administrators, name: str
    ) -> None:  # fmt: skip
        account = await accounts.register(name, PASSWORD, "")
        assert (await accounts.login(name, PASSWORD)).account_id == account.account_id
        assert (await administrators.add(name, PASSWORD, None, ORIGIN)).name == name


class TestTwins:
    async def test_each_logs_in_under_the_name_that_it_has(self, accounts: Accounts, twins: list[Account]) -> None:
        for name, password, twin in zip(TWINS, (PASSWORD, "another horse"), twins, strict=True):
            assert (await accounts.login(name, password)).account_id == twin.account_id
            assert (await accounts.identify(twin.uuid, [name])).account_id == twin.account_id
            assert (await accounts.named(name)).account_id == twin.account_id
        with pytest.raises(LoginFailed):
            await accounts.login("owner\u200d", "another horse")

    async def test_each_is_listed_once(
        self, accounts: Accounts, twins: list[Account], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aiproject.accounts.core.directory.LIST_PAGE", 1)
        assert [each.account_id async for each in accounts.all()] == [twin.account_id for twin in twins]

    async def test_each_calls_without_being_looked_up_again(
        self, accounts: Accounts, database: Database, quotas: Quotas, twins: list[Account]
    ) -> None:
        """The pair that is remembered is confirmed with the hold."""
        identities = Authenticator(accounts, ApiKeys(database))
        for twin in twins:
            for _ in range(2):
                scope = {"type": "http", "headers": [], "client": ("192.0.2.1", 1), RECORD: {}}
                caller = await identities.of_fields(scope, twin.uuid, twin.username, is_confirmed_later=True)
            assert caller.unconfirmed is not None
            hold = await quotas.hold(
                caller.account, Meter.TOKENS, 1, request_id=f"call-{twin.account_id}", pair=caller.unconfirmed
            )
            assert hold.amount == 1

    async def test_each_is_edited_without_losing_its_name(
        self, accounts: Accounts, database: Database, passwords: PasswordService, twins: list[Account]
    ) -> None:
        users = UserAdministration(database, passwords, accounts, AccountDeletion(database), voice_ms=None)
        for twin in twins:
            await users.modify(twin.username, NewProfile(twin.username, "", "new@example.com", None, 7, 7), ORIGIN)
            edited = await accounts.named(twin.username)
            assert (edited.account_id, edited.name_key) == (twin.account_id, twin.name_key)
            assert (edited.email, edited.tokens) == ("new@example.com", 7)

    async def test_each_is_shown_as_itself(self, database: Database, twins: list[Account]) -> None:
        for twin in twins:
            row = await Tables(database).row("user", twin.username, shows_codes=True)
            assert (row["Id"], row["UserName"]) == (str(twin.account_id), twin.username)
        row = await Tables(database).row("user", "OWNER\u200d", shows_codes=True)
        assert row["UserName"] == "owner"

    async def test_nobody_else_gets_the_name_that_is_stored_in_the_old_form(
        self, accounts: Accounts, database: Database, passwords: PasswordService, twins: list[Account]
    ) -> None:
        """The key that a new name would get is free once the other one is gone."""
        users = UserAdministration(database, passwords, accounts, AccountDeletion(database), voice_ms=None)
        await users.delete("owner", ORIGIN)
        await accounts.register("third", PASSWORD, "")
        with pytest.raises(NameTaken):
            await users.modify("third", NewProfile(TWINS[1], "", "", None, 7, 7), ORIGIN)
        with pytest.raises(NameTaken):
            await accounts.register(TWINS[1], PASSWORD, "")
        assert (await accounts.login(TWINS[1], "another horse")).account_id == twins[1].account_id

    async def test_a_login_of_one_forgets_no_failures_of_the_other(
        self, accounts: Accounts, database: Database, passwords: PasswordService, twins: list[Account]
    ) -> None:
        """Else the owner of one guesses at the password of the other without end."""
        users = UserAdministration(database, passwords, accounts, AccountDeletion(database), voice_ms=None)
        spellings = ("owner", "OWNER\u200c", "owner\ufe0f")
        for number in range(NAME_RULE.free):
            with pytest.raises(LoginFailed):
                await accounts.login(spellings[number % 3], "wrong guess")
            await accounts.login(TWINS[1], "another horse")
        await accounts.unlock(TWINS[1])
        await users.modify(TWINS[1], NewProfile("quite another", "another horse", "", None, 7, 7), ORIGIN)
        with pytest.raises(LoginFailed):
            await accounts.login("owner\u200d", "wrong guess")
        for name in spellings:
            with pytest.raises(TooManyRequests):
                await accounts.login(name, PASSWORD)
        await accounts.login("quite another", "another horse")


@pytest.fixture
async def twin(administrators: Administrators, database: Database) -> Administrator:
    """An administrator of before, whose name is the owner's but for what is not displayed."""
    await administrators.add("owner", PASSWORD, None, ORIGIN)
    made = await administrators.add("another", PASSWORD, None, ORIGIN)
    renamed = {"name": TWINS[1], "name_key": exact_name_key(TWINS[1])}
    async with database.begin() as connection:
        update = sa.update(administrator).where(administrator.c.admin_id == made.admin_id)
        await connection.execute(update.values(**renamed))
    return replace(made, name=TWINS[1])


async def test_an_administrator_forgets_no_failures_at_a_twin(
    administrators: Administrators, twin: Administrator
) -> None:  # fmt: skip
    for number in range(NAME_RULE.free + 1):
        with pytest.raises(LoginFailed):
            await administrators.login("owner", "wrong guess", "192.0.2.1", "request")
        if number % 2:
            await administrators.login(TWINS[1], PASSWORD, "192.0.2.1", "request")
        else:
            await administrators.modify(TWINS[1], Change(password=PASSWORD), twin, ORIGIN)
    with pytest.raises(TooManyRequests):
        await administrators.login("owner", PASSWORD, "192.0.2.1", "request")


async def test_no_other_administrator_gets_the_name_of_one(
    administrators: Administrators, twin: Administrator, database: Database
) -> None:
    await administrators.modify("owner", Change(name="boss"), None, ORIGIN)
    with pytest.raises(NameTaken):
        await administrators.add(TWINS[1], PASSWORD, None, ORIGIN)
    with pytest.raises(NameTaken):
        await administrators.modify("boss", Change(name=TWINS[1]), None, ORIGIN)
    row = await Tables(database).row("admin", TWINS[1], shows_codes=False)
    assert row["Id"] == str(twin.admin_id)
    await administrators.modify(TWINS[1], Change(name=TWINS[1].upper()), None, ORIGIN)  # the own name, spelt otherwise


async def test_an_administrator_with_a_twin_changes_the_own_password(
    administrators: Administrators, twin: Administrator
) -> None:  # fmt: skip
    await administrators.modify(TWINS[1], Change(password="quite another horse"), None, ORIGIN)
    for name, password, number in ((TWINS[1], "quite another horse", twin.admin_id), ("owner", PASSWORD, None)):
        signed_in = await administrators.login(name, password, "192.0.2.1", "request")
        assert number in (None, signed_in.administrator.admin_id)
