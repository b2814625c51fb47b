"""Names that look like somebody else's: who may have them, and that those who do stay who they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest
import sqlalchemy as sa

from aiproject.accounts import Account, Accounts, ApiKeys
from aiproject.accounts.identity.authenticator import Identities
from aiproject.accounts.selfservice.deletion import Closing
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import administrator, user
from aiproject.adapters.http.asgi import RECORD
from aiproject.adapters.passwords import CHEAP_PROFILE_FOR_TESTS, PasswordHasher, PasswordService
from aiproject.administration.jwts import Signer
from aiproject.administration.people import NewProfile, People
from aiproject.administration.service import Administrators, Change
from aiproject.audit import Actor, ActorKind, Origin
from aiproject.errors import InvalidInput, LoginFailed, NameTaken
from aiproject.ledger import Capability, LeaseTimes, Quotas
from aiproject.protocols.names import exact_name_key

PASSWORD = "correct horse"
ORIGIN = Origin(Actor(ActorKind.COMMAND_LINE, "tests"), "", "test")
TWINS = ("owner", "Owner\u200b")


@pytest.fixture
async def passwords() -> AsyncIterator[PasswordService]:
    service = PasswordService(PasswordHasher(CHEAP_PROFILE_FOR_TESTS))
    yield service
    await service.close()


@pytest.fixture
def quotas(database: Database) -> Quotas:
    return Quotas(database, LeaseTimes(30))


@pytest.fixture
def accounts(database: Database, passwords: PasswordService, quotas: Quotas) -> Accounts:
    return Accounts(database, passwords, partial(quotas.open_books, tokens=100, pic_times=1, voice_ms=None))


@pytest.fixture
def administrators(database: Database, passwords: PasswordService) -> Administrators:
    return Administrators(database, passwords, Signer(b"k" * 32))


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
        with pytest.raises(InvalidInput, match="用户名"):
            await accounts.register(name, PASSWORD, "")
        with pytest.raises(InvalidInput, match="用户名"):
            await administrators.add(name, PASSWORD, None, ORIGIN)
        await administrators.add("boss", PASSWORD, None, ORIGIN)
        with pytest.raises(InvalidInput, match="用户名"):
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
        monkeypatch.setattr("aiproject.accounts.core.service.LIST_PAGE", 1)
        assert [each.account_id async for each in accounts.all()] == [twin.account_id for twin in twins]

    async def test_each_calls_without_being_looked_up_again(
        self, accounts: Accounts, database: Database, quotas: Quotas, twins: list[Account]
    ) -> None:
        """The pair that is remembered is confirmed with the hold."""
        identities = Identities(accounts, ApiKeys(database))
        for twin in twins:
            for _ in range(2):
                scope = {"type": "http", "headers": [], "client": ("192.0.2.1", 1), RECORD: {}}
                caller = await identities.of_fields(scope, twin.uuid, twin.username, is_confirmed_later=True)
            assert caller.unconfirmed is not None
            hold = await quotas.hold(
                caller.account, Capability.TOKENS, 1, request_id=f"call-{twin.account_id}", pair=caller.unconfirmed
            )
            assert hold.amount == 1

    async def test_each_is_edited_without_losing_its_name(
        self, accounts: Accounts, database: Database, passwords: PasswordService, twins: list[Account]
    ) -> None:
        people = People(database, passwords, accounts, Closing(database), voice_ms=None)
        for twin in twins:
            await people.modify(twin.username, NewProfile(twin.username, "", "new@example.com", None, 7, 7), ORIGIN)
            edited = await accounts.named(twin.username)
            assert (edited.account_id, edited.name_key) == (twin.account_id, twin.name_key)
            assert (edited.email, edited.tokens) == ("new@example.com", 7)


async def test_an_administrator_with_a_twin_changes_the_own_password(
    administrators: Administrators, database: Database
) -> None:
    await administrators.add("owner", PASSWORD, None, ORIGIN)
    made = await administrators.add("another", PASSWORD, None, ORIGIN)
    renamed = {"name": TWINS[1], "name_key": exact_name_key(TWINS[1])}
    async with database.begin() as connection:
        update = sa.update(administrator).where(administrator.c.admin_id == made.admin_id)
        await connection.execute(update.values(**renamed))
    await administrators.modify(TWINS[1], Change(password="quite another horse"), None, ORIGIN)
    for name, password, number in ((TWINS[1], "quite another horse", made.admin_id), ("owner", PASSWORD, None)):
        signed_in = await administrators.login(name, password, "192.0.2.1", "request")
        assert number in (None, signed_in.administrator.admin_id)
